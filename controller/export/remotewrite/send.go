package remotewrite

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/controller/export"
)

// sender posts requests over one connection at a time.
type sender struct {
	opts   *Options
	client *http.Client
	// announced says that the receiver closes the connection by intent.
	announced bool
}

func newSender(opts *Options) (*sender, error) {
	t := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		TLSHandshakeTimeout: 10 * time.Second,
		MaxIdleConns:        1, IdleConnTimeout: 5 * time.Minute,
		MaxResponseHeaderBytes: 64 << 10,
	}
	if opts.CAFile != "" {
		pool, err := export.Roots(opts.CAFile)
		if err != nil {
			return nil, err
		}
		t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return &sender{opts: opts, client: &http.Client{
		Transport: t, Timeout: opts.Timeout,
		// A redirect would carry samples and secrets to where nobody sent them.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// refusedError says that the receiver will never take these samples.
type refusedError struct {
	status int
	text   string
}

func (e *refusedError) Error() string {
	return strings.TrimSpace(fmt.Sprintf("receiver answers %d %s", e.status, e.text))
}

// againError says that the same request may succeed later, not before after.
// gone says that the receiver may have died since its last answer.
type againError struct {
	err   error
	after time.Duration
	gone  bool
}

func (e *againError) Error() string { return e.err.Error() }
func (e *againError) Unwrap() error { return e.err }

// post sends one body. anew says that a connection had to be made.
func (s *sender) post(ctx context.Context, body []byte) (anew bool, err error) {
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { anew = anew || !i.Reused }})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.opts.URL, bytes.NewReader(body))
	if err != nil {
		return anew, err
	}
	h := req.Header
	h.Set("Content-Encoding", "snappy")
	h.Set("Content-Type", "application/x-protobuf")
	h.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
	h.Set("User-Agent", "edgeherd/"+s.opts.Version)
	if err := s.authorize(h); err != nil {
		return anew, &againError{err: err}
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return anew, &againError{err: err, gone: true}
	}
	defer resp.Body.Close()
	// A connection whose end was announced says nothing about its receiver.
	anew, s.announced = anew && !s.announced, resp.Close
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 512)) // words for the log only
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	return anew, verdict(resp, string(bytes.TrimSpace(text)))
}

// authorize reads the secret at each request, so that a rotated one needs no
// restart.
func (s *sender) authorize(h http.Header) error {
	if s.opts.TokenFile == "" && s.opts.PasswordFile == "" {
		return nil
	}
	secret, err := os.ReadFile(s.opts.TokenFile + s.opts.PasswordFile) // one of them is empty
	if err != nil {
		return fmt.Errorf("read secret for the receiver: %w", err)
	}
	text := strings.TrimSpace(string(secret))
	if s.opts.TokenFile != "" {
		h.Set("Authorization", "Bearer "+text)
		return nil
	}
	r := http.Request{Header: h}
	r.SetBasicAuth(s.opts.User, text)
	return nil
}

// verdict reads an answer as remote write 1.0 tells: 2xx is taken, 5xx and 429
// come again later, any other 4xx is not repeated. Seven of those are kept
// nevertheless, as vmagent keeps them: they speak of the credentials, the
// address or the hour and not of the samples, and an expired token must not
// leave a hole.
func verdict(resp *http.Response, text string) error {
	code := resp.StatusCode
	switch code {
	case http.StatusUnauthorized, http.StatusPaymentRequired, http.StatusForbidden, http.StatusNotFound,
		http.StatusMethodNotAllowed, http.StatusProxyAuthRequired, http.StatusRequestTimeout, http.StatusTooManyRequests:
	default:
		if code/100 == 2 {
			return nil
		}
		if code/100 == 4 {
			return &refusedError{code, text}
		}
	}
	err := errors.New(strings.TrimSpace(fmt.Sprintf("receiver answers %d %s", code, text)))
	return &againError{
		err: err, after: retryAfter(resp.Header.Get("Retry-After"), time.Now()),
		gone: code == http.StatusBadGateway || code == http.StatusGatewayTimeout, // a proxy speaks
	}
}

// maxRetryAfter bounds what a receiver may ask for.
const maxRetryAfter = 10 * time.Minute

// retryAfter reads the header of that name: seconds, or a date.
func retryAfter(text string, now time.Time) time.Duration {
	after := time.Duration(0)
	if s, err := strconv.ParseUint(text, 10, 31); err == nil {
		after = time.Duration(s) * time.Second
	} else if t, err := http.ParseTime(text); err == nil {
		after = t.Sub(now)
	}
	return min(max(after, 0), maxRetryAfter)
}
