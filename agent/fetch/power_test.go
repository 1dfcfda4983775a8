package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"

	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/blob"
)

// disk is a disk with one part on it and no file of the final name yet. Writes
// reach it in pages; until a sync, a power cut keeps any of them. Names reach it
// in their order, as ext4 and XFS have it (see controller/store/powertest).
type disk struct {
	now, safe []byte // what a reader sees; what survives a power cut for sure
	dirty     map[int]bool
	named     bool // the part has the final name
	steps     int  // until the power goes or, with full, the disk is full
	full      bool
	nosync    bool // breaks the protocol: syncs do nothing
}

const pageBytes = 4096

var errPower = errors.New("the power went")

func (d *disk) step() error {
	if d.steps--; d.steps >= 0 {
		return nil
	}
	if d.full {
		return syscall.ENOSPC
	}
	return errPower
}

func (d *disk) ReadAt(p []byte, off int64) (int, error) { return copy(p, d.now[off:]), nil }

func (d *disk) WriteAt(p []byte, off int64) (int, error) {
	for n := 0; n < len(p); n += pageBytes {
		if err := d.step(); err != nil {
			return n, err
		}
		end := min(n+pageBytes, len(p))
		copy(d.now[int(off)+n:], p[n:end])
		d.dirty[(int(off)+n)/pageBytes] = true
	}
	return len(p), nil
}

func (d *disk) Sync() error {
	if err := d.step(); err != nil || d.nosync {
		return err
	}
	copy(d.safe, d.now)
	clear(d.dirty)
	return nil
}

// cut takes the power away.
func (d *disk) cut(rng *rand.Rand) {
	for page := range d.dirty {
		if at := page * pageBytes; rng.IntN(2) == 0 {
			copy(d.safe[at:], d.now[at:min(at+pageBytes, len(d.now))])
		}
	}
	copy(d.now, d.safe)
	clear(d.dirty)
}

// protocol is how a download goes on and ends.
type protocol struct {
	name string
	// resume opens what a stop left.
	resume func(d *disk, frames blob.Frames) (*part, error)
	// finish gives a complete part its final name.
	finish func(d *disk, whole blob.Digest) error
	nosync bool
	// caught is what a power cut does to it: wrong bytes under the final name, or
	// a part that calls wrong bytes there.
	silent, resumed bool
}

func rehash(d *disk, frames blob.Frames) (*part, error) {
	return openPart(context.Background(), d, frames, nil)
}

// adopt is what blob.Store.Adopt does, in its order.
func adopt(d *disk, whole blob.Digest) error {
	if blob.Sum(d.now) != whole {
		return blob.ErrMismatch
	}
	if err := d.Sync(); err != nil {
		return err
	}
	d.named = true
	return nil
}

// journalled believes a list of frames that reached the disk before they did.
func journalled() func(*disk, blob.Frames) (*part, error) {
	var journal []bool // synced at once
	return func(d *disk, frames blob.Frames) (*part, error) {
		p := &part{file: d, frames: frames, have: make([]bool, len(frames.Sums)), bad: map[int]int{}, buf: make([]byte, blob.FrameBytes), moved: make(chan struct{})}
		if journal == nil {
			journal = make([]bool, len(frames.Sums))
		}
		for i, there := range journal {
			if _, n := frames.Span(i); there {
				p.note(i, n)
			}
		}
		p.progress = func(_, _ int64) { copy(journal, p.have) }
		return p, nil
	}
}

// TestPowerCutsCostBytesNeverTruth cuts the power at random moments of
// downloads, and shows that the model sees what is wrong with other ways.
func TestPowerCutsCostBytesNeverTruth(t *testing.T) {
	cuts := 40
	if os.Getenv("EDGEHERD_PROVE") != "" {
		cuts = 20_000
	}
	seed := assets.Seed(t)
	t.Logf("seed %d", seed)
	content := newOrigin(seed, 2*blob.FrameBytes+3*pageBytes+1).content
	frames, whole, err := blob.FramesOf(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []protocol{
		{name: "the part is the journal", resume: rehash, finish: adopt},
		{name: "no sync before the name", resume: rehash, finish: adopt, nosync: true, silent: true},
		{name: "a journal ahead of its frames", resume: journalled(), finish: adopt, resumed: true},
		{name: "the same, and no digest of the whole", resume: journalled(), finish: func(d *disk, _ blob.Digest) error {
			d.named = true
			return d.Sync()
		}, resumed: true, silent: true},
	} {
		t.Run(p.name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			n := cuts
			if p.silent || p.resumed {
				n = 15 // enough to see it
			}
			silent, resumed := 0, 0
			for range n {
				s, r := cutOnce(t, p, rng, content, frames, whole)
				silent, resumed = silent+s, resumed+r
			}
			if (silent > 0) != p.silent || (resumed > 0) != p.resumed {
				t.Errorf("%d power cuts: %d times wrong bytes under the final name, %d times called there; want some: %v, %v", n, silent, resumed, p.silent, p.resumed)
			}
		})
	}
}

// cutOnce downloads with one or two power cuts, and looks at the disk after.
func cutOnce(t *testing.T, p protocol, rng *rand.Rand, content []byte, frames blob.Frames, whole blob.Digest) (silent, resumed int) {
	d := &disk{now: make([]byte, len(content)), safe: make([]byte, len(content)), dirty: map[int]bool{}, nosync: p.nosync}
	pages := len(content)/pageBytes + 4
	for cut := 0; cut < 2 && !d.named; cut++ {
		d.steps = rng.IntN(2 * pages)
		part, err := p.resume(d, frames)
		if err != nil {
			t.Fatal(err)
		}
		for i, there := range part.have {
			off, n := frames.Span(i)
			if there && !bytes.Equal(d.now[off:off+int64(n)], content[off:off+int64(n)]) {
				resumed++
			}
		}
		for _, i := range rng.Perm(len(frames.Sums)) {
			off, n := frames.Span(i)
			if err = part.put(i, content[off:off+int64(n)]); err != nil {
				break
			}
		}
		if err == nil {
			err = p.finish(d, whole)
		}
		if err != nil && !errors.Is(err, errPower) && !errors.Is(err, blob.ErrMismatch) {
			t.Fatal(err)
		}
		d.cut(rng)
	}
	if d.named && !bytes.Equal(d.now, content) {
		silent++
	}
	return silent, resumed
}

// TestDiskFullAtEveryWriteIsNamed lets the disk end at each page of a download;
// with room again it goes on.
func TestDiskFullAtEveryWriteIsNamed(t *testing.T) {
	content := newOrigin(3, blob.FrameBytes+2*pageBytes).content
	frames, whole, err := blob.FramesOf(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	for steps := 0; steps <= len(content)/pageBytes; steps += 13 {
		d := &disk{now: make([]byte, len(content)), safe: make([]byte, len(content)), dirty: map[int]bool{}, steps: steps, full: true}
		fill := func() (err error) {
			p, err := rehash(d, frames)
			for i := 0; err == nil && i < len(frames.Sums); i++ {
				off, n := frames.Span(i)
				err = p.put(i, content[off:off+int64(n)])
			}
			return err
		}
		if err := fill(); !errors.Is(err, blob.ErrNoRoom) && steps < len(content)/pageBytes {
			t.Fatalf("full after %d pages: %v, want blob.ErrNoRoom", steps, err)
		}
		d.steps = 1 << 30
		if err := errors.Join(fill(), adopt(d, whole)); err != nil {
			t.Fatal(fmt.Errorf("with room again after %d pages: %w", steps, err))
		}
	}
}
