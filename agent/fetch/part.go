package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/edgeherd/edgeherd/internal/blob"
)

// stage is the file that a part is in; an *os.File.
type stage interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// part is a download in frames. Its file has the full length from the start and
// is its own journal: what a frame's digest says is there is there, whatever was
// going on when the power went. So nothing needs to reach the disk in any order
// before the end, and only right frames are written.
//
// One goroutine fills it; others may read frames that are there.
type part struct {
	file     stage
	frames   blob.Frames
	bad      map[int]int // wrong copies that came, by frame
	unsynced int64
	buf      []byte
	progress func(done, total int64)

	mu    sync.Mutex // guards the fields below
	have  []bool
	lost  map[int]bool  // frames that the disk gave back otherwise than it was given
	done  int64         // bytes of the frames that are there
	moved chan struct{} // closed when there is another one
	ended bool          // the file is closed
}

// openPart looks which frames file has. holes, if set, finds the next byte at or
// after off that may be other than zero.
func openPart(ctx context.Context, file stage, frames blob.Frames, holes func(off int64) int64) (*part, error) {
	p := &part{
		file: file, frames: frames, have: make([]bool, len(frames.Sums)), lost: map[int]bool{}, bad: map[int]int{},
		buf: make([]byte, blob.FrameBytes), progress: func(_, _ int64) {}, moved: make(chan struct{}),
	}
	zero, data := blob.Sum(p.buf), int64(0)
	for i, sum := range frames.Sums {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		off, n := frames.Span(i)
		if holes != nil && off >= data {
			data = holes(off)
		}
		if off+int64(n) <= data { // all of it is a hole
			if n == blob.FrameBytes && sum == zero {
				p.note(i, n)
			}
			continue
		}
		// What cannot be read is not there: it will be written anew.
		if got, err := file.ReadAt(p.buf[:n], off); got == n && (err == nil || err == io.EOF) && blob.Sum(p.buf[:n]) == sum {
			p.note(i, n)
		}
	}
	return p, nil
}

// holesOf finds data in a sparse file.
func holesOf(f *os.File) func(off int64) int64 {
	return func(off int64) int64 {
		at, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, syscall.ENXIO) {
			return 1 << 62 // a hole up to the end
		}
		if err != nil {
			return off // the filesystem does not know: read it all
		}
		return at
	}
}

func (p *part) note(i, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.have[i] = true
	p.done += int64(n)
	close(p.moved)
	p.moved = make(chan struct{})
}

// reached is how many bytes are there.
func (p *part) reached() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}

// read returns frame i if it is there and right, else what tells of another one.
func (p *part) read(i int) (data []byte, moved <-chan struct{}, err error) {
	data, moved, err = p.load(i)
	if err != nil || blob.Sum(data) == p.frames.Sums[i] {
		return data, moved, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	// It is missing again, and comes once more; a disk that spoils the same place
	// twice would else have it come for ever.
	if !p.lost[i] && p.have[i] {
		p.lost[i], p.have[i] = true, false
		p.done -= int64(len(data))
	}
	return nil, p.moved, ErrNotFound
}

// load reads frame i as the disk has it.
func (p *part) load(i int) (data []byte, moved <-chan struct{}, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended || i < 0 || i >= len(p.have) {
		return nil, nil, ErrNotFound
	}
	if !p.have[i] {
		return nil, p.moved, ErrNotFound
	}
	off, n := p.frames.Span(i)
	data = make([]byte, n)
	if _, err := p.file.ReadAt(data, off); err != nil {
		return nil, nil, fmt.Errorf("read frame %d: %w", i, err)
	}
	return data, nil, nil
}

// end says that the file will be closed.
func (p *part) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	close(p.moved)
	p.moved = make(chan struct{})
}

// gap is the first run of missing frames, at most most of them.
func (p *part) gap(most int) (first, end int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for first = range p.have {
		if !p.have[first] {
			for end = first; end < len(p.have) && end-first < most && !p.have[end]; end++ {
			}
			return first, end
		}
	}
	return 0, 0
}

func (p *part) has(i int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.have[i]
}

// errFrame says that the bytes of a frame are wrong.
var errFrame = errors.New("a frame is not what its digest says")

// maxBad copies of one frame may be wrong: a bit may flip on the way, but not
// three times in the same place.
const maxBad = 3

// put writes frame i if data is right.
func (p *part) put(i int, data []byte) error {
	off, n := p.frames.Span(i)
	if p.has(i) {
		return nil
	}
	if len(data) != n || blob.Sum(data) != p.frames.Sums[i] {
		return fmt.Errorf("frame %d at byte %d: %w", i, off, errFrame)
	}
	if _, err := p.file.WriteAt(data, off); err != nil {
		if full := fullness(err); full != nil {
			return fmt.Errorf("disk is full at byte %d of %d: %w: %w", off, p.frames.Size, full, err)
		}
		return fmt.Errorf("write stage file: %w", err)
	}
	p.note(i, n)
	p.progress(p.reached(), p.frames.Size)
	// Not for order, which does not matter: so that a power cut costs little.
	if p.unsynced += int64(n); p.unsynced >= syncBytes {
		p.unsynced = 0
		if err := p.file.Sync(); err != nil {
			return fmt.Errorf("sync stage file: %w", err)
		}
	}
	return nil
}

// reject counts a wrong copy of frame i and says whether the sender is to blame.
func (p *part) reject(i int, err error) error {
	if p.bad[i]++; p.bad[i] >= maxBad {
		return fmt.Errorf("%w, %d times: %w", err, p.bad[i], blob.ErrMismatch)
	}
	return fmt.Errorf("%w: %w", errAgain, err)
}
