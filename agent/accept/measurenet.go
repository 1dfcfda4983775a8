package accept

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/edgeherd/edgeherd/internal/acceptance"
)

// Bounds of the measurement of the network: a thin line is not filled for long.
const (
	reachLimit = 30 * time.Second
	firstProbe = 128 << 10
	probeTime  = 3 * time.Second // that one direction should take
	roundTrips = 5
)

// reached says how the controller was reached; err is why not.
type reached struct {
	client *http.Client
	took   time.Duration // from nothing to the first answer
	offset time.Duration // of this clock against the controller's, to a second
	err    string
}

// reachController opens a connection to the controller, once for a test.
func (t *test) reachController(ctx context.Context) reached {
	if t.way != nil {
		return *t.way
	}
	ctx, stop := context.WithTimeout(ctx, reachLimit)
	defer stop()
	r := reached{client: &http.Client{Transport: &http.Transport{DialTLSContext: t.opts.Dial, IdleConnTimeout: time.Minute}}}
	began := time.Now()
	resp, err := t.probe(ctx, r.client, http.MethodGet, 0)
	r.took = time.Since(began)
	var there time.Time
	if err == nil {
		if there, err = http.ParseTime(resp.Header.Get("Date")); err != nil {
			err = errors.New("it answers without a date")
		}
	}
	if err != nil {
		r.err = err.Error()
	}
	r.offset = t.opts.WallClock().Sub(there)
	t.way = &r
	return r
}

// probe sends, or asks for, so many bytes that mean nothing.
func (t *test) probe(ctx context.Context, client *http.Client, method string, n int64) (*http.Response, error) {
	var body io.Reader
	if method == http.MethodPost {
		body = bytes.NewReader(acceptance.Noise(n))
	}
	url := "https://" + t.opts.Identity.HTTPS + acceptance.PathProbe
	if method == http.MethodGet {
		url += "?bytes=" + strconv.FormatInt(n, 10)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return nil, err
	}
	if method == http.MethodPost {
		req.ContentLength = n
		req.Header.Set("Content-Type", "application/octet-stream")
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	got, err := io.Copy(io.Discard, resp.Body)
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode/100 != 2:
		return nil, fmt.Errorf("the controller answers %s", resp.Status)
	case method == http.MethodGet && got != n:
		return nil, fmt.Errorf("%d of %d bytes came", got, n)
	}
	return resp, nil
}

func (t *test) measureNetwork(ctx context.Context) (n network, reachErr string) {
	r := t.reachController(ctx)
	if r.err != "" {
		return n, r.err
	}
	var trips []time.Duration
	for range roundTrips {
		began := time.Now()
		if _, err := t.probe(ctx, r.client, http.MethodGet, 0); err != nil {
			n.rttErr = err.Error()
			break
		}
		trips = append(trips, time.Since(began))
	}
	if slices.Sort(trips); len(trips) > 0 {
		n.rtt = trips[len(trips)/2]
	}
	n.up = t.throughput(ctx, r.client, http.MethodPost)
	t.tell(Event{Level: t.level, Step: "network", Done: 0.5})
	n.down = t.throughput(ctx, r.client, http.MethodGet)
	return n, ""
}

// throughput sends a little, and from its time as much as takes probeTime.
func (t *test) throughput(ctx context.Context, client *http.Client, method string) throughput {
	ctx, stop := context.WithTimeout(ctx, reachLimit)
	defer stop()
	size := min(firstProbe, t.opts.NetworkBytes)
	first := t.timed(size, func() error { _, err := t.probe(ctx, client, method, size); return err })
	if first.err != "" || first.took > probeTime {
		return first
	}
	size = min(max(int64(first.perSecond()*probeTime.Seconds()), size), t.opts.NetworkBytes)
	return t.timed(size, func() error { _, err := t.probe(ctx, client, method, size); return err })
}
