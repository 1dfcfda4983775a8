package govern

import (
	"fmt"
	"math"
	"time"
)

// The limits of the ladder. Its rungs are the variants of a model, the best
// first; a box that gets warm goes down a rung before its duty is cut, since a
// cheaper answer is worth more than none.
const (
	// StepBelowKelvin is the margin below which the box goes down a rung. It is
	// wider than ReducedBelowKelvin: the ladder acts first.
	StepBelowKelvin = 12.0
	// ClimbHysteresisKelvin must be won on top of StepBelowKelvin to climb. It
	// is wider than that of the duty, as a rung changes the load by more.
	ClimbHysteresisKelvin = 6.0
	// StepDwell is how long heat lasts before each rung: the heat sink needs
	// tens of seconds to show what the last one has saved.
	StepDwell = 20 * time.Second
	// ClimbDwell is how long the box has been cool before each rung upwards. It
	// bounds how often a box at the edge loads a model.
	ClimbDwell = 5 * time.Minute
)

// Ladder is kept between calls of Step, like State.
type Ladder struct {
	Rung      int       // 0 is the best variant
	HotSince  time.Time // when the margin began to ask for a lower rung; zero when it does not
	CoolSince time.Time // when it began to permit a higher one; zero when it does not
}

// Step takes one step; lowest is the lowest rung of any model. A die whose
// temperature is not known keeps its rung, unless it throttles.
func (l Ladder) Step(h Health, lowest int, now time.Time) (Ladder, string) {
	l.Rung = min(max(l.Rung, 0), max(lowest, 0))
	if l.HotSince.After(now) { // the clock was set back
		l.HotSince = time.Time{}
	}
	if l.CoolSince.After(now) {
		l.CoolSince = time.Time{}
	}
	hot, cool := h.asks()
	switch {
	case hot:
		l.CoolSince = time.Time{}
		if l.HotSince.IsZero() {
			l.HotSince = now
		}
		if now.Sub(l.HotSince) >= StepDwell {
			l.Rung, l.HotSince = min(l.Rung+1, max(lowest, 0)), now
		}
	case cool:
		l.HotSince = time.Time{}
		if l.CoolSince.IsZero() {
			l.CoolSince = now
		}
		if now.Sub(l.CoolSince) >= ClimbDwell {
			l.Rung, l.CoolSince = max(l.Rung-1, 0), now
		}
	default:
		l.HotSince, l.CoolSince = time.Time{}, time.Time{}
	}
	return l, l.reason(h)
}

// asks says whether the die is hot enough for a lower rung, or cool enough for
// a higher one.
func (h Health) asks() (hot, cool bool) {
	throttling := h.Throttling && h.ThrottlingKnown
	if !h.DieKnown || math.IsNaN(h.DieCelsius) || math.IsInf(h.DieCelsius, 0) {
		return throttling, false
	}
	margin := h.limit() - h.DieCelsius
	hot = throttling || margin < StepBelowKelvin
	return hot, !hot && margin >= StepBelowKelvin+ClimbHysteresisKelvin
}

func (l Ladder) reason(h Health) string {
	switch {
	case l.Rung == 0:
		return "the box is cool enough for the best variants"
	case !h.DieKnown:
		return "the box is or was hot, its temperature is not known now"
	}
	return fmt.Sprintf("the box is or was hot: die %.0f °C, limit %.0f °C", h.DieCelsius, h.limit())
}
