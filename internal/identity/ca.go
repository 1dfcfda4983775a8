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
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/trust/keyfile"
)

// How long certificates live. Boxes renew at half life.
const (
	caLife      = 20 * 365 * 24 * time.Hour
	issuingLife = 3 * 365 * 24 * time.Hour
	serverLife  = 365 * 24 * time.Hour
	deviceLife  = 30 * 24 * time.Hour // unless CA.DeviceLife says otherwise
)

// MinDeviceLife and MaxDeviceLife bound CA.DeviceLife: agents look every five
// minutes whether half of it is over, and authorities begin authorityLead early.
const (
	MinDeviceLife = 24 * time.Hour
	MaxDeviceLife = 60 * 24 * time.Hour
)

// Authorities begin before they were made: a box whose clock is behind judges by
// the beginning of its own certificate, which may be as old as MaxDeviceLife.
const authorityLead = 90 * 24 * time.Hour

// A CA is the certificate authority of one fleet: a root, which boxes trust and
// whose public key tokens pin, and below it one authority that issues for boxes
// and one that issues for servers. In its folder:
//
//	ca.pem             roots that boxes trust; two while one replaces the other
//	ca-key.pem         key of the root; it may be taken away once the others are there
//	issuing-device.pem certificate and key, for boxes
//	issuing-server.pem certificate and key, for listeners
//	issuing-device-before.pem  the one for boxes that was replaced last, if any
//	crl.pem            revoked certificates of boxes, for brokers of others
//
// and during a rollover next-ca-key.pem, then cross.pem (see rollover.go).
type CA struct {
	// DeviceLife is how long certificates of boxes last; 0: 30 days. Set it before
	// the first is issued.
	DeviceLife time.Duration

	roots  []*x509.Certificate // the active one first
	key    *ecdsa.PrivateKey   // of the active root; nil: kept elsewhere
	cross  *x509.Certificate   // the active root, signed by the one before; or nil
	device issuing
	server issuing
	before issuing // for boxes, the last; or nothing
	now    func() time.Time
	keys   *keyfile.Lock // of the files that hold keys; nil: in plain text
}

// issuing is an authority below the root.
type issuing struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// OpenCA reads the folder of a CA, and makes what is missing. Roots without any
// key are an error: new ones would lock out every box. now is the wall clock;
// nil means time.Now.
func OpenCA(dir string, now func() time.Time) (*CA, error) { return OpenSealedCA(dir, now, nil) }

// OpenSealedCA is OpenCA for keys that are sealed on the disk; those that are
// not yet are sealed now.
func OpenSealedCA(dir string, now func() time.Time, keys *keyfile.Lock) (*CA, error) {
	if now == nil {
		now = time.Now
	}
	ca := &CA{now: now, keys: keys}
	if err := ca.open(dir); err != nil {
		return nil, fmt.Errorf("open certificate authority in %s: %w", dir, err)
	}
	return ca, nil
}

func (ca *CA) open(dir string) (err error) {
	certPath, keyPath := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "ca-key.pem")
	if ca.roots, err = ReadCertificates(certPath); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	missing := err != nil
	if ca.key, err = ca.readKey(keyPath); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if ca.key == nil && missing {
		if _, err := os.Stat(filepath.Join(dir, "issuing-device.pem")); !errors.Is(err, fs.ErrNotExist) {
			return errors.New("ca.pem is missing, and so is the root's key: bring both back from a backup")
		}
		if ca.key, err = ca.makeKey(keyPath); err != nil {
			return err
		}
	}
	if missing {
		// The first start, or one that was cut short. Boxes that trust an
		// earlier certificate of this key trust what the new one issues.
		if err := ca.makeRoot(certPath); err != nil {
			return err
		}
	}
	if err := ca.openIssuing(dir); err != nil {
		return err
	}
	if err := ca.activate(); err != nil {
		return err
	}
	cross, err := ReadCertificates(filepath.Join(dir, "cross.pem"))
	if err == nil && samePublic(cross[0], ca.roots[0]) {
		ca.cross = cross[0]
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// activate puts the root first that signs now: the one of the key, or else the
// one above the issuing authorities.
func (ca *CA) activate() error {
	for i, r := range ca.roots {
		if ca.key != nil && ca.key.PublicKey.Equal(r.PublicKey) || ca.key == nil && ca.device.cert.CheckSignatureFrom(r) == nil {
			ca.roots[0], ca.roots[i] = r, ca.roots[0]
			return nil
		}
	}
	return errors.New("ca-key.pem is not the key of a certificate in ca.pem: bring both back from one backup")
}

// openIssuing reads the two authorities, and has the root make them anew when
// they are missing, of another root, or in the last third of their life.
func (ca *CA) openIssuing(dir string) error {
	for _, k := range []struct {
		file string
		into *issuing
		name string
		use  x509.ExtKeyUsage
	}{
		{"issuing-device.pem", &ca.device, "edgeherd device CA", x509.ExtKeyUsageClientAuth},
		{"issuing-server.pem", &ca.server, "edgeherd server CA", x509.ExtKeyUsageServerAuth},
	} {
		path := filepath.Join(dir, k.file)
		have, err := ca.readIssuing(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err == nil {
			*k.into = have
		}
		if ca.key == nil {
			if err != nil {
				return fmt.Errorf("%s is missing, and so is the root's key: bring back ca-key.pem from a backup, or move ca.pem away and enrol every box anew", k.file)
			}
			continue
		}
		if err := ca.activate(); err != nil {
			return err
		}
		if err == nil && have.cert.CheckSignatureFrom(ca.roots[0]) == nil && have.cert.NotAfter.Sub(ca.now()) > issuingLife/3 {
			continue
		}
		if have.cert != nil && k.into == &ca.device {
			if err := ca.writeIssuing(filepath.Join(dir, beforeName), have); err != nil {
				return err
			}
		}
		if *k.into, err = ca.makeIssuing(path, k.name, k.use); err != nil {
			return err
		}
	}
	var err error
	if ca.before, err = ca.readIssuing(filepath.Join(dir, beforeName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (ca *CA) makeIssuing(path, name string, use x509.ExtKeyUsage) (issuing, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return issuing{}, fmt.Errorf("make key of %s: %w", name, err)
	}
	end := ca.now().Add(issuingLife)
	if root := ca.roots[0].NotAfter; root.Before(end) {
		end = root
	}
	cert, err := sign(&x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             ca.now().Add(-authorityLead),
		NotAfter:              end,
		IsCA:                  true,
		MaxPathLenZero:        true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		// Binds all below it: no certificate of a server proves a box.
		ExtKeyUsage: []x509.ExtKeyUsage{use},
	}, ca.roots[0], key.Public(), ca.key)
	if err != nil {
		return issuing{}, err
	}
	made := issuing{cert, key}
	return made, ca.writeIssuing(path, made)
}

// writeIssuing writes one file: certificate and key are never of two different
// ones.
func (ca *CA) writeIssuing(path string, a issuing) error {
	keyPEM, err := encodeKey(a.key)
	if err != nil {
		return err
	}
	return ca.keys.Write(path, append(encodeCerts(a.cert.Raw), keyPEM...))
}

func (ca *CA) readIssuing(path string) (issuing, error) {
	text, err := ca.keys.Load(path)
	if err != nil {
		return issuing{}, err
	}
	pair, err := tls.X509KeyPair(text, text)
	if err != nil {
		return issuing{}, fmt.Errorf("%s: %w", path, err)
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return issuing{}, fmt.Errorf("%s does not hold an ECDSA key", path)
	}
	return issuing{pair.Leaf, key}, nil
}

// ReadCertificates reads a file of certificates, PEM; at least one is in it.
func ReadCertificates(path string) (certs []*x509.Certificate, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if certs, err = parseCertificates(text); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return certs, nil
}

func parseCertificates(text []byte) (certs []*x509.Certificate, err error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, errors.New("it holds no certificate")
	}
	return certs, nil
}

func samePublic(a, b *x509.Certificate) bool {
	return string(a.RawSubjectPublicKeyInfo) == string(b.RawSubjectPublicKeyInfo)
}

// ReadKey reads the file of a private key: ECDSA, PKCS #8, PEM.
func ReadKey(path string) (*ecdsa.PrivateKey, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return ParseKey(path, data)
}

func (ca *CA) readKey(path string) (*ecdsa.PrivateKey, error) {
	data, err := ca.keys.Load(path)
	if err != nil {
		return nil, err
	}
	return ParseKey(path, data)
}

// ParseKey reads what a file of a private key holds.
func ParseKey(path string, data []byte) (*ecdsa.PrivateKey, error) {
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

// MakeKey makes a P-256 key and its file, which is on the disk when it returns.
func MakeKey(path string) (*ecdsa.PrivateKey, error) { return (&CA{}).makeKey(path) }

func (ca *CA) makeKey(path string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key %s: %w", path, err)
	}
	return key, ca.writeKey(path, key)
}

// makeRoot certifies the root's key by itself.
func (ca *CA) makeRoot(path string) error {
	cert, err := newRoot(ca.key, ca.now())
	if err != nil {
		return err
	}
	ca.roots = []*x509.Certificate{cert}
	return durable.WriteFile(path, encodeCerts(cert.Raw), 0o644)
}

func newRoot(key *ecdsa.PrivateKey, now time.Time) (*x509.Certificate, error) {
	tmpl := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "edgeherd fleet CA"},
		NotBefore:             now.Add(-authorityLead),
		NotAfter:              now.Add(caLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	return sign(tmpl, tmpl, key.Public(), key)
}

// sign makes a certificate and reads it back.
func sign(tmpl, parent *x509.Certificate, public any, key *ecdsa.PrivateKey) (*x509.Certificate, error) {
	tmpl.SerialNumber = serial()
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, public, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate of %s: %w", tmpl.Subject.CommonName, err)
	}
	return x509.ParseCertificate(der)
}

// Pool holds the roots.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	for _, r := range ca.roots {
		pool.AddCert(r)
	}
	return pool
}

// Roots are the certificates that boxes trust, the one that signs now first.
func (ca *CA) Roots() []*x509.Certificate { return slices.Clone(ca.roots) }

// PEM returns the roots for a box or a browser to trust.
func (ca *CA) PEM() []byte {
	var out []byte
	for _, r := range ca.roots {
		out = append(out, encodeCerts(r.Raw)...)
	}
	return out
}

// IssueDevice certifies the public keys of a box for DeviceLife, and returns the
// chain below the root. The subject is ours: what the box asked for plays no
// part.
func (ca *CA) IssueDevice(id ID, site string, keys Keys) (certPEM []byte, err error) {
	if k, ok := keys.Sign.(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P256() {
		return nil, errors.New("issue device certificate: the key is not ECDSA P-256")
	}
	life := ca.DeviceLife
	if life == 0 {
		life = deviceLife
	}
	tmpl := &x509.Certificate{
		Subject:     pkix.Name{CommonName: string(id), OrganizationalUnit: []string{"site:" + site}},
		NotAfter:    ca.now().Add(life),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if keys.Seal != nil {
		tmpl.ExtraExtensions = []pkix.Extension{SealingExtension(keys.Seal)}
	}
	return ca.issue(ca.device, tmpl, keys.Sign)
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
		NotBefore:   ca.now().Add(-MaxDeviceLife - 2*time.Hour),
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
	certPEM, err := ca.issue(ca.server, tmpl, key.Public())
	if err != nil {
		return tls.Certificate{}, err
	}
	// The root goes along: a box that enrols finds its pin there. During a
	// rollover the one before does so, too, with the link between them.
	certPEM = append(certPEM, encodeCerts(ca.roots[0].Raw)...)
	if ca.cross != nil {
		certPEM = append(certPEM, encodeCerts(ca.cross.Raw)...)
		for _, r := range ca.roots[1:] {
			certPEM = append(certPEM, encodeCerts(r.Raw)...)
		}
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(certPEM, keyPEM)
}

// issue returns a new certificate and the one of its authority.
func (ca *CA) issue(by issuing, tmpl *x509.Certificate, public any) ([]byte, error) {
	if tmpl.NotBefore.IsZero() {
		tmpl.NotBefore = ca.now().Add(-time.Hour)
	}
	if by.cert.NotAfter.Before(tmpl.NotAfter) {
		tmpl.NotAfter = by.cert.NotAfter // nothing outlives who vouches for it
	}
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature
	cert, err := sign(tmpl, by.cert, public, by.key)
	if err != nil {
		return nil, err
	}
	return encodeCerts(cert.Raw, by.cert.Raw), nil
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

func (ca *CA) writeKey(path string, key *ecdsa.PrivateKey) error {
	data, err := encodeKey(key)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return ca.keys.Write(path, data)
}
