package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-retryablehttp"
	"golang.org/x/sys/unix"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/models"
)

// errAgain marks an attempt that failed in a way that the next may not.
var errAgain = errors.New("interrupted")

// transfer is one download in progress.
type transfer struct {
	f        *Fetcher
	d        blob.Digest
	file     *os.File
	done     int64 // bytes in file
	total    int64 // -1 until known
	unsynced int64
	etag     string // for If-Range
	budgeted bool
	progress func(done, total int64)
}

// etags are the strong entity tags that name a blob.
func etags(d blob.Digest) []string { return []string{`"` + d.String() + `"`, `"` + d.Hex() + `"`} }

// run asks for what is missing until nothing is.
func (t *transfer) run(ctx context.Context) error {
	if t.total >= 0 {
		if err := t.budget(); err != nil {
			return err
		}
	}
	return t.f.insist(ctx, t.d, func() int64 { return t.done }, func(ctx context.Context) (bool, error) {
		if t.total >= 0 && t.done >= t.total {
			return true, nil
		}
		if err := t.f.gate.wait(ctx); err != nil {
			return false, err
		}
		return t.attempt(ctx)
	})
}

// insist repeats an attempt until it says that it has finished. It gives up on
// errors that will not pass and after too many attempts that brought nothing.
func (f *Fetcher) insist(ctx context.Context, d blob.Digest, done func() int64, attempt func(context.Context) (finished bool, err error)) error {
	for idle := 0; ; {
		before := done()
		finished, err := attempt(ctx)
		switch {
		case finished:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil || errors.Is(err, errClosed):
			continue
		case !errors.Is(err, errAgain) || errors.Is(err, blob.ErrMismatch):
			return err
		}
		if done() > before {
			idle = 0
		}
		if idle++; idle > f.opts.Attempts {
			return fmt.Errorf("gave up after %d attempts without progress at byte %d: %w", idle, done(), err)
		}
		f.log.Debug("download interrupted", "digest", d, "done", done(), "err", err)
		if err := sleep(ctx, f.backoff(idle-1, nil)); err != nil {
			return err
		}
	}
}

// attempt makes one request and takes what it delivers. It reports finished
// only for a body of unknown length that ended in good order.
func (t *transfer) attempt(ctx context.Context) (finished bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req, err := retryablehttp.NewRequestWithContext(ctx, http.MethodGet, t.f.url(t.d), nil)
	if err != nil {
		return false, err
	}
	// A compressed body has other offsets.
	req.Header.Set("Accept-Encoding", "identity")
	if t.done > 0 {
		req.Header.Set("Range", "bytes="+strconv.FormatInt(t.done, 10)+"-")
		req.Header.Set("If-Range", t.etag)
	}
	resp, err := t.f.retry.Do(req)
	if err != nil {
		return false, err // retryablehttp has tried often enough
	}
	defer resp.Body.Close()
	length, err := t.accept(resp)
	if err != nil {
		return false, err
	}
	if err := t.budget(); err != nil {
		return false, err
	}
	return t.copy(ctx, resp.Body, length)
}

// accept checks the answer's head, moves to the offset it starts at, and
// returns how many bytes follow, or -1 when the server does not say.
func (t *transfer) accept(resp *http.Response) (length int64, err error) {
	switch resp.StatusCode {
	case http.StatusOK, http.StatusPartialContent:
	case http.StatusNotFound, http.StatusGone:
		return 0, ErrNotFound
	case http.StatusRequestedRangeNotSatisfiable:
		// The part is longer than the blob, so it is not a part of it.
		return 0, errors.Join(t.restart(), fmt.Errorf("%w: server has no byte %d", errAgain, t.done))
	default:
		return 0, fmt.Errorf("server answers %s", resp.Status)
	}
	if enc := resp.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		return 0, fmt.Errorf("server sends the blob with Content-Encoding %q though identity was asked for", enc)
	}
	tag := resp.Header.Get("ETag")
	if err := checkETag(t.d, tag); err != nil {
		return 0, err
	}
	if resp.StatusCode == http.StatusPartialContent {
		return t.acceptRange(resp)
	}
	if t.done > 0 {
		if tag != "" && tag != t.etag && !strings.HasPrefix(tag, "W/") {
			// The same content under its other spelling: ask again rather
			// than fetch what is here already.
			t.etag = tag
			return 0, fmt.Errorf("%w: server calls the blob %s", errAgain, tag)
		}
		if err := t.restart(); err != nil {
			return 0, err
		}
	}
	if resp.ContentLength >= 0 {
		err = t.setTotal(resp.ContentLength)
	}
	return resp.ContentLength, err
}

// checkETag refuses an answer that is about another blob.
func checkETag(d blob.Digest, tag string) error {
	if tag == "" || strings.HasPrefix(tag, "W/") {
		return nil // says nothing; the digest is checked at the end anyway
	}
	for _, want := range etags(d) {
		if tag == want {
			return nil
		}
	}
	return fmt.Errorf("server answers with another blob, %s: %w", tag, blob.ErrMismatch)
}

func (t *transfer) acceptRange(resp *http.Response) (int64, error) {
	header := resp.Header.Get("Content-Range")
	first, last, total, err := parseContentRange(header)
	if err != nil {
		return 0, err
	}
	if t.done == 0 || first != t.done {
		return 0, fmt.Errorf("server sends range %q, asked for byte %d onwards", header, t.done)
	}
	if total >= 0 {
		if err := t.setTotal(total); err != nil {
			return 0, err
		}
	}
	length := last - first + 1
	if resp.ContentLength >= 0 && resp.ContentLength != length {
		return 0, fmt.Errorf("server sends %d bytes for range %q", resp.ContentLength, header)
	}
	return length, nil
}

// parseContentRange reads "bytes first-last/total"; total is -1 for "*".
func parseContentRange(s string) (first, last, total int64, err error) {
	rest, ok := strings.CutPrefix(s, "bytes ")
	span, size, ok2 := strings.Cut(rest, "/")
	from, to, ok3 := strings.Cut(span, "-")
	if !ok || !ok2 || !ok3 {
		return 0, 0, 0, fmt.Errorf("server sends Content-Range %q, which is not a range", s)
	}
	total = -1
	var errs [3]error
	first, errs[0] = strconv.ParseInt(from, 10, 64)
	last, errs[1] = strconv.ParseInt(to, 10, 64)
	if size != "*" {
		total, errs[2] = strconv.ParseInt(size, 10, 64)
	}
	if errors.Join(errs[:]...) != nil || first < 0 || last < first || total >= 0 && last >= total {
		return 0, 0, 0, fmt.Errorf("server sends Content-Range %q, which is not a range", s)
	}
	return first, last, total, nil
}

// setTotal learns the length, or compares it with what is known.
func (t *transfer) setTotal(n int64) error {
	switch {
	case t.total >= 0 && n != t.total:
		return fmt.Errorf("server's blob has %d bytes, want %d: %w", n, t.total, blob.ErrMismatch)
	case n > t.f.opts.MaxBytes:
		return fmt.Errorf("%d bytes are more than the limit of %d: %w", n, t.f.opts.MaxBytes, blob.ErrTooLarge)
	}
	t.total = n
	return nil
}

// restart throws the bytes so far away.
func (t *transfer) restart() error {
	t.done, t.unsynced = 0, 0
	if err := t.file.Truncate(0); err != nil {
		return fmt.Errorf("empty stage file: %w", err)
	}
	return nil
}

// budget compares what is still to come with the disk, once per transfer.
func (t *transfer) budget() error {
	if t.budgeted || t.total >= 0 && t.done >= t.total {
		return nil
	}
	// An unknown length needs at least the reserve; copy watches the rest.
	if err := t.f.budget(max(t.total-t.done, 0)); err != nil {
		return err
	}
	t.budgeted = true
	return nil
}

// Room checks that the disk takes all that is still to come of some files, before the
// first byte of any: a version of which half fits is of no use, and keeps the room
// from what else the box has to store. What lies there already is not counted.
func (f *Fetcher) Room(files []models.File) error {
	var n int64
	lacks := map[blob.Digest]int64{}
	for _, file := range files {
		if lacks[file.Digest] > 0 || f.opts.Blobs.Has(file.Digest) {
			continue
		}
		if file.SizeBytes > f.opts.MaxBytes {
			return nil // File refuses it: no room would be enough
		}
		var st unix.Stat_t
		err := unix.Stat(f.opts.Blobs.StagePath(file.Digest), &st)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("look at stage file: %w", err)
		}
		if more := file.SizeBytes - st.Blocks*512; more > 0 {
			lacks[file.Digest] = more
			n += more
		}
	}
	if n == 0 {
		return nil
	}
	err := f.budget(n)
	if f.spent(err) {
		for d := range lacks {
			err = errors.Join(err, f.opts.Blobs.Unstage(d))
		}
	}
	return err
}

// budget checks that the disk has room for n more bytes.
func (f *Fetcher) budget(n int64) error {
	dir := f.opts.Blobs.Dir()
	free, err := f.opts.FreeBytes(dir)
	if err != nil {
		return err
	}
	if free < n+f.opts.MinFreeBytes {
		return fmt.Errorf("%w: it needs %s and leaves %s free, but %s has %s; make room there, or lower min_free_bytes of agent.yaml",
			blob.ErrNoRoom, sized(n), sized(f.opts.MinFreeBytes), dir, sized(free))
	}
	return nil
}

// sized spells bytes.
func sized(n int64) string {
	if n < 1e6 {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%.0f MB", float64(n)/1e6)
}

// fullness is what an error of a write means if it is one of room; else nil.
func fullness(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return blob.ErrNoRoom
	case errors.Is(err, syscall.EFBIG):
		return blob.ErrTooLarge
	}
	return nil
}

func (t *transfer) copy(ctx context.Context, body io.Reader, length int64) (finished bool, err error) {
	buf := make([]byte, chunkBytes)
	for got := int64(0); length < 0 || got < length; {
		want := int64(len(buf))
		if length >= 0 {
			want = min(want, length-got)
		}
		n, rerr := body.Read(buf[:want])
		if n > 0 {
			got += int64(n)
			if err := t.write(ctx, buf[:n]); err != nil {
				return false, err
			}
		}
		if rerr == io.EOF && length < 0 {
			return t.total < 0 || t.done == t.total, fmt.Errorf("%w: body ended at byte %d", errAgain, t.done)
		}
		if rerr != nil && (length < 0 || got < length) {
			return false, fmt.Errorf("%w: read body at byte %d: %w", errAgain, t.done, rerr)
		}
	}
	if t.total < 0 || t.done < t.total {
		return false, fmt.Errorf("%w: server sent a shorter range than asked for", errAgain)
	}
	return true, nil
}

// write appends to the stage file at the permitted rate.
func (t *transfer) write(ctx context.Context, p []byte) error {
	if limit := t.f.opts.MaxBytes; t.done+int64(len(p)) > limit {
		return fmt.Errorf("body is longer than the limit of %d bytes: %w", limit, blob.ErrTooLarge)
	}
	if end := t.done + int64(len(p)); t.total >= 0 && end > t.total {
		return fmt.Errorf("body goes on to byte %d, want %d: %w", end, t.total, blob.ErrMismatch)
	}
	if err := t.f.gate.take(ctx, len(p)); err != nil {
		return err
	}
	n, err := t.file.WriteAt(p, t.done)
	t.done += int64(n)
	t.unsynced += int64(n)
	if err == nil && t.unsynced >= syncBytes {
		t.unsynced, err = 0, t.file.Sync()
	}
	if full := fullness(err); full != nil {
		return fmt.Errorf("disk is full at byte %d of %d: %w: %w", t.done, t.total, full, err)
	}
	if err != nil {
		return fmt.Errorf("write stage file: %w", err)
	}
	t.progress(t.done, max(t.total, 0))
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
