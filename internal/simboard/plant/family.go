package plant

import (
	"maps"
	"math"
	"math/rand/v2"
	"slices"
)

// recipe is a family: a set of ranges and structures that fleets are drawn from.
type recipe struct {
	Name string

	// Spans are the named ranges; see the constants below for their units.
	Spans map[string]span
	// Structure are the weighted choices between kinds of things.
	Structure map[string][]choice
	// Rates are faults per box-year (hvac, heat waves, storms and propped
	// doors: per site-year; firmware releases: per year; second: a share).
	Rates map[Cause]float64
}

// Names of spans.
const (
	convExp     = "convection exponent"             // n of hA ∝ Q^n
	convShare   = "convective share"                // of die-to-air resistance at full flow
	airRise     = "air rise K"                      // exhaust over inlet at full power and flow
	filterShare = "filter share"                    // of the clean pressure drop
	fanPoint    = "fan operating point"             // share of free flow
	fanShape    = "fan curve linear share"          // 0 parabola, 1 straight
	leakShare   = "leakage share"                   // of full power, at 60 °C
	leakSlope   = "leakage slope 1/K"               //
	margin      = "margin K"                        // trip − die on a hot busy day, clean
	recirc      = "recirculation"                   // share of exhaust
	tolerance   = "tolerance"                       // sd between pieces of one SKU
	dieNoise    = "die noise K"                     // sd of one reading
	offset      = "sensor offset K"                 // sd between pieces
	dieStep     = "die step K"                      // quantum of readings of small boards
	outdoor     = "outdoor mean C"                  // of a year
	season      = "season K"                        // half of summer − winter
	cooling     = "cooling strength"                // 1 holds the room at its set point
	burst       = "burst share"                     // of quarter hours
	jitter      = "load jitter"                     // sd within an hour, of dynamic power
	mixNoise    = "mix of work"                     // sd of Rjc from hour to hour: which units are busy
	airNoise    = "stray air K"                     // sd of the air at the sink over the inlet sensor
	rollGain    = "rollout power change"            // relative, either way
	rollSpread  = "rollout heat shift"              // of Rjc, either way
	rollouts    = "rollouts per year"               //
	lossRate    = "event loss"                      // share of events never logged
	logJitter   = "event time error h"              //
	outages     = "outages per site-year"           //
	skew        = "clock skew s"                    // sd
	dustYears   = "office filter life y"            // to loading 1
	boxDust     = "dust spread of boxes"            // sd of ln rate within a site
	siteDust    = "dust spread of sites"            // sd of ln rate within a class
	clogRise    = "clog rise"                       // of resistance at loading 1
	missInlet   = "share of SKUs without inlet"     //
	missRPM     = "share of SKUs without rpm"       //
	missPower   = "share of SKUs without power"     //
	roomSensor  = "share of sites with room sensor" //
)

// Names of spans that only some families have: what they describe is not
// there in the others.
const (
	fanHyst    = "fan hysteresis K"       // instead of the usual 1.5 to 4
	stall      = "stall bulge"            // of the fan curve (1 − φ)(1 + b φ²); it must fall, so below 3
	shedding   = "mats shed per year"     // how often a lint mat loses a part
	drift      = "sensor drift K/y"       // sd of each thermistor; of power meters a fiftieth as much, relative
	coupling   = "inlet coupling"         // share of the board's rise that the inlet sensor sees
	inletStep  = "inlet step K"           //
	powerStep  = "power step W"           //
	altitude   = "altitude m"             // of the sites in the hills, two in five
	loadGrowth = "load growth per year"   // relative
	setBack    = "set-back K"             // of heating when closed
	doorPull   = "pull of a propped door" // share of outdoors − room

	tachStep     = "tachometer step rpm"
	missDuty     = "share of SKUs without duty"
	oven         = "oven K"             // more than its gains, while it bakes
	damp         = "damp of the dust"   // sd of its resistance, relative
	harvest      = "harvest dust"       // factor in a mill's summer and autumn
	cupboards    = "share of cupboards" // of sites
	cupboardRise = "cupboard K"         // at full load
	perProduct   = "boxes per product"  // instead of the usual 20 and more
	installed    = "installed late"     // share of boxes that come in the first 0.6 of the time

	chill  = "chill K"  // of a chilled hall, below the set point of a usual room
	closet = "closet K" // of the heat that a closet makes itself
	glass  = "glass K"  // of the sun at a clear noon in summer, before cooling
)

// Names of structures.
const (
	chassisKind = "chassis"
	controller  = "controller"
	dustLaw     = "dust law"
	siteClass   = "site class"
	backfill    = "backfill"
	powerMeter  = "power meter"
	loadPattern = "load pattern"

	// Only some families have these; the others are of one kind.
	fanCurve   = "fan curve"  // plain or stall
	roomKind   = "room"       // see regime
	hemisphere = "hemisphere" // north or south
)

// Families are the names that Options.Family may have.
func Families() []string { return slices.Sorted(maps.Keys(families())) }

// base is dev0: roomy margins, good sensors, few surprises.
func base() recipe {
	return recipe{
		Name: "dev0",
		Spans: map[string]span{
			convExp: {0.52, 0.60}, convShare: {0.50, 0.58}, airRise: {5, 9}, filterShare: {0.30, 0.45},
			fanPoint: {0.55, 0.70}, fanShape: {0.2, 0.4}, leakShare: {0.05, 0.09}, leakSlope: {0.010, 0.013},
			margin: {14, 22}, recirc: {0.02, 0.06}, tolerance: {0.02, 0.03}, dieNoise: {0.3, 0.6},
			offset: {0.4, 0.8}, dieStep: {0.05, 0.25}, outdoor: {9, 13}, season: {8, 10}, cooling: {0.85, 0.95},
			burst: {0.02, 0.05}, jitter: {0.05, 0.08}, mixNoise: {0.015, 0.03}, airNoise: {0.2, 0.4}, rollGain: {0.04, 0.12}, rollSpread: {0.01, 0.04},
			rollouts: {2, 4}, lossRate: {0, 0.02}, logJitter: {0, 2}, outages: {2, 5}, skew: {0, 10},
			dustYears: {3, 6}, boxDust: {0.2, 0.3}, siteDust: {0.3, 0.4}, clogRise: {0.30, 0.50},
			missInlet: {0.1, 0.2}, missRPM: {0.05, 0.1}, missPower: {0.05, 0.1}, roomSensor: {0.5, 0.7},
		},
		Structure: map[string][]choice{
			chassisKind: {{"desk", 4}, {"rack", 3}, {"module", 3}},
			controller:  {{"linear", 1}},
			dustLaw:     {{"power", 1}},
			siteClass:   {{"office", 4}, {"retail", 4}, {"industrial", 2}},
			backfill:    {{"oldest-first", 1}},
			powerMeter:  {{"package", 2}, {"board", 2}},
			loadPattern: {{"shop", 5}, {"office", 2}, {"always", 2}, {"night", 1}},
		},
		Rates: map[Cause]float64{
			Vent: 0.12, FanWear: 0.15, FanStop: 0.05, Paste: 0.12, Stuck: 0.05, Lint: 0.06, SSD: 0.05, PSU: 0.04,
			HVAC: 0.25, heatWave: 0.6, storm: 0.15, biosFlash: 0.7, powerMode: 0.12, second: 0.15,
		},
	}
}

// with is a family that differs from another in the given ranges.
func (f recipe) with(name string, spans map[string]span, structure map[string][]choice) recipe {
	f.Name, f.Spans, f.Structure, f.Rates = name, maps.Clone(f.Spans), maps.Clone(f.Structure), maps.Clone(f.Rates)
	maps.Copy(f.Spans, spans)
	maps.Copy(f.Structure, structure)
	return f
}

// extra draws from a range that not every family has; without it nothing is
// drawn and the value is 0.
func (f *recipe) extra(name string, r *rand.Rand) float64 {
	s, ok := f.Spans[name]
	if !ok {
		return 0
	}
	return s.draw(r)
}

// kind picks a structure that not every family has a choice of.
func (f *recipe) kind(name, usual string, r *rand.Rand) string {
	if from := f.Structure[name]; len(from) > 0 {
		return pick(r, from)
	}
	return usual
}

// missing tells whether SKU number i lacks a sensor. Numbers take turns, so
// that a fleet of few SKUs has its family's share.
func (f *recipe) missing(name string, i float64) bool {
	p := (f.Spans[name].Lo + f.Spans[name].Hi) / 2
	return math.Floor((i+1)*p) > math.Floor(i*p)
}

func families() map[string]recipe {
	all := map[string]recipe{}
	add := func(f recipe) recipe { all[f.Name] = f; return f }
	dev0 := add(base())
	dev1 := add(dev0.with("dev1", map[string]span{
		convExp: {0.55, 0.68}, convShare: {0.46, 0.60}, airRise: {5, 11}, margin: {9, 18}, tolerance: {0.02, 0.045},
		dieNoise: {0.4, 1}, offset: {0.5, 1.2}, burst: {0.03, 0.08}, jitter: {0.06, 0.12}, rollGain: {0.05, 0.18},
		rollSpread: {0.02, 0.06}, lossRate: {0, 0.06}, logJitter: {0, 6}, outages: {3, 8}, skew: {0, 60},
		mixNoise: {0.02, 0.045}, airNoise: {0.25, 0.6}, dustYears: {2.5, 5}, missInlet: {0.2, 0.35}, roomSensor: {0.3, 0.5},
	}, map[string][]choice{
		chassisKind: {{"desk", 3}, {"rack", 3}, {"module", 3}, {"wall", 2}},
		controller:  {{"linear", 3}, {"steps", 2}},
		dustLaw:     {{"power", 2}, {"exponential", 1}},
		powerMeter:  {{"package", 2}, {"board", 2}, {"wall", 1}},
	}))
	dev2 := add(dev1.with("dev2", map[string]span{
		margin: {7, 16}, recirc: {0.03, 0.10}, outdoor: {10, 16}, cooling: {0.65, 0.9}, burst: {0.05, 0.12},
		jitter: {0.08, 0.16}, mixNoise: {0.03, 0.06}, airNoise: {0.3, 0.8}, rollouts: {3, 7}, lossRate: {0.03, 0.12}, logJitter: {2, 12}, outages: {5, 12},
		boxDust: {0.25, 0.4}, siteDust: {0.4, 0.55}, missInlet: {0.3, 0.45}, missRPM: {0.08, 0.15},
		missPower: {0.08, 0.15}, roomSensor: {0.2, 0.4},
	}, map[string][]choice{
		chassisKind: {{"desk", 3}, {"rack", 3}, {"module", 3}, {"wall", 3}, {"fanless", 2}},
		controller:  {{"linear", 3}, {"steps", 2}, {"zero-rpm", 1}},
		siteClass:   {{"office", 3}, {"retail", 4}, {"industrial", 3}, {"workshop", 1}},
	}))
	add(dev1.with("held0", map[string]span{
		convExp: {0.70, 0.80}, convShare: {0.40, 0.45}, airRise: {12, 15}, filterShare: {0.48, 0.62},
		leakShare: {0.10, 0.15}, margin: {10, 18}, dieStep: {0.3, 0.5}, rollGain: {0.19, 0.26}, dustYears: {1.8, 2.4},
		outages: {13, 18},
	}, map[string][]choice{
		controller: {{"linear", 2}, {"target", 2}}, dustLaw: {{"power", 1}, {"knee", 2}},
		backfill: {{"newest-first", 1}, {"oldest-first", 1}},
	}))
	add(dev1.with("held1", map[string]span{
		convExp: {0.46, 0.51}, convShare: {0.61, 0.68}, airRise: {3, 4.8}, filterShare: {0.15, 0.28},
		fanPoint: {0.40, 0.52}, fanShape: {0.45, 0.7}, leakSlope: {0.014, 0.019}, offset: {1.3, 2},
		outdoor: {17, 21}, airNoise: {0.85, 1.2}, season: {4, 7}, margin: {8, 16},
	}, map[string][]choice{
		chassisKind: {{"desk", 3}, {"rack", 3}, {"wall", 2}, {"cabinet", 3}},
		controller:  {{"linear", 2}, {"open-loop", 2}, {"zero-rpm", 1}}, dustLaw: {{"saturating", 2}, {"exponential", 1}},
	}))
	add(dev2.with("held2", map[string]span{
		convExp: {0.69, 0.78}, filterShare: {0.46, 0.60}, fanPoint: {0.71, 0.82}, tolerance: {0.05, 0.07},
		dieNoise: {1.1, 1.8}, recirc: {0.11, 0.16}, season: {11, 14}, cooling: {0.40, 0.62}, jitter: {0.17, 0.22},
		mixNoise: {0.065, 0.09}, rollSpread: {0.065, 0.09}, rollouts: {7.5, 10}, lossRate: {0.13, 0.2}, skew: {70, 600}, boxDust: {0.42, 0.55},
		margin: {8, 16}, clogRise: {0.52, 0.8},
	}, map[string][]choice{
		chassisKind: {{"desk", 3}, {"rack", 3}, {"module", 2}, {"wall", 3}, {"fanless", 2}, {"cabinet", 2}},
		controller:  {{"linear", 1}, {"steps", 2}, {"target", 2}, {"open-loop", 1}, {"zero-rpm", 1}},
		dustLaw:     {{"knee", 1}, {"saturating", 1}, {"power", 1}},
		siteClass:   {{"office", 2}, {"retail", 3}, {"industrial", 3}, {"workshop", 2}},
		backfill:    {{"newest-first", 1}, {"interleaved", 1}},
	}))
	add(held3(dev1))
	add(held4(dev2))
	add(held5(dev2))
	add(held6(dev1))
	add(held7(dev2))
	add(held8(dev1))
	add(held9(dev1))
	add(held10(dev1))
	add(held11(dev2))
	return all
}
