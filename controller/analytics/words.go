package analytics

import (
	"fmt"
	"time"
)

// Health is how a box is now, in one word.
type Health string

// The words, the most urgent first. Thresholds:
//
//	throttling    the cooling state is above zero or the throttle count has
//	              grown, now or within the last 10 minutes
//	sensor-fault  the die is missing or outside -40 to 125 °C; or more than 5 K
//	              colder than the inlet; or has not moved by 0.05 K for 6 h
//	              while the power moved by 25 % and 5 W
//	warm          the die came within 10 K of its limit and is not yet 13 K away
//	ok            none of these
const (
	Throttling  Health = "throttling"
	SensorFault Health = "sensor-fault"
	Warm        Health = "warm"
	OK          Health = "ok"
)

const (
	throttlingHold = 10 * time.Minute
	warmKelvin     = 10.0
	coolKelvin     = 13.0
	colderKelvin   = 5.0
	stuckKelvin    = 0.05
	stuckAfter     = 6 * time.Hour
	stuckRatio     = 0.25
	stuckWatts     = 5.0
)

// words is the memory behind the words.
type words struct {
	Throttled time.Time `json:"throttled"` // last evidence
	Count     Value     `json:"count"`     // last throttle count
	Warm      bool      `json:"warm,omitempty"`

	// The run of buckets over which the die has not moved.
	RunSince time.Time `json:"run_since"`
	RunDie   float64   `json:"run_die,omitempty"`
	RunMin   float64   `json:"run_min,omitempty"` // W
	RunMax   float64   `json:"run_max,omitempty"` // W
	Stuck    bool      `json:"stuck,omitempty"`
}

func (w words) next(x Sample, limit float64) words {
	if x.CoolingState.Known && x.CoolingState.V > 0 {
		w.Throttled = x.At
	}
	if x.ThrottleCount.Known {
		// A smaller count is a reboot, and what was counted since then is news too.
		grown := x.ThrottleCount.V > w.Count.V || x.ThrottleCount.V < w.Count.V && x.ThrottleCount.V > 0
		if w.Count.Known && grown {
			w.Throttled = x.At
		}
		w.Count = x.ThrottleCount
	}
	if x.Die.Known {
		away := coolKelvin
		if !w.Warm {
			away = warmKelvin
		}
		w.Warm = x.Die.V >= limit-away
	}
	return w
}

// bucket follows the die over closed buckets, whose means hide the noise of
// the power reading.
func (w words) bucket(b bucket, at time.Time) words {
	if b.Die.N == 0 || b.Power.N == 0 {
		return w
	}
	die, power := b.Die.mean(), b.Power.mean()
	if moved := die - w.RunDie; w.RunSince.IsZero() || moved > stuckKelvin || moved < -stuckKelvin {
		w.RunSince, w.RunDie, w.RunMin, w.RunMax, w.Stuck = at, die, power, power, false
		return w
	}
	w.RunMin, w.RunMax = min(w.RunMin, power), max(w.RunMax, power)
	swing := w.RunMax - w.RunMin
	w.Stuck = at.Sub(w.RunSince) >= stuckAfter && swing >= stuckWatts && swing >= stuckRatio*(w.RunMax+w.RunMin)/2
	return w
}

func (w words) verdict(x Sample, limit float64) (Health, string) {
	switch {
	case !w.Throttled.IsZero() && x.At.Sub(w.Throttled) < throttlingHold:
		return Throttling, "the box slowed itself down because of heat or power"
	case !x.Die.Known:
		return SensorFault, reasonNoDie
	case x.Die.V <= -40 || x.Die.V > 125:
		return SensorFault, fmt.Sprintf("die says %.0f °C", x.Die.V)
	case x.Inlet.Known && x.Die.V < x.Inlet.V-colderKelvin:
		return SensorFault, fmt.Sprintf("die %.0f °C, colder than the inlet at %.0f °C", x.Die.V, x.Inlet.V)
	case w.Stuck:
		return SensorFault, fmt.Sprintf("die stands at %.0f °C although the power changes", x.Die.V)
	case w.Warm:
		return Warm, fmt.Sprintf("die %.0f °C, limit %.0f °C", x.Die.V, limit)
	}
	return OK, ""
}
