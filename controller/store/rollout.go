package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// PutRollout stores a rollout as it now stands.
func (s *Store) PutRollout(ctx context.Context, r fleetapi.Rollout) error {
	body, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return s.write(ctx, func(t *tx) error {
		_, err := t.Exec(ctx, `INSERT INTO rollout (id, state, created_ms, body) VALUES (?,?,?,?)
			ON CONFLICT (id) DO UPDATE SET state = excluded.state, body = excluded.body`,
			r.ID, string(r.State), r.Created.UnixMilli(), string(body))
		if err != nil {
			return fmt.Errorf("store rollout %s: %w", r.ID, err)
		}
		return nil
	})
}

// Rollout returns one rollout, or ErrNotFound.
func (s *Store) Rollout(ctx context.Context, id string) (fleetapi.Rollout, error) {
	var body string
	var r fleetapi.Rollout
	err := s.one(ctx, `SELECT body FROM rollout WHERE id = ?`, []any{id}, &body)
	if errors.Is(err, ErrNotFound) {
		return r, fmt.Errorf("rollout %s: %w", id, ErrNotFound)
	}
	if err != nil {
		return r, fmt.Errorf("read rollout %s: %w", id, err)
	}
	return r, json.Unmarshal([]byte(body), &r)
}

// Rollouts returns rollouts newest first; with states, only those in them.
func (s *Store) Rollouts(ctx context.Context, states ...fleetapi.RolloutState) ([]fleetapi.Rollout, error) {
	want := map[string]bool{}
	for _, st := range states {
		want[string(st)] = true
	}
	var out []fleetapi.Rollout
	err := s.each(ctx, `SELECT state, body FROM rollout ORDER BY created_ms DESC, id DESC`, nil, func(rows *sql.Rows) error {
		var state, body string
		if err := rows.Scan(&state, &body); err != nil {
			return err
		}
		if len(want) > 0 && !want[state] {
			return nil
		}
		var r fleetapi.Rollout
		if err := json.Unmarshal([]byte(body), &r); err != nil {
			return fmt.Errorf("parse rollout: %w", err)
		}
		out = append(out, r)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list rollouts: %w", err)
	}
	return out, nil
}
