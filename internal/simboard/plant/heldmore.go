package plant

// The families here came last: other trades, other products, and mechanisms
// that none of the families before them has. Faults come at the rates of base
// but for worn fans, of which there are two to four times as many: makers give
// sleeve bearings 30,000 to 50,000 h at 40 to 50 °C until a tenth of them is
// worn out, so an old fleet loses some in a hundred a year; here it is one in
// two or three boxes, because a share of .95 is told from .90 only by sixty of
// them and more. About half are of products with a tachometer.

// held6 is a chain of pharmacies and clinics: rooms with steady cooling, small
// boxes on ITX boards, consultation in the morning and in the afternoon.
//
//   - Stamped fins and down-draught coolers: exponents below ½ (Shah and
//     London), most of the resistance in the air, hardly a filter. Fans work
//     near free flow.
//   - A third of the products does not tell its duty (three wires, voltage
//     behind the chip), and some fans run at one speed all their life.
//   - Tachometers count pulses for a second: steps of up to 30 rpm with two
//     pulses a turn. Dies read in whole degrees, as coretemp gives them.
//   - ITX boards seldom have a sensor in their intake; the pharmacies that
//     must log their room for the medicines have one there.
//   - Lint of textiles, in clumps that sometimes fall off.
func held6(from recipe) recipe {
	return from.with("held6", map[string]span{
		convExp: {0.47, 0.51}, convShare: {0.61, 0.66}, filterShare: {0.18, 0.28}, fanPoint: {0.71, 0.80}, fanShape: {0.42, 0.60},
		margin: {10, 19}, dieStep: {1, 1}, tachStep: {10, 30}, season: {4, 7}, cooling: {0.955, 0.985}, setBack: {1, 3},
		burst: {0.005, 0.015}, jitter: {0.02, 0.045}, rollouts: {0.8, 1.8}, outages: {0.5, 1.5}, dustYears: {1.8, 2.4},
		shedding: {0.4, 1}, missInlet: {0.48, 0.56}, missRPM: {0.40, 0.46}, missDuty: {0.28, 0.36}, roomSensor: {0.72, 0.85},
	}, map[string][]choice{
		chassisKind: {{"itx", 4}, {"mini", 3}, {"1u", 2}, {"tower", 2}, {"fanless", 1}},
		controller:  {{"linear", 4}, {"fixed", 2}, {"quiet", 2}, {"steps", 1}},
		dustLaw:     {{"power", 2}, {"steps", 1}, {"exponential", 1}},
		siteClass:   {{"office", 1}, {"retail", 1}},
		backfill:    {{"oldest-first", 2}, {"interleaved", 1}},
		roomKind:    {{"conditioned", 4}, {"set-back", 1}, {"plain", 1}},
		loadPattern: {{"clinic", 5}, {"shop", 3}, {"always", 2}},
	}).rated(map[Cause]float64{FanWear: 0.48})
}

// held7 is a chain of bakeries with its mills: ovens from two in the morning,
// flour, doors that stand open, and boxes on walls and under counters.
//
//   - An oven gives its room 7 to 14 K more before cooling, whatever the
//     season, and only while it bakes.
//   - Flour makes a cake from the first gram on and blinds the pores later;
//     the cake takes up water, and its resistance goes with the damp of the
//     weeks (Gupta, Novick, Biswas, Monson 1993: hygroscopic dust on filters).
//   - Mills and silos have twice the dust from harvest to autumn.
//   - Who writes the log does so the next day.
func held7(from recipe) recipe {
	return from.with("held7", map[string]span{
		convExp: {0.69, 0.76}, convShare: {0.40, 0.45}, airRise: {11.2, 13.5}, filterShare: {0.46, 0.58}, margin: {9, 17},
		recirc: {0.11, 0.14}, offset: {1.25, 1.6}, powerStep: {1, 1}, outdoor: {6, 8.8}, season: {10.5, 12.5}, cooling: {0.5, 0.62},
		oven: {7, 14}, damp: {0.05, 0.12}, harvest: {1.5, 2.5}, doorPull: {0.15, 0.35}, clogRise: {0.52, 0.7}, boxDust: {0.42, 0.5},
		siteDust: {0.57, 0.68}, dustYears: {2, 2.4}, logJitter: {13, 24}, missRPM: {0.38, 0.44}, missDuty: {0.15, 0.25},
	}, map[string][]choice{
		chassisKind: {{"tower", 3}, {"wall", 2}, {"module", 2}, {"cabinet", 2}, {"itx", 2}, {"fanless", 1}},
		controller:  {{"linear", 3}, {"steps", 2}, {"fixed", 2}, {"zero-rpm", 1}},
		dustLaw:     {{"caking", 4}, {"exponential", 1}, {"power", 1}},
		siteClass:   {{"retail", 5}, {"workshop", 2}, {"industrial", 2}, {"office", 1}},
		backfill:    {{"oldest-first", 2}, {"newest-first", 1}},
		roomKind:    {{"ovens", 5}, {"plain", 2}, {"unheated", 1}},
		loadPattern: {{"bakery", 5}, {"shop", 2}, {"always", 2}},
	}).rated(map[Cause]float64{FanWear: 0.38, doorOpen: 2})
}

// held8 is what stands in the back offices of many firms: fanless boxes and
// flat servers in cupboards, of as many products as there were budgets.
//
//   - One product for every eight to twelve boxes, some of them rare. Half of
//     the boxes came in the course of the year, in any season.
//   - In two of three sites the box warms the cupboard it stands in by 3 to
//     8 K at full load, hours later than its load; the room sensor and the
//     neighbours do not see it.
//   - Flat servers have 40 mm fans at up to 16,000 rpm, read by their BMC.
//     Two in five of the others have no tachometer, a quarter tells no duty,
//     half has no sensor in the intake.
//   - Reports: full work, day and night, for four days at the end of a month.
func held8(from recipe) recipe {
	return from.with("held8", map[string]span{
		convExp: {0.44, 0.51}, airRise: {11.2, 14}, fanPoint: {0.45, 0.53}, leakShare: {0.095, 0.13}, margin: {9, 17}, tolerance: {0.046, 0.055},
		dieStep: {0.5, 1}, cupboards: {0.6, 0.7}, cupboardRise: {3, 8}, perProduct: {8, 12}, installed: {0.4, 0.5}, loadGrowth: {0.03, 0.12},
		setBack: {2, 4}, shedding: {0.4, 1}, rollouts: {7.2, 9}, outages: {13, 18}, skew: {70, 300}, dustYears: {1.8, 2.4},
		missInlet: {0.46, 0.54}, missRPM: {0.56, 0.64}, missPower: {0.17, 0.23}, missDuty: {0.2, 0.3}, roomSensor: {0.08, 0.18},
	}, map[string][]choice{
		chassisKind: {{"1u", 4}, {"fanless", 2}, {"desk", 2}, {"itx", 2}, {"tower", 2}},
		controller:  {{"linear", 4}, {"target", 2}, {"either", 1}, {"fixed", 1}},
		dustLaw:     {{"power", 3}, {"linear", 1}, {"steps", 1}, {"saturating", 1}},
		siteClass:   {{"office", 5}, {"retail", 4}, {"industrial", 2}},
		backfill:    {{"oldest-first", 1}, {"interleaved", 1}, {"metered", 1}},
		roomKind:    {{"plain", 3}, {"set-back", 2}, {"week-end", 2}},
		hemisphere:  {{"north", 3}, {"south", 1}},
		loadPattern: {{"reports", 4}, {"office", 2}, {"always", 2}, {"shop", 2}},
	}).rated(map[Cause]float64{FanWear: 0.6, powerMode: 0.2})
}
