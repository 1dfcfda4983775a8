package controller

import (
	"context"
	"fmt"

	"github.com/edgeherd/edgeherd/controller/rollout"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// askRestored pauses the rollouts that were running when the backup was made
// from which the database came back: whether one was halted, canceled or done
// since then is not known, and a person goes on with it. asked says that some
// were paused in this step.
func (c *Controller) askRestored(ctx context.Context, heads []store.RolloutHead) (asked bool, err error) {
	restored, err := c.store.Restored(ctx)
	if err != nil || !restored.Unread {
		return false, err
	}
	now := c.opts.WallClock().UTC()
	act := rollout.Act{Action: rollout.ActPause, Reason: "the controller came back from a backup at " + restored.At.Format("2006-01-02 15:04 UTC") + "; what was decided after the backup was made is not known"}
	tell, err := c.notify.Rollouts(ctx)
	if err != nil {
		return false, err
	}
	for _, h := range heads {
		if h.State != fleetapi.RolloutRunning {
			continue
		}
		_, err := c.store.UpdateRollout(ctx, h.ID, func(r fleetapi.Rollout) (store.RolloutStep, error) {
			next, err := act.On(r, now)
			if err != nil {
				return store.RolloutStep{Rollout: r}, nil // a person was faster
			}
			notices, err := tell(r, next)
			return store.RolloutStep{Rollout: next, Notices: notices, Record: rollout.Record{At: now, Inputs: []rollout.Input{{Act: &act}}, Decisions: rollout.Diff(r, next)}}, err
		})
		if err != nil {
			return asked, fmt.Errorf("pause rollout %s: %w", h.ID, err)
		}
		asked = true
		c.log.Warn("rollout paused: the controller came back from a backup", "rollout", h.ID)
		c.hub.Publish(fleetapi.Change{Topic: "rollouts", ID: h.ID})
	}
	return asked, c.store.RestoreRead(ctx)
}

// settle does what a person chose about a box that follows what this database
// has never signed.
func (c *Controller) settle(ctx context.Context, id identity.ID, choice string) error {
	box, err := c.store.Box(ctx, id, c.opts.WallClock().UnixMilli())
	if err != nil {
		return err
	}
	agent := wire.DesiredAgent{Version: box.Inventory.Agent, Digest: digestOf(box.Inventory.AgentRelease)}
	envelope, err := c.store.SettleAhead(ctx, id, func(d *wire.Desired, running wire.Running) error {
		rollout.Settle(choice, d, rollout.Ran{Models: running.Models, Agent: agent}, c.opts.WallClock())
		return nil
	}, c.signDesired)
	if err != nil {
		return err
	}
	c.tellDesired(id, envelope)
	c.changes.add(id)
	if err := c.secrets.Settle(ctx, id); err != nil {
		c.log.Error("secrets of a box are not sealed yet; it is tried again within the hour", "device", id, "err", err)
	}
	return nil
}
