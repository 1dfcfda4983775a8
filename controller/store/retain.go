package store

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"
)

// Retention says how long telemetry is kept, by the time when it was measured.
// What is 0 or less is kept for ever. Block keys are never forgotten: they are
// 9 bytes each, and a box may send again what it has held for months.
type Retention struct {
	Samples time.Duration // exact values
	Rollups time.Duration // least, mean and greatest by the hour
	Results time.Duration // results of models, and their counts by the hour
	Events  time.Duration // events, and gaps
}

// DefaultRetention fits 100 boxes on a disk of 32 GB: a box with 30 sensors
// takes about 1 MB a day of samples.
var DefaultRetention = Retention{Samples: 90 * day, Rollups: 800 * day, Results: 90 * day, Events: 400 * day}

const day = 24 * time.Hour

// aged is a table whose rows go when they are old.
type aged struct {
	table, column, key string // key: a primary key
	byBox              bool   // an index leads by box to the oldest; else rows go in the order of key
	of                 func(Retention) time.Duration
}

func ofSamples(r Retention) time.Duration { return r.Samples }

// ofOpen is for samples of which there are no rollups yet: a box may bring
// what is older than samples are kept, and its hours must count first. Compact
// takes them from here.
func ofOpen(r Retention) time.Duration {
	if min(r.Samples, r.Rollups) <= 0 {
		return 0
	}
	return max(r.Samples, r.Rollups)
}

func ofRollups(r Retention) time.Duration { return r.Rollups }
func ofResults(r Retention) time.Duration { return r.Results }
func ofEvents(r Retention) time.Duration  { return r.Events }

var agedTables = []aged{
	{"sample", "t0_ms", "id", false, ofOpen},
	{"sample_hour", "hour_ms", "box, hour_ms, part", true, ofSamples},
	{"rollup_hour", "hour_ms", "box, hour_ms, part", true, ofRollups},
	{"drift_hour", "hour_ms", "box, hour_ms, model, version, input", true, ofRollups},
	{"result", "t_ms", "id", true, ofResults},
	{"event", "t_ms", "id", true, ofEvents},
	{"reads_hour", "hour_ms", "hour_ms, box", false, ofResults},
	{"gap", "t_ms", "id", false, ofEvents},
	{"block", "received_ms", "id", false, ofEvents},
	{"box_hour", "hour_ms", "box, hour_ms", true, ofEvents},
	{"box_reset", "t_ms", "box, t_ms", true, ofEvents},
	{"box_change", "t_ms", "box, t_ms, kind, detail", true, ofEvents},
}

// due is a Unix time in milliseconds: older rows go.
func (a aged) due(keep Retention, now time.Time) (ms int64, any bool) {
	age := a.of(keep)
	ms = now.Add(-age).UnixMilli()
	if a.column != "t_ms" && a.column != "received_ms" {
		ms -= MaxSpan.Milliseconds() // it is the time of the first record of a row
	}
	return ms, age > 0
}

// boxesAtOnce bounds a search that holds up nobody.
const boxesAtOnce = 64

// Retain deletes what is older than it shall be kept, at most about limit rows,
// and reports whether there is more. Call it again after a moment in which
// others may write. SQLite gives disk space back slice by slice; PostgreSQL
// uses it for new rows.
func (s *Store) Retain(ctx context.Context, keep Retention, limit int) (deleted int, more bool, err error) {
	if err := s.engine.tidy(ctx, keep, s.now()); err != nil {
		return 0, false, fmt.Errorf("delete old months: %w", err)
	}
	for _, a := range agedTables {
		before, any := a.due(keep, s.now())
		if !any {
			continue
		}
		n, err := s.retainTable(ctx, a, before, limit-deleted)
		if deleted += n; err != nil {
			return deleted, false, fmt.Errorf("delete old rows of %s: %w", a.table, err)
		}
		if deleted >= limit {
			return deleted, true, s.engine.shrink(ctx)
		}
	}
	return deleted, false, s.engine.shrink(ctx)
}

func (s *Store) retainTable(ctx context.Context, a aged, before int64, limit int) (deleted int, err error) {
	key := a.key
	if strings.Contains(key, ",") {
		key = "(" + key + ")"
	}
	remove := `DELETE FROM ` + a.table + ` WHERE ` + key + ` IN (SELECT ` + a.key + ` FROM `
	if !a.byBox {
		// Only the first rows are looked at: what came first is the oldest.
		return s.remove(ctx, remove+`(SELECT `+a.key+`, `+a.column+` AS aged FROM `+a.table+` ORDER BY `+a.key+` LIMIT ?) AS first WHERE aged < ?)`, limit, before)
	}
	gone := s.remove
	if a.table == "sample_hour" {
		gone = s.removeHours
	}
	for deleted < limit {
		var boxes []string
		err := s.each(ctx, `SELECT id FROM box WHERE EXISTS (SELECT 1 FROM `+a.table+` WHERE `+a.table+`.box = box.id AND `+a.column+` < ?) LIMIT ?`,
			[]any{before, boxesAtOnce}, func(rows *sql.Rows) error {
				var id string
				err := rows.Scan(&id)
				boxes = append(boxes, id)
				return err
			})
		if err != nil || len(boxes) == 0 {
			return deleted, err
		}
		for _, id := range boxes {
			n, err := gone(ctx, remove+a.table+` WHERE box = ? AND `+a.column+` < ? LIMIT ?)`, id, before, limit-deleted)
			if deleted += n; err != nil || deleted >= limit {
				return deleted, err
			}
		}
	}
	return deleted, nil
}

// removeHours deletes rows of sample_hour and leaves the hourly values that
// some of them have.
func (s *Store) removeHours(ctx context.Context, query string, args ...any) (n int, err error) {
	err = s.write(ctx, func(t *tx) error {
		n = 0
		var left []any
		err := t.each(ctx, query+` RETURNING box, hour_ms, part, rollups`, args, func(rows *sql.Rows) error {
			var box string
			var hour, part int64
			var rollups []byte
			err := rows.Scan(&box, &hour, &part, &rollups)
			if n++; rollups != nil {
				left = append(left, box, hour, part, rollups)
			}
			return err
		})
		if err != nil {
			return err
		}
		_, err = t.execMany(ctx, insertRollups, left)
		return err
	})
	return n, err
}

func (s *Store) remove(ctx context.Context, query string, args ...any) (n int, err error) {
	err = s.write(ctx, func(t *tx) error {
		res, err := t.Exec(ctx, query, args...)
		if err != nil {
			return err
		}
		rows, err := res.RowsAffected()
		n = int(rows)
		return err
	})
	return n, err
}

// examineRetention tells of rows that should have gone.
func examineRetention(ctx context.Context, t *tx, opts Options) Finding {
	now := time.Now
	if opts.WallClock != nil {
		now = opts.WallClock
	}
	late := ""
	least := int64(0)
	for _, a := range agedTables {
		ms, err := oldest(ctx, t, a)
		if err != nil {
			return finding("retention", "", err, "restore the last backup")
		}
		if ms > 0 && (least == 0 || ms < least) {
			least = ms
		}
		// Two days: it is done in slices.
		if before, any := a.due(opts.Retention, now().Add(-2*day)); any && ms > 0 && ms < before {
			late = a.table
		}
	}
	if late != "" {
		return Finding{"retention", Warn, late + " has rows that should have been deleted days ago", "see the controller's log: deleting fails, or the controller does not run"}
	}
	if least == 0 {
		return Finding{Check: "retention", Level: OK, Found: "nothing is stored yet"}
	}
	return Finding{Check: "retention", Level: OK, Found: "oldest row of " + time.UnixMilli(least).UTC().Format(time.DateOnly)}
}
