package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// AddSchemas stores schemas that boxes sent with their blocks.
func (s *Store) AddSchemas(ctx context.Context, schemas []wire.Schema) error {
	if len(schemas) == 0 {
		return nil
	}
	return s.write(ctx, func(t *tx) error {
		for _, sc := range schemas {
			body, err := wire.Encode(sc)
			if err != nil {
				return err
			}
			id := wire.SchemaIDOf(sc)
			if _, err := t.Exec(ctx, `INSERT INTO schema (id, body) VALUES (?,?) ON CONFLICT DO NOTHING`, id[:], body); err != nil {
				return fmt.Errorf("store schema %s: %w", id, err)
			}
		}
		return nil
	})
}

// Schema returns a stored schema, or ErrNotFound.
func (s *Store) Schema(ctx context.Context, id wire.SchemaID) (wire.Schema, error) {
	var body []byte
	err := s.one(ctx, `SELECT body FROM schema WHERE id = ?`, []any{id[:]}, &body)
	if errors.Is(err, ErrNotFound) {
		return wire.Schema{}, fmt.Errorf("schema %s: %w", id, ErrNotFound)
	}
	if err != nil {
		return wire.Schema{}, fmt.Errorf("read schema %s: %w", id, err)
	}
	return wire.Decode[wire.Schema](body)
}

// BoxSchemas lists the schemas in which a box has sent blocks, newest first,
// and no more than a WELCOME can name: a box sends the others again.
func (s *Store) BoxSchemas(ctx context.Context, id identity.ID) ([]wire.SchemaID, error) {
	var out []wire.SchemaID
	err := s.each(ctx, `SELECT schema FROM box_schema WHERE box = ? ORDER BY since_ms DESC LIMIT ?`, []any{id, wire.MaxKnownSchemas}, func(rows *sql.Rows) error {
		var raw []byte
		if err := rows.Scan(&raw); err != nil {
			return err
		}
		var sid wire.SchemaID
		copy(sid[:], raw)
		out = append(out, sid)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list schemas of %s: %w", id, err)
	}
	return out, nil
}

// Keys calls each with every stored key of a box; ledger checks use it.
func (s *Store) Keys(ctx context.Context, id identity.ID, each func(wire.Key)) error {
	err := s.each(ctx, `SELECT sid, lane, seq, h64 FROM block WHERE box = ?`, []any{id}, func(rows *sql.Rows) error {
		var sid, h64 []byte
		var k wire.Key
		var seq int64 // SQLite has no unsigned integers; the bits are kept
		if err := rows.Scan(&sid, &k.Lane, &seq, &h64); err != nil {
			return err
		}
		k.Seq = uint64(seq)
		copy(k.SID[:], sid)
		copy(k.H64[:], h64)
		each(k)
		return nil
	})
	if err != nil {
		return fmt.Errorf("list keys of %s: %w", id, err)
	}
	return nil
}
