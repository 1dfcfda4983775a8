package main

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// watchPause is how often a watched rollout is asked for, and watchRetries how
// many questions in a row may fail: a controller may be restarted meanwhile.
const (
	watchPause   = time.Second
	watchRetries = 30
)

func rolloutWatchCommand(c *cli) *cobra.Command {
	var timeout time.Duration
	cmd := c.call("watch ID", "Follow a rollout to its end; the exit code tells how it ended", func(ctx context.Context, client *fleetapi.Client, args []string) error {
		r, err := c.follow(ctx, client, args[0], timeout)
		if err != nil {
			return err
		}
		if err := c.print(targetSheet("rollout", r)); err != nil {
			return err
		}
		return verdict(r)
	})
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "give up watching after so long; the rollout goes on (0: never)")
	return cmd
}

// follow says what happens until the rollout has ended.
func (c *cli) follow(ctx context.Context, client *fleetapi.Client, id string, timeout time.Duration) (fleetapi.Rollout, error) {
	var late <-chan time.Time
	if timeout > 0 {
		t := time.NewTimer(timeout)
		defer t.Stop()
		late = t.C
	}
	tick := time.NewTicker(watchPause)
	defer tick.Stop()
	said, failures := "", 0
	for {
		r, err := client.Rollout(ctx, id)
		var p *fleetapi.Error
		switch {
		case err != nil && (ctx.Err() != nil || errors.As(err, &p) || failures >= watchRetries):
			return r, err
		case err != nil:
			failures++
		default:
			failures = 0
			if now := string(r.State) + ": " + r.Sentence; now != said {
				said = now
				c.say("%s", now)
			}
			if r.Ended != nil {
				return r, nil
			}
		}
		select {
		case <-ctx.Done():
			return r, ctx.Err()
		case <-late:
			return r, ended(exitTimeout, "%s is still running after %s; watching changed nothing: edgeherd rollout watch %s", id, timeout, id)
		case <-tick.C:
		}
	}
}

// verdict is how a rollout that ended is told to a script.
func verdict(r fleetapi.Rollout) error {
	all := targets(r)
	missed := count(all, fleetapi.TargetFailed, fleetapi.TargetUnreachable, fleetapi.TargetCanceled)
	switch {
	case r.State == fleetapi.RolloutHalted:
		return ended(exitHalted, "%s was stopped by a gate. %s", r.ID, r.Sentence)
	case missed > 0 && count(all, fleetapi.TargetSucceeded) > 0:
		return ended(exitPartly, "%s is %s, but %s of %d did not get the version", r.ID, r.State, plural(missed, "box", "boxes"), len(all))
	case r.State == fleetapi.RolloutCanceled || missed > 0:
		return ended(exitFailed, "%s is %s and no box got the version", r.ID, r.State)
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, cmp.Compare[string])
	return keys
}
