package identity_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/identity"
)

// A box that enrolled before, one that renewed in between and one that is new
// get in at every step; only who slept through all of it must enrol anew.
func TestARolloverLocksNobodyOut(t *testing.T) {
	dir := t.TempDir()
	open := func() *identity.CA {
		t.Helper()
		ca, err := identity.OpenCA(dir, nil)
		check(t, err)
		return ca
	}
	ca := open()
	old := enrol(t, ca, newBox(t))
	oldRoot := string(ca.PEM())
	welcome := func(step string, ids ...*identity.Identity) {
		t.Helper()
		for i, id := range ids {
			if err := shake(open(), id, nil, nil, everyone); err != nil {
				t.Errorf("%s: box %d: %v", step, i, err)
			}
		}
	}
	if identity.SwitchRollover(ca, dir) == nil || identity.FinishRollover(ca, dir) == nil {
		t.Error("a rollover ended that did not begin")
	}
	check(t, identity.BeginRollover(ca, dir))
	if identity.BeginRollover(open(), dir) == nil {
		t.Error("begun twice")
	}
	middle := enrol(t, open(), newBox(t))
	welcome("begun", old, middle)
	if n := len(open().Roots()); n != 2 {
		t.Errorf("%d roots", n)
	}

	nextKey, err := os.ReadFile(filepath.Join(dir, "next-ca-key.pem"))
	check(t, err)
	check(t, identity.SwitchRollover(open(), dir))
	if string(open().Roots()[0].Raw) == "" || oldRoot == string(open().PEM()) {
		t.Error("nothing changed")
	}
	// Cut short between the switch and the tidying.
	check(t, os.WriteFile(filepath.Join(dir, "next-ca-key.pem"), nextKey, 0o600))
	check(t, identity.SwitchRollover(open(), dir))
	late := enrol(t, open(), newBox(t))
	for id, knows := range map[*identity.Identity]bool{old: false, middle: false, late: true} {
		var chain []byte
		for _, der := range id.Certificate.Certificate {
			chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
		}
		if open().Knows(chain) != knows {
			t.Errorf("%s knows the new root: %v", id.ID, !knows)
		}
	}
	welcome("switched", old, middle, late)

	check(t, identity.FinishRollover(open(), dir))
	if n := len(open().Roots()); n != 1 {
		t.Errorf("%d roots", n)
	}
	welcome("finished", late)
	if shake(open(), old, nil, nil, everyone) == nil {
		t.Error("the old root is trusted for ever")
	}
	info, err := os.ReadDir(dir)
	check(t, err)
	for _, e := range info {
		fi, err := e.Info()
		check(t, err)
		if filepath.Ext(e.Name()) == ".pem" && e.Name() != "ca.pem" && fi.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o", e.Name(), fi.Mode().Perm())
		}
	}
}

// An ended certificate may still ask for the next one, and nothing else.
func TestAnEndedCertificateOnlyRenews(t *testing.T) {
	dir := t.TempDir()
	ca, err := identity.OpenCA(dir, at(0))
	check(t, err)
	id := enrol(t, ca, newBox(t))
	later, err := identity.OpenCA(dir, at(200*day))
	check(t, err)
	if err := shake(later, id, at(200*day), nil, everyone); err == nil {
		t.Error("an ended certificate is a way in")
	}
	cert, err := later.IssueServer([]string{"ctl.example"})
	check(t, err)
	leaf, err := renewing(later, cert, id, at(200*day))
	if err != nil || leaf.Subject.CommonName != string(id.ID) {
		t.Errorf("renewal: %v", err)
	}
	foreign := openCA(t, at(0))
	stranger := enrol(t, foreign, newBox(t))
	stranger.Roots = later.Pool()
	if _, err := renewing(later, cert, stranger, at(200*day)); err == nil {
		t.Error("a stranger may renew")
	}
	// The authority that issued it has ended long ago, too.
	muchLater, err := identity.OpenCA(dir, at(4*365*day))
	check(t, err)
	if cert, err = muchLater.IssueServer([]string{"ctl.example"}); err != nil {
		t.Fatal(err)
	}
	if _, err := renewing(muchLater, cert, id, at(4*365*day)); err != nil {
		t.Errorf("renewal below an ended authority: %v", err)
	}
}

// renewing shakes hands on a port where boxes may renew.
func renewing(ca *identity.CA, cert tls.Certificate, id *identity.Identity, now func() time.Time) (*x509.Certificate, error) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	server := tls.Server(a, ca.DeviceTLS(cert, func(identity.ID) error { return errors.New("asked like an ordinary connection") }))
	served := make(chan error, 1)
	go func() { served <- server.Handshake(); a.Close() }()
	client := tls.Client(b, id.RenewTLS(now))
	if client.Handshake() == nil {
		client.Read(make([]byte, 1)) // the server judges after our handshake
	}
	if err := <-served; err != nil {
		return nil, err
	}
	return ca.Renewing(server.ConnectionState())
}
