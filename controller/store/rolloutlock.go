package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// PutLock stores a lock; one that has ended is forgotten on the way.
func (s *Store) PutLock(ctx context.Context, l fleetapi.Lock) error {
	body, err := json.Marshal(l)
	if err != nil {
		return err
	}
	return s.write(ctx, func(t *tx) error {
		if _, err := t.Exec(ctx, `DELETE FROM rollout_lock WHERE until_ms <= ?`, s.now().UnixMilli()); err != nil {
			return fmt.Errorf("forget old locks: %w", err)
		}
		_, err := t.Exec(ctx, `INSERT INTO rollout_lock (id, until_ms, body) VALUES (?,?,?)
			ON CONFLICT (id) DO UPDATE SET until_ms = excluded.until_ms, body = excluded.body`, l.ID, l.Until.UnixMilli(), string(body))
		if err != nil {
			return fmt.Errorf("store lock %s: %w", l.ID, err)
		}
		return nil
	})
}

// DropLock ends a lock; one that is not there is ErrNotFound.
func (s *Store) DropLock(ctx context.Context, id string) error {
	return s.write(ctx, func(t *tx) error {
		res, err := t.Exec(ctx, `DELETE FROM rollout_lock WHERE id = ?`, id)
		if err != nil {
			return fmt.Errorf("drop lock %s: %w", id, err)
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return fmt.Errorf("lock %s: %w", id, ErrNotFound)
		}
		return nil
	})
}

// Locks returns the locks that end after a time, the next to end first.
func (s *Store) Locks(ctx context.Context, nowMs int64) ([]fleetapi.Lock, error) {
	var out []fleetapi.Lock
	err := s.each(ctx, `SELECT body FROM rollout_lock WHERE until_ms > ? ORDER BY until_ms, id`, []any{nowMs}, func(rows *sql.Rows) error {
		var body string
		if err := rows.Scan(&body); err != nil {
			return err
		}
		var l fleetapi.Lock
		if err := json.Unmarshal([]byte(body), &l); err != nil {
			return fmt.Errorf("parse lock: %w", err)
		}
		out = append(out, l)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list locks: %w", err)
	}
	return out, nil
}
