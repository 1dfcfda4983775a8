package enrol

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A Pin is the SHA-256 of the public key (SubjectPublicKeyInfo) of a root
// authority. A root that was made anew with its old key keeps its pin.
type Pin [sha256.Size]byte

// PinOf returns the pin of an authority.
func PinOf(cert *x509.Certificate) Pin { return sha256.Sum256(cert.RawSubjectPublicKeyInfo) }

// String is the pin in 52 characters of base32.
func (p Pin) String() string { return base32s.EncodeToString(p[:]) }

// parsePin reads what String wrote.
func parsePin(s string) (Pin, error) {
	raw, err := base32s.DecodeString(s)
	// The last character has bits to spare; one form only.
	if err != nil || len(raw) != sha256.Size || base32s.EncodeToString(raw) != s {
		return Pin{}, fmt.Errorf("%q is not 256 bits of base32", s)
	}
	return Pin(raw), nil
}

// ErrPin says that the other side does not know the authority of the token:
// another controller, or somebody in between. Nothing secret was sent.
var ErrPin = errors.New("wrong controller or intercepted connection: its authority does not match this token; nothing was sent")

// ErrHost says that the controller is the right one under another name.
var ErrHost = errors.New("the controller's certificate does not bear the address of this token")

// clockSlack is how far beyond the beginning of a certificate a box without a
// clock is taken to be.
const clockSlack = time.Minute

// Verify checks a chain that a controller sent, leaf first: one of its
// authorities must have a pin of the token, and the leaf must be a server's for
// host and stand below that authority. A clock from before the leaf, as of a box
// without a battery, counts as the leaf's beginning: the pin carries the trust.
func (t Token) Verify(chain []*x509.Certificate, now time.Time) error {
	if len(chain) == 0 {
		return ErrPin
	}
	leaf, roots, between := chain[0], x509.NewCertPool(), x509.NewCertPool()
	found := false
	for _, c := range chain[1:] {
		if c.IsCA && slices.Contains(t.Pins, PinOf(c)) {
			roots.AddCert(c)
			found = true
		} else {
			between.AddCert(c)
		}
	}
	if !found {
		return ErrPin
	}
	if now.Before(leaf.NotBefore) {
		now = leaf.NotBefore.Add(clockSlack)
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &unknown) {
		return ErrPin // it shows our root and stands below another
	}
	if err != nil {
		return fmt.Errorf("judge the controller's certificate: %w", err)
	}
	if err := leaf.VerifyHostname(t.Host); err != nil {
		return fmt.Errorf("%w: %w", ErrHost, err)
	}
	return nil
}

// ClientTLS is how a box that is not a member yet talks to the controller of its
// token. Nothing is written before the pin was found. now is the wall clock; nil
// means time.Now.
func (t Token) ClientTLS(now func() time.Time) *tls.Config {
	if now == nil {
		now = time.Now
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: t.Host,
		NextProtos: []string{"http/1.1"},
		// Verify takes the place of the usual check, which knows no pins.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			return t.Verify(cs.PeerCertificates, now())
		},
	}
}

// ShortCode is six digits of a box's public key, given as SubjectPublicKeyInfo,
// for people to compare: 481-902. It tells boxes apart; it is no proof.
func ShortCode(spki []byte) string {
	sum := sha256.Sum256(append([]byte("edgeherd short code "), spki...))
	n := (uint64(sum[0])<<40 | uint64(sum[1])<<32 | uint64(sum[2])<<24 | uint64(sum[3])<<16 | uint64(sum[4])<<8 | uint64(sum[5])) % 1_000_000
	return fmt.Sprintf("%03d-%03d", n/1000, n%1000)
}

// KeyID names a public key, given as SubjectPublicKeyInfo, in requests, file
// names and rows: 16 of a-z2-7.
func KeyID(spki []byte) string {
	sum := sha256.Sum256(spki)
	return string(bytes.ToLower([]byte(base32s.EncodeToString(sum[:10]))))
}
