package plant

import "math"

// causes is the order in which faults are drawn; it is part of what a seed means.
var causes = [...]Cause{Vent, FanWear, FanStop, Paste, Stuck, Lint, SSD, PSU}

// faults draws what will break. Some faults, one in seven in most families,
// bring a second within weeks: dirt and heat wear several parts.
func (w *planner) faults(years float64) {
	for _, c := range causes {
		n := poisson(w.r, w.f.family.Rates[c]*years)
		if c == FanWear && w.r.Float64() < 0.1*years && w.b.site.class != "office" {
			n++ // dirt in the bearing
		}
		for range min(n, 2) {
			on := w.onset()
			w.inflict(c, on)
			if next := causes[w.r.IntN(len(causes))]; next != c && w.r.Float64() < w.f.family.Rates[second] {
				w.inflict(next, on+w.r.IntN(24*20))
			}
		}
	}
}

// onset leaves most boxes some weeks of health to be learned from.
func (w *planner) onset() int {
	days := float64(w.f.hours-w.b.start) / 24
	early := min(25, days*0.3)
	if w.r.Float64() < 0.08 {
		early = 0
	}
	return w.b.start + int(24*(early+(days*0.92-early)*w.r.Float64()))
}

// inflict adds one fault and, perhaps, its repair.
func (w *planner) inflict(c Cause, on int) {
	r, b := w.r, w.b
	if on >= w.f.hours-24 || b.hw.fans == 0 && (c == FanWear || c == FanStop) {
		return
	}
	for _, x := range w.p.faults {
		if x.cause == c && on < x.off && x.on < w.f.hours {
			return // one of a kind at a time
		}
	}
	f := &fault{cause: c, on: on, off: w.f.hours, grow: 1, bend: 1, fins: b.hw.fans == 0}
	if b.hw.fans > 0 {
		f.fan = r.IntN(b.hw.fans)
	}
	switch c {
	case Vent:
		f.size(b, 0.25+0.75*r.Float64())
		f.off = min(f.off, on+12+int(24*20*r.Float64()*r.Float64()))
	case Lint:
		f.size(b, 0.15+0.4*r.Float64())
		f.grow = 12 + 60*r.Float64()
		for t := on + int(f.grow); t < w.f.hours && r.Float64() < 0.6; {
			t += 24 * (3 + r.IntN(40))
			f.blows = append(f.blows, blow{hour: t, keeps: 0.3 + 0.5*r.Float64()})
		}
	case Paste:
		f.size(b, 0.12+0.33*r.Float64())
		f.grow = 24 * (50 + 170*r.Float64())
		w.repair(f, replacePaste, "paste-replaced", 0.35)
	case FanWear:
		f.top, f.bend, f.grow = 0.12+0.35*r.Float64(), 1+r.Float64(), 24*(40+130*r.Float64())
		f.size(b, 0)
		w.repair(f, replaceFan, "fan-replaced", 0.5)
	case FanStop:
		f.size(b, 0)
		w.repair(f, replaceFan, "fan-replaced", 0.8)
	case Stuck:
		f.sensor = []gaugeID{dieGauge, dieGauge, inletGauge, boardGauge}[r.IntN(4)]
		if !b.fit.live[f.sensor] || b.fit.kit.dangling && f.sensor == boardGauge {
			f.sensor = dieGauge
		}
		f.off = min(f.off, on+24*(2+r.IntN(40)))
	case SSD:
		f.top, f.grow = 1+1.5*r.Float64(), 24*(60+200*r.Float64())
	case PSU:
		f.top, f.grow = 0.05+0.08*r.Float64(), 24*(30+150*r.Float64())
	}
	w.p.faults = append(w.p.faults, f)
}

// size calibrates a fault to the rise of resistance it shall reach, and
// notes what it does reach: flow is not all of the resistance.
func (f *fault) size(b *box, rise float64) {
	if f.cause == FanWear || f.cause == FanStop {
		f.top = max(f.top, 0)
		_, f.rise = b.calibrate(-1, func(c *condition, _ float64) { f.apply(c, 1) })
		return
	}
	f.top, f.rise = b.calibrate(rise, func(c *condition, k float64) {
		f.top = k
		f.apply(c, 1)
	})
}

// repair ends a fault some time after it has grown, in a share of the cases.
// A new fan is often of another model.
func (w *planner) repair(f *fault, do deed, kind string, share float64) {
	r := w.r
	if r.Float64() >= share {
		return
	}
	at := f.on + int(f.grow*(0.6+0.8*r.Float64())) + 24*(3+r.IntN(30))
	if at >= w.f.hours {
		return
	}
	f.off = at
	a := action{hour: at, do: do, gain: 1, spread: 1, fan: f.fan}
	detail := "same part"
	switch {
	case do == replaceFan && r.Float64() < 0.4:
		a.gain, a.spread = 0.85+0.35*r.Float64(), 0.92+0.2*r.Float64()
		detail = "another model"
	case do == replacePaste: // no two hands apply it alike
		a.gain = math.Exp(0.08 * r.NormFloat64())
	}
	w.act(a, kind, detail)
}

// rounds are the service visits of each site, as hours. Most sites have a
// calendar that fits their dust more or less; clean ones meet it after years.
func (f *Fleet) serviceRounds(s *site) []int {
	r := streamOf(uint64(s.noise), "rounds").rng()
	sum := 0.0
	for _, x := range s.dust {
		sum += float64(x)
	}
	if sum == 0 || r.Float64() < 0.3 {
		return nil
	}
	life := float64(len(s.dust)) / sum * 24 // hours to loading 1
	var all []int
	for t := life * (0.5 + 0.9*r.Float64()); t < float64(f.hours); t += life * (0.5 + 0.9*r.Float64()) {
		all = append(all, int(t)/24*24+8+r.IntN(9)) // in working hours
		if len(all) > 40 {
			break
		}
	}
	return all
}
