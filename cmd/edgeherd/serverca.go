package main

import (
	"context"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeherd/edgeherd/internal/enrol"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// serverCACommand looks after the authority of the fleet. It works on the files
// of a controller, on its machine.
func serverCACommand(c *cli) *cobra.Command {
	return c.group("ca", "The certificate authority of the fleet", caCommand(c, "show", "The roots that boxes trust, with the pins that tokens carry", nil, ""),
		c.group("rollover", "Replace the root without locking a box out: begin, switch a renewal later, finish a renewal after that",
			caCommand(c, "begin", "Make the next root, which boxes learn when they renew", identity.BeginRollover,
				"Start the controller again. Every box has learnt the new root after half the life of its certificate, 15 days; boxes that are away learn it when they come back. Then: edgeherd server ca rollover switch."),
			caCommand(c, "switch", "Let the next root sign; the one of before vouches for it", identity.SwitchRollover,
				"Start the controller again. After another 15 days, and once boxes that were away are back: edgeherd server ca rollover finish."),
			caCommand(c, "finish", "Have everyone trust the new root alone; a box that has not renewed since the beginning must enrol anew", identity.FinishRollover,
				"Start the controller again. Programs that were given ca.pem, such as brokers, need the new one."),
		),
	)
}

func caCommand(c *cli, use, short string, step func(*identity.CA, string) error, next string) *cobra.Command {
	var s *serverFlags
	cmd := c.verb(use, short, func(context.Context, []string) error {
		cfg, err := s.load(c.env)
		if err != nil {
			return failure{exitUsage, err}
		}
		ca, err := authority(cfg.State)
		if err != nil {
			return err
		}
		if step != nil {
			if err := step(ca, filepath.Join(cfg.State, "ca")); err != nil {
				return failure{exitConflict, err}
			}
			c.say("%s", next)
		}
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
	})
	s = addServerFlags(cmd)
	return cmd
}
