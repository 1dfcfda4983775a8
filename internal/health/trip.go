package health

import (
	"math"
	"math/rand/v2"
	"slices"

	"github.com/edgeherd/edgeherd/internal/rank"
)

// trip is what is known of the die temperature at which a box throttles.
type trip struct {
	Told float64 // by the operator, the SKU or the chip, °C; 0: not
	// Hot are the dies of the last hours in which it throttled: such an hour's
	// mean lies near the trip point, below it where only its peaks touched.
	Hot []Value `json:",omitempty"`
	Max Value   // the hottest hour in which it did not throttle
}

const (
	tripHours   = 24
	tripLeast   = 3    // throttled hours that say enough
	tripTouched = 0.01 // of the hour
	tripShare   = 0.8  // quantile of the hours that stands for the point
	tripMargin  = 1.0  // K: the box throttles before the mean of the hour is there
	tripLow     = 84.0 // °C: trip points of chips lie between
	tripHigh    = 100.0
)

func (t *trip) note(h *Hour) {
	die := h.V[Die]
	switch {
	case !die.OK():
	case h.V[Throttled] > tripTouched && die > 60:
		t.Hot = append(t.Hot, die)
		if len(t.Hot) > tripHours {
			t.Hot = slices.Delete(t.Hot, 0, len(t.Hot)-tripHours)
		}
	case h.V[Throttled] <= tripTouched && die > t.Max:
		t.Max = die
	}
}

// estimate is the best guess, and whether it rests on more than the middle of
// what chips have.
func (t *trip) estimate() (float64, bool) {
	if len(t.Hot) >= tripLeast {
		v := make([]float64, len(t.Hot))
		for i, die := range t.Hot {
			v[i] = float64(die)
		}
		return rank.Quantile(v, tripShare), true
	}
	if t.Told > 0 {
		return t.Told, true
	}
	return math.Max(defaultTrip, float64(t.Max)+1), false
}

// Limit is the die temperature, °C, at which the box throttles, and whether more
// than the middle of what chips have tells so.
func (b *Box) Limit() (celsius float64, known bool) { return b.Trip.estimate() }

// draw is one of the points that it may be, less the margin.
func (t *trip) draw(rng *rand.Rand) float64 {
	c, known := t.estimate()
	if !known {
		low := max(tripLow, float64(t.Max)+1)
		c = low + rng.Float64()*max(tripHigh-low, 2)
	}
	return c - tripMargin
}
