package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/controller/audit"
	"github.com/edgeherd/edgeherd/controller/site"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// siteHint goes with a name that no box has.
const siteHint = "`edgeherd site list` shows the sites. A site exists from its first box on."

func (a *API) registerSites() {
	route(a, get("/sites", "listSites", "Sites with their settings, and the defaults of all", "sites"), a.listSites)
	route(a, get("/sites/{site}", "getSite", "One site", "sites"), a.getSite)
	route(a, post("/sites/{site}/settings", "changeSite", "Set and unset settings of a site", "sites"), a.changeSite)
	route(a, post("/site-defaults", "changeSiteDefaults", "Set and unset settings of all sites", "sites"), a.changeSiteDefaults)
}

// herdSites is all that is known of sites at one moment.
type herdSites struct {
	settings map[string]store.Site
	counts   map[string]store.SiteCount
	now      time.Time
}

func (a *API) sites(ctx context.Context) (h herdSites, err error) {
	h.now = a.opts.WallClock()
	if h.settings, err = a.opts.Store.Sites(ctx); err != nil {
		return h, err
	}
	h.counts, err = a.opts.Store.SiteCounts(ctx)
	return h, err
}

func (a *API) listSites(ctx context.Context, _ *nothing) (fleetapi.SiteList, error) {
	h, err := a.sites(ctx)
	if err != nil {
		return fleetapi.SiteList{}, err
	}
	var names []string
	for name := range h.counts {
		names = append(names, name)
	}
	for name := range h.settings { // also of sites whose boxes have gone
		if name != store.SiteDefaults && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !sees(ctx, name) })
	slices.Sort(names)
	list := fleetapi.SiteList{Items: []fleetapi.Site{}, Defaults: h.defaults()}
	for _, name := range names {
		list.Items = append(list.Items, h.view(name))
	}
	return list, nil
}

type siteInput struct {
	Site string `path:"site" minLength:"1" maxLength:"200" example:"berlin-1"`
}

func (a *API) getSite(ctx context.Context, in *siteInput) (fleetapi.Site, error) {
	h, err := a.sites(ctx)
	if err != nil {
		return fleetapi.Site{}, err
	}
	_, counted := h.counts[in.Site]
	if _, set := h.settings[in.Site]; !counted && !set {
		return fleetapi.Site{}, fleetapi.Problem(http.StatusNotFound, fmt.Sprintf("there is no site %q", in.Site), siteHint)
	}
	v := h.view(in.Site)
	v.Shunned, err = a.opts.Store.Shunned(ctx, in.Site)
	return v, err
}

func (h herdSites) defaults() fleetapi.SiteDefaults {
	own := h.settings[store.SiteDefaults]
	return fleetapi.SiteDefaults{
		Settings: own.Settings, Effect: site.Effect(own.Settings, fleetapi.SiteSettings{}),
		Changed: moment(own.ChangedMs), ChangedBy: own.ChangedBy,
	}
}

func (h herdSites) view(name string) fleetapi.Site {
	own, count := h.settings[name], h.counts[name]
	e := site.Effect(own.Settings, h.settings[store.SiteDefaults].Settings)
	v := fleetapi.Site{
		Name: name, Boxes: count.Boxes, Connected: count.Connected, WaitingBytes: count.WaitingBytes,
		Settings: own.Settings, Effect: e, BacklogPerBox: site.Share(e.BacklogBytesPerSecond, count.Connected),
		Changed: moment(own.ChangedMs), ChangedBy: own.ChangedBy,
	}
	spans, err := site.Spans(e, h.now, site.Horizon)
	if err != nil {
		return v // stored by a program that knew a zone of that name
	}
	for _, s := range spans {
		if s.Start.After(h.now) {
			v.QuietNext = utc(s.Start)
			break
		}
		v.QuietNow, v.QuietUntil = true, utc(s.End)
	}
	return v
}

func moment(ms int64) *time.Time {
	if ms == 0 {
		return nil
	}
	return utc(time.UnixMilli(ms))
}

func utc(t time.Time) *time.Time {
	t = t.UTC()
	return &t
}

type changeSiteInput struct {
	Site string `path:"site" minLength:"1" maxLength:"200" example:"berlin-1"`
	Body fleetapi.SiteChange
}

func (a *API) changeSite(ctx context.Context, in *changeSiteInput) (fleetapi.Site, error) {
	if err := a.applySite(ctx, in.Site, in.Body); err != nil {
		return fleetapi.Site{}, err
	}
	return a.getSite(ctx, &siteInput{in.Site})
}

type changeDefaultsInput struct{ Body fleetapi.SiteChange }

func (a *API) changeSiteDefaults(ctx context.Context, in *changeDefaultsInput) (fleetapi.SiteDefaults, error) {
	if err := a.applySite(ctx, store.SiteDefaults, in.Body); err != nil {
		return fleetapi.SiteDefaults{}, err
	}
	h, err := a.sites(ctx)
	return h.defaults(), err
}

// applySite stores a change, tells whom it concerns, and leaves a line in the
// log that says who did what.
func (a *API) applySite(ctx context.Context, name string, change fleetapi.SiteChange) error {
	change.Set = site.Tidy(change.Set)
	if err := site.Check(change.Set); err != nil {
		return refuse("Correct it and try again; nothing was changed.", "%s", err)
	}
	var was, is fleetapi.SiteSettings
	err := a.opts.Store.ChangeSite(ctx, name, who(ctx).Name, func(s *fleetapi.SiteSettings) error {
		was = *s
		merge(s, change)
		is = *s
		d := audit.Of(ctx)
		d.Object, d.Before, d.After, d.Note = "site "+name, audit.Digest(was), audit.Digest(is), text(was)+" → "+text(is)
		return nil
	})
	if err != nil {
		if errors.Is(err, store.ErrNotFound) {
			return fleetapi.Problem(http.StatusNotFound, fmt.Sprintf("there is no site %q", name), siteHint)
		}
		return err
	}
	a.log.Info("site settings changed", "site", name, "by", who(ctx).Name, "role", who(ctx).Role, "was", text(was), "is", text(is))
	a.opts.SitesChanged()
	a.opts.Hub.Publish(fleetapi.Change{Topic: "sites", ID: name})
	return nil
}

func merge(s *fleetapi.SiteSettings, change fleetapi.SiteChange) {
	for _, key := range change.Unset {
		switch key {
		case "backlog_bytes_per_second":
			s.BacklogBytesPerSecond = nil
		case "quiet":
			s.Quiet = nil
		case "time_zone":
			s.TimeZone = nil
		case "region":
			s.Region = nil
		case "class":
			s.Class = nil
		case "location":
			s.Location = nil
		}
	}
	if v := change.Set.BacklogBytesPerSecond; v != nil {
		s.BacklogBytesPerSecond = v
	}
	if v := change.Set.Quiet; v != nil {
		s.Quiet = v
	}
	if v := change.Set.TimeZone; v != nil {
		s.TimeZone = v
	}
	s.Region = cmp.Or(change.Set.Region, s.Region)
	s.Class = cmp.Or(change.Set.Class, s.Class)
	s.Location = cmp.Or(change.Set.Location, s.Location)
}

func text(s fleetapi.SiteSettings) string {
	data, err := json.Marshal(s)
	if err != nil {
		panic("api: site settings always encode: " + err.Error())
	}
	return string(data)
}
