package health

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/internal/rank"
)

// with runs a box of the formula whose hours are changed before they are judged.
func with(f formula, change func(day float64, h *Hour)) *Report {
	s := &Series{Box: f.name, SKU: "sku", Site: "shop"}
	for i, h := range f.hours() {
		change(float64(i)/24, &h)
		s.add(h)
	}
	return Replay(&Table{Series: []*Series{s}}, nil, ReplayOptions{})
}

func TestWornPartsGetTheirTicket(t *testing.T) {
	tests := []struct {
		name   string
		change func(d float64, h *Hour)
		want   []Cause
		text   string
	}{
		{"a drive that ages as drives do", func(d float64, h *Hour) { h.V[NVMeUsed] = Value(math.Floor(10 + d*8/365)) }, nil, ""},
		{"a drive that something wears out", func(d float64, h *Hour) { h.V[NVMeUsed] = Value(math.Floor(10 + max(d-60, 0)*0.25)) }, []Cause{CauseDrive}, "look what writes to it"},
		{"a drive near its end", func(d float64, h *Hour) { h.V[NVMeUsed] = 93 }, []Cause{CauseDrive}, "worn by 93 %"},
		{"spare blocks run out", func(d float64, h *Hour) { h.V[NVMeSpare] = Value(100 - max(d-40, 0)*2) }, []Cause{CauseDrive}, "spare blocks"},
		{"reads that fail", func(d float64, h *Hour) { h.V[NVMeErrors] = Value(7 + math.Floor(max(d-70, 0)/5)) }, []Cause{CauseDrive}, "reads failed"},
		{"old errors alone are none", func(d float64, h *Hour) { h.V[NVMeErrors] = 7 }, nil, ""},
		{"a supply that wastes more", func(d float64, h *Hour) { h.V[PSUIn] = (h.V[Power] + 8) * Value(1.1+0.002*max(d-50, 0)) }, []Cause{CauseSupply}, "more from the wall"},
		{"a supply as it was", func(d float64, h *Hour) { h.V[PSUIn] = (h.V[Power] + 8) * 1.1 }, nil, ""},
		{"redundancy lost", func(d float64, h *Hour) {
			if h.V[PSUOK] = 1; d > 80 {
				h.V[PSUOK] = 0.5
			}
		}, []Cause{CauseSupply}, "power supplies work"},
		{"a supply whose fan stands", func(d float64, h *Hour) {
			if h.V[PSUFan] = 4000; d > 80 {
				h.V[PSUFan] = 0
			}
		}, []Cause{CauseSupply}, "fan of the power supply"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := with(formula{name: "a", seed: 1, days: 110}, tt.change)
			if got := causes(r.Findings); !slices.Equal(got, tt.want) {
				t.Fatalf("causes %v, want %v", got, tt.want)
			}
			if tt.want != nil {
				var texts []string
				for _, e := range r.Findings[0].Evidence {
					texts = append(texts, e.Text)
				}
				if !strings.Contains(strings.Join(texts, "; "), tt.text) {
					t.Errorf("evidence %q does not say %q", texts, tt.text)
				}
			}
		})
	}
}

func TestSensorThatStandsStillIsNamedAndNotBelieved(t *testing.T) {
	var kept Value
	r := with(formula{name: "a", seed: 1, days: 100}, func(d float64, h *Hour) {
		if d > 60.2 && d < 75 {
			if kept == 0 {
				kept = h.V[Inlet]
			}
			// The room gets warmer by the day: by the stuck inlet the box clogs.
			h.V[Inlet], h.V[Die] = kept, h.V[Die]+Value(min(2*(d-60.2), 8))
		}
	})
	if got := causes(r.Findings); !slices.Equal(got, []Cause{CauseSensor}) {
		t.Fatalf("causes %v, want sensor", got)
	}
	if f := r.Findings[0]; !strings.Contains(f.Evidence[0].Text, "inlet") || f.Closed == 0 {
		t.Errorf("%+v", f)
	}
}

func TestCoarseSensorMayRest(t *testing.T) {
	r := with(formula{name: "a", seed: 1, days: 100}, func(_ float64, h *Hour) { h.V[Board] = Value(math.Round(float64(h.V[Board])/8) * 8) })
	if got := causes(r.Findings); len(got) != 0 {
		t.Errorf("causes %v, want none", got)
	}
}

// TestCoarseSensorIsStuckOnlyWhereItShouldHaveMoved: an inlet of whole degrees
// rests for weeks in a room that is cooled well from day 60 on. The die tells
// whether the room rests as well.
func TestCoarseSensorIsStuckOnlyWhereItShouldHaveMoved(t *testing.T) {
	for _, tt := range []struct {
		name string
		calm bool
		want []Cause
	}{{"the room is calm", true, nil}, {"the sensor is stuck", false, []Cause{CauseSensor}}} {
		t.Run(tt.name, func(t *testing.T) {
			r := with(formula{name: "a", seed: 1, days: 110}, func(d float64, h *Hour) {
				if d > 60 && tt.calm {
					h.V[Die], h.V[Board] = h.V[Die]+22-h.V[Inlet], h.V[Board]+22-h.V[Inlet]
				}
				h.V[Inlet] = Value(math.Round(float64(h.V[Inlet])))
				if d > 60 {
					h.V[Inlet] = 22
				}
			})
			if got := causes(r.Findings); !slices.Equal(got, tt.want) {
				t.Errorf("causes %v, want %v", got, tt.want)
			}
		})
	}
}

// TestDieThatItsFansHoldIsNotStuck: from day 60 on the fans of the busy box hold
// its die at a point, within the day and with the load moving.
func TestDieThatItsFansHoldIsNotStuck(t *testing.T) {
	for _, tt := range []struct {
		name string
		held bool
		want []Cause
	}{{"the fans follow the load", true, nil}, {"the fans do not", false, []Cause{CauseSensor}}} {
		t.Run(tt.name, func(t *testing.T) {
			r := with(formula{name: "a", seed: 1, days: 90}, func(d float64, h *Hour) {
				hour := int(math.Round(d*24)) % 24
				if d < 60 || hour < 8 || hour > 17 {
					return
				}
				if h.V[Die] = 50; tt.held {
					air := (50-float64(h.V[Inlet]))/float64(h.V[Power]) - 0.25
					h.V[RPM1] = Value(3000 * 0.09 / (air * air))
				}
			})
			if got := causes(r.Findings); slices.Contains(got, CauseSensor) != (tt.want != nil) {
				t.Errorf("causes %v, want sensor: %v", got, tt.want != nil)
			}
		})
	}
}

func TestFanIsJudgedWithoutItsDuty(t *testing.T) {
	for _, fans := range []int{1, 2} {
		r := with(formula{name: "a", seed: 1, days: 110, how: func(d float64, s *state) { s.worn = max(d-50, 0) * 0.004 }}, func(_ float64, h *Hour) {
			if fans == 2 {
				h.V[RPM2] = Value(3600 * math.Pow(float64(h.V[PWM]), 0.85))
			}
			h.V[PWM], h.V[PWMSD] = Missing(), Missing()
		})
		if got := causes(r.Findings); !slices.Contains(got, CauseFanWear) {
			t.Errorf("%d fans: causes %v, want fan-wear", fans, got)
		}
	}
}

// TestFanThatIdlesSlowerIsNotWorn: in cool air it rests at a lower speed while
// the die is as warm; at work it turns as it did.
func TestFanThatIdlesSlowerIsNotWorn(t *testing.T) {
	r := with(formula{name: "a", seed: 1, days: 110}, func(d float64, h *Hour) {
		if h.V[PWM], h.V[PWMSD] = Missing(), Missing(); d > 60 && h.V[Die] < 44 {
			h.V[RPM1] *= 0.8
		}
	})
	if got := causes(r.Findings); slices.Contains(got, CauseFanWear) {
		t.Errorf("causes %v, want no worn fan", got)
	}
}

func TestSpreadOfAnyFanIsSeen(t *testing.T) {
	for fan, column := range []Field{RPMSD, RPMSD2, RPMSD3} {
		rng := rand.New(rand.NewPCG(3, 3))
		r := with(formula{name: "a", seed: 1, days: 100}, func(d float64, h *Hour) {
			for i := range 3 {
				h.V[int(RPM1)+i] = h.V[RPM1]
			}
			h.V[PWMSD] = 0.005
			for _, f := range []Field{RPMSD, RPMSD2, RPMSD3} {
				if h.V[f] = h.V[RPM1] * Value(0.01+0.001*rng.Float64()); f == column && d > 70 {
					h.V[f] *= 4
				}
			}
		})
		if len(r.Findings) != 1 || r.Findings[0].Family != fanNames[fan] || r.Findings[0].Cause != CauseFanWear {
			t.Errorf("%s swings: %+v", fanNames[fan], r.Findings)
		}
	}
}

func TestWeekendsAreNoVents(t *testing.T) {
	// Idle from Friday night on, and a share of the power that never reaches the
	// die: over ln load, ln R is no straight line.
	week := func(hour int) float64 {
		if d := hour / 24 % 7; d >= 5 || hour%24 < 7 || hour%24 > 18 {
			return 0.22
		}
		return 0.9
	}
	r := with(formula{name: "a", seed: 1, days: 120, load: week}, func(_ float64, h *Hour) {
		h.V[Power] += 15
		h.V[RPM1], h.V[PWM] = Missing(), Missing()
	})
	if got := causes(r.Findings); len(got) != 0 {
		t.Errorf("causes %v, want none", got)
	}
}

func TestSitesSayHowOftenToClean(t *testing.T) {
	var boxes []BoxDust
	for i := range 6 {
		boxes = append(boxes, BoxDust{"flour", 2.2 + 0.1*float64(i), 0.1}, BoxDust{"office", 0.3 + 0.01*float64(i), 0.1})
	}
	boxes = append(boxes, BoxDust{"new", 9, 8}, BoxDust{"", 50, 0.1}, BoxDust{"clean", 0, 0.05})
	got := map[string]SiteDust{}
	for _, s := range Dust(boxes) {
		got[s.Site] = s
	}
	if len(got) != 4 || got["flour"].FilterDays >= 90 || got["office"].FilterDays < 200 || got["clean"].FilterDays != filterMax {
		t.Errorf("%+v", got)
	}
	// One box that hardly knows anything is pulled half way to the fleet.
	if r := got["new"].Rate; r > 4.5 || r < 0.2 {
		t.Errorf("a site of one young box has rate %.2f, want half of what it says", r)
	}
}

func TestDustRateComesFromTheTimeBetweenCleanings(t *testing.T) {
	how := func(d float64, s *state) {
		if s.clog = ramp(d, 0, 90, 0.25); d > 90.4 {
			s.clog = ramp(d-90.4, 0, 90, 0.25)
		}
	}
	r := Replay(tableOf(formula{name: "a", seed: 2, days: 175, how: how}), nil, ReplayOptions{})
	// √0.125 of all the resistance in 90 days: the air is about half of it.
	if len(r.Dust) != 1 || r.Dust[0].Rate < 0.9 || r.Dust[0].Rate > 2.2 {
		t.Errorf("dust %+v, cleanings %+v; want one site of about 1.4 a year", r.Dust, r.Cleanings)
	}
}

// TestWarmSeasonIsNoDust: R goes with the warmth of the air, and summer comes
// after the box was learnt.
func TestWarmSeasonIsNoDust(t *testing.T) {
	for _, tt := range []struct {
		name string
		clog float64
		want []Cause
	}{{"summer", 0, nil}, {"summer and dust", 0.5, []Cause{CauseAirflow}}} {
		f := formula{name: "a", seed: 1, days: 120, how: func(d float64, s *state) { s.clog = ramp(d, 50, 60, tt.clog) }}
		r := with(f, func(d float64, h *Hour) {
			rise, warmer := float64(h.V[Die]-h.V[Inlet]), min(max(d-40, 0)/4, 12)
			h.V[Inlet] += Value(warmer)
			h.V[Board] += Value(warmer)
			h.V[Die] = h.V[Inlet] + Value(rise*math.Exp(0.005*(float64(h.V[Inlet])-22)))
		})
		if got := causes(r.Findings); !slices.Equal(got, tt.want) {
			t.Errorf("%s: causes %v, want %v; %+v", tt.name, got, tt.want, r.Boxes[0])
		}
	}
}

func TestForecastBelievesTheDaysThatDidNotThrottle(t *testing.T) {
	b := New("a", "s", "sku")
	for d := range int32(40) {
		b.Days = append(b.Days, Day{Day: d, R: Value(math.Log(1.1 + 0.0001*float64(d))), S7: Value(math.Log(1.1)), Need: 0.05, PerK: 0.02})
	}
	b.forecast()
	if b.Trend == nil || b.Trend.Mid < 10 {
		t.Errorf("%+v; by the sums it throttles since a month, yet it does not: want it to be no sooner than dust makes it", b.Trend)
	}
}

func TestTripIsLearntFromThrottledHours(t *testing.T) {
	var x trip
	if c, known := x.estimate(); known || c != defaultTrip {
		t.Errorf("nothing known: %v, %v", c, known)
	}
	x.Told = 88
	if c, known := x.estimate(); !known || c != 88 {
		t.Errorf("told: %v, %v", c, known)
	}
	for i := range 10 {
		h := Hour{V: Blank()}
		h.V[Die], h.V[Throttled] = Value(80+i/2), 0.2
		x.note(&h)
	}
	if c, known := x.estimate(); !known || c < 83 || c > 84 {
		t.Errorf("seen: %v, %v; want its upper hours", c, known)
	}
}

func TestForecastFollowsTheStorm(t *testing.T) {
	var days, quiet, storm []float64
	for d := -34.0; d <= 0; d++ {
		days, quiet = append(days, d), append(quiet, 0.05+0.001*(d+34))
		storm = append(storm, 0.05+0.04*max(d+5, 0))
	}
	needs := []need{{0.6, 0.02}, {0.7, 0.02}, {0.65, 0.02}}
	day := func(e []float64) float64 {
		return rank.Median(draw(rand.New(rand.NewPCG(1, 1)), fitFamilies(days, e), needs, outlook{trip: &trip{Told: 95}, borne: math.Inf(-1), spread: slopeSigma}))
	}
	if q, s := day(quiet), day(storm); q < 100 || s > 40 {
		t.Errorf("quiet dust throttles in %.0f days, a storm in %.0f; want over 100 and under 40", q, s)
	}
}
