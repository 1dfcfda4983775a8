package health

import (
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
)

// The forecast of the day on which a box will throttle. The rise of the
// resistance goes on along one of the families that dust follows; each coming
// day has the load and the air of one of the box's own last thirty. So hot
// spells and bursts decide the day, as they do in life.
const (
	defaultTrip = 95.0 // °C, when nobody said and it never throttled
	tripMargin  = 2.0  // K: hour means hide the peaks
	trendDays   = 35
	trendLeast  = 10
	loadDays    = 30
	horizon     = 365
	draws       = 300
)

// families of the trend: e^power grows in a straight line; 0 is ln e. On 53
// real runs of filter loading the straight line came out 3.4 times late at
// half of the life, ln e at 0.64 times; power 0.4 lay between.
var families = [...]struct {
	name   string
	power  float64
	weight float64
}{{"exponential", 0, 0.3}, {"power-0.4", 0.4, 0.5}, {"linear", 1, 0.2}}

// Forecast is when a box will throttle: 10, 50 and 90 % of the draws lie
// before Low, Mid and High.
type Forecast struct {
	Day   int32   `json:"day"` // Unix day on which it was made
	Low   float64 `json:"low"` // days
	Mid   float64 `json:"mid"`
	High  float64 `json:"high"` // 365: not within a year
	TripC float64 `json:"trip_c"`
	// TripKnown is false when 95 °C was assumed.
	TripKnown bool `json:"trip_known"`
	Days      int  `json:"days"` // that the trend was fitted to
}

func (b *Box) trip() float64 {
	if b.TripSeen.OK() {
		return float64(b.TripSeen)
	}
	return defaultTrip
}

// forecast is made for boxes whose resistance rises visibly.
func (b *Box) forecast() {
	b.Trend = nil
	last := &b.Days[len(b.Days)-1]
	if !(last.S7 > watchRise/2) {
		return
	}
	t, e := b.trend()
	needs := b.needs()
	if len(t) < trendLeast || len(needs) < 5 {
		return
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(b.Name))
	rng := rand.New(rand.NewPCG(h.Sum64(), uint64(last.Day)))
	days := draw(rng, fitFamilies(t, e), needs)
	b.Trend = &Forecast{
		Day: last.Day, Low: quantile(days, 0.1), Mid: quantile(days, 0.5), High: quantile(days, 0.9),
		TripC: b.trip(), TripKnown: b.TripSeen.OK(), Days: len(t),
	}
}

// trend are the days since the last cleaning, as relative rises.
func (b *Box) trend() (t, e []float64) {
	now := b.Days[len(b.Days)-1].Day
	for i := range b.Days {
		d := &b.Days[i]
		if d.R.OK() && d.Day >= b.CleanDay && now-d.Day < trendDays {
			t = append(t, float64(d.Day-now))
			e = append(e, math.Exp(float64(d.R))-1)
		}
	}
	return t, e
}

// needs are the rises at which the last days would have throttled.
func (b *Box) needs() []float64 {
	now := b.Days[len(b.Days)-1].Day
	var out []float64
	for i := range b.Days {
		if d := &b.Days[i]; d.Need.OK() && now-d.Day < loadDays {
			out = append(out, float64(d.Need))
		}
	}
	return out
}

// path is one family fitted to the days.
type path struct {
	line
	power, weight float64
}

// leastRiseRatio keeps roots and logarithms away from the noise about 0.
const leastRiseRatio = 0.01

func fitFamilies(t, e []float64) []path {
	var out []path
	for _, f := range families {
		y := make([]float64, len(e))
		for i, v := range e {
			y[i] = bent(max(v, leastRiseRatio), f.power)
		}
		if l := theilSen(t, y); l.at == l.at {
			out = append(out, path{l, f.power, f.weight})
		}
	}
	return out
}

// bent is a rise in the coordinates in which the family is a straight line; a
// rise of nothing or less is there already.
func bent(e, power float64) float64 {
	switch {
	case e <= 0:
		return math.Inf(-1)
	case power == 0:
		return math.Log(e)
	}
	return math.Pow(e, power)
}

// draw walks forward: a family by its weight, a slope out of the middle of the
// pairwise ones, and for each day one of the days that were.
func draw(rng *rand.Rand, paths []path, needs []float64) []float64 {
	if len(paths) == 0 {
		return []float64{horizon}
	}
	total := 0.0
	lines := make([][]float64, len(paths)) // the needs as each family sees them
	for i, p := range paths {
		total += p.weight
		for _, e := range needs {
			lines[i] = append(lines[i], bent(e, p.power))
		}
		slices.Sort(lines[i])
	}
	out := make([]float64, 0, draws)
	for range draws {
		pick := rng.Float64() * total
		k := 0
		for pick > paths[k].weight && k < len(paths)-1 {
			pick -= paths[k].weight
			k++
		}
		p := &paths[k]
		// The spread of pairwise slopes is far wider than that of their
		// median: about a third of it is left.
		q := 0.5 + (rng.Float64()-0.5)*0.35
		slope := p.slopes[int(q*float64(len(p.slopes)))]
		out = append(out, firstDay(rng, p.line.at, slope, lines[k]))
	}
	return out
}

// firstDay is the first day on which a line is above the need of a day drawn
// from those that were. Before it reaches the least of them nothing is drawn.
func firstDay(rng *rand.Rand, at, slope float64, needs []float64) float64 {
	day := 1.0
	if at+slope < needs[0] {
		if slope <= 0 {
			return horizon
		}
		day = math.Floor((needs[0] - at) / slope)
	}
	for ; day < horizon; day++ {
		if y := at + slope*day; y >= needs[0] && y >= needs[rng.IntN(len(needs))] {
			return max(day, 1)
		}
	}
	return horizon
}
