package inputs

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/agent/inputs/pipeline"
	"github.com/edgeherd/edgeherd/agent/secrets"
)

// snapshot asks a camera for a still picture, and not again for the same one.
type snapshot struct {
	cfg    Source
	client *http.Client

	// What the camera said of the last picture.
	etag, modified string
	sum            [sha256.Size]byte
	n              uint64
	// How the camera wants to be told the password; it gets none before it
	// has asked, and none in the clear if it takes a digest.
	basic     bool
	challenge digestAuth

	refused  error // it took no password, and is left alone until askAgain
	askAgain time.Time
	pause    time.Duration
}

// Many cameras lock out who tries a wrong password again and again.
const (
	refusedMin = 10 * time.Second
	refusedMax = 5 * time.Minute
)

func newSnapshot(cfg Source) (*snapshot, error) {
	transport := &http.Transport{
		Proxy:               nil, // cameras are on the site's own network
		MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: cfg.Timeout,
		ResponseHeaderTimeout: cfg.Timeout,
		// What it answers is told in errors.
		MaxResponseHeaderBytes: 16 << 10,
	}
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read ca_file: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_file %s holds no certificate in PEM form", cfg.CAFile)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool}
	}
	client := &http.Client{Transport: transport, Timeout: cfg.Timeout,
		// A password must not follow to another host.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return &snapshot{cfg: cfg, client: client}, nil
}

// next returns the camera's picture, or errNothingNew when it is the last one.
func (s *snapshot) next(ctx context.Context) (shot, error) {
	if s.refused != nil && time.Now().Before(s.askAgain) {
		return shot{}, s.refused
	}
	resp, err := s.ask(ctx)
	if err != nil {
		return shot{}, err
	}
	defer resp.Body.Close()
	if err := s.judge(resp); err != nil {
		return shot{}, err
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxFileBytes+1))
	if err != nil {
		return shot{}, fmt.Errorf("read picture of camera: %w", s.late(err))
	}
	if len(data) > maxFileBytes {
		return shot{}, fmt.Errorf("picture of camera has more than %d bytes", maxFileBytes)
	}
	s.etag, s.modified = resp.Header.Get("ETag"), resp.Header.Get("Last-Modified")
	// Many cameras know no ETag: the same bytes are the same picture.
	sum := sha256.Sum256(data)
	if s.n > 0 && sum == s.sum {
		return shot{}, errNothingNew
	}
	frame, err := pipeline.DecodeFrame(data)
	if err != nil {
		s.forget()
		return shot{}, fmt.Errorf("picture of camera: %w", err)
	}
	s.sum = sum
	s.n++
	return shot{name: fmt.Sprintf("snapshot-%d", s.n), frame: frame}, nil
}

// judge says what is wrong with an answer that is no picture.
func (s *snapshot) judge(resp *http.Response) error {
	refused := resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden
	if !refused {
		s.refused, s.pause = nil, 0
	}
	switch {
	case resp.StatusCode == http.StatusOK:
		return nil
	case resp.StatusCode == http.StatusNotModified:
		return errNothingNew
	case refused:
		remedy := "set username and password_file, or token_file"
		if s.cfg.Username != "" || s.cfg.TokenFile != "" {
			remedy = "it does not take the user, password or token that is set"
		}
		s.refused = fmt.Errorf("ask camera for a picture: it answers %s; %s", resp.Status, remedy)
		s.pause = min(max(2*s.pause, refusedMin), refusedMax)
		s.askAgain = time.Now().Add(s.pause)
		// Else the next try would show the password with what was asked for last,
		// and once more when that is refused.
		s.basic, s.challenge = false, digestAuth{}
		return s.refused
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		return fmt.Errorf("ask camera for a picture: it answers %s, which is not followed: set url to where the picture is", resp.Status)
	}
	return fmt.Errorf("ask camera for a picture: it answers %s", resp.Status)
}

// late says in our words that the camera took too long.
func (s *snapshot) late(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("none came within %s", s.cfg.Timeout)
	}
	return hideURL(err)
}

// forget lets the last picture count as new again.
func (s *snapshot) forget() {
	s.etag, s.modified, s.sum = "", "", [sha256.Size]byte{}
}

// ask sends the request, and once more where the camera wants a digest.
func (s *snapshot) ask(ctx context.Context) (*http.Response, error) {
	for try := 0; ; try++ {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.cfg.URL, nil)
		if err != nil {
			return nil, fmt.Errorf("ask camera for a picture: %w", hideURL(err))
		}
		if s.etag != "" {
			req.Header.Set("If-None-Match", s.etag)
		}
		if s.modified != "" {
			req.Header.Set("If-Modified-Since", s.modified)
		}
		if err := s.authorize(req); err != nil {
			return nil, err
		}
		resp, err := s.client.Do(req)
		if err != nil {
			return nil, fmt.Errorf("ask camera for a picture: %w", s.late(err))
		}
		if resp.StatusCode != http.StatusUnauthorized || try > 0 || s.cfg.Username == "" || !s.challenged(resp.Header) {
			return resp, nil
		}
		resp.Body.Close()
	}
}

// challenged reports whether a refused request may be sent again with what the
// camera asks for.
func (s *snapshot) challenged(h http.Header) bool {
	s.basic = false
	if s.challenge.read(h) {
		return true
	}
	for _, line := range h.Values("WWW-Authenticate") {
		scheme, _, _ := strings.Cut(line, " ")
		s.basic = s.basic || strings.EqualFold(scheme, "Basic")
	}
	return s.basic
}

// authorize reads the secret anew each time, so that it may be changed on disk.
func (s *snapshot) authorize(req *http.Request) error {
	switch {
	case s.cfg.TokenFile != "":
		token, err := secrets.Read(s.cfg.TokenFile)
		if err != nil {
			return fmt.Errorf("token_file: %w", err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
	case s.basic || s.challenge.nonce != "":
		password, err := secrets.Read(s.cfg.PasswordFile)
		if err != nil {
			return fmt.Errorf("password_file: %w", err)
		}
		if s.basic {
			req.SetBasicAuth(s.cfg.Username, password)
			return nil
		}
		req.Header.Set("Authorization", s.challenge.answer(req.Method, req.URL.RequestURI(), s.cfg.Username, password))
	}
	return nil
}

// hideURL takes the URL out of an error of package http: it is in the
// configuration, and a query may hold a key.
func hideURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
