package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"time"
)

// clientLife is how long the certificate of a controller as a client lasts. A
// controller makes one at each start and after half of that.
const clientLife = 30 * 24 * time.Hour

// IssueClient makes a key and a certificate by which a controller proves itself
// to a broker of others. The name must not be one that a box could have.
func (ca *CA) IssueClient(name string) (tls.Certificate, error) {
	if _, err := ParseID(name); err == nil {
		return tls.Certificate{}, fmt.Errorf("issue client certificate: %s is the name of a box", name)
	}
	return ca.issuePair(&x509.Certificate{
		Subject:     pkix.Name{CommonName: name},
		NotAfter:    ca.now().Add(clientLife),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

// IssueProbe makes the certificate of a box that does not exist, good for an
// hour: with it a controller tries what a broker lets boxes do.
func (ca *CA) IssueProbe(id ID) (tls.Certificate, error) {
	if _, err := ParseID(string(id)); err != nil {
		return tls.Certificate{}, errors.Join(errors.New("issue probe certificate"), err)
	}
	return ca.issuePair(&x509.Certificate{
		Subject:     pkix.Name{CommonName: string(id), OrganizationalUnit: []string{"site:probe"}},
		NotAfter:    ca.now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

func (ca *CA) issuePair(tmpl *x509.Certificate) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make client key: %w", err)
	}
	certPEM, err := ca.issue(ca.device, tmpl, key.Public())
	if err != nil {
		return tls.Certificate{}, err
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(certPEM, keyPEM)
}

// IssueServerPEM is IssueServer as files: the certificate and its key, for a
// broker of others or a proxy that boxes reach first.
func (ca *CA) IssueServerPEM(hosts []string) (certPEM, keyPEM []byte, err error) {
	if len(hosts) == 0 {
		return nil, nil, errors.New("issue server certificate: no host")
	}
	pair, err := ca.IssueServer(hosts)
	if err != nil {
		return nil, nil, err
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, nil, fmt.Errorf("issue server certificate: its key is %T", pair.PrivateKey)
	}
	keyPEM, err = encodeKey(key)
	return encodeCerts(pair.Certificate...), keyPEM, err
}
