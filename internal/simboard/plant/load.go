package plant

import (
	"math"
	"math/rand/v2"
	"time"
)

// load is what a box is asked to do: a weekly pattern with noise and bursts.
type load struct {
	pattern string
	period  int     // hours from batch to batch
	run     int     // hours of a batch
	growth  float64 // relative, per year
	low     float64 // utilisation when closed
	high    float64 // when open
	open    int     // hour of the day
	close   int
	sunday  bool
	bursts  float64 // share of quarter hours
	jitter  float64 // sd within a quarter hour, of the dynamic power
	noise   stream
}

func drawLoad(f *recipe, r *rand.Rand, bursty float64, seed uint64) load {
	l := load{
		pattern: pick(r, f.Structure[loadPattern]),
		low:     0.03 + 0.15*r.Float64(), high: 0.5 + 0.4*r.Float64(), open: 7 + r.IntN(3), close: 18 + r.IntN(5),
		sunday: r.Float64() < 0.4, bursts: f.Spans[burst].draw(r) * bursty, jitter: f.Spans[jitter].draw(r),
		noise: streamOf(seed, "load"),
	}
	more := streamOf(seed, "more load").rng()
	l.growth = f.extra(loadGrowth, more)
	l.period = []int{4, 6, 8, 12}[more.IntN(4)]
	l.run = 1 + more.IntN(l.period/2)
	return l
}

// week is the utilisation expected in an hour of the local week.
func (l *load) week(t time.Time) float64 {
	hour, day := t.Hour(), t.Weekday()
	in := hour >= l.open && hour < l.close
	switch l.pattern {
	case "always":
		return l.high * (0.85 + 0.15*math.Sin(float64(hour-9)*math.Pi/12))
	case "night":
		in = hour < l.open-2 || hour >= l.close+1
	case "batch": // jobs by the clock, day and night
		in = (hour+l.open)%l.period < l.run
	case "traffic": // cameras at a road: two peaks on working days, never quite still
		u := l.low + (l.high-l.low)*(0.25+0.5*math.Sin(float64(hour-6)*math.Pi/18))
		if hour < 6 {
			u = l.low
		}
		if peak := hour >= 7 && hour < 9 || hour >= 16 && hour < 19; peak && day != time.Saturday && day != time.Sunday {
			u = l.high
		}
		return u
	case "clinic": // consultation before and after noon, and on Saturday morning
		in = day != time.Sunday && hour >= 8 && hour < 12 || day != time.Sunday && day != time.Saturday && hour >= 14 && hour < 18
	case "bakery": // trays are inspected while it bakes, then customers are counted
		if in && (l.sunday || day != time.Sunday) {
			return 0.7 * l.high
		}
		in = hour >= 2 && hour < 10 && day != time.Sunday
	case "shifts": // two of them, on six days, with less to do in the breaks
		in = hour >= 5 && hour < 22 && day != time.Sunday
		if in && (hour == 9 || hour == 13 || hour == 18) {
			return 0.6 * l.high
		}
	case "hotel": // guests leave in the morning and come in the evening
		in = hour >= 6 && hour < 10 || hour >= 17
	case "daylight": // cameras and pickers
		return l.low + (l.high-l.low)*max(0, math.Sin(float64(hour-6)*math.Pi/14))
	case "office", "reports":
		in = hour >= 8 && hour < 18 && day != time.Saturday && day != time.Sunday
	default:
		in = in && (l.sunday || day != time.Sunday)
		if in && (hour >= 16 && hour < 19 || day == time.Saturday) {
			return l.high * 1.12
		}
	}
	if in {
		return l.high
	}
	return l.low
}

// quarter is the utilisation in quarter q (0..3) of an hour whose expected
// utilisation is week: slow drift over days, noise, bursts.
func (l *load) quarter(week, drift float64, h, q int) float64 {
	i := 4*h + q
	u := l.asked(week, h)*(1+drift+0.05*l.noise.normal(3*i)) + 0.01
	if l.noise.uniform(3*i+1) < l.bursts {
		u += 0.4 * l.noise.uniform(3*i+2)
	}
	return clamp(u, 0.01, 1)
}

// asked is the expected utilisation: week, but for the last days of a month,
// in which reports run through.
func (l *load) asked(week float64, h int) float64 {
	if l.pattern == "reports" && h/24%30 >= 26 {
		return l.high
	}
	return week
}

func (l *load) drift(h int) float64 {
	return 0.06*l.noise.smooth(h+1<<20, 40) + l.growth*float64(h)/8760
}
