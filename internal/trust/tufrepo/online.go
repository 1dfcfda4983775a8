package tufrepo

import (
	"fmt"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/edgeherd/edgeherd/internal/trust"
)

// signedField is where timestamp says when it was signed: the newest time that
// a box without a clock can know. The specification lets a reader ignore it.
const signedField = "x-edgeherd-signed"

// Online signs snapshot and timestamp for the roles given: by name, the newest
// document of each. version must be above all that were ever signed, also after
// the controller's database came back from a backup, and so comes from the clock.
func Online(roles map[string][]byte, version int64, now time.Time, key trust.Signer) (snapshot, timestamp []byte, err error) {
	expires := now.Add(OnlineLife).UTC().Truncate(time.Second)
	s := metadata.Snapshot(expires)
	s.Signed.Version = version
	for role, data := range roles {
		head, err := ParseHead(data)
		if err != nil {
			return nil, nil, fmt.Errorf("role %s: %w", role, err)
		}
		s.Signed.Meta[role+".json"] = &metadata.MetaFiles{Version: head.Version, Length: int64(len(data)), Hashes: sum(data)}
	}
	if snapshot, err = signedBy(s, key); err != nil {
		return nil, nil, err
	}
	t := metadata.Timestamp(expires)
	t.Signed.Version = version
	t.Signed.Meta["snapshot.json"] = &metadata.MetaFiles{Version: version, Length: int64(len(snapshot)), Hashes: sum(snapshot)}
	t.Signed.UnrecognizedFields = map[string]any{signedField: now.UTC().Format(time.RFC3339)}
	timestamp, err = signedBy(t, key)
	return snapshot, timestamp, err
}

func signedBy(m interface{ ToBytes(bool) ([]byte, error) }, key trust.Signer) ([]byte, error) {
	data, err := m.ToBytes(false)
	if err != nil {
		return nil, fmt.Errorf("encode metadata: %w", err)
	}
	return Sign(data, key)
}

// SignedAt is when a timestamp was signed, by its own words.
func SignedAt(m *metadata.Metadata[metadata.TimestampType]) (time.Time, bool) {
	text, ok := m.Signed.UnrecognizedFields[signedField].(string)
	if !ok {
		return time.Time{}, false
	}
	at, err := time.Parse(time.RFC3339, text)
	return at, err == nil
}
