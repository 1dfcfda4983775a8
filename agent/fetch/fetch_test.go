package fetch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/deviceapi"
	"github.com/edgeherd/edgeherd/models"
)

// origin serves one blob and spoils answers as told.
type origin struct {
	content []byte
	etag    string
	digest  func() blob.Digest
	frames  func() []byte          // the list of the content's frames
	ways    deviceapi.Ways         // guarded by mu
	others  map[blob.Digest][]byte // packs and their indexes
	served  atomic.Int64           // body bytes handed to the network
	// spoil, if set, may answer request number n (from 0) itself.
	spoil func(n int, w http.ResponseWriter, r *http.Request) bool

	mu       sync.Mutex
	requests []string // guarded by mu: the Range header of each request
}

func newOrigin(seed uint64, size int) *origin {
	content := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(seed)}).Read(content) // never fails
	return originOf(content)
}

func originOf(content []byte) *origin {
	o := &origin{content: content}
	o.digest = sync.OnceValue(func() blob.Digest { return blob.Sum(o.content) })
	o.frames = sync.OnceValue(func() []byte {
		frames, _, err := blob.FramesOf(bytes.NewReader(o.content))
		if err != nil {
			panic("reading memory: " + err.Error())
		}
		return frames.Encode()
	})
	o.etag = `"` + o.digest().String() + `"`
	return o
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasSuffix(r.URL.Path, "/ways") {
		o.mu.Lock()
		defer o.mu.Unlock()
		_ = json.NewEncoder(w).Encode(o.ways) // a box that went away
		return
	}
	o.mu.Lock()
	n := len(o.requests)
	o.requests = append(o.requests, r.Header.Get("Range"))
	o.mu.Unlock()
	cw := &countingWriter{w, &o.served}
	if o.spoil != nil && o.spoil(n, cw, r) {
		return
	}
	o.serve(cw, r)
}

// file is the content as a manifest names it, in frames.
func (o *origin) file() models.File {
	return models.File{Digest: o.digest(), SizeBytes: int64(len(o.content)), Frames: blob.Sum(o.frames())}
}

func (o *origin) serve(w http.ResponseWriter, r *http.Request) {
	if d, err := blob.ParseDigest("sha256:" + path.Base(r.URL.Path)); err == nil && o.others[d] != nil {
		w.Header().Set("ETag", `"`+d.String()+`"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(o.others[d]))
		return
	}
	if list := o.frames(); r.URL.Path == "/device/v1/blobs/"+blob.Sum(list).Hex() {
		_, _ = w.Write(list)
		return
	}
	if r.URL.Path != "/device/v1/blobs/"+o.digest().Hex() {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("ETag", o.etag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(o.content))
}

func (o *origin) ranges() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]string(nil), o.requests...)
}

type countingWriter struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.n.Add(int64(n))
	return n, err
}

// cut sends only part of the answer that the origin would give, and hangs up.
func (o *origin) cut(w http.ResponseWriter, r *http.Request, n int) {
	rec := httptest.NewRecorder()
	o.serve(rec, r)
	for k, v := range rec.Header() {
		w.Header()[k] = v
	}
	w.WriteHeader(rec.Code)
	body := rec.Body.Bytes()
	_, _ = w.Write(body[:min(n, len(body))])
	panic(http.ErrAbortHandler)
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func plenty(string) (int64, error) { return 1 << 50, nil }

// fetcher returns a Fetcher for a server on loopback.
func fetcher(t *testing.T, h http.Handler, change func(*Options)) (*Fetcher, *blob.Store) {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	store, err := blob.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	opts := Options{
		Blobs: store, Client: srv.Client(), BaseURL: srv.URL,
		BackoffMax: time.Millisecond, Attempts: 4, FreeBytes: plenty,
	}
	if change != nil {
		change(&opts)
	}
	f, err := New(opts, quiet())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f, store
}

func wantBlob(t *testing.T, store *blob.Store, o *origin) {
	t.Helper()
	got, err := os.ReadFile(store.Path(o.digest()))
	if err != nil || !bytes.Equal(got, o.content) {
		t.Errorf("stored %d bytes, %v, want the %d that were served", len(got), err, len(o.content))
	}
	for _, left := range []string{store.StagePath(o.digest()), store.FramesPath(o.digest())} {
		if _, err := os.Stat(left); err == nil {
			t.Errorf("%s is still there", left)
		}
	}
}

func TestBlobArrivesFromServersThatMisbehave(t *testing.T) {
	const size = 300_000
	reply := func(code int) func(*origin) {
		return func(o *origin) {
			o.spoil = func(n int, w http.ResponseWriter, _ *http.Request) bool {
				if n < 2 {
					w.WriteHeader(code)
				}
				return n < 2
			}
		}
	}
	for _, tt := range []struct {
		name  string
		spoil func(*origin)
		limit int64 // of bytes served
	}{
		{"a good server", func(*origin) {}, size},
		{"503 twice", reply(503), size},
		{"429 twice", reply(429), size},
		{"500 twice", reply(500), size},
		{"bodies cut three times", func(o *origin) {
			o.spoil = func(n int, w http.ResponseWriter, r *http.Request) bool {
				if n < 3 {
					o.cut(w, r, 70_000)
				}
				return false
			}
		}, size},
		{"ranges ignored", func(o *origin) {
			o.spoil = func(n int, w http.ResponseWriter, r *http.Request) bool {
				if n == 0 {
					o.cut(w, r, 100_000)
				}
				r.Header.Del("Range")
				return false
			}
		}, size + 100_000},
		{"tag in its short form", func(o *origin) {
			o.etag = `"` + o.digest().Hex() + `"`
			o.spoil = func(n int, w http.ResponseWriter, r *http.Request) bool {
				if n == 0 {
					o.cut(w, r, 100_000)
				}
				return false
			}
		}, 2*size + 200_000}, // net/http writes into a socket that nobody reads
		{"weak tag", func(o *origin) { o.etag = `W/"x"` }, size},
		{"no tag and no length", func(o *origin) {
			o.spoil = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
				w.(*countingWriter).ResponseWriter.(http.Flusher).Flush()
				_, _ = w.Write(o.content)
				return true
			}
		}, size},
	} {
		for _, known := range []int64{0, size} {
			t.Run(fmt.Sprintf("%s, size %d", tt.name, known), func(t *testing.T) {
				o := newOrigin(1, size)
				tt.spoil(o)
				f, store := fetcher(t, o, nil)
				var last int64
				err := f.Blob(t.Context(), o.digest(), known, func(done, _ int64) { last = done })
				if err != nil {
					t.Fatal(err)
				}
				wantBlob(t, store, o)
				if last != size {
					t.Errorf("progress ended at %d, want %d", last, size)
				}
				if got := o.served.Load(); got > tt.limit {
					t.Errorf("served %d bytes, want at most %d; ranges %q", got, tt.limit, o.ranges())
				}
			})
		}
	}
}

func TestWrongAnswersAreRefused(t *testing.T) {
	const size = 100_000
	for _, tt := range []struct {
		name  string
		spoil func(o *origin, n int, w http.ResponseWriter, r *http.Request) bool
		is    error
		text  string
	}{
		{"one bit flipped", func(o *origin, _ int, w http.ResponseWriter, _ *http.Request) bool {
			bad := bytes.Clone(o.content)
			bad[size/2] ^= 4
			_, _ = w.Write(bad)
			return true
		}, blob.ErrMismatch, ""},
		{"too long", func(o *origin, _ int, w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Length", "100001")
			_, _ = w.Write(append(bytes.Clone(o.content), 1))
			return true
		}, blob.ErrMismatch, "has 100001 bytes, want 100000"},
		{"too short", func(o *origin, _ int, w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Length", "99999")
			_, _ = w.Write(o.content[1:])
			return true
		}, blob.ErrMismatch, "has 99999 bytes"},
		{"too long without saying so", func(o *origin, _ int, w http.ResponseWriter, _ *http.Request) bool {
			w.(*countingWriter).ResponseWriter.(http.Flusher).Flush()
			_, _ = w.Write(append(bytes.Clone(o.content), 1))
			return true
		}, blob.ErrMismatch, "goes on to byte 100001"},
		{"the tag of another blob", func(_ *origin, _ int, w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("ETag", `"`+blob.Sum(nil).String()+`"`)
			_, _ = w.Write(nil)
			return true
		}, blob.ErrMismatch, "another blob"},
		{"a range that starts elsewhere", func(o *origin, n int, w http.ResponseWriter, r *http.Request) bool {
			if n == 0 {
				o.cut(w, r, 50_000)
			}
			r.Header.Set("Range", "bytes=10-")
			return false
		}, nil, `sends range "bytes 10-99999/100000", asked for byte`},
		{"a range of another total", func(o *origin, n int, w http.ResponseWriter, r *http.Request) bool {
			if n == 0 {
				o.cut(w, r, 50_000)
			}
			var at int
			_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &at)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", at, at+9, size+1))
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(make([]byte, 10))
			return true
		}, blob.ErrMismatch, "has 100001 bytes"},
		{"a compressed body", func(_ *origin, _ int, w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write([]byte{1})
			return true
		}, nil, `Content-Encoding "gzip"`},
		{"not found", func(_ *origin, _ int, w http.ResponseWriter, r *http.Request) bool {
			http.NotFound(w, r)
			return true
		}, ErrNotFound, ""},
		{"forbidden", func(_ *origin, _ int, w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusForbidden)
			return true
		}, nil, "403 Forbidden"},
		{"down for good", func(_ *origin, _ int, w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}, nil, "giving up after 4 attempt(s)"},
		{"cut before every byte", func(o *origin, _ int, w http.ResponseWriter, r *http.Request) bool {
			o.cut(w, r, 0)
			return true
		}, nil, ""},
		{"never a range", func(_ *origin, _ int, w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return true
		}, nil, "gave up after"},
		{"another host", func(_ *origin, _ int, w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, "http://192.0.2.1/steal", http.StatusFound)
			return true
		}, errRedirect, "192.0.2.1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := newOrigin(2, size)
			o.spoil = func(n int, w http.ResponseWriter, r *http.Request) bool { return tt.spoil(o, n, w, r) }
			f, store := fetcher(t, o, nil)
			err := f.Blob(t.Context(), o.digest(), size, nil)
			if err == nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.text) {
				t.Fatalf("got %v, want %v with %q", err, tt.is, tt.text)
			}
			if store.Has(o.digest()) {
				t.Error("the blob has its final name")
			}
			if _, serr := os.Stat(store.StagePath(o.digest())); errors.Is(err, blob.ErrMismatch) && serr == nil {
				t.Error("wrong bytes stay in the stage file")
			}
		})
	}
}

func TestPartDamagedByAPowerCutIsFetchedAgain(t *testing.T) {
	for name, part := range map[string][]byte{
		"zeroes":             make([]byte, 60_000),
		"longer than a blob": make([]byte, 200_000),
		"exactly as long":    make([]byte, 100_000),
	} {
		for _, known := range []int64{0, 100_000} {
			t.Run(fmt.Sprintf("%s, size %d", name, known), func(t *testing.T) {
				o := newOrigin(3, 100_000)
				f, store := fetcher(t, o, nil)
				if err := os.WriteFile(store.StagePath(o.digest()), part, 0o600); err != nil {
					t.Fatal(err)
				}
				if err := f.Blob(t.Context(), o.digest(), known, nil); err != nil {
					t.Fatal(err)
				}
				wantBlob(t, store, o)
			})
		}
	}
}

func TestPresentBlobNeedsNoServer(t *testing.T) {
	o := newOrigin(4, 1000)
	f, store := fetcher(t, o, nil)
	if err := store.Put(bytes.NewReader(o.content), o.digest()); err != nil {
		t.Fatal(err)
	}
	var done, total int64
	if err := f.Blob(t.Context(), o.digest(), 1000, func(d, n int64) { done, total = d, n }); err != nil {
		t.Fatal(err)
	}
	if len(o.ranges()) != 0 || done != 1000 || total != 1000 {
		t.Errorf("%d requests, progress %d of %d, want none and 1000 of 1000", len(o.ranges()), done, total)
	}
}

func TestEmptyBlobArrives(t *testing.T) {
	o := newOrigin(5, 0)
	f, store := fetcher(t, o, nil)
	if err := f.Blob(t.Context(), o.digest(), 0, nil); err != nil {
		t.Fatal(err)
	}
	wantBlob(t, store, o)
}

func TestTwoCallersShareOneDownload(t *testing.T) {
	o := newOrigin(6, 500_000)
	f, store := fetcher(t, o, nil)
	errs := make(chan error)
	for range 4 {
		go func() { errs <- f.Blob(t.Context(), o.digest(), 500_000, nil) }()
	}
	for range 4 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	wantBlob(t, store, o)
	if got := len(o.ranges()); got != 1 {
		t.Errorf("%d requests, want 1", got)
	}
}

func TestDiskBudgetIsCheckedBeforeTheFirstByte(t *testing.T) {
	for name, known := range map[string]int64{"size known": 100_000, "size learnt": 0} {
		t.Run(name, func(t *testing.T) {
			o := newOrigin(7, 100_000)
			f, store := fetcher(t, o, func(opts *Options) {
				opts.MinFreeBytes = 1000
				opts.FreeBytes = func(string) (int64, error) { return 100_999, nil }
			})
			err := f.Blob(t.Context(), o.digest(), known, nil)
			if !errors.Is(err, blob.ErrNoRoom) || !strings.Contains(err.Error(), "needs 100000 bytes and leaves 1000 bytes free, but ") {
				t.Errorf("got %v, want one that names the bytes", err)
			}
			if fi, err := os.Stat(store.StagePath(o.digest())); err == nil && fi.Size() > 0 {
				t.Errorf("%d bytes were written", fi.Size())
			}
		})
	}
	o := newOrigin(7, 100_000)
	f, _ := fetcher(t, o, func(opts *Options) { opts.MaxBytes = 99_999 })
	for _, known := range []int64{0, 100_000} {
		if err := f.Blob(t.Context(), o.digest(), known, nil); !errors.Is(err, blob.ErrNoRoom) {
			t.Errorf("size %d: got %v, want blob.ErrNoRoom beyond MaxBytes", known, err)
		}
	}
}

// RLIMIT_FSIZE makes the kernel refuse a write just as a full disk does.
func TestFullDiskIsNamedAndFreed(t *testing.T) {
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	o := newOrigin(8, 1_000_000)
	f, store := fetcher(t, o, nil)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 400_000, Max: old.Max}); err != nil {
		t.Skip("no file size limit here:", err)
	}
	err := f.Blob(t.Context(), o.digest(), 1_000_000, nil)
	if rerr := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old); rerr != nil {
		t.Fatal(rerr)
	}
	if !errors.Is(err, blob.ErrNoRoom) || !strings.Contains(err.Error(), "disk is full at byte ") {
		t.Errorf("got %v, want a full disk", err)
	}
	if _, err := os.Stat(store.StagePath(o.digest())); err == nil {
		t.Error("the part still takes room")
	}
	if err := f.Blob(t.Context(), o.digest(), 1_000_000, nil); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	store, err := blob.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, opts := range map[string]Options{
		"no address": {Blobs: store, Client: http.DefaultClient},
		"no scheme":  {Blobs: store, Client: http.DefaultClient, BaseURL: "controller:8444"},
		"no store":   {Client: http.DefaultClient, BaseURL: "https://c"},
		"no client":  {Blobs: store, BaseURL: "https://c"},
	} {
		if _, err := New(opts, quiet()); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
