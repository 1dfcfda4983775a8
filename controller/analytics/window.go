package analytics

import (
	"math"
	"slices"
	"time"
)

// acc is a running mean.
type acc struct {
	N   int     `json:"n"`
	Sum float64 `json:"sum"`
}

func (a acc) add(v Value) acc {
	if v.Known {
		a.N++
		a.Sum += v.V
	}
	return a
}

func (a acc) mean() float64 { return a.Sum / float64(a.N) }

// bucket is one minute of samples.
type bucket struct {
	Start time.Time `json:"start"`
	Die   acc       `json:"die"`
	Inlet acc       `json:"inlet"`
	Power acc       `json:"power"`
	Fan   acc       `json:"fan"`
}

func (b bucket) add(x Sample) bucket {
	b.Die, b.Inlet = b.Die.add(x.Die), b.Inlet.add(x.Inlet)
	b.Power, b.Fan = b.Power.add(x.Power), b.Fan.add(x.FanRPM)
	return b
}

// judge says what a full window proves: its resistance and mean fan speed, or
// why it proves nothing.
func judge(window []bucket) (resistance float64, rpm Value, problem string) {
	var power, rise, fan []float64
	for _, b := range window {
		power = append(power, b.Power.mean())
		rise = append(rise, b.Die.mean()-b.Inlet.mean())
		if b.Fan.N > 0 {
			fan = append(fan, b.Fan.mean())
		}
	}
	watts, kelvin := mean(power), mean(rise)
	if !(watts >= minWatts && watts <= maxWatts && kelvin >= minRiseKelvin && kelvin < 120) {
		return 0, Value{}, reasonImplaus
	}
	if deviation(power) > steadyPower*watts {
		return 0, Value{}, reasonUnsteady
	}
	if len(fan) == len(window) {
		rpm = Value{V: mean(fan), Known: true}
		if deviation(fan) > steadyFan*rpm.V {
			return 0, Value{}, reasonUnsteady
		}
	}
	half := len(rise) / 2
	if half > 0 {
		drift := math.Abs(mean(rise[len(rise)-half:]) - mean(rise[:half]))
		if drift > max(settledKelvin, settledRatio*kelvin) {
			return 0, Value{}, reasonWarmup
		}
	}
	return kelvin / watts, rpm, ""
}

func mean(v []float64) float64 {
	sum := 0.0
	for _, x := range v {
		sum += x
	}
	return sum / float64(len(v))
}

func deviation(v []float64) float64 {
	m, sum := mean(v), 0.0
	for _, x := range v {
		sum += (x - m) * (x - m)
	}
	return math.Sqrt(sum / float64(len(v)))
}

// median of nothing is 0.
func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}
