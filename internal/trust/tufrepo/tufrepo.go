// Package tufrepo makes and signs the metadata that says what boxes may run,
// in the form of The Update Framework (TUF, specification 1.0.31).
//
// Vocabulary: a role is a document with its own keys. root names the keys of
// root, targets, snapshot and timestamp. targets delegates to roles, one a kind
// and channel, and holds the Policy. A role lists targets: one for each version
// of a model or release, whose hash is the digest of its envelope. snapshot
// names the version of every role, timestamp that of the snapshot. A threshold
// says how many different keys must sign.
//
//	root, targets        offline, by people; years
//	agent, models-…      offline, by who publishes there; months
//	snapshot, timestamp  online, by the controller; 30 days, anew each day
//
// The Parse functions read the form alone: they serve to show a document and to
// make its next version. What a box acts on comes from package tufclient, which
// checks.
//
// The one rule a caller can break: never delete a root. A box that was away for
// years walks over every version of it.
package tufrepo

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/secure-systems-lab/go-securesystemslib/cjson"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/trust"
)

// The roles that every repository has.
const (
	RoleRoot      = metadata.ROOT
	RoleTargets   = metadata.TARGETS
	RoleSnapshot  = metadata.SNAPSHOT
	RoleTimestamp = metadata.TIMESTAMP
)

// How long documents are good.
const (
	RootLife    = 5 * 365 * 24 * time.Hour
	TargetsLife = 2 * 365 * 24 * time.Hour
	RoleLife    = 365 * 24 * time.Hour
	DevLife     = 180 * 24 * time.Hour // of channels named dev
	OnlineLife  = 30 * 24 * time.Hour
)

// MaxTargets bounds a role: parsing costs a box some 10 KB of memory a target.
const MaxTargets = 200

// Keys are those that may sign a role, and how many of them must.
type Keys struct {
	Public    []trust.PublicKey `json:"public"`
	Threshold int               `json:"threshold"`
}

func (k Keys) check(role string) error {
	seen := map[trust.KeyID]bool{}
	for _, p := range k.Public {
		seen[p.ID()] = true
	}
	if k.Threshold < 1 || len(seen) < k.Threshold || len(seen) != len(k.Public) {
		return fmt.Errorf("role %s needs %d of %d different keys: that cannot be fulfilled", role, k.Threshold, len(seen))
	}
	return nil
}

// IDs are those of the keys.
func (k Keys) IDs() []trust.KeyID {
	out := []trust.KeyID{}
	for _, p := range k.Public {
		out = append(out, p.ID())
	}
	return out
}

// Missing is how many more keys must sign a document.
func (k Keys) Missing(document []byte) int { return max(0, k.Threshold-len(k.Signed(document))) }

// Signed lists the keys of k that signed a document.
func (k Keys) Signed(document []byte) []trust.KeyID {
	msg, sigs, err := signed(document)
	if err != nil {
		return nil
	}
	var out []trust.KeyID
	for _, p := range k.Public {
		id, err := keyID(p)
		for _, s := range sigs {
			if err == nil && s.KeyID == id && p.Verify(msg, s.Signature) {
				out = append(out, p.ID())
				break
			}
		}
	}
	return out
}

// read is a parser of the library. It follows what it finds: a null where an
// object should be must not end the program.
func read[T metadata.Roles](data []byte, parse func([]byte) (*metadata.Metadata[T], error)) (m *metadata.Metadata[T], err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("malformed: %v", p)
		}
	}()
	return parse(data)
}

// document is any metadata without its meaning.
type document struct {
	Signed     json.RawMessage      `json:"signed"`
	Signatures []metadata.Signature `json:"signatures"`
}

// signed returns what the signatures of a document are over.
func signed(data []byte) ([]byte, []metadata.Signature, error) {
	var d document
	if err := json.Unmarshal(data, &d); err != nil {
		return nil, nil, fmt.Errorf("parse metadata: %w", err)
	}
	var body any
	if err := json.Unmarshal(d.Signed, &body); err != nil {
		return nil, nil, fmt.Errorf("parse metadata: %w", err)
	}
	msg, err := cjson.EncodeCanonical(body)
	if err != nil {
		return nil, nil, fmt.Errorf("canonical form of metadata: %w", err)
	}
	return msg, d.Signatures, nil
}

func tufKey(p trust.PublicKey) (*metadata.Key, string, error) {
	k, err := metadata.KeyFromPublicKey(p.Standard())
	if err != nil {
		return nil, "", fmt.Errorf("key %s: %w", p.ID(), err)
	}
	id, err := k.ID()
	return k, id, err
}

func keyID(p trust.PublicKey) (string, error) {
	_, id, err := tufKey(p)
	return id, err
}

// Sign adds signatures to a document. A key that has signed it signs anew.
func Sign(data []byte, keys ...trust.Signer) ([]byte, error) {
	msg, sigs, err := signed(data)
	if err != nil {
		return nil, err
	}
	var d document
	if err := json.Unmarshal(data, &d); err != nil {
		return nil, fmt.Errorf("parse metadata: %w", err)
	}
	d.Signatures = []metadata.Signature{}
	fresh := map[string]bool{}
	for _, k := range keys {
		id, err := keyID(k.Public())
		if err != nil {
			return nil, err
		}
		if !fresh[id] {
			sig, err := k.Sign(msg)
			if err != nil {
				return nil, err
			}
			d.Signatures = append(d.Signatures, metadata.Signature{KeyID: id, Signature: sig})
		}
		fresh[id] = true
	}
	for _, s := range sigs {
		if !fresh[s.KeyID] {
			d.Signatures = append(d.Signatures, s)
		}
	}
	return encode(d)
}

// Merge joins the signatures of two copies of one document.
func Merge(a, b []byte) ([]byte, error) {
	msgA, sigs, err := signed(a)
	if err != nil {
		return nil, err
	}
	msgB, more, err := signed(b)
	if err != nil {
		return nil, err
	}
	if string(msgA) != string(msgB) {
		return nil, ErrDiffer
	}
	var d document
	if err := json.Unmarshal(a, &d); err != nil {
		return nil, fmt.Errorf("parse metadata: %w", err)
	}
	have := map[string]bool{}
	for _, s := range sigs {
		have[s.KeyID] = true
	}
	for _, s := range more {
		if !have[s.KeyID] {
			d.Signatures = append(d.Signatures, s)
		}
	}
	return encode(d)
}

// ErrDiffer says that two documents are not copies of one another.
var ErrDiffer = errors.New("the two documents do not say the same")

func encode(v any) ([]byte, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode metadata: %w", err)
	}
	return data, nil
}

// Head is what every document says of itself.
type Head struct {
	Type    string    `json:"_type"`
	Version int64     `json:"version"`
	Expires time.Time `json:"expires"`
}

// ParseHead reads the head of a document.
func ParseHead(data []byte) (Head, error) {
	var d struct {
		Signed Head `json:"signed"`
	}
	if err := json.Unmarshal(data, &d); err != nil {
		return Head{}, fmt.Errorf("parse metadata: %w", err)
	}
	if d.Signed.Version < 1 || d.Signed.Type == "" {
		return Head{}, errors.New("parse metadata: no type or no version")
	}
	return d.Signed, nil
}

// FileName is the name under which a document is served.
func FileName(role string, version int64) string {
	if role == RoleTimestamp {
		return "timestamp.json"
	}
	return fmt.Sprintf("%d.%s.json", version, role)
}

// ParseFileName takes such a name apart; version 0 is the newest.
func ParseFileName(name string) (role string, version int64, err error) {
	base, ok := strings.CutSuffix(name, ".json")
	if number, rest, cut := strings.Cut(base, "."); ok && cut {
		if _, err := fmt.Sscanf(number, "%d", &version); err != nil || version < 1 || fmt.Sprint(version) != number {
			return "", 0, fmt.Errorf("%q names no metadata", name)
		}
		base = rest
	}
	if !ok || !ValidRole(base) {
		return "", 0, fmt.Errorf("%q names no metadata", name)
	}
	return base, version, nil
}

// ValidRole reports whether a role may have that name: lower case letters,
// digits and -, which are good in addresses and files.
func ValidRole(name string) bool {
	if name == "" || len(name) > 40 || strings.Trim(name, "-") != name {
		return false
	}
	return strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// sum is the SHA-256 of a document, in the form of the library.
func sum(data []byte) metadata.Hashes {
	d := blob.Sum(data)
	return metadata.Hashes{"sha256": d[:]}
}
