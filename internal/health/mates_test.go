package health

import (
	"slices"
	"testing"
)

// TestAFanWithoutATachometerIsToldFromDustByTheNeighbours: both choke the air
// of one box. Dust comes to all of a site, and lint within days.
func TestAFanWithoutATachometerIsToldFromDustByTheNeighbours(t *testing.T) {
	blind := []Field{RPM1}
	worn := func(d float64, s *state) { s.worn, s.blank = min(max(d-60, 0)*0.008, 0.4), blind }
	clean := func(_ float64, s *state) { s.blank = blind }
	dusty := func(d float64, s *state) { s.clog, s.blank = ramp(d, 40, 80, 0.35), blind }
	lint := func(d float64, s *state) { s.clog, s.blank = 0.4*min(max(d-60, 0)/2, 1), blind }
	for _, c := range []struct {
		name string
		how  func(day float64, s *state)
		rest func(day float64, s *state)
		want Cause
		code string
	}{
		{"alone", worn, clean, CauseFanWear, "stands-alone"},
		{"with the others", dusty, dusty, CauseAirflow, "stands-with-others"},
		{"alone, within days", lint, clean, CauseAirflow, "fan-unseen"},
		{"with nobody beside it", worn, nil, CauseAirflow, "fan-unseen"},
	} {
		all := []formula{{name: "a", seed: 1, days: 130, how: c.how}}
		for i, name := range []string{"b", "c", "d"} {
			if c.rest != nil {
				all = append(all, formula{name: name, seed: uint64(2 + i), days: 130, how: c.rest})
			}
		}
		found := slices.DeleteFunc(Replay(tableOf(all...), nil, ReplayOptions{}).Findings, func(f Finding) bool { return f.Box != "a" || f.Family != "resistance" })
		if len(found) != 1 || found[0].Cause != c.want {
			t.Errorf("%s: %v, want %s", c.name, causes(found), c.want)
			continue
		}
		if !slices.ContainsFunc(found[0].Evidence, func(e Evidence) bool { return e.Code == c.code }) {
			t.Errorf("%s: no evidence %q in %+v", c.name, c.code, found[0].Evidence)
		}
	}
}
