package plant

import (
	"math"
	"math/rand/v2"
)

// chassis is what boxes of one shape have in common.
type chassis struct {
	fansLo, fansHi  int
	watts, trip     span // full power of the die, °C
	rpm             span // at full duty
	filtered        float64
	exhaust, board  float64 // shares of SKUs with such a sensor
	ipmi            bool    // readings in whole degrees and coarse rpm
	bursty          float64 // factor on bursts
	sun             float64 // share that hangs on a sunny wall
	recirc, offCool float64 // added recirculation; K above the room where it stands
}

func chassisOf(kind string) chassis {
	switch kind {
	case "itx": // a down-draught cooler on a small board
		return chassis{fansLo: 1, fansHi: 2, watts: span{35, 95}, trip: span{88, 98}, rpm: span{1900, 3800}, filtered: 0.25, board: 0.9, bursty: 1, sun: 0.02, recirc: 0.01, offCool: 1}
	case "mini": // a blower in a box of the size of a book
		return chassis{fansLo: 1, fansHi: 1, watts: span{12, 38}, trip: span{91, 100}, rpm: span{3200, 5600}, filtered: 0.1, board: 0.5, bursty: 1, offCool: 1}
	case "1u": // 40 mm fans under a BMC
		return chassis{fansLo: 3, fansHi: 4, watts: span{60, 140}, trip: span{86, 95}, rpm: span{9000, 16000}, filtered: 0.15, exhaust: 0.4, board: 1, ipmi: true, bursty: 1, offCool: 1}
	case "2u": // 60 and 80 mm fans under a BMC
		return chassis{fansLo: 2, fansHi: 4, watts: span{80, 200}, trip: span{86, 96}, rpm: span{4500, 9500}, filtered: 0.2, exhaust: 0.5, board: 1, ipmi: true, bursty: 1, offCool: 1}
	case "din": // on a rail in a switch cabinet
		return chassis{fansLo: 1, fansHi: 2, watts: span{15, 55}, trip: span{92, 100}, rpm: span{4800, 8500}, filtered: 0.6, board: 0.8, bursty: 1.2, recirc: 0.03, offCool: 3}
	case "tower": // an office computer
		return chassis{fansLo: 2, fansHi: 3, watts: span{50, 120}, trip: span{86, 96}, rpm: span{1200, 2400}, filtered: 0.5, board: 0.9, bursty: 1.2, sun: 0.02, offCool: 1}
	case "rack":
		return chassis{3, 4, span{90, 220}, span{88, 98}, span{7000, 14000}, 0.6, 0.7, 0.9, true, 1, 0, 0, 1}
	case "module":
		return chassis{1, 1, span{15, 45}, span{90, 98}, span{4500, 7000}, 0.4, 0, 0.8, false, 1, 0.05, 0, 1}
	case "wall":
		return chassis{1, 2, span{20, 60}, span{90, 97}, span{3000, 6000}, 0.5, 0, 0.7, false, 2.2, 0.4, 0.02, 2}
	case "fanless":
		return chassis{0, 0, span{10, 28}, span{92, 100}, span{}, 0, 0, 0.7, false, 1, 0.2, 0, 1}
	case "cabinet":
		return chassis{2, 3, span{40, 110}, span{88, 97}, span{2500, 5000}, 1, 0.3, 0.8, false, 1, 0.3, 0.08, 4}
	case "kiosk": // stands on its own, often in the sun, behind a filter fan
		return chassis{2, 3, span{30, 90}, span{90, 99}, span{2800, 5200}, 0.9, 0.2, 0.8, false, 1.4, 0.6, 0.06, 3}
	case "ceiling": // under the lamps, in the warm layer of the room
		return chassis{1, 2, span{25, 70}, span{88, 97}, span{2600, 5200}, 0.2, 0, 0.7, false, 1, 0.05, 0.03, 4}
	case "blower": // a workstation around an accelerator card with a radial fan
		return chassis{1, 2, span{60, 150}, span{86, 94}, span{3000, 5600}, 0.3, 0.4, 0.8, false, 1.5, 0.05, 0.02, 1}
	}
	return chassis{1, 3, span{45, 120}, span{85, 97}, span{2200, 4500}, 0.7, 0, 0.8, false, 1, 0.05, 0, 1}
}

// sku is a product: hardware, firmware and sensors of a cohort.
type sku struct {
	id, kind string
	chassis  chassis
	hw       hardware
	ctl      control
	sense    sensorKit
	law      string
	clogRise span
}

// hotRoom is the inlet of the day that a SKU's margin is stated for, °C.
const hotRoom = 32.0

func drawSKU(f *recipe, r *rand.Rand) sku {
	var s sku
	for range 60 {
		s = trySKU(f, r)
		if s.hw.fans == 0 {
			break
		}
		if g := s.hw.rpmSlope(); g > -0.70 && g < -0.29 {
			break
		}
	}
	return s
}

func trySKU(f *recipe, r *rand.Rand) sku {
	draw := func(name string) float64 { return f.Spans[name].draw(r) }
	s := sku{kind: pick(r, f.Structure[chassisKind]), law: pick(r, f.Structure[dustLaw]), clogRise: f.Spans[clogRise]}
	s.chassis = chassisOf(s.kind)
	c := &s.chassis
	full := c.watts.draw(r)
	h := hardware{
		fans: c.fansLo + r.IntN(c.fansHi-c.fansLo+1), phi: draw(fanPoint), shape: draw(fanShape),
		backflow: 0.15 + 0.2*r.Float64(), filtered: r.Float64() < c.filtered, convExp: draw(convExp),
		rpmMax: c.rpm.draw(r), rpmFloor: 0.08 * r.Float64(), unloading: 0.01 + 0.02*r.Float64(), strength: 1,
		pOther: full * (0.12 + 0.18*r.Float64()), trip: math.Round(c.trip.draw(r)), tripHyst: 2 + 4*r.Float64(),
		throttleTo: 0.35 + 0.25*r.Float64(), clockHz: (1.2 + 2*r.Float64()) * 1e9,
		psuEta: 0.88 + 0.05*r.Float64(), psuInside: c.ipmi || r.Float64() < 0.3,
		boardExp: 0.4 + 0.3*r.Float64(), pNVMe: 1.5 + 3*r.Float64(), recirc: c.recirc + draw(recirc),
	}
	h.filterShare = draw(filterShare)
	if !h.filtered {
		h.filterShare *= 0.3
	}
	if f.kind(fanCurve, "plain", r) == "stall" {
		h.bulge = f.extra(stall, r)
	}
	leak := draw(leakShare)
	h.pLeak, h.kLeak = leak*full, draw(leakSlope)
	h.pIdle = full * (0.12 + 0.15*r.Float64())
	h.pDyn = full - h.pIdle - h.pLeak
	s.hw = h
	s.sizeCooling(f, r, full)
	s.hw.rBoard = (4 + 6*r.Float64()) / full
	s.hw.rNVMe = 4 + 4*r.Float64()
	s.hw.cDie, s.hw.cSink = 0.15*full, full*(1.5+2.5*r.Float64())
	s.ctl = drawControl(f, r, &s.hw)
	s.sense = drawSensors(f, r, &s)
	return s
}

// sizeCooling chooses resistances so that the clean box at full power, full
// duty and hotRoom stays the family's margin below its trip.
func (s *sku) sizeCooling(f *recipe, r *rand.Rand, full float64) {
	c := &s.hw
	total := c.trip - f.Spans[margin].draw(r) - hotRoom - s.chassis.offCool
	air := f.Spans[airRise].draw(r)
	c.airPerWatt = air / (full * 1.25)
	c.airShare = 0.3 + 0.4*r.Float64()
	w := f.Spans[convShare].draw(r)
	rest := (total - c.airShare*air) / full
	tim := 0.35 + 0.25*r.Float64()
	c.rJC, c.rTIM, c.rConv = rest*(1-w)*(1-tim), rest*(1-w)*tim, rest*w
	c.gNat = (0.05 + 0.05*r.Float64()) / c.rConv
	if s.chassis.fansHi == 0 { // fins outside: all heat leaves by natural convection, and h counts dT^¼
		c.airPerWatt, c.airShare, c.rConv, c.recirc = 0, 0, 1, 0
		sink := w * rest * full
		c.gNat = full / sink / root4(sink/30)
	}
}

// rpmSlope is d ln R / d ln rpm of the clean box over its usual duties.
func (h *hardware) rpmSlope() float64 {
	c, watts := clean(), h.pIdle+0.6*h.pDyn
	lo, hi := 0.4, 0.85
	return math.Log(h.resistance(&c, hi, watts)/h.resistance(&c, lo, watts)) / math.Log(h.speed(hi)/h.speed(lo))
}

// piece is the hardware of one box: the SKU with tolerances of manufacture.
func (s *sku) piece(f *recipe, r *rand.Rand) hardware {
	h := s.hw
	tol := f.Spans[tolerance].draw(r)
	vary := func(x float64) float64 { return x * math.Exp(tol*r.NormFloat64()) }
	h.rJC, h.rTIM, h.rConv, h.pIdle, h.pDyn, h.pLeak = vary(h.rJC), vary(h.rTIM), vary(h.rConv), vary(h.pIdle), vary(h.pDyn), vary(h.pLeak)
	h.gNat, h.rBoard, h.rNVMe = vary(h.gNat), vary(h.rBoard), vary(h.rNVMe)
	for i := range h.fanTol {
		h.fanTol[i] = math.Exp(0.01 * r.NormFloat64())
	}
	return h
}
