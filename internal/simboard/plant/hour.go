package plant

import (
	"math"
	"time"
)

// Row is one hour, or one minute, of a box as the product gets it. NaN is
// missing. In an hour the numbers are means, Throttled is the share of time.
type Row struct {
	Box, SKU, Site string
	Time           time.Time // start of the row, by the box's clock
	Arrived        time.Time // when the row reached the controller, true time

	DieC, InletC, BoardC, NVMeC, ExhaustC float64
	PowerW, PWMRatio                      float64
	RPM                                   [4]float64
	Throttled, ClockHz, BusyRatio, RoomC  float64
	PowerSD, PWMSD, RPMSD                 float64 // within the hour; RPMSD of the least steady fan
	Samples                               int

	// Not in the replay columns unless asked for.
	SSDUsed float64 // ratio, as NVMe reports percentage_used
	InputW  float64 // from the wall, of boxes whose PSU tells
}

// mean gathers the load points of a row.
type mean struct {
	point
	busy             float64
	pp, dd, rr, tt   float64 // sums of squares: power, duty, first fan, die
	power, rpm, peak float64
	dynamic          float64 // of the quarter that throttled most
}

// meter is the power that the box's own meter sees.
func (r *runner) meter(p *point) float64 {
	switch r.b.sku.sense.power {
	case "board":
		return p.pDC
	case "wall":
		return p.pIn
	}
	return p.pDie
}

// air is the temperature where the box stands.
func (r *runner) air(h int) float64 {
	s := r.b.site
	return float64(s.room[h]) + r.b.standOff + r.shift + r.b.sun*float64(s.sunny[h]) + s.cupboard*r.warmth(h)
}

// warmth is how far the cupboard around the box is warmed through: the mean
// work of the last hours, and a third of it for a box that waits.
func (r *runner) warmth(h int) float64 {
	if r.b.site.cupboard == 0 {
		return 0
	}
	sum := 0.0
	for k := range 4 {
		at := max(0, h-k)
		sum += min(1, r.b.load.asked(r.week[at%len(r.week)], at)*(1+r.b.load.drift(at)))
	}
	return 1.0/3 + 2.0/3*sum/4
}

// wander sets what no sensor tells: where on the die this hour's work is done
// and what air reaches the sink.
func (r *runner) wander(h int) {
	n := r.b.load.noise
	r.m.mix = 1 + r.b.mixSD*(0.8*n.smooth(h+3<<20, 9)+0.6*n.normal(h+5<<22))
	r.m.gust = r.b.airSD * (0.7*n.smooth(h+5<<20, 14) + 0.7*n.normal(h+6<<22))
	r.twin.mix, r.twin.gust = r.m.mix, r.m.gust
}

// hour settles the four quarters of an hour and reads the sensors. It is
// false for an hour in which the box was too hot to stay on.
func (r *runner) hour(h int, out *Row) bool {
	var a mean
	r.wander(h)
	room := r.air(h)
	week, drift := r.week[h%len(r.week)], r.b.load.drift(h)
	for q := range 4 {
		u := r.b.load.quarter(week, drift, h, q)
		dynamic := min(u*r.gain, 1.1) * r.m.hw.pDyn
		p := r.m.serve(&r.s, dynamic, room)
		a.take(r, &p, u)
		if p.throttled > a.peak {
			a.peak, a.dynamic = p.throttled, dynamic
		}
	}
	a.scale(0.25)
	a.close()
	if a.throttled > 0.01 {
		r.throttled(h, a.dynamic, room)
		if a.die > r.m.hw.trip+shutDown {
			return false
		}
	}
	kit := r.b.fit.kit
	n := 3600 / kit.period
	if v := r.b.fit.noise.uniform(-1 - h); v < 0.01 {
		n = 1 + int(float64(n)*v*99)
	}
	r.read(&a, row{index: h, hour: h, root: math.Sqrt(float64(n))}, out)
	out.Samples = n
	jitter := r.b.load.jitter * a.point.dynamic
	out.PowerSD = math.Sqrt(a.pp + jitter*jitter + r.square(powerGauge))
	out.PWMSD = math.Sqrt(a.dd) + 0.002
	wear := r.wearJitter * a.rpm
	out.RPMSD = math.Sqrt(a.rr+wear*wear+r.square(rpmGauge)) * kit.pulses
	r.absent(out)
	out.Time = r.f.stamp(r.b, float64(h))
	out.Arrived = r.f.time(float64(h) + 1)
	return true
}

func (r *runner) square(g gaugeID) float64 { x := r.b.fit.kit.noise[g]; return x * x }

// take adds one load point; scale turns the sums into means.
func (a *mean) take(r *runner, p *point, busy float64) {
	w := r.meter(p)
	rpm := r.m.rpm(0, p.duty, p.still)
	a.die += p.die
	a.inlet += p.inlet
	a.airRise += p.airRise
	a.sink += p.sink
	a.duty += p.duty
	a.still += p.still
	a.pDie += p.pDie
	a.pDC += p.pDC
	a.pIn += p.pIn
	a.point.dynamic += p.dynamic
	a.throttled += p.throttled
	a.busy += busy
	a.power += w
	a.rpm += rpm
	a.pp += w * w
	a.dd += p.duty * p.duty
	a.rr += rpm * rpm
	a.tt += p.die * p.die
}

func (a *mean) scale(k float64) {
	for _, x := range []*float64{
		&a.die, &a.inlet, &a.airRise, &a.sink, &a.duty, &a.still, &a.pDie, &a.pDC, &a.pIn, &a.point.dynamic,
		&a.throttled, &a.busy, &a.power, &a.rpm, &a.pp, &a.dd, &a.rr, &a.tt,
	} {
		*x *= k
	}
}

// close turns sums of squares into variances.
func (a *mean) close() {
	a.pp = max(0, a.pp-a.power*a.power)
	a.dd = max(0, a.dd-a.duty*a.duty)
	a.rr = max(0, a.rr-a.rpm*a.rpm)
	a.tt = max(0, a.tt-a.die*a.die)
}

// read passes the true values through the box's sensors.
func (r *runner) read(a *mean, at row, out *Row) {
	m, t := r.m, &r.b.fit
	out.Box, out.SKU, out.Site = r.b.id, r.b.sku.id, r.b.site.id
	spread := math.Sqrt(a.tt)
	board := math.NaN()
	if t.live[boardGauge] {
		board = m.board(&a.point)
	}
	values := [...]float64{a.die, a.inlet, board, m.nvme(&a.point, a.busy), 0, a.power * t.gain}
	if t.kit.coupling > 0 {
		values[inletGauge] += t.kit.coupling * (m.board(&a.point) - a.inlet)
	}
	values[exhaustGauge] = a.inlet + 0.92*a.airRise
	for g, x := range values {
		id := gaugeID(g)
		if id == powerGauge {
			spread = math.Sqrt(a.pp)
		}
		values[g] = r.stick(id, t.reading(id, x, spread, at), at.hour)
	}
	out.DieC, out.InletC, out.BoardC, out.NVMeC = values[dieGauge], values[inletGauge], values[boardGauge], values[nvmeGauge]
	out.ExhaustC, out.PowerW = values[exhaustGauge], values[powerGauge]
	if t.kit.dangling && t.live[boardGauge] {
		out.BoardC = 127
	}
	spread = math.Sqrt(a.rr)
	for i := range out.RPM {
		out.RPM[i] = math.NaN()
		if i >= m.hw.fans {
			continue
		}
		speed := m.rpm(i, a.duty, a.still)
		if g := rpmGauge + gaugeID(i); speed == 0 && t.live[g] {
			out.RPM[i] = 0
		} else {
			wear := r.wearJitter * speed * t.noise.normal(at.index*int(gauges)*2-int(g)-7) / at.root
			out.RPM[i] = t.reading(g, (speed+wear)*t.kit.pulses, spread, at)
		}
	}
	out.PWMRatio = math.Round(a.duty*255) / 255
	out.Throttled = a.throttled
	slow := 1 - a.throttled*(1-m.hw.throttleTo)
	out.BusyRatio = math.Round(min(1, a.busy/slow)*1000) / 1000
	out.ClockHz = math.Round(m.hw.clockHz*(0.55+0.45*min(1, a.busy*1.3))*slow/1e6) * 1e6
	out.RoomC = math.NaN()
	if s := r.b.site; s.hasSensor {
		out.RoomC = math.Round((float64(s.room[at.hour])+s.roomOffset+0.05*s.noise.normal(-3-at.index))*10) / 10
	}
	out.SSDUsed, out.InputW = r.ssdUsed(at.hour), math.NaN()
	if r.b.sku.chassis.ipmi {
		out.InputW = math.Round(a.pIn/5) * 5
	}
}

// stick holds a reading from the first one after its sensor froze.
func (r *runner) stick(g gaugeID, x float64, h int) float64 {
	for i := range r.records {
		f := &r.records[i]
		if f.cause != Stuck || f.sensor != g || h < f.on {
			continue
		}
		if h >= f.off {
			r.frozen[g] = math.NaN()
			continue
		}
		if math.IsNaN(r.frozen[g]) {
			r.frozen[g] = x
		}
		return r.frozen[g]
	}
	return x
}

// ssdUsed grows by a few percent a year, and with the fault by much more.
func (r *runner) ssdUsed(h int) float64 {
	used := 0.08*r.b.load.high*float64(h)/8760 + 0.2*r.b.load.noise.uniform(-5)
	for i := range r.records {
		if f := &r.records[i]; f.cause == SSD && h >= f.on {
			used += 0.25 * f.top * min(1, float64(h-f.on)/f.grow)
		}
	}
	return math.Floor(used*100) / 100
}

// absent takes out what the SKU cannot tell.
func (r *runner) absent(out *Row) {
	kit := r.b.fit.kit
	if !kit.throttle {
		out.Throttled = math.NaN()
	}
	if !kit.dutyKnown || r.m.hw.fans == 0 {
		out.PWMRatio, out.PWMSD = math.NaN(), math.NaN()
	}
	if !kit.fitted[powerGauge] {
		out.PowerSD = math.NaN()
	}
	if !kit.fitted[rpmGauge] {
		out.RPMSD = math.NaN()
	}
}

// stamp is a true time as the box's clock shows it.
func (f *Fleet) stamp(b *box, hour float64) time.Time {
	s := &b.skew
	if s.lost.has(int(hour)) { // no battery, no network yet: the clock starts at the image's build date
		return time.Date(2024, 3, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration((hour - float64(s.lost.from)) * float64(time.Hour)))
	}
	return f.time(hour + (s.seconds+s.perDay*hour/24)/3600)
}
