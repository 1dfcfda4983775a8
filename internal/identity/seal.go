package identity

import (
	"crypto"
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
)

// A key that signs in a TPM cannot decrypt, so a box has a second one, of P-256
// as well, to which secrets are sealed with HPKE (RFC 9180). Its public half
// stands in the signing request, which the box's key signs, and from there in
// the certificate: who holds the certificate of a box can seal to that box.

// Keys are the public halves of a box's two keys.
type Keys struct {
	Sign crypto.PublicKey // *ecdsa.PublicKey of P-256
	Seal *ecdh.PublicKey  // nil: the box gets no secrets
}

// SealName and SealBefore are files of private keys: the one that the present
// certificate names, and the one of the certificate before, to which what the
// box got last may still be sealed.
const (
	SealName   = "seal.pem"
	SealBefore = "seal-before.pem"
)

// sealingID marks the extension with the public key, as an uncompressed point
// (SEC 1 section 2.3.3). The arc 2.999 is free for everyone (ITU-T X.660): only
// this authority and its boxes read the extension.
var sealingID = asn1.ObjectIdentifier{2, 999, 1, 1}

// SealingExtension carries a public key in a signing request or a certificate.
func SealingExtension(key *ecdh.PublicKey) pkix.Extension {
	return pkix.Extension{Id: sealingID, Value: key.Bytes()}
}

// SealingKey finds the key in the extensions of a request or a certificate; nil
// when there is none.
func SealingKey(extensions []pkix.Extension) (*ecdh.PublicKey, error) {
	for _, e := range extensions {
		if e.Id.Equal(sealingID) {
			return ParseSealing(e.Value)
		}
	}
	return nil, nil
}

// ParseSealing reads a public key as SealingExtension writes it.
func ParseSealing(point []byte) (*ecdh.PublicKey, error) {
	key, err := ecdh.P256().NewPublicKey(point)
	if err != nil {
		return nil, fmt.Errorf("sealing key is not a point of P-256: %w", err)
	}
	return key, nil
}

// SealingOf finds the key in a certificate.
func SealingOf(cert *x509.Certificate) (*ecdh.PublicKey, error) {
	return SealingKey(cert.Extensions)
}

// SealID names a sealing key in what was sealed to it.
func SealID(key *ecdh.PublicKey) string {
	sum := sha256.Sum256(key.Bytes())
	return hex.EncodeToString(sum[:8])
}

// MakeSealKey makes the sealing key of dir, or returns the one that is there.
func MakeSealKey(dir string) (*ecdh.PrivateKey, error) {
	path := filepath.Join(dir, SealName)
	have, err := ReadKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		have, err = MakeKey(path)
	}
	if err != nil {
		return nil, err
	}
	return have.ECDH()
}

// ReadSealKeys reads the sealing keys of dir that lie in files, the present one
// first; a box may have none.
func ReadSealKeys(dir string) (keys []ecdh.KeyExchanger, err error) {
	for _, name := range []string{SealName, SealBefore} {
		key, err := ReadKey(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read sealing key: %w", err)
		}
		private, err := key.ECDH()
		if err != nil {
			return nil, fmt.Errorf("read sealing key: %w", err)
		}
		keys = append(keys, private)
	}
	return keys, nil
}

// Seal seals a secret to one box under one name: what is moved to another box or
// under another name does not open.
func Seal(to *ecdh.PublicKey, box ID, name string, value []byte) ([]byte, error) {
	public, err := hpke.NewDHKEMPublicKey(to)
	if err != nil {
		return nil, fmt.Errorf("seal %s to %s: %w", name, box, err)
	}
	sealed, err := hpke.Seal(public, hpke.HKDFSHA256(), hpke.AES256GCM(), sealInfo(box, name), value)
	if err != nil {
		return nil, fmt.Errorf("seal %s to %s: %w", name, box, err)
	}
	return sealed, nil
}

// Unseal opens what Seal made.
func Unseal(with ecdh.KeyExchanger, box ID, name string, sealed []byte) ([]byte, error) {
	private, err := hpke.NewDHKEMPrivateKey(with)
	if err != nil {
		return nil, fmt.Errorf("unseal %s: %w", name, err)
	}
	value, err := hpke.Open(private, hpke.HKDFSHA256(), hpke.AES256GCM(), sealInfo(box, name), sealed)
	if err != nil {
		return nil, fmt.Errorf("unseal %s: it was sealed to another key, box or name: %w", name, err)
	}
	return value, nil
}

func sealInfo(box ID, name string) []byte {
	return []byte("edgeherd secret 1\x00" + string(box) + "\x00" + name)
}
