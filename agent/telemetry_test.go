package agent

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/agent/activate"
	"github.com/edgeherd/edgeherd/agent/sense"
	"github.com/edgeherd/edgeherd/internal/wire"
)

func phaseOf(err string) activate.Phase { return activate.Phase{Phase: "failed", Err: err} }

func rowOf(ms int64, readings ...sense.Reading) row {
	return row{mono: 5000 + ms, wall: 1_000_000 + ms, readings: readings}
}

func TestSealedSamplesComeBackAsTheyWereRead(t *testing.T) {
	rows := []row{
		rowOf(0, sense.Reading{Metric: "temp_die_celsius", Value: 61.237}, sense.Reading{Metric: "fan_rpm", Value: 1800}),
		rowOf(10_000, sense.Reading{Metric: "fan_rpm", Value: 1810}, sense.Reading{Metric: "temp_celsius{\xff}", Value: 1}),
		rowOf(20_000, sense.Reading{Metric: "temp_die_celsius", Value: 62}, sense.Reading{Metric: "disk_free_bytes", Value: 123_456_789}),
	}
	draft, err := seal(rows, wire.TimeSynced)
	if err != nil {
		t.Fatal(err)
	}
	if draft.MonoMs != 5000 || draft.WallMs != 1_000_000 || draft.SpanMs != 20_000 || draft.Count != 3 || draft.Quality != wire.TimeSynced {
		t.Errorf("draft %+v", draft)
	}
	got, err := wire.DecodeSamples(*draft.Schema, draft.Payload, 3)
	if err != nil {
		t.Fatal(err)
	}
	nan := math.NaN()
	want := map[string][]float64{
		"disk_free_bytes":  {nan, nan, 123_000_000},
		"fan_rpm":          {1800, 1810, nan},
		"temp_die_celsius": {61.24, nan, 62},
	}
	if len(got.Schema.Metrics) != len(want) {
		t.Errorf("columns %+v, want three: a name that cannot travel is left out", got.Schema.Metrics)
	}
	for i, m := range got.Schema.Metrics {
		if fmt.Sprint(got.Values[i]) != fmt.Sprint(want[m.Name]) {
			t.Errorf("%s: %v, want %v", m.Name, got.Values[i], want[m.Name])
		}
	}
	if fmt.Sprint(got.TimesMs) != "[0 10000 20000]" {
		t.Errorf("times %v", got.TimesMs)
	}
}

func TestScaleGoesByTheUnit(t *testing.T) {
	for metric, want := range map[string]int8{
		"temp_die_celsius": 2, "temp_celsius{nct6798/AUXTIN_0}": 2, "power_watts": 2, "cpu_busy_ratio": 3, "load1": 3,
		"cpu_freq_hertz": -6, "disk_free_bytes": -6, "fan_rpm{a_celsius}": 0, "throttle_count": 0, "uptime_seconds": 0, "": 0,
	} {
		if got := scaleOf(metric); got != want {
			t.Errorf("%q: scale %d, want %d", metric, got, want)
		}
	}
}

// noisy is a row that compresses badly, so that many do not fit into a block.
func noisy(i, metrics int) []sense.Reading {
	out := make([]sense.Reading, metrics)
	for m := range out {
		v := math.Mod(float64(i*7919+m*104729)*1.61803, 1) * 1e7
		out[m] = sense.Reading{Metric: fmt.Sprintf("power_watts{%d}", m), Value: v}
	}
	return out
}

func TestRowsBeyondOneBlockAreSplitAndNoneIsLost(t *testing.T) {
	a := newWorld(t).open()
	for i := range maxRows {
		a.telemetry.add(noisy(i, 200))
	}
	if !a.telemetry.full() {
		t.Error("not full")
	}
	a.seal()
	rows := uint32(0)
	list := blocks(t, a, wire.KindSamples)
	for _, b := range list {
		rows += b.Count
	}
	if rows != maxRows || len(list) < 2 {
		t.Errorf("%d rows in %d blocks, want %d in several", rows, len(list), maxRows)
	}
}

func TestARowThatNeverFitsIsNotInTheWayOfOthers(t *testing.T) {
	a := newWorld(t).open()
	a.telemetry.add(noisy(1, 2000)) // more columns than a schema may have
	a.telemetry.add(noisy(2, 10))
	a.seal()
	if list := blocks(t, a, wire.KindSamples); len(list) != 1 || list[0].Count != 1 {
		t.Errorf("blocks %+v, want the good row", list)
	}
}

func TestRowsWaitForTheDiskWithinABound(t *testing.T) {
	w := newWorld(t)
	a := w.open()
	if err := a.spool.Close(); err != nil {
		t.Fatal(err)
	}
	for i := range maxRows + 40 {
		a.telemetry.add(noisy(i, 3))
		if i%100 == 0 {
			a.seal()
		}
	}
	a.seal()
	rows := a.telemetry.take()
	if len(rows) != maxRows || rows[maxRows-1].readings[0] != noisy(maxRows+39, 3)[0] {
		t.Errorf("%d rows wait, want the newest %d", len(rows), maxRows)
	}
}

func TestLiveSamplesEndByThemselves(t *testing.T) {
	tel := newTelemetry(clock{})
	if tel.live() {
		t.Error("live without being asked")
	}
	tel.liveFor(time.Hour)
	if !tel.live() {
		t.Error("not live when asked")
	}
	tel.liveFor(-time.Second)
	if tel.live() {
		t.Error("live after its time")
	}
}
