package plant

// The families here were drawn for rooms whose cooling fails: the three before
// them had seven failures that a fleet could feel, and a median says little
// of seven. Units are old and fail about three times as often as in
// base, an engineer's estimate. How long a failure lasts and what it does
// to the room is the same as elsewhere. Fans wear as in held6 to held8.

// held9 is a chain of cold stores and dairies: dispatch halls at 8 to 14 °C,
// the boxes between the pallets and in the offices above.
//
//   - A chilled hall is 9 to 13 K below a usual room. Every six hours its
//     coolers defrost for one: the hall warms by 1 to 4 K and is cold again
//     two hours later.
//   - Doors of docks stand open for hours to days, five times a year.
//   - Boxes on rails in switch cabinets, plate fins and small fast fans
//     behind foam that loads in its depth. Half of them tell no fan speed.
//   - Dust of cardboard: fibres in mats that now and then fall off.
func held9(from recipe) recipe {
	return from.with("held9", map[string]span{
		convExp: {0.69, 0.78}, convShare: {0.40, 0.45}, filterShare: {0.46, 0.58}, fanPoint: {0.71, 0.80}, fanShape: {0.42, 0.60},
		margin: {9, 18}, offset: {1.25, 1.6}, inletStep: {0.5, 0.5}, dieStep: {1, 1}, outdoor: {6, 8.8}, season: {10.5, 12.5},
		cooling: {0.955, 0.98}, chill: {9, 13}, doorPull: {0.1, 0.3}, shedding: {0.4, 1}, outages: {12.5, 17}, rollouts: {0.8, 1.8},
		dustYears: {1.8, 2.4}, missRPM: {0.46, 0.54}, missDuty: {0.15, 0.25}, tachStep: {10, 30},
	}, map[string][]choice{
		chassisKind: {{"din", 4}, {"module", 2}, {"wall", 2}, {"tower", 2}, {"1u", 1}, {"fanless", 1}},
		controller:  {{"linear", 4}, {"zero-rpm", 1}, {"quiet", 2}, {"fixed", 2}},
		dustLaw:     {{"linear", 2}, {"steps", 2}, {"power", 1}},
		siteClass:   {{"retail", 4}, {"office", 3}, {"industrial", 3}},
		backfill:    {{"oldest-first", 2}, {"interleaved", 1}},
		roomKind:    {{"chilled", 5}, {"plain", 2}, {"set-back", 1}},
		loadPattern: {{"shifts", 5}, {"always", 2}, {"batch", 2}},
	}).rated(map[Cause]float64{FanWear: 0.48, HVAC: 0.8, doorOpen: 5})
}

// held10 is the closets of hotels and schools: flat servers, switches and
// batteries in a small room without a window, behind one split unit.
//
//   - What the room has to lose is its own heat, 8 to 14 K of it, summer and
//     winter; four fifths of the weather stay outside. So its cooling fails in
//     any season.
//   - Two-unit servers beside those of one unit, read by their BMC; the rest
//     was bought one by one, and a third of it tells no duty.
//   - Carpets and linen: a cake with a knee, saturating on bare fins.
//   - Guests come in the morning and in the evening.
func held10(from recipe) recipe {
	return from.with("held10", map[string]span{
		convExp: {0.45, 0.51}, convShare: {0.61, 0.67}, airRise: {11.2, 14}, filterShare: {0.15, 0.28}, fanPoint: {0.44, 0.53},
		leakShare: {0.095, 0.13}, margin: {9, 17}, tolerance: {0.046, 0.055}, dieStep: {0.5, 1},
		outdoor: {16.5, 20}, season: {5, 7.5}, cooling: {0.955, 0.985}, closet: {8, 14}, perProduct: {9, 14}, installed: {0.2, 0.3},
		loadGrowth: {0.03, 0.12}, rollouts: {7.2, 9}, dustYears: {1.8, 2.4}, missInlet: {0.46, 0.54}, missRPM: {0.36, 0.44},
		missDuty: {0.28, 0.36}, roomSensor: {0.08, 0.18}, powerStep: {1, 1},
	}, map[string][]choice{
		chassisKind: {{"2u", 3}, {"1u", 3}, {"desk", 2}, {"itx", 2}, {"mini", 2}},
		controller:  {{"linear", 4}, {"target", 2}, {"either", 1}, {"steps", 1}},
		dustLaw:     {{"knee", 2}, {"saturating", 1}, {"power", 2}},
		siteClass:   {{"office", 4}, {"retail", 5}},
		backfill:    {{"oldest-first", 2}, {"metered", 1}},
		roomKind:    {{"closet", 4}, {"plain", 1}, {"week-end", 1}},
		hemisphere:  {{"north", 2}, {"south", 1}},
		loadPattern: {{"hotel", 5}, {"office", 2}, {"always", 2}},
	}).rated(map[Cause]float64{FanWear: 0.55, HVAC: 0.7, powerMode: 0.2})
}

// held11 is a grower of vegetables with his garden centres: glasshouses with
// wetted pads and fans, packing halls, and shops under glass.
//
//   - The sun warms what is under glass by 10 to 18 K at a clear noon in
//     summer; the pads take most of it away, and a pump that fails does not.
//   - Peat and pollen: dust twice as dense in its season, a cake that takes up
//     water and changes with the damp of the weeks.
//   - Thermistors age in warm wet air, by some tenths of a kelvin a year.
//   - Boxes on rails, on walls and in cabinets, half of them without a sensor
//     in the intake; pickers and cameras work while it is light.
func held11(from recipe) recipe {
	return from.with("held11", map[string]span{
		convExp: {0.70, 0.80}, convShare: {0.38, 0.44}, airRise: {11.5, 14}, filterShare: {0.46, 0.60}, fanPoint: {0.72, 0.82},
		leakSlope: {0.014, 0.018}, margin: {9, 17}, offset: {1.25, 1.7}, drift: {0.1, 0.4}, season: {10.5, 12}, glass: {10, 18},
		damp: {0.05, 0.12}, harvest: {1.5, 2.5}, doorPull: {0.15, 0.35}, boxDust: {0.42, 0.5}, dustYears: {1.9, 2.4}, outages: {13, 20},
		logJitter: {13, 24}, lossRate: {0.13, 0.18}, missInlet: {0.48, 0.56}, missRPM: {0.34, 0.42}, missDuty: {0.15, 0.25}, roomSensor: {0.72, 0.85},
	}, map[string][]choice{
		chassisKind: {{"din", 4}, {"wall", 3}, {"cabinet", 2}, {"tower", 2}, {"fanless", 1}},
		controller:  {{"linear", 3}, {"steps", 2}, {"either", 2}, {"fixed", 1}},
		dustLaw:     {{"caking", 3}, {"exponential", 1}, {"power", 1}},
		siteClass:   {{"retail", 5}, {"industrial", 3}, {"office", 2}},
		backfill:    {{"newest-first", 1}, {"metered", 1}, {"oldest-first", 1}},
		roomKind:    {{"glass", 5}, {"plain", 2}, {"unheated", 1}},
		loadPattern: {{"daylight", 5}, {"shop", 2}, {"always", 2}},
	}).rated(map[Cause]float64{FanWear: 0.45, HVAC: 0.8, doorOpen: 2})
}
