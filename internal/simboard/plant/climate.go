package plant

import (
	"math"
	"time"
)

// regime is how a house is heated and cooled.
//
//	plain        heated all year, cooled a little less when closed
//	conditioned  cooled and heated around the clock, as a computer room is
//	set-back     heating lowered and cooling off when closed
//	week-end     cooling off from Saturday afternoon to Monday morning
//	unheated     a hall or a hut that follows the weather
//	ovens        plain, with an oven from two to ten in the morning
//	chilled      a cold hall, whose coolers defrost every six hours
//	closet       a room without a window, with its own heat and cooled all year
//	glass        under a roof that lets the sun in, and half of the gains out
type regime struct {
	kind  string
	oven  float64 // K
	extra float64 // K: chill, closet or glass
	drop  float64 // K, of the set point when closed
	open  []window
	share []float64 // of outdoors − room, while the door is propped open
}

// hourly is what a regime does in one hour.
type hourly struct {
	hold  float64 // share of the way to the set point that cooling takes the room
	set   float64 // °C
	gain  float64 // K that the house is warmer than outdoors
	leaks float64 // share of the lack of heat that heating does not make good
	oven  float64 // K on top of all
	sun   float64 // K on top of all, at full sun
	inner float64 // share of the weather that does not get in
}

// settle draws the regime of a site and when somebody props its door open:
// deliveries, a cooling that is too weak, a defect door.
func (s *site) settle(f *Fleet) {
	r := streamOf(uint64(s.noise), "regime").rng()
	s.regime = regime{kind: f.family.kind(roomKind, "plain", r), drop: f.family.extra(setBack, r), oven: f.family.extra(oven, r)}
	for _, x := range []struct{ kind, name string }{{"chilled", chill}, {"closet", closet}, {"glass", glass}} {
		if s.regime.kind == x.kind {
			s.regime.extra = f.family.extra(x.name, r)
		}
	}
	for range poisson(r, f.family.Rates[doorOpen]*float64(f.opts.Days)/365) {
		from := r.IntN(f.hours)
		s.regime.open = append(s.regime.open, window{from, from + 3 + r.IntN(24*5)})
		s.regime.share = append(s.regime.share, f.family.extra(doorPull, r))
	}
}

func (g *regime) at(t time.Time, strength, set, gain float64) hourly {
	hour, day := t.Hour(), t.Weekday()
	open := hour >= 8 && hour < 20 && day != time.Sunday
	k := hourly{hold: strength, set: set, gain: gain, leaks: 0.15}
	if !open {
		k.hold *= 0.85
	}
	switch g.kind {
	case "conditioned":
		k.hold, k.leaks = max(strength, 0.95), 0.05
	case "set-back":
		if !open {
			k.hold, k.set, k.gain = 0.1, set-g.drop, 0.6*gain
		}
	case "week-end":
		if day == time.Sunday || day == time.Saturday && hour >= 14 || day == time.Monday && hour < 6 {
			k.hold, k.set, k.gain = 0.05, set-g.drop, 0.6*gain
		}
	case "ovens":
		if hour >= 2 && hour < 10 && day != time.Sunday {
			k.oven = g.oven
		}
	case "chilled":
		k.hold, k.set, k.leaks = max(strength, 0.95), set-g.extra, 0.05
		k.gain, k.inner = 0.6*gain, 0.4 // panels insulate it
		if hour%6 == 3 {
			k.hold = 0.3
		}
	case "closet":
		k.hold, k.gain, k.leaks, k.inner = max(strength, 0.95), g.extra, 0.05, 0.8
	case "glass":
		k.sun, k.gain = g.extra, 0.5*gain
	case "unheated":
		k.hold, k.gain, k.leaks = 0.3*strength, 0.5*gain, 0.9
	}
	return k
}

// propped is what a door that stays open in working hours adds to the room.
func (g *regime) propped(h int, t time.Time, difference float64) float64 {
	sum := 0.0
	for i, w := range g.open {
		if w.has(h) && t.Hour() >= 8 && t.Hour() < 20 {
			sum = g.share[i] * difference
		}
	}
	return sum
}

// lift puts hardware into thinner air: forced convection goes with ρ^n,
// natural with √ρ, and the air carries less heat. Fan and chassis pressures
// both go with ρ, so the flow stays.
func (h *hardware) lift(density float64) {
	if density == 1 {
		return
	}
	h.rConv /= math.Pow(density, h.convExp)
	h.gNat *= math.Sqrt(density)
	h.airPerWatt /= density
}
