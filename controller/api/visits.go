package api

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/controller/audit"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

func (a *API) registerVisits() {
	route(a, get("/visits", "listVisits", "Visits, newest first", "care"), a.listVisits)
	route(a, get("/visits/{id}", "getVisit", "One visit", "care"), a.getVisit)
	add := post("/visits", "addVisit", "Plan a visit, or record one that is over", "care")
	add.DefaultStatus = http.StatusCreated
	route(a, a.acting(add), a.addVisit)
	route(a, a.acting(post("/visits:plan", "planVisits", "The route of a day; with keep it makes the visits", "care")), a.planVisits)
	route(a, a.acting(post("/visits/{id}/actions", "actOnVisit", "Arrive, done or cancel", "care")), a.actOnVisit)
	route(a, get("/rmas", "listRMAs", "Parts on their way back to their vendors, newest first", "care"), a.listRMAs)
	open := post("/rmas", "openRMA", "Send a part back", "care")
	open.DefaultStatus = http.StatusCreated
	route(a, a.acting(open), a.openRMA)
	route(a, a.acting(post("/rmas/{id}/actions", "actOnRMA", "Shipped, received or close", "care")), a.actOnRMA)
}

type listVisitsInput struct {
	Site string `query:"site" maxLength:"200"`
	Open bool   `query:"open" doc:"only those that have not ended"`
}

func (a *API) listVisits(ctx context.Context, in *listVisitsInput) (fleetapi.VisitList, error) {
	since := time.UnixMilli(0)
	if in.Open {
		since = a.opts.WallClock().AddDate(1000, 0, 0)
	}
	list := fleetapi.VisitList{Items: []fleetapi.Visit{}}
	err := a.opts.Store.CareView(ctx, func(c *store.CareTx) error {
		all, err := c.Visits(ctx, since)
		list.Items = slices.DeleteFunc(all, func(v fleetapi.Visit) bool { return in.Site != "" && v.Site != in.Site || !sees(ctx, v.Site) })
		return err
	})
	slices.SortStableFunc(list.Items, func(a, b fleetapi.Visit) int {
		return cmp.Or(cmp.Compare(b.Day, a.Day), b.Created.Compare(a.Created), cmp.Compare(a.ID, b.ID))
	})
	return list, err
}

type visitInput struct {
	ID string `path:"id" pattern:"^V-[0-9]{1,12}$" example:"V-3"`
}

func (a *API) getVisit(ctx context.Context, in *visitInput) (v fleetapi.Visit, err error) {
	err = a.opts.Store.CareView(ctx, func(c *store.CareTx) error {
		v, err = c.Visit(ctx, in.ID)
		return err
	})
	return v, err
}

type addVisitInput struct{ Body fleetapi.NewVisit }

func (a *API) addVisit(ctx context.Context, in *addVisitInput) (fleetapi.Visit, error) {
	if err := a.mayName(ctx, named{sites: []string{in.Body.Site}, tickets: in.Body.Tickets, boxes: boxesOf(in.Body.Work)}); err != nil {
		return fleetapi.Visit{}, err
	}
	v, err := a.opts.Desk.AddVisit(ctx, in.Body, who(ctx).Name)
	a.acted(ctx, err, "visit added", "visit", v.ID, "site", v.Site)
	return v, refusal(err)
}

type planVisitsInput struct{ Body fleetapi.PlanVisits }

func (a *API) planVisits(ctx context.Context, in *planVisitsInput) (fleetapi.VisitPlan, error) {
	if err := a.mayName(ctx, named{sites: in.Body.Sites}); err != nil {
		return fleetapi.VisitPlan{}, err
	}
	if len(in.Body.Sites) == 0 && !who(ctx).Everywhere() {
		in.Body.Sites = who(ctx).Sites
	}
	if !in.Body.Keep {
		audit.Of(ctx).Drop()
	}
	p, err := a.opts.Desk.Plan(ctx, in.Body, who(ctx).Name)
	if in.Body.Keep {
		a.acted(ctx, err, "visits planned", "visits", len(p.Made))
	}
	return p, refusal(err)
}

type actOnVisitInput struct {
	ID   string `path:"id" pattern:"^V-[0-9]{1,12}$" example:"V-3"`
	Body fleetapi.VisitAction
}

func (a *API) actOnVisit(ctx context.Context, in *actOnVisitInput) (fleetapi.Visit, error) {
	if err := a.mayName(ctx, named{boxes: boxesOf(in.Body.Work)}); err != nil {
		return fleetapi.Visit{}, err
	}
	audit.Of(ctx).Note = in.Body.Action
	v, err := a.opts.Desk.ActVisit(ctx, in.ID, in.Body, who(ctx).Name)
	a.acted(ctx, err, "visit moved on", "visit", in.ID, "action", in.Body.Action)
	return v, refusal(err)
}

func (a *API) listRMAs(ctx context.Context, _ *nothing) (fleetapi.RMAList, error) {
	list := fleetapi.RMAList{Items: []fleetapi.RMA{}}
	err := a.opts.Store.CareView(ctx, func(c *store.CareTx) (err error) {
		all, err := c.RMAs(ctx, time.UnixMilli(0))
		list.Items = slices.DeleteFunc(all, func(r fleetapi.RMA) bool { return !sees(ctx, r.Site) })
		return err
	})
	slices.SortStableFunc(list.Items, func(a, b fleetapi.RMA) int { return b.Opened.Compare(a.Opened) })
	return list, err
}

type openRMAInput struct{ Body fleetapi.NewRMA }

func (a *API) openRMA(ctx context.Context, in *openRMAInput) (fleetapi.RMA, error) {
	n := named{}
	if in.Body.Box != "" || in.Body.Ticket == "" { // an RMA of no box is of no site
		n.boxes = []string{in.Body.Box}
	}
	if in.Body.Ticket != "" {
		n.tickets = []string{in.Body.Ticket}
	}
	if err := a.mayName(ctx, n); err != nil {
		return fleetapi.RMA{}, err
	}
	r, err := a.opts.Desk.OpenRMA(ctx, in.Body)
	a.acted(ctx, err, "RMA opened", "rma", r.ID)
	return r, refusal(err)
}

type actOnRMAInput struct {
	ID   string `path:"id" pattern:"^R-[0-9]{1,12}$" example:"R-2"`
	Body fleetapi.RMAAction
}

func (a *API) actOnRMA(ctx context.Context, in *actOnRMAInput) (fleetapi.RMA, error) {
	audit.Of(ctx).Note = in.Body.Action
	r, err := a.opts.Desk.ActRMA(ctx, in.ID, in.Body)
	a.acted(ctx, err, "RMA moved on", "rma", in.ID, "action", in.Body.Action)
	return r, refusal(err)
}
