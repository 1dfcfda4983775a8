// Package tpm keeps the private key of a box in its TPM 2.0, so that a copied
// disk holds nothing another machine could use.
//
// Vocabulary: a sealed key is the public part and the wrapped private part that
// TPM2_Create returns (TCG TPM 2.0 Library, Part 3, section 12.1). Both lie on
// the disk; only the TPM that made them loads them again. Their parent is the
// storage key of the TCG reference template for P-256 (TCG EK Credential
// Profile and Provisioning Guidance, "SRK"), which the TPM derives anew at each
// use. No PCR is bound: a firmware update must not take a box's identity.
//
// The TPM is opened for each operation and let go of at once: nothing is held
// over a suspend, and other programs of the box reach it between.
//
// The one rule a caller can break: a Key is for TLS handshakes, which are few; a
// signature takes milliseconds, on some chips a third of a second.
package tpm

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"os"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"
)

// Device is where Linux shows a TPM 2.0 through its resource manager.
const Device = "/dev/tpmrm0"

// ErrAbsent says that a machine has no TPM 2.0.
var ErrAbsent = errors.New("this machine has no TPM 2.0")

// ErrForeign says that a sealed key belongs to another TPM: the disk was moved
// or copied, or the TPM was cleared.
var ErrForeign = errors.New("the key was sealed by another TPM, or this TPM was cleared")

// Sealed is a key as it lies on the disk. Neither part is a secret.
type Sealed struct {
	Public  []byte `json:"public"`  // TPM2B_PUBLIC without its length
	Private []byte `json:"private"` // TPM2B_PRIVATE without its length, wrapped
}

// TPM is a device file, or the socket of a simulated TPM.
type TPM struct{ path string }

// At names the TPM at path and looks whether it is there: Device, or the socket
// of swtpm. It returns ErrAbsent when nothing is there.
func At(path string) (TPM, error) {
	t := TPM{path: path}
	dev, err := t.open()
	if errors.Is(err, fs.ErrNotExist) {
		return TPM{}, ErrAbsent
	}
	if err != nil {
		return TPM{}, err
	}
	return t, dev.Close()
}

func (t TPM) open() (transport.TPMCloser, error) {
	info, err := os.Stat(t.path)
	if err != nil {
		return nil, fmt.Errorf("open TPM: %w", err)
	}
	open := linuxtpm.Open
	if info.Mode()&fs.ModeSocket != 0 {
		open = linuxudstpm.Open
	}
	dev, err := open(t.path)
	if err != nil {
		return nil, fmt.Errorf("open TPM %s (is the user in the group tss?): %w", t.path, err)
	}
	return dev, nil
}

// with runs do with the storage key loaded.
func (t TPM) with(do func(dev transport.TPM, parent tpm2.NamedHandle) error) (err error) {
	dev, err := t.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dev.Close()) }()
	parent, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(dev)
	if err != nil {
		return fmt.Errorf("derive storage key of TPM %s: %w", t.path, err)
	}
	defer flush(dev, parent.ObjectHandle, &err)
	return do(dev, tpm2.NamedHandle{Handle: parent.ObjectHandle, Name: parent.Name})
}

// flush frees a slot of the TPM; without it, it has none left after a few keys.
func flush(dev transport.TPM, handle tpm2.TPMHandle, err *error) {
	if _, failed := (tpm2.FlushContext{FlushHandle: handle}).Execute(dev); failed != nil {
		*err = errors.Join(*err, fmt.Errorf("free TPM slot: %w", failed))
	}
}

// signing is an ECDSA P-256 key that never leaves its TPM.
var signing = tpm2.TPMTPublic{
	Type:    tpm2.TPMAlgECC,
	NameAlg: tpm2.TPMAlgSHA256,
	ObjectAttributes: tpm2.TPMAObject{
		FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, SignEncrypt: true, NoDA: true,
	},
	Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
		CurveID: tpm2.TPMECCNistP256,
		Scheme: tpm2.TPMTECCScheme{
			Scheme:  tpm2.TPMAlgECDSA,
			Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
		},
	}),
}

// Create makes a key that signs.
func (t TPM) Create() (Sealed, error) { return t.create(signing) }

func (t TPM) create(template tpm2.TPMTPublic) (Sealed, error) {
	var sealed Sealed
	err := t.with(func(dev transport.TPM, parent tpm2.NamedHandle) error {
		made, err := tpm2.Create{ParentHandle: parent, InPublic: tpm2.New2B(template)}.Execute(dev)
		if err != nil {
			return fmt.Errorf("make key in TPM %s: %w", t.path, err)
		}
		sealed = Sealed{Public: made.OutPublic.Bytes(), Private: made.OutPrivate.Buffer}
		return nil
	})
	return sealed, err
}

// Key is a sealed key that can sign. Safe for concurrent use.
type Key struct {
	tpm    TPM
	sealed Sealed
	public *ecdsa.PublicKey
	name   []byte
}

var _ crypto.Signer = (*Key)(nil)

// Key loads a sealed key once to see that this TPM takes it: ErrForeign when
// it does not.
func (t TPM) Key(s Sealed) (*Key, error) {
	k := &Key{tpm: t, sealed: s}
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](s.Public)
	if err != nil {
		return nil, fmt.Errorf("read public part of sealed key: %w", err)
	}
	if k.public, err = ecdsaKey(public); err != nil {
		return nil, err
	}
	return k, k.use(func(_ transport.TPM, key tpm2.NamedHandle) error {
		k.name = key.Name.Buffer
		return nil
	})
}

func ecdsaKey(public *tpm2.TPMTPublic) (*ecdsa.PublicKey, error) {
	params, err := public.Parameters.ECCDetail()
	if err != nil || params.CurveID != tpm2.TPMECCNistP256 {
		return nil, errors.New("sealed key is not of P-256")
	}
	point, err := public.Unique.ECC()
	if err != nil {
		return nil, fmt.Errorf("read public part of sealed key: %w", err)
	}
	raw := make([]byte, 65) // uncompressed point, SEC 1 section 2.3.3
	raw[0] = 4
	if len(point.X.Buffer) > 32 || len(point.Y.Buffer) > 32 {
		return nil, errors.New("sealed key is not of P-256")
	}
	copy(raw[33-len(point.X.Buffer):], point.X.Buffer)
	copy(raw[65-len(point.Y.Buffer):], point.Y.Buffer)
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), raw)
	if err != nil {
		return nil, fmt.Errorf("read public part of sealed key: %w", err)
	}
	return key, nil
}

// use runs do with the key loaded.
func (k *Key) use(do func(dev transport.TPM, key tpm2.NamedHandle) error) error {
	return k.tpm.with(func(dev transport.TPM, parent tpm2.NamedHandle) (err error) {
		loaded, err := tpm2.Load{
			ParentHandle: parent,
			InPrivate:    tpm2.TPM2BPrivate{Buffer: k.sealed.Private},
			InPublic:     tpm2.BytesAs2B[tpm2.TPMTPublic](k.sealed.Public),
		}.Execute(dev)
		if errors.Is(err, tpm2.TPMRCIntegrity) {
			return fmt.Errorf("load key into TPM %s: %w", k.tpm.path, ErrForeign)
		}
		if err != nil {
			return fmt.Errorf("load key into TPM %s: %w", k.tpm.path, err)
		}
		defer flush(dev, loaded.ObjectHandle, &err)
		return do(dev, tpm2.NamedHandle{Handle: loaded.ObjectHandle, Name: loaded.Name})
	})
}

// Public returns the *ecdsa.PublicKey.
func (k *Key) Public() crypto.PublicKey { return k.public }

// Name returns the TPM's name of the key, which a credential is bound to.
func (k *Key) Name() []byte { return k.name }

// Sign signs a SHA-256 digest; the result is ASN.1 as crypto/ecdsa makes it.
// The TPM draws the nonce.
func (k *Key) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts.HashFunc() != crypto.SHA256 {
		return nil, fmt.Errorf("TPM key signs SHA-256, not %s", opts.HashFunc())
	}
	var signature []byte
	err := k.use(func(dev transport.TPM, key tpm2.NamedHandle) error {
		signed, err := tpm2.Sign{
			KeyHandle:  key,
			Digest:     tpm2.TPM2BDigest{Buffer: digest},
			InScheme:   tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUSigScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSchemeHash{HashAlg: tpm2.TPMAlgSHA256})},
			Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck},
		}.Execute(dev)
		if err != nil {
			return fmt.Errorf("sign with TPM %s: %w", k.tpm.path, err)
		}
		rs, err := signed.Signature.Signature.ECDSA()
		if err != nil {
			return fmt.Errorf("read signature of TPM %s: %w", k.tpm.path, err)
		}
		signature, err = asn1.Marshal(struct{ R, S *big.Int }{
			new(big.Int).SetBytes(rs.SignatureR.Buffer), new(big.Int).SetBytes(rs.SignatureS.Buffer),
		})
		return err
	})
	return signature, err
}
