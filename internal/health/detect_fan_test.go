package health

import (
	"slices"
	"testing"
)

// Wear does not heal: where only the die's temperature stands for the duty, a
// fan that turned slower for a while and then not is not called worn for the
// same again, and is for more.
func TestAFanThatGotWellByItselfWasNotWorn(t *testing.T) {
	b := New("b", "s", "k")
	b.Base = &Baseline{}
	b.Basis.Fitted[0] = true
	b.Last.V = Blank()
	day := int32(100)
	pass := func(days int, dev Value) (tickets int) {
		for range days {
			d := Day{Day: day}
			for i := range d.Fan {
				d.Fan[i], d.RPMSD[i] = Missing(), Missing()
			}
			d.Fan[0] = dev
			b.Days = append(b.Days, d)
			was := b.has("fan1")
			b.watchFans()
			if !was && b.has("fan1") {
				tickets++
			}
			day++
		}
		return tickets
	}
	for _, step := range []struct {
		days int
		dev  Value
		want int
	}{{5, 0, 0}, {5, -0.12, 1}, {20, 0, 0}, {10, -0.13, 0}, {20, 0, 0}, {5, -0.20, 1}} {
		if got := pass(step.days, step.dev); got != step.want {
			t.Errorf("%d days at %v: %d tickets, want %d", step.days, step.dev, got, step.want)
		}
	}
}

func TestFanOfABoxThatClogsIsJudgedAtDutiesItNeverHad(t *testing.T) {
	how := func(d float64, s *state) { s.clog, s.worn = ramp(d, 35, 20, 1.2), min(max(d-75, 0)*0.004, 0.3) }
	full := func(d float64, s *state) { s.clog = ramp(d, 35, 20, 1.2) }
	for _, c := range []struct {
		how  func(float64, *state)
		want bool
	}{{how, true}, {full, false}} {
		r := Replay(tableOf(formula{name: "a", seed: 1, days: 130, how: c.how}), nil, ReplayOptions{})
		if got := slices.Contains(causes(r.Findings), CauseFanWear); got != c.want {
			t.Errorf("fan called worn: %v, want %v; %v", got, c.want, causes(r.Findings))
		}
	}
}
