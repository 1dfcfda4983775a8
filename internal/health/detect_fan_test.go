package health

import "testing"

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
