package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeherd/edgeherd/internal/health"
)

func healthCommand(c *cli) *cobra.Command {
	return c.group("health", "Dust and wear: of the fleet, of a box, or judged from files", healthFleetCommand(c),
		c.call("box BOX", "What is found of one box, and its upkeep", c.healthBox), healthSetCommand(c), healthSparesCommand(c), healthReplayCommand(c))
}

func healthReplayCommand(c *cli) *cobra.Command {
	var events string
	var trip float64
	var cmd *cobra.Command
	cmd = c.verb("replay FILE", "Judge recorded CSV files: findings, visits and forecasts", func(ctx context.Context, files []string) error {
		if !cmd.Flags().Changed("output") {
			c.output = "jsonl"
		}
		if trip != 0 && (trip < 40 || trip > 125) {
			return ended(exitUsage, "--trip %v: want a die temperature of 40 to 125 °C", trip)
		}
		return c.healthReplay(ctx, files, events, trip)
	})
	cmd.Use, cmd.Args = "replay FILE...", func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return fmt.Errorf("FILE is missing: %s", cmd.UseLine())
		}
		return nil
	}
	cmd.Long = "Judges recorded CSV files as if their rows came in now: findings, visits and forecasts,\n" +
		"as JSON lines or with -o table for people. docs/health.md lists the columns."
	cmd.Flags().StringVar(&events, "events", "", "CSV of changes: time,box,site,kind,detail")
	cmd.Flags().Float64Var(&trip, "trip", 0, "die temperature at which boxes throttle, °C; default: as seen, else 95")
	return cmd
}

func (c *cli) healthReplay(ctx context.Context, files []string, events string, trip float64) error {
	var changes []health.Change
	if events != "" {
		err := withFile(events, func(r io.Reader) (err error) {
			changes, err = health.ReadEvents(events, r)
			return err
		})
		if err != nil {
			return err
		}
	}
	var loader health.Loader
	for _, name := range files {
		if err := withFile(name, func(r io.Reader) error { return loader.Read(name, cancelled{ctx.Err, r}) }); err != nil {
			return err
		}
	}
	table := loader.Done()
	for _, n := range table.Notes {
		c.say("note: %s", n)
	}
	if len(table.Series) == 0 {
		return errors.New("no file has a row that can be judged")
	}
	return c.printHealth(health.Replay(table, changes, health.ReplayOptions{TripC: trip, Each: eachAtOnce}))
}

func withFile(name string, do func(r io.Reader) error) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return do(f)
}

// cancelled ends a long read when the command is interrupted.
type cancelled struct {
	over func() error
	r    io.Reader
}

func (c cancelled) Read(b []byte) (int, error) {
	if err := c.over(); err != nil {
		return 0, err
	}
	return c.r.Read(b)
}

// eachAtOnce spreads work over the processors.
func eachAtOnce(n int, do func(i int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), n) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				do(i)
			}
		})
	}
	wg.Wait()
}

// printHealth writes one line for each thing, of a schema of its own; the
// other forms hold the findings, or all as one document.
func (c *cli) printHealth(r *health.Report) error {
	if c.output == "jsonl" {
		return errors.Join(
			lines(c.out, "health-finding", r.Findings), lines(c.out, "health-incident", r.Incidents),
			lines(c.out, "health-cleaning", r.Cleanings), lines(c.out, "health-visit", r.Visits),
			lines(c.out, "health-dust", r.Dust), lines(c.out, "health-prior", r.Priors), lines(c.out, "health-box", r.Boxes))
	}
	s := sheet{kind: "health-report", value: struct {
		Findings  []health.Finding   `json:"findings"`
		Incidents []health.Incident  `json:"incidents"`
		Cleanings []health.Cleaning  `json:"cleanings"`
		Visits    []health.SiteVisit `json:"visits"`
		Dust      []health.SiteDust  `json:"dust"`
		Priors    []health.Prior     `json:"priors"`
		Boxes     []health.BoxReport `json:"boxes"`
	}{r.Findings, r.Incidents, r.Cleanings, r.Visits, r.Dust, r.Priors, r.Boxes}}
	s.head = []string{"BOX", "SITE", "LEVEL", "CAUSE", "SURE", "SINCE", "TICKET", "CLOSED", "THROTTLES IN", "WHY"}
	for _, f := range r.Findings {
		s.rows = append(s.rows, []string{
			f.Box, dash(f.Site), f.Level.String(), string(f.Cause), fmt.Sprintf("%.0f %%", 100*f.Confidence),
			dayOf(f.Since), dayOf(f.Ticketed), dayOf(f.Closed), forecastText(f.Forecast), f.Evidence[0].Text,
		})
		s.names = append(s.names, f.Box)
	}
	if c.output == "table" || c.output == "wide" {
		c.healthSummary(r)
	}
	return c.print(s)
}

func lines[T any](w io.Writer, kind string, all []T) error {
	for _, v := range all {
		if err := writeJSON(w, kind, v, false); err != nil {
			return err
		}
	}
	return nil
}

// healthSummary says in words what the table does not hold.
func (c *cli) healthSummary(r *health.Report) {
	count := map[health.Level]int{}
	unjudged := 0
	for _, b := range r.Boxes {
		count[b.Health]++
		if !b.Judged {
			unjudged++
		}
	}
	c.say("%d boxes at the end: %d healthy, %d to watch, %d with tickets, %d urgent; %d had too few steady hours to be judged",
		len(r.Boxes), count[health.Healthy]-unjudged, count[health.Watch], count[health.Ticket], count[health.Urgent], unjudged)
	for _, in := range r.Incidents {
		c.say("%s: the room was hot from %s: %s", in.Site, dayOf(in.Since), strings.Join(in.Boxes, ", "))
	}
	for _, d := range r.Dust {
		c.say("%s: clean its filters every %d days, by what %d boxes show", d.Site, d.FilterDays, d.Boxes)
	}
	for _, v := range r.Visits {
		var what []string
		for _, i := range v.Items {
			what = append(what, i.Box+": "+i.Do)
		}
		c.say("visit %s %s (%s): %s", dash(v.Site), dayOf(v.Due), v.Level, strings.Join(what, "; "))
	}
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func dayOf(u health.Unix) string {
	if u == 0 {
		return "-"
	}
	return time.Unix(int64(u), 0).UTC().Format(time.DateOnly)
}

func forecastText(f *health.Forecast) string {
	switch {
	case f == nil:
		return "-"
	case f.Low >= 365:
		return "over a year"
	case f.High >= 365:
		return fmt.Sprintf("%.0f days or more", f.Low)
	}
	return fmt.Sprintf("%.0f to %.0f days", f.Low, f.High)
}
