package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/edgeherd/edgeherd/internal/durable"
)

// How long certificates live. Boxes renew at half life.
const (
	caLife     = 20 * 365 * 24 * time.Hour
	serverLife = 365 * 24 * time.Hour
	deviceLife = 30 * 24 * time.Hour
)

// A CA issues the certificates of one controller and its boxes.
type CA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	now  func() time.Time
}

// OpenCA reads DIR/ca.pem and DIR/ca-key.pem, and makes what is missing of
// them. A certificate without its key is an error: a new CA would lock out
// every box. now is the wall clock; nil means time.Now.
func OpenCA(dir string, now func() time.Time) (*CA, error) {
	if now == nil {
		now = time.Now
	}
	certPath, keyPath := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "ca-key.pem")
	key, err := readKey(keyPath)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(certPath); !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("certificate authority in %s has no key: bring back ca-key.pem from a backup, or move ca.pem away and enrol every box anew", dir)
		}
		if key, err = newKey(keyPath); err != nil {
			return nil, err
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open certificate authority in %s: %w", dir, err)
	}
	if _, err := os.Stat(certPath); errors.Is(err, fs.ErrNotExist) {
		// The first start, or one that was cut short. Boxes that trust an
		// earlier certificate of this key trust what the new one issues.
		return newCA(certPath, key, now)
	}
	pair, err := tls.LoadX509KeyPair(certPath, keyPath)
	if err != nil {
		return nil, fmt.Errorf("open certificate authority in %s: %w", dir, err)
	}
	return &CA{cert: pair.Leaf, key: key, now: now}, nil
}

func readKey(path string) (*ecdsa.PrivateKey, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%s is not PEM", path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s is not an ECDSA key", path)
	}
	return key, nil
}

func newKey(path string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make CA key: %w", err)
	}
	return key, writeKey(path, key)
}

func newCA(certPath string, key *ecdsa.PrivateKey, now func() time.Time) (*CA, error) {
	tmpl := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: "edgeherd fleet CA"},
		NotBefore:             now().Add(-time.Hour),
		NotAfter:              now().Add(caLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make CA certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read back CA certificate: %w", err)
	}
	if err := durable.WriteFile(certPath, encodeCerts(der), 0o644); err != nil {
		return nil, err
	}
	return &CA{cert: cert, key: key, now: now}, nil
}

// Pool holds the CA certificate alone.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	return pool
}

// PEM returns the CA certificate for a box or a browser to trust.
func (ca *CA) PEM() []byte { return encodeCerts(ca.cert.Raw) }

// IssueDevice certifies the public key of a box for 30 days. The subject is
// ours: what the box asked for plays no part.
func (ca *CA) IssueDevice(id ID, site string, public any) (certPEM []byte, err error) {
	if k, ok := public.(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P256() {
		return nil, errors.New("issue device certificate: the key is not ECDSA P-256")
	}
	return ca.issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: string(id), OrganizationalUnit: []string{"site:" + site}},
		NotAfter:    ca.now().Add(deviceLife),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, public)
}

// IssueServer makes a key and a certificate for the controller's listeners.
// Hosts are names or addresses.
func (ca *CA) IssueServer(hosts []string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make server key: %w", err)
	}
	tmpl := &x509.Certificate{
		Subject: pkix.Name{CommonName: "edgeherd controller"},
		// As old as the oldest box certificate that is still good: a box whose
		// clock is behind judges by the beginning of its own.
		NotBefore:   ca.now().Add(-deviceLife - 2*time.Hour),
		NotAfter:    ca.now().Add(serverLife),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, h)
		}
	}
	certPEM, err := ca.issue(tmpl, key.Public())
	if err != nil {
		return tls.Certificate{}, err
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(certPEM, keyPEM)
}

func (ca *CA) issue(tmpl *x509.Certificate, public any) ([]byte, error) {
	tmpl.SerialNumber = serial()
	if tmpl.NotBefore.IsZero() {
		tmpl.NotBefore = ca.now().Add(-time.Hour)
	}
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.cert, public, ca.key)
	if err != nil {
		return nil, fmt.Errorf("issue certificate for %s: %w", tmpl.Subject.CommonName, err)
	}
	return encodeCerts(der), nil
}

func serial() *big.Int {
	var raw [16]byte
	rand.Read(raw[:])
	return new(big.Int).SetBytes(raw[:])
}

func encodeCerts(ders ...[]byte) []byte {
	var out []byte
	for _, der := range ders {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return out
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	data, err := encodeKey(key)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return durable.WriteFile(path, data, 0o600)
}
