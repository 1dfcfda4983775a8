package runnerapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"

	"github.com/edgeherd/edgeherd/models"
)

// maxReplyBytes bounds what a client reads of one answer.
const maxReplyBytes = 16 << 20

// A Client talks to one runner.
type Client struct{ http *http.Client }

// Dial returns a client of the runner that listens on the unix socket path.
// It connects at the first call.
func Dial(path string) *Client {
	return NewClient(&http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
		MaxIdleConns: 2, DisableCompression: true, // it would only cost the box
	})
}

// NewClient returns a client that calls through rt.
func NewClient(rt http.RoundTripper) *Client { return &Client{&http.Client{Transport: rt}} }

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status asks how the runner is doing.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	return s, c.call(ctx, http.MethodGet, "/edge/v1/status", nil, &s)
}

// Probe loads a candidate, tries it with its golden samples and measures it.
// A candidate that fails is a Probe with OK false, not an error.
func (c *Client) Probe(ctx context.Context, ref models.Ref) (Probe, error) {
	var p Probe
	return p, c.call(ctx, http.MethodPost, "/edge/v1/candidates", ref, &p)
}

// Shadow gives a candidate that was probed copies of requests from now on, until
// it serves or is dropped, and returns the status.
func (c *Client) Shadow(ctx context.Context, ref models.Ref) (Status, error) {
	var s Status
	return s, c.call(ctx, http.MethodPost, "/edge/v1/candidates/"+ref.Digest.Hex()+"/shadow", nil, &s)
}

// Exercise makes a variant of a candidate that was probed compute without pause.
// It returns when that has begun; wait returns when it is over.
func (c *Client) Exercise(ctx context.Context, ref models.Ref, e Exercise) (wait func() (Exercised, error), err error) {
	path := "/edge/v1/candidates/" + ref.Digest.Hex() + "/exercise"
	resp, err := c.send(ctx, http.MethodPost, path, e)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 != 2 {
		defer resp.Body.Close()
		return nil, read(resp, nil)
	}
	return func() (done Exercised, err error) {
		defer resp.Body.Close()
		return done, read(resp, &done)
	}, nil
}

// SetHeat tells the runner what the variants of a candidate draw; it returns
// them as it judges them now.
func (c *Client) SetHeat(ctx context.Context, ref models.Ref, h Heat) ([]VariantStatus, error) {
	var vs []VariantStatus
	return vs, c.call(ctx, http.MethodPost, "/edge/v1/candidates/"+ref.Digest.Hex()+"/heat", h, &vs)
}

// Drop unloads a candidate that will not serve.
func (c *Client) Drop(ctx context.Context, ref models.Ref) error {
	return c.call(ctx, http.MethodDelete, "/edge/v1/candidates/"+ref.Digest.Hex(), nil, nil)
}

// Reload makes the runner read active.json now and returns its status after
// the switch.
func (c *Client) Reload(ctx context.Context) (Status, error) {
	var s Status
	return s, c.call(ctx, http.MethodPost, "/edge/v1/reload", nil, &s)
}

// Results returns at most max results after a cursor, oldest first.
func (c *Client) Results(ctx context.Context, after uint64, max int) (Results, error) {
	var r Results
	path := "/edge/v1/results?after=" + strconv.FormatUint(after, 10) + "&max=" + strconv.Itoa(max)
	return r, c.call(ctx, http.MethodGet, path, nil, &r)
}

// AckRequest is the body of POST /edge/v1/results/ack.
type AckRequest struct {
	Cursor uint64 `json:"cursor"`
	Outbox string `json:"outbox"`
}

// Ack frees all results up to cursor.
func (c *Client) Ack(ctx context.Context, outbox string, cursor uint64) error {
	return c.call(ctx, http.MethodPost, "/edge/v1/results/ack", AckRequest{cursor, outbox}, nil)
}

// SetDuty tells the runner how hard it may work.
func (c *Client) SetDuty(ctx context.Context, d Duty) error {
	return c.call(ctx, http.MethodPost, "/edge/v1/duty", d, nil)
}

func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	resp, err := c.send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return read(resp, out)
}

func (c *Client) send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("encode request to runner: %w", err)
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://runner"+path, body)
	if err != nil {
		return nil, fmt.Errorf("ask runner: %w", err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask runner: %w", err)
	}
	return resp, nil
}

// read takes the answer into out; nil: there is nothing in it.
func read(resp *http.Response, out any) error {
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxReplyBytes))
	if err != nil {
		return fmt.Errorf("read answer of runner: %w", err)
	}
	if resp.StatusCode/100 != 2 {
		var e struct {
			Error string `json:"error"`
		}
		if json.Unmarshal(data, &e) != nil || e.Error == "" {
			e.Error = string(data)
		}
		method, path := "", ""
		if resp.Request != nil {
			method, path = resp.Request.Method, resp.Request.URL.Path
		}
		return fmt.Errorf("runner answers %s %s with %d: %s", method, path, resp.StatusCode, e.Error)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("parse answer of runner: %w", err)
	}
	return nil
}
