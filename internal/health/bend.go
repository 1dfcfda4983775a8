package health

import (
	"cmp"
	"math"
	"slices"

	"github.com/edgeherd/edgeherd/internal/rank"
)

// bend is what a straight slope over ln load leaves: a box knows few loads,
// idle and busy, and between them R is no straight line. At each knot stands
// the median of what was left there; few hours say little and are shrunk.
type bend struct{ Load, Off [bendKnots]float64 }

const (
	bendKnots  = 5
	bendShrink = 8 // hours that a straight line weighs
)

// ownSlopes bends the slopes of the SKU to a box's own hours. Its air slope is
// not its own to find, since the fan controller answers to the temperature;
// its load slope is: what the power sensor sees differs from box to box.
func ownSlopes(rows []row, prior *Prior) Slopes {
	if len(rows) < leastLearn {
		return prior.Slopes
	}
	weights := slices.Repeat([]float64{1}, len(rows))
	own := *prior
	for range 5 {
		s := centredSums([][]row{rows}, [][]float64{weights})
		b, _ := solveBounded(s, *prior)
		if prior.Boxes > 0 {
			b.Air = prior.Slopes.Air
			b.Load = boundedLoad(s, b.Air, prior)
		}
		own.Slopes = b
		left := appendResiduals(nil, rows, b)
		sigma := max(madToSigma*medianAbs(slices.Clone(left)), 1e-4)
		for i, v := range left {
			weights[i] = 1
			if a := math.Abs(v) / sigma; a > huberK {
				weights[i] = huberK / a
			}
		}
	}
	own.Slopes.Warm = warmSlope([][]row{rows}, own.Slopes, prior.Slopes.Warm, warmOwn)
	return own.Slopes
}

func learnBend(rows []row, slopes Slopes) bend {
	var b bend
	if len(rows) < leastLearn {
		return b
	}
	rows = slices.Clone(rows)
	slices.SortFunc(rows, func(a, b row) int { return cmp.Compare(a.p, b.p) })
	left := make([]float64, len(rows))
	for i, r := range rows {
		left[i] = r.y - slopes.Air*r.x - slopes.Load*r.p
	}
	mid := rank.Median(slices.Clone(left))
	for k := range bendKnots {
		from, to := k*len(rows)/bendKnots, (k+1)*len(rows)/bendKnots
		var loads []float64
		for _, r := range rows[from:to] {
			loads = append(loads, r.p)
		}
		n := float64(to - from)
		b.Load[k] = rank.Median(loads)
		b.Off[k] = (rank.Median(slices.Clone(left[from:to])) - mid) * n / (n + bendShrink)
	}
	return b
}

// at reads the bend between its knots, and flat beyond.
func (b *bend) at(load float64) float64 {
	if load != load || load <= b.Load[0] {
		return b.Off[0]
	}
	for k := 1; k < bendKnots; k++ {
		if load <= b.Load[k] {
			f := (load - b.Load[k-1]) / (b.Load[k] - b.Load[k-1])
			return b.Off[k-1]*(1-f) + b.Off[k]*f
		}
	}
	return b.Off[bendKnots-1]
}
