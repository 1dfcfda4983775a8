// Package health tells which filter to clean, and when, without a dust sensor.
//
// It is the pure core that agent, controller and `edgeherd health replay`
// share: no files, no clocks, no goroutines; the same hours give the same
// findings. Its road is
//
//	Sample → Hour → residual r → detectors → Finding, with a forecast
//
// Sample: one reading, every figure of which may be missing. Hour: their
// summary; only steady hours are judged. Basis: which sensors an index is made
// from. Prior: slopes and fan curve of a SKU, pooled over its boxes. Baseline:
// the clean box, frozen when it is commissioned. Residual: ln of the thermal
// resistance over that of the clean box at the same load and airflow, so that
// 0.06 is 6 % more heat for the same work. Change: a logged event that may
// move the baseline. Finding: what is wrong, since when, how sure, and why.
//
// The one rule a caller can break: a box's hours go to Advance in order, each
// once; an hour that is not newer than the last one is ignored.
//
// The numbers come from simulated fleets and published measurements. How well
// they do in the field is not known.
package health

import (
	"math"
	"time"

	"github.com/edgeherd/edgeherd/internal/phrase"
)

// Cause names what a finding says is wrong.
type Cause string

const (
	CauseAirflow      Cause = "airflow"      // filter or fins clogged
	CausePaste        Cause = "paste"        // between die and heat sink
	CauseUndetermined Cause = "undetermined" // resistance rose, no witness tells where
	CauseVent         Cause = "blocked-vent"
	CauseFanWear      Cause = "fan-wear"
	CauseFanStop      Cause = "fan-stop"
	CauseSensor       Cause = "sensor"  // stuck or lying
	CauseAmbient      Cause = "ambient" // the air at the inlet is warmer than usual
	CauseHVAC         Cause = "hvac"    // several boxes of a site agree
	CauseDrive        Cause = "drive-wear"
	CauseSupply       Cause = "power-supply"
)

// Level says how urgent a finding is.
type Level uint8

const (
	Healthy Level = iota
	Watch         // weekly digest
	Ticket        // put it on the next visit
	Urgent        // go now
)

var levelNames = [...]string{"healthy", "watch", "ticket", "urgent"}

func (l Level) String() string { return levelNames[min(l, Urgent)] }

func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

func (l *Level) UnmarshalText(text []byte) error {
	for i, n := range levelNames {
		if n == string(text) {
			*l = Level(i)
		}
	}
	return nil
}

// Unix is a moment in Unix seconds; in JSON it is written as RFC 3339.
type Unix int64

func (u Unix) MarshalText() ([]byte, error) { return timeOf(int64(u)).AppendText(nil) }

func (u *Unix) UnmarshalText(text []byte) error {
	var t time.Time
	err := t.UnmarshalText(text)
	*u = Unix(t.Unix())
	return err
}

// Evidence is one fact that a finding rests on.
type Evidence struct {
	Name  string `json:"name"`
	Value Value  `json:"value"`
	// The sentence for people, in English and for pages in other languages: see
	// package phrase.
	Text string   `json:"text"`
	Code string   `json:"code,omitempty"`
	Args []string `json:"args,omitempty"`
}

// fact is a piece of evidence with its sentence.
func fact(name string, v Value, code, format string, args ...any) Evidence {
	p := phrase.Of(code, format, args...)
	return Evidence{name, v, p.Text, p.Code, p.Args}
}

// Finding is one thing that is wrong with a box. There is one open finding for
// each box and family of causes.
type Finding struct {
	Box        string     `json:"box"`
	Site       string     `json:"site,omitempty"`
	Family     string     `json:"family"` // resistance, step, fan1…fan4, fan1-stop…, sensor, sensors, ambient, drive, supply
	Cause      Cause      `json:"cause"`
	Level      Level      `json:"level"`      // its highest so far
	Confidence float64    `json:"confidence"` // of the cause, 0..1
	Since      Unix       `json:"since"`      // when it began, as far as is known
	Opened     Unix       `json:"opened"`
	Ticketed   Unix       `json:"ticketed,omitempty"` // 0: never more than watch
	Urgent     Unix       `json:"urgent,omitempty"`
	Closed     Unix       `json:"closed,omitempty"` // 0: open
	ClosedBy   string     `json:"closed_by,omitempty"`
	Evidence   []Evidence `json:"evidence"`
	Forecast   *Forecast  `json:"forecast,omitempty"` // the latest
	// AtTicket is the forecast that stood when it became a ticket.
	AtTicket *Forecast `json:"forecast_at_ticket,omitempty"`
}

// Cleaning is a fall of the resistance that a cleaning leaves.
type Cleaning struct {
	Box    string  `json:"box"`
	At     Unix    `json:"at"`
	Before float64 `json:"before"` // residual
	After  float64 `json:"after"`
	Logged bool    `json:"logged"` // a visit or cleaning was in the events
}

// Kinds of Change.
const (
	Rollout         = "rollout"
	PowerMode       = "power-mode"
	BIOS            = "bios"
	Visit           = "visit"
	Cleaned         = "cleaned"
	FanReplaced     = "fan-replaced"
	PasteReplaced   = "paste-replaced"
	FilterInstalled = "filter-installed"
	Moved           = "moved"
)

// changeKinds are all kinds that an events file may name.
var changeKinds = [...]string{Rollout, PowerMode, BIOS, Visit, Cleaned, FanReplaced, PasteReplaced, FilterInstalled, Moved}

// Change is a logged event that may move the baseline of a box.
type Change struct {
	At     int64  `json:"at"`
	Box    string `json:"box,omitempty"` // or
	Site   string `json:"site,omitempty"`
	Kind   string `json:"kind"`
	Detail string `json:"detail,omitempty"`
}

// Env is what a box cannot know by itself.
type Env struct {
	Prior *Prior  // of its SKU; nil: the shipped one
	TripC float64 // die temperature at which it throttles; 0: 95, or as learnt
	Mates Mates   // the other boxes of its site
}

// Advance gives a box its next hour. It returns the findings that were opened,
// raised or closed by it.
func Advance(b *Box, h *Hour, env Env) []Finding {
	if h.Start <= b.Last.Start {
		return nil
	}
	b.out = b.out[:0]
	if b.First == 0 {
		b.First = h.Start
	}
	if b.Last.Start != 0 && h.day() != b.Last.day() {
		b.closeDay(b.Last.day(), env)
	}
	steady := h.Steady(&b.Last)
	b.watchStuck(h)
	b.watchFanStop(h)
	b.watchStill(h)
	b.takeParts(h)
	own := *h
	b.distrust(&own)
	h = &own
	b.noteThrottle(h)
	if b.Base == nil || b.Base.Provisional {
		b.gather(h, steady)
	}
	if b.Base != nil {
		b.watchAmbient(h)
		switch {
		case steady && !b.stuck():
			b.measureFans(h)
			b.measure(h)
			b.watchStep(h)
			b.watchLeap(h)
		case steady && h.V[PWM].OK():
			b.measureFans(h) // a die that rests hides no fan
		}
	}
	b.Last = *h
	return b.out
}

// Log tells a box of a change. Boxes of a site are all told of a site's.
func Log(b *Box, c Change) {
	b.Changes = append(b.Changes, c)
	if c.Kind == Moved {
		b.restart(c.At, "moved")
	}
}

// Health is the highest level of what is open.
func (b *Box) Health() Level {
	l := Healthy
	for i := range b.Open {
		l = max(l, b.Open[i].Level)
	}
	return l
}

// Percent writes a residual as a change of resistance in percent.
func Percent(r float64) float64 { return 100 * (math.Exp(r) - 1) }
