package enrol_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	desk "github.com/edgeherd/edgeherd/controller/enrol"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/enrol"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// world is a controller as far as enrolment goes: database, authority and the
// two ports, on a clock of its own.
type world struct {
	t      *testing.T
	store  *store.Store
	ca     *identity.CA
	desk   *desk.Desk
	server tls.Certificate
	pages  string
	device string

	mu      sync.Mutex
	time    time.Time
	changed map[identity.ID]int
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.time
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.time = w.time.Add(d)
}

func newWorld(t *testing.T, change func(*desk.Options)) *world {
	t.Helper()
	w := &world{t: t, time: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC), changed: map[identity.ID]int{}}
	dir := t.TempDir()
	var err error
	w.store, err = store.Open(t.Context(), store.Options{Path: filepath.Join(dir, "store.db"), WallClock: w.now})
	check(t, err)
	t.Cleanup(func() { w.store.Close() })
	w.ca, err = identity.OpenCA(filepath.Join(dir, "ca"), w.now)
	check(t, err)
	opts := desk.Options{Store: w.store, Issuer: w.ca, WallClock: w.now, Rate: 10_000,
		Box: func(id identity.ID, name, site string) identity.Box {
			return identity.Box{ID: id, Name: name, Site: site, Tenant: "default", Server: "127.0.0.1", MQTT: "127.0.0.1:8883", HTTPS: w.device, Pages: w.pages}
		},
		Changed: func(id identity.ID) { w.mu.Lock(); w.changed[id]++; w.mu.Unlock() },
	}
	if change != nil {
		change(&opts)
	}
	w.desk, err = desk.New(opts, slog.New(slog.DiscardHandler))
	check(t, err)
	w.server, err = w.ca.IssueServer([]string{"127.0.0.1"})
	check(t, err)
	admit := func(identity.ID) error { return nil }
	w.pages = w.serve(w.ca.PagesTLS(w.server, admit), w.desk.Public())
	w.device = w.serve(w.ca.DeviceTLS(w.server, admit), w.desk.Device())
	return w
}

func (w *world) serve(conf *tls.Config, h http.Handler) string {
	l, err := tls.Listen("tcp", "127.0.0.1:0", conf)
	check(w.t, err)
	srv := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	go srv.Serve(l)
	w.t.Cleanup(func() { srv.Close() })
	return l.Addr().String()
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// token mints one that leads to the pages of the world.
func (w *world) token(terms desk.Terms) enrol.Token {
	w.t.Helper()
	if terms.Site == "" && terms.Box == "" {
		terms.Site = "hamburg-3"
	}
	tok, _, err := w.desk.Mint(w.t.Context(), enrol.Token{Host: "127.0.0.1", Port: portOf(w.t, w.pages), Pins: []enrol.Pin{enrol.PinOf(w.ca.Roots()[0])}}, terms)
	check(w.t, err)
	parsed, err := enrol.ParseToken(tok.String())
	check(w.t, err)
	return parsed
}

func portOf(t *testing.T, addr string) uint16 {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", addr)
	check(t, err)
	return uint16(a.Port)
}

// machine is one that wants to be a box.
type machine struct {
	w   *world
	key *ecdsa.PrivateKey
	hw  enrol.Hardware
}

func (w *world) machine(serial string) *machine {
	return &machine{w, newKey(w.t), enrol.Hardware{BoardSerial: serial, DiskSerial: "disk-" + serial, MACs: []string{"02:00:" + serial}}}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	return key
}

func csrOf(t testing.TB, key any, subject string) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: subject}, DNSNames: []string{"evil.example", "#"}}, key)
	check(t, err)
	return der
}

func (m *machine) request(tok enrol.Token) enrol.Request {
	return enrol.Request{V: enrol.Version, TokenID: tok.ID, Secret: tok.Secret, CSR: csrOf(m.w.t, m.key, "d-aaaaaaaaaaaaa"),
		Hardware: m.hw, Agent: enrol.Agent{Version: "1.0.0", BootID: "boot"}, NameHint: "Till 3"}
}

// enrol sends the request of a machine over the connection that its token asks
// for.
func (m *machine) enrol(tok enrol.Token) (int, enrol.Answer) {
	m.w.t.Helper()
	return m.w.post(tok, m.request(tok))
}

func (w *world) post(tok enrol.Token, q any) (int, enrol.Answer) {
	w.t.Helper()
	body, err := json.Marshal(q)
	check(w.t, err)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: tok.ClientTLS(w.now)}}
	defer client.CloseIdleConnections()
	return w.answer(client.Post("https://"+tok.Address()+enrol.PathRequests, "application/json", bytes.NewReader(body)))
}

func (w *world) answer(resp *http.Response, err error) (int, enrol.Answer) {
	w.t.Helper()
	if err != nil {
		w.t.Error(err)
		return 0, enrol.Answer{}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	check(w.t, err)
	a, err := enrol.ReadAnswer(bytes.NewReader(body))
	if err != nil {
		w.t.Errorf("status %d: %v: %s", resp.StatusCode, err, body)
	}
	return resp.StatusCode, a
}

// box is a machine that became one.
type box struct {
	w    *world
	id   *identity.Identity
	key  *ecdsa.PrivateKey
	hw   enrol.Hardware
	made enrol.Answer
}

func (w *world) box(serial string) *box {
	w.t.Helper()
	m := w.machine(serial)
	status, a := m.enrol(w.token(desk.Terms{}))
	if status != http.StatusCreated {
		w.t.Fatalf("enrol %s: %d %+v", serial, status, a)
	}
	return w.boxOf(m.key, m.hw, a)
}

func (w *world) boxOf(key *ecdsa.PrivateKey, hw enrol.Hardware, a enrol.Answer) *box {
	w.t.Helper()
	return &box{w: w, id: identityOf(w.t, a, key), key: key, hw: hw, made: a}
}

func identityOf(t *testing.T, a enrol.Answer, key *ecdsa.PrivateKey) *identity.Identity {
	t.Helper()
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	check(t, err)
	cert, err := tls.X509KeyPair([]byte(a.Member.Certificate), pemKey(keyDER))
	check(t, err)
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(a.Member.Authorities)) {
		t.Fatal("no authorities")
	}
	return &identity.Identity{Box: a.Member.Box, Certificate: cert, Roots: roots}
}

// contact is what the broker does when a box connects.
func (b *box) contact() (store.Membership, error) {
	m, _, err := b.w.store.Contact(b.w.t.Context(), b.id.ID, desk.SerialOf(b.id.Certificate.Leaf), "192.0.2.1")
	return m, err
}

func (b *box) call(method, path string, body []byte) (int, enrol.Answer) {
	b.w.t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: b.id.RenewTLS(b.w.now)}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(b.w.t.Context(), method, "https://"+b.w.device+path, bytes.NewReader(body))
	check(b.w.t, err)
	return b.w.answer(client.Do(req))
}

// renew asks for the next certificate with a key of its own.
func (b *box) renew(key *ecdsa.PrivateKey, fence uint64) (int, enrol.Answer) {
	b.w.t.Helper()
	body, err := json.Marshal(enrol.Renewal{V: enrol.Version, CSR: csrOf(b.w.t, key, ""), Hardware: b.hw, Agent: enrol.Agent{Version: "1.0.0"}, Fence: fence})
	check(b.w.t, err)
	return b.call(http.MethodPost, enrol.PathRenew, body)
}

// take uses a certificate that was issued.
func (b *box) take(a enrol.Answer, key *ecdsa.PrivateKey) *box {
	b.w.t.Helper()
	return b.w.boxOf(key, b.hw, a)
}

func (b *box) state() store.Membership {
	b.w.t.Helper()
	m, err := b.w.store.Membership(b.w.t.Context(), b.id.ID)
	check(b.w.t, err)
	return m
}

func contains(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%s: %q lacks %q", what, text, p)
		}
	}
}
