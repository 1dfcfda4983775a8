package upkeep

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/controller/care"
	"github.com/edgeherd/edgeherd/controller/site"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/health"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// newsAtOnce findings are taken in one transaction.
const newsAtOnce = 200

// TakeNews turns what boxes found since into tickets.
func (d *Desk) TakeNews(ctx context.Context) error {
	// Nearly always there is none: looking must not hold up boxes.
	if any, err := d.opts.Store.AnyNews(ctx); err != nil || !any {
		return err
	}
	for {
		var changed []fleetapi.Ticket
		taken := 0
		err := d.opts.Store.Care(ctx, func(c *store.CareTx) error {
			changed = nil
			news, err := c.News(ctx, newsAtOnce)
			if taken = len(news); err != nil || taken == 0 {
				return err
			}
			sites := map[string]bool{}
			for _, row := range news {
				t, site, err := d.takeFinding(ctx, c, row)
				if err != nil {
					return err
				}
				changed = append(changed, t...)
				if site != "" {
					sites[site] = true
				}
			}
			for _, name := range slices.Sorted(maps.Keys(sites)) {
				t, err := d.lookAtRoom(ctx, c, name)
				if err != nil {
					return err
				}
				changed = append(changed, t...)
			}
			return c.Seen(ctx, news)
		})
		if err != nil {
			return err
		}
		d.changed(changed)
		if taken < newsAtOnce {
			return nil
		}
	}
}

// takeFinding takes one finding into tickets. site is set when the air of a
// room may be its cause.
func (d *Desk) takeFinding(ctx context.Context, c *store.CareTx, row store.FindingRow) (changed []fleetapi.Ticket, site string, err error) {
	f, ok := row.Finding()
	if !ok {
		return nil, "", nil // of a newer agent; the event tells people
	}
	p, err := c.Place(ctx, row.Box)
	if err != nil {
		return nil, "", err
	}
	if p.BoxName == "" {
		return nil, "", nil // the box is gone
	}
	have, err := c.TicketsOf(ctx, row.Box, "", d.now().Add(-care.RecentlyEnded))
	if err != nil {
		return nil, "", err
	}
	changed = care.Find(have, f, p, d.now())
	if f.Cause == string(health.CauseAmbient) {
		site = p.Site
	}
	return changed, site, d.putAll(ctx, c, have, changed)
}

// putAll stores what changed. Those that ended come first: of one cause a box
// has one ticket that has not.
func (d *Desk) putAll(ctx context.Context, c *store.CareTx, have, changed []fleetapi.Ticket) error {
	slices.SortStableFunc(changed, func(a, b fleetapi.Ticket) int {
		switch {
		case a.State.Ended() == b.State.Ended():
			return 0
		case a.State.Ended():
			return -1
		}
		return 1
	})
	for i := range changed {
		var was *fleetapi.Ticket
		if at := slices.IndexFunc(have, func(t fleetapi.Ticket) bool { return t.ID == changed[i].ID && t.ID != "" }); at >= 0 {
			was = &have[at]
		}
		if err := d.put(ctx, c, was, &changed[i]); err != nil {
			return err
		}
	}
	return nil
}

// lookAtRoom asks whether boxes of a site agree that its air is hot.
func (d *Desk) lookAtRoom(ctx context.Context, c *store.CareTx, name string) ([]fleetapi.Ticket, error) {
	rows, err := c.FindingsAt(ctx, name, string(health.CauseAmbient))
	if err != nil {
		return nil, err
	}
	var open []health.Finding
	for _, row := range rows {
		var f health.Finding
		if !row.Muted && json.Unmarshal(row.Body, &f) == nil && f.Cause == health.CauseAmbient && len(f.Evidence) > 0 {
			open = append(open, f)
		}
	}
	var boxes []string
	var evidence []fleetapi.Evidence
	var since time.Time
	for _, in := range health.Agree(name, open) {
		if in.Closed != 0 {
			continue
		}
		for _, id := range in.Boxes {
			p, err := c.Place(ctx, identity.ID(id))
			if err != nil {
				return nil, err
			}
			boxes = append(boxes, p.BoxName)
		}
		evidence = care.Evidences(in.Evidence)
		if at := time.Unix(int64(in.Since), 0).UTC(); since.IsZero() || at.Before(since) {
			since = at
		}
	}
	slices.Sort(boxes)
	have, err := c.TicketsOf(ctx, "", name, d.now().Add(-care.RecentlyEnded))
	if err != nil {
		return nil, err
	}
	p, err := c.SitePlace(ctx, name)
	if err != nil {
		return nil, err
	}
	changed := care.HotRoom(have, care.Room{Place: p, Boxes: slices.Compact(boxes), Evidence: evidence, Since: since}, d.now())
	return changed, d.putAll(ctx, c, have, changed)
}

// Verify decides about tickets whose work is done.
func (d *Desk) Verify(ctx context.Context) error {
	var changed []fleetapi.Ticket
	err := d.opts.Store.Care(ctx, func(c *store.CareTx) error {
		changed = nil
		all, err := c.Tickets(ctx, store.OpenOnly)
		if err != nil {
			return err
		}
		for i := range all {
			was := all[i]
			if was.State != fleetapi.TicketDone || was.Check == nil {
				continue
			}
			raw, err := c.HeatState(ctx, was.Box)
			if err != nil {
				return err
			}
			reading := care.Reading{}
			var s stored
			if raw != nil && json.Unmarshal(raw, &s) == nil && s.Box != nil {
				reading = readingSince(s.Box, was.Check.From)
			}
			t, ok := care.Verify(was, reading, d.now())
			if !ok {
				continue
			}
			if err := d.put(ctx, c, &was, &t); err != nil {
				return err
			}
			changed = append(changed, t)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("prove work: %w", err)
	}
	d.changed(changed)
	return nil
}

// Digest queues the weekly word about what is only watched, on Monday from 7
// o'clock UTC on. The key of the week keeps it from being told twice.
func (d *Desk) Digest(ctx context.Context) error {
	now := d.now()
	if now.Weekday() != time.Monday || now.Hour() < 7 {
		return nil
	}
	year, week := now.ISOWeek()
	boxes, err := d.opts.Store.CareBoxes(ctx)
	if err != nil {
		return err
	}
	watch := watched(boxes)
	return d.opts.Store.Care(ctx, func(c *store.CareTx) error {
		for _, ch := range d.opts.Channels {
			mine := slices.DeleteFunc(slices.Clone(watch), func(f fleetapi.Finding) bool {
				return len(ch.Sites) > 0 && !slices.Contains(ch.Sites, f.Site)
			})
			if n, ok := care.Digest(mine, fmt.Sprintf("%d-W%02d", year, week), now, ch.Words); ok && care.AtLeast(n.Level, ch.Least) {
				if err := d.queue(ctx, c, ch, n, "UTC"); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// watched are the open findings that make no ticket.
func watched(boxes []store.Box) []fleetapi.Finding {
	out := []fleetapi.Finding{}
	for _, b := range boxes {
		for _, row := range b.Findings {
			if f, ok := row.Finding(); ok && f.Level == fleetapi.HealthWatch && !f.Muted && f.Closed == nil {
				f.BoxName, f.Site = b.Name, b.Site
				out = append(out, f)
			}
		}
	}
	return out
}

// news is what a channel hears of a ticket that changed. One of a SKU that has
// reached a site of the channel is new there.
func (ch Channel) news(was *fleetapi.Ticket, is fleetapi.Ticket, now time.Time) []care.Notice {
	if was != nil && is.Site == "" && !is.State.Ended() && !(care.Notice{Sites: was.Sites}).About(ch.Sites) {
		was = nil
	}
	return slices.DeleteFunc(care.Notices(was, is, now, ch.Words), func(n care.Notice) bool {
		return !care.AtLeast(n.Level, ch.Least) || !n.About(ch.Sites)
	})
}

// notify queues what channels hear of a ticket that changed.
func (d *Desk) notify(ctx context.Context, c *store.CareTx, was *fleetapi.Ticket, is fleetapi.Ticket) error {
	zone, err := c.ZoneOf(ctx, is.Site)
	if err != nil {
		return err
	}
	for _, ch := range d.opts.Channels {
		for _, n := range ch.news(was, is, d.now()) {
			if err := d.queue(ctx, c, ch, n, zone); err != nil {
				return err
			}
		}
	}
	return nil
}

// groupIn sets which ticket of a site or SKU a box's ticket is part of, so that
// people have one item, not many. Urgent ones, and those whose work did not
// help, stand for themselves.
func (d *Desk) groupIn(ctx context.Context, c *store.CareTx, was, t *fleetapi.Ticket) error {
	switch {
	case was == nil && t.Box != "":
		groups, err := c.TicketsOfGroups(ctx, store.OpenOnly)
		if err != nil {
			return err
		}
		t.Within = care.Within(*t, groups)
	case t.Level == fleetapi.HealthUrgent || t.State == fleetapi.TicketReopened:
		t.Within = ""
	}
	return nil
}

// release tells of what was part of a ticket that ended and has not ended
// itself.
func (d *Desk) release(ctx context.Context, c *store.CareTx, ended fleetapi.Ticket) error {
	open, err := c.Tickets(ctx, store.OpenOnly)
	if err != nil {
		return err
	}
	for _, was := range open {
		if was.Within != ended.ID {
			continue
		}
		is, tell := care.Apart(was, ended)
		if err := c.PutTicket(ctx, &is); err != nil {
			return err
		}
		if tell {
			if err := d.notify(ctx, c, &was, is); err != nil {
				return err
			}
		}
	}
	return nil
}

// queue has a channel told; what may wait does so until the quiet time of the
// site is over.
func (d *Desk) queue(ctx context.Context, c *store.CareTx, ch Channel, n care.Notice, zone string) error {
	body, err := json.Marshal(n)
	if err != nil {
		return err
	}
	due := d.now()
	if n.Quietly() {
		due = site.AfterQuiet(ch.Quiet, zone, due)
	}
	return c.Notify(ctx, store.Notice{Endpoint: ch.Name, Key: n.Key, DueMs: due.UnixMilli(), Body: body})
}
