package main

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

func healthFleetCommand(c *cli) *cobra.Command {
	var days int
	cmd := c.call("fleet", "Sites by how urgent they are, and how well the upkeep does", func(ctx context.Context, client *fleetapi.Client, _ []string) error {
		sites, err := client.CareSites(ctx)
		if err != nil {
			return err
		}
		r, err := client.Care(ctx, days)
		if err != nil {
			return err
		}
		s := sheet{kind: "health-fleet", value: struct {
			Sites  []fleetapi.SiteCare `json:"sites"`
			Report fleetapi.CareReport `json:"report"`
		}{sites.Items, r}, item: "site-care", items: items(sites.Items), narrow: 9,
			head: []string{"SITE", "LEVEL", "BOXES", "WORST", "BOX", "TICKETS", "DUE", "DUST", "FILTER", "NEXT VISIT", "REGION", "CLASS", "HOT ROOM"}}
		for _, v := range sites.Items {
			s.rows = append(s.rows, []string{v.Site, string(v.Level), strconv.Itoa(v.Boxes), percentText(v.WorstValue), orDash(v.WorstBox), strconv.Itoa(v.Tickets), dueText(v),
				dustText(v.Dust), fmt.Sprintf("%.0f days", v.Filter.IntervalDays), orDash(v.NextDay), orDash(v.Region), orDash(v.Class), fmt.Sprint(v.HotRoom)})
			s.names = append(s.names, v.Site)
		}
		c.healthWords(r, days)
		return c.print(s)
	})
	cmd.Flags().IntVar(&days, "days", 90, "how far back times and counts go")
	return cmd
}

func dueText(v fleetapi.SiteCare) string {
	if v.VisitDue {
		return strconv.Itoa(v.Due) + " go"
	}
	return strconv.Itoa(v.Due)
}

func percentText(p *float64) string {
	if p == nil {
		return "-"
	}
	return fmt.Sprintf("%+.1f %%", *p)
}

func dustText(p *float64) string {
	if p == nil {
		return "-"
	}
	return fmt.Sprintf("%.1f %%/month", *p)
}

// healthWords says what the table of sites does not hold.
func (c *cli) healthWords(r fleetapi.CareReport, days int) {
	var levels []string
	for _, l := range []string{"urgent", "ticket", "watch", "healthy", "unknown"} {
		if n := r.Levels[l]; n > 0 {
			levels = append(levels, fmt.Sprintf("%d %s", n, l))
		}
	}
	c.say("Boxes: %s; %d without a clean measure yet.", orDash(strings.Join(levels, ", ")), r.Unjudged)
	if len(r.Causes) > 0 {
		c.say("Found: %s.", countsText(r.Causes))
	}
	c.say("Tickets of %d days: %d open, %d ended, %d of them back within 14 days, %d without a fault; seen after %s, proved after %s.",
		days, r.Tickets.Open, r.Ended, r.Reopened14, r.NoFault, spanText(r.MTTA), spanText(r.MTTR))
	if len(r.Resets) > 0 {
		c.say("Restarts of %d days: %s.", days, countsText(r.Resets))
	}
	for _, s := range r.Spares {
		c.say("Spares %s: have %d × %s for %d days (%.1f expected).", orDash(s.Region), s.Stock, s.Part, s.Days, s.Mean)
	}
	for _, name := range sortedKeys(r.Notify) {
		if n := r.Notify[name]; n.LastErr != "" || n.Failed > 0 {
			c.say("Endpoint %s: %d wait, %d given up: %s", name, n.Waiting, n.Failed, orDash(n.LastErr))
		}
	}
}

func countsText(counts map[string]int) string {
	var out []string
	for _, k := range sortedKeys(counts) {
		out = append(out, fmt.Sprintf("%s %d", k, counts[k]))
	}
	return strings.Join(out, ", ")
}

func spanText(seconds *float64) string {
	if seconds == nil {
		return "-"
	}
	d := time.Duration(*seconds) * time.Second
	switch {
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	case d < 48*time.Hour:
		return fmt.Sprintf("%.0f h", d.Hours())
	}
	return fmt.Sprintf("%.0f days", d.Hours()/24)
}

func (c *cli) healthBox(ctx context.Context, client *fleetapi.Client, args []string) error {
	b, err := findBox(ctx, client, args[0])
	if err != nil {
		return err
	}
	v, err := client.BoxCare(ctx, b.ID)
	if err != nil {
		return err
	}
	s := sheet{kind: "box-care", value: v, head: []string{"CAUSE", "LEVEL", "SURE", "SINCE", "CLOSED", "THROTTLES IN", "WHY"}, none: "Nothing was found."}
	for _, f := range v.Findings {
		why, closed := "-", "-"
		if len(f.Evidence) > 0 {
			why = f.Evidence[0].Text
		}
		if f.Closed != nil {
			closed = f.Closed.Format(time.DateOnly)
		}
		s.rows = append(s.rows, []string{f.Cause, string(f.Level), fmt.Sprintf("%.0f %%", 100*f.Confidence), f.Since.Format(time.DateOnly), closed, daysText(f.Forecast), why})
		s.names = append(s.names, f.Cause)
	}
	if c.output == "table" || c.output == "wide" {
		c.boxWords(v)
	}
	return c.print(s)
}

// boxWords says what the table of findings does not hold.
func (c *cli) boxWords(v fleetapi.BoxCare) {
	c.say("%s at %s: %s, %s", v.Name, orDash(v.Site), v.Level, coolingWords(v.Thermal))
	if co := v.Cohort; co != nil {
		c.say("%d boxes of %s stand at %+.1f %% ± %.1f; this one is %.1f spreads away.", co.Boxes, co.Name, co.Median, co.Spread, co.Score)
	}
	if v.Filter.Due != nil {
		c.say("Filter: %s; due %s.", v.Filter.Text, v.Filter.Due.Format(time.DateOnly))
	} else {
		c.say("Filter: %s.", v.Filter.Text)
	}
	if v.Upkeep.Place != "" {
		c.say("Place: %s", v.Upkeep.Place)
	}
	for _, t := range v.Tickets {
		if !t.State.Ended() {
			c.say("Ticket %s is %s: %s", t.ID, t.State, t.Do)
		}
	}
	for _, r := range v.Resets[:min(len(v.Resets), 3)] {
		c.say("Restart %s: %s (%.0f %%)", r.Time.Format("2006-01-02 15:04Z"), r.Cause, 100*r.Confidence)
	}
}

// healthSetCommand writes down where a box stands and which filter it has.
func healthSetCommand(c *cli) *cobra.Command {
	var place, part, serial, note, installed string
	cmd := c.call("set BOX", "Write down where a box stands and which filter it has", func(ctx context.Context, client *fleetapi.Client, args []string) error {
		b, err := findBox(ctx, client, args[0])
		if err != nil {
			return err
		}
		was, err := client.BoxCare(ctx, b.ID)
		if err != nil {
			return err
		}
		u := was.Upkeep
		for _, f := range []struct{ is, into *string }{{&place, &u.Place}, {&part, &u.FilterPart}, {&serial, &u.Serial}, {&note, &u.Note}} {
			if *f.is != "" {
				*f.into = *f.is
			}
		}
		if installed != "" {
			day, err := time.Parse(time.DateOnly, installed)
			if err != nil {
				return ended(exitUsage, "--filter-installed %s: want a day such as 2026-03-14", installed)
			}
			u.FilterInstalled = &day
		}
		v, err := client.SetUpkeep(ctx, b.ID, u)
		if err != nil {
			return err
		}
		day := "-"
		if v.Upkeep.FilterInstalled != nil {
			day = v.Upkeep.FilterInstalled.Format(time.DateOnly)
		}
		return c.print(sheet{kind: "box-upkeep", value: v.Upkeep, head: []string{"BOX", "PLACE", "FILTER", "INSTALLED", "SERIAL", "NOTE"}, names: []string{v.Name},
			rows: [][]string{{v.Name, orDash(v.Upkeep.Place), orDash(v.Upkeep.FilterPart), day, orDash(v.Upkeep.Serial), orDash(v.Upkeep.Note)}}})
	})
	f := cmd.Flags()
	f.StringVar(&place, "place", "", "where at the site, such as 'stock room, north wall'")
	f.StringVar(&part, "filter-part", "", "number of its filter")
	f.StringVar(&installed, "filter-installed", "", "day on which it was put in, YYYY-MM-DD")
	f.StringVar(&serial, "serial", "", "serial number on the label")
	f.StringVar(&note, "note", "", "what there is to say")
	return cmd
}

func notifyCommand(c *cli) *cobra.Command {
	list := c.call("list", "Endpoints, what each wants to hear and how it does", func(ctx context.Context, client *fleetapi.Client, _ []string) error {
		r, err := client.Care(ctx, 1)
		if err != nil {
			return err
		}
		s := sheet{kind: "notify-list", value: r.Notify, head: []string{"ENDPOINT", "KIND", "ABOUT", "FROM", "SITES", "QUIET", "WAITING", "GIVEN UP", "LAST", "ERROR"}}
		now := time.Now()
		for _, name := range sortedKeys(r.Notify) {
			n := r.Notify[name]
			s.rows = append(s.rows, []string{name, n.Kind, strings.Join(n.About, ", "), string(n.Level), cmp.Or(strings.Join(n.Sites, ", "), "all"), orDash(strings.Join(n.Quiet, ", ")),
				strconv.Itoa(n.Waiting), strconv.Itoa(n.Failed), age(n.LastOK, now), orDash(n.LastErr)})
			s.names = append(s.names, name)
		}
		c.say("The weekly digest goes to endpoints from watch on; %d findings are in the next one.", len(r.Watch))
		return c.print(s)
	})
	return c.group("notify", "Notices of tickets and rollouts", list, c.call("test [ENDPOINT]", "Tell one endpoint, or all, a test", func(ctx context.Context, client *fleetapi.Client, args []string) error {
		name := ""
		if len(args) == 1 {
			name = args[0]
		}
		r, err := client.TestNotify(ctx, name)
		if err != nil {
			return err
		}
		s := sheet{kind: "notify-test", value: r, head: []string{"ENDPOINT", "KIND", "TOLD", "ERROR"}}
		failed := 0
		for _, t := range r.Items {
			if !t.OK {
				failed++
			}
			s.rows = append(s.rows, []string{t.Endpoint, t.Kind, fmt.Sprint(t.OK), orDash(t.Error)})
			s.names = append(s.names, t.Endpoint)
		}
		if err := c.print(s); err != nil {
			return err
		}
		switch {
		case len(r.Items) == 0:
			return ended(exitNotFound, "there is no endpoint: add some under `notify` in server.yaml; docs/care.md shows how")
		case failed > 0:
			return ended(exitPartly, "%d of %d endpoints were not told", failed, len(r.Items))
		}
		return nil
	}))
}

// healthSparesCommand lists the parts that regions should have.
func healthSparesCommand(c *cli) *cobra.Command {
	return c.call("spares", "Parts that each region should have for the next 90 days", func(ctx context.Context, client *fleetapi.Client, _ []string) error {
		r, err := client.Care(ctx, 1)
		if err != nil {
			return err
		}
		s := sheet{kind: "spare-list", item: "spare", value: r.Spares, items: items(r.Spares), head: []string{"REGION", "PART", "HAVE", "EXPECTED", "BOXES", "DAYS"}}
		for _, v := range r.Spares {
			s.rows = append(s.rows, []string{orDash(v.Region), v.Part, strconv.Itoa(v.Stock), fmt.Sprintf("%.1f", v.Mean), strconv.Itoa(v.Boxes), strconv.Itoa(v.Days)})
			s.names = append(s.names, v.Part)
		}
		return c.print(s)
	})
}

func rmaCommand(c *cli) *cobra.Command {
	var n fleetapi.NewRMA
	open := c.verb("open PART", "Send a part back to its vendor", func(ctx context.Context, args []string) error {
		n.Part = args[0]
		client, _, err := c.client()
		if err != nil {
			return err
		}
		r, err := client.OpenRMA(ctx, n)
		if err != nil {
			return err
		}
		return c.print(rmaSheet("rma", r, []fleetapi.RMA{r}))
	})
	f := open.Flags()
	f.StringVar(&n.Box, "box", "", "the box that it came out of")
	f.StringVar(&n.Ticket, "ticket", "", "the ticket that it belongs to")
	f.StringVar(&n.Serial, "serial", "", "serial number of the part")
	f.StringVar(&n.Vendor, "vendor", "", "who gets it")
	f.StringVar(&n.VendorNo, "vendor-number", "", "number that the vendor gave it")
	list := c.call("list", "Parts on their way back", func(ctx context.Context, client *fleetapi.Client, _ []string) error {
		all, err := client.RMAs(ctx)
		if err != nil {
			return err
		}
		s := rmaSheet("rma-list", all, all.Items)
		s.items = items(all.Items)
		return c.print(s)
	})
	return c.group("rma", "Parts that go back to their vendors", open, list, rmaActCommand(c, "shipped"), rmaActCommand(c, "received"), rmaActCommand(c, "close"))
}

func rmaActCommand(c *cli, action string) *cobra.Command {
	a := fleetapi.RMAAction{Action: action}
	words := map[string]string{"shipped": "Say that it is on its way", "received": "Say that the vendor has it", "close": "Say that it is settled"}
	cmd := c.call(action+" RMA", words[action], func(ctx context.Context, client *fleetapi.Client, args []string) error {
		r, err := client.ActOnRMA(ctx, args[0], a)
		if err != nil {
			return err
		}
		return c.print(rmaSheet("rma", r, []fleetapi.RMA{r}))
	})
	cmd.Flags().StringVar(&a.VendorNo, "vendor-number", "", "number that the vendor gave it")
	cmd.Flags().StringVar(&a.Credit, "credit", "", "what came back, such as '49.00 EUR'")
	cmd.Flags().StringVar(&a.Note, "note", "", "what there is to say")
	return cmd
}

func rmaSheet(kind string, value any, list []fleetapi.RMA) sheet {
	s := sheet{kind: kind, item: "rma", value: value, head: []string{"RMA", "STATE", "PART", "SERIAL", "BOX", "SITE", "VENDOR", "NUMBER", "CREDIT"}}
	for _, r := range list {
		s.rows = append(s.rows, []string{r.ID, r.State, r.Part, orDash(r.Serial), orDash(r.BoxName), orDash(r.Site), orDash(r.Vendor), orDash(r.VendorNo), orDash(r.Credit)})
		s.names = append(s.names, r.ID)
	}
	return s
}
