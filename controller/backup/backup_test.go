package backup_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/backup"
	"github.com/edgeherd/edgeherd/controller/doctor"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/controller/store/storetest"
	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

var ctx = context.Background()

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// state makes the state directory of a controller with one box.
func state(t *testing.T) backup.Options {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state")
	for name, text := range map[string]string{
		"ca/ca.pem": "authority", "ca/ca.key": "secret", "keys/signing.key": "key", "lock": "",
		"blobs/sha256/aa": "a model", "blobs/stage/bb.part": "half", "context.json": "{}",
	} {
		check(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700))
		check(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	return backup.Options{State: dir}
}

func open(t *testing.T, opts backup.Options) *store.Store {
	t.Helper()
	o := store.Options{Database: opts.Database}
	if o.Database == "" {
		o.Path = filepath.Join(opts.State, "store.db")
	}
	s, err := store.Open(ctx, o)
	check(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

const box = identity.ID("d-aaaaaaaaaaaaa")

func commit(t *testing.T, s *store.Store, seq uint64) store.Committed {
	t.Helper()
	d := store.Delivery{Box: box, StartMs: 1, Events: []wire.Event{{Type: "x"}}, Block: wire.Block{Key: wire.Key{SID: wire.SID{1}, Seq: seq}, Kind: wire.KindEvents, Count: 1}}
	c, err := s.Ingest(ctx, []store.Delivery{d}, func(store.Delivery) (store.Effects, error) { return store.Effects{}, nil })
	check(t, err)
	return c
}

// TestARestoredBackupIsWhatWasSaved: while the controller runs and commits.
func TestARestoredBackupIsWhatWasSaved(t *testing.T) {
	for _, engine := range []string{"sqlite", "postgres"} {
		t.Run(engine, func(t *testing.T) {
			opts := state(t)
			if engine == "postgres" {
				opts.Database = database(t)
			}
			s := open(t, opts)
			check(t, s.AddBox(ctx, box, "a", "x"))
			kinds := []store.TokenKind{store.TokenAPI, store.TokenSession, store.TokenLogin, store.TokenPassword}
			for _, kind := range kinds {
				check(t, s.AddToken(ctx, string(kind), store.Token{Kind: kind, Name: "x", Expires: time.Now().Add(time.Hour)}))
			}
			kept := commit(t, s, 1)
			stop, stopped := make(chan struct{}), make(chan uint64)
			go func() {
				seq := uint64(1)
				for {
					select {
					case <-stop:
						stopped <- seq
						return
					default:
						seq++
						commit(t, s, seq)
					}
				}
			}()
			file := filepath.Join(t.TempDir(), "backup.tar")
			m, err := backup.Write(ctx, opts, file)
			close(stop)
			last := <-stopped
			check(t, err)
			lost := commit(t, s, last+1)
			if m.LSN < kept.LSN || m.Engine != engine || len(m.Blobs) != 1 {
				t.Errorf("manifest %+v", m)
			}
			if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("the backup has mode %v, %v", info.Mode(), err)
			}
			check(t, s.Close())

			if _, err := backup.Restore(ctx, opts, file, false); !errors.Is(err, fs.ErrExist) {
				t.Errorf("restored over a state directory: %v", err)
			}
			r, err := backup.Restore(ctx, opts, file, true)
			check(t, err)
			for name, want := range map[string]string{"ca/ca.key": "secret", "keys/signing.key": "key", "blobs/sha256/aa": "a model"} {
				if got, err := os.ReadFile(filepath.Join(opts.State, name)); err != nil || string(got) != want {
					t.Errorf("%s is %q, %v", name, got, err)
				}
				if _, err := os.Stat(filepath.Join(r.Before, name)); err != nil {
					t.Errorf("what was there before is gone: %v", err)
				}
			}
			again := open(t, opts)
			lines, err := again.AuditNewest(ctx, store.AuditQuery{Limit: 9})
			check(t, err)
			if len(lines) != 1 || !strings.Contains(string(lines[0]), `"server.restore"`) {
				t.Errorf("the audit log says %s", lines)
			}
			if came, err := again.Restored(ctx); err != nil || !came.Unread || came.At.IsZero() {
				t.Errorf("restored: %+v, %v", came, err)
			}
			if b, err := again.Box(ctx, box, 0); err != nil || !b.Awaits {
				t.Errorf("a box is told what is in the backup before it was heard: %+v, %v", b, err)
			}
			for _, kind := range kinds {
				if _, err := again.Token(ctx, string(kind), kind); (err == nil) != (kind == store.TokenAPI) {
					t.Errorf("a %s from before the backup: %v", kind, err)
				}
			}
			l, err := again.Lineage(ctx, []wire.RunID{lost.Run})
			check(t, err)
			if l.Run == lost.Run || len(l.Valid) != 1 || l.Valid[0].LSN >= lost.LSN || l.Valid[0].LSN < m.LSN {
				t.Errorf("lineage %+v after commit %+v was lost", l, lost)
			}
			if c := commit(t, again, last+1); c.New != 1 {
				t.Errorf("what was lost is not stored again: %+v", c)
			}
			if c := commit(t, again, 1); c.New != 0 {
				t.Errorf("what was saved is stored twice: %+v", c)
			}
		})
	}
}

// database is an empty one on a server of the test's own.
func database(t *testing.T) string {
	t.Helper()
	c, err := storetest.New()
	if err != nil {
		storetest.Absent(t, err)
	}
	t.Cleanup(func() { check(t, c.Remove()) })
	check(t, c.Start())
	address, _, err := c.Create()
	check(t, err)
	return address
}

// TestABackupSaysThatTheBucketIsNotInIt: nobody takes the cache for all there is.
func TestABackupSaysThatTheBucketIsNotInIt(t *testing.T) {
	opts := state(t)
	check(t, open(t, opts).Close())
	opts.Bucket, opts.WithBlobs = "https://s3.example.net/fleet", true
	file := filepath.Join(t.TempDir(), "backup.tar")
	if _, err := backup.Write(ctx, opts, file); err == nil || !strings.Contains(err.Error(), opts.Bucket) {
		t.Errorf("with what the cache has: %v", err)
	}
	opts.WithBlobs = false
	if m, err := backup.Write(ctx, opts, file); err != nil || m.Bucket != opts.Bucket {
		t.Errorf("the bucket is %q, %v", m.Bucket, err)
	}
	r, err := backup.Restore(ctx, backup.Options{State: filepath.Join(t.TempDir(), "new")}, file, false)
	check(t, err)
	if r.Manifest.Bucket != opts.Bucket || len(r.Missing) != 0 {
		t.Errorf("restored %+v; what the cache had is no loss", r)
	}
}

// TestADamagedBackupChangesNothing flips, cuts and lengthens a backup.
func TestADamagedBackupChangesNothing(t *testing.T) {
	opts := state(t)
	check(t, open(t, opts).Close())
	opts.WithBlobs = true
	file := filepath.Join(t.TempDir(), "backup.tar")
	_, err := backup.Write(ctx, opts, file)
	check(t, err)
	good, err := os.ReadFile(file)
	check(t, err)
	bad := filepath.Join(t.TempDir(), "bad.tar")
	target := backup.Options{State: filepath.Join(t.TempDir(), "new")}
	try := func(what string, data []byte) {
		t.Helper()
		check(t, os.WriteFile(bad, data, 0o600))
		if _, err := backup.Restore(ctx, target, bad, true); !errors.Is(err, backup.ErrDamaged) {
			t.Errorf("%s: %v", what, err)
		}
		if left, _ := os.ReadDir(filepath.Dir(target.State)); len(left) != 0 {
			t.Errorf("%s left %v behind", what, left)
		}
	}
	try("nothing", nil)
	for _, at := range []int{len(good) / 4, len(good) / 2, len(good) * 3 / 4} {
		try("cut", good[:at])
		flipped := slices.Clone(good)
		flipped[at] ^= 1
		try("flipped", flipped)
	}
	if i := strings.Index(string(good), "a model"); i < 0 {
		t.Error("models are not in the backup")
	}
	r, err := backup.Restore(ctx, target, file, false)
	check(t, err)
	if len(r.Missing) != 0 || r.Before != "" {
		t.Errorf("restored %+v", r)
	}
}

func TestNothingIsOverwritten(t *testing.T) {
	opts := state(t)
	check(t, open(t, opts).Close())
	file := filepath.Join(t.TempDir(), "backup.tar")
	check(t, os.WriteFile(file, []byte("precious"), 0o600))
	if _, err := backup.Write(ctx, opts, file); err == nil || !strings.Contains(err.Error(), "exists") {
		t.Errorf("overwrote a file: %v", err)
	}
	check(t, os.Remove(file))
	_, err := backup.Write(ctx, opts, file)
	check(t, err)
	if left, _ := os.ReadDir(filepath.Dir(file)); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
	lock, err := durable.LockDir(opts.State)
	check(t, err)
	defer lock.Close()
	if _, err := backup.Restore(ctx, opts, file, true); err == nil || !strings.Contains(err.Error(), "stop it first") {
		t.Errorf("restored under a running controller: %v", err)
	}
}

// TestTheDoctorFindsWhatIsWrong breaks one thing after the other.
func TestTheDoctorFindsWhatIsWrong(t *testing.T) {
	opts := state(t)
	s := open(t, opts)
	check(t, s.AddBox(ctx, box, "a", "x"))
	commit(t, s, 1)
	examine := func() map[string]store.Finding {
		out := map[string]store.Finding{}
		for _, f := range doctor.Examine(ctx, doctor.Options{State: opts.State, Retention: store.Retention{Events: time.Hour}}).Findings {
			out[f.Check] = f
			if f.Level != store.OK && f.Way == "" {
				t.Errorf("%s: %s, and no way out", f.Check, f.Found)
			}
		}
		return out
	}
	got := examine()
	for _, name := range []string{"state directory", "database", "tables", "lineage", "foreign rows", "private keys"} {
		if got[name].Level != store.OK {
			t.Errorf("%s: %+v", name, got[name])
		}
	}
	if got["certificate authority"].Level != store.Fail {
		t.Errorf("an authority that is none: %+v", got["certificate authority"])
	}
	if got["retention"].Level != store.Warn {
		t.Errorf("an event of 1970: %+v", got["retention"])
	}
	check(t, os.Chmod(filepath.Join(opts.State, "keys/signing.key"), 0o644))
	if f := examine()["private keys"]; f.Level != store.Fail {
		t.Errorf("a key for all: %+v", f)
	}
	check(t, s.Close())
	path := filepath.Join(opts.State, "store.db")
	data, err := os.ReadFile(path)
	check(t, err)
	copy(data[len(data)/2:], strings.Repeat("broken", 700))
	check(t, os.WriteFile(path, data, 0o600))
	if f := examine()["database"]; f.Level != store.Fail {
		t.Errorf("a broken database: %+v", f)
	}
	check(t, os.Remove(path))
	if f := examine()["database"]; f.Level != store.Fail {
		t.Errorf("no database: %+v", f)
	}
}

// TestLinksHideNothing: a state directory that is a link, as after a move to a
// larger disk, is saved as the one it leads to; a link inside is refused.
func TestLinksHideNothing(t *testing.T) {
	opts := state(t)
	open(t, opts)
	real := opts.State
	opts.State = filepath.Join(t.TempDir(), "link")
	check(t, os.Symlink(real, opts.State))
	check(t, os.Mkdir(filepath.Join(real, "moved"), 0o700))
	check(t, os.Rename(filepath.Join(real, "blobs"), filepath.Join(real, "moved", "blobs")))
	check(t, os.Symlink(filepath.Join("moved", "blobs"), filepath.Join(real, "blobs")))
	m, err := backup.Write(ctx, opts, filepath.Join(t.TempDir(), "backup.tar"))
	check(t, err)
	var names []string
	for _, f := range append(m.Files, m.Blobs...) {
		names = append(names, f.Name)
	}
	want := []string{"store.db", "state/ca/ca.key", "state/ca/ca.pem", "state/context.json", "state/keys/signing.key", "blobs/sha256/aa"}
	if !slices.Equal(names, want) {
		t.Errorf("saved %q, want %q", names, want)
	}
	check(t, os.Rename(filepath.Join(real, "keys"), filepath.Join(t.TempDir(), "keys")))
	check(t, os.Symlink("/elsewhere", filepath.Join(real, "keys")))
	if _, err := backup.Write(ctx, opts, filepath.Join(t.TempDir(), "backup.tar")); err == nil || !strings.Contains(err.Error(), "keys is a link") {
		t.Errorf("keys behind a link: %v", err)
	}
}

func TestABackupDoesNotHoldTheOnesBefore(t *testing.T) {
	opts := state(t)
	open(t, opts)
	for _, dir := range []string{"", "ca", "blobs/sha256"} {
		file := filepath.Join(opts.State, dir, "backup.tar")
		if _, err := backup.Write(ctx, opts, file); err == nil || !strings.Contains(err.Error(), "choose a folder outside") {
			t.Errorf("%s: %v", file, err)
		}
	}
}
