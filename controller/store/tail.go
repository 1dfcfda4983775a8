package store

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// Tailed is samples of one box that were stored together.
type Tailed struct {
	LSN     uint64 // of the newest of them
	Box     identity.ID
	StartMs int64 // of the first row, Unix milliseconds
	Samples wire.Samples
}

// Tail calls each for the samples that were stored after LSN after, in the
// order of their commits, and returns the LSN up to which that is all. limit is
// about how many rows of the database it reads: a commit is never told in part.
//
// A row of a closed hour comes where the newest of its samples stood, so who
// was behind hears some samples again, but none too late. Of samples that are
// gone each gets the means, a row for each summary.
func (s *Store) Tail(ctx context.Context, after uint64, limit int, each func(Tailed) error) (last uint64, err error) {
	type row struct {
		lsn  uint64
		box  string
		body []byte
	}
	var rows []row
	scan := func(r *sql.Rows) error {
		var x row
		err := r.Scan(&x.lsn, &x.box, &x.body)
		rows = append(rows, x)
		return err
	}
	err = s.snapshot(ctx, func(t *tx) error {
		rows, last = nil, after
		// Where the limit falls, in either table, is how far this walk goes.
		var upto sql.NullInt64
		err := t.QueryRow(ctx, `SELECT max(lsn) FROM (SELECT lsn FROM (
				SELECT lsn FROM (SELECT id >> ? AS lsn FROM sample WHERE id >= ? ORDER BY id LIMIT ?) a
				UNION ALL SELECT lsn FROM (SELECT lsn FROM sample_hour WHERE lsn > ? ORDER BY lsn LIMIT ?) b) c
			ORDER BY lsn LIMIT ?) d`,
			rowBits, int64(after+1)<<rowBits, limit, int64(after), limit, limit).Scan(&upto)
		if err != nil || !upto.Valid {
			return err
		}
		last = uint64(upto.Int64)
		if err := t.each(ctx, `SELECT lsn, box, body FROM sample_hour WHERE lsn > ? AND lsn <= ? ORDER BY lsn`, []any{int64(after), int64(last)}, scan); err != nil {
			return err
		}
		hours := rows
		rows = nil
		if err := t.each(ctx, `SELECT id >> ?, box, body FROM sample WHERE id >= ? AND id < ? ORDER BY id`,
			[]any{rowBits, int64(after+1) << rowBits, int64(last+1) << rowBits}, scan); err != nil {
			return err
		}
		rows = mergeBy(hours, rows, func(r row) uint64 { return r.lsn })
		return nil
	})
	if err != nil {
		return after, fmt.Errorf("walk samples after %d: %w", after, err)
	}
	r := reading{schema: func(id wire.SchemaID) (*wire.Schema, error) {
		sc, err := s.Schema(ctx, id)
		return &sc, err
	}}
	for _, x := range rows {
		var c content
		if err := r.read(&c, x.body); err != nil {
			return after, fmt.Errorf("walk samples of %s at %d: %w", x.box, x.lsn, err)
		}
		for _, b := range c.runs() {
			if err := each(Tailed{x.lsn, identity.ID(x.box), b.startMs, b.samples}); err != nil {
				return after, err
			}
		}
	}
	return last, nil
}

// runs is the content as few samples as there are parts, and the summaries.
func (c *content) runs() []blockOf {
	var out []blockOf
	for i := range c.parts {
		p := &c.parts[i]
		if len(p.timesMs) == 0 {
			continue
		}
		b := blockOf{startMs: p.timesMs[0], samples: wire.Samples{Schema: *p.schema, Values: p.values, TimesMs: p.timesMs}}
		for i := range p.timesMs {
			p.timesMs[i] -= b.startMs
		}
		out = append(out, b)
	}
	rest := content{coarse: c.coarse}
	return append(out, rest.blocks()...)
}

// mergeBy merges two sorted lists.
func mergeBy[T any](a, b []T, key func(T) uint64) []T {
	out := make([]T, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		if key(a[0]) <= key(b[0]) {
			out, a = append(out, a[0]), a[1:]
		} else {
			out, b = append(out, b[0]), b[1:]
		}
	}
	return append(append(out, a...), b...)
}
