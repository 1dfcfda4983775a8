package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// rolloutAct is a command that does something to a rollout at once.
func rolloutAct(c *cli, action, short string) *cobra.Command {
	a := fleetapi.RolloutAction{Action: action}
	cmd := c.verb(action+" ID", short, func(ctx context.Context, args []string) error {
		if action == "skip" && a.Wave == 0 && a.Box == "" {
			return failure{exitUsage, errors.New("say what to skip: --wave N, or --box ID")}
		}
		return c.actOn(ctx, args[0], a)
	})
	f := cmd.Flags()
	f.StringVar(&a.Reason, "reason", "", "why, for those who look later")
	if action == "approve" {
		f.IntVar(&a.Wave, "wave", 0, "number of the wave (default the first that waits for somebody)")
	}
	if action == "skip" {
		f.IntVar(&a.Wave, "wave", 0, "number of the wave of which no further box is told")
		f.StringVar((*string)(&a.Box), "box", "", "id of a single box to leave out")
	}
	f.IntVar(&a.ExpectCount, "expect-count", 0, "refuse if another number of boxes is meant")
	return cmd
}

func (c *cli) actOn(ctx context.Context, id string, a fleetapi.RolloutAction) error {
	client, _, err := c.client()
	if err != nil {
		return err
	}
	r, err := client.ActOn(ctx, id, a)
	if err != nil {
		return err
	}
	c.say("%s", r.Sentence)
	return c.print(rolloutSheet("rollout", r, []fleetapi.Rollout{r}))
}

// rolloutBackCommand asks first: boxes change what they run.
func rolloutBackCommand(c *cli) *cobra.Command {
	a := fleetapi.RolloutAction{Action: "rollback"}
	yes := false
	cmd := c.call("rollback ID", "Bring boxes back to what they ran before, in a rollout of its own", func(ctx context.Context, client *fleetapi.Client, args []string) error {
		r, err := client.Rollout(ctx, args[0])
		if err != nil {
			return err
		}
		n, kept := backCount(r, a.Wave)
		switch {
		case yes && n > sureAbove && a.ExpectCount == 0:
			return failure{exitUsage, fmt.Errorf("%d boxes would be rolled back; with --yes also say --expect-count %d", n, n)}
		case !yes && !c.mayAsk():
			return failure{exitUsage, errors.New("nobody is there to be asked; say --yes to roll back without a question")}
		case !yes:
			if !c.ask(fmt.Sprintf("Roll back %s from %s? %d keep it: what they ran before is not known.", plural(n, "box", "boxes"), r.Target, kept)) {
				return ended(exitFailed, "nothing was rolled back")
			}
			a.ExpectCount = n
		}
		return c.actOn(ctx, args[0], a)
	})
	f := cmd.Flags()
	f.IntVar(&a.Wave, "wave", 0, "only the boxes of that wave (default all)")
	f.StringVar(&a.Reason, "reason", "", "why, for those who look later")
	f.BoolVarP(&yes, "yes", "y", false, "do not ask")
	f.IntVar(&a.ExpectCount, "expect-count", 0, "how many boxes must be meant; needed with --yes for more than 100")
	return cmd
}

// backCount is how many boxes a rollback is about, and how many have nothing
// to go back to.
func backCount(r fleetapi.Rollout, wave int) (n, kept int) {
	for i, w := range r.Waves {
		if wave > 0 && i != wave-1 {
			continue
		}
		for _, t := range w.Targets {
			switch {
			case t.Offered == nil || t.State == fleetapi.TargetSuperseded:
			case t.Before.Digest.IsZero() || t.Before.Digest == r.Target.Digest:
				kept++
			default:
				n++
			}
		}
	}
	return n, kept
}

// rolloutLockCommand takes a lock: a lease with a reason.
func rolloutLockCommand(c *cli) *cobra.Command {
	var l fleetapi.NewLock
	var span time.Duration
	var from string
	cmd := c.verb("lock", "Keep boxes from being offered anything for a time", func(ctx context.Context, _ []string) error {
		if l.Reason == "" || span <= 0 {
			return failure{exitUsage, errors.New(`say why and for how long: --reason "stocktaking" --for 4h`)}
		}
		l.Seconds = span.Seconds()
		if from != "" {
			t, err := time.Parse(time.RFC3339, from)
			if err != nil {
				return failure{exitUsage, fmt.Errorf("--from %q: want a time such as 2026-12-20T00:00:00Z", from)}
			}
			l.From = &t
		}
		client, _, err := c.client()
		if err != nil {
			return err
		}
		lock, err := client.AddRolloutLock(ctx, l)
		if err != nil {
			return err
		}
		list, err := client.Boxes(ctx, fleetapi.ListQuery{Filter: l.Filter, PageSize: 1})
		if err != nil {
			return fmt.Errorf("lock %s holds; count its boxes: %w", lock.ID, err)
		}
		if list.TotalSize == 0 {
			c.say("Warning: no box matches now; those that come to match are locked.")
		}
		c.say("Locked: %s. End it early with: edgeherd rollout unlock %s", plural(list.TotalSize, "box", "boxes"), lock.ID)
		return c.print(lockSheet("rollout-lock", lock, []fleetapi.Lock{lock}))
	})
	f := cmd.Flags()
	f.StringVar(&l.Filter, "filter", "", `boxes, such as 'site = "berlin-1"'; default the whole fleet`)
	f.StringVar(&l.Reason, "reason", "", "why; every box that waits tells it")
	f.DurationVar(&span, "for", 0, "how long; a lock always ends")
	f.StringVar(&from, "from", "", "when it begins (default now)")
	return cmd
}

func (c *cli) rolloutLocks(ctx context.Context, client *fleetapi.Client, _ []string) error {
	list, err := client.RolloutLocks(ctx)
	if err != nil {
		return err
	}
	s := lockSheet("rollout-lock-list", list, list.Items)
	s.items = items(list.Items)
	return c.print(s)
}

func (c *cli) rolloutUnlock(ctx context.Context, client *fleetapi.Client, args []string) error {
	list, err := client.DropRolloutLock(ctx, args[0])
	if err != nil {
		return err
	}
	c.say("Unlocked.")
	return c.print(lockSheet("rollout-lock-list", list, list.Items))
}

func lockSheet(kind string, value any, list []fleetapi.Lock) sheet {
	s := sheet{kind: kind, item: "rollout-lock", value: value, head: []string{"ID", "BOXES", "FROM", "UNTIL", "OWNER", "REASON"}}
	for _, l := range list {
		boxes := l.Filter
		if boxes == "" {
			boxes = "all"
		}
		s.rows = append(s.rows, []string{l.ID, boxes, l.From.Format(time.RFC3339), l.Until.Format(time.RFC3339), l.Owner, oneLine(l.Reason)})
		s.names = append(s.names, l.ID)
	}
	return s
}
