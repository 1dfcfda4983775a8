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
	var args []any
	for _, sc := range schemas {
		body, err := wire.Encode(sc)
		if err != nil {
			return err
		}
		id := wire.SchemaIDOf(sc)
		args = append(args, id[:], body)
	}
	return s.write(ctx, func(t *tx) error {
		if _, err := t.execMany(ctx, insertSchemas, args); err != nil {
			return fmt.Errorf("store schemas: %w", err)
		}
		return nil
	})
}

// Schema returns a stored schema, or ErrNotFound.
func (s *Store) Schema(ctx context.Context, id wire.SchemaID) (wire.Schema, error) {
	var sc *wire.Schema
	err := s.read(ctx, func(t *tx) (err error) { sc, err = s.schemaIn(ctx, t, id); return err })
	if err != nil {
		return wire.Schema{}, err
	}
	return *sc, nil
}

// schemaIn returns a schema, from memory when it was read before: its id says
// what it is. What was stored in it stays readable even if a restored backup
// lacks it for a while, since the block that brings a schema to a box stores
// it as well.
func (s *Store) schemaIn(ctx context.Context, t *tx, id wire.SchemaID) (*wire.Schema, error) {
	if sc, ok := s.schemas.Load(id); ok {
		return sc.(*wire.Schema), nil
	}
	var body []byte
	err := t.QueryRow(ctx, `SELECT body FROM schema WHERE id = ?`, id[:]).Scan(&body)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("schema %s: %w", id, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("read schema %s: %w", id, err)
	}
	sc, err := wire.Decode[wire.Schema](body)
	if err != nil {
		return nil, fmt.Errorf("read schema %s: %w", id, err)
	}
	// A box may draw new schemas without end. All are forgotten then: those in
	// use come back with the next row that has them.
	if s.schemaBytes.Add(int64(len(body))) > maxSchemaBytes {
		s.schemas.Clear()
		s.schemaBytes.Store(int64(len(body)))
	}
	s.schemas.Store(id, &sc)
	return &sc, nil
}

// maxSchemaBytes of encoded schemas are kept, which take some times that in
// memory; one of 30 sensors has about 1 KB.
const maxSchemaBytes = 8 << 20

// BoxSchemas lists the schemas in which a box has sent blocks, newest first,
// and no more than a WELCOME can name: a box sends the others again.
func (s *Store) BoxSchemas(ctx context.Context, id identity.ID) ([]wire.SchemaID, error) {
	var list schemaIDs
	err := s.one(ctx, `SELECT schemas FROM newest WHERE box = ?`, []any{id}, &list)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return nil, fmt.Errorf("list schemas of %s: %w", id, err)
	}
	return list.newestFirst(), nil
}
