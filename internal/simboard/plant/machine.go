package plant

import "math"

// box is one box of the fleet as built.
type box struct {
	id       string
	sku      *sku
	site     *site
	hw       hardware
	fit      fitting
	load     load
	seed     uint64
	start    int // hour of commissioning
	standOff float64
	mixSD    float64
	airSD    float64 // K
	sun      float64 // K at full sun
	skew     skewed
	plan     plan
	refDuty  float64 // where the truth measures resistance
	refWatts float64
}

// machine is a box in a condition, ready to be asked for its temperatures.
type machine struct {
	box  *box
	hw   hardware // with another fan model or power mode, if that happened
	ctl  control  // as the present firmware has it
	cond condition
	tab  table
	mix  float64 // factor on Rjc: which units of the die are busy this hour
	gust float64 // K of air at the sink that the inlet sensor does not see
	last float64 // die temperature of the last answer: the start of the next
}

// point is the settled state of a box at one load.
type point struct {
	die, inlet, airRise float64 // °C, °C, K
	room                float64 // °C, around the box
	sink                float64 // heat sink over the air around it, K
	duty, still         float64 // ratio; 1/flow
	pDie, pDC, pIn      float64 // W: package, board, wall
	dynamic             float64 // W of the load that was served
	loadShare           float64 // of full power
	throttled           float64 // share of the time
}

func newMachine(b *box, hw hardware, c condition) *machine {
	m := &machine{box: b, hw: hw, ctl: b.sku.ctl, cond: c, mix: 1, last: 50}
	m.hw.fill(&m.tab, &m.cond)
	return m
}

func (m *machine) setCondition(c condition) {
	if c != m.cond {
		m.cond = c
		m.hw.fill(&m.tab, &m.cond)
	}
}

// at is the settled state at a duty, a dynamic power and a room temperature.
// Leakage and natural convection are found by iterating from the last answer.
func (m *machine) at(duty, dynamic, room float64) point {
	h, c := &m.hw, &m.cond
	conv, still := m.tab.look(duty)
	inner := m.inner()
	back := h.recirc + c.recirc
	back /= 1 - back
	p := point{duty: duty, still: still, dynamic: dynamic, room: room}
	t, sink := m.last, 20.0
	rounds := 2
	if conv == 0 {
		rounds = 8
	}
	for range rounds {
		p.pDie = h.pIdle + dynamic + h.leak(t)
		p.pDC = p.pDie + h.pOther + (c.nvmeHeat-1)*h.pNVMe
		p.pIn = p.pDC / (h.psuEta - c.psuLoss)
		heat := p.pDC
		if h.psuInside {
			heat = p.pIn
		}
		p.airRise = heat * h.airPerWatt * still
		p.inlet = room + back*p.airRise
		sink = p.pDie * c.fin / (h.gNat*root4(sink/30) + conv)
		t = p.inlet + m.gust + h.airShare*p.airRise + p.pDie*inner + sink
		t = min(t, 200) // silicon has cut its power long before
	}
	m.last = t
	p.die, p.sink = t, sink
	p.loadShare = (p.pDie - h.pLeak) / (h.pIdle + h.pDyn)
	return p
}

// inner is the resistance from die to sink, K/W.
func (m *machine) inner() float64 {
	return m.hw.rJC*m.cond.spread*m.mix + m.hw.rTIM*m.cond.tim
}

// serve is settle with the throttle: above the trip the clock falls until the
// die has cooled by the hysteresis, and the shares of time balance.
func (m *machine) serve(s *ctlState, dynamic, room float64) point {
	p := m.settle(s, dynamic, room)
	h := &m.hw
	if p.die < h.trip {
		return p
	}
	low := m.at(p.duty, dynamic*h.throttleTo, room)
	middle := h.trip - h.tripHyst/2
	if low.die >= middle { // the last resort of the silicon: a crawl
		low = m.at(p.duty, dynamic*0.1, room)
		low.throttled = 1
		return low
	}
	w := (p.die - middle) / (p.die - low.die)
	mid := m.at(p.duty, dynamic*(1-w+w*h.throttleTo), room)
	mid.throttled = w
	return mid
}

// shutDown is how far above its trip a box switches itself off, K.
const shutDown = 8.0

// board is the temperature of the board's sensor.
func (m *machine) board(p *point) float64 {
	h := &m.hw
	if h.fans == 0 {
		return p.inlet + 0.45*p.sink + p.pDC*h.rBoard*0.3
	}
	return p.inlet + 0.5*p.airRise + p.pDC*h.rBoard*math.Pow(p.still, h.boardExp)
}

// nvme is the temperature of the SSD behind the intake.
func (m *machine) nvme(p *point, busy float64) float64 {
	h := &m.hw
	watts := h.pNVMe * m.cond.nvmeHeat * (0.35 + 0.65*busy)
	if h.fans == 0 {
		return p.inlet + 0.45*p.sink + watts*h.rNVMe*0.5
	}
	return p.inlet + 0.6*p.airRise + watts*h.rNVMe*math.Sqrt(p.still)
}

// rpm is the true speed of fan i: a choked fan unloads and turns a little faster.
func (m *machine) rpm(i int, duty, stillness float64) float64 {
	h := &m.hw
	s := h.speed(duty)
	if s == 0 {
		return 0
	}
	choke := 1 - min(1, 1/(stillness*s))
	return h.rpmMax * h.fanTol[i] * s * m.cond.fan[i] * (1 + h.unloading*choke)
}
