package store

import (
	"context"
	"database/sql"
	"strings"
)

// many is a statement for any number of rows: head, the rows in parentheses,
// tail. It runs for 64, 8 and 1 rows at a time, so that it has few texts.
type many struct {
	head, row, tail string
	width           int // arguments of a row
}

var manyRows = [...]int{64, 8, 1}

// cut calls each with the texts and arguments that together cover args.
func (m many) cut(args []any, each func(text string, args []any) error) error {
	for _, n := range manyRows {
		if len(args) < n*m.width {
			continue
		}
		text := m.head + strings.Repeat(m.row+",", n-1) + m.row + m.tail
		for len(args) >= n*m.width {
			if err := each(text, args[:n*m.width]); err != nil {
				return err
			}
			args = args[n*m.width:]
		}
	}
	return nil
}

// execMany runs m for the rows in args and returns how many it changed.
func (t *tx) execMany(ctx context.Context, m many, args []any) (changed int64, err error) {
	err = m.cut(args, func(text string, args []any) error {
		res, err := t.Exec(ctx, text, args...)
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		changed += n
		return err
	})
	return changed, err
}

// eachMany calls scan for every row that m finds for the rows in args.
func (t *tx) eachMany(ctx context.Context, m many, args []any, scan func(*sql.Rows) error) error {
	return m.cut(args, func(text string, args []any) error { return t.each(ctx, text, args, scan) })
}
