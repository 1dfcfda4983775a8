package ingest_test

import (
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/ingest"
	"github.com/edgeherd/edgeherd/controller/series"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// minutes are blocks that follow each other, of two samples each.
func minutes(n int) []wire.Block {
	var out []wire.Block
	for i := range n {
		b := samples(uint64(i+1), float64(40+i), float64(60-i))
		b.WallMs, b.MonoMs = now-3_600_000+int64(i)*60_000, bootMs-3_600_000+int64(i)*60_000
		if err := wire.Seal(&b); err != nil {
			panic(err)
		}
		out = append(out, b)
	}
	return out
}

func packed(t testing.TB, grain wire.Grain, blocks ...wire.Block) wire.Pack {
	t.Helper()
	p, err := wire.PackBlocks(schema, blocks)
	check(t, err)
	if grain > wire.GrainExact {
		p, err = wire.Coarsen(schema, []wire.Pack{p}, grain)
		check(t, err)
	}
	return p
}

// counted is how many samples of a box count, and from what to what.
func (w *world) counted(id identity.ID) (n int, low, high float64) {
	w.t.Helper()
	points, err := w.store.Chart(ctx, id, series.Window{FromMs: now - 24*3_600_000, ToMs: now + 3_600_000, StepMs: 3_600_000}, []store.Curve{{Metrics: []string{"temp_die_celsius"}}}, false)
	check(w.t, err)
	low, high = math.Inf(1), math.Inf(-1)
	for _, p := range points[0] {
		n, low, high = n+p.N, min(low, p.Min), max(high, p.Max)
	}
	return n, low, high
}

// TestPacksCountOncePerMember sends blocks and packs of all grains of them.
func TestPacksCountOncePerMember(t *testing.T) {
	for grain := range wire.GrainTen + 1 {
		w := running(t)
		blocks := minutes(12)
		check(t, w.deliver(boxA, wire.TopicData, wire.Data{Blocks: blocks[3:5], Schemas: []wire.Schema{schema}}))
		first := one[wire.Ack](w, boxA, wire.TopicAck)
		for range 2 { // the ACK of the first was lost
			check(t, w.deliver(boxA, wire.TopicData, wire.Data{Packs: []wire.Pack{packed(t, grain, blocks...)}}))
			ack := one[wire.Ack](w, boxA, wire.TopicAck)
			if !slices.Equal(ack.Keys, keys(blocks...)) || len(ack.Refused) > 0 || ack.LSN <= first.LSN || ack.Run != first.Run {
				t.Errorf("grain %d: ack %+v", grain, ack)
			}
		}
		check(t, w.deliver(boxA, wire.TopicData, wire.Data{Blocks: blocks}))
		if n, low, high := w.counted(boxA); n != 24 || low != 40 || high != 60 || len(w.stored(boxA)) != 12 {
			t.Errorf("grain %d: %d samples from %v to %v of %d blocks, want 24 from 40 to 60 of 12", grain, n, low, high, len(w.stored(boxA)))
		}
	}
}

// TestPacksArePlacedByTheirMembers: a box without a clock said when it booted.
func TestPacksArePlacedByTheirMembers(t *testing.T) {
	w := running(t)
	check(t, w.deliver(boxA, wire.TopicHello, wire.Hello{V: wire.Version, Clock: wire.Clock{Boot: boot, MonoMs: bootMs}}))
	blocks := minutes(3)
	for i := range blocks {
		blocks[i].Quality, blocks[i].WallMs = wire.TimeUnknown, int64(i)*1000
		check(t, wire.Seal(&blocks[i]))
	}
	check(t, w.deliver(boxA, wire.TopicData, wire.Data{Packs: []wire.Pack{packed(t, wire.GrainExact, blocks...)}, Schemas: []wire.Schema{schema}}))
	var starts []int64
	check(t, w.store.Samples(ctx, boxA, time.UnixMilli(0), time.UnixMilli(2*now), func(start int64, s wire.Samples) error {
		starts = append(starts, start)
		if !slices.Equal(s.TimesMs, []int64{0, 10_000}) {
			t.Errorf("times %v", s.TimesMs)
		}
		return nil
	}))
	if want := []int64{now - 3_600_000, now - 3_540_000, now - 3_480_000}; !slices.Equal(starts, want) {
		t.Errorf("starts %v, want %v", starts, want)
	}
}

// TestBadPacksAreRefused as a whole, and what is beside them is stored.
func TestBadPacksAreRefused(t *testing.T) {
	blocks := minutes(4)
	finish := func(p wire.Pack) wire.Pack { p.CRC = crcOf(t, p); return p }
	forged := packed(t, wire.GrainExact, blocks...)
	forged.Members = slices.Clone(forged.Members)
	forged.Members[1].H64[0]++
	bomb := packed(t, wire.GrainTen, blocks...)
	// A zstd frame of one segment of 64 MiB: blocks of 128 KiB of one byte.
	bomb.Payload = []byte{0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0, 4}
	for i := range 512 {
		head := 128<<10<<3 | 1<<1 | i/511
		bomb.Payload = append(bomb.Payload, byte(head), byte(head>>8), byte(head>>16), 0)
	}
	bent := packed(t, wire.GrainMember, blocks...)
	bent.Payload = append(slices.Clone(bent.Payload), 0)
	long := minutes(2)
	for i := range long {
		long[i].SpanMs = (25 * time.Hour).Milliseconds()
		check(t, wire.Seal(&long[i]))
	}
	for name, p := range map[string]wire.Pack{"forged": finish(forged), "bomb": finish(bomb), "bent": bent, "endless": packed(t, wire.GrainTen, long...)} {
		w := running(t)
		good := samples(99, 50)
		check(t, w.deliver(boxA, wire.TopicData, wire.Data{Blocks: []wire.Block{good}, Packs: []wire.Pack{p}, Schemas: []wire.Schema{schema}}))
		ack := one[wire.Ack](w, boxA, wire.TopicAck)
		if !slices.Equal(ack.Keys, keys(good)) || !slices.Equal(ack.Refused, p.Keys()) || len(w.stored(boxA)) != 1 {
			t.Errorf("%s: ack %+v, %d stored", name, ack, len(w.stored(boxA)))
		}
	}
	// Members of an exact pack that no chart can show are kept, as alone.
	w := running(t)
	check(t, w.deliver(boxA, wire.TopicData, wire.Data{Packs: []wire.Pack{packed(t, wire.GrainExact, long...)}, Schemas: []wire.Schema{schema}}))
	if ack := one[wire.Ack](w, boxA, wire.TopicAck); !slices.Equal(ack.Keys, keys(long...)) || len(w.stored(boxA)) != 2 {
		t.Errorf("ack %+v", ack)
	}
	if n, _, _ := w.counted(boxA); n != 0 {
		t.Errorf("%d unreadable samples are charted", n)
	}
}

// TestT18AFewBytesDoNotFillTheMemory: the values of a message wait for their
// commit unpacked.
func TestT18AFewBytesDoNotFillTheMemory(t *testing.T) {
	wide := wire.Schema{}
	for i := range 1024 {
		wide.Metrics = append(wide.Metrics, wire.Metric{Name: fmt.Sprint("m", i)})
	}
	s := wire.Samples{Schema: wide, Values: make([][]float64, len(wide.Metrics))}
	for row := range wire.MaxCells / len(wide.Metrics) {
		s.TimesMs = append(s.TimesMs, int64(row))
		for m := range s.Values {
			s.Values[m] = append(s.Values[m], 1)
		}
	}
	payload, err := wire.EncodeSamples(s)
	check(t, err)
	msg := wire.Data{Schemas: []wire.Schema{wide}}
	for i := range wire.MaxPacks {
		b := block(uint64(i+1), func(b *wire.Block) {
			b.Kind, b.Schema, b.Count, b.SpanMs, b.Payload = wire.KindSamples, wire.SchemaIDOf(wide), uint32(len(s.TimesMs)), s.TimesMs[len(s.TimesMs)-1], payload
		})
		p, err := wire.PackBlocks(wide, []wire.Block{b})
		check(t, err)
		msg.Packs = append(msg.Packs, p)
	}
	w := running(t)
	if err := w.deliver(boxA, wire.TopicData, msg); !errors.Is(err, ingest.ErrMalformed) {
		t.Errorf("%d packs of %d values each: %v", len(msg.Packs), wire.MaxCells, err)
	}
	// What a box may have in flight.
	msg.Packs = msg.Packs[:8]
	check(t, w.deliver(boxA, wire.TopicData, msg))
	if ack := one[wire.Ack](w, boxA, wire.TopicAck); len(ack.Keys) != 8 || len(w.stored(boxA)) != 8 {
		t.Errorf("%d keys are acknowledged and %d stored of 8", len(ack.Keys), len(w.stored(boxA)))
	}
}

// crcOf is what a box would seal the pack with.
func crcOf(t *testing.T, p wire.Pack) uint32 {
	t.Helper()
	p.CRC = 0
	data, err := wire.Encode(p)
	check(t, err)
	return crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))
}

func TestPacksOfUnknownSchemasAskForHello(t *testing.T) {
	w := running(t)
	p := packed(t, wire.GrainTen, minutes(3)...)
	check(t, w.deliver(boxA, wire.TopicData, wire.Data{Packs: []wire.Pack{p}}))
	if cmd := one[wire.Cmd](w, boxA, wire.TopicCmd); !cmd.Hello || len(w.take(boxA, wire.TopicAck)) != 0 {
		t.Errorf("command %+v", cmd)
	}
}

// TestManyMessagesShareCommitsAndAcks: what waits together is committed in
// bounded parts, and each box hears once of each.
func TestManyMessagesShareCommitsAndAcks(t *testing.T) {
	w := idle(t)
	check(t, w.store.AddSchemas(ctx, []wire.Schema{schema}))
	const messages, each = 40, 200
	var wg sync.WaitGroup
	for i := range messages {
		wg.Go(func() {
			var blocks []wire.Block
			for j := range each {
				blocks = append(blocks, samples(uint64(i*each+j+1), float64(j)))
			}
			if err := w.deliver(boxA, wire.TopicData, wire.Data{Blocks: blocks}); err != nil {
				t.Error(err)
			}
		})
	}
	until(t, "all messages to wait", func() bool { return w.in.Queued() == messages })
	stop := w.run()
	wg.Wait()
	stop()
	acks := w.take(boxA, wire.TopicAck)
	lsns, acked := map[uint64]int{}, map[wire.Key]int{}
	for _, raw := range acks {
		a, err := wire.Decode[wire.Ack](raw)
		check(t, err)
		lsns[a.LSN]++
		for _, k := range a.Keys {
			acked[k]++
		}
	}
	if len(acked) != messages*each || len(w.stored(boxA)) != messages*each {
		t.Errorf("%d keys acknowledged and %d stored of %d", len(acked), len(w.stored(boxA)), messages*each)
	}
	// 8000 keys are at least two commits, and 2048 fit into an ACK.
	if len(lsns) < 2 || len(acks) > 8 {
		t.Errorf("%d commits, %d acks", len(lsns), len(acks))
	}
}
