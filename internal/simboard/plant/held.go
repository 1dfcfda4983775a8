package plant

import "maps"

// The families here have mechanisms that no other family has, beside ranges
// outside those of dev0 to dev2. What a healthy fleet loses to faults is the
// same as there: kinds, rates and severities are those of base unless said.
// A figure without a source is an engineer's estimate of what fleets look like.

// rated changes the rates of a family.
func (f recipe) rated(rates map[Cause]float64) recipe {
	f.Rates = maps.Clone(f.Rates)
	maps.Copy(f.Rates, rates)
	return f
}

// held3 is a chain of shops in warm countries of both hemispheres, with cooled
// rooms: computer-room cooling, cooling that stops when the shop closes, or
// over the week-end. Boxes are dense and quiet.
//
//   - Convection exponents from 0.38: developing laminar flow in dense fins
//     lies between Lévêque's 1/3 and 1/2 (Shah and London, Laminar Flow Forced
//     Convection in Ducts). Their air warms by 11 K and more.
//   - Fans are radial, their curve close to a parabola, and work at half of
//     free flow (Bleier, Fan Handbook). Firmware is silent until it is hot and
//     turns down only after 5 to 8 K: desktop boards' hysteresis settings.
//   - Foam before the intake loads in its depth, so resistance grows linearly
//     with dust (Darcy); the rest loads exponentially.
//   - Readings in half degrees, as of LM75-like chips and many EC interfaces;
//     a quarter of the products has no tachometer.
//   - Doors are propped open for hours to days, six times a year. Links are
//     metered, and open every four hours.
func held3(from recipe) recipe {
	return from.with("held3", map[string]span{
		convExp: {0.38, 0.45}, convShare: {0.62, 0.70}, airRise: {11.5, 14}, filterShare: {0.48, 0.64},
		fanPoint: {0.42, 0.53}, fanShape: {0.02, 0.15}, fanHyst: {5, 8}, margin: {9, 17}, dieStep: {0.5, 0.5}, inletStep: {0.5, 0.5},
		outdoor: {22, 26}, season: {2, 4}, cooling: {0.9, 0.97}, setBack: {1, 3}, doorPull: {0.15, 0.35},
		rollouts: {0.5, 1.5}, missRPM: {0.22, 0.3}, roomSensor: {0.72, 0.85}, dustYears: {1.6, 2.3},
	}, map[string][]choice{
		chassisKind: {{"desk", 3}, {"rack", 2}, {"ceiling", 3}, {"blower", 2}},
		controller:  {{"quiet", 3}, {"linear", 2}},
		dustLaw:     {{"linear", 2}, {"exponential", 1}},
		siteClass:   {{"retail", 6}, {"office", 3}, {"industrial", 1}},
		backfill:    {{"metered", 1}, {"oldest-first", 1}},
		roomKind:    {{"conditioned", 2}, {"set-back", 2}, {"week-end", 2}},
		hemisphere:  {{"north", 1}, {"south", 1}},
		loadPattern: {{"shop", 6}, {"always", 2}, {"batch", 2}},
	}).rated(map[Cause]float64{doorOpen: 6})
}

// held4 stands along roads and in halls of a continental climate: kiosks,
// cabinets and walls, unheated or heated by day, some in the sun, counting
// traffic day and night.
//
//   - Convection exponents from 0.80: pin fins and impinging air (Žukauskas,
//     Heat Transfer from Tubes in Crossflow: 0.6 to 0.84), with most of the
//     resistance inside of the package.
//   - Axial fans with a knee where they stall, at a third of free flow (Bleier,
//     Fan Handbook): a clog takes flow slowly at first, then fast.
//   - Lint: mats that grow by clumps and shed a part of themselves one to
//     three times a year (Willemin, Interference Technology: fibre makes mats
//     that form abruptly and may partly blow off), a cake with a knee, and the
//     exponential law.
//   - Die readings in whole degrees, as coretemp gives them; thermistors that
//     drift by some tenths of a kelvin a year (the order of makers' ageing
//     figures for epoxy-coated NTC) and inlet sensors that feel their board.
//   - Firmware takes the higher of a die and an inlet curve.
func held4(from recipe) recipe {
	return from.with("held4", map[string]span{
		convExp: {0.80, 0.87}, convShare: {0.33, 0.39}, airRise: {8, 12}, fanPoint: {0.72, 0.85}, stall: {2, 2.7},
		leakShare: {0.10, 0.14}, margin: {8, 16}, recirc: {0.11, 0.15}, offset: {1.3, 1.8}, dieStep: {1, 1}, drift: {0.2, 0.5},
		coupling: {0.04, 0.10}, outdoor: {3, 7}, season: {11, 14}, cooling: {0.5, 0.64}, setBack: {4, 7}, outages: {13, 20},
		boxDust: {0.42, 0.5}, siteDust: {0.6, 0.7}, dustYears: {1.7, 2.4}, shedding: {1, 3}, doorPull: {0.15, 0.4},
	}, map[string][]choice{
		chassisKind: {{"kiosk", 3}, {"wall", 2}, {"cabinet", 2}, {"module", 2}, {"desk", 1}},
		controller:  {{"either", 3}, {"steps", 2}, {"linear", 1}},
		fanCurve:    {{"stall", 3}, {"plain", 1}},
		dustLaw:     {{"steps", 3}, {"knee", 1}, {"exponential", 1}},
		siteClass:   {{"office", 2}, {"retail", 2}, {"industrial", 5}, {"workshop", 1}},
		backfill:    {{"interleaved", 1}, {"metered", 1}},
		roomKind:    {{"unheated", 3}, {"plain", 2}, {"set-back", 1}},
		loadPattern: {{"traffic", 4}, {"always", 3}, {"batch", 2}, {"shop", 1}},
	}).rated(map[Cause]float64{doorOpen: 2})
}

// held5 is what is left after three purchases of other fleets: every product
// reads something else, sites lie up to 2,300 m high, firmware and power modes
// change often, and load grows from month to month.
//
//   - Thin air cools less: forced convection goes with ρ^n, and ρ falls by 11 %
//     per kilometre (barometric formula).
//   - Straight fan curves at half of free flow, little filter, little rise of
//     the air; hysteresis of 6 to 10 K, fans that stand until it is warm.
//   - Half of the products have no inlet, a quarter no power, a fifth no rpm,
//     and hardly a site has a room sensor. Die and inlet read in whole degrees
//     and power in whole watts.
//   - Three in ten faults bring a second one within weeks, twice as many as
//     elsewhere, and so are new fan curves and power modes set by hand.
func held5(from recipe) recipe {
	return from.with("held5", map[string]span{
		convExp: {0.69, 0.75}, filterShare: {0.14, 0.27}, fanPoint: {0.44, 0.54}, fanShape: {0.72, 0.92}, airRise: {2.8, 4.8},
		fanHyst: {6, 10}, margin: {9, 17}, dieStep: {1, 1}, inletStep: {1, 1}, powerStep: {1, 1}, altitude: {400, 2300},
		outdoor: {13, 19}, setBack: {2, 5}, doorPull: {0.15, 0.35}, shedding: {0.5, 1.5}, loadGrowth: {0.05, 0.25},
		rollouts: {7.5, 10}, missInlet: {0.46, 0.56}, missPower: {0.2, 0.28}, missRPM: {0.17, 0.24}, roomSensor: {0.08, 0.18},
		skew: {70, 400}, outages: {14, 22},
	}, map[string][]choice{
		chassisKind: {{"desk", 3}, {"rack", 2}, {"module", 2}, {"ceiling", 2}, {"fanless", 1}, {"blower", 1}},
		controller:  {{"quiet", 2}, {"zero-rpm", 1}, {"target", 1}, {"either", 1}, {"linear", 1}},
		dustLaw:     {{"linear", 1}, {"steps", 1}, {"exponential", 1}, {"power", 1}},
		siteClass:   {{"office", 3}, {"retail", 4}, {"industrial", 3}, {"workshop", 1}},
		backfill:    {{"newest-first", 1}, {"metered", 1}, {"oldest-first", 1}},
		roomKind:    {{"plain", 2}, {"set-back", 1}, {"week-end", 1}, {"conditioned", 1}, {"unheated", 1}},
		hemisphere:  {{"north", 2}, {"south", 1}},
		loadPattern: {{"batch", 3}, {"shop", 3}, {"always", 2}, {"night", 1}, {"traffic", 1}},
	}).rated(map[Cause]float64{biosFlash: 1.5, powerMode: 0.25, second: 0.3, doorOpen: 1})
}
