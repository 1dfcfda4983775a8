package store_test

import (
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/wire"
)

const dayMs = 24 * 3_600_000

// sameOldest compares what the doctor sees with a look at all rows.
func sameOldest(t *testing.T, s *store.Store) {
	t.Helper()
	seen, read, err := s.Oldest(ctx)
	check(t, err)
	if !maps.Equal(seen, read) {
		t.Errorf("oldest rows %v, want %v", seen, read)
	}
}

// retains: what is old goes in slices, what is young stays, and a block that
// went does not count again when it comes again. What came late counts in the
// rollups, whichever of Retain and Compact sees it first.
func retains(t *testing.T, open func(t *testing.T) *store.Store) {
	s := open(t)
	enrolTwo(t, s)
	keep := store.Retention{Samples: 10 * 24 * time.Hour, Rollups: 0, Results: 10 * 24 * time.Hour, Events: 10 * 24 * time.Hour}
	var batch []store.Delivery
	for d := range int64(30) {
		at := epoch - d*dayMs
		seq := uint64(d + 1)
		batch = append(batch, samples(boxA, 1, seq, at, 40, 50), results(boxA, 2, seq, at, "good"), event(boxA, 1, seq, at, "x", nil))
	}
	const old = epoch - 20*dayMs // a pack has its hourly values with it
	batch = append(batch, packOf(wire.GrainExact, samples(boxA, 3, 1, old, 45), samples(boxA, 3, 2, old+6*60_000, 45)))
	sameOldest(t, s)
	ingest(t, s, batch...)
	sameOldest(t, s)
	if _, _, err := s.Retain(ctx, keep, 7); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Compact(ctx, 1000); err != nil {
		t.Fatal(err)
	}
	deleted := 0
	for range 100 {
		n, more, err := s.Retain(ctx, keep, 7)
		check(t, err)
		if deleted += n; n > 7 {
			t.Errorf("%d rows at once", n)
		}
		if !more {
			break
		}
	}
	young, err := s.Events(ctx, boxA, time.UnixMilli(0), time.UnixMilli(2*epoch), 100)
	check(t, err)
	if len(young) != 11 { // to the very day
		t.Errorf("%d events are left, want 11", len(young))
	}
	for table, want := range map[string]int64{"result": 11, "event": 11, "sample": 1, "sample_hour": 11} {
		if got := rowCount(t, s, `SELECT count(*) FROM `+table); got != want {
			t.Errorf("%d rows of %s are left, want %d", got, table, want)
		}
	}
	if n, _, _ := countOf(t, s, boxA, 40*dayMs, true); n != 62 {
		t.Errorf("%d samples count in the rollups, want 62", n)
	}
	if n, more, err := s.Retain(ctx, keep, 7); n != 0 || more || err != nil {
		t.Errorf("again: %d rows, more %v, %v", n, more, err)
	}
	if c := ingest(t, s, batch...); c.New != 0 {
		t.Errorf("%d blocks that were deleted were stored again", c.New)
	}
	if n, _, err := s.Retain(ctx, store.Retention{}, 100); n != 0 || err != nil {
		t.Errorf("with nothing to delete: %d rows, %v", n, err)
	}
}

// TestDeletedRowsGiveDiskSpaceBack: of SQLite.
func TestDeletedRowsGiveDiskSpaceBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	enrolTwo(t, s)
	big := make([]string, 30)
	for i := range big {
		big[i] = string(make([]byte, 1000))
	}
	var batch []store.Delivery
	for i := range uint64(100) {
		batch = append(batch, results(boxA, 1, i+1, epoch-100*dayMs, big...))
	}
	ingest(t, s, batch...)
	size := func() int64 {
		check(t, s.Close())
		info, err := os.Stat(path)
		check(t, err)
		s = open(t, path)
		return info.Size()
	}
	before := size()
	for more := true; more; {
		var err error
		_, more, err = s.Retain(ctx, store.Retention{Results: time.Hour, Events: time.Hour}, 500)
		check(t, err)
	}
	for range 10 {
		_, _, err := s.Retain(ctx, store.Retention{}, 1)
		check(t, err)
	}
	if after := size(); after > before*2/3 {
		t.Errorf("%d bytes, %d before", after, before)
	}
}
