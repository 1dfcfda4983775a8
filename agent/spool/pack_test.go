package spool_test

import (
	"context"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeherd/edgeherd/agent/spool"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// box is a spool with a clock that stands still between two minutes.
type box struct {
	t     testing.TB
	path  string
	up    time.Duration // since boot
	rng   *rand.Rand
	rows  map[wire.Key]uint32 // by block: samples of the first metric
	bytes int64
	*spool.Spool
}

var thermal = wire.Schema{Metrics: []wire.Metric{{Name: "temp", Scale: 2}, {Name: "fan"}, {Name: "power", Scale: 2}, {Name: "duty", Scale: 3}, {Name: "state"}, {Name: "volt", Scale: 2}, {Name: "temp2", Scale: 2}, {Name: "temp3", Scale: 2}}}

func newBox(t testing.TB, maxBytes int64) *box {
	b := &box{t: t, path: path(t), up: time.Hour, rng: rand.New(rand.NewPCG(1, 1)), rows: map[wire.Key]uint32{}, bytes: maxBytes}
	b.open()
	return b
}

func (b *box) open() {
	b.t.Helper()
	b.Spool = open(b.t, spool.Options{Path: b.path, MaxBytes: b.bytes, Boot: wire.BootID{7}, SinceBoot: func() time.Duration { return b.up }})
}

func (b *box) restart() {
	b.t.Helper()
	if err := b.Close(); err != nil {
		b.t.Fatal(err)
	}
	b.open()
}

// samples is one block of this minute.
func (b *box) samples() spool.Draft {
	b.t.Helper()
	s := wire.Samples{Schema: thermal}
	for i := range 6 {
		s.TimesMs = append(s.TimesMs, int64(i)*10_000+b.rng.Int64N(5))
	}
	for _, m := range thermal.Metrics {
		column, p := make([]float64, 6), math.Pow10(int(m.Scale))
		for i := range column {
			column[i] = math.Round((50+b.rng.NormFloat64())*p) / p
		}
		s.Values = append(s.Values, column)
	}
	payload, err := wire.EncodeSamples(s)
	if err != nil {
		b.t.Fatal(err)
	}
	mono := b.up.Milliseconds()
	return spool.Draft{Lane: wire.LaneTelemetry, Kind: wire.KindSamples, MonoMs: mono, WallMs: 1700000000000 + mono, SpanMs: 50_000, Schema: &thermal, Count: 6, Payload: payload}
}

// minutes appends n blocks of samples, a minute each; many of them in common
// transactions.
func (b *box) minutes(n int) (keys []wire.Key) {
	b.t.Helper()
	atOnce := 1
	if n >= 1000 {
		atOnce = 20
	}
	for n > 0 {
		var drafts []spool.Draft
		for ; n > 0 && len(drafts) < atOnce; n-- {
			drafts = append(drafts, b.samples())
			b.up += time.Minute
		}
		b.up -= time.Minute // the last one is of this minute
		added, err := b.Append(drafts...)
		if err != nil {
			b.t.Fatal(err)
		}
		b.up += time.Minute
		for _, k := range added {
			b.rows[k] = 6
		}
		keys = append(keys, added...)
	}
	return keys
}

// grains is how many blocks wait by grain; -1 is no pack.
func (b *box) grains() map[int]int {
	b.t.Helper()
	n := map[int]int{}
	for _, p := range parcels(b.t, b.Spool) {
		switch {
		case p.Pack != nil:
			n[int(p.Pack.Grain)] += len(p.Pack.Members)
		case p.Block.Kind == wire.KindSamples:
			n[-1]++
		}
	}
	return n
}

func keysOf(blocks []wire.Block) (keys []wire.Key) {
	for _, b := range blocks {
		keys = append(keys, b.Key)
	}
	slices.SortFunc(keys, func(a, b wire.Key) int { return int(a.Seq) - int(b.Seq) })
	return keys
}

// TestBlocksThatWaitArePackedAndKeepTheirKeys: the controller may have stored
// some of them already.
func TestBlocksThatWaitArePackedAndKeepTheirKeys(t *testing.T) {
	b := newBox(t, 0)
	var keys []wire.Key
	for i := range 45 {
		keys = append(keys, b.minutes(1)...)
		if i%3 == 0 { // results lie between
			if _, err := b.Append(draft(wire.LaneTelemetry, i, 20)); err != nil {
				t.Fatal(err)
			}
		}
	}
	// The last appended block is a minute old, and what is younger than ten stays.
	if got := b.grains(); !maps.Equal(got, map[int]int{0: 30, -1: 15}) {
		t.Errorf("blocks by grain: %v", got)
	}
	check := func() {
		t.Helper()
		var samples []wire.Block
		for _, blk := range all(t, b.Spool) {
			if err := blk.Verify(); err != nil {
				t.Error(err)
			}
			if blk.Kind == wire.KindSamples {
				samples = append(samples, blk)
			}
		}
		if got := keysOf(samples); !slices.Equal(got, keys) {
			t.Errorf("%d keys came back of %d", len(got), len(keys))
		}
		if buf := b.Buffer(); buf.Blocks != 60 || buf.OldestMs != 1700000000000+time.Hour.Milliseconds() {
			t.Errorf("buffer %+v", buf)
		}
		for _, s := range b.Streams() {
			if s.Lo != 1 || s.Hi != 60 || s.Count != 60 {
				t.Errorf("streams %+v", s)
			}
		}
	}
	check()
	b.restart()
	check()
	if n := ack(t, b.Spool, runA, 9, keys...); n != 45 {
		t.Errorf("%d acked", n)
	}
	b.restart()
	if got := b.Buffer(); got.Blocks != 15 || got.Window != 45 {
		t.Errorf("buffer %+v", got)
	}
	if n, err := b.Validate(nil); err != nil || n != 45 {
		t.Errorf("%d un-acked, %v", n, err)
	}
	check()
}

// TestBlocksOfAnEndedLifeArePackedHoweverFew: they will not become more.
func TestBlocksOfAnEndedLifeArePackedHoweverFew(t *testing.T) {
	b := newBox(t, 0)
	for range 8 {
		b.minutes(4)
		b.restart()
	}
	b.up += time.Hour
	b.minutes(3)
	if got := b.grains(); got[0] != 32 || got[-1] != 3 {
		t.Errorf("blocks by grain: %v", got)
	}
	for _, p := range parcels(t, b.Spool) {
		if p.Pack != nil && len(p.Pack.Members) != 4 {
			t.Errorf("a pack has %d members", len(p.Pack.Members))
		}
	}
}

func TestAPackIsAckedWhenAllItsMembersAre(t *testing.T) {
	b := newBox(t, 0)
	keys := b.minutes(25)[:10]
	if n := ack(t, b.Spool, runA, 1, keys[:6]...); n != 6 {
		t.Errorf("%d acked", n)
	}
	if n := ack(t, b.Spool, runA, 2, keys[3:8]...); n != 2 {
		t.Errorf("%d acked, want the two that were not before", n)
	}
	if got := b.grains(); got[0] != 10 {
		t.Errorf("blocks by grain: %v", got)
	}
	other := keys[9]
	other.H64[0]++
	if n := ack(t, b.Spool, runA, 3, other); n != 0 {
		t.Error("another key of the same number counts")
	}
	if n := ack(t, b.Spool, runA, 4, keys[8:]...); n != 2 {
		t.Errorf("%d acked", n)
	}
	if got := b.grains(); got[0] != 0 || b.Buffer().Blocks != 15 || b.Buffer().Window != 10 {
		t.Errorf("blocks by grain: %v, buffer %+v", got, b.Buffer())
	}
	// The pack is in the database as far as its last member is.
	if n, err := b.Validate([]wire.RunLSN{{Run: runA, LSN: 3}}); err != nil || n != 10 {
		t.Errorf("%d un-acked, %v", n, err)
	}
}

func TestARefusedMemberLeavesItsPack(t *testing.T) {
	b := newBox(t, 0)
	keys := b.minutes(25)
	if n, err := b.Refuse(keys[4:5]); err != nil || n != 1 {
		t.Fatalf("%d, %v", n, err)
	}
	blocks := all(t, b.Spool)
	g, err := wire.DecodeGap(blocks[0].Payload)
	if err != nil || g.From != 5 || g.To != 5 || g.Dropped() != 1 || g.Reason != wire.ReasonRefused {
		t.Errorf("gap %+v, %v", g, err)
	}
	if want := slices.Delete(slices.Clone(keys), 4, 5); !slices.Equal(keysOf(blocks[1:]), want) {
		t.Errorf("left are %d of %d", len(blocks)-1, len(want))
	}
}

// TestSamplesBecomeCoarserBeforeTheyGo fills a small spool with months of
// samples, and accounts for each of them: in a block, in a coarse row, or told
// by a gap.
func TestSamplesBecomeCoarserBeforeTheyGo(t *testing.T) {
	b := newBox(t, 2<<20)
	b.minutes(8000)
	if got := b.grains(); got[1] == 0 || b.Buffer().DroppedBlocks != 0 {
		t.Errorf("after 8000 minutes: blocks by grain %v, dropped %d", got, b.Buffer().DroppedBlocks)
	}
	b.restart()
	b.minutes(15_000)
	got := b.grains()
	if got[0] == 0 || got[1] == 0 || got[2] == 0 || b.Buffer().DroppedBlocks == 0 {
		t.Errorf("after 23000 minutes: blocks by grain %v, dropped %d", got, b.Buffer().DroppedBlocks)
	}
	t.Logf("blocks by grain %v, dropped %d of 23000", got, b.Buffer().DroppedBlocks)
	counted, told := map[wire.Key]uint32{}, uint64(0)
	for _, p := range parcels(t, b.Spool) {
		switch {
		case p.Pack == nil && p.Block.Kind == wire.KindGap:
			g, err := wire.DecodeGap(p.Block.Payload)
			if err != nil {
				t.Fatal(err)
			}
			told += g.Dropped()
		case p.Pack == nil:
			counted[p.Block.Key] += p.Block.Count
		case p.Pack.Grain == wire.GrainExact:
			for i, m := range p.Pack.Members {
				counted[p.Pack.Key(i)] += m.Count
			}
		default:
			rows, err := p.Pack.Rows(thermal)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range rows {
				for i, n := range r.N[0] {
					counted[p.Pack.Key(r.From+i)] += n
				}
			}
		}
	}
	if uint64(len(counted))+told != uint64(len(b.rows)) || told != uint64(b.Buffer().DroppedBlocks) {
		t.Errorf("%d blocks are there and %d are told of, of %d; the buffer tells of %d", len(counted), told, len(b.rows), b.Buffer().DroppedBlocks)
	}
	for k, n := range counted {
		if b.rows[k] != n {
			t.Fatalf("%s counts %d samples, want %d", k, n, b.rows[k])
		}
	}
	if info, err := os.Stat(b.path); err != nil || info.Size() > 2<<20 {
		t.Errorf("file of %d bytes, %v", info.Size(), err)
	}
}

// TestAMinuteOnlineIsOneCommit: flash wears, and an ACK needs none of its own.
func TestAMinuteOnlineIsOneCommit(t *testing.T) {
	for _, c := range []struct {
		name    string
		ackedIn time.Duration
		offline bool
		most    int64 // commits in an hour
	}{
		{"acked after a second", time.Second, false, 61},
		{"acked after half a minute", 30 * time.Second, false, 61},
		{"offline, and packing", 0, true, 60},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBox(t, 0)
				var commits atomic.Int64
				spool.OnStep(b.Spool, func(string) error { commits.Add(1); return nil })
				done := make(chan error)
				ctx, stop := context.WithCancel(t.Context())
				go func() { done <- b.Run(ctx) }()
				for range 60 {
					keys := b.minutes(1)
					time.Sleep(c.ackedIn)
					if !c.offline {
						ack(t, b.Spool, runA, 1, keys...)
					}
					time.Sleep(time.Minute - c.ackedIn)
				}
				n := commits.Load()
				t.Logf("%d commits in 60 minutes", n)
				if n < 60 || n > c.most {
					t.Errorf("%d commits in 60 minutes", n)
				}
				time.Sleep(2 * time.Minute) // nothing more comes: the ACK is written all the same
				if !c.offline {
					if n := reopened(t, b); n != 0 {
						t.Errorf("%d blocks are not acked on disk", n)
					}
				}
				stop()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// reopened is how many blocks are un-acked in a copy of the file: what a crash
// leaves behind.
func reopened(t *testing.T, b *box) int64 {
	t.Helper()
	data, err := os.ReadFile(b.path)
	if err != nil {
		t.Fatal(err)
	}
	p := path(t)
	write(t, p, data)
	return open(t, spool.Options{Path: p}).Buffer().Blocks
}

// TestAckedBytesGetACommit: a backlog that drains must not lie in memory.
func TestAckedBytesGetACommit(t *testing.T) {
	b := newBox(t, 0)
	keys := fill(t, b.Spool, wire.LaneTelemetry, 0, 100, 2000)
	ack(t, b.Spool, runA, 1, keys[:10]...)
	if got := reopened(t, b); got != 100 {
		t.Errorf("%d blocks un-acked on disk, want 100", got)
	}
	if got := b.Buffer(); got.Blocks != 90 || got.Window != 10 {
		t.Errorf("buffer %+v", got)
	}
	if got := b.Runs(); !slices.Equal(got, []wire.RunID{runA}) {
		t.Errorf("runs %v", got)
	}
	ack(t, b.Spool, runA, 2, keys[10:50]...)
	if got := reopened(t, b); got != 50 {
		t.Errorf("%d blocks un-acked on disk, want 50", got)
	}
	// One that was not written yet is withdrawn like the others.
	ack(t, b.Spool, runB, 1, keys[50])
	if n, err := b.Validate([]wire.RunLSN{{Run: runA, LSN: 2}}); err != nil || n != 1 {
		t.Errorf("%d un-acked, %v", n, err)
	}
	if got := b.Buffer().Blocks; got != 50 {
		t.Errorf("%d blocks un-acked", got)
	}
	ack(t, b.Spool, runA, 3, keys[50:]...)
	b.restart()
	if got := b.Buffer(); got.Blocks != 0 || got.Window != 100 {
		t.Errorf("after a clean restart: buffer %+v", got)
	}
}

// TestRepackingIsOneTransaction crashes at the commit that packs.
func TestRepackingIsOneTransaction(t *testing.T) {
	b := newBox(t, 0)
	b.minutes(20)
	stop := fmt.Errorf("crash")
	spool.OnStep(b.Spool, func(string) error { return stop })
	if _, err := b.Append(b.samples()); err == nil {
		t.Fatal("the commit went through")
	}
	if n := reopened(t, b); n != 20 {
		t.Errorf("%d blocks", n)
	}
	if _, err := b.Append(b.samples()); err == nil || b.Err() == nil {
		t.Error("the spool goes on after a commit that failed for no known reason")
	}
	b.Close()
	b.open()
	b.minutes(1)
	if got := b.grains(); got[0]+got[-1] != 21 || got[0] < 10 {
		t.Errorf("blocks by grain: %v", got)
	}
}

// TestASpoolOfBlocksThatCannotShrinkKeepsTakingNewOnes has one sample in each
// block, and some too few to pack.
func TestASpoolOfBlocksThatCannotShrinkKeepsTakingNewOnes(t *testing.T) {
	b := newBox(t, 2<<20)
	one := wire.Schema{Metrics: []wire.Metric{{Name: "x", Scale: 9}}}
	var drafts []spool.Draft
	for i := range 10_000 {
		payload, err := wire.EncodeSamples(wire.Samples{Schema: one, TimesMs: []int64{0}, Values: [][]float64{{b.rng.Float64()}}})
		if err != nil {
			t.Fatal(err)
		}
		d := b.samples()
		d.Schema, d.Payload, d.Count, d.SpanMs = &one, payload, 1, 0
		if i%3 == 0 { // another schema ends the run
			d = b.samples()
		}
		if drafts = append(drafts, d); len(drafts) == 10 {
			if _, err := b.Append(drafts...); err != nil {
				t.Fatalf("after %d: %v", i, err)
			}
			drafts = nil
		}
		b.up += time.Minute
	}
	if got := b.Buffer(); got.DroppedBlocks == 0 || got.Blocks < 1500 {
		t.Errorf("buffer %+v", got)
	}
}
