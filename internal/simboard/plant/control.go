package plant

import (
	"math"
	"math/rand/v2"
)

// control is the fan firmware of a SKU.
//
//	linear     duty straight from tLo to tHi, hysteresis on the way down
//	zero-rpm   linear, but stands below tStop until tStart
//	steps      a table, each step with hysteresis
//	target     an integrator that holds the die at a temperature
//	open-loop  duty from inlet and power, blind to the die
//	quiet      linear, but the duty rises with the square: silent until it is hot
//	either     the higher of linear from the die and a line from the inlet
//	fixed      one duty for all its life
//	none       no fan
type control struct {
	kind          string
	tLo, tHi      float64 // °C
	dMin          float64
	hyst          float64 // K
	tStop, tStart float64 // °C, zero-rpm
	steps         int
	target        float64 // °C
	byInlet       float64 // duty per K above 20 °C
	byPower       float64 // duty per share of full power
	quiet         bool
	always        float64 // duty, fixed
}

func drawControl(f *recipe, r *rand.Rand, h *hardware) control {
	c := control{kind: pick(r, f.Structure[controller]), dMin: 0.2 + 0.15*r.Float64(), hyst: 1.5 + 2.5*r.Float64()}
	switch {
	case h.fans == 0:
		c.kind = "none"
	case h.fans > 2 && c.kind == "zero-rpm": // servers keep their fans turning
		c.kind = "linear"
	}
	c.quiet = c.kind == "quiet"
	if _, ok := f.Spans[fanHyst]; ok {
		c.hyst = f.extra(fanHyst, r)
	}
	c.tLo, c.tHi = 40+8*r.Float64(), h.trip-5-7*r.Float64()
	c.steps, c.tStart = 4+r.IntN(4), c.tLo+6
	c.tStop = c.tLo
	c.target = h.trip - 14 - 10*r.Float64()
	c.byInlet, c.byPower = 0.012+0.01*r.Float64(), 0.5+0.2*r.Float64()
	if c.kind == "fixed" {
		c.always = min(1, 0.6+0.6*r.Float64())
	}
	return c
}

// ctlState is what firmware remembers: the duty and the temperature it was set for.
type ctlState struct {
	duty, set float64
	off       bool
}

func (c *control) curve(t float64) float64 {
	if c.quiet {
		x := clamp((t-c.tLo)/(c.tHi-c.tLo), 0, 1)
		return c.dMin + (1-c.dMin)*x*x
	}
	return clamp(c.dMin+(1-c.dMin)*(t-c.tLo)/(c.tHi-c.tLo), c.dMin, 1)
}

// either is the higher of what die and inlet ask for.
func (c *control) either(p *point) float64 {
	return max(c.curve(p.die), clamp(c.dMin+2*c.byInlet*(p.inlet-20), c.dMin, 1))
}

// stair is the table of steps: the duty of the step that t lies on.
func (c *control) stair(t float64) float64 {
	n := float64(c.steps)
	k := clamp(math.Ceil((t-c.tLo)/(c.tHi-c.tLo)*n), 0, n)
	return c.dMin + (1-c.dMin)*k/n
}

// next is the duty the firmware asks for when it reads p; s is changed.
func (c *control) next(s *ctlState, p *point, seconds float64) float64 {
	const up = 0.4 // K: the way up has a small dead band
	shape := c.curve
	switch c.kind {
	case "none":
		s.duty = 0
		return 0
	case "target":
		s.duty = clamp(s.duty+(p.die-c.target)*0.001*seconds, c.dMin, 1)
		return s.duty
	case "open-loop":
		s.duty = c.blind(p)
		return s.duty
	case "fixed":
		s.duty = c.always
		return s.duty
	case "either":
		s.duty = c.either(p)
		return s.duty
	case "zero-rpm":
		if s.off = s.off && p.die < c.tStart || p.die < c.tStop; s.off {
			s.duty, s.set = 0, p.die
			return 0
		}
		if s.duty == 0 {
			s.set = -100
		}
	case "steps":
		shape = c.stair
	}
	switch {
	case p.die > s.set+up:
		s.set = p.die
		s.duty = shape(s.set)
	case p.die < s.set-c.hyst:
		s.set = p.die + c.hyst
		s.duty = shape(s.set)
	}
	return s.duty
}

func (c *control) blind(p *point) float64 {
	return clamp(c.dMin+c.byInlet*(p.inlet-20)+c.byPower*p.loadShare, c.dMin, 1)
}

// settle is the state after an hour's quarter at one load: the fixed point of
// firmware and physics, which with hysteresis depends on where it came from.
func (m *machine) settle(s *ctlState, watts, air float64) point {
	c := &m.ctl
	here := m.at(s.duty, watts, air)
	const up = 0.4
	switch c.kind {
	case "none":
		s.duty = 0
		return here
	case "fixed":
		s.duty = c.always
		return m.at(s.duty, watts, air)
	case "open-loop":
		for range 2 {
			s.duty = c.blind(&here)
			here = m.at(s.duty, watts, air)
		}
		return here
	case "target":
		return m.solve(s, &here, func(p *point) float64 { return p.die - c.target })
	case "either":
		return m.solve(s, &here, func(p *point) float64 { return (c.either(p) - p.duty) * 50 })
	case "steps":
		for range 2 * c.steps {
			before := s.duty
			if c.next(s, &here, 0); s.duty == before {
				break
			}
			here = m.at(s.duty, watts, air)
		}
		return here
	case "zero-rpm":
		if s.off || s.duty == 0 {
			if here.die < c.tStart {
				s.off, s.set = true, here.die
				return here
			}
			s.off, s.set = false, -100
		}
	}
	shift := 0.0
	switch {
	case here.die > s.set+up:
	case here.die < s.set-c.hyst:
		shift = c.hyst
	default:
		return here
	}
	p := m.solve(s, &here, func(p *point) float64 { return (c.curve(p.die+shift) - p.duty) * 50 })
	s.set = p.die + shift
	if c.kind == "zero-rpm" && p.die < c.tStop {
		s.off, s.duty, s.set = true, 0, p.die
		return m.cycle(p, watts, air)
	}
	return p
}

// cycle is the mean of a fan that starts and stops: standing the die gets
// too hot, turning too cold.
func (m *machine) cycle(on point, watts, air float64) point {
	c := &m.ctl
	off := m.at(0, watts, air)
	if off.die < c.tStart {
		return off
	}
	middle := (c.tStart + c.tStop) / 2
	w := (off.die - middle) / (off.die - on.die)
	off.duty, off.die = w*on.duty, middle
	off.inlet += w * (on.inlet - off.inlet)
	off.airRise += w * (on.airRise - off.airRise)
	off.still = 1 / (w/on.still + (1-w)/off.still)
	return off
}

// solve finds the duty where excess, which falls as the duty grows, is zero
// (regula falsi, Illinois variant). It starts from the last duty.
func (m *machine) solve(s *ctlState, here *point, excess func(*point) float64) point {
	watts, air := here.dynamic, here.room
	lo, hi := m.ctl.dMin, 1.0
	fhere := excess(here)
	flo, fhi := fhere, fhere
	p := *here
	switch {
	case fhere > 0:
		lo = max(lo, here.duty)
		if p = m.at(hi, watts, air); excess(&p) >= 0 {
			s.duty = hi
			return p
		}
		fhi = excess(&p)
		if here.duty < lo { // it stood, or the floor was raised
			low := m.at(lo, watts, air)
			if flo = excess(&low); flo <= 0 {
				s.duty = lo
				return low
			}
		}
	default:
		hi = max(lo, here.duty)
		if p = m.at(lo, watts, air); excess(&p) <= 0 {
			s.duty = lo
			return p
		}
		flo = excess(&p)
	}
	last := 0.0
	for range 12 {
		x := (lo*fhi - hi*flo) / (fhi - flo)
		p = m.at(x, watts, air)
		f := excess(&p)
		if math.Abs(f) < 0.03 { // K
			break
		}
		if f > 0 {
			lo, flo = x, f
			if last > 0 {
				fhi /= 2
			}
		} else {
			hi, fhi = x, f
			if last < 0 {
				flo /= 2
			}
		}
		last = f
	}
	s.duty = p.duty
	return p
}
