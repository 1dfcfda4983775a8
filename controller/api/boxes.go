package api

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/edgeherd/edgeherd/controller/authz"
	"github.com/edgeherd/edgeherd/controller/registry"
	"github.com/edgeherd/edgeherd/controller/rollout"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// readsSpan is how far back results are counted, as fleetapi.Reads says.
const readsSpan = time.Hour

func (a *API) registerBoxes() {
	route(a, get("/summary", "summary", "The fleet in numbers", "fleet"), a.summary)
	list := get("/boxes", "listBoxes", "Boxes that match a filter; all of them as CSV with Accept: text/csv", "boxes")
	list.Middlewares = huma.Middlewares{asCSV(a, "boxes", csvColumns, a.matching)}
	route(a, list, a.listBoxes)
	route(a, get("/boxes/{id}", "getBox", "One box", "boxes"), a.getBox)
	route(a, get("/boxes/{id}/series", "boxSeries", "Metrics of a box over time", "boxes"), a.boxSeries)
	route(a, get("/boxes/{id}/events", "boxEvents", "Newest events of a box", "boxes"), a.boxEvents)
	route(a, get("/boxes/{id}/faults", "boxFaults", "What goes wrong with the messages of a box, newest first", "boxes"), a.boxFaults)
	route(a, get("/boxes/{id}/results", "boxResults", "Newest results of the pipelines of a box", "boxes"), a.boxResults)
}

// boxes are all boxes that the caller sees, as they are now.
func (a *API) boxes(ctx context.Context) ([]fleetapi.Box, error) {
	now := a.opts.WallClock()
	stored, err := a.opts.Store.Boxes(ctx, now.Add(-readsSpan).UnixMilli())
	if err != nil {
		return nil, err
	}
	out := make([]fleetapi.Box, 0, len(stored))
	for _, b := range stored {
		if sees(ctx, b.Site) {
			out = append(out, registry.View(b, now))
		}
	}
	return out, nil
}

func (a *API) summary(ctx context.Context, _ *nothing) (fleetapi.Summary, error) {
	boxes, err := a.boxes(ctx)
	if err != nil {
		return fleetapi.Summary{}, err
	}
	s := fleetapi.Summary{
		Total: len(boxes), Links: map[string]int{}, Healths: map[string]int{}, Updates: map[string]int{},
		Development: a.development(ctx), Version: a.opts.Version, Time: a.opts.WallClock().UTC(),
	}
	trouble := a.trouble()
	s.Trouble, s.TroubleSaid = trouble.Text, trouble.Beside()
	for _, b := range boxes {
		s.Links[string(b.Link)]++
		s.Healths[string(b.Health)]++
		s.Updates[string(b.Update)]++
		if b.Simulated {
			s.Simulated++
		}
	}
	return s, nil
}

type listBoxesInput struct {
	Filter    string `query:"filter" maxLength:"4096" doc:"AIP-160 expression over boxes" example:"health = \"ticket\" AND temp_die > 85"`
	OrderBy   string `query:"order_by" maxLength:"64" doc:"a field, with \" desc\" to reverse" example:"temp_die desc"`
	PageSize  int    `query:"page_size" minimum:"1" maximum:"1000" default:"100"`
	PageToken string `query:"page_token" maxLength:"8192" doc:"next_page_token of the page before"`
}

// matching returns the boxes that the filter matches, in order.
func (a *API) matching(ctx context.Context, filter, order string) ([]fleetapi.Box, error) {
	f, err := registry.ParseFilter(filter)
	if err != nil {
		return nil, badRequest("", "%s", err)
	}
	boxes, err := a.boxes(ctx)
	if err != nil {
		return nil, err
	}
	boxes = slices.DeleteFunc(boxes, func(b fleetapi.Box) bool { return !f.Match(b) })
	if err := registry.Sort(boxes, order); err != nil {
		return nil, badRequest("", "%s", err)
	}
	return boxes, nil
}

func (a *API) listBoxes(ctx context.Context, in *listBoxesInput) (fleetapi.BoxList, error) {
	boxes, err := a.matching(ctx, in.Filter, in.OrderBy)
	if err != nil {
		return fleetapi.BoxList{}, err
	}
	list := fleetapi.BoxList{Items: []fleetapi.Box{}, TotalSize: len(boxes)}
	query := queryHash(in.Filter, in.OrderBy)
	if in.PageToken != "" {
		if boxes, err = after(boxes, in.PageToken, query, in.OrderBy); err != nil {
			return fleetapi.BoxList{}, err
		}
	}
	list.Items = append(list.Items, boxes[:min(in.PageSize, len(boxes))]...)
	if len(boxes) > in.PageSize {
		list.NextPageToken = pageToken(query, list.Items[in.PageSize-1])
	}
	return list, nil
}

type boxInput struct {
	ID string `path:"id" pattern:"^d-[a-z2-7]{13}$" example:"d-abcdefghijklm"`
}

func (a *API) getBox(ctx context.Context, in *boxInput) (fleetapi.Box, error) {
	now := a.opts.WallClock()
	b, err := a.opts.Store.Box(ctx, identity.ID(in.ID), now.Add(-readsSpan).UnixMilli())
	if err != nil {
		return fleetapi.Box{}, err
	}
	v := registry.View(b, now)
	serving, err := a.opts.Store.Serving(ctx, b.ID)
	if err != nil {
		return fleetapi.Box{}, err
	}
	registry.Serve(&v, b, serving)
	for i, m := range v.Models {
		v.Models[i].ErrSaid = rollout.BoxSays(m.Err).Beside()
	}
	shunned, err := a.opts.Store.Shunned(ctx, b.Site)
	if err != nil {
		return fleetapi.Box{}, err
	}
	if i := slices.IndexFunc(shunned, func(s fleetapi.Shunned) bool { return s.Box == b.ID }); i >= 0 {
		v.Shunned = &shunned[i]
	}
	return v, a.addPending(ctx, b, &v)
}

type newestInput struct {
	ID    string `path:"id" pattern:"^d-[a-z2-7]{13}$" example:"d-abcdefghijklm"`
	Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
}

func (a *API) boxEvents(ctx context.Context, in *newestInput) (fleetapi.EventList, error) {
	if err := a.mustKnow(ctx, in.ID); err != nil {
		return fleetapi.EventList{}, err
	}
	// A box whose clock is ahead has events in our future; show them as well.
	end := a.opts.WallClock().AddDate(100, 0, 0)
	events, err := a.opts.Store.Events(ctx, identity.ID(in.ID), time.UnixMilli(0), end, in.Limit)
	return fleetapi.EventList{Items: events}, err
}

func (a *API) boxResults(ctx context.Context, in *newestInput) (fleetapi.ResultList, error) {
	if err := a.mustKnow(ctx, in.ID); err != nil {
		return fleetapi.ResultList{}, err
	}
	results, err := a.opts.Store.Results(ctx, identity.ID(in.ID), in.Limit)
	for i := range results {
		if results[i].Models == nil {
			results[i].Models = []string{}
		}
	}
	return fleetapi.ResultList{Items: results}, err
}

// mustKnow tells an unknown box from one that has nothing yet.
func (a *API) mustKnow(ctx context.Context, id string) error {
	known, err := a.opts.Store.Known(ctx, identity.ID(id))
	if err == nil && !known {
		err = fmt.Errorf("box %s: %w", id, store.ErrNotFound)
	}
	if who(ctx).Everywhere() {
		return err
	}
	site := ""
	if err == nil {
		site, err = a.opts.Store.SiteOf(ctx, identity.ID(id))
	}
	if err != nil {
		return notTold(err)
	}
	return mayAt(ctx, authz.See, site)
}

// csvColumns are the columns of boxes as CSV.
var csvColumns = []column[fleetapi.Box]{
	{"id", func(b fleetapi.Box) string { return string(b.ID) }},
	{"name", func(b fleetapi.Box) string { return b.Name }},
	{"site", func(b fleetapi.Box) string { return b.Site }},
	{"state", func(b fleetapi.Box) string { return b.State }},
	{"labels", func(b fleetapi.Box) string { return fleetapi.LabelWords(b.Labels) }},
	{"link", func(b fleetapi.Box) string { return string(b.Link) }},
	{"health", func(b fleetapi.Box) string { return string(b.Health) }},
	{"update", func(b fleetapi.Box) string { return string(b.Update) }},
	{"class", func(b fleetapi.Box) string { return b.Inventory.Class }},
	{"arch", func(b fleetapi.Box) string { return b.Inventory.Arch }},
	{"agent", func(b fleetapi.Box) string { return b.Inventory.Agent }},
	{"simulated", func(b fleetapi.Box) string { return strconv.FormatBool(b.Simulated) }},
	{"temp_die_celsius", func(b fleetapi.Box) string {
		v, ok := b.Latest["temp_die_celsius"]
		return number(v.Value, ok)
	}},
	{"resistance_percent", func(b fleetapi.Box) string { return number(b.Thermal.Percent, b.Thermal.Known) }},
	{"causes", func(b fleetapi.Box) string { return strings.Join(b.Thermal.Causes, " ") }},
	{"models", func(b fleetapi.Box) string {
		var words []string
		for _, m := range b.Models {
			words = append(words, m.Name+":"+m.RunningVersion)
		}
		return strings.Join(words, " ")
	}},
	{"last_seen", func(b fleetapi.Box) string {
		if b.LastSeen == nil {
			return ""
		}
		return b.LastSeen.Format(time.RFC3339)
	}},
}

func number(v float64, known bool) string {
	if !known {
		return ""
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}
