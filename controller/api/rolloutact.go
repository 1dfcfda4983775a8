package api

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/controller/audit"
	"github.com/edgeherd/edgeherd/controller/authz"
	"github.com/edgeherd/edgeherd/controller/rollout"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
)

type actInput struct {
	ID   string `path:"id" maxLength:"64" example:"r-abcdefghij"`
	Body fleetapi.RolloutAction
}

func (a *API) actOnRollout(ctx context.Context, in *actInput) (fleetapi.Rollout, error) {
	if in.Body.Action != rollout.ActPause && in.Body.Action != rollout.ActCancel {
		if err := refused(authz.Allow(who(ctx).Subject, authz.Roll, authz.Fleet())); err != nil {
			return fleetapi.Rollout{}, err
		}
	}
	act := rollout.Act{Action: in.Body.Action, By: who(ctx).Name, Wave: in.Body.Wave, Box: in.Body.Box, Reason: in.Body.Reason}
	// Of two rollouts that clash, started at once, one must see the other.
	a.deciding.Lock()
	defer a.deciding.Unlock()
	if err := a.expect(ctx, in.ID, act, in.Body.ExpectCount); err != nil {
		return fleetapi.Rollout{}, err
	}
	switch act.Action {
	case rollout.ActStart, rollout.ActResume:
		if err := a.mayRun(ctx, in.ID); err != nil {
			return fleetapi.Rollout{}, err
		}
	case rollout.ActRollback:
		return a.rollBack(ctx, in.ID, act)
	}
	r, err := a.act(ctx, in.ID, act)
	if err == nil {
		r.Overtaken, err = a.opts.Store.Overtaken(ctx, r)
	}
	return whole(r), err
}

// act stores what a person wants of a rollout.
func (a *API) act(ctx context.Context, id string, act rollout.Act) (fleetapi.Rollout, error) {
	tell, err := a.opts.Notify.Rollouts(ctx)
	if err != nil {
		return fleetapi.Rollout{}, err
	}
	r, err := a.opts.Store.UpdateRollout(ctx, id, func(r fleetapi.Rollout) (store.RolloutStep, error) {
		now := a.opts.WallClock().UTC()
		next, err := act.On(r, now)
		if err != nil {
			return store.RolloutStep{}, conflict("See its state: edgeherd rollout status "+r.ID, "%s", err)
		}
		d := audit.Of(ctx)
		d.Again("rollout " + id)
		d.Verb, d.Before, d.After, d.Note = "rollout."+act.Action, audit.Digest(r), audit.Digest(next), act.String()
		notices, err := tell(r, next)
		return store.RolloutStep{Rollout: next, Notices: notices, Record: rollout.Record{At: now, Inputs: []rollout.Input{{Act: &act}}, Decisions: rollout.Diff(r, next)}}, err
	})
	if err != nil {
		return fleetapi.Rollout{}, err
	}
	a.log.Info("rollout "+string(r.State), "rollout", r.ID, "action", act.Action, "by", fmt.Sprintf("%s (%s)", who(ctx).Name, who(ctx).Role))
	a.changed(fleetapi.Change{Topic: "rollouts", ID: r.ID})
	return r, nil
}

// expect refuses an action that would touch another number of boxes than the
// person was shown.
func (a *API) expect(ctx context.Context, id string, act rollout.Act, want int) error {
	if want == 0 {
		return nil
	}
	r, err := a.opts.Store.Rollout(ctx, id)
	if err != nil {
		return err
	}
	if n := act.Count(r); n != want {
		return conflict("Look at it again: edgeherd rollout status "+id, "%s would touch %d boxes, you were shown %d", act.Action, n, want)
	}
	return nil
}

// backPolicy is that of rollbacks: all boxes at once, since they had the
// version before; it halts when it makes things worse for most.
const backPolicy = "waves: [rest]\nat_once: 500\ngates: {error_limit: 50%, min_sample: 5}\n"

// rollBack ends a rollout and starts one for each version that its boxes had
// before. Asked again it takes back what is not taken back yet.
func (a *API) rollBack(ctx context.Context, id string, act rollout.Act) (fleetapi.Rollout, error) {
	r, err := a.opts.Store.Rollout(ctx, id)
	if err != nil {
		return r, err
	}
	if act.Wave < 0 || act.Wave > len(r.Waves) {
		return r, conflict("See its state: edgeherd rollout status "+id, "there is no wave %d; the rollout has %d", act.Wave, len(r.Waves))
	}
	done, drafts, err := a.takenBack(ctx, r)
	if err != nil {
		return r, err
	}
	groups, kept := act.Back(r, done)
	if len(groups) == 0 && len(drafts) == 0 {
		if len(r.RolledBackBy) > 0 {
			return whole(r), nil
		}
		return r, conflict("", "no box can be taken back: of %d that were offered %s none is known to have run another version before", kept, r.Target)
	}
	boxes, err := a.boxes(ctx)
	if err != nil {
		return r, err
	}
	for digest, ids := range groups {
		back, err := a.planBack(ctx, r, backGroup{digest, ids}, boxes)
		if err != nil {
			return r, err
		}
		drafts = append(drafts, back.ID)
		act.Rollouts = append(act.Rollouts, back.ID)
	}
	if r, err = a.act(ctx, id, act); err != nil {
		return r, err
	}
	for _, draft := range drafts {
		if _, err := a.act(ctx, draft, rollout.Act{Action: rollout.ActStart, By: act.By, Reason: "takes back " + id}); err != nil {
			return r, err
		}
	}
	return whole(r), nil
}

// backGroup is boxes that had the same version before.
type backGroup struct {
	digest blob.Digest
	boxes  []identity.ID
}

// takenBack is which boxes other rollouts take back already, and which of
// those were planned and not started: a crash came between.
func (a *API) takenBack(ctx context.Context, r fleetapi.Rollout) (done map[identity.ID]bool, drafts []string, err error) {
	done = map[identity.ID]bool{}
	for _, id := range r.RolledBackBy {
		back, err := a.opts.Store.Rollout(ctx, id)
		if err != nil {
			return nil, nil, err
		}
		for box := range targets(back) {
			done[box] = true
		}
		if back.State == fleetapi.RolloutDraft {
			drafts = append(drafts, id)
		}
	}
	return done, drafts, nil
}

func (a *API) planBack(ctx context.Context, r fleetapi.Rollout, g backGroup, boxes []fleetapi.Box) (fleetapi.Rollout, error) {
	boxes = slices.DeleteFunc(slices.Clone(boxes), func(b fleetapi.Box) bool { return !slices.Contains(g.boxes, b.ID) })
	req := fleetapi.PlanRequest{Policy: backPolicy}
	var c cargo
	var err error
	switch r.Kind {
	case fleetapi.KindConfig:
		req.Config, err = a.documentOf(ctx, r.Target.Name, g.digest)
		if err == nil {
			c, boxes, err = a.configCargo(ctx, &req, boxes)
		}
	case fleetapi.KindAgent:
		req.Release, err = a.releaseOf(ctx, g.digest)
		if err == nil {
			c, err = a.releaseCargo(ctx, req.Release, boxes)
		}
	default:
		req.Model, err = a.modelOf(ctx, g.digest)
		if err == nil {
			c, err = a.modelCargo(ctx, req.Model, boxes)
		}
	}
	if err != nil {
		return fleetapi.Rollout{}, err
	}
	back, err := a.order(ctx, c, req, boxes)
	if err != nil {
		return back, err
	}
	// Newer than what it takes back, also when both are planned within a tick.
	if !back.Created.After(r.Created) {
		back.Created = r.Created.Add(time.Millisecond)
	}
	back.RollbackOf = r.ID
	d := audit.Of(ctx)
	d.Again("rollout " + back.ID)
	d.Verb, d.After, d.Note = "rollout.plan", audit.Digest(back), "takes back "+r.ID
	return back, a.opts.Store.PutRollout(ctx, back)
}

func (a *API) modelOf(ctx context.Context, d blob.Digest) (string, error) {
	all, err := a.opts.Store.Models(ctx)
	for _, m := range all {
		if m.Digest == d {
			return m.Manifest.Name + ":" + m.Manifest.Version, nil
		}
	}
	if err == nil {
		err = refuse("Push it again: edgeherd model push DIR", "the version with digest %s, which boxes ran before, is not here", d)
	}
	return "", err
}

func (a *API) releaseOf(ctx context.Context, d blob.Digest) (string, error) {
	all, err := a.opts.Store.Releases(ctx)
	for _, r := range all {
		if r.Digest == d {
			return r.Release.Version, nil
		}
	}
	if err == nil {
		err = refuse("Push it again: edgeherd release push DIR", "the release with digest %s, which boxes ran before, is not here", d)
	}
	return "", err
}
