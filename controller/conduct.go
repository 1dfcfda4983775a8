package controller

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
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
		// A look at a large fleet takes its time: leave half of it to others.
		tick := time.NewTimer(max(c.opts.Tick, time.Since(began)))
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

// offer puts the version of a rollout into the desired state of a box and
// tells the box. Offering again changes nothing, and neither does offering
// after a newer rollout, which may have come first in this very step.
func (c *Controller) offer(ctx context.Context, r fleetapi.Rollout, box store.Box, ages map[string]int) error {
	id, attempt := box.ID, 1 // a box that gave a digest up tries it again only with a higher one
	for _, p := range box.Phases {
		if p.Digest == r.Target.Digest.String() && p.Rollout != r.ID {
			attempt++
		}
	}
	mayReplace := func(other string) bool { return other != r.ID && !younger(other, r, ages) }
	var deal func(*wire.Desired, func(string) bool) error
	if r.Kind == fleetapi.KindConfig {
		var err error
		if deal, err = c.dealer(ctx, r, box, attempt); err != nil {
			return err
		}
	}
	pinned, err := c.pinned(ctx, r)
	if err != nil {
		return err
	}
	envelope, err := c.store.SetDesired(ctx, id, func(d *wire.Desired) error {
		if deal != nil {
			return deal(d, mayReplace)
		}
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
		d.Keep = slices.DeleteFunc(d.Keep, func(m wire.DesiredModel) bool { return m.Name == want.Name })
		d.Keep = append(d.Keep, pinned...)
		return nil
	}, c.signDesired)
	if errors.Is(err, store.ErrAwaits) || errors.Is(err, store.ErrAhead) {
		return nil // it said so since it was looked at; the next step tells why it waits
	}
	if err != nil || envelope == nil {
		return err
	}
	c.tellDesired(id, envelope)
	return nil
}

// pinned are the versions of the model of a rollout that boxes keep beside it. What a
// box drops it drops when another version comes, so this is when it must know.
func (c *Controller) pinned(ctx context.Context, r fleetapi.Rollout) (keep []wire.DesiredModel, err error) {
	if r.Kind != fleetapi.KindModel {
		return nil, nil
	}
	refs, err := c.store.Pinned(ctx, r.Target.Name)
	for _, m := range refs {
		keep = append(keep, wire.DesiredModel{Name: m.Name, Version: m.Version, Digest: m.Digest})
	}
	return keep, err
}

// tellDesired tells a box what it shall run from now on.
func (c *Controller) tellDesired(id identity.ID, envelope []byte) {
	payload, err := wire.Encode(wire.Want{Desired: envelope})
	if err == nil {
		err = c.tell(id, wire.TopicWant, payload, 1)
	}
	if err != nil {
		// WELCOME tells it at the next connection.
		c.log.Debug("box not told at once", "device", id, "err", err)
	}
	c.hub.Publish(fleetapi.Change{Topic: "boxes", ID: string(id)})
}

// orderAcceptance asks a box for an acceptance test, signed as all that it acts
// on. It replaces what was asked for before.
func (c *Controller) orderAcceptance(ctx context.Context, id identity.ID, order wire.DesiredAccept) error {
	envelope, err := c.store.SetDesired(ctx, id, func(d *wire.Desired) error {
		d.Accept = &order
		return nil
	}, c.signDesired)
	if err != nil || envelope == nil {
		return err
	}
	c.tellDesired(id, envelope)
	return nil
}
