package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// sureAbove this many boxes, --yes needs --expect-count beside it.
const sureAbove = 100

func rolloutCommand(c *cli) *cobra.Command {
	return c.group("rollout", "Bring a model or an agent release to boxes, in waves",
		rolloutPlanCommand(c), rolloutStartCommand(c), rolloutWatchCommand(c),
		c.call("list", "Rollouts, newest first", c.rolloutList),
		also(c.call("status ID", "One rollout with its waves and boxes", c.rolloutStatus), "show"),
		also(c.call("events ID", "What was decided and why, oldest first", c.rolloutEvents), "history"),
		rolloutReplayCommand(c),
		rolloutAct(c, "pause", "Offer the version to no further box"),
		rolloutAct(c, "resume", "Go on after a pause"),
		rolloutAct(c, "approve", "Let a wave begin that waits for a person"),
		rolloutAct(c, "skip", "Leave boxes out that were not offered the version yet"),
		rolloutAct(c, "cancel", "Give up; boxes that have the version keep it"),
		rolloutBackCommand(c),
		c.call("conflicts", "After a restore: boxes that follow what this controller has never signed", c.rolloutConflicts),
		rolloutChoose(c, "adopt", "After a restore: what boxes run is what they shall run", "Keep what %s run?"),
		rolloutChoose(c, "reimpose", "After a restore: tell boxes once more what this controller wishes", "Bring %s back to what this controller wishes?"),
		rolloutLockCommand(c),
		c.call("locks", "Locks that have not ended", c.rolloutLocks),
		c.call("unlock ID", "End a lock", c.rolloutUnlock),
	)
}

// also gives a command another name.
func also(cmd *cobra.Command, name string) *cobra.Command {
	cmd.Aliases = append(cmd.Aliases, name)
	return cmd
}

// planFlags are what a plan can be asked for.
type planFlags struct {
	req               fleetapi.PlanRequest
	soak, unreachable time.Duration
	policy            string // a file
}

func addPlanFlags(cmd *cobra.Command) *planFlags {
	p := &planFlags{}
	f := cmd.Flags()
	f.StringVar(&p.req.Release, "release", "", "version of an agent release, in place of a model")
	f.StringVar(&p.req.Filter, "filter", "", `boxes, such as 'site = "berlin-1"'; default all`)
	f.StringVar(&p.req.Config, "config", "", "NAME:VERSION of a document of settings, in place of a model")
	p.policyFlags(f)
	return p
}

// policyFlags say in which steps, and what stops it.
func (p *planFlags) policyFlags(f *pflag.FlagSet) {
	f.StringVar(&p.policy, "policy", "", "file with a policy; the flags below stand above it")
	f.StringSliceVar(&p.req.Waves, "wave", nil, "size of a wave: 1, 25% or rest; once for each (default 1, rest)")
	f.DurationVar(&p.soak, "soak", 0, "how long a wave must stay good")
	f.IntVar(&p.req.MaxFailed, "max-failed", 0, "boxes of a wave that may fail before it halts")
	f.DurationVar(&p.unreachable, "unreachable-after", 0, "a box that says nothing for so long does not hold its wave up (default 10m)")
}

// request joins the flags with the argument, which is NAME:VERSION of a model.
func (p *planFlags) request(args []string) (fleetapi.PlanRequest, error) {
	if len(args) > 0 {
		p.req.Model = args[0]
	}
	named := 0
	for _, word := range []string{p.req.Model, p.req.Release, p.req.Config} {
		if word != "" {
			named++
		}
	}
	if named != 1 {
		return p.req, failure{exitUsage, errors.New("name what to roll out: MODEL:VERSION, --release VERSION or --config NAME:VERSION")}
	}
	var err error
	if p.req.Policy, err = readPolicy(p.policy); err != nil {
		return p.req, err
	}
	p.req.SoakSeconds, p.req.UnreachableAfterSeconds = p.soak.Seconds(), p.unreachable.Seconds()
	return p.req, nil
}

func rolloutPlanCommand(c *cli) *cobra.Command {
	var p *planFlags
	var dry bool
	cmd := c.verb("plan [MODEL:VERSION]", "Show which box would get a version in which wave, and keep the plan", func(ctx context.Context, args []string) error {
		req, err := p.request(args)
		if err != nil {
			return err
		}
		client, _, err := c.client()
		if err != nil {
			return err
		}
		plan := client.Plan
		if dry {
			plan = client.DryPlan
		}
		r, err := plan(ctx, req)
		if err != nil {
			return err
		}
		if err := c.printPlan(r); err != nil || dry {
			return err
		}
		c.say("Next: edgeherd rollout start --plan %s", r.ID)
		return nil
	})
	p = addPlanFlags(cmd)
	cmd.Flags().BoolVar(&dry, "dry-run", false, "forget the plan after showing it")
	return cmd
}

// printPlan shows every box of every wave.
func (c *cli) printPlan(r fleetapi.Rollout) error {
	c.say("%s; %s for a box that has nothing of it.", r.Sentence, bytesText(r.BytesPerBox))
	for _, w := range r.Warnings {
		c.say("Warning: %s.", w)
	}
	if s := r.Sheet; s != nil {
		c.saySheet(*s)
	}
	return c.print(targetSheet("rollout", r))
}

// saySheet tells what a plan means for sites, and which boxes it leaves out.
func (c *cli) saySheet(s fleetapi.PlanSheet) {
	for _, v := range s.Sites {
		window := ""
		if v.Window != "" {
			window = "; " + v.Window
		}
		if v.Waits != "" {
			window += "; waits now: " + v.Waits
		}
		c.say("Site %s: %s, up to %s%s.", v.Site, plural(v.Boxes, "box", "boxes"), bytesText(v.Bytes), window)
	}
	for _, v := range s.Skipped {
		word := "Left out"
		if v.Later {
			word = "Last"
		}
		c.say("%s: %s: %s.", word, v.Name, v.Why)
	}
	if s.Ends != nil {
		c.say("If all goes well it ends at %s.", s.Ends.Format(time.RFC3339))
	}
}

// startFlags are the flags of start beside those of a plan.
type startFlags struct {
	plan   string
	yes    bool
	expect int
}

func rolloutStartCommand(c *cli) *cobra.Command {
	var p *planFlags
	var o startFlags
	cmd := c.verb("start [MODEL:VERSION]", "Plan a rollout, show it, ask, and start it", func(ctx context.Context, args []string) error {
		r, client, err := c.startable(ctx, o, p, args)
		if err != nil {
			return err
		}
		if err := c.sure(r, o); err != nil {
			return err
		}
		r, err = client.Act(ctx, r.ID, "start")
		if err != nil {
			return err
		}
		c.say("Started %s on %s. Next: edgeherd rollout watch %s", r.ID, plural(len(targets(r)), "box", "boxes"), r.ID)
		return c.print(rolloutSheet("rollout", r, []fleetapi.Rollout{r}))
	})
	p = addPlanFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&o.plan, "plan", "", "id of a plan that was made before")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	f.IntVar(&o.expect, "expect-count", 0, "how many boxes the plan must have; needed with --yes for more than 100")
	return cmd
}

// startable returns the plan that was named, or makes one.
func (c *cli) startable(ctx context.Context, o startFlags, p *planFlags, args []string) (fleetapi.Rollout, *fleetapi.Client, error) {
	var req fleetapi.PlanRequest
	var err error
	if o.plan == "" {
		req, err = p.request(args)
	} else if len(args) > 0 || p.req.Release != "" || p.req.Config != "" {
		err = failure{exitUsage, errors.New("--plan says what to roll out; leave the model or release out")}
	}
	if err != nil {
		return fleetapi.Rollout{}, nil, err
	}
	if !o.yes && !c.mayAsk() {
		return fleetapi.Rollout{}, nil, failure{exitUsage, errors.New("nobody is there to be asked; say --yes to start without a question")}
	}
	client, _, err := c.client()
	if err != nil {
		return fleetapi.Rollout{}, nil, err
	}
	var r fleetapi.Rollout
	if o.plan == "" {
		r, err = client.Plan(ctx, req)
	} else {
		r, err = client.Rollout(ctx, o.plan)
	}
	return r, client, err
}

// sure shows the plan and makes sure that it is meant.
func (c *cli) sure(r fleetapi.Rollout, o startFlags) error {
	n := len(targets(r))
	if o.expect > 0 && o.expect != n {
		return ended(exitConflict, "the plan has %s, --expect-count says %d; nothing was started", plural(n, "box", "boxes"), o.expect)
	}
	if o.yes {
		if n > sureAbove && o.expect == 0 {
			return failure{exitUsage, fmt.Errorf("the plan has %d boxes; with --yes also say --expect-count %d", n, n)}
		}
		return nil
	}
	if err := c.printPlan(r); err != nil {
		return err
	}
	if !c.ask(fmt.Sprintf("Start %s on %s?", r.Target, plural(n, "box", "boxes"))) {
		return ended(exitFailed, "not started; the plan stays: edgeherd rollout start --plan %s", r.ID)
	}
	return nil
}

func targets(r fleetapi.Rollout) []fleetapi.Target {
	var out []fleetapi.Target
	for _, w := range r.Waves {
		out = append(out, w.Targets...)
	}
	return out
}

func (c *cli) rolloutList(ctx context.Context, client *fleetapi.Client, _ []string) error {
	list, err := client.AllRollouts(ctx)
	if err != nil {
		return err
	}
	s := rolloutSheet("rollout-list", list, list.Items)
	s.items = items(list.Items)
	return c.print(s)
}

func rolloutSheet(kind string, value any, list []fleetapi.Rollout) sheet {
	s := sheet{kind: kind, item: "rollout", value: value, narrow: 7, head: []string{"ID", "STATE", "TARGET", "BOXES", "SUCCEEDED", "FAILED", "AGE", "WAVES", "CREATED", "SENTENCE"}}
	now := time.Now()
	for _, r := range list {
		boxes, by := 0, map[fleetapi.TargetState]int{}
		for _, w := range r.Waves {
			for state, n := range w.Counts {
				boxes, by[state] = boxes+n, by[state]+n
			}
		}
		s.rows = append(s.rows, []string{r.ID, string(r.State), r.Target.String(), strconv.Itoa(boxes), strconv.Itoa(by[fleetapi.TargetSucceeded]),
			strconv.Itoa(by[fleetapi.TargetFailed]), age(&r.Created, now), strconv.Itoa(len(r.Waves)), r.Created.Format(time.RFC3339), r.Sentence})
		s.names = append(s.names, r.ID)
	}
	return s
}

func count(all []fleetapi.Target, states ...fleetapi.TargetState) int {
	n := 0
	for _, t := range all {
		for _, s := range states {
			if t.State == s {
				n++
			}
		}
	}
	return n
}

// targetSheet has a row for each box.
func targetSheet(kind string, r fleetapi.Rollout) sheet {
	s := sheet{kind: kind, value: r, narrow: 7, head: []string{"WAVE", "WAVE STATE", "BOX", "SITE", "STATE", "PHASE", "ERROR", "ID", "GOLDEN", "SECONDS"}, names: []string{r.ID}}
	for i, w := range r.Waves {
		for _, t := range w.Targets {
			golden, seconds := "-", "-"
			if t.Probe != nil {
				golden = fmt.Sprintf("%d/%d", t.Probe.GoldenPassed, t.Probe.GoldenTotal)
				seconds = strconv.FormatFloat(t.Probe.SecondsPerItem, 'g', 3, 64)
			}
			s.rows = append(s.rows, []string{strconv.Itoa(i + 1), string(w.State), t.Name, t.Site, string(t.State), orDash(t.Phase), orDash(oneLine(cmp.Or(t.Err, t.Waits))), string(t.Box), golden, seconds})
		}
	}
	return s
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func (c *cli) rolloutStatus(ctx context.Context, client *fleetapi.Client, args []string) error {
	r, err := client.Rollout(ctx, args[0])
	if err != nil {
		return err
	}
	c.say("%s is %s. %s", r.ID, r.State, r.Sentence)
	if r.Affected != "" {
		c.say("%s", r.Affected)
	}
	return c.print(targetSheet("rollout", r))
}
