// Package analytics judges the heat of one box from its telemetry: how well it
// is now (a word), and how well its cooling conducts heat compared with the
// time when it was new or clean (the thermal-resistance index). It is pure:
// state and sample in, state and index out; the State travels as JSON.
//
// Vocabulary: resistance is (die - inlet) / power in K/W, at the fan speed of
// the first steady window. A bucket is the mean of the samples of one minute.
// A window is a run of buckets; it is steady when power and fan hardly moved
// and the die had settled. The baseline is the median of the first steady
// windows, the index the ratio of the last five windows' median to it: 1.00
// is as new, 1.10 conducts a tenth worse. Dust raises it over weeks, a covered
// vent within hours, a warm room not at all.
//
// After a cleaning or a change of hardware start again from a State that has
// only Rules. Field accuracy of the index is not known yet.
//
// The one rule a caller can break: feed samples in the order of their times;
// a sample that is not later than the one before is ignored.
package analytics

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// Value is a reading that may be missing.
type Value struct {
	V     float64 `json:"v"`
	Known bool    `json:"known"`
}

// Sample is what a box said at one time.
type Sample struct {
	At            time.Time
	Die, Inlet    Value // °C
	Power         Value // W
	FanRPM        Value
	ThrottleCount Value // events since boot
	CoolingState  Value // 0 to 1
}

// FromMetrics picks the readings out of a set of metrics by their names.
func FromMetrics(at time.Time, metrics map[string]float64) Sample {
	get := func(name string) Value {
		v, ok := metrics[name]
		return Value{V: v, Known: ok && !math.IsNaN(v) && !math.IsInf(v, 0)}
	}
	return Sample{
		At: at, Die: get("temp_die_celsius"), Inlet: get("temp_inlet_celsius"), Power: get("power_watts"),
		FanRPM: get("fan_rpm"), ThrottleCount: get("throttle_count"), CoolingState: get("cooling_state_ratio"),
	}
}

// Rules are the knobs of the judgement. The zero value means the defaults.
type Rules struct {
	Bucket          time.Duration `json:"bucket,omitempty"`           // default 1 min
	WindowBuckets   int           `json:"window_buckets,omitempty"`   // default 5
	BaselineWindows int           `json:"baseline_windows,omitempty"` // default 36: three steady hours
	LimitCelsius    float64       `json:"limit_celsius,omitempty"`    // of the die; default 90
}

func (r Rules) withDefaults() Rules {
	if r.Bucket <= 0 {
		r.Bucket = time.Minute
	}
	if r.WindowBuckets <= 0 {
		r.WindowBuckets = 5
	}
	if r.BaselineWindows <= 0 {
		r.BaselineWindows = 36
	}
	if r.LimitCelsius <= 0 {
		r.LimitCelsius = 90
	}
	return r
}

// Index is the verdict.
type Index struct {
	Known           bool    `json:"known"`          // whether Ratio may be believed
	Reason          string  `json:"reason"`         // why it is not known, else ""
	ResistanceKPerW float64 `json:"resistance_k_w"` // smoothed; 0 before the first steady window
	BaselineKPerW   float64 `json:"baseline_k_w"`   // 0 while it is being learnt
	Ratio           float64 `json:"ratio"`          // 0 while not known
	Health          Health  `json:"health"`         // how the box is now
	HealthReason    string  `json:"health_reason"`  // "" when ok
}

// State is what is kept per box. The zero State knows nothing.
type State struct {
	Rules Rules `json:"rules"`

	At      time.Time `json:"at"` // of the last sample
	Open    bucket    `json:"open"`
	Window  []bucket  `json:"window,omitempty"`
	Problem string    `json:"problem,omitempty"` // why the last bucket or window was of no use

	FanUsed    bool      `json:"fan_used,omitempty"` // the first steady window had a fan speed
	RefRPM     float64   `json:"ref_rpm,omitempty"`
	Learnt     []float64 `json:"learnt,omitempty"` // K/W, until there are enough
	Baseline   float64   `json:"baseline,omitempty"`
	Recent     []float64 `json:"recent,omitempty"` // K/W of the last steady windows
	LastSteady time.Time `json:"last_steady"`

	Words words `json:"words"`
	Last  Index `json:"last"`
}

// The limits of plausible and steady. The two variations are those of
// simulated fleets (power 22 %, fan 12 %).
const (
	minWatts, maxWatts = 2.0, 5000.0
	minRiseKelvin      = 1.0
	steadyPower        = 0.22 // standard deviation over mean
	steadyFan          = 0.12
	settledKelvin      = 1.0  // second half of the window against the first
	settledRatio       = 0.05 // the same, of the rise
	recentWindows      = 5
	// staleAfter is how long an index outlives the last steady window.
	staleAfter = 24 * time.Hour
	// fanExponent: resistance falls with rpm^-0.36 (a Ryzen with a low cooler,
	// 39 settled power steps; the part from die to sink does not depend on air).
	fanExponent = 0.36
)

// Observe takes one sample into account.
func Observe(s State, x Sample) (State, Index) {
	if !s.At.IsZero() && !x.At.After(s.At) {
		return s, s.Last
	}
	r := s.Rules.withDefaults()
	start := x.At.Truncate(r.Bucket)
	if !s.Open.Start.IsZero() && !start.Equal(s.Open.Start) {
		s = s.closeBucket(r)
		if start.Sub(s.Open.Start) > 3*r.Bucket {
			s.Window, s.Problem = nil, reasonWarmup
		}
		s.Open = bucket{}
	}
	s.At, s.Open.Start = x.At, start
	s.Open = s.Open.add(x)
	s.Words = s.Words.next(x, r.LimitCelsius)
	s.Last = s.index(x, r)
	return s, s.Last
}

// The reasons for an unknown index.
const (
	reasonNoDie    = "no die temperature"
	reasonNoInlet  = "no inlet temperature"
	reasonNoPower  = "no power reading"
	reasonNoFan    = "no fan speed"
	reasonStopped  = "fan stopped"
	reasonImplaus  = "power or temperatures not plausible"
	reasonUnsteady = "load not steady"
	reasonWarmup   = "warming up"
)

func missing(die, inlet, power bool) string {
	switch {
	case !die:
		return reasonNoDie
	case !power:
		return reasonNoPower
	case !inlet:
		return reasonNoInlet
	}
	return ""
}

// closeBucket moves the open bucket into the window and judges a full window.
func (s State) closeBucket(r Rules) State {
	b := s.Open
	s.Words = s.Words.bucket(b, s.Open.Start)
	if gone := missing(b.Die.N > 0, b.Inlet.N > 0, b.Power.N > 0); gone != "" {
		s.Window, s.Problem = nil, gone
		return s
	}
	switch s.Problem {
	case reasonNoDie, reasonNoInlet, reasonNoPower: // back again; other problems stand until a window is judged
		s.Problem = ""
	}
	s.Window = append(slices.Clone(s.Window), b)
	if len(s.Window) < r.WindowBuckets {
		return s
	}
	resistance, rpm, problem := judge(s.Window)
	if problem != "" { // keep the newer buckets: the next one may complete a steady window
		s.Window, s.Problem = s.Window[1:], problem
		return s
	}
	s.Window = nil
	if rpm.Known && rpm.V <= 0 {
		s.Problem = reasonStopped
		return s
	}
	if len(s.Recent) == 0 {
		s.FanUsed, s.RefRPM = rpm.Known, rpm.V
	}
	return s.learn(resistance, rpm, b.Start.Add(r.Bucket), r)
}

// learn takes one steady window at the reference speed of the fan.
func (s State) learn(resistance float64, rpm Value, end time.Time, r Rules) State {
	if s.FanUsed {
		if !rpm.Known {
			s.Problem = reasonNoFan
			return s
		}
		resistance *= math.Pow(rpm.V/s.RefRPM, fanExponent)
	}
	s.Problem, s.LastSteady = "", end
	s.Recent = append(slices.Clone(s.Recent), resistance)
	s.Recent = s.Recent[max(0, len(s.Recent)-recentWindows):]
	if s.Baseline == 0 {
		s.Learnt = append(slices.Clone(s.Learnt), resistance)
		if len(s.Learnt) >= r.BaselineWindows {
			s.Baseline, s.Learnt = median(s.Learnt), nil
		}
	}
	return s
}

func (s State) index(x Sample, r Rules) Index {
	v := Index{ResistanceKPerW: median(s.Recent), BaselineKPerW: s.Baseline}
	v.Health, v.HealthReason = s.Words.verdict(x, r.LimitCelsius)
	now := missing(x.Die.Known, x.Inlet.Known, x.Power.Known)
	blocked := s.Problem != "" && s.Problem != reasonUnsteady && s.Problem != reasonWarmup
	switch {
	case blocked:
		v.Reason = s.Problem
	case s.Baseline == 0 && now != "" && len(s.Window) == 0:
		v.Reason = now
	case s.Baseline == 0 && len(s.Learnt) > 0:
		v.Reason = fmt.Sprintf("learning the baseline: %d of %d steady windows", len(s.Learnt), r.BaselineWindows)
	case s.Baseline == 0 && s.Problem != "":
		v.Reason = s.Problem
	case s.Baseline == 0:
		v.Reason = reasonWarmup
	case x.At.Sub(s.LastSteady) > staleAfter:
		v.Reason = "no steady load for a day"
	default:
		v.Known, v.Ratio = true, v.ResistanceKPerW/s.Baseline
	}
	return v
}
