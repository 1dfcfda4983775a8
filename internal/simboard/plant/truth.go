package plant

import (
	"math"
	"time"
)

// Truth is what was really wrong with a fleet.
type Truth struct {
	Family string      `json:"family"`
	Seed   uint64      `json:"seed"`
	Start  time.Time   `json:"start"`
	Days   int         `json:"days"`
	Boxes  []BoxTruth  `json:"boxes"`
	Sites  []SiteTruth `json:"sites"`
}

// SiteTruth holds the faults of a site's cooling and its dust.
type SiteTruth struct {
	Site   string  `json:"site"`
	Class  string  `json:"class"`
	Dust   float64 `json:"dust_per_year"` // loading of an average box
	Faults []Fault `json:"faults,omitempty"`
}

// BoxTruth is the truth of one box. Days count from the fleet's start.
type BoxTruth struct {
	Box    string  `json:"box"`
	SKU    string  `json:"sku"`
	Site   string  `json:"site"`
	Faults []Fault `json:"faults,omitempty"`
	// Rise is the relative rise of die-to-inlet resistance over the clean box
	// with the parts it has that day, at equal duty and load, all faults
	// together: the highest of each day.
	Rise      []float32  `json:"rise"`
	Cleanings []Cleaning `json:"cleanings,omitempty"`
	// Throttled counts hours with more than 1 % of their time throttled;
	// HealthyThrottled those of them that a clean box would have had as well.
	Throttled        int        `json:"throttled_hours"`
	HealthyThrottled int        `json:"healthy_throttled_hours"`
	FirstThrottle    *time.Time `json:"first_throttle,omitempty"`
}

// Fault is one fault as it was.
type Fault struct {
	Cause   Cause     `json:"cause"`
	Variant string    `json:"variant,omitempty"` // of a clog: slow or fast
	Onset   time.Time `json:"onset"`             // physical start; of a clog, when loading starts
	// End is when it was repaired, cleaned or gone; zero if it never was.
	End    time.Time `json:"end,omitzero"`
	Fan    int       `json:"fan"`              // index, for fan faults
	Sensor string    `json:"sensor,omitempty"` // for stuck
	// Full is the severity planned at full growth: rise of resistance for clog,
	// lint, vent, paste and fan faults, loss of rpm is in RPMLoss; factor of
	// the SSD's heat less 1; loss of efficiency of the PSU.
	Full      float64 `json:"full"`
	RPMLoss   float64 `json:"rpm_loss,omitempty"`
	RoomRiseK float64 `json:"room_rise_k,omitempty"` // of hvac: the most that the room got warmer by it
	// Level and Rise have one value a day from the day of Onset: share of Full
	// growth, and the rise of resistance that this fault makes alone.
	Level []float32 `json:"level,omitempty"`
	Rise  []float32 `json:"rise,omitempty"`
	// FirstThrottle is the first throttled hour that a clean box would not
	// have had.
	FirstThrottle *time.Time `json:"first_throttle,omitempty"`
}

// Peak is the highest rise that the fault made alone.
func (f *Fault) Peak() float64 {
	top := float32(0)
	for _, x := range f.Rise {
		top = max(top, x)
	}
	return float64(top)
}

// Cleaning is a real removal of dust.
type Cleaning struct {
	Time   time.Time `json:"time"`
	Logged bool      `json:"logged"`
	Before float64   `json:"before"` // rise of resistance
	After  float64   `json:"after"`
}

var sensorNames = [gauges]string{
	dieGauge: "die", inletGauge: "inlet", boardGauge: "board", nvmeGauge: "nvme", exhaustGauge: "exhaust", powerGauge: "power",
	rpmGauge: "rpm", rpmGauge + 1: "rpm2", rpmGauge + 2: "rpm3", rpmGauge + 3: "rpm4", roomGauge: "room",
}

// record is the truth of a planned fault while it is being made.
type record struct {
	*fault
	out Fault
}

func (f *Fleet) record(x *fault) record {
	out := Fault{Cause: x.cause, Onset: f.time(float64(x.on)), Fan: x.fan, Full: x.rise}
	switch x.cause {
	case FanWear:
		out.RPMLoss = x.top
	case FanStop:
		out.RPMLoss = 1
	case Stuck:
		out.Sensor = sensorNames[x.sensor]
	case SSD, PSU:
		out.Full = x.top
	case HVAC:
		out.Full, out.RoomRiseK = 0, math.Round(x.rise*100)/100
	}
	if x.off < f.hours {
		out.End = f.time(float64(x.off))
	}
	return record{fault: x, out: out}
}

// siteTruths lists the cooling failures.
func (f *Fleet) siteTruths() []SiteTruth {
	var all []SiteTruth
	for _, s := range f.sites {
		t := SiteTruth{Site: s.id, Class: s.class}
		for _, x := range s.dust {
			t.Dust += float64(x) * 365 / float64(len(s.dust))
		}
		for _, x := range s.hvac {
			t.Faults = append(t.Faults, f.record(x).out)
		}
		all = append(all, t)
	}
	return all
}

// keep rounds what goes into a series of the truth.
func keep(x float64) float32 { return float32(math.Round(x*1e4) / 1e4) }

// setDay writes the highest value of a day into a series that starts at day from.
func setDay(series []float32, index int, x float64) []float32 {
	for len(series) <= index {
		series = append(series, 0)
	}
	series[index] = max(series[index], keep(x))
	return series
}
