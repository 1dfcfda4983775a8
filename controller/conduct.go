package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/controller/registry"
	"github.com/edgeherd/edgeherd/controller/rollout"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// liveSpan is how long one request for live samples lasts.
const liveSpan = 30 * time.Second

// conduct moves rollouts once a tick, at once when a person has acted, and asks
// boxes for live samples while somebody watches. In a large fleet something
// changes all the time, so a change of a box is no reason to look.
func (c *Controller) conduct(ctx context.Context) error {
	var asked time.Time
	halted := "" // the reason that was logged: an outage is told once
	for {
		began := time.Now()
		if lead, ok := c.asLeader(ctx); ok {
			err := c.step(lead)
			switch {
			case err == nil:
				halted = ""
			case ctx.Err() == nil && !errors.Is(err, store.ErrFenced) && halted != err.Error():
				halted = err.Error()
				c.log.Error("rollouts stand still", "err", err)
			}
		}
		if c.watching() && time.Since(asked) > liveSpan/2 {
			asked = time.Now()
			c.askLive(ctx)
		}
		// A look at a large fleet takes its time: leave most of it to others.
		tick := time.NewTimer(max(c.opts.Tick, 10*time.Since(began)))
		select {
		case <-ctx.Done():
		case <-c.acted:
		case <-tick.C:
		}
		tick.Stop()
		if ctx.Err() != nil {
			return nil
		}
	}
}

func (c *Controller) liveFor() time.Duration {
	if c.watching() {
		return liveSpan
	}
	return 0
}

// askLive asks the boxes that this controller talks with; behind a broker of
// others the leader asks all the rest.
func (c *Controller) askLive(ctx context.Context) {
	ask := c.broker.Publish
	if c.remote != nil && c.leads() {
		ask = c.tell
	}
	boxes, err := c.store.Boxes(ctx, c.opts.WallClock().UnixMilli())
	if err != nil {
		c.log.Warn("live samples not asked for", "err", err)
		return
	}
	payload, err := wire.Encode(wire.Cmd{LiveMs: liveSpan.Milliseconds()})
	if err != nil {
		panic("controller: a Cmd always encodes: " + err.Error())
	}
	for _, b := range boxes {
		if b.Connected {
			// A command that is lost is repeated within half its span.
			_ = ask(b.ID, wire.TopicCmd, payload, 0)
		}
	}
}

// step looks once at every running rollout.
func (c *Controller) step(ctx context.Context) error {
	all, err := c.store.Rollouts(ctx)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(all, func(r fleetapi.Rollout) bool { return r.State == fleetapi.RolloutRunning }) {
		return nil
	}
	boxes, err := c.store.Boxes(ctx, c.opts.WallClock().UnixMilli())
	if err != nil {
		return err
	}
	created := map[string]time.Time{}
	for _, r := range all {
		created[r.ID] = r.Created
	}
	var errs []error
	for _, r := range all {
		if r.State == fleetapi.RolloutRunning {
			errs = append(errs, c.stepRollout(ctx, r, boxes, created))
		}
	}
	return errors.Join(errs...)
}

// errActed says that a person has changed a rollout: what was decided before
// may no longer hold, and what is left of it is decided anew.
var errActed = errors.New("a person acted meanwhile")

func (c *Controller) stepRollout(ctx context.Context, r fleetapi.Rollout, boxes []store.Box, created map[string]time.Time) error {
	now := c.opts.WallClock().UTC()
	facts := map[identity.ID]rollout.Fact{}
	for _, b := range boxes {
		facts[b.ID] = factOf(r, b, created, now)
	}
	next, actions := rollout.Next(r, facts, now)
	if !reflect.DeepEqual(next, r) {
		var err error
		next, err = c.store.UpdateRollout(ctx, r.ID, func(stored fleetapi.Rollout) (fleetapi.Rollout, error) {
			if stored.State != r.State {
				return stored, errActed
			}
			return next, nil
		})
		if errors.Is(err, errActed) {
			c.wakeConductor()
			return nil
		}
		if err != nil {
			return err
		}
		if next.State != r.State {
			c.log.Info("rollout "+string(next.State), "rollout", r.ID, "why", next.Sentence)
		}
		c.hub.Publish(fleetapi.Change{Topic: "rollouts", ID: r.ID})
	}
	var errs []error
	for _, a := range actions {
		if len(c.acted) > 0 {
			break // the next step repeats what still holds
		}
		if err := c.offer(ctx, next, a.Offer, created); err != nil {
			errs = append(errs, fmt.Errorf("offer %s to %s: %w", r.Target, a.Offer, err))
		}
	}
	return errors.Join(errs...)
}

// factOf collects what rollout r must know of one box.
func factOf(r fleetapi.Rollout, b store.Box, created map[string]time.Time, now time.Time) rollout.Fact {
	f := rollout.Fact{Link: registry.View(b, now).Link}
	if r.Kind == fleetapi.KindAgent {
		if a := b.Desired.Agent; a != nil {
			f.Desired, f.DesiredRollout = a.Digest, a.Rollout
		}
		f.Running = digestOf(b.Inventory.AgentRelease)
	} else {
		for _, m := range b.Desired.Models {
			if m.Name == r.Target.Name {
				f.Desired, f.DesiredRollout = m.Digest, m.Rollout
			}
		}
		for _, m := range b.Running.Models {
			if m.Name == r.Target.Name {
				f.Running = digestOf(m.Digest)
			}
		}
	}
	// The box follows what this database does not know: it came back from a backup.
	f.Outrun = b.Running.Generation > b.Desired.Generation
	f.Newer = f.DesiredRollout != r.ID && created[f.DesiredRollout].After(r.Created)
	for _, p := range b.Phases {
		if p.Digest == r.Target.Digest.String() && p.Rollout == r.ID {
			f.Phase, f.Err = p.Phase, p.Err
			f.Probe = probeOf(p)
		}
	}
	return f
}

// digestOf reads a digest that a box reported; nonsense is none.
func digestOf(text string) blob.Digest {
	d, err := blob.ParseDigest(text)
	if err != nil {
		return blob.Digest{}
	}
	return d
}

func probeOf(p store.Phase) *fleetapi.Probe {
	var body wire.PhaseBody
	if json.Unmarshal([]byte(p.Body), &body) != nil || len(body.Probe) == 0 {
		return nil
	}
	var probe fleetapi.Probe
	if json.Unmarshal(body.Probe, &probe) != nil {
		return nil
	}
	return &probe
}

// offer puts the version of a rollout into the desired state of a box and
// tells the box. Offering again changes nothing, and neither does offering
// after a newer rollout, which may have come first in this very step.
func (c *Controller) offer(ctx context.Context, r fleetapi.Rollout, id identity.ID, created map[string]time.Time) error {
	// Its results are of no interest: from 0 on, the hours of all boxes are read.
	box, err := c.store.Box(ctx, id, c.opts.WallClock().UnixMilli())
	if err != nil {
		return err
	}
	attempt := 1 // a box that gave a digest up tries it again only with a higher one
	for _, p := range box.Phases {
		if p.Digest == r.Target.Digest.String() && p.Rollout != r.ID {
			attempt++
		}
	}
	mayReplace := func(other string) bool { return other != r.ID && !created[other].After(r.Created) }
	envelope, err := c.store.SetDesired(ctx, id, func(d *wire.Desired) error {
		if r.Kind == fleetapi.KindAgent {
			if d.Agent != nil && !mayReplace(d.Agent.Rollout) {
				return nil
			}
			d.Agent = &wire.DesiredAgent{Version: r.Target.Version, Digest: r.Target.Digest, Rollout: r.ID}
			return nil
		}
		want := wire.DesiredModel{Name: r.Target.Name, Version: r.Target.Version, Digest: r.Target.Digest, Rollout: r.ID, Attempt: attempt}
		at := slices.IndexFunc(d.Models, func(m wire.DesiredModel) bool { return m.Name == want.Name })
		if at < 0 {
			d.Models = append(d.Models, want)
		} else if mayReplace(d.Models[at].Rollout) {
			d.Models[at] = want
		}
		return nil
	}, func(payload []byte) ([]byte, error) { return trust.Sign(trust.TypeDesired, payload, c.key) })
	if err != nil || envelope == nil {
		return err
	}
	payload, err := wire.Encode(wire.Want{Desired: envelope})
	if err != nil {
		return err
	}
	if err := c.tell(id, wire.TopicWant, payload, 1); err != nil {
		// WELCOME tells it at the next connection.
		c.log.Debug("box not told at once", "device", id, "err", err)
	}
	c.hub.Publish(fleetapi.Change{Topic: "boxes", ID: string(id)})
	return nil
}
