package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/edgeherd/edgeherd/internal/boxconfig"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// documentFlags say which documents are meant.
type documentFlags struct {
	files, remove []string
	// rollouts are in files of their own; request reads them too.
	rollouts []fleetapi.PlanRequest
}

func (d *documentFlags) flags(f *pflag.FlagSet) {
	f.StringArrayVarP(&d.files, "file", "f", nil, "file with documents, a folder of .yaml files, or - for the standard input; may be repeated")
	f.StringArrayVar(&d.remove, "remove", nil, "withdraw the document of this name; may be repeated")
}

// request reads the files. Faults of documents are told before anything is asked.
func (d *documentFlags) request(in io.Reader) (fleetapi.ConfigRequest, error) {
	req := fleetapi.ConfigRequest{Remove: d.remove}
	if len(d.files)+len(d.remove) == 0 {
		return req, failure{exitUsage, errors.New("say which documents: -f FILE, -f FOLDER or --remove NAME")}
	}
	var errs []error
	count := len(d.remove)
	for _, name := range d.files {
		files, err := documentFiles(name)
		if err != nil {
			return req, failure{exitUsage, err}
		}
		for _, file := range files {
			data, err := readDocument(in, file)
			if err != nil {
				return req, failure{exitUsage, err}
			}
			rollouts, ok, err := rolloutDocuments(file, data)
			if err != nil {
				return req, failure{exitUsage, err}
			}
			if ok {
				d.rollouts = append(d.rollouts, rollouts...)
				continue
			}
			docs, err := boxconfig.ReadAll(file, data)
			if err != nil {
				errs = append(errs, err)
			}
			if count += len(docs); count > fleetapi.MaxConfigDocuments || len(req.Files) >= maxFiles {
				return req, failure{exitUsage, fmt.Errorf("at %s there are more than %d documents, or %d files; apply them in parts", file, fleetapi.MaxConfigDocuments, maxFiles)}
			}
			req.Files = append(req.Files, fleetapi.ConfigFile{Name: file, Text: string(data)})
		}
	}
	if len(errs) > 0 {
		return req, failure{exitUsage, fmt.Errorf("%w\nSee what a field takes: edgeherd explain boxconfig", errors.Join(errs...))}
	}
	return req, nil
}

// maxFiles of one request.
const maxFiles = 64

func readDocument(in io.Reader, file string) ([]byte, error) {
	const most = boxconfig.MaxDocuments*boxconfig.MaxDocumentBytes + 1
	if file == "-" {
		return io.ReadAll(io.LimitReader(in, most))
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, most))
}

// documentFiles are the files that a name means.
func documentFiles(name string) ([]string, error) {
	if name == "-" {
		return []string{name}, nil
	}
	info, err := os.Stat(name)
	if err != nil || !info.IsDir() {
		return []string{name}, err
	}
	entries, err := os.ReadDir(name)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); !e.IsDir() && (ext == ".yaml" || ext == ".yml") {
			files = append(files, filepath.Join(name, e.Name()))
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s has no .yaml files", name)
	}
	slices.Sort(files)
	return files, nil
}

func diffCommand(c *cli) *cobra.Command {
	var d documentFlags
	var box string
	cmd := c.verb("diff -f", "What documents of settings would change on which boxes; exit code 1: something", func(ctx context.Context, _ []string) error {
		req, err := d.request(c.in)
		if err != nil {
			return err
		}
		client, _, err := c.client()
		if err != nil {
			return notOne(err)
		}
		if len(d.rollouts) > 0 {
			return failure{exitUsage, errors.New("diff is of settings; what a rollout would do: edgeherd rollout plan --dry-run")}
		}
		changes, err := client.DiffConfigs(ctx, req, box)
		if err != nil {
			return notOne(err)
		}
		if err := c.printChanges("config-diff", changes); err != nil {
			return notOne(err)
		}
		if changes.Boxes+len(changes.Refused) > 0 {
			return failure{exitFailed, fmt.Errorf("%s would change", plural(changes.Boxes, "box", "boxes"))}
		}
		if n := fresh(changes); n > 0 && box == "" { // a pipeline must apply them: boxes may come
			return failure{exitFailed, fmt.Errorf("%s would be stored; no box changes now", plural(n, "document", "documents"))}
		}
		c.say("Nothing would change.")
		return nil
	})
	noArguments(cmd, "diff -f FILE")
	d.flags(cmd.Flags())
	cmd.Flags().StringVar(&box, "box", "", "only this box, by name or id")
	return cmd
}

// fresh counts documents that say something else than what is stored.
func fresh(changes fleetapi.ConfigChanges) (n int) {
	for _, d := range changes.Documents {
		if d.New {
			n++
		}
	}
	return n
}

// noArguments gives a command a line of use that its arguments do not follow.
func noArguments(cmd *cobra.Command, use string) {
	cmd.Use, cmd.Args = use, cobra.NoArgs
}

// notOne keeps exit code 1 for "something would change".
func notOne(err error) error {
	if code := codeOf(err); code != exitFailed {
		return failure{code, err}
	}
	return failure{exitUsage, err}
}

// shownBoxes of a group are named in a table's words.
const shownBoxes = 5

func (c *cli) printChanges(kind string, changes fleetapi.ConfigChanges) error {
	if c.output != "table" && c.output != "wide" {
		s := sheet{kind: kind, item: "group", value: changes, items: items(changes.Groups), head: []string{"BOX", "ID", "DIFF"}}
		for _, g := range changes.Groups {
			for _, b := range g.Boxes {
				s.rows = append(s.rows, []string{b.Name, string(b.ID), g.Diff})
				s.names = append(s.names, b.Name)
			}
		}
		return c.print(s)
	}
	for _, d := range changes.Documents {
		state := "is as it was"
		switch {
		case d.Removed:
			state = "is withdrawn"
		case d.New:
			state = "is new"
		}
		c.say("%s:%s %s: it is for %s; %s would change.", d.Name, d.Version, state, plural(d.Matched, "box", "boxes"), plural(d.Boxes, "box", "boxes"))
	}
	for _, g := range changes.Groups {
		var names []string
		for _, b := range g.Boxes {
			names = append(names, b.Name)
		}
		if len(names) > shownBoxes && c.output == "table" {
			names = names[:shownBoxes]
		}
		if more := g.Count - len(names); more > 0 {
			names = append(names, fmt.Sprintf("and %d more", more))
		}
		fmt.Fprintf(c.out, "%s: %s\n", plural(g.Count, "box", "boxes"), strings.Join(names, ", "))
		if g.Diff == "" {
			fmt.Fprintln(c.out, "  the same settings, from other versions")
		}
		for line := range strings.Lines(g.Diff) {
			fmt.Fprint(c.out, "  "+line)
		}
	}
	for _, r := range changes.Refused {
		c.say("Left out: %s: %s.", r.Name, r.Why)
	}
	return nil
}

func applyCommand(c *cli) *cobra.Command {
	var d documentFlags
	var o startFlags
	p := &planFlags{}
	cmd := c.verb("apply -f", "Store documents of settings or rollouts, show what they change, ask, and roll them out", func(ctx context.Context, _ []string) error {
		req, err := d.request(c.in)
		if err != nil {
			return err
		}
		if !o.yes && !c.mayAsk() {
			return failure{exitUsage, errors.New("nobody is there to be asked; say --yes to apply without a question")}
		}
		if p.req.Policy, err = readPolicy(p.policy); err != nil {
			return err
		}
		p.req.SoakSeconds, p.req.UnreachableAfterSeconds = p.soak.Seconds(), p.unreachable.Seconds()
		client, _, err := c.client()
		if err != nil {
			return err
		}
		if len(req.Files)+len(req.Remove) > 0 {
			changes, err := client.DiffConfigs(ctx, req, "")
			if err != nil {
				return err
			}
			if err := c.meant(changes, o); err != nil {
				return err
			}
			if changes, err = client.ApplyConfigs(ctx, req); err != nil {
				return err
			}
			if err := c.rollOut(ctx, client, changes, p.req); err != nil {
				return err
			}
		}
		return c.applyRollouts(ctx, client, d.rollouts, o)
	})
	noArguments(cmd, "apply -f FILE")
	d.flags(cmd.Flags())
	p.policyFlags(cmd.Flags())
	cmd.Flags().BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	cmd.Flags().IntVar(&o.expect, "expect-count", 0, "how many boxes must change; needed with --yes for more than 100")
	return cmd
}

// meant shows changes and makes sure that they are.
func (c *cli) meant(changes fleetapi.ConfigChanges, o startFlags) error {
	if o.expect > 0 && o.expect != changes.Boxes {
		return ended(exitConflict, "%s would change, --expect-count says %d; nothing was done", plural(changes.Boxes, "box", "boxes"), o.expect)
	}
	if o.yes {
		if changes.Boxes > sureAbove && o.expect == 0 {
			return failure{exitUsage, fmt.Errorf("%d boxes would change; with --yes also say --expect-count %d", changes.Boxes, changes.Boxes)}
		}
		for _, r := range changes.Refused {
			c.say("Left out: %s: %s.", r.Name, r.Why)
		}
		return nil
	}
	if err := c.printChanges("config-diff", changes); err != nil {
		return err
	}
	if !c.ask(fmt.Sprintf("Apply to %s?", plural(changes.Boxes, "box", "boxes"))) {
		return ended(exitFailed, "nothing was applied")
	}
	return nil
}

// rollOut starts a rollout for each document that changes boxes.
func (c *cli) rollOut(ctx context.Context, client *fleetapi.Client, changes fleetapi.ConfigChanges, req fleetapi.PlanRequest) error {
	list := fleetapi.RolloutList{Items: []fleetapi.Rollout{}}
	for _, d := range changes.Documents {
		ref := d.Name + ":" + d.Version
		if d.Boxes == 0 {
			c.say("%s changes no box now; boxes that it is for later get it by themselves.", ref)
			continue
		}
		req.Config = ref
		r, err := client.Plan(ctx, req)
		if err == nil {
			r, err = client.Act(ctx, r.ID, "start")
		}
		if err != nil {
			return fmt.Errorf("%s is stored and not rolled out: %w", ref, err)
		}
		c.say("Started %s: %s to %s. Next: edgeherd rollout watch %s", r.ID, ref, plural(len(targets(r)), "box", "boxes"), r.ID)
		list.Items = append(list.Items, r)
	}
	s := rolloutSheet("rollout-list", list, list.Items)
	s.items = items(list.Items)
	return c.print(s)
}
