package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/edgeherd/edgeherd/controller/audit"
	"github.com/edgeherd/edgeherd/controller/authz"
	"github.com/edgeherd/edgeherd/controller/registry"
	"github.com/edgeherd/edgeherd/controller/rollout"
	"github.com/edgeherd/edgeherd/controller/site"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/firmware"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/boxconfig"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/phrase"
	"github.com/edgeherd/edgeherd/models"
)

func (a *API) registerRollouts() {
	route(a, get("/rollouts", "listRollouts", "Rollouts, newest first, with counts of boxes", "rollouts"), a.listRollouts)
	route(a, get("/rollouts/{id}", "getRollout", "One rollout", "rollouts"), a.getRollout)
	route(a, a.acting(post("/rollouts", "planRollout", "Plan a rollout: which box in which wave. Nothing happens before it is started", "rollouts")), a.planRollout)
	route(a, a.acting(post("/rollouts/{id}/actions", "actOnRollout", "Start, pause, resume, approve, skip, cancel or roll back", "rollouts")), a.actOnRollout)
	a.registerRolloutHistory()
}

type listRolloutsInput struct {
	PageSize  int    `query:"page_size" minimum:"1" maximum:"1000" default:"100"`
	PageToken string `query:"page_token" maxLength:"8192" doc:"next_page_token of the page before"`
}

// listRollouts counts boxes; who sees some sites only is counted theirs.
func (a *API) listRollouts(ctx context.Context, in *listRolloutsInput) (fleetapi.RolloutList, error) {
	list := fleetapi.RolloutList{Items: []fleetapi.Rollout{}}
	var after store.RolloutPlace
	if in.PageToken != "" {
		raw, err := base64.RawURLEncoding.DecodeString(in.PageToken)
		if err != nil || json.Unmarshal(raw, &after) != nil || after.ID == "" {
			return list, badRequest("Begin again without page_token.", "the page token is not one of this list")
		}
	}
	page, total, err := a.rolloutPage(ctx, after, in.PageSize+1)
	if err != nil {
		return list, err
	}
	list.TotalSize = total
	for _, r := range page[:min(in.PageSize, len(page))] {
		list.Items = append(list.Items, listed(r))
	}
	if len(page) > in.PageSize {
		raw, err := json.Marshal(store.PlaceOf(page[in.PageSize-1]))
		if err != nil {
			return list, err
		}
		list.NextPageToken = base64.RawURLEncoding.EncodeToString(raw)
	}
	return list, nil
}

// ownPage is how many rollouts are looked at in one go for a box of the caller's.
const ownPage = 100

// rolloutPage returns up to n rollouts after a place that the caller sees, and
// how many they see at all.
func (a *API) rolloutPage(ctx context.Context, after store.RolloutPlace, n int) (page []fleetapi.Rollout, total int, err error) {
	if who(ctx).Everywhere() {
		return a.opts.Store.RolloutPage(ctx, after, n, false)
	}
	reached := after == store.RolloutPlace{}
	for at := (store.RolloutPlace{}); ; {
		some, _, err := a.opts.Store.RolloutPage(ctx, at, ownPage, true)
		if err != nil || len(some) == 0 {
			return page, total, err
		}
		for _, r := range some {
			at = store.PlaceOf(r)
			reached = reached || at.CreatedMs < after.CreatedMs || at.CreatedMs == after.CreatedMs && at.ID < after.ID
			if r, ok := seen(ctx, r); ok {
				total++
				if reached && len(page) < n {
					page = append(page, r)
				}
			}
		}
	}
}

// listed is a rollout as lists show it: its boxes are counted, not named.
func listed(r fleetapi.Rollout) fleetapi.Rollout {
	r.Waves, r.Warnings, r.Sheet = append([]fleetapi.Wave{}, r.Waves...), append([]string{}, r.Warnings...), nil
	for i := range r.Waves {
		r.Waves[i].Targets = []fleetapi.Target{}
	}
	return r
}

// whole writes empty lists as lists, never as null, and counts boxes.
func whole(r fleetapi.Rollout) fleetapi.Rollout {
	r.Waves = append([]fleetapi.Wave{}, r.Waves...)
	r.Warnings = append([]string{}, r.Warnings...)
	for i := range r.Waves {
		r.Waves[i].Targets = append([]fleetapi.Target{}, r.Waves[i].Targets...)
		r.Waves[i].Counts = fleetapi.CountTargets(r.Waves[i].Targets)
	}
	return r
}

type rolloutInput struct {
	ID string `path:"id" maxLength:"64" example:"r-abcdefghij"`
}

func (a *API) getRollout(ctx context.Context, in *rolloutInput) (fleetapi.Rollout, error) {
	r, err := a.opts.Store.Rollout(ctx, in.ID)
	if errors.Is(err, store.ErrNotFound) && who(ctx).Everywhere() {
		return r, a.noRollout(ctx, in.ID, err)
	}
	if err == nil {
		r.Overtaken, err = a.opts.Store.Overtaken(ctx, r)
	}
	if err != nil {
		return r, err
	}
	r, ok := seen(ctx, r)
	if !ok {
		return r, refused(authz.ErrForeign)
	}
	return r, nil
}

// noRollout names the rollout that may have been meant by an id that is none's.
func (a *API) noRollout(ctx context.Context, id string, err error) error {
	heads, failed := a.opts.Store.RolloutHeads(ctx)
	if failed != nil {
		return failed
	}
	for _, h := range heads {
		if boxconfig.Near(id, h.ID) || len(id) > len("r-abc") && strings.HasPrefix(h.ID, id) {
			return fleetapi.Problem(http.StatusNotFound, err.Error(), "Did you mean "+h.ID+"? See which there are: edgeherd rollout list")
		}
	}
	return err
}

type planInput struct {
	DryRun bool `query:"dry_run" doc:"show the plan and forget it"`
	Body   fleetapi.PlanRequest
}

// planRollout fixes which box gets the version in which wave. What is stored
// is what Start runs.
func (a *API) planRollout(ctx context.Context, in *planInput) (fleetapi.Rollout, error) {
	if given(in.Body.Model)+given(in.Body.Release)+given(in.Body.Config) != 1 {
		return fleetapi.Rollout{}, badRequest("", "exactly one of model, release and config must be given")
	}
	f, err := registry.ParseFilter(in.Body.Filter)
	if err != nil {
		return fleetapi.Rollout{}, badRequest("", "%s", err)
	}
	boxes, err := a.boxes(ctx)
	if err != nil {
		return fleetapi.Rollout{}, err
	}
	name, version, _ := strings.Cut(in.Body.Model, ":")
	draws := rollout.DrawsOf(boxes, name, version) // elsewhere, too
	boxes = slices.DeleteFunc(boxes, func(b fleetapi.Box) bool { return !f.Match(b) })
	var c cargo
	switch {
	case in.Body.Model != "":
		c, err = a.modelCargo(ctx, in.Body.Model, boxes)
	case in.Body.Release != "":
		c, err = a.releaseCargo(ctx, in.Body.Release, boxes)
	default:
		c, boxes, err = a.configCargo(ctx, &in.Body, boxes)
	}
	if err != nil {
		return fleetapi.Rollout{}, err
	}
	if err := a.mustBeListed(ctx, &c, boxes); err != nil {
		return fleetapi.Rollout{}, err
	}
	c.draws = draws
	r, err := a.order(ctx, c, in.Body, boxes)
	if err != nil {
		return fleetapi.Rollout{}, err
	}
	d := audit.Of(ctx)
	d.Object, d.After, d.Note = "rollout "+r.ID, audit.Digest(r), c.target.String()
	if err := a.free(ctx, r); err != nil || in.DryRun {
		d.Drop()
		return whole(r), err
	}
	if err := a.opts.Store.PutRollout(ctx, r); err != nil {
		return fleetapi.Rollout{}, err
	}
	a.log.Info("rollout planned", "rollout", r.ID, "model", c.target.String(), "by", who(ctx).Name)
	a.changed(fleetapi.Change{Topic: "rollouts", ID: r.ID})
	return whole(r), nil
}

func given(s string) int {
	if s == "" {
		return 0
	}
	return 1
}

// order makes a plan out of what boxes, sites and the cargo say.
func (a *API) order(ctx context.Context, c cargo, req fleetapi.PlanRequest, boxes []fleetapi.Box) (fleetapi.Rollout, error) {
	o := rollout.Order{
		ID: rollout.NewID(), Request: req, Kind: c.kind, Target: c.target, Bytes: c.bytes, Sizes: c.sizes, Boxes: boxes, Unfit: c.unfit, Draws: c.draws,
		Zones: map[string]string{}, Rates: map[string]int64{}, Now: a.opts.WallClock().UTC(),
	}
	sites, err := a.opts.Store.Sites(ctx)
	if err != nil {
		return fleetapi.Rollout{}, err
	}
	for _, b := range boxes {
		if _, known := o.Zones[b.Site]; !known {
			e := site.Effect(sites[b.Site].Settings, sites[store.SiteDefaults].Settings)
			o.Zones[b.Site], o.Rates[b.Site] = e.TimeZone, e.BacklogBytesPerSecond
		}
	}
	r, err := rollout.Plan(o)
	switch {
	case errors.Is(err, rollout.ErrNoTargets):
		return r, refuse("See which boxes there are: edgeherd box list.", "no box matches the filter %q", req.Filter)
	case errors.Is(err, rollout.ErrUnreported):
		return r, refuse("Leave the rule out, or see what boxes report: edgeherd box show NAME.", "%s", err)
	case errors.Is(err, rollout.ErrNobody):
		return r, refuse("Leave them out with a filter, or see docs/rollouts.md on what skips a box.", "%s", err)
	case err != nil:
		return r, badRequest("", "%s", err)
	}
	return r, nil
}

// cargo is what a rollout brings to its boxes.
type cargo struct {
	kind   string
	target models.Ref
	bytes  int64                         // download of a box that has nothing yet
	sizes  map[identity.ID]int64         // download of a box, where it is less
	unfit  map[identity.ID]phrase.Phrase // why boxes cannot take it
	draws  []fleetapi.Draw               // of boxes that run it already
}

// modelCargo finds a model version and checks that every box may replace with
// it what it shall run now.
func (a *API) modelCargo(ctx context.Context, word string, boxes []fleetapi.Box) (cargo, error) {
	name, version, ok := strings.Cut(word, ":")
	if !ok {
		return cargo{}, badRequest("", "model %q is not NAME:VERSION", word)
	}
	all, err := a.opts.Store.Models(ctx)
	if err != nil {
		return cargo{}, err
	}
	known := map[blob.Digest]models.Manifest{}
	var next *store.Model
	for i, m := range all {
		known[m.Digest] = m.Manifest
		if m.Manifest.Name == name && m.Manifest.Version == version {
			next = &all[i]
		}
	}
	if next == nil {
		return cargo{}, missing("See which there are: edgeherd model list. Push it with: edgeherd model push DIR", "there is no model %s", word)
	}
	for _, b := range boxes {
		for _, m := range b.Models {
			now, ok := known[m.DesiredDigest]
			if m.Name != name || !ok {
				continue
			}
			if err := now.Accepts(next.Manifest); err != nil {
				return cargo{}, refuse("Leave it out with a filter, or push the model under another name.", "%s runs %s:%s, which %s cannot replace: %s", b.Name, m.Name, m.DesiredVersion, word, err)
			}
		}
	}
	if err := a.wantPacks(ctx, next.Manifest, boxes); err != nil {
		return cargo{}, err
	}
	sizes, err := a.sizes(ctx, next.Manifest, boxes)
	return cargo{kind: fleetapi.KindModel, target: next.Ref(), bytes: next.Manifest.SizeBytes(), sizes: sizes}, err
}

// releaseCargo finds an agent release and says for which boxes it has no build,
// and whose agents may not install it.
func (a *API) releaseCargo(ctx context.Context, version string, boxes []fleetapi.Box) (cargo, error) {
	r, err := a.opts.Store.Release(ctx, version)
	if errors.Is(err, store.ErrNotFound) {
		return cargo{}, missing("See which there are: edgeherd release list.", "there is no release %s", version)
	}
	if err != nil {
		return cargo{}, err
	}
	c := cargo{kind: fleetapi.KindAgent, target: models.Ref{Name: firmware.KindAgent, Version: version, Digest: r.Digest}, unfit: map[identity.ID]phrase.Phrase{}}
	for _, b := range boxes {
		arch := b.Inventory.Arch
		build, ok := r.Release.For("linux", arch)
		least, agent := r.Release.MinAgent, b.Inventory.Agent
		switch {
		case arch == "":
			c.unfit[b.ID] = phrase.Of("never-said", "%s has never said what machine it is", b.Name)
		case !ok:
			c.unfit[b.ID] = phrase.Of("no-build-for", "release %s has no build for %s, which is linux/%s", version, b.Name, arch)
		case least != "" && firmware.ValidVersion(agent) && firmware.CompareVersions(agent, least) < 0:
			c.unfit[b.ID] = phrase.Of("release-needs", "release %s needs agent %s or newer, %s has %s", version, least, b.Name, agent)
		default:
			c.bytes = max(c.bytes, build.SizeBytes)
		}
	}
	return c, nil
}

// free reports whether no other rollout that is under way brings other content
// of the same artefact to one of r's boxes.
func (a *API) free(ctx context.Context, r fleetapi.Rollout) error {
	open, err := a.opts.Store.Rollouts(ctx, fleetapi.RolloutRunning, fleetapi.RolloutPaused)
	if err != nil {
		return err
	}
	return clash(r, open)
}

func clash(r fleetapi.Rollout, open []fleetapi.Rollout) error {
	mine := targets(r)
	for _, o := range open {
		if o.ID == r.ID || o.Kind != r.Kind || o.Target.Name != r.Target.Name || o.Late {
			continue // what the controller does by itself stands back
		}
		for _, w := range o.Waves {
			for _, t := range w.Targets {
				if mine[t.Box] {
					return conflict("Wait for its end, or cancel it: edgeherd rollout cancel "+o.ID, "rollout %s of %s is %s and has %s as well", o.ID, o.Target, o.State, t.Name)
				}
			}
		}
	}
	return nil
}

// mayRun checks again what the plan checked: boxes may have changed since.
func (a *API) mayRun(ctx context.Context, id string) error {
	r, err := a.opts.Store.Rollout(ctx, id)
	if err != nil || r.State == fleetapi.RolloutRunning {
		return err
	}
	if err := a.free(ctx, r); err != nil || r.Kind != fleetapi.KindModel {
		return err
	}
	boxes, err := a.boxes(ctx)
	if err != nil {
		return err
	}
	mine := targets(r)
	boxes = slices.DeleteFunc(boxes, func(b fleetapi.Box) bool { return !mine[b.ID] })
	_, err = a.modelCargo(ctx, r.Target.String(), boxes)
	return err
}

// targets are the boxes of a rollout.
func targets(r fleetapi.Rollout) map[identity.ID]bool {
	out := map[identity.ID]bool{}
	for _, w := range r.Waves {
		for _, t := range w.Targets {
			out[t.Box] = true
		}
	}
	return out
}
