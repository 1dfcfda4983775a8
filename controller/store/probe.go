package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
)

// keepProbe carries what a box measured of a version into its later phases,
// which do not repeat it.
func keepProbe(ctx context.Context, t *tx, p Phase) (body string, err error) {
	var stored string
	err = t.QueryRow(ctx, `SELECT body FROM phase WHERE box = ? AND digest = ? AND rollout = ? FOR UPDATE`, p.Box, p.Digest, p.Rollout).Scan(&stored)
	if errors.Is(err, sql.ErrNoRows) {
		return p.Body, nil
	}
	if err != nil {
		return "", err
	}
	const key = "probe"
	var was, is map[string]json.RawMessage
	if json.Unmarshal([]byte(stored), &was) != nil || json.Unmarshal([]byte(p.Body), &is) != nil || is == nil {
		return p.Body, nil // not an object: kept as the box said it
	}
	probe, measured := was[key]
	if _, again := is[key]; again || !measured {
		return p.Body, nil
	}
	is[key] = probe
	text, err := json.Marshal(is)
	return string(text), err
}
