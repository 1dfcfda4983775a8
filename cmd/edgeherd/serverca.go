package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeherd/edgeherd/controller/audit"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/enrol"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// serverCACommand looks after the authority of the fleet. It works on the files
// of a controller, on its machine.
func serverCACommand(c *cli) *cobra.Command {
	return c.group("ca", "The certificate authority of the fleet", caCommand(c, caStep{use: "show", short: "The roots that boxes trust, with the pins that tokens carry"}),
		c.group("rollover", "Replace the root without locking a box out: begin, switch a renewal later, finish a renewal after that",
			caCommand(c, caStep{"begin", "Make the next root, which boxes learn when they renew", identity.BeginRollover,
				"Start the controller again. Every box has learnt the new root after half the life of its certificate, 15 days; boxes that are away learn it when they come back. Then: edgeherd server ca rollover switch."}),
			caCommand(c, caStep{"switch", "Let the next root sign; the one of before vouches for it", identity.SwitchRollover,
				"Start the controller again. After another 15 days, and once boxes that were away are back: edgeherd server ca rollover finish."}),
			caCommand(c, caStep{caFinish, "Have everyone trust the new root alone, once every box has a certificate by it", identity.FinishRollover,
				"Start the controller again. Programs that were given ca.pem, such as brokers, need the new one."}),
		),
	)
}

// caFinish is the step after which a box that has not renewed must enrol anew.
const caFinish = "finish"

// caStep is a verb; without run it changes nothing.
type caStep struct {
	use, short string
	run        func(*identity.CA, string) error
	next       string
}

func caCommand(c *cli, step caStep) *cobra.Command {
	var s *serverFlags
	var force bool
	cmd := c.verb(step.use, step.short, func(ctx context.Context, _ []string) error {
		cfg, err := s.load(c.env)
		if err != nil {
			return failure{exitUsage, err}
		}
		ca, err := c.authority(cfg)
		if err != nil {
			return err
		}
		if step.run == nil {
			return c.printRoots(ca)
		}
		db := storeOptions(cfg)
		note := audit.Itself("ca.rollover-" + step.use)
		if step.use == caFinish {
			behind, err := boxesBehind(ctx, db, ca)
			if err != nil {
				return err
			}
			if note.Note = behind; behind != "" && !force && len(ca.Roots()) > 1 {
				return ended(exitConflict, "%s. They would have to enrol anew. Wait until they have renewed, 15 days when they are connected; revoke or retire those that never come back; or leave them behind with --force", behind)
			}
		}
		note.Before = enrol.PinOf(ca.Roots()[0]).String()
		if err := step.run(ca, filepath.Join(cfg.State, "ca")); err != nil {
			return failure{exitConflict, err}
		}
		note.After = enrol.PinOf(ca.Roots()[0]).String()
		c.say("%s", step.next)
		return errors.Join(store.Note(ctx, db, note), c.printRoots(ca))
	})
	s = addServerFlags(cmd)
	if step.use == caFinish {
		cmd.Flags().BoolVar(&force, "force", false, "leave boxes behind that do not know the new root: they must enrol anew; the audit log says which")
	}
	return cmd
}

func storeOptions(cfg serverConfig) store.Options {
	o := store.Options{Database: cfg.Database, PasswordFile: cfg.PasswordFile, WallClock: time.Now}
	if o.Database == "" {
		o.Path = filepath.Join(cfg.State, "store.db")
	}
	return o
}

// boxesBehind names the members whose certificate is not by the root that signs
// now; empty: there are none.
func boxesBehind(ctx context.Context, db store.Options, ca *identity.CA) (string, error) {
	const most = 20
	boxes, err := store.CertHolders(ctx, db)
	var names []string
	for _, b := range boxes {
		if !ca.Knows([]byte(b.PEM)) {
			names = append(names, fmt.Sprintf("%s (%s)", b.Name, b.Box))
		}
	}
	n := len(names)
	if n == 0 || err != nil {
		return "", err
	}
	more := ""
	if n > most {
		names, more = names[:most], fmt.Sprintf(" and %d more", n-most)
	}
	return fmt.Sprintf("%d of %s no certificate by the new root: %s%s", n, plural(len(boxes), "box has", "boxes have"), strings.Join(names, ", "), more), nil
}

func (c *cli) printRoots(ca *identity.CA) error {
	type root struct {
		Pin    string    `json:"pin"`
		Active bool      `json:"active"`
		Ends   time.Time `json:"ends"`
	}
	sh := sheet{kind: "ca", item: "root", head: []string{"PIN", "SIGNS", "ENDS"}}
	var all []root
	for i, r := range ca.Roots() {
		k := root{enrol.PinOf(r).String(), i == 0, r.NotAfter.UTC()}
		all = append(all, k)
		sh.rows = append(sh.rows, []string{k.Pin, map[bool]string{true: "yes", false: "no"}[k.Active], k.Ends.Format(time.DateOnly)})
		sh.names = append(sh.names, k.Pin)
	}
	sh.value, sh.items = all, items(all)
	return c.print(sh)
}
