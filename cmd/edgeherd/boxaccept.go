package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeherd/edgeherd/internal/acceptance"
	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// acceptFlags are those of box accept.
type acceptFlags struct {
	list    bool
	levels  []string
	model   string
	loadFor time.Duration
	timeout time.Duration
	file    string
	lang    string
	id      string
}

func boxAcceptCommand(c *cli) *cobra.Command {
	var f acceptFlags
	cmd := c.verb("accept BOX", "Have a box test itself for its handover, and show or print the report", func(ctx context.Context, args []string) error {
		return c.boxAccept(ctx, args[0], f)
	})
	fl := cmd.Flags()
	fl.BoolVar(&f.list, "list", false, "only list the reports that came")
	fl.StringSliceVar(&f.levels, "level", nil, "hardware, system, load, operations (default all)")
	fl.StringVar(&f.model, "model", "", "load the box with this model (default: the first that has known samples)")
	fl.DurationVar(&f.loadFor, "load-for", 10*time.Minute, "how long the sustained load lasts")
	fl.DurationVar(&f.timeout, "timeout", 0, "give up waiting after so long; the test goes on (default: the load and 15 minutes)")
	fl.StringVar(&f.file, "report", "", "write a report that is there into this file: .html, .pdf, or .json as the box signed it; nothing is started")
	fl.StringVar(&f.lang, "lang", "en", "language of the file: en, de, pl, zh")
	fl.StringVar(&f.id, "id", "", "the report to show or write (default: the newest)")
	return cmd
}

func (c *cli) boxAccept(ctx context.Context, word string, f acceptFlags) error {
	start := fleetapi.StartAcceptance{Model: f.model, LoadSeconds: int(f.loadFor.Seconds())}
	for _, w := range f.levels {
		level, err := acceptance.ParseLevel(w)
		if err != nil {
			return ended(exitUsage, "--level: %v", err)
		}
		start.Levels = append(start.Levels, level)
	}
	if !slices.Contains([]string{"en", "de", "pl", "zh"}, f.lang) {
		return ended(exitUsage, "--lang %s: use en, de, pl or zh", f.lang)
	}
	form := strings.TrimPrefix(filepath.Ext(f.file), ".")
	if f.file != "" && !slices.Contains([]string{"html", "pdf", "json"}, form) {
		return ended(exitUsage, "--report %s: name a file that ends in .html, .pdf or .json", f.file)
	}
	client, _, err := c.client()
	if err != nil {
		return err
	}
	b, err := findBox(ctx, client, word)
	if err != nil {
		return err
	}
	switch {
	case f.list:
		return c.listAcceptances(ctx, client, b)
	case f.file == "" && f.id == "":
		if f.id, err = c.runAcceptance(ctx, client, b, start, f.timeout); err != nil {
			return err
		}
	case f.id == "":
		if f.id, err = newestAcceptance(ctx, client, b); err != nil {
			return err
		}
	}
	if f.file != "" {
		return c.writeAcceptance(ctx, client, b, f, form)
	}
	a, err := client.Acceptance(ctx, b.ID, f.id)
	if err != nil {
		return err
	}
	return c.showAcceptance(a)
}

func newestAcceptance(ctx context.Context, client *fleetapi.Client, b fleetapi.Box) (string, error) {
	list, err := client.Acceptances(ctx, b.ID)
	if err != nil {
		return "", err
	}
	if len(list.Items) == 0 {
		return "", ended(exitNotFound, "no acceptance report of %s came yet; run the test: edgeherd box accept %s", b.Name, b.Name)
	}
	return list.Items[0].ID, nil
}

func (c *cli) listAcceptances(ctx context.Context, client *fleetapi.Client, b fleetapi.Box) error {
	list, err := client.Acceptances(ctx, b.ID)
	if err != nil {
		return err
	}
	s := sheet{kind: "acceptance-list", item: "acceptance", value: list, items: items(list.Items), narrow: 8,
		head: []string{"REPORT", "VERDICT", "ENDED", "BY", "PASSED", "REMARKS", "FAILED", "SKIPPED", "LIST", "SIMULATED", "KEY"}}
	for _, a := range list.Items {
		s.rows = append(s.rows, []string{a.ID, string(a.Verdict), a.Ended.UTC().Format("2006-01-02 15:04"), orDash(a.By), fmt.Sprint(a.Passed), fmt.Sprint(a.Warned),
			fmt.Sprint(a.Failed), fmt.Sprint(a.Skipped), orDash(a.Delivery), fmt.Sprint(a.Simulated), a.Key})
		s.names = append(s.names, a.ID)
	}
	return c.print(s)
}

func (c *cli) writeAcceptance(ctx context.Context, client *fleetapi.Client, b fleetapi.Box, f acceptFlags, form string) error {
	var data []byte
	var err error
	if form == "json" {
		var a fleetapi.AcceptanceReport
		a, err = client.Acceptance(ctx, b.ID, f.id)
		data = a.Sealed
	} else {
		data, err = client.AcceptancePage(ctx, b.ID, f.id, form, f.lang)
	}
	if err != nil {
		return err
	}
	if err := durable.WriteFile(f.file, data, 0o644); err != nil {
		return err
	}
	c.say("wrote %s", f.file)
	return nil
}

// runAcceptance asks a box for a test and follows it until its report came.
func (c *cli) runAcceptance(ctx context.Context, client *fleetapi.Client, b fleetapi.Box, start fleetapi.StartAcceptance, timeout time.Duration) (string, error) {
	asked, err := client.StartAcceptance(ctx, b.ID, start)
	if err != nil {
		return "", err
	}
	c.say("%s was asked for report %s; the load lasts %s", b.Name, asked.ID, time.Duration(start.LoadSeconds)*time.Second)
	if timeout == 0 {
		timeout = time.Duration(start.LoadSeconds)*time.Second + 15*time.Minute
	}
	late := time.NewTimer(timeout)
	defer late.Stop()
	tick := time.NewTicker(watchPause)
	defer tick.Stop()
	told := map[fleetapi.Event]bool{}
	for failures := 0; ; {
		here, failed, err := c.acceptanceNews(ctx, client, b, asked.ID, told)
		var p *fleetapi.Error
		switch {
		case err != nil && (ctx.Err() != nil || errors.As(err, &p) || failures >= watchRetries):
			return "", err
		case err != nil:
			failures++
		case here:
			return asked.ID, nil
		case failed != "":
			return "", ended(exitFailed, "%s: %s", b.Name, failed)
		default:
			failures = 0
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-late.C:
			return "", ended(exitTimeout, "no report of %s after %s; it may still come: edgeherd box accept %s --list", b.Name, timeout, b.Name)
		case <-tick.C:
		}
	}
}

// acceptanceNews says what the box told since then, and whether the report is there.
func (c *cli) acceptanceNews(ctx context.Context, client *fleetapi.Client, b fleetapi.Box, id string, told map[fleetapi.Event]bool) (here bool, failed string, err error) {
	events, err := client.Events(ctx, b.ID, 50)
	if err != nil {
		return false, "", err
	}
	for _, e := range slices.Backward(events.Items) { // the newest is first
		var body wire.AcceptBody
		if e.Type != wire.EventAccept || told[e] || json.Unmarshal([]byte(e.Body), &body) != nil || body.ID != id {
			continue
		}
		told[e] = true
		c.say("%s", e.Text)
		if body.Phase == wire.AcceptFailed {
			failed = e.Text
		}
	}
	list, err := client.Acceptances(ctx, b.ID)
	here = slices.ContainsFunc(list.Items, func(a fleetapi.Acceptance) bool { return a.ID == id })
	return here, failed, err
}

// showAcceptance prints a report; the exit code tells its verdict.
func (c *cli) showAcceptance(a fleetapi.AcceptanceReport) error {
	s := sheet{kind: "acceptance", value: a, head: []string{"LEVEL", "CHECK", "RESULT", "MEASURED", "EXPECTED", "WHAT TO DO"}, names: []string{a.ID}}
	for _, k := range a.Report.Checks {
		s.rows = append(s.rows, []string{string(k.Level), k.Title(), string(k.Result), orDash(k.Value.String()), orDash(k.Expect.Text), orDash(k.Say.Text)})
	}
	if err := c.print(s); err != nil {
		return err
	}
	simulated := ""
	if a.Simulated {
		simulated = "; the board is simulated"
	}
	c.say("%s: %d passed, %d with a remark, %d failed, %d skipped%s", strings.ReplaceAll(string(a.Verdict), "-", " "), a.Passed, a.Warned, a.Failed, a.Skipped, simulated)
	c.say("to hand over: edgeherd box accept %s --id %s --report acceptance.pdf", a.Report.Name, a.ID)
	switch a.Verdict {
	case acceptance.Failed:
		return ended(exitFailed, "%s failed its acceptance test", a.Report.Name)
	case acceptance.Aborted:
		return ended(exitPartly, "the acceptance test of %s was ended early", a.Report.Name)
	}
	return nil
}
