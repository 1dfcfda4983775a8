package bench

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/edgeherd/edgeherd/internal/wire"
)

// blockSeed makes the same sensors on every machine.
const blockSeed = 20261122

// sensorBlocks makes one-minute blocks of 30 sensors at 10 s as a box has them:
// temperatures that drift by hundredths of a degree, fans that hunt, power with
// noise, counters that stand still. Names are short, for the sake of the JSON
// that blocks are compared with.
func sensorBlocks(n int) []wire.Samples {
	rng := rand.New(rand.NewPCG(blockSeed, 1))
	type sensor struct {
		metric            wire.Metric
		value, step, rest float64 // rest is the share of readings that do not move
	}
	var all []sensor
	add := func(count int, name string, scale int8, value, step, rest float64) {
		for i := range count {
			all = append(all, sensor{wire.Metric{Name: fmt.Sprintf(name, i), Scale: scale}, value + float64(i), step, rest})
		}
	}
	add(12, "temp_core%d", 2, 61, 0.25, 0.1)
	add(4, "temp_aux%d", 2, 34, 0.05, 0.2)
	add(2, "fan%d", 0, 1830, 9, 0.1)
	add(2, "power%d", 2, 17.5, 0.4, 0)
	add(2, "volt%d", 2, 11.9, 0.01, 0.3)
	add(2, "cpu%d", 3, 0.42, 0.03, 0)
	add(3, "disk%d", -6, 61e9, 3e6, 0.5)
	add(3, "throttle%d", 0, 4, 0, 1)
	blocks := make([]wire.Samples, n)
	for b := range blocks {
		s := wire.Samples{Values: make([][]float64, len(all))}
		for row := range 6 {
			jitter := int64(rng.IntN(7)) // ms; a ticker is not exact
			s.TimesMs = append(s.TimesMs, int64(row)*10_000+min(int64(row), 1)*jitter)
		}
		for i := range all {
			s.Schema.Metrics = append(s.Schema.Metrics, all[i].metric)
			unit := math.Pow10(int(all[i].metric.Scale))
			for range 6 {
				if rng.Float64() >= all[i].rest {
					all[i].value += all[i].step * rng.NormFloat64()
				}
				s.Values[i] = append(s.Values[i], math.Round(all[i].value*unit)/unit)
			}
		}
		blocks[b] = s
	}
	return blocks
}

// blockSize compares the payload of a block with JSON of the same samples: as
// lines, one object a reading with the sensors' names, which is what programs
// send that need no schema; and as bare columns of numbers without any name.
func blockSize(t *testing.T) []Figure {
	const blocks = 200
	var payloads, lines, columns float64
	for _, s := range sensorBlocks(blocks) {
		payload, err := wire.EncodeSamples(s)
		check(t, err)
		payloads += float64(len(payload))
		for row, at := range s.TimesMs {
			reading := map[string]float64{"time": float64(ingestStart + at)}
			for i, m := range s.Schema.Metrics {
				reading[m.Name] = s.Values[i][row]
			}
			lines += jsonBytes(t, reading) + 1
		}
		columns += jsonBytes(t, s.TimesMs) + jsonBytes(t, s.Values)
	}
	return []Figure{
		Figure{Value: payloads / blocks, Unit: "B", Goal: Goal{AtMost: 1.0 / 12}}.Against("JSON lines with names", lines/blocks),
		Figure{Name: "bare", Value: payloads / blocks, Unit: "B"}.Against("JSON columns without names", columns/blocks),
		{Name: "per-sample", Value: payloads / blocks / (sensors * 6), Unit: "B"},
	}
}

func jsonBytes(t *testing.T, v any) float64 {
	t.Helper()
	data, err := json.Marshal(v)
	check(t, err)
	return float64(len(data))
}
