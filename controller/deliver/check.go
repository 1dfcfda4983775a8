package deliver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync"
	"syscall"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/models/wdelta"
)

// A pack may have become useless where it lies: made by an older version of this
// program in another format, gone from the disk, or damaged there. Boxes take the next
// best way then, and would do so for ever. So each pack is tried once after a start, as
// a box would, and made again if it is of no use.

// checkFrames of a pack are made, spread over it; all of a small one.
const checkFrames = 64

// check tries the packs that were not tried since the start, until one is of no use or
// there is other work. again says that one is to be made again.
func (p *Packer) check(ctx context.Context) (again bool, err error) {
	packs, err := p.opts.Store.ReadyPacks(ctx)
	if err != nil {
		return false, err
	}
	var unread []error
	for _, pack := range packs {
		if p.tried[pack.Digest] {
			continue
		}
		why := p.try(ctx, pack)
		switch {
		case ctx.Err() != nil || len(p.wake) > 0:
			return false, nil
		case errors.Is(why, syscall.EIO): // for a moment, or for good: the others are tried
			unread = append(unread, fmt.Errorf("pack of %s: %w", pack.Target.Short(), why))
			continue
		case why != nil && !useless(why):
			return false, why // a bucket that is away, say
		case why == nil:
			p.tried[pack.Digest] = true
			continue
		}
		id := pair{pack.Target, pack.Base}
		again, p.remade[id] = !p.remade[id], true
		p.log.Warn("pack is of no use to boxes", "digest", pack.Target, "again", again, "err", why)
		if again {
			err = p.opts.Store.WantPackAgain(ctx, pack)
		} else { // what this version makes it cannot read
			err = p.opts.Store.PutPack(ctx, store.Pack{Target: pack.Target, Base: pack.Base, State: store.PackFailed, Why: "boxes could not use it: " + why.Error()})
		}
		if err != nil {
			return false, err
		}
		return again, errors.Join(p.opts.Blobs.Delete(pack.Digest), p.opts.Blobs.Delete(pack.Index))
	}
	return false, errors.Join(unread...)
}

// pair names a pack, whatever its bytes.
type pair struct{ target, base blob.Digest }

// errUseless marks a pack that is not what its row says.
var errUseless = errors.New("it is another pack")

func useless(err error) bool {
	return slices.ContainsFunc([]error{errUseless, fs.ErrNotExist, wdelta.ErrFormat, wdelta.ErrCorrupt, wdelta.ErrTruncated, wdelta.ErrBase},
		func(e error) bool { return errors.Is(err, e) })
}

// try says why a box could not use a pack. A base that is not here any more cannot be
// tried; boxes may have it.
func (p *Packer) try(ctx context.Context, pack store.Pack) error {
	index, err := p.stream(pack.Index)
	if err != nil {
		return fmt.Errorf("its index: %w", err)
	}
	defer index.Close()
	ix, err := wdelta.ReadIndex(io.NewSectionReader(index, 0, index.Size()))
	if err != nil {
		return err
	}
	if h := ix.Header; h.Target != pack.Target || h.Base != pack.Base {
		return fmt.Errorf("%w: it makes %s of %s", errUseless, h.Target.Short(), h.Base.Short())
	}
	wire, err := p.stream(pack.Digest)
	if err != nil {
		return err
	}
	defer wire.Close()
	if wire.Size() != pack.SizeBytes || index.Size() != pack.IndexBytes {
		return fmt.Errorf("%w: it has %d bytes and an index of %d, not %d and %d", errUseless, wire.Size(), index.Size(), pack.SizeBytes, pack.IndexBytes)
	}
	var base wdelta.Source
	if !pack.Base.IsZero() {
		file, err := p.stream(pack.Base)
		if err != nil {
			return nil
		}
		defer file.Close()
		base = file
	}
	dec, err := wdelta.NewDecoder(ix.Header, base)
	if err != nil {
		return p.blame(pack, err)
	}
	defer dec.Close()
	for i, step := 0, max(1, len(ix.Frames)/checkFrames); i < len(ix.Frames) && ctx.Err() == nil; i += step {
		f := ix.Frames[i]
		payload := make([]byte, f.WireLen)
		if _, err := wire.ReadAt(payload, f.WireOff); err != nil {
			return fmt.Errorf("read frame at byte %d: %w", f.WireOff, err)
		}
		if _, err := dec.Frame(f, payload); err != nil {
			return p.blame(pack, err)
		}
	}
	return nil
}

// blame is what speaks against a pack of what its decoder met: not that the base is
// damaged here.
func (p *Packer) blame(pack store.Pack, err error) error {
	if errors.Is(err, wdelta.ErrBase) || errors.Is(err, syscall.EIO) {
		if _, bad := p.opts.Blobs.Verify(pack.Base); bad != nil {
			return nil
		}
	}
	return err
}

// streamed is a blob at any place, wherever it is kept: one in a bucket is not fetched
// whole for some frames.
type streamed struct {
	size int64

	mu sync.Mutex // guards r
	r  io.ReadSeekCloser
}

func (p *Packer) stream(d blob.Digest) (*streamed, error) {
	r, err := p.opts.Blobs.Stream(d)
	if err != nil {
		return nil, err
	}
	size, err := r.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return &streamed{size: size, r: r}, nil
}

func (s *streamed) Size() int64 { return s.size }

func (s *streamed) Close() error { return s.r.Close() }

func (s *streamed) ReadAt(b []byte, off int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.r.Seek(off, io.SeekStart); err != nil {
		return 0, err
	}
	n, err := io.ReadFull(s.r, b)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}
