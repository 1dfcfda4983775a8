package agent

import (
	"math"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/edgeherd/edgeherd/agent/sense"
	"github.com/edgeherd/edgeherd/agent/spool"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// telemetry collects readings until they are sealed into a block.
type telemetry struct {
	clock clock

	mu    sync.Mutex // guards the fields below
	rows  []row
	until time.Time // live samples are wanted until then
}

type row struct {
	mono, wall int64
	readings   []sense.Reading
}

func newTelemetry(c clock) *telemetry { return &telemetry{clock: c} }

func (t *telemetry) add(readings []sense.Reading) {
	mono, wall := t.clock.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows = append(t.rows, row{mono, wall, readings})
}

// liveFor makes live samples flow for d.
func (t *telemetry) liveFor(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.until = time.Now().Add(d)
}

func (t *telemetry) live() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return time.Now().Before(t.until)
}

// take returns the collected rows and forgets them.
func (t *telemetry) take() []row {
	t.mu.Lock()
	defer t.mu.Unlock()
	rows := t.rows
	t.rows = nil
	return rows
}

// maxRows are kept until they are sealed: an hour at the usual period.
const maxRows = 360

// full reports whether the rows want to be sealed before it is time.
func (t *telemetry) full() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.rows) >= maxRows
}

// giveBack returns rows that could not be stored, bounded so that a box whose
// disk is full does not run out of memory as well.
func (t *telemetry) giveBack(rows []row) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows = append(rows, t.rows...)
	if extra := len(t.rows) - maxRows; extra > 0 {
		t.rows = t.rows[extra:]
	}
}

// sealSome makes a block of the first n rows, as many as fit into one. On an
// error not even the first row does.
func sealSome(rows []row, quality wire.TimeQuality) (draft spool.Draft, n int, err error) {
	n = len(rows)
	for {
		if draft, err = seal(rows[:n], quality); err == nil || n == 1 {
			return draft, n, err
		}
		n /= 2
	}
}

// seal makes the draft of a samples block.
func seal(rows []row, quality wire.TimeQuality) (spool.Draft, error) {
	names := map[string]int{}
	var schema wire.Schema
	for _, r := range rows {
		for _, v := range r.readings {
			if _, ok := names[v.Metric]; !ok && fits(v.Metric) {
				names[v.Metric] = 0
				schema.Metrics = append(schema.Metrics, wire.Metric{Name: v.Metric, Scale: scaleOf(v.Metric)})
			}
		}
	}
	slices.SortFunc(schema.Metrics, func(a, b wire.Metric) int { return strings.Compare(a.Name, b.Name) })
	s := wire.Samples{Schema: schema}
	for i, m := range schema.Metrics {
		names[m.Name] = i
		column := make([]float64, len(rows))
		for j := range column {
			column[j] = math.NaN()
		}
		s.Values = append(s.Values, column)
	}
	for j, r := range rows {
		s.TimesMs = append(s.TimesMs, r.mono-rows[0].mono)
		for _, v := range r.readings {
			if i, ok := names[v.Metric]; ok {
				s.Values[i][j] = round(v.Value, schema.Metrics[i].Scale)
			}
		}
	}
	payload, err := wire.EncodeSamples(s)
	if err != nil {
		return spool.Draft{}, err
	}
	first, last := rows[0], rows[len(rows)-1]
	return spool.Draft{
		Lane: wire.LaneTelemetry, Kind: wire.KindSamples, MonoMs: first.mono, WallMs: first.wall,
		SpanMs: last.mono - first.mono, Quality: quality, Schema: &schema, Count: uint32(len(rows)), Payload: payload,
	}, nil
}

// fits reports whether a name can travel. Labels come from drivers and board
// firmware; one that is nonsense must not keep the others off the wire.
func fits(metric string) bool { return len(metric) <= maxMetric && utf8.ValidString(metric) }

// maxMetric bounds the name of a metric, in bytes, as package wire does.
const maxMetric = 128

// scaleOf is how many decimal places of a metric are worth their bytes. It
// goes by the unit, which is the end of the name.
func scaleOf(metric string) int8 {
	name, _, _ := strings.Cut(metric, "{")
	unit := name[strings.LastIndex(name, "_")+1:]
	switch unit {
	case "celsius", "watts", "volts", "amperes":
		return 2
	case "ratio", "load1":
		return 3
	case "hertz":
		return -6
	case "bytes":
		return -6
	}
	return 0 // rpm, counts, seconds
}

func round(v float64, scale int8) float64 {
	p := math.Pow10(int(scale))
	return math.Round(v*p) / p
}
