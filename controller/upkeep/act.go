package upkeep

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/controller/care"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/health"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// acted is one transaction of a person, and what it leads to after it.
type acted struct {
	tx      *store.CareTx
	by      string // who
	tickets []fleetapi.Ticket
	visits  []string
	boxes   []identity.ID // to be told of changes
}

// act runs do in one transaction, then tells browsers and boxes.
func (d *Desk) act(ctx context.Context, by string, do func(*acted) error) error {
	var a acted
	err := d.opts.Store.Care(ctx, func(c *store.CareTx) error {
		a = acted{tx: c, by: by}
		return do(&a)
	})
	if err != nil {
		return err
	}
	d.changed(a.tickets)
	for _, id := range a.visits {
		d.opts.Changed(fleetapi.Change{Topic: "visits", ID: id})
	}
	d.news()
	for _, id := range slices.Compact(slices.Sorted(slices.Values(a.boxes))) {
		if err := d.TellBox(ctx, id); err != nil {
			d.log.Warn("box not told of work on it", "device", id, "err", err)
		}
	}
	return nil
}

// Act does with a ticket what a person asks for.
func (d *Desk) Act(ctx context.Context, id string, a fleetapi.TicketAction, by string) (t fleetapi.Ticket, err error) {
	err = d.act(ctx, by, func(out *acted) error {
		t, err = d.actTx(ctx, out, id, a)
		return err
	})
	return t, err
}

func (d *Desk) actTx(ctx context.Context, out *acted, id string, a fleetapi.TicketAction) (fleetapi.Ticket, error) {
	c, by := out.tx, out.by
	was, err := c.Ticket(ctx, id)
	if err != nil {
		return was, err
	}
	if a.Action == "reopen" && was.State.Ended() {
		if err := d.mayReopen(ctx, c, was); err != nil {
			return was, err
		}
	}
	t, err := care.Act(was, a, by, d.excess(ctx, c, was.Box), d.now())
	if err != nil {
		return was, err
	}
	if len(t.Timeline) == len(was.Timeline) {
		return t, nil // it was so already
	}
	if a.Action == "done" {
		if _, err := d.work(ctx, out, a.Work, t.Box); err != nil {
			return was, err
		}
	}
	if err := d.mute(ctx, out, was, a); err != nil {
		return was, err
	}
	if err := d.put(ctx, c, &was, &t); err != nil {
		return was, err
	}
	out.tickets = append(out.tickets, t)
	return t, nil
}

func (d *Desk) mayReopen(ctx context.Context, c *store.CareTx, t fleetapi.Ticket) error {
	have, err := c.TicketsOf(ctx, t.Box, t.Site, store.OpenOnly)
	if err != nil {
		return err
	}
	for _, o := range have {
		if o.Cause == t.Cause && !o.State.Ended() {
			return care.Refusal{Why: fmt.Sprintf("%s is open for the same: %s has one ticket of a cause at a time", o.ID, orSite(t)), Hint: "Work on " + o.ID + "."}
		}
	}
	return nil
}

func orSite(t fleetapi.Ticket) string {
	if t.BoxName != "" {
		return "box " + t.BoxName
	}
	return "site " + t.Site
}

// mute keeps findings that a person knows of, or knows to be wrong, quiet.
func (d *Desk) mute(ctx context.Context, out *acted, t fleetapi.Ticket, a fleetapi.TicketAction) error {
	c, by := out.tx, out.by
	if a.Action != "close" || a.Resolution != "false-alarm" && a.Resolution != "accepted" || t.Box == "" {
		return nil
	}
	for _, family := range t.Families {
		m := store.Mute{Box: t.Box, Family: family, UntilMs: d.now().AddDate(0, 0, care.MuteDays(a)).UnixMilli(), Why: strings.TrimSuffix(a.Resolution+": "+a.Note, ": "), By: by}
		if err := c.Mute(ctx, m); err != nil {
			return err
		}
	}
	out.boxes = append(out.boxes, t.Box)
	return nil
}

// excess is the resistance of a box above the clean box, percent.
func (d *Desk) excess(ctx context.Context, c *store.CareTx, box identity.ID) float64 {
	raw, err := c.HeatState(ctx, box)
	var s stored
	if err != nil || raw == nil || json.Unmarshal(raw, &s) != nil || s.Box == nil || s.Box.Base == nil {
		return math.NaN()
	}
	// A blocked vent shows in hours, dust in days: the larger one counts.
	now := readingSince(s.Box, time.Unix(s.Box.Last.Start, 0).Add(-24*time.Hour)).Percent
	if n := len(s.Box.Days); n > 0 && s.Box.Days[n-1].S7.OK() {
		if week := health.Percent(float64(s.Box.Days[n-1].S7)); math.IsNaN(now) || week > now {
			return week
		}
	}
	return now
}

// work records what was done to boxes. A word for a box that is not there is
// refused, so that nothing is written down for nobody.
func (d *Desk) work(ctx context.Context, out *acted, all []fleetapi.Work, box identity.ID) ([]fleetapi.Work, error) {
	c, by := out.tx, out.by
	done := []fleetapi.Work{}
	for _, w := range all {
		id := box
		if w.Box != "" {
			var err error
			if id, err = c.Find(ctx, w.Box); err != nil {
				return nil, care.Refusal{Why: fmt.Sprintf("work on %q: there is no such box", w.Box), Hint: "`edgeherd box list` shows the boxes."}
			}
		}
		if id == "" {
			return nil, care.Refusal{Why: fmt.Sprintf("work %q names no box", w.Kind), Hint: "Name the box of each work."}
		}
		if w.At.IsZero() {
			w.At = d.now()
		}
		if w.At.After(d.now().Add(time.Minute)) || w.At.Year() < 2000 {
			return nil, care.Refusal{Why: fmt.Sprintf("work %q at %s is in the future, or long ago", w.Kind, w.At.Format(time.RFC3339)), Hint: "Leave the time out for now."}
		}
		p, err := c.Place(ctx, id)
		if err != nil {
			return nil, err
		}
		w.Box, w.By, w.Count, w.At = p.BoxName, by, max(w.Count, 1), w.At.UTC()
		detail := strings.TrimSpace(strings.Join([]string{w.Part, w.Serial}, " "))
		if err := c.Log(ctx, store.ChangeRow{Box: id, TimeMs: w.At.UnixMilli(), Kind: w.Kind, Detail: detail, By: by}); err != nil {
			return nil, err
		}
		if w.Kind == fleetapi.WorkFilter {
			if err := d.newFilter(ctx, c, id, w); err != nil {
				return nil, err
			}
		}
		if w.Part != "" || partOf[w.Kind] != "" {
			if err := c.Used(ctx, store.PartUsed{Region: p.Region, Site: p.Site, Box: id, Kind: partKind(w), Part: w.Part, Serial: w.Serial, Count: w.Count, TimeMs: w.At.UnixMilli()}); err != nil {
				return nil, err
			}
		}
		done, out.boxes = append(done, w), append(out.boxes, id)
	}
	return done, nil
}

// partOf is the kind of part that work takes.
var partOf = map[string]string{
	fleetapi.WorkFilter: "filter", fleetapi.WorkFan: "fan", fleetapi.WorkPaste: "paste", fleetapi.WorkSSD: "ssd", fleetapi.WorkPSU: "psu", fleetapi.WorkBoxReplaced: "box",
}

func partKind(w fleetapi.Work) string {
	if k := partOf[w.Kind]; k != "" {
		return k
	}
	return w.Part
}

func (d *Desk) newFilter(ctx context.Context, c *store.CareTx, id identity.ID, w fleetapi.Work) error {
	u, err := c.Upkeep(ctx, id)
	if err != nil {
		return err
	}
	at := w.At
	u.FilterInstalled = &at
	if w.Part != "" {
		u.FilterPart = w.Part
	}
	return c.PutUpkeep(ctx, id, u)
}

// Open makes a ticket that a person asks for.
func (d *Desk) Open(ctx context.Context, n fleetapi.NewTicket, by string) (t fleetapi.Ticket, err error) {
	err = d.act(ctx, by, func(out *acted) error {
		c := out.tx
		t = fleetapi.Ticket{State: fleetapi.TicketOpen, Level: fleetapi.HealthTicket, Cause: n.Cause, Manual: true, Do: care.Do(n.Cause), Part: care.PartOf(n.Cause),
			Why: n.Note, Evidence: []fleetapi.Evidence{}, Families: []string{}, Since: d.now(), Opened: d.now(), Changed: d.now()}
		if n.Level == "urgent" {
			t.Level = fleetapi.HealthUrgent
		}
		if err := placeTicket(ctx, c, n, &t); err != nil {
			return err
		}
		if err := d.mayReopen(ctx, c, t); err != nil {
			return err
		}
		t.Timeline = []fleetapi.TicketStep{{Time: d.now(), By: by, What: "opened", State: t.State, Text: n.Note}}
		if err := d.put(ctx, c, nil, &t); err != nil {
			return err
		}
		out.tickets = append(out.tickets, t)
		return nil
	})
	return t, err
}

func placeTicket(ctx context.Context, c *store.CareTx, n fleetapi.NewTicket, t *fleetapi.Ticket) error {
	var p care.Place
	switch {
	case (n.Box == "") == (n.Site == ""):
		return care.Refusal{Why: "a ticket is of one box or of one site", Hint: "Name a box or a site, not both."}
	case n.Box != "":
		id, err := c.Find(ctx, n.Box)
		if err != nil {
			return err
		}
		t.Box = id
		if p, err = c.Place(ctx, id); err != nil {
			return err
		}
	default:
		ok, err := c.SiteExists(ctx, n.Site)
		if err == nil && !ok {
			err = fmt.Errorf("site %q: %w", n.Site, store.ErrNotFound)
		}
		if err != nil {
			return err
		}
		if p, err = c.SitePlace(ctx, n.Site); err != nil {
			return err
		}
	}
	t.BoxName, t.Site, t.Region, t.Place, t.SKU, t.Simulated = p.BoxName, p.Site, p.Region, p.Place, p.SKU, p.Simulated
	return nil
}

// SetUpkeep stores what people say of a box.
func (d *Desk) SetUpkeep(ctx context.Context, box string, u fleetapi.Upkeep, by string) error {
	return d.act(ctx, by, func(out *acted) error {
		c := out.tx
		id, err := c.Find(ctx, box)
		if err != nil {
			return err
		}
		was, err := c.Upkeep(ctx, id)
		if err != nil {
			return err
		}
		// A day is given as its midnight in UTC, which in the east is yet to come.
		if u.FilterInstalled != nil && (u.FilterInstalled.After(d.now().AddDate(0, 0, 1)) || u.FilterInstalled.Year() < 2000) {
			return care.Refusal{Why: "a filter that was put in on " + u.FilterInstalled.Format(time.DateOnly), Hint: "Give a day since 2000 that is not in the future."}
		}
		if u.FilterInstalled != nil && (was.FilterInstalled == nil || !was.FilterInstalled.Equal(*u.FilterInstalled)) {
			if err := c.Log(ctx, store.ChangeRow{Box: id, TimeMs: u.FilterInstalled.UnixMilli(), Kind: health.FilterInstalled, Detail: u.FilterPart, By: by}); err != nil {
				return err
			}
		}
		out.boxes = append(out.boxes, id)
		return c.PutUpkeep(ctx, id, u)
	})
}

// IsRefusal says whether an error is the answer to a request that the present
// state forbids, and the way out.
func IsRefusal(err error) (care.Refusal, bool) {
	var r care.Refusal
	ok := errors.As(err, &r)
	return r, ok
}
