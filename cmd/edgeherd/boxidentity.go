package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// identityCommands are what a person may do to the identity of a box.
func identityCommands(c *cli) []*cobra.Command {
	return []*cobra.Command{
		c.call("identity BOX", "How a box stands in the fleet, its certificates and what happened to them", c.boxIdentity),
		boxChangeCommand(c, "quarantine", "Keep what a box tells, and tell it nothing, until somebody decides"),
		boxChangeCommand(c, "release", "End the quarantine of a box: one certificate stays good, copies of the others are refused"),
		boxChangeCommand(c, "revoke", "Shut a box out at once and for good"),
		boxChangeCommand(c, "retire", "Have a box wipe itself at its next contact"),
		boxReplaceCommand(c),
	}
}

func boxChangeCommand(c *cli, action, short string) *cobra.Command {
	var a fleetapi.IdentityAction
	cmd := c.call(action+" BOX", short, func(ctx context.Context, client *fleetapi.Client, args []string) error {
		b, err := findBox(ctx, client, args[0])
		if err != nil {
			return err
		}
		a.Action = action
		id, err := client.ChangeIdentity(ctx, b.ID, a)
		if err != nil {
			return err
		}
		return c.showIdentity(id)
	})
	cmd.Flags().StringVar(&a.Why, "why", "", "goes into the history of the box")
	if action == "release" {
		cmd.Flags().StringVar(&a.Keep, "keep", "", "serial number of the certificate that stays good (default: the one used last)")
	}
	return cmd
}

func (c *cli) boxIdentity(ctx context.Context, client *fleetapi.Client, args []string) error {
	b, err := findBox(ctx, client, args[0])
	if err != nil {
		return err
	}
	id, err := client.Identity(ctx, b.ID)
	if err != nil {
		return err
	}
	return c.showIdentity(id)
}

// sayStanding says why a box is not active: of a copied disk, which machines show it.
func (c *cli) sayStanding(ctx context.Context, client *fleetapi.Client, b fleetapi.Box) error {
	if b.State == "active" {
		return nil
	}
	id, err := client.Identity(ctx, b.ID)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.out, "%s %s by %s: %s\n", id.State, age(id.Since, time.Now()), orDash(id.By), orDash(printable(id.Why)))
	for _, k := range id.Certificates {
		if k.Address != "" && k.State != "dead" {
			fmt.Fprintf(c.out, "certificate %s, %s, was used from %s\n", k.Serial, k.State, k.Address)
		}
	}
	return nil
}

func (c *cli) showIdentity(id fleetapi.BoxIdentity) error {
	s := sheet{kind: "box-identity", value: id, head: []string{"NAME", "SITE", "STATE", "SINCE", "BY", "MACHINE", "SERIAL", "WHY", "ID"}, names: []string{string(id.Box)}}
	now := time.Now()
	s.rows = [][]string{{id.Name, id.Site, id.State, age(id.Since, now), orDash(id.By), fmt.Sprint(id.Generation), orDash(id.Hardware.BoardSerial), orDash(id.Why), string(id.Box)}}
	if err := c.print(s); err != nil || c.output != "table" && c.output != "wide" {
		return err
	}
	certs := sheet{head: []string{"CERTIFICATE", "STATE", "CHANGED", "ENDS", "FROM"}}
	for _, k := range id.Certificates {
		certs.rows = append(certs.rows, []string{k.Serial, k.State, age(&k.Changed, now), k.Ends.Format(time.DateOnly), orDash(k.Address)})
	}
	history := sheet{head: []string{"WHEN", "STATE", "BY", "WHAT"}}
	for _, e := range id.History {
		history.rows = append(history.rows, []string{age(&e.Time, now), e.State, e.By, e.Text})
	}
	for _, s := range []sheet{certs, history} {
		if len(s.rows) > 0 {
			fmt.Fprintln(c.out)
			c.table(s)
		}
	}
	return nil
}

// boxReplaceCommand is `enroll token --box`, under the name that one looks for.
func boxReplaceCommand(c *cli) *cobra.Command {
	var ttl time.Duration
	var serial string
	var p prints
	cmd := c.call("replace BOX", "Make a token with which another machine takes the place of a box: name, models and history stay", func(ctx context.Context, client *fleetapi.Client, args []string) error {
		b, err := findBox(ctx, client, args[0])
		if err != nil {
			return err
		}
		terms := fleetapi.NewEnrolToken{EnrolTerms: fleetapi.EnrolTerms{Box: b.ID, Serial: serial}, TTLSeconds: ttl.Seconds()}
		if err := c.makeToken(ctx, client, terms, p); err != nil {
			return err
		}
		c.say("The machine that stands there now works on until the other one enrols.")
		return nil
	})
	cmd.Flags().DurationVar(&ttl, "ttl", 24*time.Hour, "how long the token is good")
	cmd.Flags().StringVar(&serial, "only-serial", "", "serial number of the only machine that may use it")
	p.flags(cmd.Flags())
	return cmd
}
