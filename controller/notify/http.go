package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/controller/care"
	"github.com/edgeherd/edgeherd/internal/outbound"
)

// caller posts JSON.
type caller struct {
	url     string
	token   string // bearer
	secrets secrets
	http    *http.Client
}

func newCaller(key, address, token string, guard outbound.Guard) (caller, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return caller{}, fmt.Errorf("`%s` is not an address such as https://example.com/hook", key)
	}
	if token != "" && u.Scheme == "http" && !loopback(u.Hostname()) {
		return caller{}, fmt.Errorf("`%s`: a token does not travel in the clear; use https", key)
	}
	client, err := guard.Client(address)
	if err != nil {
		return caller{}, fmt.Errorf("`%s`: %w", key, err)
	}
	// A redirect would carry what is signed to another place.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return caller{url: address, token: token, secrets: append(secretsOf(u.RequestURI()), secretsOf(token)...), http: client}, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (c caller) post(ctx context.Context, body []byte, head map[string]string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return errors.New("its address cannot be asked")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "edgeherd")
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	for k, v := range head {
		req.Header.Set(k, v)
	}
	res, err := c.http.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // the address may be the secret
		}
		return err
	}
	defer res.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(res.Body, 500))
	if res.StatusCode < 200 || res.StatusCode > 299 {
		// Servers like to say which path they do not know.
		return fmt.Errorf("it answered %s", c.secrets.hide(res.Status+": "+string(said)))
	}
	return nil
}

// webhook takes notices as signed JSON.
type webhook struct {
	caller
	secret []byte
}

func newWebhook(e Endpoint) (*webhook, error) {
	if e.SecretFile == "" {
		return nil, errors.New("a webhook needs `secret_file`: make one with `openssl rand -base64 32`")
	}
	text, err := secret(e.SecretFile)
	if err != nil {
		return nil, err
	}
	if len(text) < 16 {
		return nil, fmt.Errorf("the secret in %s is shorter than 16 characters: make one with `openssl rand -base64 32`", e.SecretFile)
	}
	w := &webhook{secret: secretBytes(text)}
	w.caller, err = newCaller("webhook", e.Webhook, "", e.Guard)
	return w, err
}

// secretBytes: Standard Webhooks writes secrets as base64 after whsec_; any
// other text signs as it is.
func secretBytes(text string) []byte {
	if coded, ok := strings.CutPrefix(text, "whsec_"); ok {
		if raw, err := base64.StdEncoding.DecodeString(coded); err == nil {
			return raw
		}
	}
	return []byte(text)
}

// Sign is the signature of a webhook: HMAC-SHA256 of "id.timestamp.body".
func Sign(secret []byte, id string, unix int64, body []byte) string {
	m := hmac.New(sha256.New, secret)
	fmt.Fprintf(m, "%s.%d.", id, unix)
	m.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(m.Sum(nil))
}

// hookBody is what a webhook gets.
type hookBody struct {
	Schema string `json:"schema"`
	care.Notice
	Link string `json:"link,omitempty"`
}

func (w *webhook) tell(ctx context.Context, n care.Notice, link string, now time.Time) error {
	body, err := json.Marshal(hookBody{"edgeherd.notice/v1", n, link})
	if err != nil {
		return err
	}
	return w.post(ctx, body, map[string]string{
		"Webhook-Id": n.Key, "Webhook-Timestamp": strconv.FormatInt(now.Unix(), 10), "Webhook-Signature": Sign(w.secret, n.Key, now.Unix(), body),
	})
}
