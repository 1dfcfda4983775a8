package api

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/edgeherd/edgeherd/controller/audit"
	"github.com/edgeherd/edgeherd/controller/registry"
	"github.com/edgeherd/edgeherd/controller/rollout"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

func (a *API) restores(ctx context.Context, _ *nothing) (fleetapi.RestoreState, error) {
	out := fleetapi.RestoreState{Conflicts: []fleetapi.RestoreConflict{}}
	r, err := a.opts.Store.Restored(ctx)
	if err != nil {
		return out, err
	}
	if !r.At.IsZero() {
		out.Restored = &r.At
	}
	boxes, err := a.boxes(ctx)
	if err != nil {
		return out, err
	}
	for _, b := range boxes {
		switch b.Update {
		case fleetapi.UpdateAwaits:
			out.Awaits++
		case fleetapi.UpdateConflict:
			out.Conflicts = append(out.Conflicts, conflictOf(b))
		}
	}
	return out, nil
}

func conflictOf(b fleetapi.Box) fleetapi.RestoreConflict {
	c := fleetapi.RestoreConflict{Box: b.ID, Name: b.Name, Site: b.Site, Follows: b.RunningGeneration, Signed: b.DesiredGeneration, Runs: []string{}, Wished: []string{}}
	for _, m := range b.Models {
		if m.RunningVersion != "" {
			c.Runs = append(c.Runs, m.Name+":"+m.RunningVersion)
		}
		if m.DesiredVersion != "" {
			c.Wished = append(c.Wished, m.Name+":"+m.DesiredVersion)
		}
	}
	return c
}

type restoreInput struct{ Body fleetapi.RestoreChoice }

// chooseRestore does the same for all boxes that are meant. One that is not in
// conflict any more is left alone.
func (a *API) chooseRestore(ctx context.Context, in *restoreInput) (fleetapi.RestoreState, error) {
	none := fleetapi.RestoreState{Conflicts: []fleetapi.RestoreConflict{}}
	f, err := registry.ParseFilter(in.Body.Filter)
	if err != nil {
		return none, badRequest("", "%s", err)
	}
	boxes, err := a.boxes(ctx)
	if err != nil {
		return none, err
	}
	boxes = slices.DeleteFunc(boxes, func(b fleetapi.Box) bool { return b.Update != fleetapi.UpdateConflict || !f.Match(b) })
	if want := in.Body.ExpectCount; want > 0 && want != len(boxes) {
		return none, conflict("Look at it again: edgeherd rollout conflicts", "%s would touch %d boxes, you were shown %d", in.Body.Choice, len(boxes), want)
	}
	if len(boxes) == 0 {
		return none, conflict("See: edgeherd rollout conflicts", "no box that the filter matches waits for a choice")
	}
	if a.opts.Settle == nil {
		return none, refuse("", "this controller tells boxes nothing")
	}
	for _, b := range boxes {
		d := audit.Of(ctx)
		d.Again("box " + string(b.ID))
		c := conflictOf(b)
		d.Verb, d.Note = "restore."+in.Body.Choice, fmt.Sprintf("runs %v, the backup wished %v %s", c.Runs, c.Wished, in.Body.Reason)
		if err := a.opts.Settle(ctx, b.ID, in.Body.Choice); errors.Is(err, store.ErrConflict) {
			d.Drop() // somebody else has chosen
		} else if err != nil {
			return none, fmt.Errorf("%s %s: %w", in.Body.Choice, b.Name, err)
		}
	}
	a.log.Info("boxes settled after a restore", "action", in.Body.Choice, "boxes", len(boxes), "by", who(ctx).Name)
	if in.Body.Choice == rollout.Adopt {
		a.log.Info("rollouts that are older leave these boxes alone")
	}
	a.changed(fleetapi.Change{Topic: "rollouts"})
	return a.restores(ctx, nil)
}
