package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeherd/edgeherd/controller"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
)

func boxCommand(c *cli) *cobra.Command {
	return c.group("box", "Boxes", append([]*cobra.Command{boxListCommand(c),
		c.call("show BOX", "One box by name or id", c.boxShow),
		boxEnrolCommand(c),
		boxAcceptCommand(c),
		boxLabelCommand(c),
	}, identityCommands(c)...)...)
}

func fleetCommand(c *cli) *cobra.Command {
	return c.group("fleet", "The whole fleet", c.call("summary", "How many boxes are in which state", c.fleetSummary))
}

func boxListCommand(c *cli) *cobra.Command {
	var filter, order string
	var states, labels []string
	cmd := c.call("list", "Boxes that match a filter", func(ctx context.Context, client *fleetapi.Client, _ []string) error {
		filter, err := boxFilter(filter, states, labels)
		if err != nil {
			return failure{exitUsage, err}
		}
		list, err := client.AllBoxes(ctx, filter, order)
		if err != nil {
			return err
		}
		s := boxSheet("box-list", list, list.Items)
		s.items, s.none, s.brief = items(list.Items), "No boxes yet. To add one: edgeherd enroll token --site SITE", true
		if filter != "" {
			s.none = "No box matches " + filter
		}
		return c.print(s)
	})
	f := cmd.Flags()
	f.StringVar(&filter, "filter", "", `expression, such as 'health = "ticket" AND temp_die > 85'`)
	f.StringSliceVar(&states, "state", nil, "only those of a state: "+strings.Join(boxStates, ", ")+"; several with commas")
	f.StringArrayVar(&labels, "label", nil, "only those with a label, k=v or k; with several, those that have all")
	f.StringVar(&order, "order", "", `field, with " desc" to reverse`)
	return cmd
}

// boxStates is how a box may stand in the fleet.
var boxStates = []string{"enrolled", "active", "quarantined", "revoked", "retired"}

// boxFilter joins an expression with the flags that stand for one.
func boxFilter(filter string, states, labels []string) (string, error) {
	var terms, any []string
	if strings.TrimSpace(filter) != "" {
		terms = append(terms, "("+filter+")")
	}
	for _, s := range states {
		if !slices.Contains(boxStates, s) {
			return "", fmt.Errorf("--state %s: there is %s", s, strings.Join(boxStates, ", "))
		}
		any = append(any, "state = "+strconv.Quote(s))
	}
	if len(any) > 0 {
		terms = append(terms, "("+strings.Join(any, " OR ")+")")
	}
	for _, l := range labels {
		terms = append(terms, "label:"+strconv.Quote(l))
	}
	return strings.Join(terms, " AND "), nil
}

func boxSheet(kind string, value any, list []fleetapi.Box) sheet {
	s := sheet{kind: kind, item: "box", value: value, narrow: 10,
		head: []string{"NAME", "SITE", "STATE", "LINK", "HEALTH", "UPDATE", "DIE", "SEEN", "LABELS", "MODELS", "ID", "CLASS", "AGENT", "SIMULATED", "BUFFERED"}}
	now := time.Now()
	for _, b := range list {
		die := "-"
		if v, ok := b.Latest["temp_die_celsius"]; ok {
			die = strconv.FormatFloat(v.Value, 'f', 1, 64)
		}
		var running []string
		for _, m := range b.Models {
			running = append(running, m.Name+":"+orDash(m.RunningVersion))
		}
		s.rows = append(s.rows, []string{b.Name, b.Site, b.State, string(b.Link), string(b.Health), string(b.Update), die, age(b.LastSeen, now),
			orDash(fleetapi.LabelWords(b.Labels)), orDash(strings.Join(running, " ")), string(b.ID), orDash(b.Inventory.Class), orDash(b.Inventory.Agent), strconv.FormatBool(b.Simulated), strconv.FormatInt(b.Buffer.Blocks, 10)})
		s.names = append(s.names, b.Name)
	}
	return s
}

// findBox takes a name or an id.
func findBox(ctx context.Context, client *fleetapi.Client, word string) (fleetapi.Box, error) {
	if id, err := identity.ParseID(word); err == nil {
		return client.Box(ctx, id)
	}
	list, err := client.Boxes(ctx, fleetapi.ListQuery{Filter: "name = " + strconv.Quote(word)})
	if err != nil {
		return fleetapi.Box{}, err
	}
	if len(list.Items) == 0 {
		return fleetapi.Box{}, ended(exitNotFound, "there is no box %q; see which there are: edgeherd box list", word)
	}
	return list.Items[0], nil
}

func (c *cli) boxShow(ctx context.Context, client *fleetapi.Client, args []string) error {
	b, err := findBox(ctx, client, args[0])
	if err == nil {
		b, err = client.Box(ctx, b.ID) // lists leave out how models serve
	}
	if err != nil {
		return err
	}
	if c.output != "table" && c.output != "wide" {
		return c.print(boxSheet("box", b, []fleetapi.Box{b}))
	}
	simulated := ""
	if b.Simulated {
		simulated = " (simulated)"
	}
	fmt.Fprintf(c.out, "%s%s  %s  %s\n", b.Name, simulated, b.ID, b.Site)
	fmt.Fprintf(c.out, "%s, link %s, health %s, update %s, seen %s\n", b.State, b.Link, b.Health, b.Update, age(b.LastSeen, time.Now()))
	if err := c.sayStanding(ctx, client, b); err != nil {
		return err
	}
	if len(b.Labels) > 0 {
		fmt.Fprintf(c.out, "labels %s\n", fleetapi.LabelWords(b.Labels))
	}
	fmt.Fprintf(c.out, "%s %s %s, %d CPUs, %s, agent %s, runner %s\n", orDash(b.Inventory.Vendor), orDash(b.Inventory.Product), orDash(b.Inventory.Arch), b.Inventory.CPUs, bytesText(b.Inventory.MemoryBytes), orDash(b.Inventory.Agent), orDash(b.Inventory.Runner))
	fmt.Fprintf(c.out, "%d blocks wait on the box, %d were dropped; %d reads in the last hour, %d of %d checked ones right\n", b.Buffer.Blocks, b.Buffer.DroppedBlocks, b.Reads.Total, b.Reads.Right, b.Reads.Checked)
	fmt.Fprintln(c.out, coolingWords(b.Thermal))
	if b.Shunned != nil {
		fmt.Fprintln(c.out, printable(shunnedWords(*b.Shunned)))
	}
	if b.Config != nil {
		fmt.Fprintln(c.out, configWords(*b.Config))
	}
	s := sheet{head: []string{"MODEL", "DESIRED", "RUNNING", "PHASE", "ERROR"}}
	for _, m := range b.Models {
		s.rows = append(s.rows, []string{m.Name, orDash(m.DesiredVersion), orDash(m.RunningVersion), orDash(m.Phase), orDash(m.Err)})
	}
	fmt.Fprintln(c.out)
	c.table(s)
	c.boxServing(b.Models)
	return c.boxFaults(ctx, client, b.ID)
}

// coolingWords says how dirty a box is.
func coolingWords(t fleetapi.Thermal) string {
	words := "cooling path not known: " + t.Reason
	if t.Known {
		words = fmt.Sprintf("cooling path %+.1f %% against the clean box", t.Percent)
	}
	if len(t.Causes) > 0 {
		words += "; " + strings.Join(t.Causes, ", ")
	}
	return words
}

// boxFaults shows trouble with messages, if there is any.
func (c *cli) boxFaults(ctx context.Context, client *fleetapi.Client, id identity.ID) error {
	faults, err := client.BoxFaults(ctx, id)
	if err != nil || len(faults.Items) == 0 {
		return err
	}
	s := sheet{head: []string{"TROUBLE", "COUNT", "SINCE", "LAST", "SAID"}}
	now := time.Now()
	for _, f := range faults.Items {
		s.rows = append(s.rows, []string{f.Cause, strconv.FormatInt(f.Count, 10), age(&f.First, now), age(&f.Last, now), f.Text})
	}
	fmt.Fprintln(c.out)
	c.table(s)
	c.say("docs/operations.md, \"Trouble with messages\", explains each cause.")
	return nil
}

func (c *cli) fleetSummary(ctx context.Context, client *fleetapi.Client, _ []string) error {
	f, err := client.Summary(ctx)
	if err != nil {
		return err
	}
	s := sheet{kind: "fleet-summary", value: f, head: []string{"KIND", "STATE", "BOXES"}, rows: [][]string{{"all", "", strconv.Itoa(f.Total)}}, names: []string{strconv.Itoa(f.Total)}}
	if f.Simulated > 0 {
		s.rows = append(s.rows, []string{"simulated", "", strconv.Itoa(f.Simulated)})
	}
	for _, k := range []struct {
		kind   string
		counts map[string]int
	}{{"link", f.Links}, {"health", f.Healths}, {"update", f.Updates}} {
		for _, state := range sortedKeys(k.counts) {
			s.rows = append(s.rows, []string{k.kind, state, strconv.Itoa(k.counts[state])})
		}
	}
	if f.Trouble != "" {
		c.say("%s", f.Trouble)
	}
	if f.Development {
		c.say("This controller signs with a development key.")
	}
	return c.print(s)
}

// boxEnrolCommand makes the identity of a box on the controller's machine. It
// opens the controller's state, so the controller must not run meanwhile.
func boxEnrolCommand(c *cli) *cobra.Command {
	var name, site, dir string
	var s *serverFlags
	cmd := c.verb("enrol", "Write the identity files of a new box; on the controller's machine, while it is stopped", func(ctx context.Context, _ []string) error {
		cfg, err := s.load(c.env)
		if err != nil {
			return failure{exitUsage, err}
		}
		opts := c.controllerOptions(cfg)
		opts.Listen = func(_, address string) (net.Listener, error) { return unheard{reachable(address, cfg.Hosts)}, nil }
		ctl, err := controller.Open(ctx, opts, slog.New(slog.NewTextHandler(c.words, &slog.HandlerOptions{Level: slog.LevelWarn})))
		if err != nil {
			return err
		}
		id, err := ctl.EnrolBox(ctx, dir, name, site)
		if err = errors.Join(err, ctl.Close()); err != nil {
			return err
		}
		c.say("Copy %s to the box, as /var/lib/edgeherd/agent/identity, and start the controller again.", dir)
		v := struct {
			ID   identity.ID `json:"id"`
			Name string      `json:"name"`
			Site string      `json:"site"`
			Dir  string      `json:"dir"`
		}{id, name, site, dir}
		return c.print(sheet{kind: "enrolment", value: v, head: []string{"ID", "NAME", "SITE", "DIR"}, rows: [][]string{{string(id), name, site, dir}}, names: []string{string(id)}})
	})
	s = addServerFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&name, "name", "", "name of the box")
	f.StringVar(&site, "site", "", "where it stands")
	f.StringVar(&dir, "dir", "", "where to write its files")
	for _, flag := range []string{"name", "site", "dir"} {
		if err := cmd.MarkFlagRequired(flag); err != nil {
			panic("cli: " + err.Error())
		}
	}
	return cmd
}

// unheard is a listener that only has an address: what boxes are told to dial.
type unheard struct{ addr string }

func (u unheard) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (u unheard) Close() error              { return nil }
func (u unheard) Addr() net.Addr            { return u }
func (u unheard) Network() string           { return "tcp" }
func (u unheard) String() string            { return u.addr }
