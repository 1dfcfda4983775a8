package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/edgeherd/edgeherd/controller/registry"
	"github.com/edgeherd/edgeherd/controller/rollout"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// sweep is how many boxes of a rollout are looked at in a step beside those
// that are known to have changed: links grow old by themselves, and a change
// may have come to another controller. 100,000 boxes take 100 steps.
const sweep = 1000

// changes are boxes that were heard from since the last step.
type changes struct {
	// mu guards boxes.
	mu    sync.Mutex
	boxes map[identity.ID]bool
}

func (c *changes) add(id identity.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.boxes == nil {
		c.boxes = map[identity.ID]bool{}
	}
	c.boxes[id] = true
}

func (c *changes) take() map[identity.ID]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.boxes
	c.boxes = nil
	return out
}

// underWay is a rollout that listens as the conductor holds it. Only the conductor
// touches it; when something goes wrong it is read anew.
type underWay struct {
	course  *rollout.Course
	rev     int64 // of the database
	members []identity.ID
	next    int   // of members: where the sweep goes on
	joined  int64 // enrolled before that: looked at, in Unix ms
	filter  registry.Filter[fleetapi.Box]
	locks   string // those of the last look: after a change all boxes are looked at
}

// step looks once at every rollout that listens to its boxes.
func (c *Controller) step(ctx context.Context) error {
	heads, err := c.store.RolloutHeads(ctx)
	if err != nil {
		return err
	}
	if asked, err := c.askRestored(ctx, heads); err != nil || asked {
		return err
	}
	ages := map[string]int{}
	now := c.opts.WallClock().UTC()
	listen := 0
	for i, h := range heads { // newest first
		ages[h.ID] = len(heads) - i
		if rollout.Listens(h.State, h.Ended, now) {
			listen++
		}
	}
	changed := c.changes.take()
	late := c.bringLate(ctx, changed, now)
	if listen == 0 {
		clear(c.underWay)
		return late
	}
	locks, err := c.locks(ctx)
	if err != nil {
		return errors.Join(late, err)
	}
	errs := []error{late} // what is under way goes on without it
	for _, h := range heads {
		if !rollout.Listens(h.State, h.Ended, now) {
			delete(c.underWay, h.ID)
			continue
		}
		look := look{head: h, changed: changed, ages: ages, locks: locks}
		if err := c.stepRollout(ctx, look); err != nil {
			delete(c.underWay, h.ID)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// look is what one look at a rollout begins with.
type look struct {
	head    store.RolloutHead
	changed map[identity.ID]bool
	ages    map[string]int // of rollouts: a newer one has more
	locks   []lock
}

// take returns a rollout as it is under way, read anew if a person changed it.
func (c *Controller) take(ctx context.Context, h store.RolloutHead) (*underWay, error) {
	if u := c.underWay[h.ID]; u != nil && u.rev == h.Rev {
		return u, nil
	}
	r, facts, rev, err := c.store.RolloutCourse(ctx, h.ID)
	if err != nil {
		return nil, err
	}
	course, err := rollout.NewCourse(r, facts)
	if err != nil {
		return nil, fmt.Errorf("take up rollout %s: %w", h.ID, err)
	}
	u := &underWay{course: course, rev: rev, joined: r.Created.UnixMilli()}
	if u.filter, err = registry.ParseFilter(r.Request.Filter); err != nil {
		return nil, fmt.Errorf("take up rollout %s: %w", h.ID, err)
	}
	for _, w := range r.Waves {
		for _, t := range w.Targets {
			u.members = append(u.members, t.Box)
		}
	}
	c.underWay[h.ID] = u
	return u, nil
}

// due lists the boxes to look at: those that changed, and a part of all.
func (u *underWay) due(changed map[identity.ID]bool, locks string) []identity.ID {
	if u.locks != locks {
		u.locks = locks
		return u.members
	}
	var out []identity.ID
	seen := map[identity.ID]bool{}
	for id := range changed {
		if u.course.Has(id) {
			seen[id] = true
			out = append(out, id)
		}
	}
	for range min(sweep, len(u.members)) {
		id := u.members[u.next%len(u.members)]
		u.next++
		if !seen[id] {
			out = append(out, id)
		}
	}
	return out
}

func (c *Controller) stepRollout(ctx context.Context, l look) error {
	u, err := c.take(ctx, l.head)
	if err != nil {
		return err
	}
	if u.course.Rollout().State != l.head.State {
		return nil // a person acted since the list was read
	}
	now := c.opts.WallClock().UTC()
	in, err := c.observe(ctx, u, l, now)
	if err != nil {
		return err
	}
	before := u.course.Rollout()
	before.Waves = slices.Clone(before.Waves)
	rec, actions := u.course.Step(in, now)
	if err := c.keep(ctx, u, before, rec); errors.Is(err, store.ErrConflict) {
		delete(c.underWay, l.head.ID)
		c.wakeConductor() // a person acted meanwhile: decide anew
		return nil
	} else if err != nil {
		return err
	}
	r := u.course.Rollout()
	if r.State != before.State {
		c.log.Info("rollout "+string(r.State), "rollout", r.ID, "why", r.Sentence)
	}
	return c.tellAll(ctx, r, actions, l)
}

// keep writes a step if it changed anything, with what people are told of it.
func (c *Controller) keep(ctx context.Context, u *underWay, before fleetapi.Rollout, rec rollout.Record) error {
	step := store.RolloutStep{Rollout: u.course.Rollout(), Record: rec}
	header := u.course.Changed(func(wave, at int, t fleetapi.Target, f rollout.Fact) {
		step.Rows = append(step.Rows, store.RolloutRow{Wave: wave, Place: at, Target: t, Fact: f})
	})
	if !header && len(step.Rows) == 0 && len(rec.Inputs) == 0 {
		return nil
	}
	tell, err := c.notify.Rollouts(ctx)
	if err != nil {
		return err
	}
	if step.Notices, err = tell(before, step.Rollout); err != nil {
		return err
	}
	rev, err := c.store.SaveStep(ctx, u.rev, step)
	if err != nil {
		return err
	}
	u.rev = rev
	c.hub.Publish(fleetapi.Change{Topic: "rollouts", ID: step.Rollout.ID})
	return nil
}

// tellAll carries actions out, for a while: the next step repeats what is left.
func (c *Controller) tellAll(ctx context.Context, r fleetapi.Rollout, actions []rollout.Action, l look) error {
	if len(actions) == 0 {
		return nil
	}
	var ids []identity.ID
	for _, a := range actions[:min(len(actions), sweep)] {
		ids = append(ids, a.Offer)
	}
	boxes, err := c.store.BoxesOf(ctx, ids)
	if err != nil {
		return err
	}
	var errs []error
	began := time.Now()
	for _, b := range boxes {
		if len(c.acted) > 0 || time.Since(began) > c.offerTime {
			break
		}
		if err := c.offer(ctx, r, b, l.ages); err != nil {
			errs = append(errs, fmt.Errorf("offer %s to %s: %w", r.Target, b.ID, err))
			continue
		}
		c.changes.add(b.ID) // the next step sees that it was told
	}
	return errors.Join(errs...)
}

// observe collects what is new to a rollout.
func (c *Controller) observe(ctx context.Context, u *underWay, l look, now time.Time) ([]rollout.Input, error) {
	boxes, err := c.store.BoxesOf(ctx, u.due(l.changed, lockKey(l.locks, now)))
	if err != nil {
		return nil, err
	}
	r, p := u.course.Rollout(), u.course.Policy()
	if p.Heat() {
		if err := c.store.AddNewest(ctx, boxes); err != nil {
			return nil, err
		}
	}
	if p.Admission != nil {
		if err := c.store.AddHeats(ctx, boxes); err != nil {
			return nil, err
		}
	}
	in, err := c.joiners(ctx, u, now)
	if err != nil {
		return nil, err
	}
	if held := fleetLock(l.locks, now); held != u.course.Held() {
		in = append(in, rollout.Input{Hold: &held})
	}
	for _, b := range boxes {
		f := factOf(r, b, l.ages, now)
		if p.Admission != nil {
			admissionFact(&f, b)
		}
		if len(l.locks) > 0 {
			f.Locked = boxLock(l.locks, registry.View(b, now), now)
		}
		if i, ok := u.course.Observe(b.ID, f); ok {
			in = append(in, i)
		}
	}
	return in, nil
}

// joiners are boxes that were enrolled after the plan, if the policy wants them.
func (c *Controller) joiners(ctx context.Context, u *underWay, now time.Time) ([]rollout.Input, error) {
	if !u.course.Policy().LateJoiners {
		return nil, nil
	}
	ids, err := c.store.EnrolledSince(ctx, u.joined)
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	var in []rollout.Input
	zones, err := c.zones(ctx)
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		b, err := c.store.Box(ctx, id, now.UnixMilli())
		if err != nil {
			return nil, err
		}
		v := registry.View(b, now)
		if u.course.Has(id) || !u.filter.Match(v) || v.Link == fleetapi.LinkNever {
			continue // a box that was never heard of is looked at again
		}
		t := u.course.TargetOf(v, zones(v.Site))
		in = append(in, rollout.Input{Join: &t})
		u.members = append(u.members, id)
	}
	return in, nil
}
