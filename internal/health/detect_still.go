package health

import (
	"math"
)

// A sensor that stands still. One that never kept a value for two hours is
// stuck after ten. One with coarse steps rests in calm weather, in a room that
// is cooled well, far from the heat, and a month does not show for how long: it
// is stuck only when what it should show has moved meanwhile. That is known
// from the rest of the box: for the inlet by the die, for the others by die and
// air, each less what the clean box would have had at this load and airflow.
const (
	stillLeast  = 10 // hours
	stillKelvin = 0.02
	stillMoved  = 3.0 // K that the die moved meanwhile: the box was alive
	fineRest    = 2   // hours that a sensor of fine steps may rest
	fineStep    = 0.1 // K
	fineMoves   = 48  // seen before a sensor counts as fine
	coarseLeast = 24  // hours
	coarseTimes = 2.5 // times its longest rest that ended by itself
	longLeast   = 72  // beyond both of these, less must have moved if its hours' means were fine
	longTimes   = 5
	// Spread of what it should show over the rest: K, and over the usual spread
	// of its error.
	missedKelvin, missedTimes         = 1.0, 2.0
	missedKelvinLong, missedTimesLong = 0.4, 1.4
	missedSteps                       = 0.6
	missedTop                         = 4.0
	missedLeast                       = 12      // steady hours that say so
	restHours                         = 5 * 24  // memory of the spread in a rest,
	usualHours                        = 10 * 24 // of the usual one
	levelHours                        = 48      // and of the level about which they are taken
)

// stillSensors are watched so. The die has a rule of its own (watchStuck).
var stillSensors = [...]Field{Inlet, Board, NVMe, Exhaust}

// still follows one sensor.
type still struct {
	Value     Value
	Since     int64
	Hours     int
	Longest   int   // rest that ended by itself
	Step      Value // smallest move, K; 0: none was seen
	Moves     int
	Low, High Value // of the die in this rest
	Stuck     bool
	Ever      bool // it was stuck before
	Error     wander
}

// wander is how far what a sensor shows lies from what it should, K.
type wander struct {
	Known int     // steady hours
	Level float64 // moving mean
	Usual float64 // moving mean of the squares about it
	N     int     // steady hours of this rest
	Rest  float64 // their squares about it
}

func (w *wander) take(k float64, resting bool) {
	if w.Known == 0 {
		w.Level = k
	}
	d := k - w.Level
	w.Known++
	w.Level += d / float64(min(w.Known, levelHours))
	if !resting {
		w.Usual += (d*d - w.Usual) / float64(min(w.Known, usualHours))
	}
	w.N++
	// A leap is a blocked vent or a cleaning: it must not weigh for days.
	w.Rest += (min(d*d, missedTop*missedTop*max(w.Usual, 0.25)) - w.Rest) / float64(min(w.N, restHours))
}

// missed is the spread in this rest, and the usual one.
func (w *wander) missed() (rest, usual float64) { return math.Sqrt(w.Rest), math.Sqrt(w.Usual) }

// missedBy notes what sensor f of a steady hour should show, less what it does.
func (b *Box) missedBy(f Field, k float64) {
	for i, g := range stillSensors {
		if s := &b.Still[i]; g == f && k == k {
			s.Error.take(k, s.Hours >= stillLeast)
		}
	}
}

func (b *Box) watchStill(h *Hour) {
	for i, f := range stillSensors {
		v := h.V[f]
		if !v.OK() {
			continue
		}
		s := &b.Still[i]
		if moved := Value(math.Abs(float64(v - s.Value))); s.Hours == 0 || moved > stillKelvin {
			if s.Stuck && b.stillStuck() == 1 {
				b.close("sensors", h.Start+hourSeconds, "moves again")
			}
			s.moves(v, moved, h.Start)
		}
		s.Hours++
		if die := h.V[Die]; die.OK() {
			if !(s.Low <= die) {
				s.Low = die
			}
			if !(s.High >= die) {
				s.High = die
			}
		}
		if b.Base == nil || s.Stuck || !(s.High-s.Low > stillMoved) {
			continue
		}
		if why, stuck := s.stuck(b.Base.Provisional || b.has("step")); stuck {
			s.Stuck = true
			if f == Inlet {
				b.forgetSince(s.Since)
			}
			b.raise(Finding{Family: "sensors", Cause: CauseSensor, Confidence: 0.9, Level: Ticket, Since: Unix(s.Since), Evidence: []Evidence{
				fact(sensorNames[f]+"_c", v, "sensor-rests", "the %s sensor reads %.1f °C for %d hours; before it never rested longer than %d", sensorNames[f], float64(v), s.Hours, s.Longest),
				why,
			}}, h.Start+hourSeconds)
		}
	}
}

// moves ends a rest. How long it was is learnt if it ended by itself: one that
// was stuck leaps.
func (s *still) moves(v, moved Value, start int64) {
	if s.Hours > 0 {
		s.Moves++
		if !s.Stuck && (s.Step == 0 || s.Hours < stillLeast || moved < 1.5*s.Step || moved < 0.5) {
			s.Longest = max(s.Longest, s.Hours)
		}
		if s.Step == 0 || moved < s.Step {
			s.Step = moved
		}
	}
	e := s.Error
	e.N, e.Rest = 0, 0
	*s = still{Value: v, Since: start, Longest: s.Longest, Step: s.Step, Moves: s.Moves, Low: Missing(), High: Missing(), Ever: s.Ever || s.Stuck, Error: e}
}

func (s *still) stuck(unsure bool) (Evidence, bool) {
	if s.Moves >= fineMoves && s.Longest <= fineRest && s.Step < fineStep {
		return fact("die_moved_k", s.High-s.Low, "die-moved", "while the die moved by %.1f K", float64(s.High-s.Low)), s.Hours >= stillLeast
	}
	if unsure || s.Hours < max(coarseLeast, int(coarseTimes*float64(s.Longest))) || s.Error.N < missedLeast {
		return Evidence{}, false
	}
	kelvin, times := missedKelvin, missedTimes
	if s.Moves >= fineMoves && s.Step < fineStep && s.Hours >= max(longLeast, longTimes*s.Longest) {
		kelvin, times = missedKelvinLong, missedTimesLong
	}
	rest, usual := s.Error.missed()
	return fact("missed_k", Value(rest), "sensor-missed", "while what it should show varied by %.1f K, as the rest of the box tells; usually it is %.1f K off", rest, usual),
		rest > max(kelvin, times*usual, missedSteps*float64(s.Step))
}

var sensorNames = map[Field]string{Inlet: "inlet", Board: "board", NVMe: "NVMe", Exhaust: "exhaust"}

func (b *Box) stillStuck() int {
	n := 0
	for i := range b.Still {
		if b.Still[i].Stuck {
			n++
		}
	}
	return n
}

// distrust blanks what sensors say that stand still, so that no index is made
// from them: another reference steps in, or the hour says nothing.
func (b *Box) distrust(h *Hour) {
	for i, f := range stillSensors {
		if b.Still[i].Stuck {
			h.V[f] = Missing()
		}
	}
}
