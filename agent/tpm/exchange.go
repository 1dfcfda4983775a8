package tpm

import (
	"crypto/ecdh"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// exchanging is a P-256 key for ECDH that never leaves its TPM. A key that signs
// must not decrypt as well (TCG TPM 2.0 Library, Part 1, section 27.2.1: signing
// and decryption keys are kept apart), so a box has one of each.
var exchanging = tpm2.TPMTPublic{
	Type:    tpm2.TPMAlgECC,
	NameAlg: tpm2.TPMAlgSHA256,
	ObjectAttributes: tpm2.TPMAObject{
		FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, Decrypt: true, NoDA: true,
	},
	Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: tpm2.TPMECCNistP256}),
}

// CreateExchange makes a key for ECDH.
func (t TPM) CreateExchange() (Sealed, error) { return t.create(exchanging) }

// Exchange is a sealed key for ECDH. Safe for concurrent use.
type Exchange struct {
	key    *Key
	public *ecdh.PublicKey
}

var _ ecdh.KeyExchanger = (*Exchange)(nil)

// Exchange loads a sealed key for ECDH once to see that this TPM takes it:
// ErrForeign when it does not.
func (t TPM) Exchange(s Sealed) (*Exchange, error) {
	key, err := t.Key(s)
	if err != nil {
		return nil, err
	}
	public, err := key.public.ECDH()
	if err != nil {
		return nil, fmt.Errorf("read public part of sealed key: %w", err)
	}
	return &Exchange{key, public}, nil
}

// PublicKey returns the public half.
func (e *Exchange) PublicKey() *ecdh.PublicKey { return e.public }

// Curve is P-256.
func (e *Exchange) Curve() ecdh.Curve { return ecdh.P256() }

// ECDH returns the x-coordinate of the shared point.
func (e *Exchange) ECDH(with *ecdh.PublicKey) ([]byte, error) {
	if with.Curve() != ecdh.P256() {
		return nil, fmt.Errorf("TPM key exchanges on P-256, not %v", with.Curve())
	}
	point := with.Bytes() // 4, x, y
	out := make([]byte, 32)
	err := e.key.use(func(dev transport.TPM, key tpm2.NamedHandle) error {
		shared, err := tpm2.ECDHZGen{KeyHandle: key, InPoint: tpm2.New2B(tpm2.TPMSECCPoint{
			X: tpm2.TPM2BECCParameter{Buffer: point[1:33]}, Y: tpm2.TPM2BECCParameter{Buffer: point[33:]},
		})}.Execute(dev)
		if err != nil {
			return fmt.Errorf("exchange with TPM %s: %w", e.key.tpm.path, err)
		}
		z, err := shared.OutPoint.Contents()
		if err != nil || len(z.X.Buffer) > len(out) {
			return fmt.Errorf("read shared point of TPM %s: %v", e.key.tpm.path, err)
		}
		copy(out[len(out)-len(z.X.Buffer):], z.X.Buffer) // some chips leave leading zeros out
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
