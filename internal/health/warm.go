package health

import (
	"slices"

	"github.com/edgeherd/edgeherd/internal/rank"
)

// A box that was learnt in winter is judged in summer. What airflow and load
// leave of ln R still goes with the warmth of the air, by some tenths of a
// percent a kelvin: leakage, natural convection, density, a slope of airflow
// that the fan controller bent. The days of the learning time differ enough to
// tell: in simulated healthy fleets most of what was learnt in four weeks was what
// the year showed.
const (
	warmPull = 160.0  // K²: 40 hours that lie 2 K off
	warmOwn  = 2000.0 // K²: the SKU's slope beside that of a box
	warmTop  = 0.008  // 1/K
	warmClip = 0.06   // of an hour's residual: what is further off has another cause
	// Days are warm when they are busy: of what four weeks say, the year kept
	// about 0.7 over the SKUs of simulated healthy fleets.
	warmKept = 0.7
)

// warmSlope of groups, each about its own means, pulled to one that is given.
func warmSlope(groups [][]row, s Slopes, to, pull float64) float64 {
	xx, xy := pull, pull*to
	for _, g := range groups {
		left, mean := appendResiduals(make([]float64, 0, len(g)), g, Slopes{Air: s.Air, Load: s.Load}), 0.0
		for i, r := range g {
			left[i] = min(max(left[i], -warmClip), warmClip)
			mean += r.w / float64(len(g))
		}
		mid := rank.Median(slices.Clone(left))
		for i, r := range g {
			xx, xy = xx+(r.w-mean)*(r.w-mean), xy+(r.w-mean)*(left[i]-mid)
		}
	}
	return min(max(xy/xx, -warmTop), warmTop)
}

// warmth is what the air adds to ln R.
func (base *Baseline) warmth(air float64) float64 {
	if base.Slopes.Warm == 0 {
		return 0
	}
	return warmKept * base.Slopes.Warm * (air - base.WarmAt)
}
