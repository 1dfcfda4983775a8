package health

import (
	"math"
	"slices"
)

// A stuck die sensor: the same value for six hours while the load moved so far
// that it must have changed. What is measured then and in the days after says
// nothing.
const (
	stuckHours  = 6
	stuckLoad   = 1.08
	stuckKelvin = 2.0
	// Fans that hold the die at a point let it rest while the load moves.
	stuckExpected = 3.5 // K
	stuckAfter    = 8   // days without slow and step findings
	lyingKelvin   = 1.0
)

type stuckState struct {
	Value     Value
	Since     int64
	Hours     int
	Longest   int     // while the box was learnt
	Low, High float64 // load; 0: unknown
	Cold, Hot Value   // the die that load, airflow and air make expect, °C
	Last      int32   // day on which it was last seen stuck; 0: never
}

func (b *Box) stuck() bool { return b.has("sensor") }

// stuckLately: what was measured before it was noticed still weighs.
func (b *Box) stuckLately(day int32) bool {
	return b.Stuck.Last != 0 && day-b.Stuck.Last <= stuckAfter
}

func (b *Box) watchStuck(h *Hour) {
	die := h.V[Die]
	if !die.OK() {
		return
	}
	s := &b.Stuck
	load := float64(h.V[Power])
	if load != load {
		load = 0.25 + 0.75*float64(h.V[Busy])
	}
	if s.Hours == 0 || math.Abs(float64(die-s.Value)) > 0.05 {
		if b.Base == nil || b.Base.Provisional {
			s.Longest = max(s.Longest, s.Hours)
		}
		*s = stuckState{Value: die, Since: h.Start, Last: s.Last, Longest: s.Longest, Cold: Missing(), Hot: Missing()}
	}
	s.Hours++
	switch {
	case load != load: // no power, no busy
	case s.Low == 0:
		s.Low, s.High = load, load
	default:
		s.Low, s.High = min(s.Low, load), max(s.High, load)
	}
	s.expect(b, h)
	rise := 30.0
	if b.Base != nil && b.Base.Rise > 0 {
		rise = b.Base.Rise
	}
	b.watchLying(h)
	moved := s.High / s.Low
	// What busy and clock say of the load is rough.
	sure := stuckKelvin
	if !h.V[Power].OK() {
		sure *= 3
	}
	least := max(stuckHours, 2*s.Longest)
	if b.Base == nil || b.Base.Provisional { // how long it rests is not known yet
		least, sure = 2*least, 2*sure
	}
	if s.Hours >= least && moved > stuckLoad && rise*math.Log(moved) > sure && !(s.Hot-s.Cold < stuckExpected) {
		s.Last = h.day()
		b.forgetSince(s.Since)
		b.raise(Finding{Family: "sensor", Cause: CauseSensor, Confidence: 0.95, Level: Ticket, Since: Unix(s.Since), Evidence: []Evidence{
			fact("die_c", die, "die-rests", "the die reads %.1f °C for %d hours", float64(die), s.Hours),
			fact("load_ratio", Value(moved), "load-moved", "while the load moved by %.0f %%, worth %.1f K", 100*(moved-1), rise*math.Log(moved)),
		}}, h.Start+hourSeconds)
		return
	}
	if s.Hours == 1 && b.Lying == 0 {
		b.close("sensor", h.Start+hourSeconds, "moves again")
	}
}

// expect widens what the die should have shown in this rest.
func (s *stuckState) expect(b *Box, h *Hour) {
	if b.Base == nil || !b.Basis.outer() {
		return
	}
	v := Value(b.Basis.reference(h) + b.Base.predicted(b.Basis.load(h), b.Basis.air(h)))
	if !v.OK() {
		return
	}
	if !(s.Cold <= v) {
		s.Cold = v
	}
	if !(s.Hot >= v) {
		s.Hot = v
	}
}

// watchLying: a die that works cannot be colder than the air it is cooled by.
func (b *Box) watchLying(h *Hour) {
	below := h.V[Inlet] - h.V[Die]
	if b.Base == nil || b.Base.Provisional { // sensors that disagree from the first day on
		if below > b.Below {
			b.Below = below
		}
		return
	}
	if !(below > b.Below+lyingKelvin) {
		b.Lying = 0
		return
	}
	if b.Lying++; b.Lying < stuckHours {
		return
	}
	b.Stuck.Last = h.day()
	b.raise(Finding{Family: "sensor", Cause: CauseSensor, Confidence: 0.9, Level: Ticket, Since: Unix(h.Start - int64(b.Lying-1)*hourSeconds), Evidence: []Evidence{
		fact("below_inlet_k", below, "die-below-inlet", "the die reads %.1f K below the inlet for %d hours: one of the two is wrong", float64(below), b.Lying),
	}}, h.Start+hourSeconds)
}

// forgetSince drops what a stuck sensor has already put into the day.
func (b *Box) forgetSince(since int64) {
	b.Recent = slices.DeleteFunc(b.Recent, func(m moment) bool { return m.Start >= since })
	b.Airs = slices.DeleteFunc(b.Airs, func(m implied) bool { return m.Start >= since })
	b.Learn = slices.DeleteFunc(b.Learn, func(h Hour) bool { return h.Start >= since })
	b.Today.R, b.Today.DieK, b.Today.Steady = b.Today.R[:0], b.Today.DieK[:0], b.Today.Steady[:0]
}
