package care

import (
	"math"
	"slices"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/health"
)

// Warmth gathers from the hours of a box how warm its work makes it.
type Warmth struct {
	Last []WarmHour `json:"last,omitempty"` // of a day, oldest first
	// Usual is the die, °C, in each hour of the UTC day: a mean in which a day
	// weighs a fifth, so that a week is remembered.
	Usual [24]float64 `json:"usual"`
	Known [24]bool    `json:"known"`
}

// WarmHour is one hour of a Warmth. A 0 is not known.
type WarmHour struct {
	Start         int64   `json:"start"` // Unix seconds
	Die           float64 `json:"die"`   // °C
	Watts         float64 `json:"watts,omitempty"`
	KelvinPerWatt float64 `json:"kelvin_per_watt,omitempty"`
}

const (
	daySeconds   = 86400
	newDay       = 0.2 // weight of a day in what is usual
	leastWatts   = 1   // below that a resistance is a quotient of noise
	leastDieHigh = 1.0 // K above the air: below that too
	coolWithin   = 1.0 // K above the coolest hour of the day: as cool
	knownHours   = 18  // of the day, before its coolest ones can be told
)

// Take adds an hour. A second summary of one that is known changes nothing.
func (w *Warmth) Take(h *health.Hour) {
	die := float64(h.V[health.Die])
	if n := len(w.Last); n > 0 && h.Start <= w.Last[n-1].Start || math.IsNaN(die) {
		return
	}
	hour := WarmHour{Start: h.Start, Die: die}
	if p := float64(h.V[health.Power]); p >= leastWatts {
		hour.Watts = p
		for _, f := range []health.Field{health.Inlet, health.Room, health.Neighbour} {
			if !h.V[f].OK() {
				continue
			}
			if rise := die - float64(h.V[f]); rise >= leastDieHigh {
				hour.KelvinPerWatt = rise / p
			}
			break
		}
	}
	w.Last = append(w.Last, hour)
	w.Last = slices.DeleteFunc(w.Last, func(old WarmHour) bool { return old.Start <= h.Start-daySeconds })
	at := h.Start % daySeconds / 3600
	if !w.Known[at] {
		w.Usual[at] = die
	}
	w.Usual[at] += newDay * (die - w.Usual[at])
	w.Known[at] = true
}

// Cooling sums up what was taken, in steps that are worth a look; limit is the
// die temperature at which the box throttles. Nil: nothing was taken.
func (w *Warmth) Cooling(limit float64, known bool) *fleetapi.Cooling {
	if len(w.Last) == 0 {
		return nil
	}
	all := func(of func(WarmHour) float64) (out []float64) {
		for _, h := range w.Last {
			if v := of(h); v > 0 {
				out = append(out, v)
			}
		}
		slices.Sort(out)
		return out
	}
	dies, watts := all(func(h WarmHour) float64 { return h.Die }), all(func(h WarmHour) float64 { return h.Watts })
	per := all(func(h WarmHour) float64 { return h.KelvinPerWatt })
	return &fleetapi.Cooling{
		KelvinPerWatt: rounded(quantile(per, 0.5), 0.02), HotCelsius: rounded(quantile(dies, 0.95), 1), Watts: rounded(quantile(watts, 0.5), 1),
		LimitCelsius: rounded(limit, 1), LimitAssumed: !known, CoolHours: w.cool(),
	}
}

// cool lists the hours of the UTC day in which the die is usually coolest.
func (w *Warmth) cool() (hours [24]bool) {
	n, least := 0, math.Inf(1)
	for i, die := range w.Usual {
		if w.Known[i] {
			n, least = n+1, min(least, die)
		}
	}
	if n < knownHours {
		return hours
	}
	for i, die := range w.Usual {
		hours[i] = w.Known[i] && die <= least+coolWithin
	}
	return hours
}

// quantile of sorted values; 0: there are none.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[int(math.Round(q*float64(len(sorted)-1)))]
}

func rounded(v, step float64) float64 { return math.Round(v/step) * step }
