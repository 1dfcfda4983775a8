package export

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Bounds of a page. A single commit may be larger and is still given whole.
const (
	pageRows  = 512             // blocks and packs
	pageCells = 1 << 18         // values
	saveEvery = 5 * time.Second // a save is a commit of the database
)

// ReaderOptions configure a Reader. Source, Cursors and Name are required.
type ReaderOptions struct {
	Source  Source
	Cursors Cursors
	// Name of the cursor.
	Name string
	// Settle is how long a receiver may lose what it has confirmed, when it is
	// killed: the cursor stays that far behind. Default 0.
	Settle time.Duration
}

// Reader walks the store page by page and keeps the cursor. It belongs to one
// goroutine.
type Reader struct {
	opts   ReaderOptions
	loaded bool
	cursor uint64 // as the database has it
	pos    uint64 // up to here everything was confirmed
	marks  []mark // positions between cursor and pos, oldest first
	saved  time.Time
}

// mark is a position and when it was confirmed.
type mark struct {
	lsn uint64
	at  time.Time
}

// NewReader returns a Reader at the cursor.
func NewReader(opts ReaderOptions) *Reader { return &Reader{opts: opts} }

// Next returns the page after the position and the LSN to give to Done; an
// empty page means that there is nothing new.
func (r *Reader) Next(ctx context.Context) (page []Tailed, last uint64, err error) {
	if !r.loaded {
		if r.cursor, err = r.opts.Cursors.Cursor(ctx, r.opts.Name); err != nil {
			return nil, 0, fmt.Errorf("read cursor %s: %w", r.opts.Name, err)
		}
		r.pos, r.marks, r.loaded = r.cursor, nil, true
	}
	cells := 0
	last, err = r.opts.Source.Tail(ctx, r.pos, pageRows, func(t Tailed) error {
		if n := len(page); n > 0 && page[n-1].LSN != t.LSN && (cells >= pageCells || n >= pageRows) {
			return errFull
		}
		cells += len(t.Samples.TimesMs) * len(t.Samples.Values)
		page = append(page, t)
		return nil
	})
	if errors.Is(err, errFull) {
		return page, page[len(page)-1].LSN, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read stored samples: %w", err)
	}
	return page, max(last, r.pos), nil
}

// Done notes that everything up to last was confirmed, and saves the cursor
// when it is time.
func (r *Reader) Done(ctx context.Context, last uint64) error {
	if last > r.pos {
		r.pos = last
		r.marks = append(r.marks, mark{last, time.Now()})
	}
	if time.Since(r.saved) < min(saveEvery, max(r.opts.Settle, time.Second)) {
		return nil
	}
	return r.save(ctx, r.opts.Settle)
}

// Flush saves the cursor where nothing can be lost behind it.
func (r *Reader) Flush(ctx context.Context) error { return r.save(ctx, r.opts.Settle) }

func (r *Reader) save(ctx context.Context, settle time.Duration) error {
	n := 0
	for n < len(r.marks) && time.Since(r.marks[n].at) >= settle {
		n++
	}
	if n == 0 {
		return nil
	}
	lsn := r.marks[n-1].lsn
	if err := r.opts.Cursors.SetCursor(ctx, r.opts.Name, lsn); err != nil {
		return fmt.Errorf("save cursor %s: %w", r.opts.Name, err)
	}
	r.cursor, r.marks, r.saved = lsn, r.marks[n:], time.Now()
	return nil
}

// Rewind goes back to the cursor: what was confirmed lately may be lost. It
// reports whether that is any further back.
func (r *Reader) Rewind() bool {
	back := r.pos > r.cursor
	r.pos, r.marks = r.cursor, nil
	return back
}

// Forget makes the next page begin at what the database says: another
// controller may have moved the cursor.
func (r *Reader) Forget() { r.loaded = false }

// Cursor is the LSN that a restart begins after.
func (r *Reader) Cursor() uint64 { return r.cursor }

// Position is the LSN up to which everything was confirmed.
func (r *Reader) Position() uint64 { return r.pos }
