package tufrepo

import (
	"fmt"
	"slices"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/edgeherd/edgeherd/internal/trust"
)

// Root says which keys sign the roles that every repository has.
type Root struct {
	Version int64
	Expires time.Time
	Root    Keys
	Targets Keys
	// Online are the keys of snapshot and timestamp: of the controller.
	Online Keys
}

// Encode returns the document, not signed yet.
func (r Root) Encode() ([]byte, error) {
	m := metadata.Root(r.Expires.UTC().Truncate(time.Second))
	m.Signed.Version = r.Version
	for role, keys := range map[string]Keys{RoleRoot: r.Root, RoleTargets: r.Targets, RoleSnapshot: r.Online, RoleTimestamp: r.Online} {
		if err := keys.check(role); err != nil {
			return nil, err
		}
		for _, p := range keys.Public {
			k, _, err := tufKey(p)
			if err != nil {
				return nil, err
			}
			if err := m.Signed.AddKey(k, role); err != nil {
				return nil, fmt.Errorf("add key %s: %w", p.ID(), err)
			}
		}
		m.Signed.Roles[role].Threshold = keys.Threshold
		slices.Sort(m.Signed.Roles[role].KeyIDs)
	}
	return m.ToBytes(false)
}

// ParseRoot reads a root for its next version.
func ParseRoot(data []byte) (Root, error) {
	m, err := read(data, metadata.Root().FromBytes)
	if err != nil {
		return Root{}, fmt.Errorf("parse root: %w", err)
	}
	r := Root{Version: m.Signed.Version, Expires: m.Signed.Expires}
	for role, into := range map[string]*Keys{RoleRoot: &r.Root, RoleTargets: &r.Targets, RoleTimestamp: &r.Online} {
		have := m.Signed.Roles[role]
		if have == nil {
			return Root{}, fmt.Errorf("parse root: it names no keys for %s", role)
		}
		if *into, err = parseKeys(have.KeyIDs, have.Threshold, m.Signed.Keys); err != nil {
			return Root{}, fmt.Errorf("parse root: role %s: %w", role, err)
		}
	}
	return r, nil
}

func parseKeys(ids []string, threshold int, all map[string]*metadata.Key) (Keys, error) {
	out := Keys{Threshold: threshold, Public: []trust.PublicKey{}}
	for _, id := range ids {
		k := all[id]
		if k == nil {
			return Keys{}, fmt.Errorf("key %.16s is missing", id)
		}
		public, err := k.ToPublicKey()
		if err != nil {
			return Keys{}, fmt.Errorf("key %.16s: %w", id, err)
		}
		p, err := trust.PublicKeyOf(public)
		if err != nil {
			return Keys{}, fmt.Errorf("key %.16s: %w", id, err)
		}
		out.Public = append(out.Public, p)
	}
	return out, nil
}
