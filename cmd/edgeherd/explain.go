package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeherd/edgeherd/internal/boxconfig"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

func explainCommand(c *cli) *cobra.Command {
	return c.verb("explain WHAT", "Every setting of a box with where it comes from, or a field: boxconfig[.FIELD]", func(ctx context.Context, args []string) error {
		if field, ok := strings.CutPrefix(args[0], "boxconfig"); ok && (field == "" || field[0] == '.') {
			return c.explainField(strings.TrimPrefix(field, "."))
		}
		client, _, err := c.client()
		if err != nil {
			return err
		}
		b, err := findBox(ctx, client, args[0])
		if err != nil {
			return err
		}
		e, err := client.ExplainConfig(ctx, b.ID)
		if err != nil {
			return err
		}
		c.sayConfig(e)
		s := sheet{kind: "config-explanation", item: "setting", value: e, items: items(e.Settings), head: []string{"SETTING", "VALUE", "UNIT", "FROM", "INSTEAD OF"}}
		for _, v := range e.Settings {
			s.rows = append(s.rows, []string{v.Path, v.Value, orDash(v.Unit), v.From, orDash(v.Over)})
			s.names = append(s.names, v.Path)
		}
		return c.print(s)
	})
}

// sayConfig tells how far a box is with what the fleet has for it.
func (c *cli) sayConfig(e fleetapi.ConfigExplanation) {
	if e.Config == nil || len(e.Config.Documents)+len(e.Config.Pending) == 0 {
		c.say("No document is for %s.", e.Box.Name)
		return
	}
	c.say("%s: %s.", e.Box.Name, configWords(*e.Config))
}

func configWords(v fleetapi.BoxSettings) string {
	var docs []string
	for _, d := range v.Documents {
		word := d.Name + ":" + d.Version
		if d.Out {
			word = d.Name + " (withdrawn)"
		}
		docs = append(docs, word)
	}
	words := "settings " + string(v.State)
	if len(docs) > 0 {
		words += ", " + strings.Join(docs, ", ")
	}
	for _, p := range v.Pending {
		verb := "to come"
		if p.Out {
			verb = "to leave"
		}
		words += fmt.Sprintf("; %s: %s:%s (%s)", verb, p.Name, p.Version, p.Why)
	}
	if v.Err != "" {
		words += ": " + v.Err
	}
	if len(v.Local) > 0 {
		words += "; the box's own files have " + strings.Join(v.Local, ", ")
	}
	return words
}

// explainField documents one field, or all below one.
func (c *cli) explainField(path string) error {
	type field struct {
		Path    string `json:"path"`
		Type    string `json:"type"`
		Unit    string `json:"unit,omitempty"`
		Range   string `json:"range,omitempty"`
		Default string `json:"default,omitempty"`
		Doc     string `json:"doc"`
	}
	var list struct {
		Items []field `json:"items"`
	}
	for _, f := range boxconfig.Fields() {
		if rest, ok := strings.CutPrefix(f.Path, path); path == "" || ok && (rest == "" || rest[0] == '.' || rest[0] == '[') {
			list.Items = append(list.Items, field{f.Path, string(f.Type), f.Unit, f.Range(), f.Default, f.Doc})
		}
	}
	if len(list.Items) == 0 {
		return ended(exitNotFound, "there is no field %s; edgeherd explain boxconfig lists all", path)
	}
	s := sheet{kind: "field-list", item: "field", value: list, items: items(list.Items), head: []string{"FIELD", "TYPE", "RANGE", "DEFAULT", "MEANING"}}
	for _, f := range list.Items {
		s.rows = append(s.rows, []string{f.Path, f.Type, orDash(f.Range), orDash(f.Default), f.Doc})
		s.names = append(s.names, f.Path)
	}
	return c.print(s)
}

func configCommand(c *cli) *cobra.Command {
	return c.group("config", "Documents of settings; edgeherd apply stores them",
		c.call("list", "Documents, each in its newest version", c.configList),
		c.call("show NAME", "A document as it was applied, NAME or NAME:VERSION", c.configShow),
		c.call("history NAME", "All versions of a document, newest first", c.configHistory),
	)
}

func (c *cli) configList(ctx context.Context, client *fleetapi.Client, _ []string) error {
	list, err := client.Configs(ctx)
	if err != nil {
		return err
	}
	return c.print(documentSheet(list))
}

func (c *cli) configHistory(ctx context.Context, client *fleetapi.Client, args []string) error {
	list, err := client.Config(ctx, args[0])
	if err != nil {
		return err
	}
	return c.print(documentSheet(list))
}

func documentSheet(list fleetapi.DocumentList) sheet {
	s := sheet{kind: "config-list", item: "config", value: list, items: items(list.Items), head: []string{"NAME", "VERSION", "PRIORITY", "BOXES", "FOLLOW IT", "SELECTOR", "CREATED", "BY"}}
	for _, d := range list.Items {
		selector := d.Selector
		if d.Gone {
			selector = "(withdrawn)"
		}
		s.rows = append(s.rows, []string{d.Name, d.Version, strconv.Itoa(d.Priority), strconv.Itoa(d.Boxes), strconv.Itoa(d.Holding), selector, d.Created.Format(time.RFC3339), d.By})
		s.names = append(s.names, d.Name+":"+d.Version)
	}
	return s
}

func (c *cli) configShow(ctx context.Context, client *fleetapi.Client, args []string) error {
	name, version, _ := strings.Cut(args[0], ":")
	list, err := client.Config(ctx, name)
	if err != nil {
		return err
	}
	for _, d := range list.Items {
		if version != "" && d.Version != version {
			continue
		}
		if c.output != "table" && c.output != "wide" {
			return c.print(sheet{kind: "config", value: d, head: []string{"NAME", "VERSION"}, rows: [][]string{{d.Name, d.Version}}, names: []string{d.Name + ":" + d.Version}})
		}
		if d.Gone {
			c.say("Version %s withdrew the document.", d.Version)
			return nil
		}
		_, err := fmt.Fprint(c.out, strings.TrimRight(d.Text, "\n")+"\n")
		return err
	}
	return ended(exitNotFound, "document %s has no version %s; edgeherd config history %s lists them", name, version, name)
}

// boxLabelCommand sets labels: k=v, or k- to take one away.
func boxLabelCommand(c *cli) *cobra.Command {
	cmd := c.verb("label", "", func(ctx context.Context, args []string) error {
		change := fleetapi.LabelChange{Labels: map[string]string{}}
		for _, word := range args[1:] {
			if name, gone := strings.CutSuffix(word, "-"); gone && !strings.Contains(word, "=") {
				change.Labels[name] = ""
				continue
			}
			name, value, ok := strings.Cut(word, "=")
			if !ok || value == "" {
				return failure{exitUsage, fmt.Errorf("label %q: want k=v such as role=dock, or k- to take it away", word)}
			}
			change.Labels[name] = value
		}
		client, _, err := c.client()
		if err != nil {
			return err
		}
		b, err := findBox(ctx, client, args[0])
		if err != nil {
			return err
		}
		if len(change.Labels) > 0 {
			if b, err = client.SetLabels(ctx, b.ID, change); err != nil {
				return err
			}
			c.say("Settings follow labels by themselves, in a rollout of their own: edgeherd explain %s shows what is on its way.", b.Name)
		}
		s := sheet{kind: "box", value: b, head: []string{"LABEL", "VALUE"}, names: []string{b.Name}}
		for _, k := range sortedKeys(b.Labels) {
			s.rows = append(s.rows, []string{k, b.Labels[k]})
		}
		return c.print(s)
	})
	cmd.Use, cmd.Short, cmd.Args = "label BOX [k=v | k-]...", "Set labels of a box, or take them away; alone: show them", cobra.MinimumNArgs(1)
	return cmd
}
