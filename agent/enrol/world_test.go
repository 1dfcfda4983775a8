package enrol_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/agent/enrol"
	wire "github.com/edgeherd/edgeherd/internal/enrol"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// world is the side of the controller that a box sees: TLS with the whole chain,
// and answers. What the real controller decides is its own tests' matter.
type world struct {
	t       *testing.T
	root    *x509.Certificate
	rootKey *ecdsa.PrivateKey
	server  *httptest.Server
	token   wire.Token
	dir     string

	mu     sync.Mutex
	answer func(w http.ResponseWriter, r *http.Request, body []byte)
	asked  []string // paths
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, dir: t.TempDir() + "/identity"}
	w.root, w.rootKey = authority(t)
	w.server = httptest.NewUnstartedServer(http.HandlerFunc(w.serve))
	w.server.TLS = &tls.Config{
		Certificates: []tls.Certificate{w.leaf()}, ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS13,
		NextProtos: []string{"http/1.1"},
	}
	w.server.StartTLS()
	t.Cleanup(w.server.Close)
	host, port, err := net.SplitHostPort(w.server.Listener.Addr().String())
	check(t, err)
	n, err := net.LookupPort("tcp", port)
	check(t, err)
	w.token = wire.NewToken(host, uint16(n), wire.PinOf(w.root))
	w.answer = func(rw http.ResponseWriter, _ *http.Request, body []byte) { w.reply(rw, w.issued(body)) }
	return w
}

func (w *world) serve(rw http.ResponseWriter, r *http.Request) {
	var body json.RawMessage
	if r.Method == http.MethodPost {
		check(w.t, json.NewDecoder(r.Body).Decode(&body))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, r.URL.Path)
	w.answer(rw, r, body)
}

func (w *world) reply(rw http.ResponseWriter, a wire.Answer) {
	a.V = wire.Version
	rw.WriteHeader(a.Code.Status())
	check(w.t, json.NewEncoder(rw).Encode(a))
}

// issued certifies the key of a request or a renewal.
func (w *world) issued(body []byte) wire.Answer {
	var q struct{ CSR []byte }
	check(w.t, json.Unmarshal(body, &q))
	csr, err := x509.ParseCertificateRequest(q.CSR)
	check(w.t, err)
	id := identity.ID("d-aaaaaaaaaaaaa")
	leaf := w.sign(&x509.Certificate{Subject: pkix.Name{CommonName: string(id)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, csr.PublicKey)
	address := w.server.Listener.Addr().String()
	return wire.Answer{Code: wire.Issued, Member: &wire.Member{
		Box:         identity.Box{ID: id, Name: "wallbox-07", Site: "hamburg-3", Tenant: "default", Server: "127.0.0.1", MQTT: address, HTTPS: address},
		Certificate: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf})),
		Authorities: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.root.Raw})),
	}}
}

func (w *world) sign(c *x509.Certificate, public any) []byte {
	var err error
	c.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62))
	check(w.t, err)
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(30*24*time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, c, w.root, public, w.rootKey)
	check(w.t, err)
	return der
}

func (w *world) leaf() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(w.t, err)
	der := w.sign(&x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, key.Public())
	return tls.Certificate{Certificate: [][]byte{der, w.root.Raw}, PrivateKey: key}
}

func authority(t *testing.T) (*x509.Certificate, *ecdsa.PrivateKey) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(20, 0, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	check(t, err)
	cert, err := x509.ParseCertificate(der)
	check(t, err)
	return cert, key
}

func (w *world) options() enrol.Options {
	return enrol.Options{Dir: w.dir, Root: w.t.TempDir(), TPM: "off", Version: "1.0.0", Patience: time.Nanosecond}
}

func (w *world) enrol(change func(*enrol.Options)) (identity.Box, error) {
	opts := w.options()
	if change != nil {
		change(&opts)
	}
	return enrol.Enrol(w.t.Context(), opts, w.token)
}

func (w *world) paths() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.asked...)
}

func (w *world) answers(f func(rw http.ResponseWriter, r *http.Request, body []byte)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answer = f
}

// dialer opens connections as a member does.
func (w *world) dialer(id *identity.Identity) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		return (&tls.Dialer{Config: id.RenewTLS(time.Now)}).DialContext(ctx, network, address)
	}
}
