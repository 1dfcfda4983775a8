package store_test

import (
	"path/filepath"
	"testing"

	"github.com/edgeherd/edgeherd/controller/store"
)

// TestAPartThatWasRetainedAloneIsNotOverwritten: retention takes rows of samples
// in slices, so a later part of a large hour may be gone while its hourly values
// are kept.
func TestAPartThatWasRetainedAloneIsNotOverwritten(t *testing.T) {
	s := openAt(t, later(store.Options{Path: filepath.Join(t.TempDir(), "store.db")}))
	check(t, s.AddBox(ctx, boxA, "a", "x"))
	merge := func(d store.Delivery) {
		ingest(t, s, d)
		if c, err := s.Compact(ctx, 100); err != nil || c.Hours != 1 {
			t.Fatalf("merged %+v: %v", c, err)
		}
	}
	merge(samples(boxA, 1, 1, epoch, 50))
	for _, q := range []string{
		`UPDATE sample_hour SET body = zeroblob(1048577)`, // no more goes into it
		`INSERT INTO rollup_hour (box, hour_ms, part, body) SELECT box, hour_ms, 1, body FROM rollup_hour`,
	} {
		_, err := s.DB().Exec(q)
		check(t, err)
	}
	merge(samples(boxA, 1, 2, epoch+60_000, 60))
	if n, low, high := countOf(t, s, boxA, 2*dayMs, true); n != 3 || low != 50 || high != 60 {
		t.Errorf("hourly values of %d samples from %v to %v, want 3 from 50 to 60", n, low, high)
	}
}
