package identity_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/trust"
)

const day = 24 * time.Hour

var start = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)

// at is a wall clock that stands still.
func at(offset time.Duration) func() time.Time {
	return func() time.Time { return start.Add(offset) }
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openCA(t *testing.T, now func() time.Time) *identity.CA {
	t.Helper()
	ca, err := identity.OpenCA(t.TempDir(), now)
	check(t, err)
	return ca
}

func enrol(t *testing.T, ca *identity.CA, box identity.Box) *identity.Identity {
	t.Helper()
	dir := t.TempDir()
	check(t, identity.Enrol(dir, ca, box))
	id, err := identity.Load(dir)
	check(t, err)
	return id
}

func newBox(t *testing.T) identity.Box {
	t.Helper()
	key, err := trust.NewKey()
	check(t, err)
	return identity.Box{ID: identity.NewID(), Name: "till-3", Site: "berlin-1", Tenant: "default", Server: "ctl.example",
		MQTT: "10.0.0.1:8883", HTTPS: "10.0.0.1:8444", Keyring: trust.DevelopmentKeyring(key.Public())}
}

func TestEnrolledBoxesLoadAsTheyWereWritten(t *testing.T) {
	dir, box := t.TempDir(), newBox(t)
	ca := openCA(t, nil)
	check(t, identity.Enrol(dir, ca, box))
	id, err := identity.Load(dir)
	check(t, err)
	if !reflect.DeepEqual(id.Box, box) {
		t.Errorf("loaded %+v, wrote %+v", id.Box, box)
	}
	for name, mode := range map[string]os.FileMode{"key.pem": 0o600, "box.json": 0o600, "cert.pem": 0o644, "ca.pem": 0o644} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	subject := id.Certificate.Leaf.Subject
	if subject.CommonName != string(box.ID) || !reflect.DeepEqual(subject.OrganizationalUnit, []string{"site:berlin-1"}) {
		t.Errorf("subject %v", subject)
	}
	box.MQTT = "10.0.0.2:8883"
	check(t, box.Write(dir))
	if id, err = identity.Load(dir); err != nil || id.MQTT != box.MQTT {
		t.Errorf("after a new address: %+v, %v", id, err)
	}
}

// TestBrokenIdentitiesAreNamed removes and damages each file in turn.
func TestBrokenIdentitiesAreNamed(t *testing.T) {
	ca := openCA(t, nil)
	for _, c := range []struct{ file, content, want string }{
		{"box.json", "", "not enrolled"},
		{"box.json", "{", "read box.json"},
		{"box.json", `{"id":"../../etc"}`, "box id"},
		{"cert.pem", "", "box certificate"},
		{"cert.pem", "junk", "box certificate"},
		{"key.pem", "", "box key"},
		{"key.pem", "junk", "box key"},
		{"ca.pem", "", "trusted roots"},
		{"ca.pem", "junk", "no certificate"},
	} {
		dir := t.TempDir()
		check(t, identity.Enrol(dir, ca, newBox(t)))
		path := filepath.Join(dir, c.file)
		check(t, os.Remove(path))
		if c.content != "" {
			check(t, os.WriteFile(path, []byte(c.content), 0o600))
		}
		if id, err := identity.Load(dir); err == nil || id != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s = %q: %v", c.file, c.content, err)
		}
	}
	// The key of another box.
	dir, other := t.TempDir(), t.TempDir()
	check(t, identity.Enrol(dir, ca, newBox(t)))
	check(t, identity.Enrol(other, ca, newBox(t)))
	key, err := os.ReadFile(filepath.Join(other, "key.pem"))
	check(t, err)
	check(t, os.WriteFile(filepath.Join(dir, "key.pem"), key, 0o600))
	if _, err := identity.Load(dir); err == nil {
		t.Error("a key that is not of the certificate was loaded")
	}
}

// TestTheCAIsNeverReplaced: a new one would lock out every box.
func TestTheCAIsNeverReplaced(t *testing.T) {
	dir := t.TempDir()
	ca, err := identity.OpenCA(dir, nil)
	check(t, err)
	id := enrol(t, ca, newBox(t))
	again, err := identity.OpenCA(dir, nil)
	if err != nil || string(again.PEM()) != string(ca.PEM()) {
		t.Fatalf("opened again: %v", err)
	}
	certPath, keyPath := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "ca-key.pem")
	cert, err := os.ReadFile(certPath)
	check(t, err)
	key, err := os.ReadFile(keyPath)
	check(t, err)

	// The root's key may lie in a safe.
	check(t, os.Remove(keyPath))
	offline, err := identity.OpenCA(dir, nil)
	check(t, err)
	if err := shake(offline, enrol(t, offline, newBox(t)), nil, nil, everyone); err != nil {
		t.Errorf("without the root's key: %v", err)
	}
	issuing, err := os.ReadFile(filepath.Join(dir, "issuing-device.pem"))
	check(t, err)
	check(t, os.Remove(filepath.Join(dir, "issuing-device.pem")))
	if _, err := identity.OpenCA(dir, nil); err == nil || !strings.Contains(err.Error(), "ca-key.pem from a backup") {
		t.Errorf("without any key: %v", err)
	}
	check(t, os.WriteFile(filepath.Join(dir, "issuing-device.pem"), issuing, 0o600))
	check(t, os.Remove(certPath))
	if _, err := identity.OpenCA(dir, nil); err == nil {
		t.Error("a new root was made beside authorities of an old one")
	}
	check(t, os.WriteFile(certPath, cert, 0o600))
	if now, err := os.ReadFile(certPath); err != nil || string(now) != string(cert) {
		t.Error("the certificate was replaced")
	}
	for content, want := range map[string]string{"junk": "not PEM", "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n": "ca-key.pem", edKey(t): "not an ECDSA key"} {
		check(t, os.WriteFile(keyPath, []byte(content), 0o600))
		if _, err := identity.OpenCA(dir, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("key %.20q: %v", content, err)
		}
	}
	check(t, os.WriteFile(keyPath, key, 0o600))
	check(t, os.WriteFile(certPath, openCA(t, nil).PEM(), 0o600))
	if _, err := identity.OpenCA(dir, nil); err == nil {
		t.Error("the certificate of another key was taken")
	}
	// A power cut at the first start may leave the key alone. If the
	// certificate was lost later, enrolled boxes still get through.
	check(t, os.Remove(certPath))
	renewed, err := identity.OpenCA(dir, nil)
	check(t, err)
	if err := shake(renewed, id, nil, nil, everyone); err != nil {
		t.Errorf("an enrolled box after the certificate was made anew: %v", err)
	}
}

func edKey(t *testing.T) string {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	check(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// shake lets a box connect and exchange a byte, with the box's clock at now
// (nil for the real one). change may spoil what the box does.
func shake(ca *identity.CA, id *identity.Identity, now func() time.Time, change func(*tls.Config), admit func(identity.ID) error) error {
	cert, err := ca.IssueServer([]string{"ctl.example", "10.0.0.1"})
	if err != nil {
		return err
	}
	client := id.ClientTLS(now)
	if change != nil {
		change(client)
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	served := make(chan error, 1)
	go func() {
		defer a.Close()
		s := tls.Server(a, ca.ServerTLS(cert, admit))
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte{1})
		}
		served <- err
	}()
	c := tls.Client(b, client)
	err = c.Handshake()
	if err == nil {
		_, err = io.ReadFull(c, make([]byte, 1)) // TLS 1.3: the server judges after our handshake
	}
	b.Close()
	return errors.Join(err, <-served)
}

func everyone(identity.ID) error { return nil }

func TestOnlyAdmittedBoxesOfThisCAGetThrough(t *testing.T) {
	ca, foreign := openCA(t, at(0)), openCA(t, at(0))
	box := newBox(t)
	id, stranger := enrol(t, ca, box), enrol(t, foreign, newBox(t))
	server, err := ca.IssueServer([]string{"ctl.example"})
	check(t, err)
	for _, c := range []struct {
		name   string
		id     *identity.Identity
		change func(*tls.Config)
		admit  func(identity.ID) error
		want   string // part of the error, "" for a welcome
	}{
		{"admitted", id, nil, everyone, ""},
		{"by address", id, func(c *tls.Config) { c.ServerName = "10.0.0.1" }, everyone, ""},
		{"not admitted", id, nil, func(got identity.ID) error {
			if got != box.ID {
				t.Errorf("asked about %s", got)
			}
			return errors.New("this box was retired")
		}, "this box was retired"},
		{"no certificate", id, func(c *tls.Config) { c.Certificates = nil }, everyone, "didn't provide a certificate"},
		{"of another CA that trusts ours", stranger, func(c *tls.Config) { c.RootCAs = ca.Pool() }, everyone, "unknown authority"},
		{"of another CA", stranger, nil, everyone, "unknown authority"},
		{"a server's certificate", id, func(c *tls.Config) { c.Certificates = []tls.Certificate{server} }, everyone, "incompatible key usage"},
		{"another server name", id, func(c *tls.Config) { c.ServerName = "evil.example" }, everyone, "evil.example"},
		{"an old protocol", id, func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }, everyone, "protocol version"},
	} {
		err := shake(ca, c.id, at(0), c.change, c.admit)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// TestCertificatesEnd by the clock of each side.
func TestCertificatesEnd(t *testing.T) {
	dir := t.TempDir()
	ca, err := identity.OpenCA(dir, at(0))
	check(t, err)
	id := enrol(t, ca, newBox(t))
	ca.DeviceLife = identity.MaxDeviceLife
	long := enrol(t, ca, newBox(t))
	for _, c := range []struct {
		name        string
		id          *identity.Identity
		server, box time.Duration
		want        string
	}{
		{"the last day", id, 29 * day, 29 * day, ""},
		{"after 30 days", id, 31 * day, 31 * day, "expired"},
		{"a box whose clock stands at the beginning", id, 29 * day, 0, ""},
		{"a box whose clock is a little behind", id, 29 * day, 29*day - 50*time.Minute, ""},
		{"before it was issued", id, -2 * time.Hour, -2 * time.Hour, "not yet valid"},
		{"the last day of the longest", long, 59 * day, 59 * day, ""},
		{"the longest, and a box whose clock stands at the beginning", long, 59 * day, 0, ""},
		{"after the longest", long, 61 * day, 61 * day, "expired"},
		{"after the CA itself", id, 21 * 365 * day, 21 * 365 * day, "expired"},
	} {
		later, err := identity.OpenCA(dir, at(c.server))
		check(t, err)
		err = shake(later, c.id, at(c.box), nil, everyone)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestOnlyKeysOfTheRightKindAreCertified(t *testing.T) {
	ca := openCA(t, nil)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	check(t, err)
	ed, _, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	for _, key := range []any{nil, ed, p384.Public(), "key"} {
		if cert, err := ca.IssueDevice(identity.NewID(), "x", identity.Keys{Sign: key}); err == nil || cert != nil {
			t.Errorf("a certificate for %T", key)
		}
	}
}

func TestPeerIDComesFromTheVerifiedChain(t *testing.T) {
	ca := openCA(t, nil)
	box := newBox(t)
	leaf := enrol(t, ca, box).Certificate.Leaf
	odd := *leaf
	odd.Subject.CommonName = "edgeherd controller"
	for _, c := range []struct {
		name  string
		state tls.ConnectionState
		id    identity.ID
		site  string
	}{
		{"verified", tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{leaf}}}, box.ID, "berlin-1"},
		{"shown but not verified", tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}, "", ""},
		{"nothing", tls.ConnectionState{}, "", ""},
		{"not a box", tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{&odd}}}, "", ""},
	} {
		id, site, err := identity.PeerID(c.state)
		if id != c.id || site != c.site || (err == nil) != (c.id != "") {
			t.Errorf("%s: %q, %q, %v", c.name, id, site, err)
		}
	}
}

// T16: an id that means more in a topic, a path or an access list is none.
func TestT16NoIDWithAWildcardIsAccepted(t *testing.T) {
	for _, s := range []string{"d-aaaaaaaaaaaa+", "d-aaaaaaaaaaaa#", "d-aaaaaa/aaaaaa", "$share/aaaaaaa", "d-aaaaaaaaaaaa%", "D-AAAAAAAAAAAAA", "d-aaaaaaaaaaaaa:1", ""} {
		if id, err := identity.ParseID(s); err == nil || id != "" {
			t.Errorf("%q is accepted as %q", s, id)
		}
	}
}

func TestNewIDsDiffer(t *testing.T) {
	seen := map[identity.ID]bool{}
	for range 1000 {
		id := identity.NewID()
		if got, err := identity.ParseID(id.String()); err != nil || got != id || seen[id] {
			t.Fatalf("%s: %v, seen %v", id, err, seen[id])
		}
		seen[id] = true
	}
}

// FuzzParseID: what is accepted is safe in topics, paths and URLs.
func FuzzParseID(f *testing.F) {
	for _, s := range []string{"d-aaaaaaaaaaaaa", "d-aaaaaaaaaaaaa\n", "d-AAAAAAAAAAAAA", "d-aaaaaaaaaaaa1", "../aaaaaaaaaaaa", "d-aaaaaa+/#aaaa", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := identity.ParseID(s)
		if err != nil {
			if id != "" {
				t.Error("an id with an error")
			}
			return
		}
		if id.String() != s || len(s) != 15 || strings.Trim(s[2:], "abcdefghijklmnopqrstuvwxyz234567") != "" {
			t.Errorf("accepted %q", s)
		}
	})
}
