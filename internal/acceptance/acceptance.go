// Package acceptance is the report of an acceptance test: what a box measured
// of itself before it was handed over, judged, and signed with the box's key.
//
// Vocabulary: a level is one of the four steps in which integrators hand over
// (hardware, system, load, operations). A check is one line of a level: what was
// measured, what was expected, the result, and a sentence that says what to do.
// A series is a curve that was recorded under load. A sealed report is the report
// as JSON with the signature of the box's key and the certificate of that key.
//
// Sentences are phrases: English texts with a code, so that the controller can
// write the report in the language of the customer. Words holds all of them.
//
// The one rule a caller can break: Open says that the key of the certificate
// in the file signed it; whose certificate that is, and that an authority of the
// fleet issued it, the caller asks.
package acceptance

import (
	"fmt"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/phrase"
)

// Version is the shape of Report. History: 1 first.
const Version = 1

// Bounds of a report. A test of all levels has about 40 checks and 5 series of
// 240 points, which is 40 KB.
const (
	MaxBytes  = 256 << 10 // of the sealed file
	MaxChecks = 200
	MaxSeries = 8
	MaxPoints = 400
	maxText   = 300 // bytes of a text of a check
)

// Level is a step of a handover.
type Level string

// The levels, in their order.
const (
	Hardware   Level = "hardware"
	System     Level = "system"
	Load       Level = "load"
	Operations Level = "operations"
)

// Levels returns all of them, in their order.
func Levels() []Level { return []Level{Hardware, System, Load, Operations} }

// ParseLevel reads the name of a level.
func ParseLevel(s string) (Level, error) {
	if l := Level(s); slices.Contains(Levels(), l) {
		return l, nil
	}
	return "", fmt.Errorf("%q is no level: use hardware, system, load or operations", s)
}

// Result is how a check ended.
type Result string

// The results. A check is skipped when the box has nothing to measure with, or
// the person who ran the test may not; its sentence says why.
const (
	Pass    Result = "pass"
	Warn    Result = "warn"
	Fail    Result = "fail"
	Skipped Result = "skipped"
)

// Verdict is what a whole report says.
type Verdict string

// The verdicts. Remarks is a pass with warnings; Aborted was ended before all
// checks had run and nothing had failed until then.
const (
	Passed  Verdict = "passed"
	Remarks Verdict = "passed-with-remarks"
	Failed  Verdict = "failed"
	Aborted Verdict = "aborted"
)

// Measured is a value: a number with a unit, or a text such as a version
// or the name of a part. The zero one is nothing.
type Measured struct {
	Number *float64 `json:"number,omitempty"`
	Unit   string   `json:"unit,omitempty"` // as it is written: "°C", "MB/s"; empty: a count
	Text   string   `json:"text,omitempty"`
}

// Check is one line of a report.
type Check struct {
	ID     string        `json:"id"`             // a key of Words without "title."
	Part   string        `json:"part,omitempty"` // of several: "eth0"
	Level  Level         `json:"level"`
	Result Result        `json:"result"`
	Value  Measured      `json:"value"`
	Expect phrase.Phrase `json:"expect"` // empty: only that it is plausible
	Say    phrase.Phrase `json:"say"`    // what to do, or why it was skipped; empty when all is well
}

// Course is one curve under load.
type Course struct {
	Name string `json:"name"` // a key of Words without "series."
	Unit string `json:"unit"`
	// Values stand at the times of Report.CurveSeconds; nil was not read.
	Values []*float64 `json:"values"`
}

// Report is the outcome of one acceptance test.
type Report struct {
	V    int         `json:"v"`
	ID   string      `json:"id"` // 16 hexadecimal digits, drawn by the box
	Box  identity.ID `json:"box"`
	Name string      `json:"name"`
	Site string      `json:"site"`
	// Machine is what the board says of itself; empty where it says nothing.
	Vendor  string `json:"vendor"`
	Product string `json:"product"`
	Serial  string `json:"serial"`
	// Simulated says that the board is not real, and so no value of it is.
	Simulated bool      `json:"simulated"`
	By        string    `json:"by"` // who ran it, as the box knows
	Agent     string    `json:"agent"`
	BootID    string    `json:"boot_id"`
	Delivery  string    `json:"delivery"` // name of the delivery list; empty: none, values were only judged as plausible
	Levels    []Level   `json:"levels"`   // that were asked for
	Started   time.Time `json:"started"`  // by the box's clock
	Ended     time.Time `json:"ended"`
	Aborted   bool      `json:"aborted"`
	Checks    []Check   `json:"checks"`
	// CurveSeconds are the times of the series since the load began.
	CurveSeconds []float64 `json:"curve_seconds"`
	Curve        []Course  `json:"curve"`
}

// Count counts checks by their result.
func (r Report) Count() map[Result]int {
	n := map[Result]int{}
	for _, c := range r.Checks {
		n[c.Result]++
	}
	return n
}

// Verdict says what the checks come to.
func (r Report) Verdict() Verdict {
	n := r.Count()
	switch {
	case n[Fail] > 0:
		return Failed
	case r.Aborted:
		return Aborted
	case n[Warn] > 0:
		return Remarks
	}
	return Passed
}

// Title is the English name of a check.
func (c Check) Title() string {
	title := Words["title."+c.ID]
	if title == "" {
		title = c.ID
	}
	if c.Part != "" {
		title += " " + c.Part
	}
	return title
}

// String writes a value for people, in English.
func (v Measured) String() string {
	if v.Number == nil {
		return v.Text
	}
	text := FormatNumber(*v.Number)
	if v.Unit != "" {
		text += " " + v.Unit
	}
	if v.Text != "" {
		text += ": " + v.Text
	}
	return text
}

// FormatNumber writes a number with as many digits as a person wants: three, or
// all before the point.
func FormatNumber(x float64) string {
	digits := 0
	switch {
	case x == float64(int64(x)) && x < 1e15 && x > -1e15:
	case x < 10 && x > -10:
		digits = 2
	case x < 100 && x > -100:
		digits = 1
	}
	return fmt.Sprintf("%.*f", digits, x)
}

// Number makes a value of a number.
func Number(x float64, unit string) Measured { return Measured{Number: &x, Unit: unit} }

// Say makes a phrase of Words. A code that is not there is a fault of this program.
func Say(code string, args ...any) phrase.Phrase {
	first := ""
	if len(args) > 0 {
		first = fmt.Sprint(args[0])
	}
	format, ok := phrase.Pick(Words, "en", code, first)
	if !ok {
		panic("acceptance: no words for " + code)
	}
	return phrase.Of(code, format, args...)
}
