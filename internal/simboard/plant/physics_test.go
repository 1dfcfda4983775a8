package plant

import (
	"math"
	"testing"
)

// eachSKU runs body on SKUs of every family, and names seed and SKU on failure.
func eachSKU(t *testing.T, body func(t *testing.T, f *Fleet, b *box)) {
	for _, name := range Families() {
		for seed := range uint64(3) {
			f := fleet(t, Options{Seed: seed, Family: name, Boxes: 40, Days: 3})
			seen := map[*sku]bool{}
			for _, b := range f.boxes {
				if seen[b.sku] {
					continue
				}
				seen[b.sku] = true
				t.Run(b.sku.id, func(t *testing.T) {
					body(t, f, b)
					if t.Failed() {
						t.Logf("seed %d box %s kind %s fans %d firmware %s", seed, b.id, b.sku.kind, b.hw.fans, b.sku.ctl.kind)
					}
				})
			}
		}
	}
}

func fleet(t *testing.T, o Options) *Fleet {
	t.Helper()
	f, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tolerance) {
		t.Errorf("%s is %.5g, want %.5g ± %.3g", what, got, want, tolerance)
	}
}

func TestEnergyIsKept(t *testing.T) {
	eachSKU(t, func(t *testing.T, _ *Fleet, b *box) {
		m := newMachine(b, b.hw, clean())
		m.cond.psuLoss, m.cond.nvmeHeat = 0.05, 2
		s := ctlState{duty: 0.5}
		for _, room := range []float64{15, 25, 35} {
			for _, u := range []float64{0.05, 0.5, 1} {
				var p point
				for range 4 { // at iterates from its last answer
					p = m.serve(&s, u*b.hw.pDyn, room)
				}
				if p.duty != s.duty {
					continue // the mean of a fan that starts and stops is no state
				}
				near(t, "wall power", p.pIn*(b.hw.psuEta-0.05), p.pDie+b.hw.pOther+b.hw.pNVMe, 1e-9)
				conv, still := m.tab.look(p.duty)
				out := p.sink * (b.hw.gNat*root4(p.sink/30) + conv)
				near(t, "heat from sink to air", out, p.pDie, 0.02*p.pDie)
				inner := b.hw.rJC + b.hw.rTIM
				near(t, "die", p.die, p.inlet+b.hw.airShare*p.airRise+p.sink+p.pDie*inner, 0.1)
				if b.hw.airPerWatt == 0 {
					continue
				}
				heat := p.pDC
				if b.hw.psuInside {
					heat = p.pIn
				}
				carried := p.airRise / (b.hw.airPerWatt * still)
				near(t, "heat carried by air", carried, heat, 1e-6*heat)
				near(t, "recirculated air", p.inlet, room+b.hw.recirc*(p.inlet+p.airRise-room), 1e-6)
			}
		}
	})
}

func TestCleanBoxIsClosedForm(t *testing.T) {
	h := hardware{
		fans: 2, phi: 0.6, filterShare: 0, airPerWatt: 0.1, airShare: 0.5, convExp: 0.6, rJC: 0.2, rTIM: 0.1, rConv: 0.4,
		strength: 1, psuEta: 1, pOther: 10, trip: 200, pDyn: 40,
	}
	c := clean()
	for _, s := range []float64{0.2, 0.5, 0.8, 1} {
		// Without a filter pressure and flow scale alike, so flow is the speed.
		near(t, "flow", h.flow(&c, s), s, 1e-9)
		want := 0.2 + 0.1 + 0.4*math.Pow(s, -0.6) + 0.5*0.1/s*(40+10)/40
		near(t, "resistance", h.resistance(&c, s, 40), want, 1e-9)
		m := newMachine(&box{sku: &sku{}}, h, c)
		var p point
		for range 3 {
			p = m.at(s, 40, 20)
		}
		near(t, "die", p.die, 20+40*want, 0.003*40*want) // the table interpolates
	}
	// A filter alone: top (1 − φ²) at speed s meets a·y, a quadratic solved by hand.
	h.filterShare, h.shape = 1, 0
	top := 1 / (1 - 0.36)
	for _, s := range []float64{0.3, 1} {
		y := (-1 + math.Sqrt(1+4*top*0.36*top*s*s)) / (2 * top * 0.36)
		near(t, "flow through a filter", h.flow(&c, s), y, 1e-9)
	}
}

func TestUnequalFansMeetTheEqualOnes(t *testing.T) {
	eachSKU(t, func(t *testing.T, _ *Fleet, b *box) {
		if b.hw.fans < 2 {
			return
		}
		c := clean()
		equal := b.hw.flow(&c, 0.7)
		c.fan[0] *= 1 - 1e-9
		near(t, "flow of nearly equal fans", b.hw.flow(&c, 0.7), equal, 1e-4)
		last := equal
		for _, v := range []float64{0.8, 0.5, 0} {
			c.fan[0] = v
			y := b.hw.flow(&c, 0.7)
			if y >= last || y <= 0 {
				t.Errorf("flow with a fan at %.1f is %.3f, want below %.3f", v, y, last)
			}
			last = y
		}
	})
}

func TestResistanceFallsWithSpeedAsMeasured(t *testing.T) {
	eachSKU(t, func(t *testing.T, _ *Fleet, b *box) {
		if b.hw.fans == 0 {
			return
		}
		c, watts := clean(), b.hw.pIdle+0.6*b.hw.pDyn
		for _, d := range [][2]float64{{0.4, 0.85}, {0.45, 0.65}, {0.6, 0.85}} {
			slope := math.Log(b.hw.resistance(&c, d[1], watts)/b.hw.resistance(&c, d[0], watts)) / math.Log(b.hw.speed(d[1])/b.hw.speed(d[0]))
			if slope < -0.75 || slope > -0.25 {
				t.Errorf("d ln R / d ln rpm between duty %v is %.3f, want -0.75 to -0.25", d, slope)
			}
		}
	})
}

func TestMoreClogIsHotterAtEqualLoad(t *testing.T) {
	eachSKU(t, func(t *testing.T, _ *Fleet, b *box) {
		var last point
		lastFlow := math.Inf(1)
		for i, x := range []float64{0, 0.3, 0.6, 0.9, 1.2} {
			c := clean()
			b.hw.dustOn(&c, worn(b.sku.law, x), b.plan.strength)
			m := newMachine(b, b.hw, c)
			m.ctl.hyst = 0
			p := m.at(0.6, 0.5*b.hw.pDyn, 24)
			p = m.at(0.6, 0.5*b.hw.pDyn, 24)
			flow := b.hw.flow(&c, 0.6)
			if b.hw.fans > 0 && flow >= lastFlow {
				t.Errorf("flow at loading %.1f is %.3f, want below %.3f", x, flow, lastFlow)
			}
			if i > 0 {
				if p.die <= last.die || p.inlet < last.inlet-1e-9 {
					t.Errorf("die %.2f inlet %.2f at loading %.1f, want above %.2f and not below %.2f", p.die, p.inlet, x, last.die, last.inlet)
				}
				if b.hw.fans > 0 && m.rpm(0, p.duty, p.still) < 0.999*m.rpm(0, last.duty, last.still) {
					t.Errorf("rpm falls at equal duty when loading is %.1f", x)
				}
			}
			last, lastFlow = p, flow
		}
	})
}

func TestFirmwareAnswersClogWithMoreSpeed(t *testing.T) {
	eachSKU(t, func(t *testing.T, _ *Fleet, b *box) {
		if b.hw.fans == 0 || b.sku.ctl.kind == "zero-rpm" {
			return
		}
		settled := func(x float64) point {
			c := clean()
			b.hw.dustOn(&c, worn(b.sku.law, x), b.plan.strength)
			m := newMachine(b, b.hw, c)
			s := ctlState{duty: b.sku.ctl.dMin}
			var p point
			for range 5 {
				p = m.settle(&s, 0.7*b.hw.pDyn, 26)
			}
			return p
		}
		a, z := settled(0), settled(1)
		if z.duty < a.duty-0.005 || z.die < a.die-0.5 {
			t.Errorf("clogged: duty %.3f die %.1f, want at least clean %.3f and %.1f", z.duty, z.die, a.duty, a.die)
		}
	})
}

func TestThrottleHoldsTheTrip(t *testing.T) {
	eachSKU(t, func(t *testing.T, _ *Fleet, b *box) {
		c := clean()
		c.fin = 1.5
		m := newMachine(b, b.hw, c)
		s := ctlState{duty: b.sku.ctl.dMin}
		for room := 20.0; room < 60; room += 5 {
			p := m.serve(&s, b.hw.pDyn, room)
			p = m.serve(&s, b.hw.pDyn, room)
			if p.die > b.hw.trip+0.5 && p.throttled < 1 {
				t.Errorf("die %.1f above trip %.0f with throttle %.2f", p.die, b.hw.trip, p.throttled)
			}
			if p.throttled > 0 && p.throttled < 1 {
				near(t, "die while throttled in turns", p.die, b.hw.trip-b.hw.tripHyst/2, 2.5)
			}
		}
	})
}

func TestDustLawsAreConvexOrSaturate(t *testing.T) {
	for law, middle := range map[string]span{
		"power": {0.15, 0.25}, "exponential": {0.08, 0.16}, "knee": {0.1, 0.2}, "saturating": {0.6, 0.85},
		"linear": {0.5, 0.5}, "steps": {0.4, 0.45}, "caking": {0.26, 0.3},
	} {
		near(t, law+" at 0", worn(law, 0), 0, 1e-9)
		near(t, law+" at 1", worn(law, 1), 1, 1e-9)
		if x := worn(law, 0.5); x < middle.Lo || x > middle.Hi {
			t.Errorf("%s at half life is %.3f, want %v", law, x, middle)
		}
	}
	// Median pressure of 53 runs at 20, 50 and 80 % of life, as share of 560 Pa.
	for x, want := range map[float64]float64{0.2: 16.0 / 560, 0.5: 87.0 / 560, 0.8: 336.0 / 560} {
		near(t, "power law", worn("power", x), want, 0.05)
	}
}

func TestMeanOfRoundedReadings(t *testing.T) {
	kit := sensorKit{fitted: [gauges]bool{dieGauge: true}}
	kit.step[dieGauge], kit.noise[dieGauge] = 1, 0.35
	f := fitting{kit: &kit, live: kit.fitted, noise: streamOf(1, "t")}
	noise := streamOf(2, "t")
	for _, x := range []float64{40, 40.2, 40.4, 40.5, 40.7} {
		sum := 0.0
		const n = 20000
		for i := range n {
			sum += math.Round(x + 0.35*noise.normal(i))
		}
		got := f.reading(dieGauge, x, 0, row{index: 1, root: 1e6})
		near(t, "mean of readings in whole degrees", got, sum/n, 0.03)
	}
	kit.noise[dieGauge] = 0
	near(t, "a steady reading in whole degrees", f.reading(dieGauge, 40.4, 0, row{index: 1, root: 10}), 40, 1e-9)
}
