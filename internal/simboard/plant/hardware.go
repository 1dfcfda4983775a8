package plant

import "math"

const (
	// naturalFlow is the share of the design flow that buoyancy alone drives.
	naturalFlow = 0.12
	// leakAt is the die temperature that leakage is given for.
	leakAt   = 60.0
	maxFans  = 4
	gridSize = 33
)

// hardware is one box as built: its SKU with the tolerances of this piece.
// Flow is in units of the clean design flow, fan speed of its maximum.
type hardware struct {
	fans        int
	phi         float64 // design flow as a share of the fan's free flow
	shape       float64 // linear share of the fan curve, 0 is a parabola
	bulge       float64 // of a fan curve with a stall, instead of shape
	backflow    float64 // reverse flow through a stopped fan
	filterShare float64 // share of the filter in the clean pressure drop
	filtered    bool    // dust loads a filter; without one it loads the fins
	airPerWatt  float64 // 1/(ρ c Q) at design flow, K/W; 0 if nothing flows
	airShare    float64 // share of the air's rise that the heat sink sees
	recirc      float64 // share of the exhaust that comes back
	convExp     float64
	rJC, rTIM   float64 // K/W
	rConv, gNat float64 // K/W at design flow; W/K at 30 K

	rpmMax    float64
	rpmFloor  float64 // speed at duty 0 of the straight duty-to-speed line
	unloading float64 // rise of rpm when the flow is choked
	strength  float64 // speed that moves the same air in the original fan; another model differs
	fanTol    [maxFans]float64

	pIdle, pDyn, pOther float64 // W
	pLeak, kLeak        float64 // W at leakAt; 1/K
	psuEta              float64
	psuInside           bool
	trip, tripHyst      float64 // °C, K
	throttleTo          float64 // share of the dynamic power left when throttled
	clockHz             float64

	rBoard, boardExp float64 // K/W at design flow
	pNVMe, rNVMe     float64
	cDie, cSink      float64 // J/K
}

// condition is what dust, wear and people have done to a box.
type condition struct {
	filter   float64          // factor on the filter's resistance
	chassis  float64          // factor on the chassis' resistance
	fin      float64          // factor on convective resistance
	tim      float64          // factor on the paste's resistance
	fan      [maxFans]float64 // speed of each fan at equal duty, 0 is stopped
	recirc   float64          // added to the hardware's
	spread   float64          // factor on Rjc: where on the die a model works
	psuLoss  float64          // taken from the efficiency
	nvmeHeat float64          // factor on the SSD's own heat
}

func clean() condition {
	return condition{filter: 1, chassis: 1, fin: 1, tim: 1, fan: [maxFans]float64{1, 1, 1, 1}, spread: 1, nvmeHeat: 1}
}

// speed is the affinity speed of a healthy fan at a duty.
func (h *hardware) speed(duty float64) float64 {
	if duty < 0.05 || h.fans == 0 {
		return 0
	}
	return h.rpmFloor + (1-h.rpmFloor)*duty
}

// flow is where fans and system meet, in units of the clean design flow.
func (h *hardware) flow(c *condition, duty float64) float64 {
	s := h.speed(duty) * h.strength
	if s == 0 {
		return 0
	}
	top := 1 / h.head(h.phi) // shut-off pressure at full speed
	a, b := h.filterShare*c.filter, (1-h.filterShare)*c.chassis
	equal := true
	for i := 1; i < h.fans; i++ {
		equal = equal && c.fan[i] == c.fan[0]
	}
	if equal {
		s *= c.fan[0]
		if h.bulge > 0 {
			return s / h.phi * bisect(1, func(phi float64) bool {
				y := phi * s / h.phi
				return top*s*s*h.head(phi) > y*(a+b*y)
			})
		}
		// top s²(1 − shape φ − (1−shape) φ²) = a y + b y², φ = phi·y/s: a quadratic in y.
		qa := b + top*(1-h.shape)*h.phi*h.phi
		qb := a + top*h.shape*h.phi*s
		return 2 * top * s * s / (qb + math.Sqrt(qb*qb+4*qa*top*s*s))
	}
	lo, hi := 0.0, 0.0 // pressure; the fans' flow falls with it, the system's rises
	for i := range h.fans {
		hi = max(hi, top*s*s*c.fan[i]*c.fan[i])
	}
	system := func(p float64) float64 { return 2 * p / (a + math.Sqrt(a*a+4*b*p)) }
	for range 22 {
		mid := (lo + hi) / 2
		if h.fanFlow(c, s, mid/top) > system(mid) {
			lo = mid
		} else {
			hi = mid
		}
	}
	return system((lo + hi) / 2)
}

// head is the pressure of the fan curve at a share of free flow, of the
// shut-off pressure. An axial fan has a knee where its blades stall.
func (h *hardware) head(phi float64) float64 {
	if h.bulge > 0 {
		return (1 - phi) * (1 + h.bulge*phi*phi)
	}
	return 1 - h.shape*phi - (1-h.shape)*phi*phi
}

// against is the share of free flow at which the head is 1 − room.
func (h *hardware) against(room float64) float64 {
	if h.bulge > 0 {
		return bisect(1, func(phi float64) bool { return h.head(phi) > 1-room })
	}
	return 2 * room / (h.shape + math.Sqrt(h.shape*h.shape+4*(1-h.shape)*room))
}

// bisect finds where below, which is true from 0 on, ends.
func bisect(hi float64, below func(float64) bool) float64 {
	lo := 0.0
	for range 30 {
		if mid := (lo + hi) / 2; below(mid) {
			lo = mid
		} else {
			hi = mid
		}
	}
	return (lo + hi) / 2
}

// fanFlow is what unequal fans in parallel move against a pressure, given as
// a share of the shut-off pressure at full speed.
func (h *hardware) fanFlow(c *condition, s, p float64) float64 {
	sum := 0.0
	for i := range h.fans {
		v := s * c.fan[i]
		room := v*v - p
		switch {
		case room < 0:
			sum -= h.backflow * math.Sqrt(-room)
		case v > 0:
			sum += h.against(room/(v*v)) * v / h.phi
		}
	}
	return sum / float64(h.fans)
}

// table holds what depends on the duty alone, for one condition of a box:
// solving the flow once a day instead of at every load point.
type table struct {
	conv  [gridSize]float64 // forced conductance, W/K, before fouling
	still [gridSize]float64 // 1/flow, not below buoyancy
}

func (h *hardware) fill(t *table, c *condition) {
	for i := range t.conv {
		t.conv[i], t.still[i] = h.convection(c, float64(i)/(gridSize-1))
	}
}

func (h *hardware) convection(c *condition, duty float64) (conductance, still float64) {
	y := h.flow(c, duty)
	if y > 0 {
		conductance = math.Pow(y, h.convExp) / h.rConv
	}
	return conductance, 1 / max(y, naturalFlow)
}

// look interpolates; below 5 % duty every fan stands.
func (t *table) look(duty float64) (conv, still float64) {
	if duty < 0.05 {
		return t.conv[0], t.still[0]
	}
	x := duty * (gridSize - 1)
	i := min(int(x), gridSize-2)
	w := x - float64(i)
	return t.conv[i] + w*(t.conv[i+1]-t.conv[i]), t.still[i] + w*(t.still[i+1]-t.still[i])
}

// resistance is (die − inlet)/power at a duty and a settled power: the
// yardstick of the truth. Leakage does not enter.
func (h *hardware) resistance(c *condition, duty, watts float64) float64 {
	conv, still := h.convection(c, duty)
	sink := 30.0
	for range 12 {
		sink = watts * c.fin / (h.gNat*root4(sink/30) + conv)
	}
	air := h.airShare * h.airPerWatt * still * (watts + h.pOther)
	return h.rJC*c.spread + h.rTIM*c.tim + (sink+air)/watts
}

func root4(x float64) float64 { return math.Sqrt(math.Sqrt(max(x, 0.01))) }

// leak is the leakage power: the first terms of an exponential in T.
func (h *hardware) leak(die float64) float64 {
	x := h.kLeak * (die - leakAt)
	return h.pLeak * (1 + x*(1+x*(0.5+x/6)))
}
