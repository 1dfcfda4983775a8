package bench

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/agent/spool"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// offlineDays is how long a box must keep everything.
const offlineDays = 30

// spoolOffline drives the spool of a box that is offline for a month: one block
// of 30 sensors a minute, on a clock of its own and without fsync, which would
// change how long it takes and not how large it becomes.
func spoolOffline(t *testing.T) []Figure {
	const minutes = offlineDays * 24 * 60
	up := time.Hour
	path := filepath.Join(t.TempDir(), "spool.db")
	s, err := spool.Open(spool.Options{Path: path, NoSync: true, Boot: wire.BootID{1}, SinceBoot: func() time.Duration { return up }}, slog.New(slog.DiscardHandler))
	check(t, err)
	defer s.Close()
	var payloads float64
	for _, b := range sensorBlocks(minutes) {
		payload, err := wire.EncodeSamples(b)
		check(t, err)
		payloads += float64(len(payload))
		last := len(b.TimesMs) - 1
		_, err = s.Append(spool.Draft{
			Lane: wire.LaneTelemetry, Kind: wire.KindSamples, Schema: &b.Schema, Count: uint32(len(b.TimesMs)), SpanMs: b.TimesMs[last],
			Quality: wire.TimeSynced, MonoMs: up.Milliseconds(), WallMs: ingestStart + up.Milliseconds(), Payload: payload,
		})
		check(t, err)
		up += time.Minute
	}
	info, err := os.Stat(path)
	check(t, err)
	waits := s.Buffer()
	if waits.Blocks != minutes || waits.DroppedBlocks != 0 {
		t.Errorf("%d of %d blocks are there, %d were dropped", waits.Blocks, minutes, waits.DroppedBlocks)
	}
	list, err := s.Pick(spool.Query{MaxParcels: 1 << 20, MaxBytes: 1 << 30})
	check(t, err)
	var packed float64
	for _, p := range list {
		if p.Pack == nil {
			packed += float64(len(p.Block.Payload))
		} else if packed += float64(len(p.Pack.Payload)); p.Pack.Grain != wire.GrainExact {
			t.Errorf("a pack has grain %d", p.Pack.Grain)
		}
	}
	return []Figure{
		{Name: "file", Value: float64(info.Size()) / 1e6, Unit: "MB", Goal: Goal{AtMost: 10}},
		{Name: "entries", Value: float64(waits.Bytes) / 1e6, Unit: "MB"},
		Figure{Name: "payload", Value: packed / 1e6, Unit: "MB"}.Against("payloads of one-minute blocks", payloads/1e6),
		{Name: "per-sample", Value: float64(info.Size()) / (minutes * sensors * 6), Unit: "B"},
	}
}

// blockDecode is what reading samples costs whoever charts them: the best of
// many short runs, since others use this machine as well.
func blockDecode(t *testing.T) []Figure {
	s := sensorBlocks(1)[0]
	payload, err := wire.EncodeSamples(s)
	check(t, err)
	rows := len(s.TimesMs)
	const each = 50
	best := time.Hour
	for range 1000 {
		began := time.Now()
		for range each {
			_, err := wire.DecodeSamples(s.Schema, payload, rows)
			check(t, err)
		}
		best = min(best, time.Since(began))
	}
	return []Figure{{Value: float64(best.Nanoseconds()) / float64(each*rows*sensors), Unit: "ns", Goal: Goal{AtMost: 15}}}
}

// spoolIsEmpty makes sure that an agent had nothing left to send: what it was
// doing would else be part of its memory. One block may have been under way.
func spoolIsEmpty(t *testing.T, path string) {
	t.Helper()
	s, err := spool.Open(spool.Options{Path: path}, slog.New(slog.DiscardHandler))
	check(t, err)
	defer s.Close()
	b := s.Buffer()
	t.Logf("spool: %d blocks un-acked, %d kept for replay", b.Blocks, b.Window)
	if b.Blocks > 1 || b.Window == 0 {
		t.Errorf("the agent was not idle: %d blocks un-acked, %d acked", b.Blocks, b.Window)
	}
}
