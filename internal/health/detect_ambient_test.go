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
	}{{"one hour", 0, 1, false}, {"two hours", 0, 2, true}, {"nearly as warm these days", 3.5, 2, false}} {
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

// TestHoursWithoutAirEndARun: two hours with days between them are not two hours
// in a row, and what is open ends when nobody measures it any more.
func TestHoursWithoutAirEndARun(t *testing.T) {
	b := New("b", "s", "k")
	b.Basis = Basis{Ref: RefInlet, Air: AirNone, Load: LoadPower, Offsets: [3]Value{0, Missing(), Missing()}}
	k := 1_000_000
	hours := func(n int, inlet Value) {
		for range n {
			h := Hour{Start: int64(k) * hourSeconds, V: Blank()}
			h.V[Inlet] = inlet
			b.watchAmbient(&h)
			k++
		}
	}
	hours(40*24, 22)
	hours(1, 28.7)
	hours(6, Missing())
	hours(1, 28.7)
	if b.has("ambient") {
		t.Error("two hot hours six hours apart were taken for two in a row")
	}
	hours(1, Missing()) // one may be lost
	hours(1, 28.7)
	if !b.has("ambient") {
		t.Fatal("two hot hours raised no alarm")
	}
	hours(23, Missing())
	if !b.has("ambient") {
		t.Error("the alarm ended within a day")
	}
	hours(3, Missing())
	if b.has("ambient") {
		t.Error("an alarm about air that nobody measures stands for ever")
	}
	hours(20*24, 22)
	hours(2, 28.7)
	if !b.has("ambient") {
		t.Fatal("two hot hours raised no alarm")
	}
	for range 3 { // it is read for a few hours at a time
		hours(3, Missing())
		hours(4, 22)
	}
	if b.has("ambient") {
		t.Error("an alarm stands though all hours that were measured since are calm")
	}
}
