package store_test

import (
	"os"
	"path/filepath"
	"testing"
)

// TestACheckpointMovesAllIntoTheFile: without the log, the file has what was
// committed before, and a commit after it does not hold the checkpoint up.
func TestACheckpointMovesAllIntoTheFile(t *testing.T) {
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "store.db"))
	enrolTwo(t, s)
	ingest(t, s, samples(boxA, 1, 1, epoch, 40, 50))
	check(t, s.Checkpoint(ctx))
	raw, err := os.ReadFile(filepath.Join(dir, "store.db"))
	check(t, err)
	check(t, os.WriteFile(filepath.Join(dir, "alone.db"), raw, 0o600))
	if got := keysOf(t, open(t, filepath.Join(dir, "alone.db")), boxA); len(got) != 1 {
		t.Errorf("%d keys in the file alone, want 1", len(got))
	}
	ingest(t, s, samples(boxA, 1, 2, epoch+60_000, 40, 50))
	check(t, s.Checkpoint(ctx))
}
