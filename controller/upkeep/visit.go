package upkeep

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/controller/care"
	"github.com/edgeherd/edgeherd/controller/site"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// defaultStops is how many sites one person reaches in a day.
const defaultStops = 8

// Plan makes the route of a day. With Keep it makes the visits and dispatches
// their tickets.
func (d *Desk) Plan(ctx context.Context, p fleetapi.PlanVisits, by string) (plan fleetapi.VisitPlan, err error) {
	do := func(out *acted) error {
		c := out.tx
		plan, err = d.route(ctx, c, p)
		if err != nil || !p.Keep {
			return err
		}
		for _, s := range plan.Stops {
			v := fleetapi.Visit{Site: s.Site, Day: plan.Day, Assignee: p.Assignee, By: by, Parts: s.Parts, Tickets: []string{}}
			for _, t := range s.Tickets {
				v.Tickets = append(v.Tickets, t.ID)
			}
			if err := d.makeVisit(ctx, out, &v, s.Tickets); err != nil {
				return err
			}
			plan.Made = append(plan.Made, v)
		}
		return nil
	}
	if p.Keep {
		return plan, d.act(ctx, by, do)
	}
	err = d.opts.Store.CareView(ctx, func(c *store.CareTx) error { return do(&acted{tx: c, by: by}) })
	return plan, err
}

func (d *Desk) route(ctx context.Context, c *store.CareTx, p fleetapi.PlanVisits) (fleetapi.VisitPlan, error) {
	all, err := c.Tickets(ctx, store.OpenOnly)
	if err != nil {
		return fleetapi.VisitPlan{}, err
	}
	places := map[string]care.Point{}
	all = slices.DeleteFunc(all, func(t fleetapi.Ticket) bool {
		return p.Region != "" && t.Region != p.Region || len(p.Sites) > 0 && !slices.Contains(p.Sites, t.Site)
	})
	for _, t := range all {
		location, err := c.LocationOf(ctx, t.Site)
		if err != nil {
			return fleetapi.VisitPlan{}, err
		}
		if lat, lon, err := site.Degrees(location); location != "" && err == nil {
			places[t.Site] = care.Point{Lat: lat, Lon: lon}
		}
	}
	most := p.Stops
	if most <= 0 {
		most = defaultStops
	}
	plan := care.Route(care.Stops(all), places, most)
	plan.Region, plan.Day, plan.Made = p.Region, d.day(p.Day), []fleetapi.Visit{}
	return plan, nil
}

func (d *Desk) day(day string) string {
	if day == "" {
		return d.now().Format(time.DateOnly)
	}
	return day
}

// makeVisit stores a visit and dispatches its tickets.
func (d *Desk) makeVisit(ctx context.Context, out *acted, v *fleetapi.Visit, tickets []fleetapi.Ticket) error {
	c, by := out.tx, out.by
	v.State, v.Created = fleetapi.VisitPlanned, d.now()
	if v.Work == nil {
		v.Work = []fleetapi.Work{}
	}
	p, err := c.SitePlace(ctx, v.Site)
	if err != nil {
		return err
	}
	v.Region = p.Region
	if err := c.PutVisit(ctx, v); err != nil {
		return err
	}
	for _, t := range tickets {
		was := t
		care.Dispatch(&t, care.Order{Assignee: v.Assignee, Visit: v.ID, By: by, Note: v.Day}, d.now())
		if err := d.put(ctx, c, &was, &t); err != nil {
			return err
		}
		out.tickets = append(out.tickets, t)
	}
	out.visits = append(out.visits, v.ID)
	return nil
}

// AddVisit plans one visit, or records one that is over.
func (d *Desk) AddVisit(ctx context.Context, n fleetapi.NewVisit, by string) (v fleetapi.Visit, err error) {
	err = d.act(ctx, by, func(out *acted) error {
		c := out.tx
		if len(n.Work) > 0 && !n.Done {
			return care.Refusal{Why: "a visit that is planned has no work yet", Hint: "Say that it is done as well, or leave the work out."}
		}
		ok, err := c.SiteExists(ctx, n.Site)
		if err == nil && !ok {
			err = fmt.Errorf("site %q: %w", n.Site, store.ErrNotFound)
		}
		if err != nil {
			return err
		}
		tickets, err := d.ticketsFor(ctx, c, n)
		if err != nil {
			return err
		}
		v = fleetapi.Visit{Site: n.Site, Day: d.day(n.Day), Assignee: n.Assignee, Note: n.Note, By: by, Tickets: []string{}, Parts: care.Parts(tickets)}
		for _, t := range tickets {
			v.Tickets = append(v.Tickets, t.ID)
		}
		if err := d.makeVisit(ctx, out, &v, tickets); err != nil || !n.Done {
			return err
		}
		v, err = d.endVisit(ctx, out, v, fleetapi.VisitAction{Action: "done", Work: n.Work})
		return err
	})
	return v, err
}

// ticketsFor are the tickets that a visit is for: those that it names, else all
// that are due at its site.
func (d *Desk) ticketsFor(ctx context.Context, c *store.CareTx, n fleetapi.NewVisit) ([]fleetapi.Ticket, error) {
	var out []fleetapi.Ticket
	for _, id := range n.Tickets {
		t, err := c.Ticket(ctx, id)
		if err != nil {
			return nil, err
		}
		if t.Site != n.Site || !care.CanGo(t) {
			return nil, care.Refusal{Why: fmt.Sprintf("ticket %s is %s and of site %s", t.ID, t.State, t.Site), Hint: "Name tickets of " + n.Site + " that nobody is there for."}
		}
		if !slices.ContainsFunc(out, func(o fleetapi.Ticket) bool { return o.ID == t.ID }) {
			out = append(out, t)
		}
	}
	if len(n.Tickets) > 0 {
		return out, nil
	}
	all, err := c.Tickets(ctx, store.OpenOnly)
	if err != nil {
		return nil, err
	}
	for _, s := range care.Stops(all) {
		if s.Site == n.Site {
			return s.Tickets, nil
		}
	}
	return nil, nil
}

// ActVisit does with a visit what a person asks for.
func (d *Desk) ActVisit(ctx context.Context, id string, a fleetapi.VisitAction, by string) (v fleetapi.Visit, err error) {
	err = d.act(ctx, by, func(out *acted) error {
		c := out.tx
		if v, err = c.Visit(ctx, id); err != nil {
			return err
		}
		if v.Ended != nil {
			return care.Refusal{Why: fmt.Sprintf("visit %s is %s", v.ID, v.State), Hint: "Plan a new one."}
		}
		mine, err := ticketsOf(ctx, c, v)
		if err != nil {
			return err
		}
		switch a.Action {
		case "arrive":
			if v.State == fleetapi.VisitOnSite {
				return nil
			}
			now := d.now()
			v.State, v.Arrived = fleetapi.VisitOnSite, &now
			for _, t := range mine {
				if _, err := d.actTx(ctx, out, t.ID, fleetapi.TicketAction{Action: "arrive", Note: a.Note}); err != nil {
					return err
				}
			}
		case "done":
			v, err = d.endVisit(ctx, out, v, a)
			return err
		case "cancel":
			now := d.now()
			v.State, v.Ended = fleetapi.VisitCanceled, &now
			for _, t := range mine {
				if err := d.free(ctx, out, t, v.ID+" was canceled"); err != nil {
					return err
				}
			}
		}
		out.visits = append(out.visits, v.ID)
		return c.PutVisit(ctx, &v)
	})
	return v, err
}

// ticketsOf are the tickets that a visit is to work on yet: some may be of
// another visit by now, or done without one.
func ticketsOf(ctx context.Context, c *store.CareTx, v fleetapi.Visit) ([]fleetapi.Ticket, error) {
	var out []fleetapi.Ticket
	for _, id := range v.Tickets {
		t, err := c.Ticket(ctx, id)
		if err != nil {
			return nil, err
		}
		if t.Visit == v.ID && (t.State == fleetapi.TicketDispatched || t.State == fleetapi.TicketOnSite) {
			out = append(out, t)
		}
	}
	return out, nil
}

// free has a ticket of a visit wait for another one.
func (d *Desk) free(ctx context.Context, out *acted, t fleetapi.Ticket, why string) error {
	was := t
	care.Undispatch(&t, why, out.by, d.now())
	out.tickets = append(out.tickets, t)
	return d.put(ctx, out.tx, &was, &t)
}

// endVisit records the work of a visit and has its tickets done. What nobody
// worked on goes back to those that are due, unless nothing was found.
func (d *Desk) endVisit(ctx context.Context, out *acted, v fleetapi.Visit, a fleetapi.VisitAction) (fleetapi.Visit, error) {
	c := out.tx
	work, err := d.work(ctx, out, a.Work, "")
	if err != nil {
		return v, err
	}
	worked := map[string]bool{}
	for _, w := range work {
		worked[w.Box] = true
	}
	tickets, err := ticketsOf(ctx, c, v)
	if err != nil {
		return v, err
	}
	for _, t := range tickets {
		if len(work) > 0 && t.Box != "" && !worked[t.BoxName] && !a.NoFault {
			if err := d.free(ctx, out, t, "nobody worked on the box in "+v.ID); err != nil {
				return v, err
			}
			continue
		}
		mine := slices.DeleteFunc(slices.Clone(work), func(w fleetapi.Work) bool { return w.Box != t.BoxName })
		t, err = d.doneTx(ctx, out, t, fleetapi.TicketAction{Action: "done", NoFault: a.NoFault, Note: a.Note, Work: mine})
		if err != nil {
			return v, err
		}
		out.tickets = append(out.tickets, t)
	}
	now := d.now()
	v.State, v.Ended, v.Work = fleetapi.VisitDone, &now, append(v.Work, work...)
	if v.Arrived == nil {
		v.Arrived = &now
	}
	out.visits = append(out.visits, v.ID)
	return v, c.PutVisit(ctx, &v)
}

// doneTx has a ticket done whose work is recorded already.
func (d *Desk) doneTx(ctx context.Context, out *acted, was fleetapi.Ticket, a fleetapi.TicketAction) (fleetapi.Ticket, error) {
	t, err := care.Act(was, a, out.by, d.excess(ctx, out.tx, was.Box), d.now())
	if err != nil {
		return was, err
	}
	return t, d.put(ctx, out.tx, &was, &t)
}

// OpenRMA sends a part back.
func (d *Desk) OpenRMA(ctx context.Context, n fleetapi.NewRMA) (r fleetapi.RMA, err error) {
	err = d.act(ctx, "", func(out *acted) error {
		c := out.tx
		r = fleetapi.RMA{State: "open", Ticket: n.Ticket, Part: n.Part, Serial: n.Serial, Vendor: n.Vendor, VendorNo: n.VendorNo, Note: n.Note, Opened: d.now()}
		if n.Ticket != "" {
			t, err := c.Ticket(ctx, n.Ticket)
			if err != nil {
				return err
			}
			r.Box, r.BoxName, r.Site = t.Box, t.BoxName, t.Site
		}
		if n.Box != "" {
			if r.Box, err = c.Find(ctx, n.Box); err != nil {
				return err
			}
			p, err := c.Place(ctx, r.Box)
			if err != nil {
				return err
			}
			r.BoxName, r.Site = p.BoxName, p.Site
		}
		return c.PutRMA(ctx, &r)
	})
	return r, err
}

// ActRMA moves an RMA on.
func (d *Desk) ActRMA(ctx context.Context, id string, a fleetapi.RMAAction) (r fleetapi.RMA, err error) {
	err = d.act(ctx, "", func(out *acted) error {
		c := out.tx
		if r, err = c.RMA(ctx, id); err != nil {
			return err
		}
		if r.Closed != nil {
			return care.Refusal{Why: "RMA " + id + " is closed", Hint: "Open a new one."}
		}
		now := d.now()
		switch a.Action {
		case "shipped":
			r.State, r.Shipped = "shipped", &now
		case "received":
			r.State, r.Received = "received", &now
		case "close":
			r.State, r.Closed = "closed", &now
		}
		for _, t := range []struct {
			is   string
			into *string
		}{{a.VendorNo, &r.VendorNo}, {a.Credit, &r.Credit}, {a.Note, &r.Note}} {
			if t.is != "" {
				*t.into = t.is
			}
		}
		return c.PutRMA(ctx, &r)
	})
	return r, err
}
