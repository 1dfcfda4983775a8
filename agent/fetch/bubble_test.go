package fetch

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
)

// pipeNet is an in-memory network for bubbles.
type pipeNet struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p pipeNet) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p pipeNet) Close() error   { close(p.done); return nil }
func (p pipeNet) Addr() net.Addr { return &net.UnixAddr{} }

func (p pipeNet) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	a, b := net.Pipe()
	select {
	case p.conns <- b:
		return a, nil
	case <-p.done:
		return nil, syscall.ECONNREFUSED
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// bubble runs body in fake time with a server that is reached through pipes.
func bubble(t *testing.T, o *origin, change func(*Options), body func(t *testing.T, f func() *Fetcher, store *blob.Store)) {
	synctest.Test(t, func(t *testing.T) { inBubble(t, o, change, body) })
}

func inBubble(t *testing.T, o *origin, change func(*Options), body func(t *testing.T, f func() *Fetcher, store *blob.Store)) {
	network := pipeNet{make(chan net.Conn), make(chan struct{})}
	srv := &http.Server{Handler: o}
	go func() { _ = srv.Serve(network) }()
	store, err := blob.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: network.dial}}
	body(t, func() *Fetcher {
		opts := Options{Blobs: store, Client: client, BaseURL: "http://controller:8444", FreeBytes: plenty}
		if change != nil {
			change(&opts)
		}
		f, err := New(opts, quiet())
		if err != nil {
			t.Fatal(err)
		}
		return f
	}, store)
	client.CloseIdleConnections()
	_ = srv.Close()
	synctest.Wait()
}

func TestStoppedAtAnyTimeItGoesOnWithoutAskingTwice(t *testing.T) {
	const size, kills = 8 << 20, 25
	for seed := range uint64(4) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			o := newOrigin(seed, size)
			rng := rand.New(rand.NewPCG(seed, 1))
			bubble(t, o, func(opts *Options) { opts.RateBytesPerSec = 1 << 20 }, func(t *testing.T, open func() *Fetcher, store *blob.Store) {
				var floor int64
				for range kills {
					f := open() // a new process each time
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rng.Int64N(int64(600*time.Millisecond))))
					err := f.Blob(ctx, o.digest(), size, nil)
					cancel()
					f.Close()
					if err == nil {
						break
					}
					if !errors.Is(err, context.DeadlineExceeded) && !strings.Contains(err.Error(), "deadline") {
						t.Fatal(err)
					}
					fi, err := os.Stat(store.StagePath(o.digest()))
					if err == nil && fi.Size() < floor {
						t.Fatalf("part shrank from %d to %d bytes", floor, fi.Size())
					} else if err == nil {
						floor = fi.Size()
					}
				}
				f := open()
				defer f.Close()
				if err := f.Blob(t.Context(), o.digest(), size, nil); err != nil {
					t.Fatal(err)
				}
				wantBlob(t, store, o)
				// Each stop wastes at most what was read and not yet written,
				// and what the server had handed to its connection.
				if got, limit := o.served.Load(), int64(size*11/10+kills*2*chunkBytes); got > limit {
					t.Errorf("served %d bytes for %d, want at most %d", got, size, limit)
				}
			})
		})
	}
}

func TestRateIsKept(t *testing.T) {
	const size = 4 << 20
	o := newOrigin(9, size)
	bubble(t, o, func(opts *Options) { opts.RateBytesPerSec = size / 8 }, func(t *testing.T, open func() *Fetcher, _ *blob.Store) {
		f, start := open(), time.Now()
		defer f.Close()
		if err := f.Blob(t.Context(), o.digest(), size, nil); err != nil {
			t.Fatal(err)
		}
		// The first chunk is free.
		if took := time.Since(start); took < 7*time.Second || took > 9*time.Second {
			t.Errorf("took %s of fake time, want about 8s", took)
		}
	})
}

func TestRetryAfterIsObeyed(t *testing.T) {
	for header, want := range map[string]time.Duration{"120": 2 * time.Minute, "999999": retryWaitMax, "": 0} {
		t.Run("Retry-After "+header, func(t *testing.T) {
			o := newOrigin(10, 1000)
			o.spoil = func(n int, w http.ResponseWriter, _ *http.Request) bool {
				if n == 0 {
					w.Header().Set("Retry-After", header)
					w.WriteHeader(http.StatusServiceUnavailable)
				}
				return n == 0
			}
			bubble(t, o, nil, func(t *testing.T, open func() *Fetcher, _ *blob.Store) {
				f, start := open(), time.Now()
				defer f.Close()
				if err := f.Blob(t.Context(), o.digest(), 1000, nil); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(start); took < want || took > want+time.Second {
					t.Errorf("came back after %s, want %s and up to a second", took, want)
				}
			})
		})
	}
}

func TestSilentConnectionIsGivenUp(t *testing.T) {
	for _, where := range []string{"head", "body"} {
		t.Run(where, func(t *testing.T) {
			o := newOrigin(11, 200_000)
			o.spoil = func(n int, w http.ResponseWriter, r *http.Request) bool {
				if n > 0 {
					return false
				}
				if where == "body" {
					w.Header().Set("Content-Length", "200000")
					_, _ = w.Write(o.content[:100_000])
					w.(*countingWriter).ResponseWriter.(http.Flusher).Flush()
				}
				<-r.Context().Done()
				return true
			}
			bubble(t, o, nil, func(t *testing.T, open func() *Fetcher, store *blob.Store) {
				f := open()
				defer f.Close()
				if err := f.Blob(t.Context(), o.digest(), 200_000, nil); err != nil {
					t.Fatal(err)
				}
				wantBlob(t, store, o)
				if r := o.ranges(); where == "body" && r[len(r)-1] != "bytes=100000-" {
					t.Errorf("asked for %q, want the second half only", r)
				}
			})
		})
	}
}

func TestServerDownForHoursIsAnErrorWithThePartKept(t *testing.T) {
	o := newOrigin(12, 100_000)
	o.spoil = func(n int, w http.ResponseWriter, r *http.Request) bool {
		if n == 0 {
			o.cut(w, r, 40_000)
		}
		w.WriteHeader(http.StatusBadGateway)
		return true
	}
	bubble(t, o, nil, func(t *testing.T, open func() *Fetcher, store *blob.Store) {
		f := open()
		defer f.Close()
		err := f.Blob(t.Context(), o.digest(), 100_000, nil)
		if err == nil || !strings.Contains(err.Error(), "502") {
			t.Fatalf("got %v, want one that names the 502", err)
		}
		if fi, err := os.Stat(store.StagePath(o.digest())); err != nil || fi.Size() != 40_000 {
			t.Errorf("part has %v bytes, %v, want 40000", fi, err)
		}
		o.spoil = nil
		if err := f.Blob(t.Context(), o.digest(), 100_000, nil); err != nil {
			t.Fatal(err)
		}
		if r := o.ranges(); r[len(r)-1] != "bytes=40000-" {
			t.Errorf("asked for %q, want the rest only", r[len(r)-1])
		}
	})
}
