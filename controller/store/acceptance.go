package store

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// keepAcceptances is how many reports of one box are kept; the oldest go first.
const keepAcceptances = 50

// Acceptance is the report of an acceptance test.
type Acceptance struct {
	Summary fleetapi.Acceptance
	Digest  []byte // of what was signed
	Sealed  []byte // as the box sent it
}

// KeepAcceptance stores a report of a box. One that is there already is not
// added again; another one of the same id is ErrConflict.
func (s *Store) KeepAcceptance(ctx context.Context, box identity.ID, a Acceptance) (added bool, err error) {
	summary, err := json.Marshal(a.Summary)
	if err != nil {
		return false, fmt.Errorf("encode acceptance report: %w", err)
	}
	err = s.write(ctx, func(t *tx) error {
		added = false
		var digest []byte
		err := t.QueryRow(ctx, `SELECT digest FROM acceptance WHERE box = ? AND id = ?`, box, a.Summary.ID).Scan(&digest)
		switch {
		case err == nil && bytes.Equal(digest, a.Digest):
			return nil
		case err == nil:
			return fmt.Errorf("another acceptance report %s of %s is stored: %w", a.Summary.ID, box, ErrConflict)
		case !errors.Is(err, sql.ErrNoRows):
			return err
		}
		if _, err := t.Exec(ctx, `INSERT INTO acceptance (box, id, received_ms, digest, summary, sealed) VALUES (?,?,?,?,?,?)`,
			box, a.Summary.ID, a.Summary.Received.UnixMilli(), a.Digest, string(summary), a.Sealed); err != nil {
			return err
		}
		added = true
		_, err = t.Exec(ctx, `DELETE FROM acceptance WHERE box = ? AND id IN
			(SELECT id FROM acceptance WHERE box = ? ORDER BY received_ms DESC, id DESC LIMIT 1000 OFFSET ?)`, box, box, keepAcceptances)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("store acceptance report: %w", err)
	}
	return added, nil
}

// Acceptances lists the reports of a box, the newest first.
func (s *Store) Acceptances(ctx context.Context, box identity.ID) ([]fleetapi.Acceptance, error) {
	var out []fleetapi.Acceptance
	err := s.each(ctx, `SELECT summary FROM acceptance WHERE box = ? ORDER BY received_ms DESC, id DESC`, []any{box}, func(rows *sql.Rows) error {
		var text string
		if err := rows.Scan(&text); err != nil {
			return err
		}
		a, err := readAcceptance(text)
		out = append(out, a)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list acceptance reports of %s: %w", box, err)
	}
	return out, nil
}

// Acceptance returns one report of a box.
func (s *Store) Acceptance(ctx context.Context, box identity.ID, id string) (a Acceptance, err error) {
	var text string
	err = s.one(ctx, `SELECT summary, digest, sealed FROM acceptance WHERE box = ? AND id = ?`, []any{box, id}, &text, &a.Digest, &a.Sealed)
	if err == nil {
		a.Summary, err = readAcceptance(text)
	}
	if err != nil {
		return Acceptance{}, fmt.Errorf("acceptance report %s of %s: %w", id, box, err)
	}
	return a, nil
}

func readAcceptance(text string) (fleetapi.Acceptance, error) {
	var a fleetapi.Acceptance
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		return a, fmt.Errorf("parse acceptance report: %w", err)
	}
	a.Received = a.Received.In(time.UTC)
	return a, nil
}
