// Package bench prints the figures that edgeherd is judged by, each beside a
// yardstick: the same work done by the thing it is built on, in the same run.
//
// A measurement is one row of the table in bench_test.go: a name and a function
// that reports figures. A figure is a number with a unit; its ratio is the
// number divided by the yardstick's, and its goal is the ratio (or, without a
// yardstick, the number) that must not be exceeded or fallen short of.
//
// Files: `make bench` writes build/bench.jsonl, one JSON object per figure.
//
// The one rule a caller can break: never compare figures of different runs.
// Machines differ and are shared; only a ratio within one run means something.
// For the same reason a missed goal is printed and never fails a test.
package bench

import (
	"encoding/json"
	"fmt"
	"io"
)

// Figure is one measured number. In a table of measurements it is filled in by
// the measuring function, save Name and Command, which Report sets.
type Figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	// Yardstick is the same work done by the thing we build on, in Unit, and
	// Beside says what that is. Ratio is Value / Yardstick. All or none are set.
	Yardstick *float64 `json:"yardstick"`
	Ratio     *float64 `json:"ratio"`
	Beside    string   `json:"yardstick_name,omitempty"`
	// Goal bounds Ratio, or Value where Ratio is nil.
	Goal    Goal   `json:"goal"`
	Command string `json:"command"`
}

// Goal is an upper or a lower bound; the zero Goal binds nothing. In JSON it is text such as
// "<=0.5" or ">=0.88", or empty.
type Goal struct{ AtMost, AtLeast float64 }

// MarshalText implements encoding.TextMarshaler.
func (g Goal) MarshalText() ([]byte, error) { return []byte(g.String()), nil }

// Against sets the yardstick and the ratio of f to it.
func (f Figure) Against(yardstick string, value float64) Figure {
	ratio := f.Value / value
	f.Beside, f.Yardstick, f.Ratio = yardstick, &value, &ratio
	return f
}

// Met says whether the goal holds.
func (f Figure) Met() bool {
	got := f.Value
	if f.Ratio != nil {
		got = *f.Ratio
	}
	return (f.Goal.AtMost == 0 || got <= f.Goal.AtMost) && (f.Goal.AtLeast == 0 || got >= f.Goal.AtLeast)
}

func (g Goal) String() string {
	switch {
	case g.AtMost != 0:
		return fmt.Sprintf("<=%.4g", g.AtMost)
	case g.AtLeast != 0:
		return fmt.Sprintf(">=%.4g", g.AtLeast)
	}
	return ""
}

// Table writes figures as rows for people and as JSON lines for programs.
type Table struct {
	rows, lines io.Writer
	begun       bool
}

// NewTable writes rows to rows and JSON lines to lines.
func NewTable(rows, lines io.Writer) *Table {
	return &Table{rows: rows, lines: lines}
}

// Report writes the figures of the measurement name.
func (t *Table) Report(name string, figures ...Figure) error {
	if !t.begun {
		t.begun = true
		fmt.Fprintf(t.rows, "%-36s %12s %-8s %8s  %-12s %-6s %s\n", "figure", "value", "unit", "ratio", "goal", "met", "yardstick")
	}
	for _, f := range figures {
		if f.Name == "" {
			f.Name = name
		} else {
			f.Name = name + "/" + f.Name
		}
		f.Command = "make bench-" + name
		ratio, met := "-", "yes"
		if f.Ratio != nil {
			ratio = fmt.Sprintf("%.3f", *f.Ratio)
		}
		if !f.Met() {
			met = "NO"
		}
		fmt.Fprintf(t.rows, "%-36s %12.4g %-8s %8s  %-12s %-6s %s\n", f.Name, f.Value, f.Unit, ratio, f.Goal, met, f.Beside)
		enc := json.NewEncoder(t.lines)
		enc.SetEscapeHTML(false) // goals are read by people too
		if err := enc.Encode(f); err != nil {
			return fmt.Errorf("write figure %s: %w", f.Name, err)
		}
	}
	return nil
}
