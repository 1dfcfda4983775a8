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
	return s.write(ctx, func(tx *sql.Tx) error {
		for _, sc := range schemas {
			body, err := wire.Encode(sc)
			if err != nil {
				return err
			}
			id := wire.SchemaIDOf(sc)
			if _, err := tx.Exec(`INSERT INTO schema (id, body) VALUES (?,?) ON CONFLICT DO NOTHING`, id[:], body); err != nil {
				return fmt.Errorf("store schema %s: %w", id, err)
			}
		}
		return nil
	})
}

// Schema returns a stored schema, or ErrNotFound.
func (s *Store) Schema(ctx context.Context, id wire.SchemaID) (wire.Schema, error) {
	var body []byte
	err := s.r.QueryRowContext(ctx, `SELECT body FROM schema WHERE id = ?`, id[:]).Scan(&body)
	if errors.Is(err, sql.ErrNoRows) {
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
	rows, err := s.r.QueryContext(ctx, `SELECT schema FROM box_schema WHERE box = ? ORDER BY since_ms DESC LIMIT ?`, id, wire.MaxKnownSchemas)
	if err != nil {
		return nil, fmt.Errorf("list schemas of %s: %w", id, err)
	}
	defer rows.Close()
	var out []wire.SchemaID
	for rows.Next() {
		var raw []byte
		if err := rows.Scan(&raw); err != nil {
			return nil, fmt.Errorf("list schemas of %s: %w", id, err)
		}
		var sid wire.SchemaID
		copy(sid[:], raw)
		out = append(out, sid)
	}
	return out, rows.Err()
}

// Keys calls each with every stored key of a box; ledger checks use it.
func (s *Store) Keys(ctx context.Context, id identity.ID, each func(wire.Key)) error {
	rows, err := s.r.QueryContext(ctx, `SELECT sid, lane, seq, h64 FROM block WHERE box = ?`, id)
	if err != nil {
		return fmt.Errorf("list keys of %s: %w", id, err)
	}
	defer rows.Close()
	for rows.Next() {
		var sid, h64 []byte
		var k wire.Key
		var seq int64 // SQLite has no unsigned integers; the bits are kept
		if err := rows.Scan(&sid, &k.Lane, &seq, &h64); err != nil {
			return fmt.Errorf("list keys of %s: %w", id, err)
		}
		k.Seq = uint64(seq)
		copy(k.SID[:], sid)
		copy(k.H64[:], h64)
		each(k)
	}
	return rows.Err()
}
