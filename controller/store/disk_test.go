package store_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/edgeherd/edgeherd/controller/store"
)

// disk mounts a small file system of its own, or skips the test.
func disk(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("a disk that can be filled needs the right to mount one (root): %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// TestAFullDiskLosesNothing fills the disk, sees commits fail, frees it, and
// goes on where it stood.
func TestAFullDiskLosesNothing(t *testing.T) {
	dir := disk(t, "size=4m")
	path := filepath.Join(dir, "store.db")
	s := open(t, path)
	enrolTwo(t, s)
	stored := ingest(t, s, results(boxA, 1, 1, epoch, "good"))
	ballast := filepath.Join(dir, "ballast")
	fill(t, ballast)

	var failed error
	seq := uint64(1)
	for failed == nil && seq < 10_000 {
		var c store.Committed
		if c, failed = s.Ingest(ctx, []store.Delivery{results(boxA, 1, seq+1, epoch, strings.Repeat("x", 1000))}, effects); failed == nil {
			seq, stored = seq+1, c
		}
	}
	if failed == nil || !strings.Contains(failed.Error(), "full") {
		t.Fatalf("after %d blocks: %v", seq, failed)
	}
	if got := box(t, s, boxA).Reads.Total; got != int64(seq) {
		t.Errorf("%d reads with a full disk, want %d", got, seq)
	}
	check(t, os.Remove(ballast))
	c := ingest(t, s, results(boxA, 1, 1, epoch, "good"), results(boxA, 1, seq+1, epoch, strings.Repeat("x", 1000)))
	if c.LSN <= stored.LSN || c.New != 1 {
		t.Errorf("after the disk had space again: %+v, before %+v", c, stored)
	}
	before := len(keysOf(t, s, boxA))
	check(t, s.Close())
	s = open(t, path)
	if got := len(keysOf(t, s, boxA)); got != before || box(t, s, boxA).Reads.Total != int64(before) {
		t.Errorf("%d blocks after reopening, %d before", got, before)
	}
}

// fill takes all space that is left.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	check(t, err)
	defer f.Close()
	for size := 1 << 20; size >= 512; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
}

// TestAFullDiskIsNamedAtStart: a new database and one that has something.
func TestAFullDiskIsNamedAtStart(t *testing.T) {
	dir := disk(t, "size=4m")
	old := filepath.Join(dir, "state", "old.db")
	check(t, os.Mkdir(filepath.Dir(old), 0o700))
	check(t, open(t, old).Close())
	ballast := filepath.Join(dir, "ballast")
	fill(t, ballast)
	for _, path := range []string{old, filepath.Join(dir, "state", "new.db")} {
		s, err := store.Open(ctx, store.Options{Path: path})
		if err == nil {
			s.Close()
			t.Fatalf("%s was opened on a full disk", path)
		}
		for _, word := range []string{path, "the disk at " + dir + " is full", "bytes are free", "delete or move"} {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("error %q does not say %q", err, word)
			}
		}
	}
	check(t, os.Remove(ballast))
	open(t, old)
	open(t, filepath.Join(dir, "state", "new.db"))
}

func TestOpenSaysWhatStandsInItsWay(t *testing.T) {
	refuse := func(path string, words ...string) {
		t.Helper()
		s, err := store.Open(ctx, store.Options{Path: path})
		if err == nil {
			s.Close()
			t.Errorf("%s was opened", path)
			return
		}
		for _, w := range append(words, path) {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("error %q does not say %q", err, w)
			}
		}
	}
	dir := t.TempDir()
	refuse(filepath.Join(dir, "missing", "store.db"), "no such file")
	check(t, os.Mkdir(filepath.Join(dir, "folder.db"), 0o700))
	refuse(filepath.Join(dir, "folder.db"), "is a directory")
	foreign := filepath.Join(dir, "foreign.db")
	check(t, os.WriteFile(foreign, []byte(strings.Repeat("not a database ", 500)), 0o600))
	refuse(foreign, "not a database")
	t.Run("read-only", func(t *testing.T) {
		ro := disk(t, "size=4m")
		path := filepath.Join(ro, "store.db")
		open(t, path).Close()
		if err := unix.Mount("", ro, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			t.Skipf("remount read-only: %v", err)
		}
		refuse(path, "read-only file system")
		refuse(filepath.Join(ro, "other.db"), "read-only file system")
	})
}
