package health

import (
	"math"
	"slices"

	"github.com/edgeherd/edgeherd/internal/rank"
)

// The sources that an index can be made from, best first.
const (
	RefInlet     = "inlet"     // the box's own sensor
	RefRoom      = "room"      // a sensor of the site
	RefNeighbour = "neighbour" // the inlet of boxes at the same site
	// What lies in the same air stands in for it where nothing else does: it
	// warms by a part of what the die does, so the difference still tells of dust.
	RefBoard     = "board"
	RefExhaust   = "exhaust"
	RefDrive     = "drive"
	RefNone      = "none" // slope within the day: wide errors
	LoadPower    = "power"
	LoadBusy     = "busy" // busy × clock stands in for the power
	LoadNone     = "none" // the load is not known at all
	AirRPM       = "rpm"  // mean of the fans that are fitted
	AirPWM       = "pwm"  // no tachometer: the duty
	AirNone      = "none" // fanless
	curveBins    = 20     // of duty, 5 % each
	curveLeast   = 3      // hours in a bin that count
	slopeAirLow  = -0.75  // d ln R / d ln rpm: steeper is the fan controller,
	slopeAirHigh = -0.25  // flatter is unseen ambient (closed loop)
	slopeLoadLow = -0.45  // d ln R / d ln P: buoyancy of a fanless case is −0.2
	slopeLoadTop = 0.6    // idle heat that the sensor sees and the die does not
	ridge        = 40     // hours that a shipped slope weighs
	huberK       = 1.345  // in σ
	madToSigma   = 1.4826 // of a normal distribution
	shippedCurve = 0.85   // d ln rpm / d ln duty
	shippedAir   = -0.36  // measured: Ryzen 4650G with NH-L9a, 39 power steps
	shippedLoad  = -0.05
	shippedStill = -0.2 // natural convection: T_die−T_amb ∝ P^0.8
)

// Slopes say how the resistance of a healthy box moves with airflow, load and
// the warmth of its air: d ln R / d ln rpm, d ln R / d ln P and d ln R / d T, 1/K.
type Slopes struct {
	Air  float64 `json:"air"`
	Load float64 `json:"load"`
	Warm float64 `json:"warm,omitempty"`
}

// Prior is what is known of a SKU before a box of it is: the slopes and the
// fan curve, pooled over its boxes, each with its own level taken away.
type Prior struct {
	SKU    string `json:"sku"`
	Boxes  int    `json:"boxes"` // 0: shipped, from no box of this SKU
	Air    string `json:"air"`
	Load   string `json:"load"`
	Ref    string `json:"ref,omitempty"` // board; empty: the air
	Slopes Slopes `json:"slopes"`
	// Sigma is the spread of one hour about the fit, as a ratio.
	Sigma float64 `json:"sigma"`
	// Curve is ln rpm at each 5 % of duty, less its own mean. Missing bins
	// were never seen.
	Curve [curveBins]Value `json:"curve"`
	Bound bool             `json:"bound"` // the slope hit its bound
}

// Shipped is the prior of a SKU that is new.
func Shipped(air, load string) Prior {
	p := Prior{Air: air, Load: load, Slopes: Slopes{Air: shippedAir, Load: shippedLoad}, Sigma: 0.03}
	if air == AirNone {
		p.Slopes = Slopes{Load: shippedStill}
	}
	if load == LoadNone {
		p.Slopes.Load, p.Sigma = 0, 0.15
	}
	for i := range p.Curve {
		// Speed follows duty less than in proportion: fan curves bend.
		p.Curve[i] = Value(shippedCurve * math.Log((float64(i)+0.5)/curveBins))
	}
	return p
}

// row is one steady hour of the learning window: y = ln R, x = ln airflow,
// p = ln load, w = °C of the air; 0 where no sensor is in it.
type row struct{ y, x, p, w float64 }

// FitPrior pools the learning hours of boxes of one SKU. boxes that were made
// from other sources than most are left out.
func FitPrior(sku string, boxes [][]Hour) Prior {
	kinds := make([]Basis, len(boxes))
	votes := map[[3]string]int{}
	for i, hours := range boxes {
		kinds[i] = basisOf(hours)
		if kinds[i].Ref != RefNone {
			votes[[3]string{kinds[i].Air, kinds[i].Load, kinds[i].class()}]++
		}
	}
	var most [3]string
	for k, n := range votes {
		if n > votes[most] || n == votes[most] && k[0]+k[1]+k[2] > most[0]+most[1]+most[2] {
			most = k
		}
	}
	if votes[most] == 0 {
		return Prior{SKU: sku, Curve: fitCurve(boxes)}
	}
	var groups [][]row
	for i, hours := range boxes {
		if kinds[i].Ref == RefNone || kinds[i].Air != most[0] || kinds[i].Load != most[1] || kinds[i].class() != most[2] {
			continue
		}
		if rows := kinds[i].rows(hours); len(rows) >= 24 {
			groups = append(groups, rows)
		}
	}
	p := Shipped(most[0], most[1])
	p.SKU, p.Boxes, p.Ref = sku, len(groups), most[2]
	p.Curve = fitCurve(boxes)
	if len(groups) > 0 {
		p.Slopes, p.Sigma, p.Bound = pooledHuber(groups, p)
		p.Slopes.Warm = warmSlope(groups, p.Slopes, 0, warmPull)
	}
	return p
}

// sums of a weighted regression of y on x and p.
type sums struct{ xx, xp, pp, xy, py float64 }

// pooledHuber fits one pair of slopes to all boxes, with the level of each box
// taken out by centring, pulled weakly to the shipped slopes. The air slope is
// bounded, since the fan controller answers to the temperature and unseen
// ambient bends it to 0; then the load slope is fitted again beside it.
func pooledHuber(groups [][]row, ship Prior) (Slopes, float64, bool) {
	weights := make([][]float64, len(groups))
	var n int
	for i, g := range groups {
		weights[i] = slices.Repeat([]float64{1}, len(g))
		n += len(g)
	}
	b, bound := ship.Slopes, false
	sigma := ship.Sigma
	residuals := make([]float64, 0, n)
	for range 8 {
		s := centredSums(groups, weights)
		b, bound = solveBounded(s, ship)
		residuals = residuals[:0]
		for _, g := range groups {
			residuals = appendResiduals(residuals, g, b)
		}
		sigma = max(madToSigma*medianAbs(slices.Clone(residuals)), 1e-4)
		k := 0
		for i := range groups {
			for j := range weights[i] {
				weights[i][j] = 1
				if a := math.Abs(residuals[k]) / sigma; a > huberK {
					weights[i][j] = huberK / a
				}
				k++
			}
		}
	}
	return b, sigma, bound
}

func centredSums(groups [][]row, weights [][]float64) sums {
	var s sums
	for i, g := range groups {
		var w, mx, mp, my float64
		for j, r := range g {
			v := weights[i][j]
			w, mx, mp, my = w+v, mx+v*r.x, mp+v*r.p, my+v*r.y
		}
		mx, mp, my = mx/w, mp/w, my/w
		for j, r := range g {
			v, x, p, y := weights[i][j], r.x-mx, r.p-mp, r.y-my
			s.xx, s.xp, s.pp = s.xx+v*x*x, s.xp+v*x*p, s.pp+v*p*p
			s.xy, s.py = s.xy+v*x*y, s.py+v*p*y
		}
	}
	return s
}

// solveBounded solves the two slopes. The pull has the strength of ridge hours
// with a spread of 10 % in speed and load.
func solveBounded(s sums, ship Prior) (Slopes, bool) {
	const pull = ridge * 0.1 * 0.1
	s.xx, s.pp = s.xx+pull, s.pp+pull
	s.xy, s.py = s.xy+pull*ship.Slopes.Air, s.py+pull*ship.Slopes.Load
	b, bound := ship.Slopes, false
	if ship.Air != AirNone {
		if det := s.xx*s.pp - s.xp*s.xp; det > 1e-9 {
			b.Air = (s.xy*s.pp - s.py*s.xp) / det
		}
		clamped := min(max(b.Air, slopeAirLow), slopeAirHigh)
		b.Air, bound = clamped, clamped != b.Air
	}
	b.Load = boundedLoad(s, b.Air, &ship)
	return b, bound
}

// boundedLoad is the load slope beside an air slope that is given.
func boundedLoad(s sums, air float64, prior *Prior) float64 {
	low, top := slopeLoadLow, slopeLoadTop
	switch prior.Load {
	case LoadNone:
		return prior.Slopes.Load
	case LoadBusy:
		low, top = -1, 1 // the proxy is only roughly in proportion
	}
	return min(max((s.py-air*s.xp)/s.pp, low), top)
}

func appendResiduals(out []float64, g []row, b Slopes) []float64 {
	from := len(out)
	for _, r := range g {
		out = append(out, r.y-b.Air*r.x-b.Load*r.p)
	}
	m := rank.Median(slices.Clone(out[from:]))
	for i := from; i < len(out); i++ {
		out[i] -= m
	}
	return out
}

// fitCurve pools ln rpm against duty over boxes and fans, each fan's own level
// taken away.
func fitCurve(boxes [][]Hour) [curveBins]Value {
	curve := Shipped(AirRPM, LoadPower).Curve
	known := curve
	for range 3 {
		var bins [curveBins][]float64
		for _, hours := range boxes {
			for fan := range Fans {
				level, ok := fanLevel(hours, fan, &curve)
				if !ok {
					continue
				}
				for i := range hours {
					if bin, ln, ok := fanPoint(&hours[i], fan); ok {
						// A bin is 5 % of duty wide: move each point to its middle.
						off := math.Log(float64(hours[i].V[PWM]) * curveBins / (float64(bin) + 0.5))
						bins[bin] = append(bins[bin], ln-level-shippedCurve*off)
					}
				}
			}
		}
		next := curve
		for i, b := range bins {
			next[i] = Missing()
			if len(b) >= curveLeast {
				next[i] = Value(rank.Median(b))
			}
		}
		known, curve = next, fillCurve(next, curve)
	}
	return known
}

// fillCurve gives missing bins the shape of another curve, moved to the
// nearest bin that is known.
func fillCurve(c, shape [curveBins]Value) [curveBins]Value {
	out := c
	for i := range c {
		if c[i].OK() {
			continue
		}
		best := -1
		for j := range c {
			if c[j].OK() && (best < 0 || abs(i-j) < abs(i-best)) {
				best = j
			}
		}
		out[i] = shape[i]
		if best >= 0 {
			out[i] = c[best] + shape[i] - shape[best]
		}
	}
	return out
}

// fanPoint is the duty bin and ln rpm of a fan in an hour in which it ran.
func fanPoint(h *Hour, fan int) (bin int, ln float64, ok bool) {
	rpm, pwm := float64(h.V[int(RPM1)+fan]), float64(h.V[PWM])
	if !(rpm >= 250 && pwm > 0.05) || h.V[PWMSD] >= steadyPWMSD {
		return 0, 0, false
	}
	return min(int(pwm*curveBins), curveBins-1), math.Log(rpm), true
}

// curveAt reads a curve between the middles of its bins; NaN at a duty that
// was never seen: a curve that is only guessed would make healthy fans worn.
func curveAt(c *[curveBins]Value, pwm float64) float64 {
	x := min(max(pwm*curveBins-0.5, 0), curveBins-1)
	i := min(int(x), curveBins-2)
	f := x - float64(i)
	low, high := float64(c[i]), float64(c[i+1])
	switch {
	case low == low && high == high:
		return low*(1-f) + high*f
	case f <= 0.5 && low == low:
		return low + shippedCurve*math.Log((x+0.5)/(float64(i)+0.5))
	case f >= 0.5 && high == high:
		return high + shippedCurve*math.Log((x+0.5)/(float64(i)+1.5))
	}
	return math.NaN()
}

// fanLevel is how far a fan's ln rpm lies above the curve.
func fanLevel(hours []Hour, fan int, curve *[curveBins]Value) (float64, bool) {
	devs := make([]float64, 0, len(hours))
	for i := range hours {
		if _, ln, ok := fanPoint(&hours[i], fan); ok {
			if at := curveAt(curve, float64(hours[i].V[PWM])); at == at {
				devs = append(devs, ln-at)
			}
		}
	}
	if len(devs) < 12 {
		return 0, false
	}
	return rank.Median(devs), true
}
