package registry

import (
	"fmt"
	"strings"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// boxes is what filters and sort orders of boxes may name.
var boxes = Language[fleetapi.Box]{By: "name", Example: `site = "berlin-1"`, Fields: map[string]Field[fleetapi.Box]{
	"id":     {Text: func(b fleetapi.Box) string { return b.ID.String() }},
	"name":   {Text: func(b fleetapi.Box) string { return b.Name }},
	"site":   {Text: func(b fleetapi.Box) string { return b.Site }},
	"state":  {Text: func(b fleetapi.Box) string { return b.State }},
	"label":  {Text: func(b fleetapi.Box) string { return fleetapi.LabelWords(b.Labels) }, Has: hasLabel},
	"link":   {Text: func(b fleetapi.Box) string { return string(b.Link) }},
	"health": {Text: func(b fleetapi.Box) string { return string(b.Health) }},
	"update": {Text: func(b fleetapi.Box) string { return string(b.Update) }},
	"class":  {Text: func(b fleetapi.Box) string { return b.Inventory.Class }},
	"arch":   {Text: func(b fleetapi.Box) string { return b.Inventory.Arch }},
	"agent":  {Text: func(b fleetapi.Box) string { return b.Inventory.Agent }},
	"model":  {Text: modelWords},
	"temp_die": {Number: func(b fleetapi.Box) (float64, bool) {
		v, ok := b.Latest["temp_die_celsius"]
		return v.Value, ok
	}},
	"resistance": {Number: func(b fleetapi.Box) (float64, bool) { return b.Thermal.Percent, b.Thermal.Known }},
	"cause":      {Text: func(b fleetapi.Box) string { return strings.Join(b.Thermal.Causes, " ") }},
	"simulated":  {Text: func(b fleetapi.Box) string { return fmt.Sprint(b.Simulated) }},
}}

// hasLabel finds a label as k=v, or any of a key.
func hasLabel(b fleetapi.Box, word string) bool {
	key, value, exact := strings.Cut(word, "=")
	have, ok := b.Labels[key]
	return ok && (!exact || have == value)
}

func modelWords(b fleetapi.Box) string {
	var words []string
	for _, m := range b.Models {
		words = append(words, m.Name+":"+m.RunningVersion)
	}
	return strings.Join(words, " ")
}

// Fields lists the names that filters of boxes may use, for messages and help.
func Fields() []string { return boxes.names() }

// ParseFilter reads an AIP-160 expression over boxes such as
// `health = "ticket" AND temp_die > 85 AND NOT site = "berlin-1"`.
func ParseFilter(text string) (Filter[fleetapi.Box], error) { return boxes.Parse(text) }

// Sort orders boxes by a field; see Language.Sort.
func Sort(all []fleetapi.Box, order string) error { return boxes.Sort(all, order) }
