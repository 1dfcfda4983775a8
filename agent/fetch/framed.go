package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"syscall"

	"github.com/hashicorp/go-retryablehttp"
	"golang.org/x/sys/unix"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/deviceapi"
	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/models"
)

// runFrames is how many frames one request asks for: 16 MiB.
const runFrames = 16

// framed downloads a file in frames, in any order, and moves it to its final
// name after its digest has been read back from disk.
func (f *Fetcher) framed(ctx context.Context, file models.File, progress func(done, total int64)) error {
	frames, err := f.frames(ctx, file)
	if err != nil {
		return err
	}
	path := f.opts.Blobs.StagePath(file.Digest)
	for again := false; ; again = true {
		missed, err := f.complete(ctx, file, frames, progress)
		if err == nil {
			err = f.opts.Blobs.Adopt(path, file.Digest)
		}
		switch {
		case err == nil:
			f.keep(file.Digest, frames)
			return durable.Remove(f.opts.Blobs.FramesPath(file.Digest))
		case !f.spent(err):
			return err
		case errors.Is(err, blob.ErrMismatch) && missed && !again:
			// The disk may have given back other bytes than it was given.
			f.log.Warn("a complete download is damaged, looking at its frames again", "digest", file.Digest, "err", err)
		default:
			return errors.Join(err, f.opts.Blobs.Unstage(file.Digest))
		}
	}
}

// complete makes every frame be there. missed tells that some were not.
func (f *Fetcher) complete(ctx context.Context, file models.File, frames blob.Frames, progress func(done, total int64)) (missed bool, err error) {
	stage, err := os.OpenFile(f.opts.Blobs.StagePath(file.Digest), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return false, fmt.Errorf("open stage file: %w", err)
	}
	defer stage.Close()
	if err := f.reserve(stage, file.SizeBytes); err != nil {
		return false, err
	}
	p, err := openPart(ctx, stage, frames, holesOf(stage))
	if err != nil {
		return false, err
	}
	defer p.end()
	if p.done == file.SizeBytes {
		return false, nil
	}
	p.progress = progress
	f.show(file.Digest, p)
	defer f.show(file.Digest, nil)
	return true, f.fill(ctx, file, p)
}

// fill fetches the missing frames: from peers, else over the line if it is this
// box that does so for its site.
func (f *Fetcher) fill(ctx context.Context, file models.File, p *part) error {
	l := &load{f: f, file: file, part: p}
	defer func() { l.open.close() }()
	if f.opts.Peers == nil || local(ctx) {
		return f.insist(ctx, file.Digest, p.reached, func(ctx context.Context) (bool, error) { return l.line(ctx, packFrames) })
	}
	s := newShare(l)
	defer s.leave(ctx)
	return f.insist(ctx, file.Digest, p.reached, s.attempt)
}

// load is what comes over the line: by the smallest pack that works, else as it
// is.
type load struct {
	f     *Fetcher
	file  models.File
	part  *part
	asked bool // for packs
	packs []deviceapi.Pack
	open  *pack // of packs[0]
}

// line fetches the next run of missing frames, most of them at most.
func (l *load) line(ctx context.Context, most int) (finished bool, err error) {
	if !l.asked {
		l.packs, l.asked = l.f.packs(ctx, l.file), true
	}
	if len(l.packs) == 0 {
		first, end := l.part.gap(min(most, runFrames))
		if first == end {
			return true, nil
		}
		return false, l.f.pull(ctx, l.file.Digest, l.part, first, end)
	}
	first, end := l.part.gap(min(most, packFrames))
	if first == end {
		return true, nil
	}
	if l.open == nil {
		l.open, err = l.f.openPack(ctx, l.file, l.packs[0])
	}
	if err == nil {
		err = l.f.unpack(ctx, l.open, l.part, first, end)
	}
	if errors.Is(err, errPack) {
		l.f.log.Warn("pack left, taking another way", "digest", l.file.Digest, "base", l.packs[0].Base, "err", err)
		l.open.close()
		l.open, l.packs, err = nil, l.packs[1:], nil
	}
	return false, err
}

// reserve gives the stage file its length and its room, before the first byte.
func (f *Fetcher) reserve(stage *os.File, size int64) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(stage.Fd()), &st); err != nil {
		return fmt.Errorf("look at stage file: %w", err)
	}
	if lacks := size - min(size, st.Blocks*512); lacks > 0 { // else it has its room
		if err := f.budget(lacks); err != nil {
			return err
		}
	}
	if err := stage.Truncate(size); err != nil {
		if errors.Is(err, syscall.EFBIG) {
			return fmt.Errorf("this disk takes no file of %d bytes: %w: %w", size, blob.ErrTooLarge, err)
		}
		return fmt.Errorf("make stage file of %d bytes: %w", size, err)
	}
	// Not every filesystem can promise room; then a full disk shows later.
	err := unix.Fallocate(int(stage.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, size)
	if full := fullness(err); full != nil {
		return fmt.Errorf("%s has no room for %s: %w: %w", f.opts.Blobs.Dir(), sized(size), full, err)
	}
	return nil
}

// frames gets the list of a file's frames: from the stage, or from the server.
func (f *Fetcher) frames(ctx context.Context, file models.File) (blob.Frames, error) {
	path := f.opts.Blobs.FramesPath(file.Digest)
	data, err := os.ReadFile(path)
	if err != nil || blob.Sum(data) != file.Frames {
		if data, err = f.document(ctx, f.url(file.Frames), blob.EncodedBytes(file.SizeBytes)); err != nil {
			return blob.Frames{}, fmt.Errorf("list of frames %s: %w", file.Frames.Short(), err)
		}
		if blob.Sum(data) != file.Frames {
			return blob.Frames{}, fmt.Errorf("list of frames %s: %w", file.Frames.Short(), blob.ErrMismatch)
		}
		if err := durable.WriteFile(path, data, 0o644); err != nil {
			if full := fullness(err); full != nil {
				err = fmt.Errorf("%w: %w", full, err)
			}
			return blob.Frames{}, fmt.Errorf("keep list of frames: %w", err)
		}
	}
	frames, err := blob.DecodeFrames(data)
	if err == nil && frames.Size != file.SizeBytes {
		err = fmt.Errorf("it is of a file of %d bytes, not of %d", frames.Size, file.SizeBytes)
	}
	if err != nil {
		return blob.Frames{}, fmt.Errorf("list of frames %s: %w: %w", file.Frames.Short(), err, blob.ErrMismatch)
	}
	return frames, nil
}

// document gets a small answer, of at most limit bytes. It does not wait for the
// gate: so few bytes matter to no line.
func (f *Fetcher) document(ctx context.Context, url string, limit int64) (data []byte, err error) {
	err = f.insist(ctx, blob.Digest{}, func() int64 { return 0 }, func(ctx context.Context) (bool, error) {
		data, err = f.ask(ctx, http.MethodGet, url, nil, limit)
		return err == nil, err
	})
	return data, err
}

// ask makes one request for a small answer.
func (f *Fetcher) ask(ctx context.Context, method, url string, body []byte, limit int64) ([]byte, error) {
	var raw any // a typed nil would be a body
	if body != nil {
		raw = body
	}
	req, err := retryablehttp.NewRequestWithContext(ctx, method, url, raw)
	if err != nil {
		return nil, err
	}
	resp, err := f.retry.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound, http.StatusGone:
		return nil, ErrNotFound
	default:
		return nil, fmt.Errorf("server answers %s", resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, again("read answer", err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("the answer is longer than %d bytes: %w", limit, blob.ErrMismatch)
	}
	return data, nil
}

// pull asks for a run of frames and takes those that are right.
func (f *Fetcher) pull(ctx context.Context, d blob.Digest, p *part, first, end int) error {
	from, _ := p.frames.Span(first)
	last, n := p.frames.Span(end - 1)
	body, err := f.open(ctx, span{d, p.frames.Size, from, last + int64(n)})
	if err != nil {
		return err
	}
	defer body.Close()
	var wrong error
	for i := first; i < end; i++ {
		_, n := p.frames.Span(i)
		if _, err := io.ReadFull(body, p.buf[:n]); err != nil {
			return errors.Join(again(fmt.Sprintf("read frame %d", i), err), wrong)
		}
		err := p.put(i, p.buf[:n])
		if errors.Is(err, errFrame) {
			// The others of the run are on their way already. The next try asks the
			// controller.
			f.forget(d, f.opts.Direct != nil)
			err, wrong = nil, p.reject(i, err)
		}
		if err != nil {
			return err
		}
	}
	return wrong
}

// again marks an error of a connection as one that may pass.
func again(doing string, err error) error {
	if errors.Is(err, errClosed) || errors.Is(err, blob.ErrNoRoom) {
		return err
	}
	return fmt.Errorf("%w: %s: %w", errAgain, doing, err)
}

// span is a range of a blob at the server: from up to, not with, to.
type span struct {
	d        blob.Digest
	size     int64
	from, to int64
}

// open asks for a range of a blob. The body it returns is that range, or it ends
// early.
func (f *Fetcher) open(ctx context.Context, s span) (io.ReadCloser, error) {
	if err := f.gate.wait(ctx); err != nil {
		return nil, err
	}
	if body, ok := f.direct(ctx, s); ok {
		return body, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	req, err := retryablehttp.NewRequestWithContext(ctx, http.MethodGet, f.url(s.d), nil)
	if err != nil {
		cancel()
		return nil, err
	}
	req.Header.Set("Accept-Encoding", "identity") // a compressed body has other offsets
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", s.from, s.to-1))
	req.Header.Set("If-Range", etags(s.d)[0])
	resp, err := f.retry.Do(req)
	if err != nil {
		cancel()
		return nil, err // retryablehttp has tried often enough
	}
	body := &ranged{Reader: io.LimitReader(f.metered(ctx, resp.Body), s.to-s.from), body: resp.Body, cancel: cancel}
	if err := s.check(resp); err != nil {
		body.Close()
		return nil, err
	}
	return body, nil
}

type ranged struct {
	io.Reader
	body   io.Closer
	cancel context.CancelFunc
}

func (r *ranged) Close() error {
	r.cancel() // what is still on its way is not waited for
	return r.body.Close()
}

// check compares what the server says with what was asked for.
func (s span) check(resp *http.Response) error {
	switch resp.StatusCode {
	case http.StatusOK, http.StatusPartialContent:
	case http.StatusNotFound, http.StatusGone:
		return ErrNotFound
	case http.StatusRequestedRangeNotSatisfiable:
		return fmt.Errorf("server has no byte %d of the blob's %d: %w", s.from, s.size, blob.ErrMismatch)
	default:
		return fmt.Errorf("server answers %s", resp.Status)
	}
	if enc := resp.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		return fmt.Errorf("server sends the blob with Content-Encoding %q though identity was asked for", enc)
	}
	if err := checkETag(s.d, resp.Header.Get("ETag")); err != nil {
		return err
	}
	if resp.StatusCode == http.StatusOK {
		if resp.ContentLength >= 0 && resp.ContentLength != s.size {
			return fmt.Errorf("server's blob has %d bytes, want %d: %w", resp.ContentLength, s.size, blob.ErrMismatch)
		}
		if s.from > 0 {
			return fmt.Errorf("server sends the whole blob though bytes %d to %d were asked for: it must serve ranges", s.from, s.to-1)
		}
		return nil
	}
	header := resp.Header.Get("Content-Range")
	first, last, total, err := parseContentRange(header)
	switch {
	case err != nil:
		return err
	case total >= 0 && total != s.size:
		return fmt.Errorf("server's blob has %d bytes, want %d: %w", total, s.size, blob.ErrMismatch)
	case first != s.from || last >= s.to:
		return fmt.Errorf("server sends range %q, asked for bytes %d to %d", header, s.from, s.to-1)
	case resp.ContentLength >= 0 && resp.ContentLength != last-first+1:
		return fmt.Errorf("server sends %d bytes for range %q", resp.ContentLength, header)
	}
	return nil
}
