package identity_test

import (
	"crypto/tls"
	"crypto/x509"
	"path/filepath"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/identity"
)

func TestAControllersCertificateCannotBeThatOfABox(t *testing.T) {
	ca, err := identity.OpenCA(filepath.Join(t.TempDir(), "ca"), nil)
	check(t, err)
	if _, err := ca.IssueClient(string(identity.NewID())); err == nil {
		t.Error("a controller may call itself like a box")
	}
	if _, err := ca.IssueProbe("edgeherd-controller"); err == nil {
		t.Error("a probe may call itself like a controller")
	}
	cert, err := ca.IssueClient("edgeherd-controller")
	check(t, err)
	between := x509.NewCertPool()
	issuer, err := x509.ParseCertificate(cert.Certificate[1])
	check(t, err)
	between.AddCert(issuer)
	_, err = cert.Leaf.Verify(x509.VerifyOptions{Roots: ca.Pool(), Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	check(t, err)
	probe, err := ca.IssueProbe(identity.NewID())
	check(t, err)
	if left := time.Until(probe.Leaf.NotAfter); left > time.Hour {
		t.Errorf("the certificate of a probe is good for %s", left)
	}
}

func TestAProxyGetsACertificateWithTheNamesAsked(t *testing.T) {
	ca, err := identity.OpenCA(filepath.Join(t.TempDir(), "ca"), nil)
	check(t, err)
	if _, _, err := ca.IssueServerPEM(nil); err == nil {
		t.Error("a certificate without a name")
	}
	certPEM, keyPEM, err := ca.IssueServerPEM([]string{"mqtt.example.com", "192.0.2.1"})
	check(t, err)
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	check(t, err)
	for _, host := range []string{"mqtt.example.com", "192.0.2.1"} {
		check(t, pair.Leaf.VerifyHostname(host))
	}
}
