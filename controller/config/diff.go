package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/edgeherd/edgeherd/internal/boxconfig"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// Groups puts boxes with the same change together, most boxes first.
func Groups(changes []Change) (groups []fleetapi.ConfigGroup, refused []fleetapi.ConfigRefusal) {
	at := map[string]int{}
	groups, refused = []fleetapi.ConfigGroup{}, []fleetapi.ConfigRefusal{}
	for _, c := range changes {
		box := fleetapi.ConfigBox{ID: c.Box.ID, Name: c.Box.Name}
		if c.Err != nil {
			refused = append(refused, fleetapi.ConfigRefusal{ConfigBox: box, Why: brief(c.Err)})
			continue
		}
		diff := Diff(lines(c.Was), lines(c.Now))
		i, ok := at[diff]
		if !ok {
			i, at[diff] = len(groups), len(groups)
			groups = append(groups, fleetapi.ConfigGroup{Diff: diff})
		}
		groups[i].Boxes = append(groups[i].Boxes, box)
		groups[i].Count++
	}
	slices.SortStableFunc(groups, func(a, b fleetapi.ConfigGroup) int { return len(b.Boxes) - len(a.Boxes) })
	return groups, refused
}

func lines(c *wire.DesiredConfig) []string {
	if c == nil {
		return nil
	}
	s, err := boxconfig.Parse(c.Content)
	if err != nil {
		return []string{"(unreadable: " + err.Error() + ")"}
	}
	return s.Lines()
}

// around is how many equal lines stand around a change.
const around = 2

// Diff is the unified difference of two lists of lines; empty: none.
func Diff(was, now []string) string {
	type edit struct {
		sign byte
		text string
	}
	// Lengths of common subsequences; settings of a box are a few hundred lines.
	common := make([][]int, len(was)+1)
	for i := range common {
		common[i] = make([]int, len(now)+1)
	}
	for i := len(was) - 1; i >= 0; i-- {
		for j := len(now) - 1; j >= 0; j-- {
			common[i][j] = max(common[i+1][j], common[i][j+1])
			if was[i] == now[j] {
				common[i][j] = common[i+1][j+1] + 1
			}
		}
	}
	var edits []edit
	for i, j := 0, 0; i < len(was) || j < len(now); {
		switch {
		case i < len(was) && j < len(now) && was[i] == now[j]:
			edits = append(edits, edit{' ', was[i]})
			i, j = i+1, j+1
		case j == len(now) || i < len(was) && common[i+1][j] >= common[i][j+1]:
			edits = append(edits, edit{'-', was[i]})
			i++
		default:
			edits = append(edits, edit{'+', now[j]})
			j++
		}
	}
	var b strings.Builder
	a, n, last := 0, 0, -1
	for i, e := range edits {
		near := slices.ContainsFunc(edits[max(0, i-around):min(len(edits), i+around+1)], func(e edit) bool { return e.sign != ' ' })
		if near {
			if last != i-1 || last < 0 {
				fmt.Fprintf(&b, "@@ -%d +%d @@\n", a+1, n+1)
			}
			last = i
			fmt.Fprintf(&b, "%c%s\n", e.sign, e.text)
		}
		if e.sign != '+' {
			a++
		}
		if e.sign != '-' {
			n++
		}
	}
	return b.String()
}
