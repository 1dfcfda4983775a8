package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// heard is what a box's row of newest says, apart from its schemas.
type heard struct {
	id     identity.ID
	seenMs int64
	buffer sql.NullString
	latest []byte
	newest Newest // decoded from latest
}

// allHeard reads the rows of all boxes, or of one.
func (s *Store) allHeard(ctx context.Context, only identity.ID) ([]heard, error) {
	query, args := `SELECT box, seen_ms, buffer, latest FROM newest`, []any(nil)
	if only != "" {
		query, args = query+` WHERE box = ?`, []any{string(only)}
	}
	var rows []heard
	err := s.read(ctx, func(t *tx) error {
		rows = nil
		err := t.each(ctx, query, args, func(r *sql.Rows) error {
			var h heard
			err := r.Scan((*string)(&h.id), &h.seenMs, &h.buffer, &h.latest)
			rows = append(rows, h)
			return err
		})
		if err != nil {
			return err
		}
		return s.decodeHeard(ctx, t, rows)
	})
	if err != nil {
		return nil, fmt.Errorf("read newest values: %w", err)
	}
	return rows, nil
}

func (s *Store) decodeHeard(ctx context.Context, t *tx, rows []heard) error {
	var mu sync.Mutex // one statement at a time
	find := func(id wire.SchemaID) (*wire.Schema, error) {
		if sc, ok := s.schemas.Load(id); ok {
			return sc.(*wire.Schema), nil
		}
		mu.Lock()
		defer mu.Unlock()
		return s.schemaIn(ctx, t, id)
	}
	errs := make([]error, len(rows))
	parallel(len(rows), func(i int) { rows[i].newest, errs[i] = decodeNewest(rows[i].latest, find) })
	for i, err := range errs {
		if err != nil {
			return fmt.Errorf("box %s: %w", rows[i].id, err)
		}
	}
	return nil
}

// Latest returns the newest values of all boxes that have any.
func (s *Store) Latest(ctx context.Context) (map[identity.ID]Newest, error) {
	rows, err := s.allHeard(ctx, "")
	if err != nil {
		return nil, err
	}
	out := make(map[identity.ID]Newest, len(rows))
	for i := range rows {
		out[rows[i].id] = rows[i].newest
	}
	return out, nil
}

// addNewest adds to boxes what their messages since HELLO have changed.
func (s *Store) addNewest(ctx context.Context, only identity.ID, get func(identity.ID) *Box) error {
	rows, err := s.allHeard(ctx, only)
	if err != nil {
		return err
	}
	for i := range rows {
		h := &rows[i]
		b := get(h.id)
		if b == nil {
			continue
		}
		b.LastSeenMs = max(b.LastSeenMs, h.seenMs)
		b.Latest = h.newest
		if h.buffer.Valid {
			b.Buffer = wire.Buffer{}
			if err := json.Unmarshal([]byte(h.buffer.String), &b.Buffer); err != nil {
				return fmt.Errorf("buffer of %s: %w", h.id, err)
			}
		}
	}
	return nil
}
