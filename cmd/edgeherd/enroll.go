package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/enrol"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

func enrollCommand(c *cli) *cobra.Command {
	return c.group("enroll", "Make machines boxes of this fleet", enrollTokenCommand(c), enrollListCommand(c),
		c.call("revoke TOKEN", "Make a token good for nothing more, by its id", c.enrollRevoke),
		c.call("pending", "Machines that wait for somebody to agree", c.enrollPending),
		enrollDecideCommand(c, "approve", "Agree to a machine, by the code that it shows"),
		enrollDecideCommand(c, "deny", "Refuse a machine, by the code that it shows"),
		enrollSignCommand(c),
	)
}

func enrollTokenCommand(c *cli) *cobra.Command {
	var t fleetapi.NewEnrolToken
	var labels []string
	var ttl time.Duration
	var place string
	var p prints
	cmd := c.call("token", "Make a token for a machine to enrol with: text and QR code, sticker, USB stick", func(ctx context.Context, client *fleetapi.Client, _ []string) error {
		var err error
		if t.Labels, err = labelsOf(labels); err != nil {
			return failure{exitUsage, err}
		}
		t.TTLSeconds = ttl.Seconds()
		if place != "" {
			b, err := findBox(ctx, client, place)
			if err != nil {
				return err
			}
			t.Box = b.ID
		}
		if t.Box == "" && t.Site == "" {
			return failure{exitUsage, errors.New("say where the box will stand: --site hamburg-3; or whose place the machine takes: --box till-3")}
		}
		return c.makeToken(ctx, client, t, p)
	})
	f := cmd.Flags()
	f.StringVar(&t.Site, "site", "", "where the box will stand")
	f.StringArrayVar(&labels, "label", nil, "label of the box, k=v; may be repeated")
	f.IntVar(&t.Uses, "uses", 1, "how many machines may use it")
	f.DurationVar(&ttl, "ttl", 24*time.Hour, "how long it is good")
	f.StringVar(&t.Approve, "approve", "", "who agrees to a machine: auto, manual or rules (default rules if there are any, auto for one use, else manual)")
	f.StringArrayVar(&t.Serials, "allow-serial", nil, "serial number of a board that needs nobody's approval; may be repeated")
	f.StringArrayVar(&t.TPMs, "allow-tpm", nil, "SHA-256 of an endorsement key that needs nobody's approval; may be repeated")
	f.StringArrayVar(&t.From, "allow-from", nil, "network (CIDR) whose machines need nobody's approval; may be repeated")
	f.StringArrayVar(&t.Networks, "only-from", nil, "network (CIDR) from which alone it may be used; may be repeated")
	f.StringVar(&t.Serial, "only-serial", "", "serial number of the only machine that may use it")
	f.StringVar(&place, "box", "", "the machine takes the place of this box")
	p.flags(f)
	return cmd
}

func labelsOf(list []string) (map[string]string, error) {
	out := map[string]string{}
	for _, l := range list {
		k, v, ok := strings.Cut(l, "=")
		if !ok || k == "" {
			return nil, fmt.Errorf("label %q: want k=v, such as line=a", l)
		}
		out[k] = v
	}
	return out, nil
}

// makeToken makes a token and shows it, this once.
func (c *cli) makeToken(ctx context.Context, client *fleetapi.Client, t fleetapi.NewEnrolToken, p prints) error {
	if err := p.check(); err != nil {
		return err
	}
	made, err := client.NewEnrolToken(ctx, t)
	if err != nil {
		return err
	}
	unwritten := c.printToken(made, p) // as on a stick that is full: the token is shown all the same
	approval := "whoever has it first is let in"
	switch made.Approve {
	case "manual":
		approval = "somebody must agree to each machine: edgeherd enroll pending"
	case "rules":
		approval = "machines that its rules name are let in; the others wait: edgeherd enroll pending"
	}
	c.say("Good for %s at %s until %s; %s.", plural(made.Uses, "machine", "machines"), made.Site, made.Expires.Local().Format("2 January 15:04"), approval)
	c.say("On the box: sudo edgeherd-agent enroll TOKEN. It is shown this once; edgeherd enroll revoke %s ends it.", made.ID)
	shown := c.print(sheet{kind: "enrol-token", value: made, head: []string{"TOKEN"}, rows: [][]string{{made.Token}}, names: []string{made.Token}, bare: true})
	return errors.Join(shown, unwritten)
}

func enrollListCommand(c *cli) *cobra.Command {
	return c.call("list", "Tokens that machines enrol with", func(ctx context.Context, client *fleetapi.Client, _ []string) error {
		list, err := client.EnrolTokens(ctx)
		if err != nil {
			return err
		}
		s := sheet{kind: "enrol-token-list", item: "enrol-token", value: list, items: items(list.Items), head: []string{"ID", "SITE", "BOX", "USES", "APPROVE", "STATE", "REFUSED", "BY"}}
		for _, k := range list.Items {
			s.rows = append(s.rows, []string{k.ID, k.Site, orDash(string(k.Box)), fmt.Sprintf("%d/%d", k.Uses-k.UsesLeft, k.Uses), k.Approve, tokenState(k, time.Now()), fmt.Sprint(k.Refused), k.By})
			s.names = append(s.names, k.ID)
		}
		return c.print(s)
	})
}

func tokenState(k fleetapi.EnrolToken, now time.Time) string {
	switch {
	case k.Off != "":
		return k.Off
	case now.After(k.Expires):
		return "expired"
	case k.UsesLeft <= 0:
		return "used up"
	}
	return "good for " + strings.TrimSuffix(max(k.Expires.Sub(now).Round(time.Minute), time.Minute).String(), "0s")
}

func (c *cli) enrollRevoke(ctx context.Context, client *fleetapi.Client, args []string) error {
	id := strings.ToUpper(args[0])
	if t, err := enrol.ParseToken(id); err == nil {
		id = t.ID // the whole token will do
	}
	k, err := client.RevokeEnrolToken(ctx, id)
	if err != nil {
		return err
	}
	return c.print(sheet{kind: "enrol-token", value: k, head: []string{"ID", "STATE"}, rows: [][]string{{k.ID, k.Off}}, names: []string{k.ID}})
}

func (c *cli) enrollPending(ctx context.Context, client *fleetapi.Client, _ []string) error {
	list, err := client.EnrolRequests(ctx, "pending")
	if err != nil {
		return err
	}
	s := requestSheet("enrol-request-list", list, list.Items)
	s.items = items(list.Items)
	if len(list.Items) > 0 {
		c.say("Compare the code with the one that the machine shows, then: edgeherd enroll approve CODE.")
	}
	return c.print(s)
}

func requestSheet(kind string, value any, list []fleetapi.EnrolRequest) sheet {
	s := sheet{kind: kind, item: "enrol-request", value: value, head: []string{"CODE", "STATE", "SITE", "NAME", "MODEL", "SERIAL", "ADDRESS", "ASKED", "TPM", "ID"}}
	now := time.Now()
	for _, r := range list {
		tpm := "-"
		if r.Proved {
			tpm = "proved"
		}
		s.rows = append(s.rows, []string{r.ShortCode, r.State, r.Site, orDash(r.Name), orDash(r.Hardware.Model), orDash(r.Hardware.BoardSerial), r.Address, age(&r.Asked, now), tpm, r.ID})
		s.names = append(s.names, r.ShortCode)
	}
	return s
}

func enrollDecideCommand(c *cli, action, short string) *cobra.Command {
	var d fleetapi.EnrolDecision
	cmd := c.call(action+" CODE", short, func(ctx context.Context, client *fleetapi.Client, args []string) error {
		d.Action = action
		r, err := client.DecideEnrol(ctx, args[0], d)
		if err != nil {
			return err
		}
		return c.print(requestSheet("enrol-request", r, []fleetapi.EnrolRequest{r}))
	})
	if action == "approve" {
		cmd.Flags().StringVar(&d.Name, "name", "", "what the box will be called (default: what it asked for)")
	}
	return cmd
}

func enrollSignCommand(c *cli) *cobra.Command {
	cmd := c.call("sign FILE...", "Answer requests of machines without a network ("+enrol.RequestSuffix+"); the answers are written beside them", func(ctx context.Context, client *fleetapi.Client, args []string) error {
		s := sheet{kind: "enrol-file-list", item: "enrol-file", head: []string{"FILE", "NAME", "BOX"}}
		var made []any
		for _, file := range args {
			data, err := os.ReadFile(file)
			if err != nil {
				return failure{exitUsage, err}
			}
			answer, err := client.SignEnrol(ctx, data)
			if err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			out := enrol.AnswerName(file)
			if err := durable.WriteFile(out, answer.Data, 0o644); err != nil {
				return err
			}
			made = append(made, struct {
				File string `json:"file"`
				Box  string `json:"box"`
				Name string `json:"name"`
			}{out, string(answer.Box), answer.Name})
			s.rows = append(s.rows, []string{out, answer.Name, string(answer.Box)})
			s.names = append(s.names, out)
		}
		s.items = made
		s.value = struct {
			Items []any `json:"items"`
		}{made}
		c.say("Bring each file back to its machine: sudo edgeherd-agent enroll --import FILE.")
		return c.print(s)
	})
	cmd.Args = cobra.MinimumNArgs(1)
	return cmd
}
