package upkeep

import (
	"context"
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
		own, err := c.Tickets(ctx, d.now().AddDate(1000, 0, 0)) // only those that have not ended
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
		return d.putAll(ctx, c, groups, lost)
	})
	if err != nil {
		return err
	}
	d.changed(changed)
	return nil
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
		have, err := c.TicketsOf(ctx, id, "", d.now().AddDate(1000, 0, 0))
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
