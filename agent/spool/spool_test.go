package spool_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/edgeherd/edgeherd/agent/spool"
	"github.com/edgeherd/edgeherd/internal/wire"
)

var runA, runB = wire.RunID{0xa}, wire.RunID{0xb}

func open(t testing.TB, opts spool.Options) *spool.Spool {
	t.Helper()
	opts.NoSync = true
	s, err := spool.Open(opts, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func path(t testing.TB) string { return filepath.Join(t.TempDir(), "spool.db") }

// draft makes telemetry or an event of about size bytes that tells its number.
func draft(lane wire.Lane, n, size int) spool.Draft {
	payload := append([]byte(fmt.Sprintf("%08d", n)), bytes.Repeat([]byte{byte(n)}, size)...)
	kind := wire.KindResults
	if lane == wire.LaneEvents {
		kind = wire.KindEvents
	}
	return spool.Draft{Lane: lane, Kind: kind, Count: 1, MonoMs: int64(n), WallMs: int64(1000 + n), Payload: payload}
}

func fill(t testing.TB, s *spool.Spool, lane wire.Lane, from, to, size int) []wire.Key {
	t.Helper()
	var keys []wire.Key
	for n := from; n < to; n++ {
		k, err := s.Append(draft(lane, n, size))
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k...)
	}
	return keys
}

// all picks everything that is un-acked, with exact packs taken apart.
func all(t testing.TB, s *spool.Spool) []wire.Block {
	t.Helper()
	var blocks []wire.Block
	for _, p := range parcels(t, s) {
		if p.Pack == nil {
			blocks = append(blocks, p.Block)
			continue
		}
		schemas, err := s.Schemas(p.Pack.Schema)
		if err != nil || len(schemas) != 1 {
			t.Fatalf("schemas %v, %v", schemas, err)
		}
		members, err := p.Pack.Blocks(schemas[0])
		if err != nil {
			t.Fatal(err)
		}
		blocks = append(blocks, members...)
	}
	return blocks
}

func parcels(t testing.TB, s *spool.Spool) []spool.Parcel {
	t.Helper()
	list, err := s.Pick(spool.Query{MaxParcels: 1 << 20, MaxBytes: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func seqs(blocks []wire.Block, lane wire.Lane) (list []uint64) {
	for _, b := range blocks {
		if b.Key.Lane == lane {
			list = append(list, b.Key.Seq)
		}
	}
	return list
}

func ack(t testing.TB, s *spool.Spool, run wire.RunID, lsn uint64, keys ...wire.Key) int {
	t.Helper()
	n, err := s.Ack(run, lsn, keys)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestBlocksSurviveRestart(t *testing.T) {
	p := path(t)
	s := open(t, spool.Options{Path: p, Boot: wire.BootID{9}})
	schema := wire.Schema{Metrics: []wire.Metric{{Name: "x"}}}
	d := draft(wire.LaneTelemetry, 7, 10)
	d.Schema = &schema
	keys, err := s.Append(draft(wire.LaneEvents, 1, 10), d, draft(wire.LaneTelemetry, 8, 10))
	if err != nil {
		t.Fatal(err)
	}
	if keys[0].Seq != 1 || keys[1].Seq != 1 || keys[2].Seq != 2 || keys[0].SID != s.SID() {
		t.Errorf("keys %v", keys)
	}
	first := s.SID()
	s.Close()
	s = open(t, spool.Options{Path: p})
	if s.SID() == first {
		t.Error("two lives have one SID")
	}
	blocks := all(t, s)
	if len(blocks) != 3 || blocks[0].Key != keys[0] || blocks[1].Key != keys[2] || blocks[2].Key != keys[1] {
		t.Fatalf("got %v", blocks)
	}
	if b := blocks[2]; b.Boot != (wire.BootID{9}) || b.MonoMs != 7 || b.WallMs != 1007 || b.Schema != wire.SchemaIDOf(schema) || b.Verify() != nil {
		t.Errorf("block %+v", b)
	}
	if got, err := s.Schemas(wire.SchemaIDOf(schema), wire.SchemaID{1}); err != nil || len(got) != 1 || got[0].Metrics[0].Name != "x" {
		t.Errorf("schemas %v, %v", got, err)
	}
}

func TestAckSurvivesRestart(t *testing.T) {
	p := path(t)
	s := open(t, spool.Options{Path: p})
	keys := fill(t, s, wire.LaneTelemetry, 0, 10, 100)
	if n := ack(t, s, runA, 5, keys[:4]...); n != 4 {
		t.Errorf("%d acked", n)
	}
	s.Close()
	s = open(t, spool.Options{Path: p})
	if got := len(all(t, s)); got != 6 {
		t.Errorf("%d un-acked", got)
	}
	if n := ack(t, s, runA, 6, keys...); n != 6 { // of an earlier life, and twice
		t.Errorf("%d acked", n)
	}
	if b := s.Buffer(); b.Blocks != 0 || b.Bytes != 0 || b.Window != 10 || b.OldestMs != 0 {
		t.Errorf("buffer %+v", b)
	}
}

func TestOnlyTheExactKeyAcks(t *testing.T) {
	s := open(t, spool.Options{Path: path(t)})
	key := fill(t, s, wire.LaneTelemetry, 0, 1, 10)[0]
	for name, change := range map[string]func(*wire.Key){
		"sid": func(k *wire.Key) { k.SID[0]++ }, "lane": func(k *wire.Key) { k.Lane = 2 }, "no lane": func(k *wire.Key) { k.Lane = 9 },
		"seq": func(k *wire.Key) { k.Seq++ }, "h64": func(k *wire.Key) { k.H64[0]++ },
	} {
		k := key
		change(&k)
		if n := ack(t, s, runA, 1, k); n != 0 {
			t.Errorf("a key with another %s acked a block", name)
		}
	}
	if n := ack(t, s, runA, 1, key); n != 1 {
		t.Error("the key itself did not")
	}
}

func TestWhatTheDatabaseLostIsUnacked(t *testing.T) {
	s := open(t, spool.Options{Path: path(t)})
	keys := fill(t, s, wire.LaneTelemetry, 0, 1500, 10)
	for i, k := range keys[:1200] { // more than one batch of Validate
		if i%100 == 0 {
			ack(t, s, runA, uint64(i/100), keys[i:i+100]...)
		}
		_ = k
	}
	ack(t, s, runB, 3, keys[1200:1300]...)
	if got := s.Runs(); len(got) != 2 || got[0] != runA {
		t.Errorf("runs %v", got)
	}
	for _, step := range []struct {
		name  string
		valid []wire.RunLSN
		want  int
	}{
		{"all is there", []wire.RunLSN{{Run: runA, LSN: 11}, {Run: runB, LSN: 3}}, 0},
		{"restored to LSN 4 of the first run", []wire.RunLSN{{Run: runA, LSN: 4}, {Run: runB, LSN: 3}}, 700},
		{"said again", []wire.RunLSN{{Run: runA, LSN: 4}, {Run: runB, LSN: 3}}, 0},
		{"the second run is unknown", []wire.RunLSN{{Run: runA, LSN: 9}}, 100},
		{"a new database", nil, 500},
	} {
		n, err := s.Validate(step.valid)
		if err != nil || n != step.want {
			t.Errorf("%s: %d un-acked, %v; want %d", step.name, n, err, step.want)
		}
	}
	if got := len(all(t, s)); got != 1500 {
		t.Errorf("%d blocks can be sent", got)
	}
	if b := s.Buffer(); b.Window != 0 || b.Blocks != 1500 {
		t.Errorf("buffer %+v", b)
	}
	if len(s.Runs()) != 0 {
		t.Errorf("runs %v", s.Runs())
	}
}

// TestTheLastBlockOfAPastLifeCanBeUnacked: a life is forgotten with its last
// block, and moving that block is not losing it.
func TestTheLastBlockOfAPastLifeCanBeUnacked(t *testing.T) {
	p := path(t)
	s := open(t, spool.Options{Path: p})
	ack(t, s, runA, 1, fill(t, s, wire.LaneTelemetry, 0, 1, 10)...)
	s.Close()
	s = open(t, spool.Options{Path: p})
	if n, err := s.Validate(nil); err != nil || n != 1 {
		t.Fatalf("%d un-acked, %v", n, err)
	}
	blocks := all(t, s)
	if len(blocks) != 1 || ack(t, s, runB, 1, blocks[0].Key) != 1 {
		t.Errorf("got %v", blocks)
	}
	if got := s.Streams(); len(got) != 1 || got[0].Count != 1 {
		t.Errorf("streams %v", got)
	}
}

func TestTheOrderIsEventsThenNewAndOldInTurns(t *testing.T) {
	s := open(t, spool.Options{Path: path(t)})
	fill(t, s, wire.LaneBulk, 0, 2, 10)
	fill(t, s, wire.LaneTelemetry, 0, 6, 10)
	since := s.Now()
	fill(t, s, wire.LaneTelemetry, 6, 8, 10)
	fill(t, s, wire.LaneEvents, 0, 2, 10)
	order := func(q spool.Query) string {
		q.MaxBytes = 1 << 20
		if q.MaxParcels == 0 {
			q.MaxParcels = 100
		}
		list, err := s.Pick(q)
		if err != nil {
			t.Fatal(err)
		}
		text := ""
		for _, p := range list {
			text += fmt.Sprintf("%d.%d ", p.Block.Key.Lane, p.Block.Key.Seq)
		}
		return text
	}
	skip := func(k wire.Key) bool { return k.Lane == 1 && k.Seq >= 7 || k.Lane == 0 }
	for _, c := range []struct {
		name string
		q    spool.Query
		want string
	}{
		{"all", spool.Query{}, "0.1 0.2 1.8 1.1 1.7 1.2 1.6 1.3 1.5 1.4 2.1 2.2 "},
		{"old end first", spool.Query{OldFirst: true, MaxParcels: 5}, "0.1 0.2 1.1 1.8 1.2 "},
		{"live only", spool.Query{LiveOnly: true, Since: since}, "0.1 0.2 1.8 1.7 "},
		{"some in flight", spool.Query{Skip: skip}, "1.6 1.1 1.5 1.2 1.4 1.3 2.1 2.2 "},
		{"events only", spool.Query{EventsOnly: true}, "0.1 0.2 "},
		{"few", spool.Query{MaxParcels: 1, Skip: skip}, "1.6 "},
	} {
		if got := order(c.q); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	blocks, err := s.Pick(spool.Query{MaxParcels: 9, MaxBytes: 1})
	if err != nil || len(blocks) != 1 {
		t.Errorf("a first block beyond the bytes allowed: %d, %v", len(blocks), err)
	}
}

func TestTheFileStaysBelowItsBound(t *testing.T) {
	for _, size := range []int{100, 900, 1500, 2100, 5000, 60000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			p := path(t)
			s := open(t, spool.Options{Path: p, MaxBytes: 2 << 20})
			n := min(4<<20/size, 12_000)
			for i := 0; i < n; i += 20 {
				var drafts []spool.Draft
				for j := i; j < min(i+20, n) && (j-i)*size < 200000; j++ {
					drafts = append(drafts, draft(wire.LaneTelemetry, j, size))
				}
				keys, err := s.Append(drafts...)
				if err != nil {
					t.Fatalf("after %d: %v", i, err)
				}
				if i/20%2 == 0 {
					ack(t, s, runA, uint64(i), keys...)
				}
			}
			info, err := os.Stat(p)
			if err != nil || info.Size() > 2<<20 {
				t.Errorf("%d bytes, %v", info.Size(), err)
			}
			// The room is used: what is kept is at least a sixth of the bound, even
			// where blocks fit pages badly.
			if b := s.Buffer(); (b.Blocks+b.Window)*int64(size+160) < 350<<10 {
				t.Errorf("only %+v is kept", b)
			}
		})
	}
}

func TestTheWindowGoesBeforeWhatIsUnacked(t *testing.T) {
	s := open(t, spool.Options{Path: path(t), MaxBytes: 2 << 20})
	acked := fill(t, s, wire.LaneTelemetry, 0, 900, 500)
	ack(t, s, runA, 1, acked...)
	fresh := fill(t, s, wire.LaneTelemetry, 900, 1900, 500)
	if got := len(seqs(all(t, s), wire.LaneTelemetry)); got != len(fresh) {
		t.Errorf("%d of %d un-acked blocks are left", got, len(fresh))
	}
	if b := s.Buffer(); b.DroppedBlocks != 0 || b.Window == 0 || b.Window == 900 {
		t.Errorf("buffer %+v", b)
	}
}

// TestEveryDroppedBlockIsTold overfills the spool over several lives and adds
// up what is there and what gaps tell.
func TestEveryDroppedBlockIsTold(t *testing.T) {
	p := path(t)
	written := map[wire.Key]bool{}
	var s *spool.Spool
	for life := range 40 {
		s = open(t, spool.Options{Path: p, MaxBytes: 2 << 20})
		for _, k := range fill(t, s, wire.LaneTelemetry, life*1000, life*1000+90, 700) {
			written[k] = true
		}
		for _, k := range fill(t, s, wire.LaneEvents, life*1000, life*1000+9, 700) {
			written[k] = true
		}
		if life < 39 {
			s.Close()
		}
	}
	dropped := uint64(0)
	lost := map[string]bool{}
	for _, b := range all(t, s) {
		if b.Kind != wire.KindGap {
			delete(written, b.Key)
			continue
		}
		g, err := wire.DecodeGap(b.Payload)
		if err != nil {
			t.Fatal(err)
		}
		dropped += g.Dropped()
		for _, r := range append(g.Also, wire.GapRange{SID: g.SID, Lane: g.Lane, From: g.From, To: g.To}) {
			for seq := r.From; seq <= r.To; seq++ {
				lost[fmt.Sprint(r.SID, r.Lane, seq)] = true
			}
		}
	}
	if dropped != uint64(len(written)) || dropped == 0 {
		t.Errorf("gaps tell of %d blocks, %d are missing", dropped, len(written))
	}
	for k := range written {
		if !lost[fmt.Sprint(k.SID, k.Lane, k.Seq)] {
			t.Errorf("no gap tells of %s", k)
		}
	}
	if got := s.Buffer().DroppedBlocks; got != int64(dropped) {
		t.Errorf("buffer tells of %d dropped blocks, gaps of %d", got, dropped)
	}
}

func TestTelemetryCannotPushEventsOut(t *testing.T) {
	s := open(t, spool.Options{Path: path(t), MaxBytes: 2 << 20})
	events := fill(t, s, wire.LaneEvents, 0, 50, 500)
	fill(t, s, wire.LaneTelemetry, 0, 4000, 500)
	got := seqs(all(t, s), wire.LaneEvents)
	for i := range events {
		if i >= len(got) || got[i] != uint64(i+1) {
			t.Fatalf("events left: %v", got)
		}
	}
}

func TestAFloodOfEventsKeepsTheNewest(t *testing.T) {
	s := open(t, spool.Options{Path: path(t), MaxBytes: 2 << 20})
	fill(t, s, wire.LaneTelemetry, 0, 900, 500)
	keys := fill(t, s, wire.LaneEvents, 0, 3000, 500)
	got := map[wire.Key]bool{}
	telemetry := 0
	for _, b := range all(t, s) {
		got[b.Key] = true
		if b.Key.Lane == wire.LaneTelemetry {
			telemetry++
		}
	}
	if !got[keys[len(keys)-1]] || got[keys[0]] {
		t.Error("the newest event is gone, or the oldest is there")
	}
	if telemetry < 500 {
		t.Errorf("events left %d blocks of telemetry of 900", telemetry)
	}
}

func TestBlockAndCursorAreOneTransaction(t *testing.T) {
	p := path(t)
	s := open(t, spool.Options{Path: p})
	if c, err := s.Cursor("runner"); err != nil || c != nil {
		t.Errorf("cursor %q, %v", c, err)
	}
	if _, err := s.AppendWithCursor("runner", []byte("17"), draft(wire.LaneTelemetry, 1, 10)); err != nil {
		t.Fatal(err)
	}
	bad := draft(wire.LaneTelemetry, 2, 10)
	bad.Count = 0
	if _, err := s.AppendWithCursor("runner", []byte("18"), draft(wire.LaneTelemetry, 2, 10), bad); err == nil {
		t.Fatal("a block without records was stored")
	}
	s.Close()
	s = open(t, spool.Options{Path: p})
	if c, err := s.Cursor("runner"); err != nil || string(c) != "17" {
		t.Errorf("cursor %q, %v", c, err)
	}
	if n := len(all(t, s)); n != 1 {
		t.Errorf("%d blocks", n)
	}
}

func TestARefusedBlockIsSetAsideAndTold(t *testing.T) {
	s := open(t, spool.Options{Path: path(t)})
	keys := fill(t, s, wire.LaneTelemetry, 0, 3, 10)
	if n, err := s.Refuse(keys[1:2]); err != nil || n != 1 {
		t.Fatalf("%d, %v", n, err)
	}
	blocks := all(t, s)
	if len(blocks) != 3 || blocks[0].Kind != wire.KindGap {
		t.Fatalf("got %v", blocks)
	}
	g, err := wire.DecodeGap(blocks[0].Payload)
	if err != nil || g.Reason != wire.ReasonRefused || g.From != 2 || g.To != 2 || g.Count != 1 {
		t.Errorf("gap %+v, %v", g, err)
	}
	// A gap that is refused goes without another one.
	if _, err := s.Refuse([]wire.Key{blocks[0].Key}); err != nil {
		t.Fatal(err)
	}
	if n := len(all(t, s)); n != 2 {
		t.Errorf("%d blocks are left", n)
	}
}

func TestStreamsTellWhatTheFileHolds(t *testing.T) {
	p := path(t)
	s := open(t, spool.Options{Path: p})
	old := fill(t, s, wire.LaneTelemetry, 0, 5, 10)
	ack(t, s, runA, 1, old[0], old[4])
	s.Close()
	s = open(t, spool.Options{Path: p})
	fill(t, s, wire.LaneEvents, 0, 2, 10)
	got := s.Streams()
	want := []wire.SIDRange{{SID: s.SID(), Lane: 0, Lo: 1, Hi: 2, Count: 2}, {SID: old[0].SID, Lane: 1, Lo: 1, Hi: 5, Count: 5}}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestChangedWakesOneReceiver(t *testing.T) {
	s := open(t, spool.Options{Path: path(t)})
	keys := fill(t, s, wire.LaneTelemetry, 0, 3, 10)
	<-s.Changed()
	ack(t, s, runA, 1, keys...)
	select {
	case <-s.Changed():
		t.Error("an ACK woke the link")
	default:
	}
	if _, err := s.Validate(nil); err != nil {
		t.Fatal(err)
	}
	<-s.Changed()
}

func TestASecondProcessIsRefused(t *testing.T) {
	p := path(t)
	s := open(t, spool.Options{Path: p})
	fill(t, s, wire.LaneTelemetry, 0, 1, 10)
	if _, err := spool.Open(spool.Options{Path: p}, slog.New(slog.DiscardHandler)); err == nil {
		t.Fatal("opened twice")
	}
	if n := len(all(t, s)); n != 1 {
		t.Errorf("%d blocks", n)
	}
}

func TestAfterCloseEverythingIsAnError(t *testing.T) {
	s := open(t, spool.Options{Path: path(t)})
	s.Close()
	if _, err := s.Append(draft(1, 1, 1)); err == nil {
		t.Error("append")
	}
	if _, err := s.Pick(spool.Query{MaxParcels: 1}); err == nil {
		t.Error("pick")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestTooMuchAtOnceIsRefused(t *testing.T) {
	s := open(t, spool.Options{Path: path(t), MaxBytes: 2 << 20})
	var drafts []spool.Draft
	for n := range 20 {
		drafts = append(drafts, draft(1, n, 60000))
	}
	if _, err := s.Append(drafts...); err == nil {
		t.Error("stored more than fits")
	}
	if _, err := s.Append(draft(1, 1, wire.MaxPayloadBytes)); err == nil {
		t.Error("stored a payload beyond the limit")
	}
	if _, err := s.Append(draft(1, 1, 10)); err != nil {
		t.Error(err)
	}
}
