package tufrepo

import (
	"errors"
	"fmt"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Who signs the next version of a document vouches for what it takes over from
// the one before. That one comes from a controller, which may be in other hands.

// Normal reads a document with the library and writes it again: what is shown,
// what is compared and what is signed are the same then. JSON lets a key come
// twice, and readers differ in which one counts.
func Normal(data []byte) ([]byte, error) {
	head, err := ParseHead(data)
	if err != nil {
		return nil, err
	}
	var m interface{ ToBytes(bool) ([]byte, error) }
	switch head.Type {
	case RoleRoot:
		m, err = read(data, metadata.Root().FromBytes)
	case RoleTargets:
		m, err = read(data, metadata.Targets().FromBytes)
	case RoleSnapshot:
		m, err = read(data, metadata.Snapshot().FromBytes)
	case RoleTimestamp:
		m, err = read(data, metadata.Timestamp().FromBytes)
	default:
		return nil, fmt.Errorf("parse metadata: it is of type %q", head.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("parse metadata: %w", err)
	}
	out, err := m.ToBytes(false)
	if err != nil {
		return nil, fmt.Errorf("encode metadata: %w", err)
	}
	return out, nil
}

// ErrUnsigned says that a document is not signed by those who may sign it now.
var ErrUnsigned = errors.New("not signed by those who may sign it")

// CheckRoot checks the root of d; known is one that is trusted, nil: none is.
// A root that enough keys of the known one signed may be any number of versions
// newer.
func (d Documents) CheckRoot(known []byte) error {
	have, err := ParseRoot(d[RoleRoot])
	if err != nil {
		return err
	}
	if have.Root.Missing(d[RoleRoot]) > 0 {
		return fmt.Errorf("root version %d is %w", have.Version, ErrUnsigned)
	}
	if known == nil {
		return nil
	}
	was, err := ParseRoot(known)
	switch {
	case err != nil:
		return err
	case have.Version < was.Version:
		return fmt.Errorf("root version %d is older than version %d, which is known", have.Version, was.Version)
	case have.Version > was.Version && was.Root.Missing(d[RoleRoot]) > 0:
		return fmt.Errorf("root version %d is %w by version %d, which is known", have.Version, ErrUnsigned, was.Version)
	case have.Version == was.Version:
		if _, err := Merge(known, d[RoleRoot]); err != nil {
			return fmt.Errorf("root version %d is another one than is known: %w", have.Version, err)
		}
	}
	return nil
}

// CheckRole checks targets or a role that it delegates to, for a root that has
// been checked. One that nobody has published yet is good.
func (d Documents) CheckRole(role string) error {
	if d[role] == nil || role == RoleRoot {
		return nil
	}
	if role != RoleTargets {
		if err := d.CheckRole(RoleTargets); err != nil {
			return err
		}
	}
	if k := d.Keys(role); k.Threshold < 1 || k.Missing(d[role]) > 0 {
		return fmt.Errorf("the present version of %s is %w", role, ErrUnsigned)
	}
	return nil
}

// ErrOlder says that somebody shows an older version than one that is known.
var ErrOlder = errors.New("is older than a version that is known")

// CheckKnown holds what is shown of a role against a version that people signed
// before, as boxes do: an older one was signed by the same keys, and has back what
// was revoked or retired since. known may be nil.
func (d Documents) CheckKnown(role string, known []byte) error {
	if known == nil {
		return nil
	}
	was, err := ParseHead(known)
	if err != nil {
		return err
	}
	have := Head{}
	if d[role] != nil {
		if have, err = ParseHead(d[role]); err != nil {
			return err
		}
	}
	switch {
	case have.Version < was.Version:
		return fmt.Errorf("version %d of %s %w: version %d", have.Version, role, ErrOlder, was.Version)
	case have.Version == was.Version:
		if _, err := Merge(known, d[role]); err != nil {
			return fmt.Errorf("version %d of %s is another one than is known: %w", have.Version, role, err)
		}
	}
	return nil
}
