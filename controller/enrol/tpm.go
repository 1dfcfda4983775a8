package enrol

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/enrol"
)

// chip is a TPM that is said to hold a key.
type chip struct {
	id   string // SHA-256 of the endorsement key, hexadecimal
	ek   *tpm2.TPMTPublic
	name []byte // of the key
}

// readChip checks that the public area of the key is that of the signing
// request, and that such a key cannot leave its TPM.
func readChip(t enrol.TPM, public crypto.PublicKey) (*chip, error) {
	ek, err := tpm2.Unmarshal[tpm2.TPMTPublic](t.EKPublic)
	if err != nil {
		return nil, fmt.Errorf("read the endorsement key: %w", err)
	}
	if !ek.ObjectAttributes.Restricted || !ek.ObjectAttributes.Decrypt || !ek.ObjectAttributes.FixedTPM {
		return nil, errors.New("the endorsement key is none: it must be a restricted decryption key of the TPM")
	}
	area, err := tpm2.Unmarshal[tpm2.TPMTPublic](t.KeyPublic)
	if err != nil {
		return nil, fmt.Errorf("read the public area of the key: %w", err)
	}
	a := area.ObjectAttributes
	if !a.FixedTPM || !a.FixedParent || !a.SensitiveDataOrigin {
		return nil, errors.New("the key could leave its TPM, or came from outside")
	}
	key, err := tpm2.Pub(*area)
	if err != nil {
		return nil, fmt.Errorf("read the key: %w", err)
	}
	if ec, ok := key.(*ecdsa.PublicKey); !ok || !ec.Equal(public) {
		return nil, errors.New("the key in the TPM is not the one of the signing request")
	}
	name, err := tpm2.ObjectName(area)
	if err != nil {
		return nil, fmt.Errorf("name the key: %w", err)
	}
	sum := sha256.Sum256(t.EKPublic)
	return &chip{id: hex.EncodeToString(sum[:]), ek: ek, name: name.Buffer}, nil
}

// challenge makes what only the TPM with both keys can open, and notes what it
// must find (TPM 2.0 Library, Part 1, "Credential Protection").
func (d *Desk) challenge(c *chip, r *store.EnrolRequest, out *enrol.Answer) error {
	pub, err := tpm2.ImportEncapsulationKey(c.ek)
	if err != nil {
		return fmt.Errorf("use the endorsement key: %w", err)
	}
	secret := make([]byte, 32)
	rand.Read(secret) // never fails since Go 1.24
	blob, wrapped, err := tpm2.CreateCredential(rand.Reader, pub, c.name, secret)
	if err != nil {
		return fmt.Errorf("make a challenge for the TPM: %w", err)
	}
	sum := sha256.Sum256(secret)
	r.Challenge, r.Proved = sum[:], false
	out.RequestID, out.Challenge = r.Key, &enrol.Challenge{CredentialBlob: blob, Secret: wrapped}
	return nil
}

// proves says whether an answer to a challenge is the right one.
func proves(r store.EnrolRequest, answer []byte) bool {
	sum := sha256.Sum256(answer)
	return len(r.Challenge) > 0 && subtle.ConstantTimeCompare(sum[:], r.Challenge) == 1
}
