package plant

import "math"

// Cause names what is wrong.
type Cause string

// Causes. Clog is dust in filter or fins; Lint a mat of fibres that forms
// within days and partly blows off; Vent something standing before the vent;
// FanWear a fan that slows down and jitters; FanStop one fan standing; Paste
// the thermal paste pumping out; Stuck a frozen sensor; HVAC the site's
// cooling (site faults); SSD and PSU wear of these parts.
const (
	Clog    Cause = "clog"
	Lint    Cause = "lint"
	Vent    Cause = "vent"
	FanWear Cause = "fan-wear"
	FanStop Cause = "fan-stop"
	Paste   Cause = "paste"
	Stuck   Cause = "stuck"
	HVAC    Cause = "hvac"
	SSD     Cause = "ssd"
	PSU     Cause = "psu"

	// Confounders that have a rate and are no faults.
	heatWave Cause = "heat wave"
	storm    Cause = "dust storm"

	biosFlash Cause = "bios flash"
	powerMode Cause = "power mode"
	doorOpen  Cause = "door propped open"

	// second is the share of faults that bring another within weeks.
	second Cause = "second fault"
)

// fault is a planned fault of a box; dust is not planned but grows.
type fault struct {
	cause   Cause
	on, off int     // hours; off is when it is repaired
	grow    float64 // hours to full severity
	bend    float64 // exponent of the growth
	top     float64 // full severity, in the unit of the cause
	rise    float64 // of resistance at full severity, as planned
	fan     int
	sensor  gaugeID // which reading is stuck
	fins    bool    // a fanless box: what blocks air sits on the fins
	blows   []blow
}

// blow is a moment when a part of a lint mat lets go.
type blow struct {
	hour  int
	keeps float64
}

// level is the severity at an hour as a share of the full one.
func (f *fault) level(h int) float64 {
	if h < f.on || h >= f.off {
		return 0
	}
	x := float64(h-f.on) / f.grow
	switch f.cause {
	case Vent, FanStop, Stuck, HVAC:
		return 1
	case Paste: // pump-out goes with power cycles and ends when the gap is dry
		return (1 - math.Exp(-3*min(x, 1))) / (1 - math.Exp(-3))
	case Lint:
		return f.mat(h)
	}
	return math.Pow(min(x, 1), f.bend)
}

// mat grows within grow hours, loses a part at each blow and grows back
// slower, at a twentieth of the pace.
func (f *fault) mat(h int) float64 {
	level, from, pace := 0.0, f.on, 1/f.grow
	for _, b := range f.blows {
		if b.hour > h {
			break
		}
		level = min(1, level+float64(b.hour-from)*pace) * b.keeps
		from, pace = b.hour, 0.05/f.grow
	}
	return min(1, level+float64(h-from)*pace)
}

// apply adds the fault at a level to a condition.
func (f *fault) apply(c *condition, level float64) {
	switch f.cause {
	case Lint, Vent:
		f.block(c, 1+(f.top-1)*level, level)
	case FanWear:
		c.fan[f.fan] *= 1 - f.top*level
	case FanStop:
		c.fan[f.fan] = 0
	case Paste:
		c.tim *= 1 + (f.top-1)*level
	case SSD:
		c.nvmeHeat *= 1 + f.top*level
	case PSU:
		c.psuLoss += f.top * level
	}
}

// block adds a resistance in the way of the air.
func (f *fault) block(c *condition, factor, level float64) {
	switch {
	case f.fins:
		c.fin *= factor
	case f.cause == Lint:
		c.filter *= factor
		c.chassis *= 1 + (factor-1)*0.3
	default:
		c.chassis *= factor
		c.recirc += 0.06 * level
	}
}

// worn is the loading of filter or fins as a share of life: x is loading, 1
// the loading that the site class' service interval reaches.
func worn(law string, x float64) float64 {
	switch law {
	case "exponential":
		return math.Expm1(4*x) / math.Expm1(4)
	case "knee": // depth loading, then a cake
		if x < 0.6 {
			return 0.15 * x / 0.6
		}
		return 0.15 + 0.85*(x-0.6)/0.4
	case "linear": // coarse foam: dust settles in its depth, and Darcy's law adds layer to layer
		return x
	case "steps": // clumps of lint are drawn in now and then; between them little comes
		k, part := math.Modf(5 * x)
		s := clamp((part-0.6)/0.4, 0, 1)
		return 0.25*x + 0.75*(k+s*s*(3-2*s))/5
	case "caking": // a cake from the first gram on, whose pores blind later
		return 0.5*x + 0.5*math.Pow(x, 4)
	case "saturating": // Kern and Seaton: deposit and removal balance
		return math.Expm1(-2*x) / math.Expm1(-2)
	}
	return math.Pow(x, 2.4)
}

// dustOn is the part of a condition that dust makes: f is worn, strength the
// calibrated factor on resistance at f = 1.
func (h *hardware) dustOn(c *condition, f, strength float64) {
	switch {
	case h.fans == 0:
		c.fin *= 1 + (strength-1)*f
	case h.filtered:
		c.filter *= 1 + (strength-1)*f
		c.fin *= 1 + 0.04*min(f, 1)
	default:
		c.filter *= 1 + (strength-1)*f
		c.chassis *= 1 + (strength-1)*f*0.5
		c.fin *= 1 + 0.12*min(f, 1)
	}
}

// calibrate finds the factor for which a fault raises the resistance of a
// clean box by rise at its usual duty and load, and what rise it reaches.
func (b *box) calibrate(rise float64, apply func(c *condition, strength float64)) (strength, reached float64) {
	c := clean()
	want := b.hw.resistance(&c, b.refDuty, b.refWatts)
	at := func(k float64) float64 {
		c := clean()
		apply(&c, k)
		return b.hw.resistance(&c, b.refDuty, b.refWatts)/want - 1
	}
	lo, hi := 0.0, math.Log(500)
	for range 40 {
		mid := (lo + hi) / 2
		if at(math.Exp(mid)) < rise {
			lo = mid
		} else {
			hi = mid
		}
	}
	return math.Exp(lo), at(math.Exp(lo))
}
