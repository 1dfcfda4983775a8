package plant

import (
	"math"
	"slices"
)

// runner takes one box through its time, hour by hour.
type runner struct {
	f     *Fleet
	b     *box
	m     *machine // as it is
	twin  *machine // as it would be clean, with the same parts and load
	s, ts ctlState

	x          float64 // dust loading, 1 is a service life
	clogFrom   int     // hour since which it loads
	clog       Fault
	gain       float64
	spread     float64
	repaste    float64
	shift      float64 // K, from being moved
	recirc     float64
	records    []record
	breaks     []int // hours at which something starts or ends
	actions    []action
	truth      BoxTruth
	frozen     [gauges]float64 // NaN until stuck
	cleanFlow  float64
	cleanR     float64
	wearJitter float64
	week       [7 * 24]float64
}

func newRunner(f *Fleet, b *box) *runner {
	r := &runner{
		f: f, b: b, m: newMachine(b, b.hw, clean()), twin: newMachine(b, b.hw, clean()), x: b.plan.x0, gain: 1, spread: 1,
		repaste: 1, clogFrom: b.start, actions: b.plan.actions, truth: BoxTruth{Box: b.id, SKU: b.sku.id, Site: b.site.id},
	}
	r.s.duty, r.ts.duty = b.sku.ctl.dMin, b.sku.ctl.dMin
	for _, x := range b.plan.faults {
		r.records = append(r.records, f.record(x))
		r.breaks = append(r.breaks, x.on, x.off)
		for _, w := range x.blows {
			r.breaks = append(r.breaks, w.hour)
		}
	}
	for _, a := range r.actions {
		r.breaks = append(r.breaks, a.hour)
	}
	slices.Sort(r.breaks)
	for i := range r.breaks {
		r.breaks[i] = max(r.breaks[i], b.start)
	}
	for i := range r.frozen {
		r.frozen[i] = math.NaN()
	}
	for h := range r.week {
		r.week[h] = b.load.week(f.time(float64(h)))
	}
	r.hardware()
	return r
}

// hardware notes the clean box after its parts changed.
func (r *runner) hardware() {
	c := r.base()
	r.twin.hw, r.twin.ctl = r.m.hw, r.m.ctl
	r.twin.cond = c
	r.twin.hw.fill(&r.twin.tab, &c)
	r.m.hw.fill(&r.m.tab, &r.m.cond)
	r.cleanFlow = r.m.hw.flow(&c, r.b.refDuty)
	r.cleanR = r.m.hw.resistance(&c, r.b.refDuty, r.b.refWatts)
}

// base is the condition of a clean box with today's parts, place and model.
func (r *runner) base() condition {
	c := clean()
	c.spread, c.recirc, c.tim = r.spread, r.recirc, r.repaste
	return c
}

// advance brings the box to the start of hour h; hours come in order.
func (r *runner) advance(h int) {
	fresh := h%24 == 0 || h == r.b.start
	for len(r.actions) > 0 && r.actions[0].hour <= h {
		r.do(r.actions[0], h)
		r.actions = r.actions[1:]
		fresh = true
	}
	for len(r.breaks) > 0 && r.breaks[0] <= h {
		r.breaks = r.breaks[1:]
		fresh = true
	}
	if h%24 == 0 {
		r.gatherDust(h / 24)
	}
	if fresh {
		r.refresh(h)
	}
}

// gatherDust loads a day: what settles is what the fan draws through.
func (r *runner) gatherDust(day int) {
	share := 1.0
	if r.cleanFlow > 0 {
		share = r.m.hw.flow(&r.m.cond, r.b.refDuty) / r.cleanFlow
	}
	r.x = min(r.x+float64(r.b.site.dust[day])*r.b.plan.luck*share, 1.6)
}

func (r *runner) do(a action, h int) {
	switch a.do {
	case wipe:
		before := r.rise(r.m.cond)
		r.endClog(h)
		r.x *= a.keeps
		c := r.base()
		r.m.hw.dustOn(&c, r.worn(h), r.b.plan.strength)
		r.truth.Cleanings = append(r.truth.Cleanings, Cleaning{
			Time: r.f.time(float64(h)), Logged: a.logged, Before: float64(keep(before)), After: float64(keep(r.rise(c))),
		})
		return
	case shed:
		r.x *= a.keeps
		return
	case replaceFan:
		r.m.hw.strength = a.gain * a.spread
		r.m.hw.rpmMax = r.b.hw.rpmMax * a.gain
	case replacePaste:
		r.repaste = a.gain
	case move:
		r.shift += a.shift
		r.recirc += a.recirc
	case flashBIOS:
		r.m.ctl.tLo += a.shift
		r.m.ctl.tHi += a.shift / 2
		r.m.ctl.target += a.shift / 2
		r.m.ctl.byPower -= a.shift * 0.015
	case setPower:
		r.m.hw.pDyn = r.b.hw.pDyn * a.gain
	case rollOut:
		r.gain = clamp(r.gain*a.gain, 0.6, 1.3)
		r.spread = clamp(r.spread*a.spread, 0.85, 1.18)
	}
	r.hardware()
}

// worn is the loading of this hour's dust, dry or damp.
func (r *runner) worn(h int) float64 { return worn(r.b.sku.law, r.x) * r.b.site.wet(h/24) }

// rise is the relative rise of resistance of a condition over the clean box.
func (r *runner) rise(c condition) float64 {
	return r.m.hw.resistance(&c, r.b.refDuty, r.b.refWatts)/r.cleanR - 1
}

// refresh makes the condition of hour h and writes the truth of its day.
func (r *runner) refresh(h int) {
	r.cond(h)
	day := h / 24
	r.truth.Rise = setDay(r.truth.Rise, day, r.rise(r.m.cond))
	if r.x > 0 {
		c := r.base()
		r.m.hw.dustOn(&c, r.worn(h), r.b.plan.strength)
		i := day - r.clogFrom/24
		r.clog.Level = setDay(r.clog.Level, i, r.worn(h))
		r.clog.Rise = setDay(r.clog.Rise, i, r.rise(c))
	}
	for i := range r.records {
		x := &r.records[i]
		if level := x.level(h); level > 0 || x.on == h {
			c := r.base()
			x.apply(&c, level)
			d := day - x.on/24
			x.out.Level = setDay(x.out.Level, d, level)
			x.out.Rise = setDay(x.out.Rise, d, r.rise(c))
		}
	}
}

// cond puts dust and faults together.
func (r *runner) cond(h int) {
	c := r.base()
	if r.x > 0 {
		r.m.hw.dustOn(&c, r.worn(h), r.b.plan.strength)
	}
	r.wearJitter = 0
	for i := range r.records {
		x := &r.records[i]
		level := x.level(h)
		if level == 0 {
			continue
		}
		x.apply(&c, level)
		if x.cause == FanWear {
			r.wearJitter = 0.06 * level
		}
	}
	r.m.setCondition(c)
}

// endClog closes the truth of one loading, if it came to anything.
func (r *runner) endClog(h int) {
	f := r.clog
	f.Cause, f.Onset, f.Full = Clog, r.f.time(float64(r.clogFrom)), r.b.plan.dustRise
	if h < r.f.hours {
		f.End = r.f.time(float64(h))
	}
	if f.Peak() >= 0.03 {
		f.Variant = "slow"
		one, ten := -1, -1
		for d, x := range f.Rise {
			if one < 0 && x >= 0.01 {
				one = d
			}
			if ten < 0 && x >= 0.10 {
				ten = d
			}
		}
		if ten >= 0 && ten-one <= 30 {
			f.Variant = "fast"
		}
		r.truth.Faults = append(r.truth.Faults, f)
	}
	r.clog, r.clogFrom = Fault{}, h
}

// throttled notes an hour in which the box throttled, and to which faults it
// belongs: those that raise the resistance when a clean twin would not throttle.
func (r *runner) throttled(h int, dynamic, room float64) {
	at := r.f.time(float64(h))
	r.truth.Throttled++
	if r.truth.FirstThrottle == nil {
		r.truth.FirstThrottle = &at
	}
	r.ts = r.s
	if p := r.twin.serve(&r.ts, dynamic, room); p.throttled > 0 {
		r.truth.HealthyThrottled++
		return
	}
	if n := len(r.clog.Rise); n > 0 && r.clog.Rise[n-1] > 0.01 && r.clog.FirstThrottle == nil {
		r.clog.FirstThrottle = &at
	}
	for i := range r.records {
		x := &r.records[i].out
		if n := len(x.Rise); n > 0 && x.Rise[n-1] > 0.01 && x.FirstThrottle == nil && r.records[i].level(h) > 0 {
			x.FirstThrottle = &at
		}
	}
}

// finish closes what is open.
func (r *runner) finish() BoxTruth {
	r.endClog(r.f.hours)
	for i := range r.records {
		r.truth.Faults = append(r.truth.Faults, r.records[i].out)
	}
	slices.SortStableFunc(r.truth.Faults, func(a, b Fault) int { return a.Onset.Compare(b.Onset) })
	return r.truth
}
