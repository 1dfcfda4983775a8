package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

func ticketCommand(c *cli) *cobra.Command {
	return c.group("ticket", "Tickets: what is to be done about boxes and sites",
		ticketListCommand(c),
		c.call("show TICKET", "One ticket with its evidence and history", c.ticketShow),
		ticketOpenCommand(c),
		ticketActCommand(c, "ack TICKET", "Say that somebody has seen it", "acknowledge", nil),
		ticketAssignCommand(c),
		ticketActCommand(c, "arrive TICKET", "Say that somebody is there", "arrive", nil),
		ticketDoneCommand(c),
		ticketActCommand(c, "reopen TICKET", "Take it up again", "reopen", nil),
		ticketCloseCommand(c),
		ticketActCommand(c, "note TICKET", "Write something down", "note", nil),
		ticketExportCommand(c),
	)
}

// openTickets is the filter of a list when none is given.
const openTickets = "open = true"

func ticketListCommand(c *cli) *cobra.Command {
	var filter, order string
	var all bool
	cmd := c.verb("list", "Open tickets, newest first; --all for those that ended, too", func(ctx context.Context, _ []string) error {
		if filter == "" && !all {
			filter = openTickets
		}
		client, _, err := c.client()
		if err != nil {
			return err
		}
		list, err := client.AllTickets(ctx, filter, order)
		if err != nil {
			return err
		}
		s := ticketSheet("ticket-list", list, list.Items)
		s.items, s.none = items(list.Items), "No ticket is open. Those that ended: edgeherd ticket list --all"
		switch filter {
		case "":
			s.none = "No ticket was ever opened."
		case openTickets:
		default:
			s.none = "No ticket matches " + filter
		}
		return c.print(s)
	})
	cmd.Flags().StringVar(&filter, "filter", "", `expression, such as 'due = true AND site = "berlin-1"'`)
	cmd.Flags().StringVar(&order, "order", "", `field, with " desc" to reverse`)
	cmd.Flags().BoolVar(&all, "all", false, "also those that ended")
	return cmd
}

func ticketSheet(kind string, value any, list []fleetapi.Ticket) sheet {
	s := sheet{kind: kind, item: "ticket", value: value, narrow: 9,
		head: []string{"TICKET", "LEVEL", "STATE", "SITE", "BOX", "CAUSE", "SURE", "THROTTLES IN", "OPENED", "ASSIGNEE", "VISIT", "PART", "REGION", "DO", "WHY"}}
	now := time.Now()
	for _, t := range list {
		sure := "-"
		if t.Confidence > 0 {
			sure = fmt.Sprintf("%.0f %%", 100*t.Confidence)
		}
		box := t.BoxName
		if t.Box == "" && len(t.Boxes) > 0 {
			box = fmt.Sprintf("%d boxes", len(t.Boxes))
		}
		s.rows = append(s.rows, []string{t.ID, string(t.Level), string(t.State), orDash(t.Site), orDash(box), t.Cause, sure, daysText(t.Forecast),
			age(&t.Opened, now), orDash(t.Assignee), orDash(t.Visit), orDash(t.Part), orDash(t.Region), t.Do, orDash(t.Why)})
		s.names = append(s.names, t.ID)
	}
	return s
}

func daysText(f *fleetapi.HeatForecast) string {
	switch {
	case f == nil:
		return "-"
	case f.LowDays >= 365:
		return "over a year"
	case f.HighDays >= 365:
		return fmt.Sprintf("%.0f days or more", f.LowDays)
	}
	return fmt.Sprintf("%.0f to %.0f days", f.LowDays, f.HighDays)
}

func (c *cli) ticketShow(ctx context.Context, client *fleetapi.Client, args []string) error {
	t, err := client.Ticket(ctx, args[0])
	if err != nil {
		return err
	}
	return c.printTicket(t)
}

// printTicket shows one ticket: for people with its history.
func (c *cli) printTicket(t fleetapi.Ticket) error {
	if c.output != "table" && c.output != "wide" {
		return c.print(ticketSheet("ticket", t, []fleetapi.Ticket{t}))
	}
	what := t.BoxName + " at " + orDash(t.Site)
	switch {
	case t.Box == "" && t.Site == "":
		what = "all boxes of " + t.SKU
	case t.Box == "":
		what = "the site " + t.Site
	}
	fmt.Fprintf(c.out, "%s  %s  %s  %s\n", t.ID, t.State, t.Level, what)
	fmt.Fprintf(c.out, "%s", t.Cause)
	if t.Confidence > 0 {
		fmt.Fprintf(c.out, ", %.0f %% sure", 100*t.Confidence)
	}
	fmt.Fprintf(c.out, "; to do: %s\n", t.Do)
	for _, line := range []struct{ label, text string }{
		{"place", t.Place}, {"part", t.Part}, {"assignee", t.Assignee}, {"visit", t.Visit}, {"boxes", strings.Join(t.Boxes, ", ")},
		{"tickets of its boxes", strings.Join(t.Tickets, ", ")}, {"told with", t.Within},
		{"throttles in", strings.TrimPrefix(daysText(t.Forecast), "-")}, {"resolution", t.Resolution},
	} {
		if line.text != "" {
			fmt.Fprintf(c.out, "%s: %s\n", line.label, printable(line.text))
		}
	}
	for _, e := range t.Evidence {
		fmt.Fprintf(c.out, "- %s\n", printable(e.Text))
	}
	if o := t.Opening; o != nil && t.Measured != nil && t.Measured.After(o.Time) && len(o.Evidence) > 0 {
		fmt.Fprintf(c.out, "as of %s; when it was opened: %s\n", t.Measured.UTC().Format("2006-01-02 15:04Z"), printable(o.Evidence[0].Text))
	}
	if t.Check != nil {
		fmt.Fprintf(c.out, "proof: %s\n", t.Check.Text)
	}
	s := sheet{head: []string{"WHEN", "BY", "WHAT", "STATE", "TEXT"}}
	for _, step := range t.Timeline {
		s.rows = append(s.rows, []string{step.Time.UTC().Format("2006-01-02 15:04Z"), orDash(step.By), step.What, string(step.State), orDash(step.Text)})
	}
	fmt.Fprintln(c.out)
	c.table(s)
	return nil
}

func ticketOpenCommand(c *cli) *cobra.Command {
	var n fleetapi.NewTicket
	cmd := c.call("open", "Open a ticket by hand, of a --box or a --site", func(ctx context.Context, client *fleetapi.Client, _ []string) error {
		t, err := client.OpenTicket(ctx, n)
		if err != nil {
			return err
		}
		return c.printTicket(t)
	})
	f := cmd.Flags()
	f.StringVar(&n.Box, "box", "", "name or id of the box")
	f.StringVar(&n.Site, "site", "", "the site, when it is about no box")
	f.StringVar(&n.Cause, "cause", "", "one word, such as airflow, fan-wear or paste")
	f.StringVar(&n.Level, "level", "", "ticket or urgent; default ticket")
	f.StringVar(&n.Note, "note", "", "what was seen")
	if err := cmd.MarkFlagRequired("cause"); err != nil {
		panic("cli: " + err.Error())
	}
	return cmd
}

// ticketActCommand is one action on a ticket; more reads its own flags.
func ticketActCommand(c *cli, use, short, action string, more func(*cobra.Command, *fleetapi.TicketAction) func(args []string) error) *cobra.Command {
	a := fleetapi.TicketAction{Action: action}
	var finish func([]string) error
	cmd := c.verb(use, short, func(ctx context.Context, args []string) error {
		if finish != nil {
			if err := finish(args); err != nil {
				return failure{exitUsage, err}
			}
		}
		client, _, err := c.client()
		if err != nil {
			return err
		}
		t, err := client.ActOnTicket(ctx, args[0], a)
		if err != nil {
			return err
		}
		c.say("%s is %s.", t.ID, t.State)
		return c.print(ticketSheet("ticket", t, []fleetapi.Ticket{t}))
	})
	cmd.Flags().StringVar(&a.Note, "note", "", "what there is to say")
	if more != nil {
		finish = more(cmd, &a)
	}
	return cmd
}

func ticketAssignCommand(c *cli) *cobra.Command {
	return ticketActCommand(c, "assign TICKET PERSON", "Send somebody", "assign", func(_ *cobra.Command, a *fleetapi.TicketAction) func([]string) error {
		return func(args []string) error {
			a.Assignee = args[1]
			return nil
		}
	})
}

func ticketDoneCommand(c *cli) *cobra.Command {
	return ticketActCommand(c, "done TICKET", "Say that the work is done; the box proves it in a day or two", "done", func(cmd *cobra.Command, a *fleetapi.TicketAction) func([]string) error {
		var work []string
		cmd.Flags().StringArrayVar(&work, "work", nil, "what was done: "+strings.Join(workKinds, ", ")+"; with =PART when a part was used; may come more than once")
		cmd.Flags().BoolVar(&a.NoFault, "no-fault-found", false, "nothing was wrong")
		return func([]string) (err error) {
			a.Work, err = readWork(work, false)
			return err
		}
	})
}

func ticketCloseCommand(c *cli) *cobra.Command {
	return ticketActCommand(c, "close TICKET RESOLUTION", "End it without work: false-alarm, accepted, duplicate or retired", "close", func(cmd *cobra.Command, a *fleetapi.TicketAction) func([]string) error {
		cmd.Flags().IntVar(&a.MuteDays, "mute-days", 0, "for so long the same opens no ticket: of false-alarm and accepted, default 90")
		return func(args []string) error {
			a.Resolution = args[1]
			return nil
		}
	})
}

func ticketExportCommand(c *cli) *cobra.Command {
	var filter string
	cmd := c.call("export", "All tickets that match as CSV, for a maintenance system", func(ctx context.Context, client *fleetapi.Client, _ []string) error {
		return client.TicketsCSV(ctx, filter, c.out)
	})
	cmd.Flags().StringVar(&filter, "filter", "", "expression; default all")
	return cmd
}

var workKinds = []string{
	fleetapi.WorkInspected, fleetapi.WorkCleaned, fleetapi.WorkFilter, fleetapi.WorkFan, fleetapi.WorkPaste, fleetapi.WorkSSD, fleetapi.WorkPSU,
	fleetapi.WorkVent, fleetapi.WorkMoved, fleetapi.WorkBoxReplaced,
}

// readWork reads KIND[=PART] words or, with boxes, BOX:KIND[=PART].
func readWork(words []string, boxes bool) ([]fleetapi.Work, error) {
	var out []fleetapi.Work
	for _, word := range words {
		var w fleetapi.Work
		rest := word
		if boxes {
			var ok bool
			if w.Box, rest, ok = strings.Cut(word, ":"); !ok {
				return nil, fmt.Errorf("--work %s: want BOX:KIND or BOX:KIND=PART", word)
			}
		}
		w.Kind, w.Part, _ = strings.Cut(rest, "=")
		known := false
		for _, k := range workKinds {
			known = known || k == w.Kind
		}
		if !known {
			return nil, fmt.Errorf("--work %s: %q is no kind of work; kinds are %s", word, w.Kind, strings.Join(workKinds, ", "))
		}
		out = append(out, w)
	}
	return out, nil
}
