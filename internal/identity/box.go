package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/trust"
)

// Box is what a box knows of itself and of its controller.
type Box struct {
	ID     ID     `json:"id"`
	Name   string `json:"name"`
	Site   string `json:"site"`
	Tenant string `json:"tenant"`
	// Server is the DNS name or address the controller's certificate must bear.
	Server string `json:"server"`
	// MQTT and HTTPS are host:port of the broker and of the device API.
	MQTT  string `json:"mqtt"`
	HTTPS string `json:"https"`
	// Pages is host:port of the web pages, which let a box in as well, with
	// BoxProtocol: for sites whose network lets only such ports through. Empty
	// when the pages have no TLS.
	Pages   string        `json:"pages,omitempty"`
	Keyring trust.Keyring `json:"keyring"`
	// TrustRoot is the root of the fleet's metadata that the box begins from
	// (package tufclient). Empty: the fleet has none.
	TrustRoot []byte `json:"trust_root,omitempty"`
}

// Identity is an enrolled box: who it is and how it proves it.
type Identity struct {
	Box
	Certificate tls.Certificate
	Roots       *x509.CertPool
}

// Enrol writes the files of a new box into dir: fresh keys, the certificate
// from ca, the CA and box.json last, so that a directory with box.json is whole.
func Enrol(dir string, ca *CA, box Box) error {
	key, err := MakeKey(filepath.Join(dir, "key.pem"))
	if err != nil {
		return err
	}
	seal, err := MakeSealKey(dir)
	if err != nil {
		return err
	}
	cert, err := ca.IssueDevice(box.ID, box.Site, Keys{Sign: key.Public(), Seal: seal.PublicKey()})
	if err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(dir, "cert.pem"), cert, 0o644); err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(dir, "ca.pem"), ca.PEM(), 0o644); err != nil {
		return err
	}
	return box.Write(dir)
}

// Write replaces box.json in dir.
func (b Box) Write(dir string) error {
	data, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return fmt.Errorf("encode box.json: %w", err)
	}
	return durable.WriteFile(filepath.Join(dir, "box.json"), append(data, '\n'), 0o600)
}

// Load reads the identity of an enrolled box whose key is in a file.
func Load(dir string) (*Identity, error) {
	return LoadKeyed(dir, func(dir string) (crypto.Signer, error) { return ReadKey(filepath.Join(dir, "key.pem")) })
}

// LoadKeyed is Load for a key that open finds, such as one in a TPM.
func LoadKeyed(dir string, open func(dir string) (crypto.Signer, error)) (*Identity, error) {
	data, err := os.ReadFile(filepath.Join(dir, "box.json"))
	if err != nil {
		return nil, fmt.Errorf("this box is not enrolled: %w", err)
	}
	var id Identity
	if err := json.Unmarshal(data, &id.Box); err != nil {
		return nil, fmt.Errorf("read box.json in %s: %w", dir, err)
	}
	if _, err := ParseID(string(id.ID)); err != nil {
		return nil, fmt.Errorf("read box.json in %s: %w", dir, err)
	}
	key, err := open(dir)
	if err != nil {
		return nil, fmt.Errorf("open box key: %w", err)
	}
	if id.Certificate, err = readCertificate(filepath.Join(dir, "cert.pem"), key); err != nil {
		return nil, err
	}
	roots, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		return nil, fmt.Errorf("read trusted roots: %w", err)
	}
	id.Roots = x509.NewCertPool()
	if !id.Roots.AppendCertsFromPEM(roots) {
		return nil, fmt.Errorf("%s holds no certificate", filepath.Join(dir, "ca.pem"))
	}
	return &id, nil
}

// readCertificate reads a chain, leaf first, and joins it with the leaf's key.
func readCertificate(path string, key crypto.Signer) (cert tls.Certificate, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return cert, fmt.Errorf("read box certificate: %w", err)
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		cert.Certificate = append(cert.Certificate, block.Bytes)
	}
	if len(cert.Certificate) == 0 {
		return cert, fmt.Errorf("read box certificate: %s holds none", path)
	}
	if cert.Leaf, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
		return cert, fmt.Errorf("read box certificate %s: %w", path, err)
	}
	if public, ok := cert.Leaf.PublicKey.(*ecdsa.PublicKey); !ok || !public.Equal(key.Public()) {
		return cert, fmt.Errorf("the certificate %s is not of the key beside it", path)
	}
	cert.PrivateKey = key
	return cert, nil
}

// ClientTLS is how the box talks to its controller: TLS 1.3, both sides proved.
func (id *Identity) ClientTLS(now func() time.Time) *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{id.Certificate},
		RootCAs:      id.Roots,
		ServerName:   id.Server,
		Time:         now,
	}
}

// BoxProtocol is what a box asks for by ALPN (RFC 7301) on the port of the web
// pages, so that it is asked for its certificate there and a browser never is.
const BoxProtocol = "edgeherd-box"

// PagesTLS is ClientTLS for the port of the web pages.
func (id *Identity) PagesTLS(now func() time.Time) *tls.Config {
	c := id.ClientTLS(now)
	c.NextProtos = []string{BoxProtocol, "http/1.1"}
	return c
}

// RenewProtocol is what a box asks for by ALPN when its certificate may have
// ended, or when it wants to know how it stands: on the port of files and on
// that of the pages. Nothing but paths below /api/device/ is served then.
const RenewProtocol = "edgeherd-renew"

// RenewTLS is ClientTLS for such a connection.
func (id *Identity) RenewTLS(now func() time.Time) *tls.Config {
	c := id.ClientTLS(now)
	c.NextProtos = []string{RenewProtocol, "http/1.1"}
	return c
}

// PeerID returns the box and site that a verified client certificate names.
func PeerID(cs tls.ConnectionState) (ID, string, error) {
	if len(cs.VerifiedChains) == 0 {
		return "", "", errors.New("client showed no verified certificate")
	}
	subject := cs.VerifiedChains[0][0].Subject
	id, err := ParseID(subject.CommonName)
	if err != nil {
		return "", "", fmt.Errorf("client certificate: %w", err)
	}
	var site string
	for _, ou := range subject.OrganizationalUnit {
		if s, ok := strings.CutPrefix(ou, "site:"); ok {
			site = s
		}
	}
	return id, site, nil
}
