package upkeep

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/controller/care"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/health"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// heardWithin: what a box measured longer ago tells nothing of its like today.
const heardWithin = 3 * 24 * time.Hour

// Compare takes what boxes of a site, or of a SKU, say together into tickets.
func (d *Desk) Compare(ctx context.Context) error {
	boxes, err := d.opts.Store.CareBoxes(ctx)
	if err != nil {
		return err
	}
	standings := care.Standings(d.members(boxes))
	var changed []fleetapi.Ticket
	err = d.opts.Store.Care(ctx, func(c *store.CareTx) error {
		changed = nil
		groups, err := c.TicketsOfGroups(ctx, d.now().AddDate(-2, 0, 0)) // the longest mute
		if err != nil {
			return err
		}
		own, err := c.Tickets(ctx, store.OpenOnly)
		if err != nil {
			return err
		}
		for _, s := range standings {
			if err := placeGroup(ctx, c, &s); err != nil {
				return err
			}
			news := care.Agreed(groups, s, own, d.now())
			if err := d.putAll(ctx, c, groups, news); err != nil {
				return err
			}
			changed = append(changed, news...)
		}
		lost := care.Lost(groups, d.now())
		changed = append(changed, lost...)
		if err := d.putAll(ctx, c, groups, lost); err != nil {
			return err
		}
		rooms, err := d.refreshRooms(ctx, c, groups)
		changed = append(changed, rooms...)
		return err
	})
	if err != nil {
		return err
	}
	d.changed(changed)
	return d.tellMates(ctx, boxes)
}

// refreshRooms brings the tickets of hot rooms up to date with what the air of
// their boxes was in the last hour that is judged.
func (d *Desk) refreshRooms(ctx context.Context, c *store.CareTx, groups []fleetapi.Ticket) ([]fleetapi.Ticket, error) {
	var changed []fleetapi.Ticket
	for _, t := range groups {
		if t.State.Ended() || !slices.Contains(t.Families, care.CauseHVAC) {
			continue
		}
		rows, err := c.FindingsAt(ctx, t.Site, string(health.CauseAmbient))
		if err != nil {
			return nil, err
		}
		var open []health.Finding
		for _, row := range rows {
			s, err := c.HeatState(ctx, row.Box)
			if err != nil {
				return nil, err
			}
			open = append(open, ambientOf(s)...)
		}
		for _, in := range health.Agree(t.Site, open) {
			if in.Closed != 0 {
				continue
			}
			care.Refresh(&t, fleetapi.Finding{Evidence: care.Evidences(in.Evidence)}, d.now())
			if err := c.PutTicket(ctx, &t); err != nil {
				return nil, err
			}
			changed = append(changed, t)
			break
		}
	}
	return changed, nil
}

// ambientOf is the open finding about the air in a stored state of a box.
func ambientOf(state []byte) []health.Finding {
	var s stored
	if state == nil || json.Unmarshal(state, &s) != nil || s.Box == nil {
		return nil
	}
	return slices.DeleteFunc(s.Box.Open, func(f health.Finding) bool { return f.Cause != health.CauseAmbient || len(f.Evidence) == 0 })
}

// members are the boxes that can be compared. What people muted they know of.
func (d *Desk) members(boxes []store.Box) []care.Member {
	var out []care.Member
	for _, b := range boxes {
		h, ok := care.ReadHeat(b.Heat)
		if !ok || h.Percent == nil || d.now().Sub(time.Unix(h.LastHour, 0)) > heardWithin {
			continue
		}
		if slices.ContainsFunc(b.Findings, func(f store.FindingRow) bool { return f.Muted && f.Family == "resistance" }) {
			continue
		}
		out = append(out, care.Member{Box: b.ID, Name: b.Name, Site: b.Site, SKU: h.SKU, Percent: *h.Percent})
	}
	return out
}

func placeGroup(ctx context.Context, c *store.CareTx, s *care.Standing) error {
	if s.Site != "" {
		p, err := c.SitePlace(ctx, s.Site)
		if err != nil {
			return err
		}
		s.Region = p.Region
	}
	if len(s.Boxes) == 0 {
		return nil
	}
	p, err := c.Place(ctx, s.Boxes[0].Box)
	s.Simulated = p.Simulated
	return err
}

// refresh brings the open tickets of a box up to date with what is open there
// today: the box tells of a finding when it changes, not each day.
func (d *Desk) refresh(ctx context.Context, id identity.ID, b *health.Box) error {
	var open []fleetapi.Finding
	for _, f := range b.Open {
		open = append(open, care.FindingOf(f))
	}
	var changed []fleetapi.Ticket
	err := d.opts.Store.Care(ctx, func(c *store.CareTx) error {
		have, err := c.TicketsOf(ctx, id, "", store.OpenOnly)
		if err != nil {
			return err
		}
		changed = care.Refreshed(have, open, d.now())
		for i := range changed {
			if err := c.PutTicket(ctx, &changed[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	d.changed(changed)
	return nil
}
