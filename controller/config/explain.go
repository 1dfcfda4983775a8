package config

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/edgeherd/edgeherd/internal/boxconfig"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// fromBox is where a setting comes from that a file on the box has.
const fromBox = "the file on the box"

// Explain lists every setting of a box with where it comes from: defaults, the
// documents of the fleet, what the box says that its own files have.
func Explain(b fleetapi.Box, settings boxconfig.Settings, from map[string]string) []fleetapi.Setting {
	all := map[string]fleetapi.Setting{}
	for _, f := range boxconfig.Fields() {
		if f.Default != "" && strings.HasPrefix(f.Path, "agent.") {
			all[f.Path] = fleetapi.Setting{Path: f.Path, Value: f.Default, Unit: f.Unit, From: "default"}
		}
	}
	for path, v := range settings {
		f, _ := boxconfig.FieldOf(path)
		s := fleetapi.Setting{Path: path, Value: boxconfig.Word(v), Unit: f.Unit, From: from[path]}
		if f.Default != "" {
			s.Over = f.Default
		}
		all[path] = s
	}
	if b.Config != nil {
		for _, local := range b.Config.Local {
			path, value, told := strings.Cut(local, "=")
			if !told {
				value = "(not told)"
			}
			f, _ := boxconfig.FieldOf(path)
			was := all[path]
			over := cmp.Or(was.Over, f.Default)
			if was.From != "" && was.From != "default" {
				over = was.Value + " of " + was.From
			}
			all[path] = fleetapi.Setting{Path: path, Value: value, Unit: f.Unit, From: fromBox, Over: over}
			for other := range all { // an input as a whole
				if strings.HasPrefix(other, path+".") {
					delete(all, other)
				}
			}
		}
	}
	out := make([]fleetapi.Setting, 0, len(all))
	for _, path := range slices.Sorted(maps.Keys(all)) {
		out = append(out, all[path])
	}
	return out
}
