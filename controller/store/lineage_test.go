package store_test

import (
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/wire"
)

func valid(t *testing.T, s *store.Store, runs ...wire.RunID) []wire.RunLSN {
	t.Helper()
	got, err := s.Valid(ctx, runs)
	check(t, err)
	return got
}

// TestEveryOpenIsANewRun: the end of the old one stays valid.
func TestEveryOpenIsANewRun(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	var runs []wire.RunID
	var want []wire.RunLSN
	for i := range 3 {
		s := open(t, path)
		if slices.Contains(runs, s.Run()) {
			t.Fatal("the same run twice")
		}
		if i == 0 {
			enrolTwo(t, s)
		}
		runs = append(runs, s.Run())
		var last store.Committed
		for seq := range uint64(2) {
			last = ingest(t, s, samples(boxA, byte(i+1), seq+1, epoch, 40))
		}
		want = append(want, wire.RunLSN{Run: s.Run(), LSN: last.LSN})
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
	first := s.Run()
	check(t, s.Close())
	s = open(t, path)
	second := s.Run()
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

func unpack(t *testing.T, from, to string) {
	t.Helper()
	f, err := os.Open(from)
	check(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	check(t, err)
	data, err := io.ReadAll(z)
	check(t, err)
	check(t, os.WriteFile(to, data, 0o600))
}

// TestOldDatabasesOpen reads a file that the first version wrote.
func TestOldDatabasesOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	unpack(t, "testdata/v1.db.gz", path)
	s := open(t, path)
	b := box(t, s, boxA)
	if b.Latest["temp_die_celsius"].Value != 60 || b.Running.Generation != 2 || b.Desired.Generation != 1 || b.Phases[0].Phase != "active" {
		t.Errorf("box %+v", b)
	}
	if b.Reads != (store.Reads{Total: 3, Checked: 3, Right: 2}) {
		t.Errorf("reads %+v", b.Reads)
	}
	if got, err := s.BoxSchemas(ctx, boxA); err != nil || !slices.Equal(got, []wire.SchemaID{wire.SchemaIDOf(schema)}) {
		t.Errorf("schemas %v, %v", got, err)
	}
	rows := 0
	check(t, s.Samples(ctx, boxA, time.UnixMilli(epoch), time.UnixMilli(epoch+1), func(_ int64, sm wire.Samples) error { rows += len(sm.TimesMs); return nil }))
	m, err := s.Model(ctx, "m", "1")
	if rows != 3 || err != nil || m.Digest != blob.Sum([]byte("m")) {
		t.Errorf("%d rows, model %+v, %v", rows, m, err)
	}
	if env, err := s.DesiredEnvelope(ctx, boxA); err != nil || !strings.HasPrefix(string(env), "signed {") {
		t.Errorf("envelope %s, %v", env, err)
	}
	// What it already has is not counted again; what is newer is.
	ingest(t, s, samples(boxA, 1, 1, epoch, 40, 50, 60), event(boxA, 1, 3, epoch+5, wire.EventModelPhase, phase("rolled_back")),
		event(boxA, 1, 4, epoch+5, wire.EventRunning, wire.Running{Generation: 9}))
	b = box(t, s, boxA)
	if string(b.Thermal) != `{"Rows":3}` || b.Phases[0].Phase != "rolled_back" || b.Running.Generation != 9 {
		t.Errorf("after more blocks: %s %+v %+v", b.Thermal, b.Phases, b.Running)
	}
}

// TestNewerDatabasesAreLeftAlone: an older program must not guess.
func TestNewerDatabasesAreLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	_, err := s.Writer().Exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, 1)`)
	check(t, err)
	check(t, s.Close())
	if s, err := store.Open(ctx, store.Options{Path: path}); err == nil || !strings.Contains(err.Error(), "newer") {
		if err == nil {
			s.Close()
		}
		t.Errorf("opened a database of version 999: %v", err)
	}
}
