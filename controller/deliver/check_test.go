package deliver

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
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
		if err := db.PutPack(context.Background(), gone); err != nil {
			t.Fatal(err)
		}
		_, _ = p.check(t.Context()) // the second tells why
		if now := onlyPack(t, db, gone.Target); now.State != want {
			t.Errorf("time %d: the pack is %s", i+1, now.State)
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
