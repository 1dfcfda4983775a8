package store

import (
	"context"
	"database/sql"
)

// DB gives tests a look at rows that no method returns, and lets them put rows
// where no method does.
func (s *Store) DB() *sql.DB { return s.engine.(*sqlite).db }

// Settled says whether the run that Lineage would tell is of this life of the
// database.
func (s *Store) Settled(ctx context.Context) (settled bool, err error) {
	err = s.snapshot(ctx, func(t *tx) error { settled, err = s.engine.settled(ctx, t); return err })
	return settled, err
}

// Ask reads one row that no method returns.
func (s *Store) Ask(ctx context.Context, query string, args []any, into ...any) error {
	return s.one(ctx, query, args, into...)
}

// Put changes rows as no method does.
func (s *Store) Put(ctx context.Context, query string) error {
	return s.write(ctx, func(t *tx) error {
		_, err := t.Exec(ctx, query)
		return err
	})
}

// NextEra has the rows that come next be in another part of the index of sample.
func (s *Store) NextEra() { s.eras.took(eraRows) }

// SchemasInMemory is how many schemas are kept there.
func (s *Store) SchemasInMemory() (n int) {
	s.schemas.Range(func(any, any) bool { n++; return true })
	return n
}

// Oldest is the time of the oldest row of each table that ages, as the doctor
// sees it, and as reading all rows would find it.
func (s *Store) Oldest(ctx context.Context) (seen, read map[string]int64, err error) {
	seen, read = map[string]int64{}, map[string]int64{}
	err = s.snapshot(ctx, func(t *tx) error {
		for _, a := range agedTables {
			if seen[a.table], err = oldest(ctx, t, a); err != nil {
				return err
			}
			var ms int64
			if err := t.QueryRow(ctx, `SELECT coalesce(min(`+a.column+`), 0) FROM `+a.table).Scan(&ms); err != nil {
				return err
			}
			read[a.table] = ms
		}
		return nil
	})
	return seen, read, err
}

// ComeBack makes the database one that came back from a backup.
func (s *Store) ComeBack(ctx context.Context) error {
	return s.write(ctx, func(t *tx) error {
		_, err := t.Exec(ctx, markCopy)
		if err == nil {
			_, err = t.Exec(ctx, beginRestored, s.now().UnixMilli())
		}
		return err
	})
}
