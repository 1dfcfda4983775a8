package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// errStalled ends a request whose connection delivers nothing: a broken link
// often stays open for hours.
var errStalled = errors.New("connection delivers nothing")

// watchdog cancels each request that is silent for too long.
type watchdog struct {
	next  http.RoundTripper
	stall time.Duration
}

func (w watchdog) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	timer := time.AfterFunc(w.stall, func() {
		cancel(fmt.Errorf("%w for %s", errStalled, w.stall))
	})
	resp, err := w.next.RoundTrip(req.WithContext(ctx))
	if err != nil {
		timer.Stop()
		if cause := context.Cause(ctx); errors.Is(cause, errStalled) {
			err = cause
		}
		cancel(nil)
		return nil, err
	}
	timer.Stop()
	resp.Body = &watchedBody{resp.Body, cancel, timer, w.stall}
	return resp, nil
}

// CloseIdleConnections lets http.Client reach the transport through us.
func (w watchdog) CloseIdleConnections() {
	if c, ok := w.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

type watchedBody struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
	timer  *time.Timer
	stall  time.Duration
}

// Read gives each read the whole patience, so that a slow but living link and
// the pauses of a rate limit are not taken for silence.
func (b *watchedBody) Read(p []byte) (int, error) {
	b.timer.Reset(b.stall)
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	return n, err
}

func (b *watchedBody) Close() error {
	b.timer.Stop()
	b.cancel(nil)
	return b.ReadCloser.Close()
}
