package identity

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/edgeherd/edgeherd/internal/durable"
)

// A rollover replaces the root without locking anybody out, in three steps with
// time between them. Each may be repeated, and a crash in the middle of one
// leaves the state before it or after it.
//
//	Begin   a second root joins ca.pem: boxes learn it when they renew, tokens
//	        carry both pins
//	Switch  the second root signs from now on; the first has vouched for it
//	        (cross.pem), so that whoever trusts only the first still gets in
//	Finish  the first root leaves ca.pem
//
// A controller takes a step up at its next start.

const nextKey = "next-ca-key.pem"

// BeginRollover makes the next root.
func BeginRollover(ca *CA, dir string) error {
	if len(ca.roots) > 1 {
		return errors.New("a rollover has begun already: switch to the new root, or finish")
	}
	key, err := ca.readKey(filepath.Join(dir, nextKey))
	if errors.Is(err, fs.ErrNotExist) {
		key, err = ca.makeKey(filepath.Join(dir, nextKey))
	}
	if err != nil {
		return err
	}
	next, err := newRoot(key, ca.now())
	if err != nil {
		return err
	}
	roots := append(ca.Roots(), next)
	if err := durable.WriteFile(filepath.Join(dir, "ca.pem"), encodeRoots(roots), 0o644); err != nil {
		return err
	}
	ca.roots = roots
	return nil
}

// SwitchRollover lets the next root sign.
func SwitchRollover(ca *CA, dir string) error {
	key, err := ca.readKey(filepath.Join(dir, nextKey))
	if errors.Is(err, fs.ErrNotExist) || len(ca.roots) < 2 {
		return errors.New("no rollover has begun, or it was switched already")
	}
	if err != nil {
		return err
	}
	if key.PublicKey.Equal(ca.roots[0].PublicKey) { // the last attempt ended right after the switch
		return durable.Remove(filepath.Join(dir, nextKey))
	}
	next := ca.roots[1]
	if !key.PublicKey.Equal(next.PublicKey) {
		return fmt.Errorf("%s is not the key of the second certificate in ca.pem", nextKey)
	}
	if ca.key == nil {
		return errors.New("the key of the present root is needed once more: bring ca-key.pem back")
	}
	// The same name and key, signed by the root of before.
	cross, err := sign(&x509.Certificate{
		Subject: next.Subject, NotBefore: next.NotBefore, NotAfter: ca.roots[0].NotAfter, SubjectKeyId: next.SubjectKeyId,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: next.KeyUsage,
	}, ca.roots[0], next.PublicKey, ca.key)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(dir, "cross.pem"), encodeCerts(cross.Raw), 0o644); err != nil {
		return err
	}
	if err := ca.writeKey(filepath.Join(dir, "ca-key.pem"), key); err != nil { // the switch
		return err
	}
	if err := durable.Remove(filepath.Join(dir, nextKey)); err != nil {
		return err
	}
	return ca.open(dir) // makes new issuing authorities
}

// FinishRollover has everyone trust the new root alone.
func FinishRollover(ca *CA, dir string) error {
	if ca.cross == nil {
		return errors.New("the new root does not sign yet: switch first")
	}
	if err := durable.WriteFile(filepath.Join(dir, "ca.pem"), encodeRoots(ca.roots[:1]), 0o644); err != nil {
		return err
	}
	ca.roots, ca.cross = ca.roots[:1], nil
	return durable.Remove(filepath.Join(dir, "cross.pem"))
}

// Knows reports whether a box with this chain of certificates gets on once the
// root that signs now is the only one: that root stands above it, which no box is
// given without learning it. When the certificate ends plays no part.
func (ca *CA) Knows(chain []byte) bool {
	certs, err := parseCertificates(chain)
	if err != nil {
		return false
	}
	now, between := x509.NewCertPool(), x509.NewCertPool()
	now.AddCert(ca.roots[0])
	for _, c := range certs[1:] {
		between.AddCert(c)
	}
	_, err = certs[0].Verify(x509.VerifyOptions{Roots: now, Intermediates: between, CurrentTime: certs[0].NotBefore, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return err == nil
}

func encodeRoots(roots []*x509.Certificate) (out []byte) {
	for _, r := range roots {
		out = append(out, encodeCerts(r.Raw)...)
	}
	return out
}
