package health

import (
	"math"
	"slices"
)

// median sorts v and returns its middle; NaN when it is empty.
func median(v []float64) float64 { return quantile(v, 0.5) }

// quantile sorts v and reads between its values.
func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	slices.Sort(v)
	x := q * float64(len(v)-1)
	i := min(int(x), len(v)-1)
	if i == len(v)-1 {
		return v[i]
	}
	f := x - float64(i)
	return v[i]*(1-f) + v[i+1]*f
}

// medianAbs is the median distance from the median; v is changed.
func medianAbs(v []float64) float64 {
	m := median(v)
	for i := range v {
		v[i] = math.Abs(v[i] - m)
	}
	return median(v)
}

func abs(i int) int { return max(i, -i) }

// line is the Theil–Sen line through points, with all pairwise slopes sorted:
// their spread is how far the slope can be trusted.
type line struct {
	at, slope float64
	slopes    []float64
}

// theilSen fits y over t with pairs that lie apart: neighbouring days are
// mostly noise. at is the height at t = 0.
func theilSen(t, y []float64, apart float64) line {
	var l line
	for i := range t {
		for j := i + 1; j < len(t); j++ {
			if t[j]-t[i] >= apart {
				l.slopes = append(l.slopes, (y[j]-y[i])/(t[j]-t[i]))
			}
		}
	}
	if len(l.slopes) == 0 {
		return line{at: math.NaN()}
	}
	l.slope = median(l.slopes)
	off := make([]float64, len(t))
	for i := range t {
		off[i] = y[i] - l.slope*t[i]
	}
	l.at = median(off)
	return l
}
