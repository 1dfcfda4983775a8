package simboard

import (
	"math"
	"time"
)

// physics are the constants of one kind of board.
type physics struct {
	idleWatts, busyWatts float64 // drawn at no load, and in addition at full load
	dieJPerK, sinkJPerK  float64 // heat capacities
	coldPlate            float64 // K/W from die to heat sink: package and paste
	fins                 float64 // K/W from heat sink to air at full clean flow
	airWPerK             float64 // W/K that the full clean air stream carries
	filterDust           float64 // how much one unit of dust adds to the filter's drag
	fanMaxRPM            float64
	fanFloor             float64       // lowest duty of the firmware curve
	fanFrom, fanFull     float64       // °C of the die between which the duty grows
	limitCelsius         float64       // the firmware throttles from here on
	noiseKelvin          float64       // of a temperature reading, standard deviation
	fanLag               time.Duration // of the firmware behind its curve
}

// model is the state of the physics. Temperatures in °C.
type model struct {
	physics
	die, sink, inlet float64
	duty             float64 // of the fan, 0 to 1
	speed            float64 // of the fan, share of its highest
	seized           bool
	dust             float64
	power            float64 // W
	slowed           float64 // throttle depth, 0 to maxSlowed
	throttles        float64 // events since start
	energy           float64 // J since start
	busy             float64
}

const (
	maxSlowed = 10   // steps of the cooling device
	slowPower = 0.07 // of the busy power that each step saves
	// dryFlow is the flow by natural convection, as a share of the full one.
	dryFlow = 0.04
	// longestSubstep keeps the fan and the throttle loop stable.
	longestSubstep = 1.0 // s
	maxSubsteps    = 3600
)

func newModel(p physics, ambient float64) model {
	m := model{physics: p, inlet: ambient, power: p.idleWatts, duty: p.fanFloor, speed: p.fanFloor}
	m.die, m.sink = ambient+6, ambient+4
	return m
}

// advance runs the model for some simulated seconds at one load. A step longer
// than an hour is taken in an hour's worth of longer substeps: the heat nodes
// are integrated implicitly and settle, whatever the length.
func (m *model) advance(seconds, busy float64) {
	n := min(max(math.Ceil(seconds/longestSubstep), 1), maxSubsteps)
	h := seconds / n
	m.busy = busy
	for range int(n) {
		m.substep(h)
	}
}

func (m *model) substep(h float64) {
	m.power = m.idleWatts + m.busyWatts*m.busy*(1-slowPower*m.slowed)
	m.energy += m.power * h
	m.fan(h)
	q := m.flow()
	// Sink to inlet: the fins, and the air that is warm already (half of its
	// rise counts). h of the fins grows with q^0.6, between laminar and turbulent.
	toAir := m.fins*math.Pow(q, -0.6) + 0.5/(m.airWPerK*q)
	// Implicit Euler for
	//   dieJPerK  d(die)/dt  = power - (die-sink)/coldPlate
	//   sinkJPerK d(sink)/dt = (die-sink)/coldPlate - (sink-inlet)/toAir
	a, b := h/(m.dieJPerK*m.coldPlate), h/(m.sinkJPerK*m.coldPlate)
	c := h / (m.sinkJPerK * toAir)
	die0 := m.die + h*m.power/m.dieJPerK
	sink0 := m.sink + c*m.inlet
	m.sink = (sink0 + b*die0/(1+a)) / (1 + b + c - a*b/(1+a))
	m.die = (die0 + a*m.sink) / (1 + a)
	m.throttle(h)
}

// fan follows the firmware's curve with a lag.
func (m *model) fan(h float64) {
	want := m.fanFloor + (1-m.fanFloor)*(m.die-m.fanFrom)/(m.fanFull-m.fanFrom)
	want = min(max(want, m.fanFloor), 1)
	follow := 1 - math.Exp(-h/m.fanLag.Seconds())
	m.duty += (want - m.duty) * follow
	speed := m.duty
	if m.seized {
		speed = 0
	}
	m.speed += (speed - m.speed) * (1 - math.Exp(-h/2)) // a rotor runs down in seconds
	if m.speed < 0.01 {
		m.speed = 0
	}
}

func (m *model) rpm() float64 { return m.speed * m.fanMaxRPM }

// flow is where the fan's curve, s² - q², meets the drag of filter and chassis,
// a·q + b·q²: a filter drags in proportion to the flow (Darcy), a chassis to
// its square. Loading is convex: drag grows with the square of the dust.
func (m *model) flow() float64 {
	const chassis = 0.6
	drag := func(dust float64) float64 { return 0.25 + m.filterDust*dust*dust }
	at := func(a, s float64) float64 {
		return (-a + math.Sqrt(a*a+4*(1+chassis)*s*s)) / (2 * (1 + chassis))
	}
	return max(at(drag(m.dust), m.speed)/at(drag(0), 1), dryFlow)
}

// throttle deepens by a step per second above the limit and eases below.
func (m *model) throttle(h float64) {
	before := m.slowed
	switch {
	case m.die >= m.limitCelsius:
		m.slowed = min(m.slowed+h, maxSlowed)
	case m.die < m.limitCelsius-4:
		m.slowed = max(m.slowed-h, 0)
	}
	if m.slowed > before {
		m.throttles++
	}
}

// inletAt is the room with its day curve: warmest at 15 h, coldest at 3 h.
func (b *Board) inletAt(now time.Time) float64 {
	simulated := b.started.Add(b.opts.ClockOffset).
		Add(time.Duration(now.Sub(b.started).Seconds() * b.opts.TimeScale * float64(time.Second)))
	hour := float64(simulated.UTC().Unix()%86400) / 3600
	return b.opts.Ambient + 3*math.Cos((hour-15)/24*2*math.Pi)
}
