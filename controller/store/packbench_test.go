package store_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// sensors30 is ten minutes of 30 sensors that wander, as blocks of a minute.
func sensors30(minutes int) []wire.Samples {
	rng := rand.New(rand.NewPCG(7, 7))
	blocks := make([]wire.Samples, minutes)
	values := make([]float64, 30)
	for b := range blocks {
		s := wire.Samples{Values: make([][]float64, len(values))}
		for row := range int64(6) {
			s.TimesMs = append(s.TimesMs, row*10_000+min(row, 1)*rng.Int64N(7))
		}
		for m := range values {
			s.Schema.Metrics = append(s.Schema.Metrics, wire.Metric{Name: fmt.Sprintf("sensor_%02d", m), Scale: 2})
			for range s.TimesMs {
				if m < 27 { // the others stand still
					values[m] += rng.NormFloat64() * []float64{0.25, 0.05, 9}[m%3]
				}
				s.Values[m] = append(s.Values[m], math.Round(values[m]*100)/100)
			}
		}
		blocks[b] = s
	}
	return blocks
}

// BenchmarkPacks times group commits of one pack of 1,800 samples of each of
// 200 boxes.
func BenchmarkPacks(b *testing.B) {
	for _, e := range engines {
		b.Run(e.name, func(b *testing.B) { benchmarkPacks(b, openAt(b, e.place(b))) })
	}
}

func benchmarkPacks(b *testing.B, s *store.Store) {
	ids := make([]identity.ID, 200)
	for i := range ids {
		ids[i] = identity.NewID()
		check(b, s.AddBox(ctx, ids[i], fmt.Sprint(i), "x"))
	}
	minutes, minute := sensors30(60), 0
	var cpu time.Duration
	for b.Loop() {
		b.StopTimer()
		ds := packsOf(b, ids, minutes, minute)
		minute += 10
		runtime.GC()
		b.StartTimer()
		began := cpuTime()
		ingest(b, s, ds...)
		cpu += cpuTime() - began
	}
	n := float64(b.N * len(ids))
	b.ReportMetric(float64(b.Elapsed().Microseconds())/n, "us/pack")
	b.ReportMetric(float64(cpu.Microseconds())/n, "cpu-us/pack")
}

// packsOf is ten minutes as one pack, as if each box had measured the same.
func packsOf(b *testing.B, ids []identity.ID, minutes []wire.Samples, minute int) []store.Delivery {
	sc := minutes[0].Schema
	var blocks []wire.Block
	var starts []int64
	for m := minute; m < minute+10; m++ {
		one := minutes[m%len(minutes)]
		payload, err := wire.EncodeSamples(one)
		check(b, err)
		at := int64(m) * 60_000
		block := wire.Block{
			Key: wire.Key{Lane: wire.LaneTelemetry, Seq: uint64(m + 1)}, Kind: wire.KindSamples,
			MonoMs: at, WallMs: epoch + at, Quality: wire.TimeSynced, Schema: wire.SchemaIDOf(sc), Count: 6, SpanMs: one.TimesMs[5], Payload: payload,
		}
		check(b, wire.Seal(&block))
		blocks, starts = append(blocks, block), append(starts, epoch+at)
	}
	p, err := wire.PackBlocks(sc, blocks)
	check(b, err)
	rows, err := p.Samples(sc)
	check(b, err)
	ds := make([]store.Delivery, len(ids))
	for i, id := range ids {
		own := p
		own.SID = wire.SID{byte(i)}
		ds[i] = store.Delivery{Box: id, Pack: &own, StartMs: starts[0], Starts: starts, Samples: &rows, Schema: &sc}
	}
	return ds
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
