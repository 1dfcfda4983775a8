package spool_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/edgeherd/edgeherd/agent/spool"
	"github.com/edgeherd/edgeherd/internal/wire"
)

func sizeOf(t *testing.T, p string) int64 {
	t.Helper()
	info, err := os.Stat(p)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// drained is a spool that was large and has little in it.
func drained(t *testing.T) (*box, []wire.Key) {
	t.Helper()
	b := newBox(t, 8<<20)
	big := fill(t, b.Spool, wire.LaneTelemetry, 0, 60, 60_000)
	keys := b.minutes(5)
	if _, err := b.Refuse(big); err != nil { // what is refused is gone but for the last few
		t.Fatal(err)
	}
	for _, blk := range all(t, b.Spool) {
		if blk.Kind == wire.KindGap {
			ack(t, b.Spool, runA, 1, blk.Key)
		}
	}
	fill(t, b.Spool, wire.LaneBulk, 0, 1, 10)
	return b, keys
}

func TestAFileThatIsMostlyFreeIsMadeSmaller(t *testing.T) {
	b, keys := drained(t)
	// The refused ones that are kept for a look are most of what is left.
	before := sizeOf(t, b.path)
	if err := spool.Compact(b.Spool); err != nil {
		t.Fatal(err)
	}
	b.minutes(1)
	if after := sizeOf(t, b.path); after >= before {
		t.Errorf("%d bytes before, %d after", before, after)
	}
	if n := ack(t, b.Spool, runA, 2, keys...); n != 5 {
		t.Errorf("%d of 5 blocks acked after compaction", n)
	}
	b.restart()
	if got := b.Buffer(); got.Blocks != 2 {
		t.Errorf("buffer %+v", got)
	}
}

func TestOnlyAnIdleFileIsMadeSmaller(t *testing.T) {
	b := newBox(t, 8<<20)
	keys := fill(t, b.Spool, wire.LaneTelemetry, 0, 60, 60_000)
	full := sizeOf(t, b.path)
	shrink := func(want bool, when string) {
		t.Helper()
		if err := spool.Shrink(b.Spool); err != nil {
			t.Fatal(err)
		}
		if got := sizeOf(t, b.path) < full; got != want {
			t.Errorf("%s: made smaller: %v", when, got)
		}
	}
	shrink(false, "full")
	ack(t, b.Spool, runA, 1, keys...)
	shrink(false, "all of it is kept for replay")
	if _, err := b.Validate(nil); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Refuse(keys[:30]); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Refuse(keys[30:]); err != nil { // the last 64 are kept for a look
		t.Fatal(err)
	}
	fill(t, b.Spool, wire.LaneTelemetry, 60, 140, 30)
	shrink(false, "much waits")
	for _, blk := range all(t, b.Spool) {
		if _, err := b.Refuse([]wire.Key{blk.Key}); err != nil {
			t.Fatal(err)
		}
	}
	for _, blk := range all(t, b.Spool) { // gaps of the last ones
		ack(t, b.Spool, runA, 2, blk.Key)
	}
	b.restart()
	shrink(true, "idle")
	b.minutes(1)
}

// TestACompactionMayCrashAnywhere copies the folder before each of its steps, as
// a crash would leave it, and opens the copy.
func TestACompactionMayCrashAnywhere(t *testing.T) {
	b, keys := drained(t)
	steps := 0
	spool.OnStep(b.Spool, func(what string) error {
		steps++
		dir := t.TempDir()
		for _, name := range []string{"spool.db", "spool.db.compact", "spool.db.open"} {
			data, err := os.ReadFile(filepath.Join(filepath.Dir(b.path), name))
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, name), data)
		}
		p := filepath.Join(dir, "spool.db")
		s := open(t, spool.Options{Path: p})
		if n := ack(t, s, runA, 2, keys...); n != 5 {
			t.Errorf("crash before %s: %d of 5 blocks are left", what, n)
		}
		if _, err := os.Stat(p + ".compact"); !errors.Is(err, os.ErrNotExist) || len(corruptFiles(t, p)) > 0 {
			t.Errorf("crash before %s: rest is left over: %v", what, err)
		}
		s.Close()
		return nil
	})
	if err := spool.Compact(b.Spool); err != nil {
		t.Fatal(err)
	}
	if steps != 3 {
		t.Errorf("%d steps", steps)
	}
	if got := all(t, b.Spool); len(got) != 6 {
		t.Errorf("%d blocks after it", len(got))
	}
}

// TestACompactionThatFailsChangesNothing: the disk may be full.
func TestACompactionThatFailsChangesNothing(t *testing.T) {
	b, keys := drained(t)
	spool.OnStep(b.Spool, func(what string) error {
		if what == "sync" {
			return errors.New("no room")
		}
		return nil
	})
	if err := spool.Compact(b.Spool); err == nil {
		t.Error("nobody was told")
	}
	if _, err := os.Stat(b.path + ".compact"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the half-made file: %v", err)
	}
	b.minutes(1)
	if n := ack(t, b.Spool, runA, 2, keys...); n != 5 {
		t.Errorf("%d of 5 blocks acked", n)
	}
}
