package health

import (
	"hash/fnv"
	"math"
	"math/rand/v2"

	"github.com/edgeherd/edgeherd/internal/rank"
)

// The forecast of the day on which a box will throttle. The rise of the
// resistance goes on along one of the families that dust follows; each coming
// day has the load and the air of one of the box's own last thirty. So hot
// spells and bursts decide the day, as they do in life.
const (
	defaultTrip = 95.0 // °C, the middle of what chips have
	trendDays   = 35
	trendLeast  = 6
	loadDays    = 30
	horizon     = 365
	// forecastAgain days after the last one.
	forecastAgain = 7
	draws         = 300

	// What follows is calibrated on the simulated families dev0 to dev2, so that
	// on average 80 % of the first throttled days lie within Low and High of the
	// forecast that stood when the ticket was made and of those of the four
	// weeks after (144 and 604 of them, November 2026).

	// The spread of pairwise slopes is far wider than that of their median.
	slopeMiddle = 0.5
	slopeYoung  = 1.2 // more where the trend is young
	slopeSigma  = 0.3 // a slope is multiplied by exp(N(0, σ)): dust does not go on as it did
	// A storm, works next door, paste that lets go: where the last week rises
	// much faster than the trend, more than half of the draws follow the week.
	lateDays  = 7
	lateApart = 3
	lateRatio = 1.5
	lateShare = 0.55
	// The families disagree by more than days do: these quantiles of the draws
	// held 83 % of 857 first throttled days in fleets of dev0 to dev2 and five
	// variants that start in four seasons, 67 to 100 % of each.
	lowDraw, highDraw = 0.20, 0.94
	// The air of the coming season lies so far from that of the last month, 1 σ.
	seasonKelvin = 2.5
	seasonDays   = 60
)

// families of the trend: e^power grows in a straight line; 0 is ln e. On 53
// real runs of filter loading the straight line came out 3.4 times late at
// half of the life, ln e at 0.64 times; power 0.4 lay between.
var families = [...]struct {
	name   string
	power  float64
	weight float64
}{{"exponential", 0, 0.15}, {"power-0.4", 0.4, 0.4}, {"linear", 1, 0.45}}

// Forecast is when a box will throttle: of ten days to come, one lies before
// Low, five before Mid and nine before High.
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

// forecast is made for boxes whose resistance rises visibly: each day until
// there is a ticket, each week from then on.
func (b *Box) forecast() {
	last := &b.Days[len(b.Days)-1]
	if !(last.S7 > forecastRise) {
		b.Trend = nil
		return
	}
	if i := b.index("resistance"); b.Trend != nil && i >= 0 && b.Open[i].Level >= Ticket && last.Day-b.Trend.Day < forecastAgain {
		return
	}
	b.Trend = nil
	t, e := b.trend()
	needs := b.needs()
	if len(t) < trendLeast || len(needs) < 5 {
		return
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(b.Name))
	rng := rand.New(rand.NewPCG(h.Sum64(), uint64(last.Day)))
	days := draw(rng, fitFamilies(t, e), needs, outlook{trip: &b.Trip, borne: b.borne(), spread: slopeSpread(-t[0])})
	c, known := b.Trip.estimate()
	b.Trend = &Forecast{
		Day: last.Day, Low: rank.Quantile(days, lowDraw), Mid: rank.Quantile(days, 0.5), High: rank.Quantile(days, highDraw),
		TripC: c, TripKnown: known, Days: len(t),
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

// need is the rise at which a day would have throttled at 95 °C, and how much
// more it would have taken for each K above.
type need struct{ at, perK float64 }

func (b *Box) needs() []need {
	now := b.Days[len(b.Days)-1].Day
	var out []need
	for i := range b.Days {
		if d := &b.Days[i]; d.Need.OK() && now-d.Day < loadDays {
			out = append(out, need{float64(d.Need), float64(d.PerK)})
		}
	}
	return out
}

// borne is how far above 95 °C the box has shown that it works: a day that did
// not throttle had a need above its rise, whatever the sum of power, air and
// trip point says.
func (b *Box) borne() float64 {
	now := b.Days[len(b.Days)-1].Day
	most := math.Inf(-1)
	for i := range b.Days {
		d := &b.Days[i]
		if d.Need.OK() && d.R.OK() && d.Hot == 0 && now-d.Day < loadDays {
			most = max(most, (math.Exp(float64(d.R))-1-float64(d.Need))/float64(d.PerK))
		}
	}
	return most
}

// slopeSpread is the σ of a slope that was fitted to so many days: few of them
// may be a storm that is over tomorrow.
func slopeSpread(days float64) float64 {
	return slopeSigma + slopeYoung*(1-min(days, trendDays)/trendDays)
}

// outlook is what a draw needs to know beside trend and needs.
type outlook struct {
	trip   *trip
	borne  float64 // K
	spread float64 // of ln slope
}

// path is one family fitted to the days.
type path struct {
	line
	power, weight float64
}

// leastRiseRatio keeps roots and logarithms away from the noise about 0.
const leastRiseRatio = 0.01

func fitFamilies(t, e []float64) []path {
	late := 0
	for late < len(t) && t[late] <= -lateDays {
		late++
	}
	var out []path
	for _, f := range families {
		y := make([]float64, len(e))
		for i, v := range e {
			y[i] = bent(max(v, leastRiseRatio), f.power)
		}
		weight := f.weight
		trend, week := theilSen(t, y, 7), theilSen(t[late:], y[late:], lateApart)
		if week.at == week.at && (trend.at != trend.at || week.slope > lateRatio*trend.slope) {
			out = append(out, path{week, f.power, weight * lateShare})
			weight *= 1 - lateShare
		}
		if trend.at == trend.at {
			out = append(out, path{trend, f.power, weight})
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
// pairwise ones, a trip point where none is known, a season that makes the air
// warmer or colder, and for each day one of the days that were.
func draw(rng *rand.Rand, paths []path, needs []need, o outlook) []float64 {
	if len(paths) == 0 {
		return []float64{horizon}
	}
	total := 0.0
	for _, p := range paths {
		total += p.weight
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
		q := 0.5 + (rng.Float64()-0.5)*slopeMiddle
		w := walk{
			at: p.line.at, slope: p.slopes[int(q*float64(len(p.slopes)))] * math.Exp(o.spread*rng.NormFloat64()), power: p.power,
			above: max(o.trip.draw(rng)-defaultTrip, o.borne), drift: rng.NormFloat64() * seasonKelvin / seasonDays,
		}
		out = append(out, w.firstDay(rng, needs))
	}
	return out
}

// walk is one draw.
type walk struct{ at, slope, power, above, drift float64 }

// firstDay is the first day on which the walk is above the need of a day drawn
// from those that were. Before it can reach the least of them nothing is drawn.
func (w *walk) firstDay(rng *rand.Rand, needs []need) float64 {
	least := math.Inf(1)
	for _, n := range needs {
		least = min(least, n.at+n.perK*(w.above-math.Abs(w.drift)*seasonDays))
	}
	low, high := 1.0, float64(horizon)
	if w.rise(high) < least {
		return horizon
	}
	for low < high {
		if mid := math.Floor((low + high) / 2); w.rise(mid) >= least {
			high = mid
		} else {
			low = mid + 1
		}
	}
	for day := low; day < horizon; day++ {
		n := needs[rng.IntN(len(needs))]
		if w.rise(day) >= n.at+n.perK*(w.above-w.drift*min(day, seasonDays)) {
			return day
		}
	}
	return horizon
}

// rise on a day from now.
func (w *walk) rise(day float64) float64 {
	y := w.at + w.slope*day
	switch {
	case w.power == 0:
		return math.Exp(y)
	case y <= 0:
		return 0
	case w.power == 1:
		return y
	case w.power == 0.4:
		return y * y * math.Sqrt(y) // Pow would take a third of all time
	}
	return math.Pow(y, 1/w.power)
}
