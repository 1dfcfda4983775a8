package health

import "testing"

// TestTwoHotHoursAreEnough: a failed cooling is told of after two hours above
// the line, not one. The same warmth day by day before it is no news.
func TestTwoHotHoursAreEnough(t *testing.T) {
	for _, c := range []struct {
		name   string
		before float64 // K above the usual on the three days before
		hours  int
		want   bool
	}{{"one hour", 0, 1, false}, {"two hours", 0, 2, true}, {"nearly as warm these days", 3, 2, false}} {
		b := New("b", "s", "k")
		b.Basis = Basis{Ref: RefInlet, Air: AirNone, Load: LoadPower, Offsets: [3]Value{0, Missing(), Missing()}}
		const days = 40
		for k := range days*24 + c.hours {
			h := Hour{Start: int64(1e6+k) * hourSeconds, V: Blank()}
			h.V[Inlet] = 22
			switch {
			case k >= days*24:
				h.V[Inlet] += 6.7
			case k >= (days-3)*24:
				h.V[Inlet] += Value(c.before)
			}
			b.watchAmbient(&h)
		}
		if b.has("ambient") != c.want {
			t.Errorf("%s: alarm %v, want %v", c.name, !c.want, c.want)
		}
	}
}
