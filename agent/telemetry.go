package agent

import (
	"math"
	"slices"
	"strings"
	"sync"
	"time"

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

// giveBack returns rows that could not be stored, bounded so that a box whose
// disk is full does not run out of memory as well.
func (t *telemetry) giveBack(rows []row) {
	const most = 360 // an hour at the usual period
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows = append(rows, t.rows...)
	if extra := len(t.rows) - most; extra > 0 {
		t.rows = t.rows[extra:]
	}
}

// seal makes the draft of a samples block.
func seal(rows []row, quality wire.TimeQuality) (spool.Draft, error) {
	names := map[string]int{}
	var schema wire.Schema
	for _, r := range rows {
		for _, v := range r.readings {
			if _, ok := names[v.Metric]; !ok {
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
			i := names[v.Metric]
			s.Values[i][j] = round(v.Value, schema.Metrics[i].Scale)
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
