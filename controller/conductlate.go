package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/controller/config"
	"github.com/edgeherd/edgeherd/controller/registry"
	"github.com/edgeherd/edgeherd/controller/rollout"
	"github.com/edgeherd/edgeherd/controller/secrets"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// lateEvery is how often boxes are looked for that lack settings which are for
// them: a few of those that were heard from, and a part of all.
const lateEvery = 5 * time.Second

// lateLook bounds how many of either are looked at.
const lateLook = 1000

// lateBy is who starts rollouts for them.
const lateBy = "the controller"

// late is what the conductor remembers of boxes that may lack settings.
type late struct {
	looked time.Time
	heard  map[identity.ID]bool
	ids    []identity.ID // of all boxes; those that are left of this round
}

// bringLate starts rollouts for boxes that joined, or whose labels changed, after
// a document was rolled out: what is for them comes by the same policy, and goes
// back by the same gates, as it did to the others.
func (c *Controller) bringLate(ctx context.Context, heard map[identity.ID]bool, now time.Time) error {
	l := &c.late
	if l.heard == nil {
		l.heard = map[identity.ID]bool{}
	}
	for id := range heard {
		if len(l.heard) < lateLook {
			l.heard[id] = true // the others come with the round
		}
	}
	if time.Since(l.looked) < lateEvery {
		return nil
	}
	l.looked = time.Now()
	stand, lib, err := c.ledger.Standing(ctx, c.store, now)
	if err != nil {
		return err
	}
	if len(stand) == 0 {
		clear(l.heard)
		return nil
	}
	boxes, err := c.store.BoxesOf(ctx, l.next(func() ([]identity.ID, error) { return c.store.EnrolledSince(ctx, -1) }))
	if err != nil {
		return err
	}
	return c.planLate(ctx, lateBoxes{stand, lib, boxes, now})
}

// next lists boxes to look at.
func (l *late) next(all func() ([]identity.ID, error)) []identity.ID {
	if len(l.ids) == 0 {
		l.ids, _ = all() // the next look asks again
	}
	n := min(lateLook, len(l.ids))
	for _, id := range l.ids[:n] {
		l.heard[id] = true
	}
	l.ids = l.ids[n:]
	out := slices.Collect(maps.Keys(l.heard))
	clear(l.heard)
	return out
}

// lateBoxes is what one look found.
type lateBoxes struct {
	stand []config.Standing
	lib   config.Library
	boxes []store.Box
	now   time.Time
}

// lateGroup is the boxes that get, or lose, one version.
type lateGroup struct {
	config.Late
	boxes []fleetapi.Box
}

func (c *Controller) planLate(ctx context.Context, in lateBoxes) error {
	all, err := c.store.Secrets(ctx)
	if err != nil {
		return err
	}
	groups := map[string]*lateGroup{}
	for _, b := range in.boxes {
		v := registry.View(b, in.now)
		if b.State != store.StateActive || b.Awaits || b.Ahead() || v.Link != fleetapi.LinkLive {
			continue
		}
		if err := in.lib.Add(config.Hand(b.Desired), func(name, version string) (store.Document, error) { return c.store.Document(ctx, name, version) }); errors.Is(err, store.ErrNotFound) {
			continue // of a version that the database of before had
		} else if err != nil {
			return err
		}
		mine := secrets.Of(all, store.SecretBox{ID: b.ID, Site: b.Site, Labels: b.Labels, State: b.State})
		has := func(name string) bool {
			return slices.ContainsFunc(mine, func(s store.Secret) bool { return s.Name == name })
		}
		if v.Config != nil && v.Config.Busy() {
			continue // one at a time, so that a document is not blamed for another
		}
		for _, one := range config.LateOf(v, b.Desired.Config, in.stand, in.lib, has) {
			if one.Why != "" {
				continue // edgeherd explain tells it
			}
			key := one.Has.Ref.String()
			if groups[key] == nil {
				groups[key] = &lateGroup{Late: one}
			}
			groups[key].boxes = append(groups[key].boxes, v)
			break
		}
	}
	for _, key := range slices.Sorted(maps.Keys(groups)) {
		if err := c.startLate(ctx, *groups[key], in.now); err != nil {
			return fmt.Errorf("bring %s to boxes that came later: %w", key, err)
		}
	}
	return nil
}

// startLate plans a rollout and starts it.
func (c *Controller) startLate(ctx context.Context, g lateGroup, now time.Time) error {
	req, err := rollout.Late(g.Request)
	if err != nil {
		return err
	}
	req.Config, req.Filter = g.Has.Ref.Name+":"+g.Has.Ref.Version, g.Has.Selector
	zones, err := c.zones(ctx)
	if err != nil {
		return err
	}
	o := rollout.Order{
		ID: rollout.NewID(), Request: req, Kind: fleetapi.KindConfig, Target: g.Has.Ref, Bytes: g.Bytes, Boxes: g.boxes, Zones: map[string]string{}, Now: now,
	}
	for _, b := range g.boxes {
		o.Zones[b.Site] = zones(b.Site)
	}
	r, err := rollout.Plan(o)
	if errors.Is(err, rollout.ErrNobody) || errors.Is(err, rollout.ErrUnreported) {
		return nil // its policy leaves them out now; they are looked at again
	}
	if err != nil {
		return err
	}
	r.Late = true
	if !g.After.IsZero() {
		r.Created = g.After.Add(time.Millisecond)
	}
	act := rollout.Act{Action: rollout.ActStart, By: lateBy, Reason: "boxes that came later, or changed"}
	next, err := act.On(r, now)
	if err != nil {
		return err
	}
	tell, err := c.notify.Rollouts(ctx)
	if err != nil {
		return err
	}
	notices, err := tell(r, next)
	if err != nil {
		return err
	}
	if err := c.store.BeginRollout(ctx, store.RolloutStep{
		Rollout: next, Notices: notices,
		Record: rollout.Record{At: now, Inputs: []rollout.Input{{Act: &act}}, Decisions: rollout.Diff(r, next)},
	}); err != nil {
		return err
	}
	c.log.Info("settings for boxes that came later", "rollout", r.ID, "version", g.Has.Ref.String())
	c.hub.Publish(fleetapi.Change{Topic: "rollouts", ID: r.ID})
	c.wakeConductor()
	return nil
}
