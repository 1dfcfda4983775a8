package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeherd/edgeherd/controller/people"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

func tokenCommand(c *cli) *cobra.Command {
	return c.group("token", "Tokens of programs and command lines",
		tokenCreateCommand(c),
		c.call("list", "All tokens that have not ended", c.tokenList),
		c.call("revoke ID", "End a token; takes the token itself as well", c.tokenRevoke),
	)
}

func tokenCreateCommand(c *cli) *cobra.Command {
	var n fleetapi.NewToken
	var ttl time.Duration
	cmd := c.verb("create NAME", "Make a token; it is shown once", func(ctx context.Context, args []string) error {
		client, oc, err := c.client()
		if err != nil {
			return err
		}
		if ttl < time.Minute || ttl > people.TokenMostLife {
			return failure{exitUsage, fmt.Errorf("--ttl %s: a token lasts a minute at least and a year (8760h) at most", ttl)}
		}
		n.Name, n.TTLSeconds = args[0], ttl.Seconds()
		t, err := client.NewToken(ctx, n)
		if err != nil {
			return err
		}
		c.say("Token %s for %s, role %s, sites %s, until %s. It is shown this once; with -o json this is a context file for `edgeherd context use`.",
			t.ID, t.Name, t.Role, strings.Join(t.Sites, ","), t.Expires.Format(time.DateOnly))
		ca, err := oc.authority()
		if err != nil {
			return err
		}
		return c.print(sheet{kind: "context", value: operatorContext{URL: oc.URL, Token: t.Secret, CA: ca, Expires: t.Expires}, head: []string{"TOKEN"}, rows: [][]string{{t.Secret}}, names: []string{t.Secret}, bare: true})
	})
	addRoleFlags(cmd, &n.Role, &n.Sites)
	cmd.Flags().StringSliceVar(&n.Scope, "scope", nil, "narrow the role to these, such as fleet.see or artefact.push")
	cmd.Flags().DurationVar(&ttl, "ttl", people.TokenLife, "how long it is good, a year at most")
	return cmd
}

func (c *cli) tokenList(ctx context.Context, client *fleetapi.Client, _ []string) error {
	list, err := client.Tokens(ctx)
	if err != nil {
		return err
	}
	s := sheet{
		kind: "token-list", item: "token", value: list, items: items(list.Items),
		head: []string{"ID", "NAME", "ROLE", "SITES", "SCOPE", "ENDS", "LAST USED", "MADE BY"},
	}
	for _, t := range list.Items {
		scope := "all"
		if len(t.Scope) > 0 {
			scope = strings.Join(t.Scope, ",")
		}
		s.rows = append(s.rows, []string{t.ID, t.Name, t.Role, strings.Join(t.Sites, ","), scope, t.Expires.Format(time.DateOnly), t.Used.Format(time.RFC3339), t.MadeBy})
		s.names = append(s.names, t.ID)
	}
	return c.print(s)
}

func (c *cli) tokenRevoke(ctx context.Context, client *fleetapi.Client, args []string) error {
	id := args[0]
	if whole, err := people.TokenID(id); err == nil {
		id = whole
	}
	if err := client.RevokeToken(ctx, id); err != nil {
		return err
	}
	c.say("Token %s has ended.", id)
	return nil
}
