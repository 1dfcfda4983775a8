package store

import (
	"context"
	"errors"
	"fmt"
)

// Cursor returns what was last set under a name; 0 if nothing was.
func (s *Store) Cursor(ctx context.Context, name string) (uint64, error) {
	var v int64
	if err := s.one(ctx, `SELECT value FROM export_cursor WHERE name = ?`, []any{name}, &v); err != nil && !errors.Is(err, ErrNotFound) {
		return 0, fmt.Errorf("read cursor %s: %w", name, err)
	}
	return uint64(v), nil
}

// SetCursor sets a cursor, which only grows: who sets a lower one was overtaken.
// A database that is restored has the cursors that fit its LSNs.
func (s *Store) SetCursor(ctx context.Context, name string, value uint64) error {
	return s.write(ctx, func(t *tx) error {
		_, err := t.Exec(ctx, `INSERT INTO export_cursor (name, value) VALUES (?,?)
			ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE excluded.value > export_cursor.value`, name, int64(value))
		if err != nil {
			return fmt.Errorf("set cursor %s: %w", name, err)
		}
		return nil
	})
}
