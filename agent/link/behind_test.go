package link

import (
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/agent/spool"
	"github.com/edgeherd/edgeherd/internal/wire"
)

func parcelOf(bytes int, seqs ...uint64) spool.Parcel {
	p := spool.Parcel{Bytes: bytes, Block: wire.Block{Key: wire.Key{Lane: wire.LaneTelemetry, Seq: seqs[0]}}}
	if len(seqs) > 1 {
		p.Pack = &wire.Pack{Lane: wire.LaneTelemetry}
		for _, seq := range seqs {
			p.Pack.Members = append(p.Pack.Members, wire.Member{Seq: seq})
		}
	}
	return p
}

// TestBehindCountsWhatIsNotUnderWay has three blocks in flight and sends one of
// them again with a fresh one, and then a pack of one in flight and two others.
func TestBehindCountsWhatIsNotUnderWay(t *testing.T) {
	p := newPump(spool.Mark{})
	p.depart([]spool.Parcel{parcelOf(100, 1), parcelOf(100, 2), parcelOf(100, 3)}, time.Now())
	fresh := []spool.Parcel{parcelOf(100, 3), parcelOf(200, 4)}
	packed := []spool.Parcel{parcelOf(300, 3, 5, 6)}
	for _, tc := range []struct {
		have wire.Buffer
		sent []spool.Parcel
		want wire.Buffer
	}{
		{wire.Buffer{Blocks: 10, Bytes: 2000, OldestMs: 5, Window: 7, DroppedBlocks: 1}, fresh, wire.Buffer{Blocks: 6, Bytes: 1500, OldestMs: 5, Window: 7, DroppedBlocks: 1}},
		{wire.Buffer{Blocks: 4, Bytes: 900, OldestMs: 5, Window: 7}, fresh, wire.Buffer{Window: 7}},
		{wire.Buffer{Blocks: 10, Bytes: 2000, OldestMs: 5}, packed, wire.Buffer{Blocks: 5, Bytes: 1400, OldestMs: 5}},
	} {
		if got := p.behind(tc.have, tc.sent); got != tc.want {
			t.Errorf("of %+v remain %+v, want %+v", tc.have, got, tc.want)
		}
	}
}

// TestAPackIsInFlightUntilItsLastMemberLands, and takes its members over from
// the blocks that they were when they were sent before.
func TestAPackIsInFlightUntilItsLastMemberLands(t *testing.T) {
	p := newPump(spool.Mark{})
	now := time.Now()
	if blocks, repeats := p.depart([]spool.Parcel{parcelOf(100, 1), parcelOf(100, 2)}, now); blocks != 2 || repeats != 0 {
		t.Errorf("%d blocks, %d repeats", blocks, repeats)
	}
	pack := parcelOf(150, 1, 2, 3)
	if blocks, repeats := p.depart([]spool.Parcel{pack}, now); blocks != 3 || repeats != 2 {
		t.Errorf("%d blocks, %d repeats", blocks, repeats)
	}
	if len(p.flights) != 1 || len(p.byKey) != 3 {
		t.Fatalf("%d flights of %d keys", len(p.flights), len(p.byKey))
	}
	for i, k := range pack.Keys() {
		if len(p.flights) != 1 {
			t.Errorf("gone after %d keys", i)
		}
		p.land(k, true)
		p.land(k, true) // an ACK may come twice
	}
	if len(p.flights) != 0 || len(p.byKey) != 0 {
		t.Errorf("%d flights of %d keys are left", len(p.flights), len(p.byKey))
	}
}

func TestTheBucketLetsTheRateThrough(t *testing.T) {
	start := time.Unix(1700000000, 0)
	var b bucket
	if open, _ := b.open(start); !open {
		t.Error("no rate is a limit")
	}
	b.limit(1000, start)
	sent, now := 0, start
	for now.Sub(start) < time.Minute {
		open, at := b.open(now)
		if open {
			b.take(1600)
			sent += 1600
			continue
		}
		if !at.After(now) || at.Sub(now) > 2*time.Second {
			t.Fatalf("waits from %v to %v", now, at)
		}
		now = at
	}
	if sent < 59_000 || sent > 63_000 {
		t.Errorf("%d bytes in a minute at 1000 a second", sent)
	}
	b.take(5000)
	b.limit(1000, now) // said again in the next WELCOME
	if open, _ := b.open(now); open {
		t.Error("the same rate said again fills the bucket")
	}
}
