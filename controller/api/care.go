package api

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/controller/authz"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/controller/upkeep"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
)

func (a *API) registerCare() {
	route(a, get("/care", "care", "The fleet's upkeep in numbers", "care"), a.care)
	route(a, get("/care/sites", "careSites", "How each site stands, the worst first", "care"), a.careSites)
	route(a, get("/boxes/{id}/care", "boxCare", "Heat, findings and upkeep of a box", "care"), a.boxCare)
	route(a, a.acting(post("/boxes/{id}/care", "setBoxUpkeep", "Say where a box stands and which filter it has", "care")), a.setBoxUpkeep)
	route(a, get("/resets", "listResets", "Restarts of boxes and their likely causes, newest first", "care"), a.listResets)
	route(a, post("/notify:test", "testNotify", "Tell the endpoints of notices a test", "care"), a.testNotify)
}

type spanInput struct {
	Days int `query:"days" minimum:"1" maximum:"3650" default:"90" doc:"how far back"`
}

func daysBefore(now time.Time, days int) time.Time { return now.UTC().AddDate(0, 0, -days) }

func (a *API) care(ctx context.Context, in *spanInput) (fleetapi.CareReport, error) {
	from := daysBefore(a.opts.WallClock(), in.Days)
	if !who(ctx).Everywhere() {
		return a.ownCare(ctx, from)
	}
	r, err := a.opts.Desk.Report(ctx, from)
	if err != nil {
		return r, err
	}
	r.Notify, err = a.opts.Notify.States(ctx)
	return r, err
}

func (a *API) careSites(ctx context.Context, _ *nothing) (fleetapi.SiteCareList, error) {
	list, err := a.opts.Desk.Sites(ctx)
	list.Items = slices.DeleteFunc(list.Items, func(s fleetapi.SiteCare) bool { return !sees(ctx, s.Site) })
	return list, err
}

func (a *API) boxCare(ctx context.Context, in *boxInput) (fleetapi.BoxCare, error) {
	b, err := a.getBox(ctx, in)
	if err != nil {
		return fleetapi.BoxCare{}, err
	}
	care, err := a.opts.Desk.Box(ctx, b)
	if err != nil {
		return care, err
	}
	made, err := a.opts.Store.PhotoMade(ctx, b.ID)
	if errors.Is(err, store.ErrNotFound) {
		return care, nil
	}
	made = made.UTC()
	care.Photo = &made
	return care, err
}

type setBoxUpkeepInput struct {
	ID   string `path:"id" pattern:"^d-[a-z2-7]{13}$" example:"d-abcdefghijklm"`
	Body fleetapi.Upkeep
}

func (a *API) setBoxUpkeep(ctx context.Context, in *setBoxUpkeepInput) (fleetapi.BoxCare, error) {
	err := a.opts.Desk.SetUpkeep(ctx, in.ID, in.Body, who(ctx).Name)
	a.acted(ctx, err, "upkeep of a box written down", "device", in.ID)
	if err != nil {
		return fleetapi.BoxCare{}, refusal(err)
	}
	return a.boxCare(ctx, &boxInput{in.ID})
}

type listResetsInput struct {
	Days  int    `query:"days" minimum:"1" maximum:"3650" default:"90" doc:"how far back"`
	Box   string `query:"box" pattern:"^(d-[a-z2-7]{13})?$" doc:"id"`
	Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
}

func (a *API) listResets(ctx context.Context, in *listResetsInput) (fleetapi.ResetList, error) {
	list := fleetapi.ResetList{Items: []fleetapi.Reset{}, From: daysBefore(a.opts.WallClock(), in.Days)}
	names := map[identity.ID]fleetapi.Box{}
	boxes, err := a.boxes(ctx)
	if err != nil {
		return list, err
	}
	for _, b := range boxes {
		names[b.ID] = b
	}
	asked := []identity.ID{identity.ID(in.Box)} // "" is all
	if !who(ctx).Everywhere() {
		if in.Box == "" {
			asked = slices.Collect(maps.Keys(names))
		} else if _, own := names[asked[0]]; !own {
			return list, refused(authz.ErrForeign)
		}
	}
	var rows []store.ResetRow
	list.Causes = map[string]int{}
	for _, id := range asked {
		some, err := a.opts.Store.Resets(ctx, id, list.From, in.Limit)
		if err != nil {
			return list, err
		}
		rows = append(rows, some...)
		causes, err := a.opts.Store.ResetCauses(ctx, id, list.From)
		if err != nil {
			return list, err
		}
		for cause, n := range causes {
			list.Causes[cause] += n
		}
	}
	slices.SortStableFunc(rows, func(x, y store.ResetRow) int { return cmp.Compare(y.TimeMs, x.TimeMs) })
	rows = rows[:min(len(rows), in.Limit)]
	for _, r := range rows {
		v := upkeep.ResetOf(r)
		v.BoxName, v.Site = names[r.Box].Name, names[r.Box].Site
		list.Items = append(list.Items, v)
	}
	return list, err
}

type testNotifyInput struct{ Body fleetapi.NotifyTest }

func (a *API) testNotify(ctx context.Context, in *testNotifyInput) (fleetapi.NotifyTestResults, error) {
	items, err := a.opts.Notify.Test(ctx, in.Body.Endpoint)
	return fleetapi.NotifyTestResults{Items: items}, err
}
