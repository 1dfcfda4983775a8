package health

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// start of all tests: 2026-01-01.
const t0 = 1767225600

// state is what a formula may change in a box's hour.
type state struct {
	clog, paste float64 // relative rise of the resistance of air and paste
	worn        float64 // relative loss of fan speed
	room        float64 // K warmer
	stuck       bool
	stopped     bool
	blank       []Field
}

// formula makes a box: a shop with hours of business, a fan that follows the
// die, resistance of a fixed and an airflow part. how says what happens.
type formula struct {
	name string
	seed uint64
	days int
	how  func(day float64, s *state)
	load func(hour int) float64 // relative power; nil: a shop
}

func (f formula) hours() []Hour {
	rng := rand.New(rand.NewPCG(f.seed, 7))
	die, last := 50.0, 0.0
	offset := rng.NormFloat64() * 0.03
	out := make([]Hour, 0, 24*f.days)
	for i := range 24 * f.days {
		var s state
		if f.how != nil {
			f.how(float64(i)/24, &s)
		}
		rel := 0.35 + 0.5*max(math.Sin(float64(i%24-6)/14*math.Pi), 0) + 0.05*rng.NormFloat64()
		if f.load != nil {
			rel = f.load(i)
		}
		p := 60 * max(rel, 0.2)
		ref := 22 + 2*math.Sin(float64(i%24)/24*2*math.Pi) + 0.5*rng.NormFloat64() + s.room
		pwm := min(max((die-35)/45, 0.2), 1)
		rpm := 3600 * math.Pow(pwm, 0.85) * (1 + offset) * (1 - s.worn) * (1 + 0.004*rng.NormFloat64())
		air := 0.30 * math.Sqrt(3000/rpm) * (1 + s.clog)
		die = ref + p*(0.25*(1+s.paste)+air)*(1+0.008*rng.NormFloat64())
		h := Hour{Start: t0 + int64(i)*hourSeconds, V: Blank(), Samples: 12, Period: 300}
		h.V[Die], h.V[Inlet], h.V[Power], h.V[PWM], h.V[RPM1] = Value(die), Value(ref), Value(p), Value(pwm), Value(rpm)
		h.V[Board] = Value(ref + p*0.45*air*(1+0.02*rng.NormFloat64()) + 2)
		h.V[PowerSD], h.V[PWMSD], h.V[RPMSD], h.V[Busy], h.V[Clock] = Value(p*0.08), 0.02, Value(rpm*0.01), Value(max(rel, 0.2)), 2e9
		if s.stuck {
			if last == 0 {
				last = die
			}
			h.V[Die] = Value(last)
		}
		if s.stopped {
			h.V[RPM1], h.Stopped[0] = 0, 12
		}
		for _, b := range s.blank {
			h.V[b] = Missing()
		}
		out = append(out, h)
	}
	return out
}

func tableOf(formulas ...formula) *Table {
	t := &Table{}
	for _, f := range formulas {
		s := &Series{Box: f.name, SKU: "sku", Site: "shop"}
		for _, h := range f.hours() {
			s.add(h)
		}
		t.Series = append(t.Series, s)
	}
	return t
}

func causes(fs []Finding) []Cause {
	var out []Cause
	for _, f := range fs {
		if f.Ticketed != 0 || f.Cause == CauseAmbient {
			out = append(out, f.Cause)
		}
	}
	return out
}

func ramp(day, from, over, top float64) float64 {
	x := max(day-from, 0) / over
	return top * x * x
}

// resting is how much warmer a room is whose cooling rests at week-ends; day 0
// is a Thursday.
func resting(day float64) float64 {
	if d := int(day) % 7; d == 2 || d == 3 {
		return 8
	}
	return 0
}

func TestEachCauseIsNamed(t *testing.T) {
	noWitness := []Field{Board}
	tests := []struct {
		name string
		how  func(day float64, s *state)
		want []Cause
	}{
		{"a clean box has no findings", nil, nil},
		{"a filter that clogs", func(d float64, s *state) { s.clog = ramp(d, 40, 60, 0.5) }, []Cause{CauseAirflow}},
		{"paste that dries", func(d float64, s *state) { s.paste = ramp(d, 40, 60, 0.8) }, []Cause{CausePaste}},
		{"a clog without a second sensor", func(d float64, s *state) { s.clog, s.blank = ramp(d, 40, 60, 0.5), noWitness }, []Cause{CauseAirflow}},
		{"paste without a second sensor", func(d float64, s *state) { s.paste, s.blank = ramp(d, 40, 60, 0.8), noWitness }, []Cause{CausePaste}},
		{"a vent that is blocked", func(d float64, s *state) {
			if d > 60.3 {
				s.clog = 1.2
			}
		}, []Cause{CauseVent}},
		{"a fan that wears", func(d float64, s *state) { s.worn = max(d-40, 0) * 0.003 }, []Cause{CauseFanWear}},
		{"a fan that wears while the sensor of the die sticks", func(d float64, s *state) { s.worn, s.stuck = max(d-40, 0)*0.003, d > 41 }, []Cause{CauseSensor, CauseFanWear}},
		{"a fan that stops", func(d float64, s *state) { s.stopped = d > 70.5 }, []Cause{CauseFanStop}},
		{"a sensor that sticks", func(d float64, s *state) { s.stuck = d > 60.3 && d < 62 }, []Cause{CauseSensor}},
		{"a room that gets hot", func(d float64, s *state) {
			if d > 60.3 && d < 61.5 {
				s.room = 9
			}
		}, []Cause{CauseAmbient}},
		{"a cooling that rests at week-ends", func(d float64, s *state) { s.room = resting(d) }, nil},
		{"one that rests at week-ends and fails on a Wednesday", func(d float64, s *state) {
			if s.room = resting(d); d > 62.3 && d < 63 {
				s.room = 9
			}
		}, []Cause{CauseAmbient}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			table := tableOf(formula{name: "a", seed: 1, days: 100, how: tt.how}, formula{name: "b", seed: 2, days: 100}, formula{name: "c", seed: 3, days: 100})
			r := Replay(table, nil, ReplayOptions{})
			if got := causes(r.Findings); !slices.Equal(got, tt.want) {
				t.Errorf("causes %v, want %v", got, tt.want)
				for _, f := range r.Findings {
					t.Logf("%+v", f)
				}
			}
			for _, f := range r.Findings {
				if f.Box != "a" {
					t.Errorf("healthy box %s has %s", f.Box, f.Cause)
				}
				if f.Confidence <= 0 || f.Confidence > 1 || len(f.Evidence) == 0 {
					t.Errorf("%s: confidence %v, evidence %v", f.Cause, f.Confidence, f.Evidence)
				}
			}
		})
	}
}

func TestCauseIsUndeterminedWithoutAnyWitness(t *testing.T) {
	always := func(int) float64 { return 0.7 }
	how := func(d float64, s *state) { s.clog, s.blank = ramp(d, 40, 60, 0.5), []Field{Board, RPM1, PWM} }
	r := Replay(tableOf(formula{name: "a", seed: 1, days: 100, how: how, load: always}), nil, ReplayOptions{})
	if got := causes(r.Findings); !slices.Equal(got, []Cause{CauseUndetermined}) {
		t.Errorf("causes %v, want undetermined: one load, no fan, no second sensor", got)
	}
}

func TestBoxesWithoutSensorsAreJudgedAllTheSame(t *testing.T) {
	clog := func(blank ...Field) func(float64, *state) {
		return func(d float64, s *state) { s.clog, s.blank = ramp(d, 40, 60, 1.2), blank }
	}
	clean := func(blank ...Field) func(float64, *state) {
		return func(_ float64, s *state) { s.blank = blank }
	}
	tests := []struct {
		name           string
		blank          []Field
		ref, load, air string
	}{
		{"all", nil, RefInlet, LoadPower, AirRPM},
		{"no tachometer", []Field{RPM1}, RefInlet, LoadPower, AirPWM},
		{"fanless", []Field{RPM1, PWM}, RefInlet, LoadPower, AirNone},
		{"no power", []Field{Power}, RefInlet, LoadBusy, AirRPM},
		{"no inlet", []Field{Inlet}, RefBoard, LoadPower, AirRPM},
		{"no inlet and no board", []Field{Inlet, Board}, RefNone, LoadPower, AirRPM},
		{"fanless without power", []Field{RPM1, PWM, Power}, RefInlet, LoadBusy, AirNone},
		{"neither power nor busy", []Field{Power, Busy}, RefInlet, LoadNone, AirRPM},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := Replay(tableOf(formula{name: "a", seed: 1, days: 110, how: clog(tt.blank...)}, formula{name: "b", seed: 2, days: 110, how: clean(tt.blank...)}), nil, ReplayOptions{})
			b := r.Boxes[0]
			if b.Reference != tt.ref || b.Load != tt.load || b.Airflow != tt.air {
				t.Errorf("made from %s, %s, %s; want %s, %s, %s", b.Reference, b.Load, b.Airflow, tt.ref, tt.load, tt.air)
			}
			if b.Health < Ticket {
				t.Errorf("clogged box is %v at %v %% (sigma %v %%)", b.Health, b.Resistance, b.Sigma)
			}
			if h := r.Boxes[1].Health; h != Healthy {
				t.Errorf("clean box is %v at %v %%", h, r.Boxes[1].Resistance)
			}
		})
	}
}

func TestNeighboursLendTheirInlet(t *testing.T) {
	none := func(_ float64, s *state) { s.blank = []Field{Inlet} }
	r := Replay(tableOf(formula{name: "a", seed: 1, days: 40, how: none}, formula{name: "b", seed: 2, days: 40}), nil, ReplayOptions{})
	if got := r.Boxes[0].Reference; got != RefNeighbour {
		t.Errorf("reference %s, want neighbour", got)
	}
}

func TestTwoHotBoxesAreTheRoom(t *testing.T) {
	hot := func(d float64, s *state) {
		if d > 60.3 && d < 61.5 {
			s.room = 9
		}
	}
	r := Replay(tableOf(formula{name: "a", seed: 1, days: 70, how: hot}, formula{name: "b", seed: 2, days: 70, how: hot}), nil, ReplayOptions{})
	if len(r.Incidents) != 1 || r.Incidents[0].Cause != CauseHVAC || len(r.Incidents[0].Boxes) != 2 {
		t.Fatalf("incidents %+v, want one of two boxes", r.Incidents)
	}
	if late := float64(r.Incidents[0].Opened)/daySeconds - t0/daySeconds - 60.3; late > 0.5 {
		t.Errorf("seen after %.1f days, want half a day at most", late)
	}
}

func TestCleaningIsRecognisedAndClosesTheTicket(t *testing.T) {
	how := func(d float64, s *state) {
		if s.clog = ramp(d, 35, 50, 0.5); d > 85.4 {
			s.clog = 0
		}
	}
	for _, logged := range []bool{false, true} {
		var changes []Change
		if logged {
			changes = []Change{{At: t0 + 85*daySeconds + 9*hourSeconds, Box: "a", Kind: Cleaned}}
		}
		r := Replay(tableOf(formula{name: "a", seed: 1, days: 110, how: how}), changes, ReplayOptions{})
		if len(r.Cleanings) != 1 || r.Cleanings[0].Logged != logged {
			t.Errorf("logged %v: cleanings %+v, want one", logged, r.Cleanings)
		}
		if len(r.Findings) != 1 || r.Findings[0].ClosedBy != "cleaned" || r.Boxes[0].Health != Healthy {
			t.Errorf("logged %v: findings %+v, health %v", logged, r.Findings, r.Boxes[0].Health)
		}
	}
}

func TestLoggedRolloutMakesNoTicket(t *testing.T) {
	how := func(d float64, s *state) {
		if d > 60.4 {
			s.paste = 0.2
		}
	}
	for _, logged := range []bool{false, true} {
		var changes []Change
		if logged {
			changes = []Change{{At: t0 + 60*daySeconds + 9*hourSeconds, Site: "shop", Kind: Rollout}}
		}
		r := Replay(tableOf(formula{name: "a", seed: 1, days: 100, how: how}), changes, ReplayOptions{})
		if got := len(r.Findings) > 0; got == logged {
			t.Errorf("logged %v: findings %v", logged, causes(r.Findings))
		}
	}
}

func TestForecastHoldsTheDay(t *testing.T) {
	held, n := 0, 0
	for seed := range uint64(8) {
		f := formula{name: "a", seed: seed, days: 140, how: func(d float64, s *state) { s.clog = ramp(d, 40, 60, 1.0) }}
		const trip = 78.0
		hours := f.hours()
		day := slices.IndexFunc(hours, func(h Hour) bool { return h.V[Die] > trip-tripMargin }) / 24
		r := Replay(tableOf(f), nil, ReplayOptions{TripC: trip})
		for _, x := range r.Findings {
			if x.AtTicket == nil || day <= 0 {
				continue
			}
			n++
			truth := float64(day) - float64(int64(x.AtTicket.Day)-t0/daySeconds)
			if x.AtTicket.Low <= truth && truth <= x.AtTicket.High {
				held++
			}
			t.Logf("seed %d: truth %.0f days, forecast %.0f %.0f %.0f", seed, truth, x.AtTicket.Low, x.AtTicket.Mid, x.AtTicket.High)
		}
	}
	if n < 6 || held*10 < n*6 {
		t.Errorf("%d of %d intervals held the day", held, n)
	}
}
