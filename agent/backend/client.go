package backend

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/edgeherd/edgeherd/models"
)

const (
	// HeaderLength says how many bytes of a body are JSON; tensors follow.
	HeaderLength = "Inference-Header-Content-Length"
	// HeaderForwarded marks a request that a runner has passed on: the next one
	// answers it or refuses it, so that no two runners pass it back and forth.
	HeaderForwarded = "Edgeherd-Forwarded"

	maxCredential = 64 << 10
	maxSmall      = 1 << 20 // metadata, errors
	dialTimeout   = 3 * time.Second
)

// Failure is an answer other than the wanted one, or none.
type Failure struct {
	// Status is that of HTTP, 0 when nothing answered.
	Status int
	// Text is what the other side said.
	Text string
	Err  error
}

func (f *Failure) Error() string {
	if f.Err != nil {
		return f.Err.Error()
	}
	return fmt.Sprintf("status %d: %s", f.Status, f.Text)
}

func (f *Failure) Unwrap() error { return f.Err }

// Message is a request for inference, ready to send.
type Message struct {
	// Pieces are sent one after the other.
	Pieces [][]byte
	// Head is the length of the JSON in front, and Version the one to ask for in
	// place of the client's; REST only.
	Head    int
	Version string
	// Room is asked for memory before the answer is read.
	Room func(n int64) error
	// Max bounds the answer, in bytes.
	Max int64
}

// Answer is that to a Message; Head is its HeaderLength.
type Answer struct {
	Body []byte
	Head string
}

// Client calls one endpoint about one model.
type Client struct {
	endpoint       Endpoint
	base           *url.URL
	model, version string
	http           *http.Client
	conn           *grpc.ClientConn // nil: REST
}

// Dial prepares a client; it connects at the first call.
func Dial(e Endpoint, model, version string) (*Client, error) {
	e = e.withDefaults()
	if err := e.Check(); err != nil {
		return nil, err
	}
	u, err := url.Parse(e.URL)
	if err != nil {
		return nil, fmt.Errorf("url %q: %w", e.URL, err)
	}
	c := &Client{endpoint: e, base: u, model: model, version: version}
	secure, err := e.tls()
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(u.Scheme, "grpc") {
		c.conn, err = dialGRPC(u, secure)
		return c, err
	}
	c.http = &http.Client{
		Transport: &http.Transport{
			TLSClientConfig: secure, MaxIdleConnsPerHost: 64, IdleConnTimeout: time.Minute,
			DisableCompression: true, ForceAttemptHTTP2: true, TLSHandshakeTimeout: dialTimeout,
			DialContext: dialer().DialContext,
		},
		// A redirect could lead inputs to where nobody has allowed them.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

func (e Endpoint) tls() (*tls.Config, error) {
	secure := &tls.Config{MinVersion: tls.VersionTLS12}
	if e.CA == "" {
		return secure, nil
	}
	pem, err := os.ReadFile(e.CA)
	if err != nil {
		return nil, fmt.Errorf("read ca: %w", err)
	}
	secure.RootCAs = x509.NewCertPool()
	if !secure.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("ca %s holds no certificate (PEM)", e.CA)
	}
	return secure, nil
}

// bearer is the credential; empty: none.
func (e Endpoint) bearer() (string, error) {
	if e.Credential == "" {
		return "", nil
	}
	f, err := os.Open(e.Credential)
	if err != nil {
		return "", fmt.Errorf("read credential: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxCredential))
	if err != nil {
		return "", fmt.Errorf("read credential: %w", err)
	}
	text := strings.TrimSpace(string(data))
	if text == "" || strings.ContainsAny(text, "\r\n") {
		return "", fmt.Errorf("credential %s is not one line", e.Credential)
	}
	return "Bearer " + text, nil
}

// GRPC says which form Infer wants.
func (c *Client) GRPC() bool { return c.conn != nil }

// Close drops connections.
func (c *Client) Close() {
	if c.conn != nil {
		_ = c.conn.Close()
		return
	}
	c.http.CloseIdleConnections()
}

// path of the model.
func (c *Client) path(version, tail string) string {
	p := "/v2/models/" + url.PathEscape(c.model)
	if version != "" {
		p += "/versions/" + url.PathEscape(version)
	}
	return p + tail
}

// Request builds one for a path of the endpoint, with what it needs to be let in.
func (c *Client) Request(ctx context.Context, method, path string, body io.Reader) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, method, c.base.Scheme+"://"+c.base.Host+path, body)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", c.base.Host, err)
	}
	token, err := c.endpoint.bearer()
	if err != nil {
		return nil, err
	}
	if token != "" {
		r.Header.Set("Authorization", token)
	}
	r.Header.Set(HeaderForwarded, "1")
	return r, nil
}

// Do sends a request; what did not arrive is a Failure without status.
func (c *Client) Do(r *http.Request) (*http.Response, error) {
	resp, err := c.http.Do(r)
	if err != nil {
		if ctx := r.Context(); ctx.Err() != nil {
			return nil, fmt.Errorf("ask %s: %w", c.base.Host, context.Cause(ctx))
		}
		return nil, &Failure{Err: fmt.Errorf("ask %s: %w", c.base.Host, err)}
	}
	return resp, nil
}

// get reads a small answer.
func (c *Client) get(ctx context.Context, path string) (int, []byte, error) {
	r, err := c.Request(ctx, http.MethodGet, path, nil)
	if err != nil {
		return 0, nil, err
	}
	resp, err := c.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxSmall))
	return resp.StatusCode, data, err
}

// Ready says whether the endpoint serves the model, else why not.
func (c *Client) Ready(ctx context.Context, api string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*dialTimeout)
	defer cancel()
	if c.GRPC() {
		return c.readyGRPC(ctx)
	}
	paths := []string{c.path(c.version, "/ready")}
	if api == models.APIOpenAI {
		paths = []string{"/health", "/v1/models"}
		if c.endpoint.Health != "" {
			paths = []string{c.endpoint.Health}
		}
	}
	for i, path := range paths {
		status, text, err := c.get(ctx, path)
		if err != nil {
			return err
		}
		if status == http.StatusNotFound && i+1 < len(paths) {
			continue
		}
		if status != http.StatusOK {
			return &Failure{Status: status, Text: fmt.Sprintf("%s is not ready: %.200s", path, bytes.TrimSpace(text))}
		}
		return nil
	}
	return nil
}

// Signature asks what the model takes and gives.
func (c *Client) Signature(ctx context.Context) (models.Signature, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*dialTimeout)
	defer cancel()
	if c.GRPC() {
		return c.signatureGRPC(ctx)
	}
	status, text, err := c.get(ctx, c.path(c.version, ""))
	if err == nil && status != http.StatusOK {
		err = &Failure{Status: status, Text: string(text)}
	}
	var sig models.Signature
	if err == nil {
		err = json.Unmarshal(text, &sig)
	}
	if err != nil {
		return sig, fmt.Errorf("ask %s what model %s is: %w", c.base.Host, c.model, err)
	}
	return sig, nil
}

// Infer sends a message and returns the answer to it.
func (c *Client) Infer(ctx context.Context, m Message) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, c.endpoint.Timeout)
	defer cancel()
	if c.GRPC() {
		return c.inferGRPC(ctx, m)
	}
	var sending sync.WaitGroup
	body := &pieces{left: m.Pieces, sending: &sending}
	sending.Add(1)
	r, err := c.Request(ctx, http.MethodPost, c.path(cmp.Or(m.Version, c.version), "/infer"), body)
	if err != nil {
		return Answer{}, err
	}
	// The transport may send on after Do has returned, from memory that then
	// belongs to another request.
	defer func() { cancel(); sending.Wait() }()
	r.GetBody = func() (io.ReadCloser, error) {
		sending.Add(1)
		return &pieces{left: m.Pieces, sending: &sending}, nil
	}
	r.Header["Idempotency-Key"] = nil // not sent: a connection that just went idle may be replaced
	r.ContentLength = m.size()
	r.Header.Set("Content-Type", "application/octet-stream")
	r.Header.Set(HeaderLength, strconv.Itoa(m.Head))
	resp, err := c.Do(r)
	if err != nil {
		return Answer{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return Answer{}, refusal(resp)
	}
	text, err := m.read(resp)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("read answer of %s: %w", c.base.Host, context.Cause(ctx))
	}
	return Answer{text, resp.Header.Get(HeaderLength)}, err
}

func (m Message) size() (n int64) {
	for _, p := range m.Pieces {
		n += int64(len(p))
	}
	return n
}

// pieces is a request body that tells when nobody reads it any more.
type pieces struct {
	left    [][]byte
	at      int // in left[0]
	sending *sync.WaitGroup
	once    sync.Once
}

func (p *pieces) Read(b []byte) (int, error) {
	for len(p.left) > 0 && p.at == len(p.left[0]) {
		p.left, p.at = p.left[1:], 0
	}
	if len(p.left) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.left[0][p.at:])
	p.at += n
	return n, nil
}

func (p *pieces) Close() error {
	p.once.Do(p.sending.Done)
	return nil
}

// read takes the answer; memory is asked for first.
func (m Message) read(resp *http.Response) ([]byte, error) {
	if resp.ContentLength > m.Max {
		return nil, &Failure{Err: fmt.Errorf("the answer has %d bytes, at most %d are taken", resp.ContentLength, m.Max)}
	}
	if n := resp.ContentLength; n >= 0 {
		if err := m.Room(n); err != nil {
			return nil, err
		}
		body := make([]byte, n)
		if _, err := io.ReadFull(resp.Body, body); err != nil {
			return nil, &Failure{Err: fmt.Errorf("read answer: %w", err)}
		}
		return body, nil
	}
	const step = 64 << 10
	var body []byte
	for {
		if err := m.Room(step); err != nil {
			return nil, err
		}
		n := len(body)
		body = append(body, make([]byte, step)...)
		got, err := io.ReadFull(resp.Body, body[n:])
		body = body[:n+got]
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return body, nil
		case err != nil:
			return nil, &Failure{Err: fmt.Errorf("read answer: %w", err)}
		case int64(len(body)) > m.Max:
			return nil, &Failure{Err: fmt.Errorf("the answer has more than %d bytes", m.Max)}
		}
	}
}

// refusal is an answer with an error object, or with any text.
func refusal(resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10)) // a part is better than nothing
	var e struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(text, &e) == nil && e.Error != "" {
		return &Failure{Status: resp.StatusCode, Text: e.Error}
	}
	return &Failure{Status: resp.StatusCode, Text: string(bytes.TrimSpace(text))}
}

// maxMessage of gRPC; Message.Max bounds answers below it.
const maxMessage = math.MaxInt32
