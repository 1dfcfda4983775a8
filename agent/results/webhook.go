package results

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/edgeherd/edgeherd/agent/inputs"
	"github.com/edgeherd/edgeherd/agent/secrets"
)

// SignatureHeader carries "t=<unix seconds>,v1=<hex>": HMAC-SHA256 over the
// seconds, a dot and the body.
const SignatureHeader = "Edgeherd-Signature"

// DeliveryHeader names a batch; one that is sent again has the same name.
const DeliveryHeader = "Edgeherd-Delivery"

// webhook posts batches as {"results": […]}.
type webhook struct {
	cfg    Target
	now    func() time.Time
	client *http.Client
}

func newWebhook(cfg Target, now func() time.Time) (*webhook, error) {
	if cfg.SecretFile == "" {
		return nil, errors.New("secret_file is required: the receiver must be able to tell our results from others'")
	}
	if cfg.Username != "" || cfg.PasswordFile != "" || cfg.Topic != "" {
		return nil, errors.New("username, password_file and topic are for kind mqtt")
	}
	if _, err := secrets.Read(cfg.SecretFile); err != nil && !(cfg.secretComes && errors.Is(err, fs.ErrNotExist)) {
		return nil, err
	}
	tlsConfig, err := trusting(cfg.CAFile)
	if err != nil {
		return nil, err
	}
	return &webhook{cfg, now, &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: tlsConfig,
			MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute,
			MaxResponseHeaderBytes: 16 << 10, // its status is told in errors
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// trusting returns a TLS configuration for a file of certificates; nil for none.
func trusting(file string) (*tls.Config, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read ca_file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("ca_file %s holds no certificate in PEM form", file)
	}
	return &tls.Config{RootCAs: pool}, nil
}

// Sign is the value of SignatureHeader.
func Sign(secret string, at time.Time, body []byte) string {
	stamp := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(stamp + "."))
	mac.Write(body)
	return "t=" + stamp + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}

func (w *webhook) send(ctx context.Context, id string, batch []inputs.Queued) error {
	all := make([]json.RawMessage, len(batch))
	for i, q := range batch {
		all[i] = q.Body
	}
	body, err := json.Marshal(map[string]any{"results": all})
	if err != nil {
		return &refusedError{err.Error()}
	}
	secret, err := secrets.Read(w.cfg.SecretFile)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.cfg.URL, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("call webhook: %w", hideURL(err))
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set(SignatureHeader, Sign(secret, w.now(), body))
	req.Header.Set(DeliveryHeader, fmt.Sprintf("%s-%d-%d", id, batch[0].Cursor, batch[len(batch)-1].Cursor))
	resp, err := w.client.Do(req)
	if err != nil {
		return fmt.Errorf("call webhook: %w", hideURL(err))
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection is used again
	switch code := resp.StatusCode; {
	case code/100 == 2:
		return nil
	case code == http.StatusBadRequest, code == http.StatusRequestEntityTooLarge, code == http.StatusUnprocessableEntity:
		return &refusedError{resp.Status}
	}
	err = fmt.Errorf("call webhook: it answers %s", resp.Status)
	if s, perr := strconv.Atoi(resp.Header.Get("Retry-After")); perr == nil && s > 0 && s < 86400 {
		return &laterError{err, time.Duration(s) * time.Second}
	}
	return err
}

func (w *webhook) close() { w.client.CloseIdleConnections() }

// hideURL takes the URL out of an error: a query may hold a key.
func hideURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
