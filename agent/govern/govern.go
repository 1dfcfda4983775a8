// Package govern decides how much work a box may do while it is hot. It is
// pure: health and time in, permitted duty out; the runner obeys the duty.
//
// Vocabulary: the duty has four levels, full, reduced, minimal and paused. The
// margin is the limit of the die minus its temperature, in kelvin. Levels go
// down when the margin is small and up again only when it has grown by
// HysteresisKelvin more than it took to go down.
//
// The ladder goes down its rungs, the variants of models, before the duty falls
// (see Ladder).
//
// Rules: heat that lasts LowerDwell takes as many levels as the margin asks
// for; a die at its limit does so at once. Recovery takes one level at a time,
// each after the margin has been wide enough for RaiseDwell without a break, so
// the duty cannot flap faster than that. A temperature that is not known never
// raises the duty; one that was known and got lost lowers it to reduced.
//
// The one rule a caller can break: keep the State between calls and call Next
// (and Step) every sense period, also when nothing could be read.
package govern

import (
	"fmt"
	"math"
	"time"
)

// Level is how much the box may do.
type Level uint8

// The levels, in the order of falling duty.
const (
	Full Level = iota
	Reduced
	Minimal
	Paused
)

func (l Level) String() string {
	switch l {
	case Full:
		return "full"
	case Reduced:
		return "reduced"
	case Minimal:
		return "minimal"
	}
	return "paused"
}

// MaxRateRatio is the share of the box's normal rate that a level permits.
// Power falls less than the rate does (a box draws about half its power when
// idle), so the steps are wide.
func (l Level) MaxRateRatio() float64 {
	return [...]float64{Full: 1, Reduced: 0.6, Minimal: 0.25, Paused: 0}[min(l, Paused)]
}

// The limits of the rules.
const (
	ReducedBelowKelvin = 8.0 // margin below which the duty is reduced
	MinimalBelowKelvin = 4.0
	PausedBelowKelvin  = 0.0 // at the limit the hardware throttles anyway
	HysteresisKelvin   = 4.0

	// LowerDwell outlives one reading at the usual period of 10 s, so that a
	// single false reading costs nothing.
	LowerDwell = 10 * time.Second
	// RaiseDwell is longer than a heat sink takes to show a new load.
	RaiseDwell = 60 * time.Second
	// LostAfter is how long the last known temperature is trusted.
	LostAfter = 60 * time.Second

	// DefaultLimitCelsius holds where the box does not name its limit; common
	// dies throttle between 95 and 105 °C.
	DefaultLimitCelsius = 90.0
)

// Health is what one sense period found out.
type Health struct {
	DieCelsius      float64
	DieKnown        bool
	LimitCelsius    float64
	LimitKnown      bool // else DefaultLimitCelsius holds
	Throttling      bool
	ThrottlingKnown bool
}

// limit is that of the die, or the one that holds where it is not known.
func (h Health) limit() float64 {
	if !h.LimitKnown || math.IsNaN(h.LimitCelsius) || h.LimitCelsius <= 0 {
		return DefaultLimitCelsius
	}
	return h.LimitCelsius
}

// State is kept between calls. The zero State is a box that just started.
type State struct {
	Level     Level
	HotSince  [Paused + 1]time.Time // when the margin began to ask for each level or less; zero where it does not
	CoolSince [Paused + 1]time.Time // when it began to permit more than each level; zero where it does not
	SeenAt    time.Time             // last known temperature; zero when there never was one
}

// Duty is what the box may do now, and why.
type Duty struct {
	Level        Level
	MaxRateRatio float64 // 0 to 1, of the box's normal rate
	Reason       string
}

// Next takes one step.
func Next(s State, h Health, now time.Time) (State, Duty) {
	s = s.notAfter(now)
	if !h.DieKnown || math.IsNaN(h.DieCelsius) || math.IsInf(h.DieCelsius, 0) {
		return blind(s, h, now)
	}
	s.SeenAt = now
	limit := h.limit()
	margin := limit - h.DieCelsius
	throttling := h.Throttling && h.ThrottlingKnown
	lower, permitted := wanted(margin, throttling)
	lasting, since := s.hot(lower, now), s.cool(permitted, now)
	switch {
	case lower > s.Level:
		if margin <= PausedBelowKelvin {
			lasting = lower
		}
		s.Level = max(s.Level, lasting)
	case s.Level > Full && !since.IsZero() && now.Sub(since) >= RaiseDwell:
		s.Level--
		if since := &s.CoolSince[s.Level]; !since.IsZero() {
			*since = now // one level a dwell
		}
	}
	return s, duty(s.Level, reason(s.Level, h.DieCelsius, limit, throttling))
}

// hot notes which level is asked for, and returns the one that has been asked
// for as long as LowerDwell. Each level has a time of its own: with one for all, a
// box that was hot a little sooner would come later to the next level.
func (s *State) hot(lower Level, now time.Time) (lasting Level) {
	for l := Reduced; l <= Paused; l++ {
		switch since := &s.HotSince[l]; {
		case l > lower:
			*since = time.Time{}
		case since.IsZero():
			*since = now
		case now.Sub(*since) >= LowerDwell:
			lasting = l
		}
	}
	return lasting
}

// cool notes which levels the margin is wide enough to leave, those below
// permitted, and returns since when it has been for the present one.
func (s *State) cool(permitted Level, now time.Time) (since time.Time) {
	for l := Reduced; l <= Paused; l++ {
		if l <= permitted {
			s.CoolSince[l] = time.Time{}
		} else if s.CoolSince[l].IsZero() {
			s.CoolSince[l] = now
		}
	}
	return s.CoolSince[min(s.Level, Paused)]
}

// wanted says which level the margin asks for, and which it permits with the
// hysteresis: those that are lower may be left for it.
func wanted(margin float64, throttling bool) (lower, permitted Level) {
	lower, permitted = byMargin(margin), byMargin(margin-HysteresisKelvin)
	if throttling {
		lower, permitted = max(lower, Reduced), max(permitted, Reduced)
	}
	return lower, permitted
}

func byMargin(margin float64) Level {
	switch {
	case margin <= PausedBelowKelvin:
		return Paused
	case margin < MinimalBelowKelvin:
		return Minimal
	case margin < ReducedBelowKelvin:
		return Reduced
	}
	return Full
}

// blind is Next without a temperature. Throttling can still be seen.
func blind(s State, h Health, now time.Time) (State, Duty) {
	s.CoolSince = [Paused + 1]time.Time{}
	lost := !s.SeenAt.IsZero() && now.Sub(s.SeenAt) >= LostAfter
	throttling := h.Throttling && h.ThrottlingKnown
	if lost {
		s.Level = max(s.Level, Reduced)
	}
	asked := Full
	if throttling {
		asked = Reduced
	}
	s.Level = max(s.Level, s.hot(asked, now))
	switch {
	case throttling:
		return s, duty(s.Level, "throttling, die temperature unknown")
	case lost:
		return s, duty(s.Level, fmt.Sprintf("die temperature unknown for %s", now.Sub(s.SeenAt).Round(time.Second)))
	case s.SeenAt.IsZero():
		return s, duty(s.Level, "no die temperature sensor: heat is not governed")
	}
	return s, duty(s.Level, "die temperature unknown for a moment")
}

// notAfter forgets what lies in the future: after a step of the clock
// backwards the dwell times start afresh.
func (s State) notAfter(now time.Time) State {
	for l := range s.HotSince {
		if s.HotSince[l].After(now) {
			s.HotSince[l] = time.Time{}
		}
		if s.CoolSince[l].After(now) {
			s.CoolSince[l] = time.Time{}
		}
	}
	if s.SeenAt.After(now) {
		s.SeenAt = now
	}
	return s
}

func reason(level Level, die, limit float64, throttling bool) string {
	switch {
	case throttling:
		return fmt.Sprintf("throttling at %.0f °C, limit %.0f °C", die, limit)
	case level == Full:
		return fmt.Sprintf("die %.0f °C, limit %.0f °C", die, limit)
	}
	return fmt.Sprintf("die %.0f °C is or was close to its limit of %.0f °C", die, limit)
}

func duty(level Level, reason string) Duty {
	return Duty{Level: level, MaxRateRatio: level.MaxRateRatio(), Reason: reason}
}
