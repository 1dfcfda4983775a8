package store

import (
	"context"
	"database/sql"
)

// DB gives tests a look at rows that no method returns, and lets them put rows
// where no method does.
func (s *Store) DB() *sql.DB { return s.engine.(*sqlite).db }

// Ask reads one row that no method returns.
func (s *Store) Ask(ctx context.Context, query string, args []any, into ...any) error {
	return s.one(ctx, query, args, into...)
}

// Each reads rows that no method returns.
func (s *Store) Each(ctx context.Context, query string, scan func(*sql.Rows) error) error {
	return s.each(ctx, query, nil, scan)
}

// SchemasInMemory is how many schemas are kept there.
func (s *Store) SchemasInMemory() (n int) {
	s.schemas.Range(func(any, any) bool { n++; return true })
	return n
}
