package plant

import (
	"math"
	"math/rand/v2"
)

// gaugeID is one of the readings of a box.
type gaugeID int

const (
	dieGauge gaugeID = iota
	inletGauge
	boardGauge
	nvmeGauge
	exhaustGauge
	powerGauge
	rpmGauge                  // the first of maxFans
	roomGauge = rpmGauge + 4  // of the site
	gauges    = roomGauge + 1 // how many
)

// sensorKit is what a SKU can read, and how coarsely.
type sensorKit struct {
	fitted    [gauges]bool
	step      [gauges]float64
	noise     [gauges]float64 // sd of one reading
	power     string          // which power the meter sees: package, board or wall
	pulses    float64         // factor of a wrong tachometer setting, mostly 1
	dangling  bool            // the board header is not connected and reads 127
	throttle  bool            // the throttle flag is read
	dutyKnown bool
	period    int // s between readings
	offset    span
	missing   float64 // share of boxes with a dead optional sensor
	drift     float64 // K a year, sd
	coupling  float64 // share of the board's rise that the inlet sensor sees
}

func drawSensors(f *recipe, r *rand.Rand, s *sku) sensorKit {
	draw := func(name string) float64 { return f.Spans[name].draw(r) }
	chance := func(p float64) bool { return r.Float64() < p }
	k := sensorKit{
		power: pick(r, f.Structure[powerMeter]), pulses: 1, offset: f.Spans[offset], dangling: chance(0.05),
		throttle: chance(0.9), dutyKnown: chance(0.95), period: []int{10, 20, 30, 60}[r.IntN(4)], missing: 0.02,
	}
	k.fitted = [gauges]bool{dieGauge: true, nvmeGauge: chance(0.8)}
	k.fitted[inletGauge] = s.kind != "wall"
	k.fitted[boardGauge] = chance(s.chassis.board)
	k.fitted[exhaustGauge] = chance(s.chassis.exhaust)
	k.fitted[powerGauge] = true
	for i := range s.hw.fans {
		k.fitted[int(rpmGauge)+i] = true
	}
	if chance(0.06) {
		k.pulses = []float64{0.5, 2}[r.IntN(2)]
	}
	k.noise = [gauges]float64{
		dieGauge: draw(dieNoise), inletGauge: 0.15, boardGauge: 0.2, nvmeGauge: 0.4, exhaustGauge: 0.3,
		powerGauge: 0.02 * s.hw.pDyn,
	}
	step := draw(dieStep)
	k.step = [gauges]float64{
		dieGauge: step, inletGauge: 0.25, boardGauge: 0.5, nvmeGauge: 1, exhaustGauge: 0.5, powerGauge: 0.01,
	}
	rpmStep := 1.0
	if s.chassis.ipmi { // seen on nodes: whole degrees, rpm in steps of 100 to 184, power in 5 W
		k.step[dieGauge], k.step[inletGauge], k.step[boardGauge], k.step[exhaustGauge], k.step[powerGauge] = 1, 1, 1, 1, 5
		rpmStep, k.period = []float64{100, 128, 166, 184}[r.IntN(4)], 60
	}
	k.drift, k.coupling = f.extra(drift, r), f.extra(coupling, r)
	k.step[inletGauge] = max(k.step[inletGauge], f.extra(inletStep, r))
	k.step[powerGauge] = max(k.step[powerGauge], f.extra(powerStep, r))
	rpmStep = max(rpmStep, math.Round(f.extra(tachStep, r)))
	for i := range maxFans {
		k.step[int(rpmGauge)+i], k.noise[int(rpmGauge)+i] = rpmStep, 0.004*s.hw.rpmMax
	}
	return k
}

// fitting is the sensors of one box.
type fitting struct {
	kit    *sensorKit
	live   [gauges]bool
	offset [gauges]float64
	drift  [gauges]float64 // K a year; of the power meter relative
	gain   float64         // of the power meter
	noise  stream
}

func (k *sensorKit) fit(r *rand.Rand, seed uint64) fitting {
	t := fitting{kit: k, live: k.fitted, gain: 1 + 0.02*r.NormFloat64(), noise: streamOf(seed, "sensors")}
	spread := k.offset.draw(r)
	for g := dieGauge; g <= exhaustGauge; g++ {
		t.offset[g] = spread * r.NormFloat64()
		if g != dieGauge && r.Float64() < k.missing {
			t.live[g] = false
		}
	}
	if k.drift > 0 {
		age := streamOf(seed, "drift").rng()
		for g := dieGauge; g <= exhaustGauge; g++ {
			t.drift[g] = k.drift * age.NormFloat64()
		}
		t.drift[powerGauge] = k.drift / 50 * age.NormFloat64()
		t.drift[dieGauge] /= 5 // a diode on silicon is the steadiest of them
	}
	return t
}

// reading is the mean of n readings around x whose spread within the row is
// sd. A mean of rounded readings is the rounded mean only when they hardly
// differ; else the spread dithers the steps away (Widrow and Kollár,
// Quantization Noise: first term of the Fourier series of the error).
func (t *fitting) reading(g gaugeID, x, sd float64, at row) float64 {
	if !t.live[g] {
		return math.NaN()
	}
	step, noise := t.kit.step[g], t.kit.noise[g]
	i := at.index*int(gauges) + int(g)
	if t.noise.uniform(2*i) < 1.5e-5 {
		return sentinel(g, t.noise.bits(2*i))
	}
	if g == powerGauge {
		x *= 1 + t.drift[g]*float64(at.hour)/8760
	} else {
		x += t.drift[g] * float64(at.hour) / 8760
	}
	x += t.offset[g] + noise*t.noise.normal(2*i+1)/at.root
	spread := math.Sqrt(sd*sd+noise*noise) / step
	if at.root == 1 || spread < 0.2 {
		return math.Round(x/step) * step
	}
	if spread > 0.8 {
		return x
	}
	return x - step/math.Pi*math.Sin(2*math.Pi*x/step)*math.Exp(-2*math.Pi*math.Pi*spread*spread)
}

// row says which row a reading belongs to: index makes its noise, root is
// the square root of the readings that were averaged.
type row struct {
	index, hour int
	root        float64
}

// sentinel is what drivers and BMCs return when they have no value.
func sentinel(g gaugeID, bits uint64) float64 {
	k := int(bits >> 60 & 3)
	switch {
	case g == powerGauge:
		return []float64{2550, 25450, 25550, 0}[k]
	case g >= rpmGauge && g < roomGauge:
		return []float64{65535, 0, 65535, 25500}[k]
	}
	return []float64{127, -128, 0, 255}[k]
}

// skewed is how a box's clock is wrong.
type skewed struct {
	seconds float64
	perDay  float64
	lost    window // hours after a start without a clock: stamped from the build date
}
