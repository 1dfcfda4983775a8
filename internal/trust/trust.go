// Package trust signs and opens the documents that boxes act on.
//
// Every document travels in a DSSE envelope (Dead Simple Signing Envelope,
// protocol v1.0.0) with a signature (Ed25519, or ECDSA P-256 of keys in hardware) over the payload type and the
// payload, so that a manifest can never be taken for a release. A Keyring says
// which public keys may sign which payload type; a box gets its keyring with
// its identity and trusts nothing else: not the broker, not the network.
//
// The one rule a caller can break: act only on the bytes that Open returns,
// never on the payload field of an envelope that was merely parsed.
package trust

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Payload types, one per kind of document.
const (
	TypeModel   = "application/vnd.edgeherd.model+json"
	TypeRelease = "application/vnd.edgeherd.release+json"
	TypeDesired = "application/vnd.edgeherd.desired+json"
	TypeAudit   = "application/vnd.edgeherd.audit-head+json"
	TypeRoot    = "application/vnd.edgeherd.root+json" // shown to boxes in development
)

// MaxEnvelopeBytes bounds what Open parses.
const MaxEnvelopeBytes = 4 << 20

// ErrUntrusted says that no key of the keyring signed the payload.
var ErrUntrusted = errors.New("not signed by a trusted key")

// ErrUnknownKey says that a proof is by a key that nobody has named.
var ErrUnknownKey = errors.New("signed by a key that is not known here")

// A Keyring lists the keys that may sign each payload type. Development is
// true when one throw-away key signs everything; pages and logs show it.
type Keyring struct {
	Development bool                   `json:"development"`
	Keys        map[string][]PublicKey `json:"keys"`
	// Targets says that models and releases are trusted by their digest, which
	// the fleet's metadata lists (package tufclient), and not by a signature of
	// their own. Open refuses them then; see OpenListed.
	Targets bool `json:"targets,omitempty"`
}

// DevelopmentKeyring trusts key for every payload type.
func DevelopmentKeyring(key PublicKey) Keyring {
	return Keyring{Development: true, Keys: map[string][]PublicKey{
		TypeModel: {key}, TypeRelease: {key}, TypeDesired: {key}, TypeAudit: {key}, TypeRoot: {key},
	}}
}

// ControllerKeyring trusts key for what a controller signs by itself, and the
// fleet's metadata for models and releases.
func ControllerKeyring(keys ...PublicKey) Keyring {
	return Keyring{Targets: true, Keys: map[string][]PublicKey{TypeDesired: keys, TypeAudit: keys}}
}

type signature struct {
	Key KeyID  `json:"keyid"`
	Sig []byte `json:"sig"`
}

type envelope struct {
	PayloadType string      `json:"payloadType"`
	Payload     []byte      `json:"payload"`
	Signatures  []signature `json:"signatures"`
}

// preAuth is DSSE's pre-authentication encoding: what is really signed.
func preAuth(payloadType string, payload []byte) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "DSSEv1 %d %s %d ", len(payloadType), payloadType, len(payload))
	b.Write(payload)
	return b.Bytes()
}

// Sign returns the envelope of payload. With Ed25519 the same input gives the same
// bytes.
func Sign(payloadType string, payload []byte, key Signer) ([]byte, error) {
	sig, err := key.Sign(preAuth(payloadType, payload))
	if err != nil {
		return nil, err
	}
	out, err := json.Marshal(envelope{
		PayloadType: payloadType,
		Payload:     payload,
		Signatures:  []signature{{Key: key.Public().ID(), Sig: sig}},
	})
	if err != nil {
		return nil, fmt.Errorf("encode envelope: %w", err)
	}
	return out, nil
}

// Open returns the payload of an envelope of the wanted type if one of the
// keys for that type signed it. Errors that are ErrUntrusted name the key ids.
func (r Keyring) Open(payloadType string, data []byte) ([]byte, error) {
	payload, _, err := r.Prove(payloadType, data)
	return payload, err
}

// Proof is the signature of an envelope by itself, for who can write the payload
// again.
type Proof struct {
	Key KeyID
	Sig []byte
}

// Prove is Open, and returns the signature that counted as well.
func (r Keyring) Prove(payloadType string, data []byte) ([]byte, Proof, error) {
	e, err := parse(payloadType, data)
	if err != nil {
		return nil, Proof{}, err
	}
	var ids []string
	for _, s := range e.Signatures {
		ids = append(ids, string(s.Key))
		if proof := Proof(s); r.Check(payloadType, e.Payload, proof) == nil {
			return e.Payload, proof, nil
		}
	}
	return nil, Proof{}, fmt.Errorf("%s signed by [%s]: %w", payloadType, strings.Join(ids, " "), ErrUntrusted)
}

// Check says whether the proof is one of the payload: ErrUnknownKey when its key
// is none of the keyring's for that type, ErrUntrusted when it did not sign.
func (r Keyring) Check(payloadType string, payload []byte, proof Proof) error {
	err := ErrUnknownKey
	for _, k := range r.Keys[payloadType] {
		if k.ID() != proof.Key {
			continue
		}
		if k.Verify(preAuth(payloadType, payload), proof.Sig) {
			return nil
		}
		err = ErrUntrusted
	}
	return err
}

// OpenListed is Open for an envelope whose digest somebody vouches for: the
// fleet's metadata, or active.json, where only what was vouched for is written.
// With Targets no signature of the envelope itself is looked at.
func (r Keyring) OpenListed(payloadType string, data []byte) ([]byte, error) {
	if !r.Targets || payloadType != TypeModel && payloadType != TypeRelease {
		return r.Open(payloadType, data)
	}
	e, err := parse(payloadType, data)
	if err != nil {
		return nil, err
	}
	return e.Payload, nil
}

func parse(payloadType string, data []byte) (e envelope, err error) {
	if len(data) > MaxEnvelopeBytes {
		return e, fmt.Errorf("envelope of %d bytes is longer than %d", len(data), MaxEnvelopeBytes)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&e); err != nil {
		return envelope{}, fmt.Errorf("parse envelope: %w", err)
	}
	if e.PayloadType != payloadType {
		return envelope{}, fmt.Errorf("envelope holds %q, want %q", e.PayloadType, payloadType)
	}
	return e, nil
}
