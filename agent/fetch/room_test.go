package fetch

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/models"
)

// TestAPartWaitsForRoom: its bytes need not come again. But the reserve of the
// disk is not for parts.
func TestAPartWaitsForRoom(t *testing.T) {
	for _, tt := range []struct {
		name string
		free int64
		kept bool
	}{
		{"too little for the rest", 60_999, true},
		{"not even the reserve", 999, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := newOrigin(31, 100_000)
			free := tt.free
			f, store := fetcher(t, o, func(opts *Options) {
				opts.MinFreeBytes = 1000
				opts.FreeBytes = func(string) (int64, error) { return free, nil }
			})
			if err := os.WriteFile(store.StagePath(o.digest()), o.content[:40_000], 0o600); err != nil {
				t.Fatal(err)
			}
			err := f.Blob(t.Context(), o.digest(), 100_000, nil)
			if !errors.Is(err, blob.ErrNoRoom) || errors.Is(err, blob.ErrTooLarge) {
				t.Fatalf("got %v, want no room for now", err)
			}
			if _, err := os.Stat(store.StagePath(o.digest())); (err == nil) != tt.kept {
				t.Errorf("the part: %v, want it kept: %t", err, tt.kept)
			}
			free = 1 << 40
			if err := f.Blob(t.Context(), o.digest(), 100_000, nil); err != nil {
				t.Fatal(err)
			}
			wantBlob(t, store, o)
			want := []string{""}
			if tt.kept {
				want = []string{"bytes=40000-"}
			}
			if got := o.ranges(); !slices.Equal(got, want) {
				t.Errorf("asked for %q, want %q", got, want)
			}
		})
	}
}

// TestAPartThatHasItsRoomGoesOn, however full the disk is: it takes no more.
func TestAPartThatHasItsRoomGoesOn(t *testing.T) {
	o := newOrigin(32, framed)
	f, store := fetcher(t, o, func(opts *Options) { opts.FreeBytes = func(string) (int64, error) { return 0, nil } })
	part := slices.Clone(o.content)
	part[0]++
	if err := os.WriteFile(store.StagePath(o.digest()), part, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.File(t.Context(), o.file(), nil); err != nil {
		t.Fatal(err)
	}
	wantBlob(t, store, o)
	if got := o.served.Load(); got > 2*blob.FrameBytes {
		t.Errorf("%d bytes came for one frame", got)
	}
}

// TestABlobBeyondALimitIsNotWaitedFor: room would not help.
func TestABlobBeyondALimitIsNotWaitedFor(t *testing.T) {
	for _, known := range []int64{0, 100_000} {
		o := newOrigin(33, 100_000)
		f, _ := fetcher(t, o, func(opts *Options) { opts.MaxBytes = 99_999 })
		if err := f.Blob(t.Context(), o.digest(), known, nil); !errors.Is(err, blob.ErrTooLarge) {
			t.Errorf("size %d: got %v", known, err)
		}
	}
}

// TestRoomIsForAllThatIsStillToCome of a version: not for each file by itself.
func TestRoomIsForAllThatIsStillToCome(t *testing.T) {
	one, two, here := newOrigin(34, 60_000), newOrigin(35, 70_000), newOrigin(36, 50_000)
	for _, tt := range []struct {
		name string
		free int64
		fits bool
		kept bool // the part
	}{
		{"all of it", 1000 + 130_000 - 40_960, true, true},
		{"each file, not both", 80_000, false, true},
		{"not even the reserve", 999, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, store := fetcher(t, one, func(opts *Options) {
				opts.MinFreeBytes = 1000
				opts.FreeBytes = func(string) (int64, error) { return tt.free, nil }
			})
			if err := errors.Join(store.Put(bytes.NewReader(here.content), here.digest()), os.WriteFile(store.StagePath(one.digest()), one.content[:40_960], 0o600)); err != nil {
				t.Fatal(err)
			}
			err := f.Room([]models.File{one.file(), two.file(), two.file(), here.file()})
			if (err == nil) != tt.fits || err != nil && !errors.Is(err, blob.ErrNoRoom) {
				t.Errorf("got %v", err)
			}
			if _, err := os.Stat(store.StagePath(one.digest())); (err == nil) != tt.kept {
				t.Errorf("the part: %v, want it kept: %t", err, tt.kept)
			}
		})
	}
}

// TestAVersionBeyondALimitIsNotWaitedFor though there is no room for it either.
func TestAVersionBeyondALimitIsNotWaitedFor(t *testing.T) {
	o := newOrigin(37, 60_000)
	f, _ := fetcher(t, o, func(opts *Options) {
		opts.MaxBytes = 50_000
		opts.FreeBytes = func(string) (int64, error) { return 0, nil }
	})
	if err := f.Room([]models.File{o.file()}); err != nil {
		t.Errorf("it is waited for: %v", err)
	}
}
