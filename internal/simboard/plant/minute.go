package plant

import "math"

// Minutes runs days from..to-1 of box i minute by minute: die and heat sink
// as two nodes, the fan controller in steps of two seconds, the throttle as a
// switch with hysteresis. Weather, load and faults are those of Simulate; link
// gaps are not played. emit must not keep the pointer.
func (f *Fleet) Minutes(i, from, to int, emit func(*Row)) {
	b := f.boxes[i]
	r := newRunner(f, b)
	d := dynamics{r: r}
	for h := b.start; h < min(to*24, f.hours); h++ {
		r.advance(h)
		if h < from*24 || b.off(h) {
			d.warm = false
			continue
		}
		d.hour(h, emit)
	}
}

// dynamics is the state that hours settle and minutes carry.
type dynamics struct {
	r         *runner
	warm      bool
	die, sink float64 // °C
	duty      float64 // as the fan turns; firmware's wish is in r.s
	throttled bool
}

const tick = 2.0 // s; the die's time constant is above 5 s

func (d *dynamics) hour(h int, emit func(*Row)) {
	r := d.r
	r.wander(h)
	room := r.air(h)
	week, drift := r.week[h%len(r.week)], r.b.load.drift(h)
	var out Row
	for minute := range 60 {
		u := r.b.load.quarter(week, drift, h, minute/15)
		k := h*60 + minute
		u = clamp(u*(1+r.b.load.jitter*r.b.load.noise.normal(1<<30+k)), 0.01, 1)
		dynamic := min(u*r.gain, 1.1) * r.m.hw.pDyn
		if !d.warm {
			d.start(dynamic, room)
		}
		var a mean
		for range int(60 / tick) {
			p := d.step(dynamic, room)
			a.take(r, &p, u)
		}
		a.scale(tick / 60)
		a.close()
		n := max(1, 60/r.b.fit.kit.period)
		r.read(&a, row{index: 1<<24 + k, hour: h, root: math.Sqrt(float64(n))}, &out)
		out.Samples = n
		out.PowerSD, out.PWMSD, out.RPMSD = math.NaN(), math.NaN(), math.NaN()
		r.absent(&out)
		out.Time = r.f.stamp(r.b, float64(h)+float64(minute)/60)
		out.Arrived = r.f.time(float64(h) + float64(minute+1)/60)
		emit(&out)
	}
}

// start puts the nodes where they would have settled.
func (d *dynamics) start(dynamic, room float64) {
	p := d.r.m.serve(&d.r.s, dynamic, room)
	d.die, d.duty, d.warm = p.die, p.duty, true
	d.sink = p.die - p.pDie*d.r.m.inner()
}

// step integrates one tick: explicit Euler for the sink, exact for the die,
// which follows within seconds.
func (d *dynamics) step(dynamic, room float64) point {
	m := d.r.m
	h, c := &m.hw, &m.cond
	if d.throttled = d.throttled && d.die > h.trip-h.tripHyst || d.die >= h.trip; d.throttled {
		dynamic *= h.throttleTo
	}
	conv, still := m.tab.look(d.duty)
	p := point{duty: d.duty, still: still, dynamic: dynamic, die: d.die}
	p.pDie = h.pIdle + dynamic + h.leak(d.die)
	p.pDC = p.pDie + h.pOther + (c.nvmeHeat-1)*h.pNVMe
	p.pIn = p.pDC / (h.psuEta - c.psuLoss)
	heat := p.pDC
	if h.psuInside {
		heat = p.pIn
	}
	p.airRise = heat * h.airPerWatt * still
	back := h.recirc + c.recirc
	p.inlet = room + back/(1-back)*p.airRise
	p.loadShare = (p.pDie - h.pLeak) / (h.pIdle + h.pDyn)
	if d.throttled {
		p.throttled = 1
	}
	air := p.inlet + m.gust + h.airShare*p.airRise
	p.sink = d.sink - air
	inner := m.inner()
	out := p.sink * (h.gNat*root4(p.sink/30) + conv) / c.fin
	d.sink += tick / h.cSink * ((d.die-d.sink)/inner - out)
	rest := d.sink + p.pDie*inner
	d.die = rest + (d.die-rest)*math.Exp(-tick/(h.cDie*inner))
	want := m.ctl.next(&d.r.s, &p, tick)
	d.duty += (want - d.duty) * tick / 10 // fans take seconds to spin up
	if want == 0 && d.duty < 0.04 {
		d.duty = 0
	}
	return p
}
