package identity

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"
)

// ListName is the file beside ca.pem with the list of revoked certificates.
const ListName = "crl.pem"

// beforeName holds the authority of boxes that was replaced last: certificates
// by it are good for a month more, and only it can revoke them.
const beforeName = "issuing-device-before.pem"

// Revoked is a certificate of a box that is good for nothing any more.
type Revoked struct {
	Serial string // hexadecimal
	Since  time.Time
}

// RevocationList makes what brokers of others judge certificates of boxes by:
// one list by each authority whose certificates may still be good (RFC 5280,
// section 5). It is good for a year, as a broker's certificate is: a list that
// has ended locks everybody out, and one that is late only those in whom nobody
// should have trusted.
func (ca *CA) RevocationList(revoked []Revoked) (out []byte, err error) {
	now := ca.now()
	list := &x509.RevocationList{Number: big.NewInt(now.UnixMilli()), ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(serverLife)}
	for _, r := range revoked {
		n, ok := new(big.Int).SetString(r.Serial, 16)
		if !ok {
			return nil, fmt.Errorf("list revoked certificates: %q is no serial number", r.Serial)
		}
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: n, RevocationTime: r.Since})
	}
	for _, by := range []issuing{ca.device, ca.before} {
		if by.cert == nil || by.cert.NotAfter.Before(now) {
			continue
		}
		der, err := x509.CreateRevocationList(rand.Reader, list, by.cert, by.key)
		if err != nil {
			return nil, fmt.Errorf("list revoked certificates: %w", err)
		}
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})...)
	}
	return out, nil
}
