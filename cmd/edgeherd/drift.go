package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

func modelDriftCommand(c *cli) *cobra.Command {
	q := fleetapi.DriftQuery{}
	var box string
	cmd := c.call("drift NAME[:VERSION]", "How far what a model sees and answers is from its first week", func(ctx context.Context, client *fleetapi.Client, args []string) error {
		if box != "" {
			b, err := findBox(ctx, client, box)
			if err != nil {
				return err
			}
			q.Box = b.ID
		}
		name, version, _ := strings.Cut(args[0], ":")
		q.Version = version
		d, err := client.Drift(ctx, name, q)
		if err != nil {
			return err
		}
		c.driftWords(d)
		return c.print(driftSheet(d))
	})
	f := cmd.Flags()
	f.StringVar(&box, "box", "", "only one box, by name or ID")
	f.StringVar(&q.Site, "site", "", "only boxes of a site")
	f.IntVar(&q.Days, "days", 7, "how many days are compared, 1 to 90")
	return cmd
}

func (c *cli) driftWords(d fleetapi.Drift) {
	switch {
	case d.Inputs == 0 && d.Waiting == 0:
		c.say("%s:%s: no box sent sketches. Runners make them of inputs, see docs/pipelines.md.", d.Model, d.Version)
	case d.Inputs == 0:
		c.say("%s:%s: nothing to compare yet: of %s none has a first week and hours after it.", d.Model, d.Version, plural(d.Waiting, "input", "inputs"))
	case d.Line == "":
		c.say("%s:%s: %s of %s as in their first week.", d.Model, d.Version, plural(d.Inputs, "input", "inputs"), plural(d.Boxes, "box", "boxes"))
	default:
		c.say("%s:%s: %s.", d.Model, d.Version, d.Line)
	}
}

func driftSheet(d fleetapi.Drift) sheet {
	s := sheet{kind: "model-drift", value: d, head: []string{"BOX", "INPUT", "ASPECT", "PSI", "JS", "REFERENCE", "NOW", "MOVED"}}
	add := func(box, input string, shifts []fleetapi.DriftShift) {
		for _, v := range shifts {
			s.rows = append(s.rows, []string{box, input, v.Aspect, fmt.Sprintf("%.3f", v.PSI), fmt.Sprintf("%.3f", v.JensenShannon),
				strconv.FormatUint(v.Reference, 10), strconv.FormatUint(v.Now, 10), fmt.Sprint(v.Moved)})
			s.names = append(s.names, strings.TrimSpace(box+" "+input)+" "+v.Aspect)
		}
	}
	add("all", "all", d.Shifts)
	for _, m := range d.Moved {
		add(m.Name, m.Input, m.Shifts)
	}
	return s
}
