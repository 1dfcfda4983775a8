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
}

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
	resp, err := s.ask(ctx)
	if err != nil {
		return shot{}, err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusNotModified:
		return shot{}, errNothingNew
	case resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden:
		return shot{}, fmt.Errorf("ask camera for a picture: it answers %s; set username and password_file, or token_file", resp.Status)
	case resp.StatusCode != http.StatusOK:
		return shot{}, fmt.Errorf("ask camera for a picture: it answers %s", resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxFileBytes+1))
	if err != nil {
		return shot{}, fmt.Errorf("read picture of camera: %w", hideURL(err))
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
		s.etag, s.modified = "", ""
		return shot{}, fmt.Errorf("picture of camera: %w", err)
	}
	s.sum = sum
	s.n++
	return shot{name: fmt.Sprintf("snapshot-%d", s.n), frame: frame}, nil
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
			return nil, fmt.Errorf("ask camera for a picture: %w", hideURL(err))
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
		token, err := readSecret(s.cfg.TokenFile)
		if err != nil {
			return fmt.Errorf("read token_file: %w", err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
	case s.basic || s.challenge.nonce != "":
		password, err := readSecret(s.cfg.PasswordFile)
		if err != nil {
			return fmt.Errorf("read password_file: %w", err)
		}
		if s.basic {
			req.SetBasicAuth(s.cfg.Username, password)
			return nil
		}
		req.Header.Set("Authorization", s.challenge.answer(req.Method, req.URL.RequestURI(), s.cfg.Username, password))
	}
	return nil
}

// readSecret returns the first line of a small file.
func readSecret(path string) (string, error) {
	data, err := readBounded(path, 64<<10)
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(data), "\n")
	if line = strings.TrimSpace(line); line == "" {
		return "", fmt.Errorf("%s is empty", path)
	}
	return line, nil
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
