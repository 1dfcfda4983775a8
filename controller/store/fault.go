package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	driver "modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/edgeherd/edgeherd/controller/fault"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// faultLife is how long trouble that has ended is remembered; a cause that
// comes up again later is counted from the beginning.
const faultLife = 30 * 24 * time.Hour

// faultsAtOnce is how many entries one transaction takes: it holds up telemetry.
const faultsAtOnce = 500

// KeepFaults adds entries to what is stored. Those of boxes that nobody
// enrolled are left out. Entries in the same order never wait for each other in
// two controllers.
func (s *Store) KeepFaults(ctx context.Context, entries []fault.Entry) error {
	for part := range slices.Chunk(entries, faultsAtOnce) {
		err := s.write(ctx, func(t *tx) error {
			for _, e := range part {
				old := e.FirstMs - faultLife.Milliseconds()
				if _, err := t.Exec(ctx, `INSERT INTO fault (box, cause, n, first_ms, last_ms, text)
					SELECT id, CAST(? AS TEXT), CAST(? AS BIGINT), CAST(? AS BIGINT), CAST(? AS BIGINT), CAST(? AS TEXT) FROM box WHERE id = ?
					ON CONFLICT (box, cause) DO UPDATE SET text = excluded.text, last_ms = excluded.last_ms,
					n = CASE WHEN fault.last_ms < CAST(? AS BIGINT) THEN excluded.n ELSE fault.n + excluded.n END,
					first_ms = CASE WHEN fault.last_ms < CAST(? AS BIGINT) THEN excluded.first_ms ELSE fault.first_ms END`,
					string(e.Cause), e.Count, e.FirstMs, e.LastMs, e.Text, e.Box, old, old); err != nil {
					return fmt.Errorf("store trouble of %s: %w", e.Box, err)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Faults returns the trouble of a box in the last 30 days, the newest first.
func (s *Store) Faults(ctx context.Context, id identity.ID) ([]fault.Entry, error) {
	var out []fault.Entry
	since := s.now().Add(-faultLife).UnixMilli()
	err := s.each(ctx, `SELECT cause, n, first_ms, last_ms, text FROM fault WHERE box = ? AND last_ms >= ? ORDER BY last_ms DESC, cause`, []any{id, since}, func(rows *sql.Rows) error {
		e := fault.Entry{Box: id}
		err := rows.Scan(&e.Cause, &e.Count, &e.FirstMs, &e.LastMs, &e.Text)
		out = append(out, e)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list trouble of box %s: %w", id, err)
	}
	return out, nil
}

// IsFull reports whether an error means that the disk of the database has no
// room.
func IsFull(err error) bool {
	var lite *driver.Error
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &lite):
		return lite.Code()&0xff == sqlite3.SQLITE_FULL || lite.Code() == sqlite3.SQLITE_IOERR_SHMSIZE
	case errors.As(err, &pg):
		return pg.Code == "53100"
	}
	return false
}
