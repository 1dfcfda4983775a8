package health

import (
	"math"
	"slices"

	"github.com/edgeherd/edgeherd/internal/rank"
)

// medianAbs is the median distance from the median; v is changed.
func medianAbs(v []float64) float64 {
	m := rank.Median(v)
	for i := range v {
		v[i] = math.Abs(v[i] - m)
	}
	return rank.Median(v)
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
	slices.Sort(l.slopes)
	l.slope = rank.Median(l.slopes)
	off := make([]float64, len(t))
	for i := range t {
		off[i] = y[i] - l.slope*t[i]
	}
	l.at = rank.Median(off)
	return l
}
