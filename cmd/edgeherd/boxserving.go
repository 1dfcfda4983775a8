package main

import (
	"cmp"
	"fmt"
	"strconv"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// boxServing shows the variants of each model with what they cost on this box,
// which of them serves and why, and how a new version does beside it.
func (c *cli) boxServing(models []fleetapi.BoxModel) {
	s := sheet{head: []string{"MODEL", "VARIANT", "SERVES", "TIME/ITEM", "HEAT/ITEM", "DRAWS", "MEMORY", "WHY"}}
	var words []string
	for _, m := range models {
		if m.Serving == nil {
			continue
		}
		for _, v := range m.Serving.Variants {
			s.rows = append(s.rows, variantRow(m, v))
		}
		if m.Serving.Refused > 0 {
			words = append(words, fmt.Sprintf("%s refused %d requests that insisted on a better variant.", m.Name, m.Serving.Refused))
		}
	}
	for _, m := range models {
		if m.Tried != nil {
			words = append(words, triedWords(m))
		}
	}
	if len(s.rows) > 0 {
		fmt.Fprintln(c.out)
		c.table(s)
	}
	for _, w := range words {
		fmt.Fprintln(c.out, printable(w))
	}
}

func variantRow(m fleetapi.BoxModel, v wire.ServingVariant) []string {
	serves, why := "-", v.Skipped
	if v.Name == m.Serving.Variant {
		serves = "yes"
		if len(m.Serving.Variants) > 1 {
			why = causeWords(*m.Serving)
		}
	}
	heat, watts := "-", "-"
	if v.HeatFrom == "cpu" {
		heat = "no sensor"
	}
	if v.JoulesPerItem > 0 {
		heat, watts = fmt.Sprintf("%.3g J (%s)", v.JoulesPerItem, v.HeatFrom), fmt.Sprintf("+%.1f W", v.Watts)
	}
	return []string{m.Name, cmp.Or(v.Name, "the only one"), serves, fmt.Sprintf("%.3g ms", 1e3*v.SecondsPerItem), heat, watts, bytesText(v.PeakRSSBytes), orDash(why)}
}

// causeWords says why a variant serves.
func causeWords(s wire.Serving) string {
	switch s.Cause {
	case "cool":
		return "nothing asks for a cheaper one"
	case "only":
		return "a cheaper one is asked for, none saves anything here"
	case "":
		return ""
	}
	return cmp.Or(s.Reason, s.Cause)
}

func triedWords(m fleetapi.BoxModel) string {
	t := m.Tried
	version := cmp.Or(t.Version, m.DesiredVersion)
	if t.Compared == 0 {
		return fmt.Sprintf("%s:%s beside the version before it: no answers compared of %d requests.", m.Name, version, t.Seen)
	}
	words := fmt.Sprintf("%s:%s beside the version before it: %d of %d answers compared, they agree by %.1f %%", m.Name, version, t.Compared, t.Seen, 100*t.Agreement)
	if t.LatencyRatio > 0 {
		words += fmt.Sprintf(", in %.2f times its time", t.LatencyRatio)
	}
	if t.Failures > 0 {
		words += ", " + strconv.FormatUint(t.Failures, 10) + " failed"
	}
	return words + "."
}
