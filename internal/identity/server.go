package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// PagesTLS is how one port serves browsers and boxes: to whom offers
// BoxProtocol it is ServerTLS, to whom offers RenewProtocol that of DeviceTLS,
// each with HTTP/1.1 inside; to everyone else it is the TLS of web pages, and no
// certificate is asked for.
func (ca *CA) PagesTLS(cert tls.Certificate, admit func(ID) error) *tls.Config {
	boxes := ca.ServerTLS(cert, admit)
	boxes.NextProtos = []string{"http/1.1"}
	renewals := ca.renewTLS(cert)
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: ca.serving(cert),
		NextProtos:     []string{"h2", "http/1.1"},
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			switch {
			case slices.Contains(hello.SupportedProtos, BoxProtocol):
				return boxes, nil
			case slices.Contains(hello.SupportedProtos, RenewProtocol):
				return renewals, nil
			}
			return nil, nil // the configuration at hand
		},
	}
}

// DeviceTLS is ServerTLS for a port on which boxes may renew as well.
func (ca *CA) DeviceTLS(cert tls.Certificate, admit func(ID) error) *tls.Config {
	boxes, renewals := ca.ServerTLS(cert, admit), ca.renewTLS(cert)
	boxes.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if slices.Contains(hello.SupportedProtos, RenewProtocol) {
			return renewals, nil
		}
		return nil, nil
	}
	return boxes
}

// ServerTLS is the device side of the controller: every client must prove to
// be a box of this CA, and admit decides about it at each handshake, resumed
// or not (VerifyPeerCertificate would be skipped on resumption).
func (ca *CA) ServerTLS(cert tls.Certificate, admit func(ID) error) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		GetCertificate:         ca.serving(cert),
		ClientAuth:             tls.RequireAndVerifyClientCert,
		ClientCAs:              ca.Pool(),
		SessionTicketsDisabled: true,
		Time:                   ca.now,
		VerifyConnection: func(cs tls.ConnectionState) error {
			id, _, err := PeerID(cs)
			if err != nil {
				return err
			}
			return admit(id)
		},
	}
}

// renewTLS asks for a certificate and lets it be an ended one. Such a connection
// has no VerifiedChains; only Renewing says who is there.
func (ca *CA) renewTLS(cert tls.Certificate) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		GetCertificate:         ca.serving(cert),
		ClientAuth:             tls.RequireAnyClientCert,
		ClientCAs:              ca.Pool(),
		SessionTicketsDisabled: true,
		NextProtos:             []string{"http/1.1"},
		Time:                   ca.now,
		VerifyConnection: func(cs tls.ConnectionState) error {
			_, err := ca.Renewing(cs)
			return err
		},
	}
}

// serving shows a server's certificate, and makes the next one for the same
// names when half of its life is over: a controller may run for years.
func (ca *CA) serving(cert tls.Certificate) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	var mu sync.Mutex
	now := &cert
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		mu.Lock()
		defer mu.Unlock()
		leaf := now.Leaf
		if leaf == nil || ca.now().Before(leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore)/2)) {
			return now, nil
		}
		hosts := slices.Clone(leaf.DNSNames)
		for _, ip := range leaf.IPAddresses {
			hosts = append(hosts, ip.String())
		}
		next, err := ca.IssueServer(hosts)
		if err != nil {
			return now, nil // it is good for as long again
		}
		now = &next
		return now, nil
	}
}

// Renewing returns the certificate of a box on a connection of RenewProtocol, or
// on an ordinary one. It is one of this CA; it may have ended.
func (ca *CA) Renewing(cs tls.ConnectionState) (*x509.Certificate, error) {
	if len(cs.PeerCertificates) == 0 {
		return nil, errors.New("client showed no certificate")
	}
	leaf, between := cs.PeerCertificates[0], x509.NewCertPool()
	for _, c := range cs.PeerCertificates[1:] {
		between.AddCert(c)
	}
	at := ca.now()
	if at.After(leaf.NotAfter) {
		at = leaf.NotAfter.Add(-time.Second) // when it was still good
	}
	if _, err := leaf.Verify(x509.VerifyOptions{
		Roots: ca.Pool(), Intermediates: between, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}); err != nil {
		return nil, fmt.Errorf("judge the certificate of a box: %w", err)
	}
	if _, err := ParseID(leaf.Subject.CommonName); err != nil {
		return nil, fmt.Errorf("client certificate: %w", err)
	}
	return leaf, nil
}
