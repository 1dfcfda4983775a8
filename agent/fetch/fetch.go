// Package fetch downloads blobs over thin and broken links.
//
// A blob is named by its digest, so a download may stop anywhere and go on
// later, against the same server or another. A file of a model comes in frames
// of 1 MiB (blob.Frames), whose digests are signed with the manifest: the stage
// file has its full length and its room from the start, only right frames are
// written into it, and after a stop its own bytes tell which are there. Small
// files, and those without a list of frames, come from the first byte to the
// last. Either way a file gets its final name only after its digest has been
// read back from disk, and there is nothing to repair after a power cut.
//
// A server is believed in nothing: what it calls the blob, how long it says
// the blob is and which range it sends are compared with what was asked for,
// and it cannot send the box to another host. The disk budget is checked
// before the first byte: a full disk would cost telemetry. Rates, quiet times
// and a budget of bytes a month hold for all downloads together.
//
// The one rule a caller can break: a digest that ended in blob.ErrMismatch is
// wrong at the server; remember it and do not ask again and again.
package fetch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-retryablehttp"
	"golang.org/x/sys/unix"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/models"
)

// ErrNotFound says that the server does not have the blob.
var ErrNotFound = errors.New("server does not have the blob")

var errRedirect = errors.New("server redirects")

// Options configure a Fetcher.
type Options struct {
	// Blobs takes the downloads. Required.
	Blobs *blob.Store
	// Client makes the connections; its TLS configuration says whom to trust.
	// Its redirect policy is replaced. Required.
	Client *http.Client
	// BaseURL is the server, https://host:port. Required.
	BaseURL string
	// RateBytesPerSec bounds all downloads together; 0 is no bound.
	RateBytesPerSec int64
	// MonthBytes bounds what all downloads of a calendar month (UTC) may take,
	// for lines that are paid by volume; 0 is no bound. Ledger is where it is
	// counted, required with it.
	MonthBytes int64
	Ledger     string
	// WallClock tells the month; nil means time.Now.
	WallClock func() time.Time
	// Peers shares frames with the other boxes of the site; nil: every box fetches
	// for itself.
	Peers Peers
	// Shunned hears of a peer that gave wrong frames of a file and is left alone until
	// then; nil: nobody does.
	Shunned func(peer identity.ID, d blob.Digest, until time.Time)
	// Direct makes connections to other places that the server names for a blob, such
	// as a bucket; without a certificate of the box. nil: all comes from the server.
	Direct *http.Client
	// MaxBytes is the largest blob that is accepted; default 128 GiB, the most that
	// a list of frames can tell of.
	MaxBytes int64
	// MinFreeBytes stay free on the disk; default 1 GiB.
	MinFreeBytes int64
	// Attempts in a row without a new byte before Blob gives up; default 8.
	Attempts int
	// BackoffMax bounds the random wait between attempts; default 1 minute.
	BackoffMax time.Duration
	// Stall is how long a connection may deliver nothing; default 1 minute.
	Stall time.Duration
	// FreeBytes says how much an unprivileged program may still write to the
	// disk that holds a directory; default statfs.
	FreeBytes func(dir string) (int64, error)
}

const (
	backoffMin   = 500 * time.Millisecond
	retryWaitMax = 15 * time.Minute // the longest Retry-After that is obeyed
	refuseMin    = time.Minute      // before wrong content is asked for again,
	refuseMax    = 6 * time.Hour    // doubled each time up to this
	chunkBytes   = 32 << 10         // read, rate and progress step
	syncBytes    = 32 << 20         // a power cut costs at most this much
)

// A Fetcher downloads blobs. Safe for concurrent use.
type Fetcher struct {
	opts  Options
	base  *url.URL
	log   *slog.Logger
	gate  *gate
	http  *http.Client
	retry *retryablehttp.Client
	// straight reads from other places; nil without Direct.
	straight *http.Client

	mu      sync.Mutex // guards the fields below
	busy    map[blob.Digest]*busy
	refused map[blob.Digest]refusal
	places  map[blob.Digest]place
	parts   map[blob.Digest]*part       // that are being filled
	shunned map[identity.ID]time.Time   // peers that gave wrong frames, until when
	lists   map[blob.Digest]blob.Frames // of files that came since the start
}

// refusal remembers content that was wrong at the server.
type refusal struct {
	err   error
	until time.Time
	wait  time.Duration
}

// New returns a Fetcher. It connects at the first download.
func New(opts Options, log *slog.Logger) (*Fetcher, error) {
	base, err := url.Parse(opts.BaseURL)
	if err != nil || base.Host == "" || base.Scheme != "https" && base.Scheme != "http" {
		return nil, fmt.Errorf("blob server address %q is not https://host:port", opts.BaseURL)
	}
	if opts.Blobs == nil || opts.Client == nil {
		return nil, errors.New("fetch: Options.Blobs and Options.Client are required")
	}
	opts.MaxBytes = cmp.Or(opts.MaxBytes, blob.MaxFramedBytes)
	opts.MinFreeBytes = cmp.Or(opts.MinFreeBytes, 1<<30)
	opts.Attempts = cmp.Or(opts.Attempts, 8)
	opts.BackoffMax = cmp.Or(opts.BackoffMax, time.Minute)
	opts.Stall = cmp.Or(opts.Stall, time.Minute)
	if opts.FreeBytes == nil {
		opts.FreeBytes = freeBytes
	}
	if opts.MonthBytes > 0 && opts.Ledger == "" {
		return nil, errors.New("fetch: Options.MonthBytes needs a Ledger")
	}
	if opts.WallClock == nil {
		opts.WallClock = time.Now
	}
	f := &Fetcher{opts: opts, base: base, log: log, gate: newGate(opts, log), busy: map[blob.Digest]*busy{}, refused: map[blob.Digest]refusal{}, places: map[blob.Digest]place{},
		parts: map[blob.Digest]*part{}, shunned: map[identity.ID]time.Time{}, lists: map[blob.Digest]blob.Frames{}}
	client := *opts.Client
	client.CheckRedirect = f.checkRedirect
	client.Transport = watchdog{cmp.Or(client.Transport, http.DefaultTransport), opts.Stall}
	f.http = &client
	if opts.Direct != nil {
		straight := *opts.Direct
		straight.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		straight.Transport = watchdog{cmp.Or(straight.Transport, http.DefaultTransport), opts.Stall}
		f.straight = &straight
	}
	f.retry = &retryablehttp.Client{
		HTTPClient: f.http,
		Logger:     nil, // the default prints every URL to stderr
		RetryMax:   opts.Attempts - 1,
		CheckRetry: checkRetry,
		Backoff: func(_, _ time.Duration, attempt int, resp *http.Response) time.Duration {
			return f.backoff(attempt, resp)
		},
	}
	return f, nil
}

// Close drops idle connections. Downloads that run are not stopped.
func (f *Fetcher) Close() { f.opts.Client.CloseIdleConnections() }

// SetPace says how many bytes a second may come, 0 for no bound, and when
// nothing may. It holds at once, for downloads under way as well.
func (f *Fetcher) SetPace(bytesPerSec int64, quiet []Quiet) {
	f.gate.setRate(bytesPerSec)
	f.gate.setQuiet(quiet)
}

// Blob makes sure that the blob d is in the store. size is its length, or 0 if
// it is not known; progress, if set, hears of every step. When ctx ends the
// bytes so far stay and a later call goes on with them.
//
// Errors that matter to callers: blob.ErrMismatch (the server's content is
// wrong for good), blob.ErrTooLarge (beyond a limit), another blob.ErrNoRoom (the
// disk is full: ask again later), ErrNotFound.
func (f *Fetcher) Blob(ctx context.Context, d blob.Digest, size int64, progress func(done, total int64)) error {
	return f.File(ctx, models.File{Digest: d, SizeBytes: size}, progress)
}

// File is Blob for a file of a model, in frames if it has a list of them.
func (f *Fetcher) File(ctx context.Context, file models.File, progress func(done, total int64)) error {
	d, size := file.Digest, file.SizeBytes
	ctx, err := f.claim(ctx, d)
	if err != nil {
		return err
	}
	defer f.release(d)
	if progress == nil {
		progress = func(_, _ int64) {}
	}
	if n, err := f.opts.Blobs.Size(d); err == nil {
		progress(n, n)
		return nil
	}
	if size > f.opts.MaxBytes {
		return fmt.Errorf("fetch %s: %d bytes are more than the limit of %d: %w", d.Short(), size, f.opts.MaxBytes, blob.ErrTooLarge)
	}
	if !local(ctx) {
		if err := f.mayTry(d); err != nil { // nobody was asked, so nothing is learnt
			return fmt.Errorf("fetch %s: %w", d.Short(), err)
		}
	}
	if file.Framed() {
		err = f.framed(ctx, file, progress)
	} else {
		err = f.plain(ctx, d, size, progress)
	}
	if err == nil || !local(ctx) {
		f.learn(d, err)
	}
	if err != nil {
		return fmt.Errorf("fetch %s: %w", d.Short(), err)
	}
	return nil
}

// plain downloads a file from its first byte to its last.
func (f *Fetcher) plain(ctx context.Context, d blob.Digest, size int64, progress func(done, total int64)) error {
	resumed, err := f.download(ctx, d, size, progress)
	if errors.Is(err, blob.ErrMismatch) && resumed {
		// The bytes from before may have been hurt by a power cut: once more
		// from the start before the server is blamed.
		f.log.Warn("resumed download was damaged, starting over", "digest", d, "err", err)
		_, err = f.download(ctx, d, size, progress)
	}
	return err
}

// mayTry refuses to ask again for what was wrong a short while ago.
func (f *Fetcher) mayTry(d blob.Digest) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r, ok := f.refused[d]; ok && time.Now().Before(r.until) {
		return fmt.Errorf("not asked again before %s: %w", r.until.UTC().Format(time.RFC3339), r.err)
	}
	return nil
}

// learn remembers wrong content, each time for longer.
func (f *Fetcher) learn(d blob.Digest, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch r := f.refused[d]; {
	case err == nil:
		delete(f.refused, d)
	case errors.Is(err, blob.ErrMismatch):
		r.wait = min(max(2*r.wait, refuseMin), refuseMax)
		r.err, r.until = err, time.Now().Add(r.wait)
		f.refused[d] = r
	}
}

// download fills the stage file and moves it to its final name. resumed tells
// that some of the bytes are older than this call.
func (f *Fetcher) download(ctx context.Context, d blob.Digest, size int64, progress func(done, total int64)) (resumed bool, err error) {
	path := f.opts.Blobs.StagePath(d)
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return false, fmt.Errorf("open stage file: %w", err)
	}
	defer file.Close()
	fi, err := file.Stat()
	if err != nil {
		return false, fmt.Errorf("open stage file: %w", err)
	}
	if size == 0 {
		size = -1
	}
	t := transfer{f: f, d: d, file: file, done: fi.Size(), total: size, etag: etags(d)[0], progress: progress}
	if size > 0 && t.done > size {
		if err := t.restart(); err != nil {
			return false, err
		}
	}
	resumed = t.done > 0
	if err := t.run(ctx); err != nil {
		if f.spent(err) {
			err = errors.Join(err, removeStage(path))
		}
		return resumed, err
	}
	if err := f.opts.Blobs.Adopt(path, d); err != nil {
		if errors.Is(err, blob.ErrMismatch) {
			err = errors.Join(err, removeStage(path))
		}
		return resumed, err
	}
	return resumed, nil
}

// spent says whether a part goes after err: it cannot be finished, or the disk
// has not even the reserve left, which telemetry needs more. Another part waits
// for room, so that its bytes need not come again.
func (f *Fetcher) spent(err error) bool {
	switch {
	case errors.Is(err, blob.ErrMismatch), errors.Is(err, blob.ErrTooLarge):
		return true
	case !errors.Is(err, blob.ErrNoRoom):
		return false
	}
	free, err := f.opts.FreeBytes(f.opts.Blobs.Dir())
	return err != nil || free < f.opts.MinFreeBytes
}

func removeStage(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// backoff is the wait after a failed attempt: what the server asked for, else
// full jitter (a random part of a doubling bound), so that boxes which lost
// the same server do not come back as one.
func (f *Fetcher) backoff(attempt int, resp *http.Response) time.Duration {
	bound := f.opts.BackoffMax
	if attempt < 20 {
		bound = min(bound, backoffMin<<attempt)
	}
	jitter := rand.N(bound + 1)
	if resp == nil || resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable {
		return jitter
	}
	// DefaultBackoff parses Retry-After; without one it returns its bounds, 0.
	if asked := retryablehttp.DefaultBackoff(0, 0, 0, resp); asked > 0 {
		return min(asked, retryWaitMax) + rand.N(backoffMin)
	}
	return jitter
}

// checkRedirect keeps requests at the server: another host would see which
// models a box runs, and the client certificate is not meant for it.
func (f *Fetcher) checkRedirect(req *http.Request, via []*http.Request) error {
	if req.URL.Host != f.base.Host || req.URL.Scheme != f.base.Scheme {
		return fmt.Errorf("%w to %s://%s: name the address it really has", errRedirect, req.URL.Scheme, req.URL.Host)
	}
	if len(via) >= 5 {
		return fmt.Errorf("%w more than 5 times", errRedirect)
	}
	return nil
}

// checkRetry is the library's policy, except that a refused redirect is final.
func checkRetry(ctx context.Context, resp *http.Response, err error) (bool, error) {
	if errors.Is(err, errRedirect) {
		return false, err
	}
	return retryablehttp.ErrorPropagatedRetryPolicy(ctx, resp, err)
}

func (f *Fetcher) url(d blob.Digest) string {
	return strings.TrimSuffix(f.base.String(), "/") + "/device/v1/blobs/" + d.Hex()
}

func freeBytes(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("ask for free space in %s: %w", dir, err)
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}
