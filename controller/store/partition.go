package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// On PostgreSQL the tables of closed hours have a partition for each month of
// the hours in them (UTC), so that a month that is not kept any more goes in a
// moment, without work for VACUUM. Their keys contain the hour, and so are
// unique over all partitions; keys of blocks are in block_key, which has none.
// What is of no prepared month, such as of a box whose clock was lost, lies in
// the default partition and goes row by row.

// parted are the tables with partitions, and how long they are kept.
var parted = []struct {
	table string
	of    func(Retention) time.Duration
}{{"sample_hour", ofSamples}, {"rollup_hour", ofRollups}}

const (
	// monthsBack and monthsAhead of now have partitions from the start: boxes
	// send what they held for weeks, and nothing is placed in the future.
	monthsBack, monthsAhead = 3, 1
	monthForm               = "200601"
	// partitionWait is how long a month waits for its lock: whoever reads the
	// table waits as long.
	partitionWait = "1s"
)

// leaveRollups keeps the hourly values that rows of a partition have with them.
const leaveRollups = `DO $$ BEGIN
	IF to_regclass('%[1]s') IS NOT NULL THEN
		LOCK TABLE %[1]s;
		INSERT INTO rollup_hour (box, hour_ms, part, body)
			SELECT box, hour_ms, part, rollups FROM %[1]s WHERE rollups IS NOT NULL ON CONFLICT DO NOTHING;
	END IF;
END $$`

func monthOf(t time.Time) time.Time {
	t = t.UTC()
	return time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC)
}

// tidy makes the partitions that will be needed and drops those that hold only
// what is older than it shall be kept.
func (e *postgres) tidy(ctx context.Context, keep Retention, now time.Time) error {
	have, err := e.partitions(ctx)
	if err != nil {
		return e.explain(fmt.Errorf("list partitions: %w", err))
	}
	var wanted []string
	var alone [][]string // each in a transaction of its own
	for _, p := range parted {
		first := monthOf(now).AddDate(0, -monthsBack, 0)
		oldest := time.Time{}
		if age := p.of(keep); age > 0 {
			oldest = monthOf(now.Add(-age - MaxSpan))
		}
		for month := first; !month.After(monthOf(now).AddDate(0, monthsAhead, 0)); month = month.AddDate(0, 1, 0) {
			name := p.table + "_" + month.Format(monthForm)
			if have[name] || month.Before(oldest) {
				continue
			}
			wanted = append(wanted, fmt.Sprintf(`CREATE TABLE IF NOT EXISTS %s PARTITION OF %s FOR VALUES FROM (%d) TO (%d)`,
				name, p.table, month.UnixMilli(), month.AddDate(0, 1, 0).UnixMilli()))
		}
		for name := range have {
			text, ours := strings.CutPrefix(name, p.table+"_")
			month, err := time.Parse(monthForm, text)
			if !ours || err != nil || !month.Before(oldest) {
				continue
			}
			texts := []string{`DROP TABLE IF EXISTS ` + name}
			if p.table == "sample_hour" {
				texts = append([]string{fmt.Sprintf(leaveRollups, name)}, texts...)
			}
			alone = append(alone, texts)
		}
	}
	done, err := e.alter(ctx, wanted...)
	if err != nil {
		return err
	}
	if !done { // one month is in the way of all
		for _, text := range wanted {
			alone = append(alone, []string{text})
		}
	}
	for _, texts := range alone {
		if _, err := e.alter(ctx, texts...); err != nil {
			return err
		}
	}
	return nil
}

func (e *postgres) partitions(ctx context.Context) (map[string]bool, error) {
	have := map[string]bool{}
	err := e.read(ctx, func(t *tx) error {
		for _, p := range parted {
			err := t.each(ctx, `SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = ?::text::regclass`,
				[]any{p.table}, func(rows *sql.Rows) error {
					var name string
					err := rows.Scan(&name)
					have[name] = true
					return err
				})
			if err != nil {
				return err
			}
		}
		return nil
	})
	return have, err
}

// alter changes partitions, or leaves it for the next time: when the table is
// being read for long, or the default partition has rows of that month already.
func (e *postgres) alter(ctx context.Context, texts ...string) (done bool, err error) {
	if len(texts) == 0 {
		return true, nil
	}
	texts = append([]string{`SET LOCAL lock_timeout = '` + partitionWait + `'`, fmt.Sprintf(`SELECT pg_advisory_xact_lock(%d)`, int64(migrationLock))}, texts...)
	err = e.write(ctx, func(t *tx) error {
		for _, q := range texts {
			if _, err := t.Exec(ctx, q); err != nil {
				return fmt.Errorf("change partitions: %w", err)
			}
		}
		return nil
	})
	var fault *pgconn.PgError
	if errors.As(err, &fault) && (fault.Code == "55P03" || fault.Code == "23514") {
		return false, nil
	}
	return err == nil, err
}
