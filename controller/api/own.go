package api

import (
	"context"
	"errors"
	"time"

	"github.com/edgeherd/edgeherd/controller/authz"
	"github.com/edgeherd/edgeherd/controller/care"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// This file is about callers who see some sites only: what is told to them.

// named is what the body of a request names.
type named struct{ sites, boxes, tickets []string }

// mayName refuses a body that names what the caller may not know of, as if it
// did not exist.
func (a *API) mayName(ctx context.Context, n named) error {
	if who(ctx).Everywhere() {
		return nil
	}
	for _, site := range n.sites {
		if site == "" && len(n.boxes)+len(n.tickets) > 0 {
			continue // they say where
		}
		if err := mayAt(ctx, authz.Tend, site); err != nil {
			return err
		}
	}
	for _, id := range n.tickets {
		t, err := a.getTicket(ctx, &ticketInput{id})
		if err == nil {
			err = mayAt(ctx, authz.Tend, t.Site)
		}
		if err != nil {
			return notTold(err)
		}
	}
	for _, word := range n.boxes {
		if word == "" && len(n.sites)+len(n.tickets) > 0 {
			continue
		}
		err := a.opts.Store.CareView(ctx, func(c *store.CareTx) error {
			id, err := c.Find(ctx, word)
			if err != nil {
				return err
			}
			p, err := c.Place(ctx, id)
			if err != nil {
				return err
			}
			return mayAt(ctx, authz.Tend, p.Site)
		})
		if err != nil {
			return notTold(err)
		}
	}
	return nil
}

// notTold makes what is unknown look like what is foreign.
func notTold(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return refused(authz.ErrForeign)
	}
	return err
}

// boxesOf are the boxes that work names.
func boxesOf(work []fleetapi.Work) (out []string) {
	for _, w := range work {
		if w.Box != "" {
			out = append(out, w.Box)
		}
	}
	return out
}

// seen is a rollout as the caller sees it: for who sees some sites only, their
// boxes, and nothing that is said of all. Without a box of theirs it is nothing.
func seen(ctx context.Context, r fleetapi.Rollout) (fleetapi.Rollout, bool) {
	r = whole(r)
	if who(ctx).Everywhere() {
		return r, true
	}
	out, mine := r, false
	out.Sentence, out.Affected, out.Request, out.Sheet = "", "", fleetapi.PlanRequest{Model: r.Request.Model, Release: r.Request.Release}, nil
	out.SentenceSaid, out.AffectedSaid, out.WarningsSaid = nil, nil, nil
	out.Warnings, out.Waves = []string{}, []fleetapi.Wave{}
	for _, w := range r.Waves {
		part := fleetapi.Wave{State: w.State, Tail: w.Tail, Started: w.Started, Ended: w.Ended, SoakEnds: w.SoakEnds, Targets: []fleetapi.Target{}}
		for _, t := range w.Targets {
			if sees(ctx, t.Site) {
				part.Targets, mine = append(part.Targets, t), true
			}
		}
		part.Counts = fleetapi.CountTargets(part.Targets)
		out.Waves = append(out.Waves, part)
	}
	return out, mine
}

// ownCare is the report of the upkeep of the sites that the caller sees. What is
// learnt of many boxes, such as spare parts and SKUs, is not in it.
func (a *API) ownCare(ctx context.Context, from time.Time) (fleetapi.CareReport, error) {
	r := fleetapi.CareReport{
		From: from, Levels: map[string]int{}, Causes: map[string]int{}, SKUs: []fleetapi.Cohort{}, Priors: map[string]fleetapi.CarePrior{},
		Spares: []fleetapi.SpareDemand{}, Watch: []fleetapi.Finding{}, Notify: map[string]fleetapi.NotifyState{},
	}
	boxes, err := a.boxes(ctx)
	if err != nil {
		return r, err
	}
	for _, b := range boxes {
		r.Levels[string(b.Health)]++
		if !b.Thermal.Known {
			r.Unjudged++
		}
		for _, cause := range b.Thermal.Causes {
			r.Causes[cause]++
		}
	}
	tickets, err := a.matchingTickets(ctx, "", "")
	if err != nil {
		return r, err
	}
	r.Tickets = care.Count(tickets)
	care.Measure(&r, tickets, len(boxes), from, a.opts.WallClock())
	resets, err := a.listResets(ctx, &listResetsInput{Days: int(a.opts.WallClock().Sub(from).Hours()/24) + 1, Limit: 1})
	r.Resets = resets.Causes
	return r, err
}

// ownChange is a change as the caller may learn of it; false: not at all.
func (a *API) ownChange(ctx context.Context, c fleetapi.Change) (fleetapi.Change, bool) {
	if who(ctx).Everywhere() || c.ID == "" {
		return c, true
	}
	site, err := "", error(nil)
	switch c.Topic {
	case "boxes", "live":
		site, err = a.opts.Store.SiteOf(ctx, identity.ID(c.ID))
	case "sites":
		site = c.ID
	case "tickets":
		var t fleetapi.Ticket
		t, err = a.getTicket(ctx, &ticketInput{c.ID})
		site = t.Site
	case "visits":
		var v fleetapi.Visit
		v, err = a.getVisit(ctx, &visitInput{c.ID})
		site = v.Site
	case "models", "releases":
		return c, true
	default: // of rollouts, that there is one
		c.ID = ""
		return c, true
	}
	if err != nil {
		// Ask again about all: what cannot be found out is not told.
		return fleetapi.Change{Topic: c.Topic}, c.Topic != "live"
	}
	return c, sees(ctx, site)
}
