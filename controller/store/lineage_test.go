package store_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/wire"
)

func valid(t *testing.T, s *store.Store, runs ...wire.RunID) []wire.RunLSN {
	t.Helper()
	got, err := s.Lineage(ctx, runs)
	check(t, err)
	return got.Valid
}

// TestEveryOpenIsANewRun: the end of the old one stays valid.
func TestEveryOpenIsANewRun(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	var runs []wire.RunID
	var want []wire.RunLSN
	for i := range 3 {
		s := open(t, path)
		if slices.Contains(runs, runNow(t, s)) {
			t.Fatal("the same run twice")
		}
		if i == 0 {
			enrolTwo(t, s)
		}
		runs = append(runs, runNow(t, s))
		var last store.Committed
		for seq := range uint64(2) {
			last = ingest(t, s, samples(boxA, byte(i+1), seq+1, epoch, 40))
		}
		want = append(want, wire.RunLSN{Run: runNow(t, s), LSN: last.LSN})
		if got := valid(t, s, append(runs, strangeRun(7))...); !slices.Equal(got, want) {
			t.Errorf("life %d: valid %v, want %v", i, got, want)
		}
		if i == 1 { // SQLite's own files after a power cut are its business; a clean end is ours
			check(t, s.Close())
		}
	}
}

// copyDatabase copies the files of a database that nobody writes now.
func copyDatabase(t *testing.T, from, to string) {
	t.Helper()
	for _, suffix := range []string{"", "-wal"} {
		data, err := os.ReadFile(from + suffix)
		if os.IsNotExist(err) {
			check(t, os.RemoveAll(to+suffix))
			continue
		}
		check(t, err)
		check(t, os.WriteFile(to+suffix, data, 0o600))
	}
	check(t, os.RemoveAll(to+"-shm"))
}

// TestARestoredBackupAdmitsWhatItLacks: a box that holds an ACK from after the
// backup learns that it must send again.
func TestARestoredBackupAdmitsWhatItLacks(t *testing.T) {
	dir := t.TempDir()
	path, backup := filepath.Join(dir, "store.db"), filepath.Join(dir, "backup.db")
	s := open(t, path)
	enrolTwo(t, s)
	kept := ingest(t, s, samples(boxA, 1, 1, epoch, 40))
	copyDatabase(t, path, backup) // while its run goes on
	lost := samples(boxA, 1, 2, epoch+60_000, 50)
	after := ingest(t, s, lost)
	first := runNow(t, s)
	check(t, s.Close())
	s = open(t, path)
	second := runNow(t, s)
	ingest(t, s, samples(boxA, 1, 3, epoch+120_000, 60))
	check(t, s.Close())

	copyDatabase(t, backup, path)
	s = open(t, path)
	if got, want := valid(t, s, first, second), []wire.RunLSN{{Run: first, LSN: kept.LSN}}; !slices.Equal(got, want) || kept.LSN >= after.LSN {
		t.Fatalf("the restored backup holds %v, want %v", got, want)
	}
	// What is sent again gets a place that no earlier ACK can name.
	c := ingest(t, s, lost)
	if c.New != 1 || c.Run == first || c.Run == second {
		t.Errorf("sent again: %+v", c)
	}
	if got := valid(t, s, first); got[0].LSN != kept.LSN {
		t.Errorf("the old run grew to %v by new commits", got)
	}
}

// TestNewerDatabasesAreLeftAlone: an older program must not guess.
func TestNewerDatabasesAreLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	_, err := s.DB().Exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, 1)`)
	check(t, err)
	check(t, s.Close())
	if s, err := store.Open(ctx, store.Options{Path: path}); err == nil || !strings.Contains(err.Error(), "newer") {
		if err == nil {
			s.Close()
		}
		t.Errorf("opened a database of version 999: %v", err)
	}
}
