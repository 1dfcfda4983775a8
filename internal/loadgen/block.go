package loadgen

import (
	"fmt"
	"hash/crc32"
	"math"
	"math/rand/v2"

	"github.com/edgeherd/edgeherd/internal/wire"
)

// What a block holds: one minute of 30 sensors at 10 s, as a box has them.
const (
	rows     = 6
	variants = 64 // payloads that all devices share
)

// sensors drift, hunt or stand still; the names are those of agent/sense.
var sensors = []struct {
	name        string
	count       int
	scale       int8
	value, step float64
}{
	{"temp_celsius{cpu/Core %d}", 12, 1, 58, 0.3}, {"temp_celsius{nvme/%d}", 4, 1, 41, 0.1},
	{"fan_rpm{fan%d}", 2, 0, 1830, 9}, {"power_watts{rail%d}", 2, 2, 17.5, 0.4},
	{"volt{in%d}", 2, 2, 11.9, 0.01}, {"cpu_ratio{cpu%d}", 2, 3, 0.42, 0.03},
	{"disk_free_bytes{sd%d}", 3, -6, 61e9, 3e6}, {"throttle_count{cpu%d}", 3, 0, 4, 0},
}

// held is a block that a device has made and that is not acknowledged: all
// that it takes to make its bytes again. Times of sending are nanoseconds since
// the engine began.
type held struct {
	sid     wire.SID
	boot    wire.BootID
	h64     wire.H64
	monoMs  int64
	wallMs  int64
	sentAt  int64 // first time; 0: never
	againAt int64
	seq     uint32
	variant uint8
	quality wire.TimeQuality
	tries   uint8
}

// maker makes blocks. It does not change once it is made.
type maker struct {
	schema   wire.Schema
	schemaID wire.SchemaID
	payloads [variants][]byte
	sums     [variants]uint32
	spanMs   int64
}

func newMaker(seed uint64) (*maker, error) {
	m := &maker{spanMs: (rows - 1) * 10_000}
	rng := rand.New(rand.NewPCG(seed, 0))
	var values, steps []float64
	for _, s := range sensors {
		for i := range s.count {
			m.schema.Metrics = append(m.schema.Metrics, wire.Metric{Name: fmt.Sprintf(s.name, i), Scale: s.scale})
			values, steps = append(values, s.value+float64(i)), append(steps, s.step)
		}
	}
	m.schemaID = wire.SchemaIDOf(m.schema)
	for v := range m.payloads {
		s := wire.Samples{Schema: m.schema, TimesMs: make([]int64, rows), Values: make([][]float64, len(values))}
		for row := range s.TimesMs {
			s.TimesMs[row] = int64(row) * 10_000
		}
		for i := range values {
			unit := math.Pow10(int(m.schema.Metrics[i].Scale))
			for range rows {
				values[i] += steps[i] * rng.NormFloat64()
				s.Values[i] = append(s.Values[i], math.Round(values[i]*unit)/unit)
			}
		}
		payload, err := wire.EncodeSamples(s)
		if err != nil {
			return nil, fmt.Errorf("make samples: %w", err)
		}
		m.payloads[v], m.sums[v] = payload, crc32.Checksum(payload, crc32.MakeTable(crc32.Castagnoli))
	}
	return m, nil
}

// block is the block that h stands for.
func (m *maker) block(h *held) wire.Block {
	return wire.Block{
		Key:  wire.Key{SID: h.sid, Lane: wire.LaneTelemetry, Seq: uint64(h.seq), H64: h.h64},
		Kind: wire.KindSamples, Boot: h.boot, MonoMs: h.monoMs, WallMs: h.wallMs, Quality: h.quality,
		Schema: m.schemaID, Count: rows, SpanMs: m.spanMs, Payload: m.payloads[h.variant], CRC: m.sums[h.variant],
	}
}

// seal gives h the hash of its block.
func (m *maker) seal(h *held) error {
	b := m.block(h)
	if err := wire.Seal(&b); err != nil {
		return err
	}
	h.h64 = b.Key.H64
	return nil
}

// stream is a small generator of pseudo-random numbers (SplitMix64): a device
// has its own, so that its faults do not hang on the order of others' packets.
type stream uint64

func (s *stream) next() uint64 {
	*s += 0x9e3779b97f4a7c15
	z := uint64(*s)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// chance is true with probability p.
func (s *stream) chance(p float64) bool { return p > 0 && float64(s.next()>>11)/(1<<53) < p }

// below is a number in [0, n); 0 for n of 0 or less.
func (s *stream) below(n int64) int64 {
	if n <= 0 {
		return 0
	}
	return int64(s.next() % uint64(n))
}
