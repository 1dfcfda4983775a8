package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/deviceapi"
	"github.com/edgeherd/edgeherd/internal/outbound"
)

// directPause is how long a place that failed is not asked again.
const directPause = 10 * time.Minute

// maxPlace bounds for how long an address is used: S3 signs for a week at most.
const maxPlace = 7 * 24 * time.Hour

// place is where a blob can be read without the controller; "" until then: nowhere.
type place struct {
	url   string
	until time.Time
}

// direct reads a range at the place that the controller names for it: a bucket. It
// has no certificate of the box, and its address, which is as good as a password,
// is in no error. ok is false when there is no such place, or it fails: the
// controller has all.
func (f *Fetcher) direct(ctx context.Context, s span) (body io.ReadCloser, ok bool) {
	if f.opts.Direct == nil || local(ctx) {
		return nil, false
	}
	for range 2 { // once more when the address has ended
		address := f.place(ctx, s.d)
		if address == "" {
			return nil, false
		}
		body, err := f.readAt(ctx, address, s)
		if err == nil {
			return body, true
		}
		if ctx.Err() != nil {
			return nil, false
		}
		f.forget(s.d, !errors.Is(err, errEnded))
		level := slog.LevelDebug
		if errors.Is(err, outbound.ErrRefused) {
			level = slog.LevelWarn // the controller or agent.yaml is not as somebody thinks
		}
		f.log.Log(ctx, level, "the bucket does not give a blob, the controller is asked", "digest", s.d, "err", err)
	}
	return nil, false
}

// errEnded says that an address is good no more.
var errEnded = errors.New("the address has ended")

// place asks the controller where a blob is, and remembers the answer.
func (f *Fetcher) place(ctx context.Context, d blob.Digest) string {
	f.mu.Lock()
	p, known := f.places[d]
	f.mu.Unlock()
	if known && time.Now().Before(p.until) {
		return p.url
	}
	p = place{until: time.Now().Add(directPause)}
	data, err := f.ask(ctx, http.MethodGet, f.url(d)+"/url", nil, deviceapi.MaxPlaceBytes)
	var at deviceapi.Place
	if err == nil {
		err = json.Unmarshal(data, &at)
	}
	if err == nil && (at.ForMs < 0 || at.ForMs > maxPlace.Milliseconds()) {
		f.log.Warn("the controller names a place for a time that no store signs for, and is asked itself", "digest", d, "err", fmt.Errorf("for_ms is %d, want 0 to %d", at.ForMs, maxPlace.Milliseconds()))
		at.URL = ""
	}
	if u, perr := url.Parse(at.URL); err == nil && perr == nil && (u.Scheme == "https" || u.Scheme == "http") {
		// Asked again a little before its end.
		p = place{at.URL, time.Now().Add(time.Duration(at.ForMs) * time.Millisecond * 9 / 10)}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.places) > 1000 {
		clear(f.places)
	}
	f.places[d] = p
	return p.url
}

// forget drops an address; shut leaves the bucket alone for this blob for a while.
func (f *Fetcher) forget(d blob.Digest, shut bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if shut {
		f.places[d] = place{until: time.Now().Add(directPause)}
		return
	}
	delete(f.places, d)
}

func (f *Fetcher) readAt(ctx context.Context, address string, s span) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		cancel()
		return nil, errors.New("the address cannot be asked")
	}
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", s.from, s.to-1))
	resp, err := f.straight.Do(req)
	if err != nil {
		cancel()
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return nil, err
	}
	body := &ranged{Reader: io.LimitReader(f.metered(ctx, resp.Body), s.to-s.from), body: resp.Body, cancel: cancel}
	resp.Header.Del("ETag") // the bucket's own
	if resp.Header.Get("Content-Encoding") == "aws-chunked" {
		// How it was uploaded. Some stores keep that; what they send is whole.
		resp.Header.Del("Content-Encoding")
	}
	switch err = s.check(resp); {
	case resp.StatusCode == http.StatusForbidden:
		err = errEnded
	case err == nil && strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html"):
		err = errors.New("a page came in the place of a blob")
	}
	if err != nil {
		body.Close()
		return nil, err
	}
	return body, nil
}
