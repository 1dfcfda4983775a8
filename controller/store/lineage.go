package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/edgeherd/edgeherd/internal/wire"
)

// Lineage says where the database stands in its history.
type Lineage struct {
	Run wire.RunID // the present one
	LSN uint64     // of the last commit
	// Valid has, for each of the runs asked for that this database descends
	// from, the highest LSN of it that the database contains.
	Valid []wire.RunLSN
}

// Lineage reads the present run and what of other runs is in the database, all
// at one moment.
func (s *Store) Lineage(ctx context.Context, runs []wire.RunID) (l Lineage, err error) {
	// A database that is replaced after it was settled would tell a run that is
	// over, and late ACKs of that run would count.
	for {
		if err = s.engine.settle(ctx); err != nil {
			return l, err
		}
		if l, err = s.lineage(ctx, runs); !errors.Is(err, errUnsettled) {
			return l, err
		}
	}
}

// errUnsettled says that the present run has not begun yet.
var errUnsettled = errors.New("the database was replaced a moment ago")

func (s *Store) lineage(ctx context.Context, runs []wire.RunID) (l Lineage, err error) {
	err = s.snapshot(ctx, func(t *tx) error {
		l = Lineage{}
		if settled, err := s.engine.settled(ctx, t); err != nil || !settled {
			return cmp.Or(err, errUnsettled)
		}
		var raw []byte
		if err := t.QueryRow(ctx, `SELECT run, lsn FROM meta`).Scan(&raw, &l.LSN); err != nil {
			return fmt.Errorf("read the present run: %w", err)
		}
		var err error
		if l.Run, err = runOf(raw); err != nil {
			return err
		}
		for _, run := range runs {
			var lsn uint64
			err := t.QueryRow(ctx, `SELECT coalesce(end_lsn, (SELECT lsn FROM meta)) FROM run WHERE id = ?`, run[:]).Scan(&lsn)
			if errors.Is(err, sql.ErrNoRows) {
				continue
			}
			if err != nil {
				return fmt.Errorf("look up run %s: %w", run, err)
			}
			l.Valid = append(l.Valid, wire.RunLSN{Run: run, LSN: lsn})
		}
		return nil
	})
	return l, err
}
