package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// These verbs are for the time after a restore: the controller asks.

func (c *cli) rolloutConflicts(ctx context.Context, client *fleetapi.Client, _ []string) error {
	r, err := client.Restores(ctx)
	if err != nil {
		return err
	}
	return c.printRestores(r)
}

func (c *cli) printRestores(r fleetapi.RestoreState) error {
	if r.Restored != nil {
		c.say("The controller came back from a backup at %s.", r.Restored.Format(time.RFC3339))
	}
	if r.Awaits > 0 {
		c.say("%s not heard since and told nothing: edgeherd box list --filter 'update = %q'.", plural(r.Awaits, "box", "boxes"), fleetapi.UpdateAwaits)
	}
	if n := len(r.Conflicts); n > 0 {
		c.say("%s what this controller has never signed. Keep what they run: edgeherd rollout adopt. Tell them once more what is wished here: edgeherd rollout reimpose.", plural(n, "box follows", "boxes follow"))
	}
	s := sheet{kind: "restores", item: "conflict", value: r, head: []string{"BOX", "SITE", "RUNS", "WISHED", "ID"}}
	for _, v := range r.Conflicts {
		s.items = append(s.items, v)
		s.names = append(s.names, string(v.Box))
		s.rows = append(s.rows, []string{v.Name, v.Site, orDash(strings.Join(v.Runs, " ")), orDash(strings.Join(v.Wished, " ")), string(v.Box)})
	}
	return c.print(s)
}

// rolloutChoose asks first: what people did after the backup is kept or undone.
func rolloutChoose(c *cli, choice, short, question string) *cobra.Command {
	a := fleetapi.RestoreChoice{Choice: choice}
	yes := false
	cmd := c.call(choice, short, func(ctx context.Context, client *fleetapi.Client, _ []string) error {
		if !yes {
			if !c.mayAsk() {
				return failure{exitUsage, errors.New("nobody is there to be asked; say --yes to choose without a question")}
			}
			list, err := client.Boxes(ctx, fleetapi.ListQuery{Filter: meant(a.Filter), PageSize: 1})
			if err != nil {
				return err
			}
			if a.ExpectCount == 0 {
				a.ExpectCount = list.TotalSize
			}
			if !c.ask(fmt.Sprintf(question, plural(list.TotalSize, "box", "boxes"))) {
				return ended(exitFailed, "nothing was chosen")
			}
		}
		r, err := client.ChooseRestore(ctx, a)
		if err != nil {
			return err
		}
		return c.printRestores(r)
	})
	f := cmd.Flags()
	f.StringVar(&a.Filter, "filter", "", `boxes, such as 'name = "berlin-1"'; default all that wait for a choice`)
	f.StringVar(&a.Reason, "reason", "", "why, for the audit log")
	f.BoolVarP(&yes, "yes", "y", false, "do not ask")
	f.IntVar(&a.ExpectCount, "expect-count", 0, "refuse if another number of boxes is meant")
	return cmd
}

// meant is a filter for those of its boxes that wait for a choice.
func meant(filter string) string {
	out := fmt.Sprintf("update = %q", fleetapi.UpdateConflict)
	if filter != "" {
		out += " AND (" + filter + ")"
	}
	return out
}
