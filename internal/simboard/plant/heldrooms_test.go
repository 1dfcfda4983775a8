package plant

import (
	"testing"
	"time"
)

// The figures are those of the fleets that the bench judges.
func TestEnoughCoolingsFailToTellAMedian(t *testing.T) {
	all := 0
	for _, name := range []string{"held9", "held10", "held11"} {
		f := fleet(t, Options{Seed: 20260, Family: name, Boxes: 200})
		boxes, kinds := map[*site]int{}, map[string]int{}
		for _, b := range f.boxes {
			boxes[b.site]++
		}
		felt := 0
		for _, s := range f.sites {
			kinds[s.regime.kind]++
			for _, x := range s.hvac {
				if boxes[s] > 1 && x.rise >= 5 {
					felt++
				}
				if x.rise > 25 {
					t.Errorf("%s: a failure warms %s (%s) by %.1f K", name, s.id, s.regime.kind, x.rise)
				}
			}
		}
		if all += felt; len(kinds) < 3 || felt < 5 {
			t.Errorf("%s: %d failures of 5 K that two boxes feel, rooms %v", name, felt, kinds)
		}
	}
	if all < 20 {
		t.Errorf("%d failures, want 20", all)
	}
}

func TestRoomsOfHallsClosetsAndGlass(t *testing.T) {
	mean := func(s *site, f *Fleet, when func(time.Time) bool) float64 {
		sum, n := 0.0, 0
		for h, x := range s.room {
			if when(f.time(float64(h))) {
				sum, n = sum+float64(x), n+1
			}
		}
		return sum / float64(n)
	}
	month := func(m time.Month) func(time.Time) bool {
		return func(at time.Time) bool { return at.Month() == m }
	}
	seen := map[string]int{}
	for _, name := range []string{"held9", "held10", "held11"} {
		f := fleet(t, Options{Seed: 3, Family: name, Boxes: 50, Healthy: true})
		for _, s := range f.sites {
			seen[s.regime.kind]++
			winter, summer := mean(s, f, month(time.January)), mean(s, f, month(time.July))
			noon, night := mean(s, f, func(at time.Time) bool { return at.Month() == time.July && at.Hour() == 14 }), mean(s, f, func(at time.Time) bool { return at.Month() == time.July && at.Hour() == 5 })
			defrost := mean(s, f, func(at time.Time) bool { return at.Hour()%6 == 3 }) - mean(s, f, func(at time.Time) bool { return at.Hour()%6 == 2 })
			bad := false
			switch s.regime.kind {
			case "chilled":
				bad = summer < 6 || summer > 16 || defrost < 0.5 || defrost > 5
			case "closet":
				bad = summer-winter > 2 || winter-summer > 2 || summer < 18 || summer > 27
			case "glass":
				bad = noon-night < 1.5 || noon > 42
			}
			if bad {
				t.Errorf("%s %s (%s): January %.1f, July %.1f, at two %.1f, at five %.1f °C, defrost %.1f K", name, s.id, s.regime.kind, winter, summer, noon, night, defrost)
			}
		}
	}
	if seen["chilled"] < 3 || seen["closet"] < 3 || seen["glass"] < 3 {
		t.Errorf("rooms are %v", seen)
	}
}
