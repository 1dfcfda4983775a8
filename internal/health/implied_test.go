package health

import (
	"math"
	"slices"
	"testing"
)

// airless takes the sensors of the air away and puts another one in the same air:
// it warms by a share of what the die does.
func airless(f Field, share float64, more func(day float64, h *Hour)) func(float64, *Hour) {
	return func(day float64, h *Hour) {
		if f != Inlet {
			h.V[f] = h.V[Inlet] + 4 + Value(share)*(h.V[Die]-h.V[Inlet])
		}
		h.V[Inlet], h.V[Board] = Missing(), Missing()
		if more != nil {
			more(day, h)
		}
	}
}

func TestExhaustOrDriveStandInForTheAir(t *testing.T) {
	for _, c := range []struct {
		field Field
		share float64
		want  string
	}{{Exhaust, 0.15, RefExhaust}, {NVMe, 0.3, RefDrive}} {
		clog := func(d float64, s *state) { s.clog = ramp(d, 40, 60, 0.7) }
		r := with(formula{name: "a", seed: 1, days: 110, how: clog}, airless(c.field, c.share, nil))
		if b := r.Boxes[0]; b.Reference != c.want || b.Health < Ticket {
			t.Errorf("judged by %s, %v at %v %%; want %s and a ticket", b.Reference, b.Health, b.Resistance, c.want)
		}
		r = with(formula{name: "a", seed: 2, days: 110}, airless(c.field, c.share, nil))
		if b := r.Boxes[0]; b.Health != Healthy {
			t.Errorf("clean box judged by %s is %v at %v %%", b.Reference, b.Health, b.Resistance)
		}
	}
}

func TestBlockedVentIsSeenWithoutASensorOfTheAir(t *testing.T) {
	block := func(d float64, s *state) {
		if d > 60.3 {
			s.clog = 1.2
		}
	}
	season := func(d float64, s *state) { s.room = 9 * math.Sin(d/110*math.Pi) }
	coolDrive := func(d float64, h *Hour) { // it has less to do
		if d > 60 {
			h.V[NVMe] -= 9
		}
	}
	for _, c := range []struct {
		name   string
		how    func(float64, *state)
		change func(float64, *Hour)
		want   bool
	}{
		{"nothing but the die", block, airless(Inlet, 0, nil), true},
		{"a drive", block, airless(NVMe, 0.4, nil), true},
		{"the season is no vent", season, airless(Inlet, 0, nil), false},
		{"nor is a drive that cools", nil, airless(NVMe, 0.4, coolDrive), false},
	} {
		r := with(formula{name: "a", seed: 1, days: 110, how: c.how}, c.change)
		i := slices.IndexFunc(r.Findings, func(f Finding) bool { return f.Family == "step" })
		if i < 0 {
			if c.want {
				t.Errorf("%s: no step in %v", c.name, causes(r.Findings))
			}
			continue
		}
		f := &r.Findings[i]
		if !c.want {
			t.Errorf("%s: %+v", c.name, f)
		} else if late := float64(f.Opened-t0)/daySeconds - 60.3; late < 0 || late > 0.5 {
			t.Errorf("%s: seen after %.1f days", c.name, late)
		}
	}
}
