package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

func userCommand(c *cli) *cobra.Command {
	return c.group("user", "People who use the controller",
		userAddCommand(c),
		c.call("list", "All users", c.userList),
		userRoleCommand(c),
		c.verb("disable NAME", "Keep a user out, at once", c.userAct("disable")),
		c.verb("enable NAME", "Let a disabled user in again", c.userAct("enable")),
		c.verb("reset NAME", "An address under which the user sets a new password; unlocks the name as well", c.userAct("reset")),
		c.verb("sign-out NAME", "End all sessions of a user", c.userAct("sign-out")),
	)
}

func userAddCommand(c *cli) *cobra.Command {
	var n fleetapi.NewUser
	cmd := c.call("add NAME", "Invite a user: prints the address under which the user sets a password", func(ctx context.Context, client *fleetapi.Client, args []string) error {
		n.Name = args[0]
		u, err := client.AddUser(ctx, n)
		if err != nil {
			return err
		}
		return c.printInvitation(u)
	})
	addRoleFlags(cmd, &n.Role, &n.Sites)
	return cmd
}

func addRoleFlags(cmd *cobra.Command, role *string, sites *[]string) {
	cmd.Flags().StringVar(role, "role", "", "viewer, tech, ops or admin")
	cmd.Flags().StringSliceVar(sites, "site", nil, "a site that is seen, or '*' for all; viewer and tech need it, ops and admin see all without")
	if err := cmd.MarkFlagRequired("role"); err != nil {
		panic("cli: " + err.Error())
	}
}

func (c *cli) printInvitation(u fleetapi.UserChanged) error {
	for _, t := range u.Tokens {
		c.say("The token %s for %s, which %s made, goes on until %s. To end it: edgeherd token revoke %s", t.ID, t.Name, u.User.Name, t.Expires.Format(time.DateOnly), t.ID)
	}
	if u.Invitation == nil {
		return c.printUsers([]fleetapi.User{u.User})
	}
	c.say("%s sets a password at this address. It works once, until %s; give it to nobody else.", u.User.Name, u.Invitation.Expires.Local().Format(time.DateTime))
	return c.print(sheet{kind: "invitation", value: u, head: []string{"URL"}, rows: [][]string{{u.Invitation.Path}}, names: []string{u.Invitation.Path}, bare: true})
}

func (c *cli) userList(ctx context.Context, client *fleetapi.Client, _ []string) error {
	list, err := client.Users(ctx)
	if err != nil {
		return err
	}
	return c.printUsers(list.Items)
}

func (c *cli) printUsers(users []fleetapi.User) error {
	s := sheet{
		kind: "user-list", item: "user", value: fleetapi.UserList{Items: users}, items: items(users),
		head: []string{"NAME", "ROLE", "SITES", "STATE", "SESSIONS", "LAST LOGIN", "SIGNS IN BY"},
	}
	for _, u := range users {
		state, by, last := "active", "password", "never"
		switch {
		case u.Disabled:
			state = "disabled"
		case u.Waiting:
			state = "invited"
		}
		if u.Issuer != "" {
			by = u.Issuer
		}
		if u.Login != nil {
			last = u.Login.Format(time.RFC3339)
		}
		s.rows = append(s.rows, []string{u.Name, u.Role, strings.Join(u.Sites, ","), state, fmt.Sprint(u.Sessions), last, by})
		s.names = append(s.names, u.Name)
	}
	return c.print(s)
}

func userRoleCommand(c *cli) *cobra.Command {
	a := fleetapi.UserAction{Action: "role"}
	cmd := c.verb("role NAME", "Give a user a role and sites, at once", func(ctx context.Context, args []string) error {
		return c.actOnUser(ctx, args[0], a)
	})
	addRoleFlags(cmd, &a.Role, &a.Sites)
	return cmd
}

func (c *cli) userAct(action string) func(context.Context, []string) error {
	return func(ctx context.Context, args []string) error {
		return c.actOnUser(ctx, args[0], fleetapi.UserAction{Action: action})
	}
}

func (c *cli) actOnUser(ctx context.Context, name string, a fleetapi.UserAction) error {
	client, _, err := c.client()
	if err != nil {
		return err
	}
	u, err := client.ActOnUser(ctx, name, a)
	if err != nil {
		return err
	}
	return c.printInvitation(u)
}
