package trust

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// A KeyID is the first 16 hexadecimal digits of the SHA-256 of a public key.
type KeyID string

// Short is as much of it as people are shown.
func (id KeyID) Short() string { return string(id[:min(8, len(id))]) }

// A Signer signs with a key that it may keep to itself, as hardware does.
type Signer interface {
	Public() PublicKey
	// Sign returns the signature of a message, which Public().Verify takes.
	Sign(message []byte) ([]byte, error)
}

// PrivateKey is a Signer whose key (Ed25519) is in memory.
type PrivateKey struct{ key ed25519.PrivateKey }

// NewKey makes a signing key.
func NewKey() (PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return PrivateKey{}, fmt.Errorf("make signing key: %w", err)
	}
	return PrivateKey{key}, nil
}

const privatePrefix = "ed25519-private:"

// ParsePrivateKey reads the text form written by MarshalText.
func ParsePrivateKey(text []byte) (PrivateKey, error) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(string(text)), privatePrefix)
	if !ok {
		return PrivateKey{}, fmt.Errorf("signing key does not start with %q", privatePrefix)
	}
	seed, err := base64.StdEncoding.DecodeString(rest)
	if err != nil || len(seed) != ed25519.SeedSize {
		return PrivateKey{}, errors.New("signing key is not 32 bytes of base64")
	}
	return PrivateKey{ed25519.NewKeyFromSeed(seed)}, nil
}

// MarshalText returns the secret text form; keep it in a file of mode 0600.
func (k PrivateKey) MarshalText() ([]byte, error) {
	return []byte(privatePrefix + base64.StdEncoding.EncodeToString(k.key.Seed())), nil
}

// Sign implements Signer; it never fails.
func (k PrivateKey) Sign(message []byte) ([]byte, error) { return ed25519.Sign(k.key, message), nil }

// Public returns the checking half.
func (k PrivateKey) Public() PublicKey {
	p := PublicKey{kind: kindEd25519}
	copy(p.key[:], k.key.Public().(ed25519.PublicKey))
	return p
}

// PublicKey checks signatures: of Ed25519, or of ECDSA with P-256 and SHA-256,
// which is what hardware has. Two of the same key are equal. Its text form is
// "ed25519:" or "p256:" and base64.
type PublicKey struct {
	kind keyKind
	key  [p256Size]byte // an Ed25519 key fills 32 of them
}

type keyKind byte

const (
	kindEd25519 keyKind = iota
	kindP256
)

// p256Size is that of a point of P-256 in its uncompressed form (SEC 1, 2.3.3).
const p256Size = 65

const (
	ed25519Prefix = "ed25519:"
	p256Prefix    = "p256:"
)

// IsPublicKey says whether a word is meant as the text form of a public key.
func IsPublicKey(word string) bool {
	return strings.HasPrefix(word, ed25519Prefix) || strings.HasPrefix(word, p256Prefix)
}

// PublicKeyOf takes a key as the standard library has it.
func PublicKeyOf(key crypto.PublicKey) (PublicKey, error) {
	var p PublicKey
	switch k := key.(type) {
	case ed25519.PublicKey:
		if len(k) != ed25519.PublicKeySize {
			return p, fmt.Errorf("public key has %d bytes, want %d", len(k), ed25519.PublicKeySize)
		}
		copy(p.key[:], k)
		return p, nil
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return p, fmt.Errorf("public key is on the curve %s, want P-256", k.Curve.Params().Name)
		}
		point, err := k.Bytes()
		if err != nil {
			return p, fmt.Errorf("public key: %w", err)
		}
		p.kind = kindP256
		copy(p.key[:], point)
		return p, nil
	}
	return p, fmt.Errorf("public key is %T, want Ed25519 or ECDSA P-256", key)
}

// Standard returns the key as the standard library has it: ed25519.PublicKey or
// *ecdsa.PublicKey.
func (k PublicKey) Standard() crypto.PublicKey {
	if k.kind == kindP256 {
		key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), k.key[:])
		if err != nil {
			panic("trust: a public key that was made without being checked: " + err.Error())
		}
		return key
	}
	return ed25519.PublicKey(k.bytes())
}

// Verify says whether the signature is one of the message.
func (k PublicKey) Verify(message, signature []byte) bool {
	switch key := k.Standard().(type) {
	case *ecdsa.PublicKey:
		sum := sha256.Sum256(message)
		return ecdsa.VerifyASN1(key, sum[:], signature)
	case ed25519.PublicKey:
		return ed25519.Verify(key, message, signature)
	}
	return false
}

func (k PublicKey) bytes() []byte {
	if k.kind == kindP256 {
		return k.key[:]
	}
	return k.key[:ed25519.PublicKeySize]
}

func (k PublicKey) String() string {
	prefix := ed25519Prefix
	if k.kind == kindP256 {
		prefix = p256Prefix
	}
	return prefix + base64.StdEncoding.EncodeToString(k.bytes())
}

// ID names the key in envelopes and logs.
func (k PublicKey) ID() KeyID {
	sum := sha256.Sum256(k.bytes())
	return KeyID(hex.EncodeToString(sum[:8]))
}

// MarshalText implements encoding.TextMarshaler.
func (k PublicKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (k *PublicKey) UnmarshalText(text []byte) error {
	p := PublicKey{}
	rest, ok := strings.CutPrefix(string(text), ed25519Prefix)
	size := ed25519.PublicKeySize
	if !ok {
		if rest, ok = strings.CutPrefix(string(text), p256Prefix); !ok {
			return fmt.Errorf("public key starts with neither %q nor %q", ed25519Prefix, p256Prefix)
		}
		p.kind, size = kindP256, p256Size
	}
	raw, err := base64.StdEncoding.DecodeString(rest)
	if err != nil || len(raw) != size {
		return fmt.Errorf("public key is not %d bytes of base64", size)
	}
	copy(p.key[:], raw)
	if p.kind == kindP256 {
		if _, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), raw); err != nil {
			return errors.New("public key is no point of P-256")
		}
	}
	*k = p
	return nil
}
