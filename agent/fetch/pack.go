package fetch

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sort"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/deviceapi"
	"github.com/edgeherd/edgeherd/models"
	"github.com/edgeherd/edgeherd/models/wdelta"
)

// packFrames is how many frames of a file one request for a pack makes: a pack
// has a fraction of the bytes.
const packFrames = 4 * runFrames

// packWait bounds the wait for a pack that is being made: after that, what is
// there is taken.
const packWait = 10 * time.Minute

// errPack says that a pack is of no use, whatever the reason: another way is
// taken.
var errPack = errors.New("the pack is of no use")

// pack is a way of fewer bytes, open for use. What it makes is checked frame by
// frame, as what comes over the line itself.
type pack struct {
	deviceapi.Pack
	index   wdelta.Index
	decoder *wdelta.Decoder
	base    *os.File // nil: it needs none
	faults  int
	payload []byte
}

func (k *pack) close() {
	if k == nil {
		return
	}
	k.decoder.Close()
	if k.base != nil {
		_ = k.base.Close() // it was only read
	}
}

// packs are the packs of a file that this box can use, the smallest first. A
// server that knows none, or cannot say, costs nothing but bytes.
func (f *Fetcher) packs(ctx context.Context, file models.File) []deviceapi.Pack {
	var ways deviceapi.Ways
	for end := time.Now().Add(packWait); ; {
		data, err := f.document(ctx, f.url(file.Digest)+"/ways", deviceapi.MaxWaysBytes)
		if err == nil {
			ways = deviceapi.Ways{}
			err = json.Unmarshal(data, &ways)
		}
		if err != nil {
			if !errors.Is(err, ErrNotFound) && ctx.Err() == nil {
				f.log.Info("ways of a file are not known, taking it as it is", "digest", file.Digest, "err", err)
			}
			return nil
		}
		pause := min(time.Duration(ways.WaitMs)*time.Millisecond, time.Minute)
		if pause <= 0 || time.Now().Add(pause).After(end) || sleep(ctx, pause) != nil {
			break
		}
	}
	usable := slices.DeleteFunc(ways.Packs, func(p deviceapi.Pack) bool {
		return p.SizeBytes <= 0 || p.IndexBytes <= 0 || p.SizeBytes+p.IndexBytes >= file.SizeBytes || !p.Base.IsZero() && !f.opts.Blobs.Has(p.Base)
	})
	slices.SortFunc(usable, func(a, b deviceapi.Pack) int { return cmp.Compare(a.SizeBytes, b.SizeBytes) })
	return usable
}

// openPack gets the index of a pack and opens its base.
func (f *Fetcher) openPack(ctx context.Context, file models.File, p deviceapi.Pack) (_ *pack, err error) {
	data, err := f.document(ctx, f.url(p.Index), p.IndexBytes)
	if err != nil {
		return nil, fmt.Errorf("%w: its index: %w", errPack, err)
	}
	if blob.Sum(data) != p.Index {
		return nil, fmt.Errorf("%w: its index: %w", errPack, blob.ErrMismatch)
	}
	k := &pack{Pack: p}
	if k.index, err = wdelta.ReadIndex(bytes.NewReader(data)); err != nil {
		return nil, fmt.Errorf("%w: %w", errPack, err)
	}
	if h := k.index.Header; h.Target != file.Digest || h.TargetSize != file.SizeBytes || h.Base != p.Base {
		return nil, fmt.Errorf("%w: it makes %s of %s", errPack, h.Target.Short(), h.Base.Short())
	}
	var base wdelta.Source
	if !p.Base.IsZero() {
		if k.base, err = f.opts.Blobs.Get(p.Base); err != nil {
			return nil, fmt.Errorf("%w: its base: %w", errPack, err)
		}
		info, err := k.base.Stat()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%w: its base: %w", errPack, err), k.base.Close())
		}
		base = io.NewSectionReader(k.base, 0, info.Size())
	}
	if k.decoder, err = wdelta.NewDecoder(k.index.Header, base); err != nil {
		if k.base != nil {
			err = errors.Join(err, k.base.Close())
		}
		return nil, fmt.Errorf("%w: %w", errPack, err)
	}
	return k, nil
}

// frames are the frames of the pack that make bytes from up to to of the file.
func (k *pack) frames(from, to int64) []wdelta.Frame {
	all := k.index.Frames
	first := sort.Search(len(all), func(i int) bool { return all[i].Off+int64(all[i].Len) > from })
	end := sort.Search(len(all), func(i int) bool { return all[i].Off >= to })
	return all[first:end]
}

// unpack asks for what makes a run of frames, and makes them.
func (f *Fetcher) unpack(ctx context.Context, k *pack, p *part, first, end int) error {
	from, _ := p.frames.Span(first)
	last, n := p.frames.Span(end - 1)
	frames := k.frames(from, last+int64(n))
	if len(frames) == 0 {
		return fmt.Errorf("%w: it makes nothing of byte %d", errPack, from)
	}
	tail := frames[len(frames)-1]
	at := frames[0].WireOff
	body, err := f.open(ctx, span{k.Digest, k.SizeBytes, at, tail.WireOff + int64(tail.WireLen)})
	if err != nil {
		if errors.Is(err, ErrNotFound) || errors.Is(err, blob.ErrMismatch) {
			err = fmt.Errorf("%w: %w", errPack, err)
		}
		return err
	}
	defer body.Close()
	in := joiner{part: p, next: first, end: end}
	for _, fr := range frames {
		k.payload = slices.Grow(k.payload[:0], fr.WireLen)[:fr.WireLen]
		if _, err := io.CopyN(io.Discard, body, fr.WireOff-at); err != nil {
			return again("read pack", err)
		}
		if _, err := io.ReadFull(body, k.payload); err != nil {
			return again("read pack", err)
		}
		at = fr.WireOff + int64(fr.WireLen)
		out, err := k.decoder.Frame(fr, k.payload)
		if err != nil {
			if k.faults++; errors.Is(err, wdelta.ErrBase) || k.faults >= maxBad {
				return fmt.Errorf("%w: %w", errPack, err)
			}
			return fmt.Errorf("%w: %w", errAgain, err)
		}
		if err := in.add(fr.Off, out); err != nil {
			return err
		}
	}
	if in.next < end {
		return fmt.Errorf("%w: it ends before frame %d", errPack, in.next)
	}
	return nil
}

// joiner cuts what a pack makes, which comes in order, into the frames of a part.
type joiner struct {
	part      *part
	next, end int // the frame that is being filled, and where the run ends
	filled    int
}

func (j *joiner) add(off int64, data []byte) error {
	for len(data) > 0 && j.next < j.end {
		start, n := j.part.frames.Span(j.next)
		skip := start + int64(j.filled) - off
		if skip < 0 {
			return fmt.Errorf("%w: it leaves out bytes before %d", errPack, off)
		}
		if skip >= int64(len(data)) {
			return nil
		}
		took := copy(j.part.buf[j.filled:n], data[skip:])
		data, off, j.filled = data[skip+int64(took):], off+skip+int64(took), j.filled+took
		if j.filled < n {
			continue
		}
		if err := j.part.put(j.next, j.part.buf[:n]); errors.Is(err, errFrame) {
			return fmt.Errorf("%w: %w", errPack, err) // its maker did not make the signed file
		} else if err != nil {
			return err
		}
		j.next, j.filled = j.next+1, 0
	}
	return nil
}
