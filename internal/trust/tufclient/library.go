package tufclient

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/edgeherd/edgeherd/internal/trust/tufrepo"
)

// This file stands between the walk and the library, which takes some things of
// a document for granted that whoever serves or signs it may leave out.

// take hands a document to the library, which verifies it.
func take[T any](role string, data []byte, update func([]byte) (*T, error)) (m *T, err error) {
	if err := wellFormed(role, data); err != nil {
		return nil, err
	}
	// The library follows what it found in the document, also before it has
	// verified it: a null where an object should be must not end the agent.
	defer recovered(&err)
	return update(data)
}

// wellFormed checks what the library does not: the version of the specification
// (4.3) and that what is named has a version. A timestamp or snapshot without
// that, once taken, could not be compared with any later one.
func wellFormed(role string, data []byte) error {
	var d struct {
		Signed struct {
			Spec string `json:"spec_version"`
			Meta map[string]*struct {
				Version int64 `json:"version"`
			} `json:"meta"`
		} `json:"signed"`
	}
	// As the library reads it: of a name that JSON has twice it may take another one.
	data, err := tufrepo.Normal(data)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, &d); err != nil {
		return fmt.Errorf("parse metadata: %w", err)
	}
	if major, _, _ := strings.Cut(d.Signed.Spec, "."); major != "1" {
		return fmt.Errorf("it is of version %q of the TUF specification, known is 1", d.Signed.Spec)
	}
	for name, file := range d.Signed.Meta {
		if file == nil || file.Version < 1 {
			return fmt.Errorf("it names no version of %s", name)
		}
	}
	if role == tufrepo.RoleTimestamp && d.Signed.Meta["snapshot.json"] == nil {
		return errors.New("it names no snapshot")
	}
	return nil
}

// reserved are names that have a place among the documents: a delegation to one
// of them would put another's document there.
func reserved(role string) bool {
	return role == docTime || slices.Contains(metadata.TOP_LEVEL_ROLE_NAMES[:], role)
}

// delegated are the delegations that a path falls under, in their order. The
// library compares path_hash_prefixes with the hash in Base64; they are
// hexadecimal (4.5).
func delegated(d *metadata.Delegations, path string) []metadata.RoleResult {
	if d.Roles == nil {
		return d.GetRolesForTarget(path)
	}
	sum := sha256.Sum256([]byte(path))
	bin := hex.EncodeToString(sum[:])
	var out []metadata.RoleResult
	for _, r := range d.Roles {
		ok, err := r.IsDelegatedPath(path)
		if len(r.Paths) == 0 {
			ok = slices.ContainsFunc(r.PathHashPrefixes, func(p string) bool { return strings.HasPrefix(bin, p) })
		}
		if ok && err == nil {
			out = append(out, metadata.RoleResult{Name: r.Name, Terminating: r.Terminating})
		}
	}
	return out
}
