package health

import (
	"fmt"
	"math"
)

// A sensor that stands still: the same value for far longer than it ever kept
// one while the box was learnt. Sensors with coarse steps rest for hours; how
// long is theirs to show.
const (
	stillLeast  = 10  // hours
	stillTimes  = 2.5 // times its longest rest while it was learnt
	coarseRest  = 4   // hours that only a sensor of coarse steps rests
	coarseLeast = 72
	coarseTimes = 5
	stillKelvin = 0.02
	stillMoved  = 3.0 // K that the die moved meanwhile: the box was alive
)

// stillSensors are watched so. The die has a rule of its own (watchStuck).
var stillSensors = [...]Field{Inlet, Board, NVMe, Exhaust}

// still follows one sensor.
type still struct {
	Value     Value
	Since     int64
	Hours     int
	Longest   int // while the box was learnt
	Low, High Value
	Stuck     bool
	Ever      bool // it was stuck before
}

func (b *Box) watchStill(h *Hour) {
	for i, f := range stillSensors {
		v := h.V[f]
		if !v.OK() {
			continue
		}
		s := &b.Still[i]
		if s.Hours == 0 || math.Abs(float64(v-s.Value)) > stillKelvin {
			if s.Stuck && b.stillStuck() == 1 {
				b.close("sensors", h.Start+hourSeconds, "moves again")
			}
			if b.Base == nil || b.Base.Provisional {
				s.Longest = max(s.Longest, s.Hours)
			}
			*s = still{Value: v, Since: h.Start, Longest: s.Longest, Low: Missing(), High: Missing(), Ever: s.Ever || s.Stuck}
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
		limit := max(stillLeast, int(stillTimes*float64(s.Longest)))
		if s.Longest >= coarseRest {
			limit = max(coarseLeast, coarseTimes*s.Longest)
		}
		// A week does not show how long a coarse sensor may rest.
		unlearnt := b.Base == nil || b.Base.Provisional && s.Longest >= coarseRest
		if unlearnt || s.Stuck || s.Hours < limit || !(s.High-s.Low > stillMoved) {
			continue
		}
		s.Stuck = true
		if f == Inlet {
			b.forgetSince(s.Since)
		}
		b.raise(Finding{Family: "sensors", Cause: CauseSensor, Confidence: 0.9, Level: Ticket, Since: Unix(s.Since), Evidence: []Evidence{
			{sensorNames[f] + "_c", v, fmt.Sprintf("the %s sensor reads %.1f °C for %d hours; before it never rested longer than %d", sensorNames[f], float64(v), s.Hours, s.Longest)},
			{"die_moved_k", s.High - s.Low, fmt.Sprintf("while the die moved by %.1f K", float64(s.High-s.Low))},
		}}, h.Start+hourSeconds)
	}
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
