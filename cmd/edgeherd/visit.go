package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

func visitCommand(c *cli) *cobra.Command {
	return c.group("visit", "Visits: one way to a site for all that is due there",
		visitPlanCommand(c), visitAddCommand(c), visitListCommand(c),
		visitActCommand(c, "arrive VISIT", "Say that somebody is there", "arrive"),
		visitActCommand(c, "done VISIT", "Say that it is over, with the --work that was done", "done"),
		visitActCommand(c, "cancel VISIT", "Say that nobody will come; its tickets are due again", "cancel"),
	)
}

func visitPlanCommand(c *cli) *cobra.Command {
	var p fleetapi.PlanVisits
	cmd := c.call("plan", "The route of a day through the sites where something is due; --keep makes the visits", func(ctx context.Context, client *fleetapi.Client, _ []string) error {
		plan, err := client.PlanVisits(ctx, p)
		if err != nil {
			return err
		}
		s := sheet{kind: "visit-plan", value: plan, head: []string{"STOP", "SITE", "LEVEL", "TICKETS", "PARTS", "KM", "VISIT"}}
		for i, stop := range plan.Stops {
			visit, km := "-", "-"
			if i < len(plan.Made) {
				visit = plan.Made[i].ID
			}
			if plan.Metres > 0 {
				km = fmt.Sprintf("%.0f", stop.Metres/1000)
			}
			var what []string
			for _, t := range stop.Tickets {
				what = append(what, strings.TrimSpace(t.ID+" "+t.BoxName+" "+t.Cause))
			}
			s.rows = append(s.rows, []string{strconv.Itoa(i + 1), stop.Site, string(stop.Level), strings.Join(what, ", "), partsText(stop.Parts), km, visit})
			s.names = append(s.names, stop.Site)
		}
		switch {
		case len(plan.Stops) == 0:
			c.say("Nothing is due.")
		case p.Keep:
			c.say("%s on %s; take along %s.", plural(len(plan.Made), "visit", "visits"), plan.Day, partsText(plan.Parts))
		default:
			c.say("%s; take along %s. Nothing was changed: --keep makes the visits.", plan.Text, partsText(plan.Parts))
		}
		return c.print(s)
	})
	f := cmd.Flags()
	f.StringVar(&p.Region, "region", "", "only sites of a region")
	f.StringSliceVar(&p.Sites, "site", nil, "only these sites")
	f.StringVar(&p.Day, "day", "", "YYYY-MM-DD; default today")
	f.IntVar(&p.Stops, "stops", 0, "at most so many sites; default 8")
	f.StringVar(&p.Assignee, "assignee", "", "who goes")
	f.BoolVar(&p.Keep, "keep", false, "make the visits and dispatch their tickets")
	return cmd
}

func partsText(parts []fleetapi.Part) string {
	var out []string
	for _, p := range parts {
		out = append(out, fmt.Sprintf("%d × %s", p.Count, p.Part))
	}
	if len(out) == 0 {
		return "nothing"
	}
	return strings.Join(out, ", ")
}

func visitAddCommand(c *cli) *cobra.Command {
	var n fleetapi.NewVisit
	var work []string
	cmd := c.verb("add SITE", "Plan a visit for what is due at a site, or with --done record one that was", func(ctx context.Context, args []string) error {
		n.Site = args[0]
		var err error
		if n.Work, err = readWork(work, true); err != nil {
			return failure{exitUsage, err}
		}
		if len(n.Work) > 0 && !n.Done {
			return ended(exitUsage, "--work is what was done: give --done as well")
		}
		client, _, err := c.client()
		if err != nil {
			return err
		}
		v, err := client.AddVisit(ctx, n)
		if err != nil {
			return err
		}
		return c.print(visitSheet("visit", v, []fleetapi.Visit{v}))
	})
	f := cmd.Flags()
	f.StringVar(&n.Day, "day", "", "YYYY-MM-DD; default today")
	f.StringVar(&n.Assignee, "assignee", "", "who goes")
	f.StringSliceVar(&n.Tickets, "ticket", nil, "only these tickets; default all that are due there")
	f.StringVar(&n.Note, "note", "", "what there is to say")
	f.BoolVar(&n.Done, "done", false, "it is over")
	f.StringArrayVar(&work, "work", nil, "BOX:KIND or BOX:KIND=PART, such as till-1:cleaned; may come more than once")
	return cmd
}

func visitSheet(kind string, value any, list []fleetapi.Visit) sheet {
	s := sheet{kind: kind, item: "visit", value: value, head: []string{"VISIT", "STATE", "DAY", "SITE", "ASSIGNEE", "TICKETS", "PARTS", "WORK"}}
	for _, v := range list {
		var work []string
		for _, w := range v.Work {
			work = append(work, w.Box+": "+strings.TrimSpace(w.Kind+" "+w.Part))
		}
		s.rows = append(s.rows, []string{v.ID, string(v.State), v.Day, v.Site, orDash(v.Assignee), orDash(strings.Join(v.Tickets, " ")), partsText(v.Parts), orDash(strings.Join(work, "; "))})
		s.names = append(s.names, v.ID)
	}
	return s
}

func visitListCommand(c *cli) *cobra.Command {
	var site string
	var all bool
	cmd := c.call("list", "Visits that have not ended; --all for the others, too", func(ctx context.Context, client *fleetapi.Client, _ []string) error {
		list, err := client.Visits(ctx, site, !all)
		if err != nil {
			return err
		}
		s := visitSheet("visit-list", list, list.Items)
		s.items, s.none = items(list.Items), "No visit is planned. A route through the sites where something is due: edgeherd visit plan"
		if all {
			s.none = "There was no visit yet."
		}
		return c.print(s)
	})
	cmd.Flags().StringVar(&site, "site", "", "only of this site")
	cmd.Flags().BoolVar(&all, "all", false, "also those that ended")
	return cmd
}

func visitActCommand(c *cli, use, short, action string) *cobra.Command {
	a := fleetapi.VisitAction{Action: action}
	var work []string
	cmd := c.verb(use, short, func(ctx context.Context, args []string) error {
		var err error
		if a.Work, err = readWork(work, true); err != nil {
			return failure{exitUsage, err}
		}
		client, _, err := c.client()
		if err != nil {
			return err
		}
		v, err := client.ActOnVisit(ctx, args[0], a)
		if err != nil {
			return err
		}
		c.say("%s is %s.", v.ID, v.State)
		return c.print(visitSheet("visit", v, []fleetapi.Visit{v}))
	})
	if action == "done" {
		cmd.Flags().StringArrayVar(&work, "work", nil, "BOX:KIND or BOX:KIND=PART, such as till-1:filter-installed=F-120; may come more than once")
		cmd.Flags().BoolVar(&a.NoFault, "no-fault-found", false, "nothing was wrong")
	}
	cmd.Flags().StringVar(&a.Note, "note", "", "what there is to say")
	return cmd
}
