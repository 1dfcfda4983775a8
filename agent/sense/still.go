package sense

import "time"

// A sensor that says the same for a day while the die goes up and down by
// stillSwing is a constant of the firmware. Only sensors without a role are
// judged: a room at one coarse degree may well stand still, and what a role's
// sensor does wrong is for package health to tell.
const (
	stillAfter = 24 * time.Hour
	stillSwing = 15.0 // °C
)

// stillness is what is remembered of one sensor.
type stillness struct {
	value   float64
	since   time.Time
	lo, hi  float64 // of the die, since then
	dieSeen bool
}

// constant notes a value and tells whether it is one that never changes. It
// tells so for as long as it does not move.
func (w *stillness) constant(v float64, die *float64, now time.Time) bool {
	if w.since.IsZero() || v != w.value {
		*w = stillness{value: v, since: now}
	}
	if die == nil {
		return false
	}
	if !w.dieSeen {
		w.lo, w.hi, w.dieSeen = *die, *die, true
	}
	w.lo, w.hi = min(w.lo, *die), max(w.hi, *die)
	return now.Sub(w.since) >= stillAfter && w.hi-w.lo >= stillSwing
}
