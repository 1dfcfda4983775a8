package deliver

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/blob"
)

// TestAPackThatNoBoxCanUseIsMadeAgain after a start, and one that they can is not.
func TestAPackThatNoBoxCanUseIsMadeAgain(t *testing.T) {
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name  string
		spoil func(blobs *blob.Store, pack store.Pack) error
		again bool
	}{
		{"nothing is wrong with it", func(*blob.Store, store.Pack) error { return nil }, false},
		{"it is gone", func(b *blob.Store, p store.Pack) error { return b.Delete(p.Digest) }, true},
		{"its index is gone", func(b *blob.Store, p store.Pack) error { return b.Delete(p.Index) }, true},
		{"its index has another format", func(b *blob.Store, p store.Pack) error {
			return change(b.Path(p.Index), func(data []byte) { data[6] = '0' })
		}, true},
		{"its bytes are damaged", func(b *blob.Store, p store.Pack) error {
			return change(b.Path(p.Digest), func(data []byte) {
				for i := range data { // boxes have the heads between the payloads from the index
					data[i] ^= 1
				}
			})
		}, true},
		{"the base is damaged here", func(b *blob.Store, p store.Pack) error {
			return change(b.Path(p.Base), func(data []byte) { data[len(data)/2] ^= 1 })
		}, false},
		{"the base is cut short here", func(b *blob.Store, p store.Pack) error {
			return errors.Join(os.Remove(b.Path(p.Base)), os.WriteFile(b.Path(p.Base), []byte("these weights"), 0o444))
		}, false},
		{"the base is not here any more", func(b *blob.Store, p store.Pack) error { return b.Delete(p.Base) }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			blobs, err := blob.Open(filepath.Join(dir, "blobs"))
			check(err)
			db, err := store.Open(t.Context(), store.Options{Path: filepath.Join(dir, "store.db"), WallClock: time.Now})
			check(err)
			defer db.Close()
			base := bytes.Repeat([]byte("these weights have served"), 100_000)
			next := bytes.Clone(base)
			next[len(next)/3] ^= 1
			for _, data := range [][]byte{base, next} {
				check(blobs.Put(bytes.NewReader(data), blob.Sum(data)))
			}
			want := store.Pack{Target: blob.Sum(next), Base: blob.Sum(base)}
			check(db.WantPacks(t.Context(), []store.Pack{want}))
			first := New(Options{Store: db, Blobs: blobs}, slog.New(slog.DiscardHandler))
			_, err = first.one(t.Context())
			check(err)
			made := onlyPack(t, db, want.Target)
			if made.State != store.PackReady {
				t.Fatalf("the pack is %s: %s", made.State, made.Why)
			}
			check(tt.spoil(blobs, made))
			second := New(Options{Store: db, Blobs: blobs}, slog.New(slog.DiscardHandler)) // after a start
			again, err := second.check(t.Context())
			check(err)
			if again != tt.again {
				t.Fatalf("made again: %v", again)
			}
			if again {
				if now := onlyPack(t, db, want.Target); now.State != store.PackWanted {
					t.Fatalf("the pack is %s", now.State)
				}
				_, err = second.one(t.Context())
				check(err)
			}
			if now := onlyPack(t, db, want.Target); now != made {
				t.Errorf("the pack is %+v, was %+v", now, made)
			}
			if again, err := second.check(t.Context()); again || err != nil {
				t.Errorf("looked at again: %v, %v", again, err)
			}
		})
	}
}

// badPlace is a disk that cannot give back one of its blobs, and lacks all others.
type badPlace struct {
	blob.Remote
	bad blob.Digest
}

func (b badPlace) Open(d blob.Digest) (io.ReadSeekCloser, error) {
	if d != b.bad {
		return nil, fs.ErrNotExist
	}
	return b, nil
}
func (badPlace) Delete(blob.Digest) error       { return nil }
func (badPlace) Seek(int64, int) (int64, error) { return 9, nil }
func (badPlace) Close() error                   { return nil }
func (badPlace) Read([]byte) (int, error)       { return 0, syscall.EIO }

// TestAPackThatCannotBeReadKeepsNoOtherFromBeingTried: it stays, as the disk may have
// been away for a moment, and people are told.
func TestAPackThatCannotBeReadKeepsNoOtherFromBeingTried(t *testing.T) {
	dir := t.TempDir()
	var seconds atomic.Int64
	blobs, err := blob.Open(filepath.Join(dir, "blobs"))
	db, err2 := store.Open(t.Context(), store.Options{Path: filepath.Join(dir, "store.db"), WallClock: func() time.Time { return time.Unix(seconds.Add(1), 0) }})
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	pack := func(name string) store.Pack {
		p := store.Pack{Target: blob.Sum([]byte(name)), State: store.PackReady, Digest: blob.Sum([]byte("p" + name)), Index: blob.Sum([]byte("i" + name)), SizeBytes: 9, IndexBytes: 9}
		if err := db.PutPack(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	unread, gone := pack("unread"), pack("gone")
	p := New(Options{Store: db, Blobs: blobs.Backed(badPlace{bad: unread.Index})}, slog.New(slog.DiscardHandler))
	if again, err := p.check(t.Context()); !again || err != nil {
		t.Errorf("the other one is made again: %v, %v", again, err)
	}
	if now := onlyPack(t, db, gone.Target); now.State != store.PackWanted {
		t.Errorf("the other one is %s", now.State)
	}
	if again, err := p.check(t.Context()); again || !errors.Is(err, syscall.EIO) {
		t.Errorf("then: %v, %v", again, err)
	}
	if now := onlyPack(t, db, unread.Target); now != unread {
		t.Errorf("it is %+v", now)
	}
}

// TestAPackThatIsUselessWheneverItIsMadeIsGivenUp: the queue is not kept busy by it.
func TestAPackThatIsUselessWheneverItIsMadeIsGivenUp(t *testing.T) {
	dir := t.TempDir()
	blobs, err := blob.Open(filepath.Join(dir, "blobs"))
	db, err2 := store.Open(t.Context(), store.Options{Path: filepath.Join(dir, "store.db"), WallClock: time.Now})
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	p := New(Options{Store: db, Blobs: blobs}, slog.New(slog.DiscardHandler))
	gone := store.Pack{Target: blob.Sum([]byte("t")), State: store.PackReady, Digest: blob.Sum([]byte("p")), Index: blob.Sum([]byte("i")), SizeBytes: 1, IndexBytes: 1}
	for i, want := range []store.PackState{store.PackWanted, store.PackFailed} {
		err := errors.Join(blobs.Put(strings.NewReader("p"), gone.Digest), blobs.Put(strings.NewReader("i"), gone.Index), db.PutPack(context.Background(), gone))
		if err != nil {
			t.Fatal(err)
		}
		if again, err := p.check(t.Context()); err != nil || again != (want == store.PackWanted) {
			t.Errorf("time %d: made again: %v, %v", i+1, again, err)
		}
		if now := onlyPack(t, db, gone.Target); now.State != want || !now.Digest.IsZero() || now.SizeBytes > 0 {
			t.Errorf("time %d: the pack is %+v", i+1, now)
		}
		if blobs.Has(gone.Digest) || blobs.Has(gone.Index) {
			t.Errorf("time %d: its bytes stay, and nobody counts them", i+1)
		}
	}
}

func onlyPack(t *testing.T, db *store.Store, target blob.Digest) store.Pack {
	t.Helper()
	packs, err := db.Packs(t.Context(), target)
	if err != nil || len(packs) != 1 {
		t.Fatalf("packs %v, %v", packs, err)
	}
	return packs[0]
}

// change writes a blob anew, as a disk or an older program would have.
func change(path string, how func([]byte)) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	how(data)
	return errors.Join(os.Remove(path), os.WriteFile(path, data, 0o444))
}
