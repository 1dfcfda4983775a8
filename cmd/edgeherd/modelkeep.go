package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

func modelVerifyCommand(c *cli) *cobra.Command {
	var drop bool
	cmd := c.verb("verify NAME:VERSION", "Hash a version again as the controller stores it", func(ctx context.Context, args []string) error {
		name, version, err := modelVersion(args[0])
		if err != nil {
			return err
		}
		client, _, err := c.client()
		if err != nil {
			return err
		}
		v, err := client.VerifyModel(ctx, name, fleetapi.VerifyModel{Version: version, Drop: drop})
		if err != nil {
			return err
		}
		s := sheet{kind: "model-verify", value: v, head: []string{"FILE", "STATE", "SIZE", "DIGEST", "WHY"}}
		damaged := false
		for _, f := range v.Files {
			s.rows = append(s.rows, []string{f.Path, string(f.State), bytesText(f.SizeBytes), f.Digest.Short(), orDash(f.Why)})
			s.names = append(s.names, f.Path)
			damaged = damaged || f.State == fleetapi.FileDamaged
		}
		if err := c.print(s); err != nil || v.OK {
			return err
		}
		way := "push the same folder again (edgeherd model push DIR), or import a bundle that has it: what is there already is not sent"
		if damaged {
			way = "remove what is damaged (edgeherd model verify " + args[0] + " --drop), then " + way
		}
		return failure{exitFailed, fmt.Errorf("%s is not whole here; boxes that run it go on. %s", args[0], way)}
	})
	cmd.Flags().BoolVar(&drop, "drop", false, "remove damaged files, so that a push brings them again")
	return cmd
}

func modelRetireCommand(c *cli) *cobra.Command {
	return c.verb("retire NAME:VERSION", "Forget a version that no box runs, with its files", func(ctx context.Context, args []string) error {
		name, version, err := modelVersion(args[0])
		if err != nil {
			return err
		}
		client, _, err := c.client()
		if err != nil {
			return err
		}
		r, err := client.RetireModel(ctx, name, version)
		if err != nil {
			return err
		}
		c.say("%s is gone from the controller. In production it is still listed: edgeherd trust retire ROLE %s --key FILE", args[0], args[0])
		return c.print(sheet{kind: "model-retired", value: r, head: []string{"MODEL", "VERSION", "FREED"},
			rows: [][]string{{r.Name, r.Version, bytesText(r.FreedBytes)}}, names: []string{r.Ref.String()}})
	})
}

func modelPinCommand(c *cli, pin bool) *cobra.Command {
	verb, short := "unpin", "Let a pinned version be collected and retired again"
	if pin {
		verb, short = "pin", "Keep a version: it is not retired, and boxes that have it never collect it"
	}
	return c.verb(verb+" NAME:VERSION", short, func(ctx context.Context, args []string) error {
		name, version, err := modelVersion(args[0])
		if err != nil {
			return err
		}
		client, _, err := c.client()
		if err != nil {
			return err
		}
		v, err := client.PinModel(ctx, name, fleetapi.PinModel{Version: version, Pinned: pin})
		if err != nil {
			return err
		}
		return c.print(modelSheet("model-version", v, []fleetapi.Model{{Name: v.Name, Versions: []fleetapi.ModelVersion{v}}}))
	})
}
