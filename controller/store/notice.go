package store

import (
	"context"
	"database/sql"
	"fmt"
)

// DueNotices are those that wait and whose time has come, oldest first; of each
// endpoint at most limit, so that one with many does not hide the others.
func (s *Store) DueNotices(ctx context.Context, limit int) ([]Notice, error) {
	return s.notices(ctx, `JOIN (SELECT endpoint AS e, key AS k, row_number() OVER (PARTITION BY endpoint ORDER BY due_ms, key) AS place FROM notice WHERE state = 0 AND due_ms <= ?) AS due
		ON due.e = endpoint AND due.k = key WHERE due.place <= ? ORDER BY due_ms, endpoint, key`, s.now().UnixMilli(), limit)
}

// PutOff has all that is due to an endpoint wait until a time.
func (s *Store) PutOff(ctx context.Context, endpoint string, untilMs int64) error {
	return s.write(ctx, func(t *tx) error {
		if _, err := t.Exec(ctx, `UPDATE notice SET due_ms = ? WHERE endpoint = ? AND state = 0 AND due_ms <= ?`, untilMs, endpoint, s.now().UnixMilli()); err != nil {
			return fmt.Errorf("put notices off: %w", err)
		}
		return nil
	})
}

// LastNotices are the newest of all, whatever became of them.
func (s *Store) LastNotices(ctx context.Context, limit int) ([]Notice, error) {
	return s.notices(ctx, `ORDER BY changed_ms DESC, endpoint, key LIMIT ?`, limit)
}

func (s *Store) notices(ctx context.Context, tail string, args ...any) ([]Notice, error) {
	var out []Notice
	err := s.each(ctx, `SELECT endpoint, key, state, due_ms, tries, changed_ms, err, body FROM notice `+tail, args, func(rows *sql.Rows) error {
		var n Notice
		err := rows.Scan(&n.Endpoint, &n.Key, &n.State, &n.DueMs, &n.Tries, &n.ChangedMs, &n.Err, &n.Body)
		out = append(out, n)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list notices: %w", err)
	}
	return out, nil
}

// KeepNotice stores what became of an attempt.
func (s *Store) KeepNotice(ctx context.Context, n Notice) error {
	return s.write(ctx, func(t *tx) error {
		if _, err := t.Exec(ctx, `UPDATE notice SET state = ?, due_ms = ?, tries = ?, changed_ms = ?, err = ? WHERE endpoint = ? AND key = ?`,
			n.State, n.DueMs, n.Tries, s.now().UnixMilli(), n.Err, n.Endpoint, n.Key); err != nil {
			return fmt.Errorf("keep what became of a notice: %w", err)
		}
		return nil
	})
}

// NoticeCounts tells how many notices of each endpoint wait and were given up.
func (s *Store) NoticeCounts(ctx context.Context) (map[string][3]int, error) {
	out := map[string][3]int{}
	err := s.each(ctx, `SELECT endpoint, state, count(*) FROM notice GROUP BY endpoint, state`, nil, func(rows *sql.Rows) error {
		var endpoint string
		var state, n int
		if err := rows.Scan(&endpoint, &state, &n); err != nil {
			return err
		}
		counts := out[endpoint]
		counts[min(max(state, 0), 2)] += n
		out[endpoint] = counts
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("count notices: %w", err)
	}
	return out, nil
}

// queueNotice has an endpoint told. A key that it has had changes nothing.
func queueNotice(ctx context.Context, t *tx, n Notice, nowMs int64) error {
	if _, err := t.Exec(ctx, `INSERT INTO notice (endpoint, key, state, due_ms, tries, changed_ms, err, body) VALUES (?,?,0,?,0,?,'',?) ON CONFLICT DO NOTHING`,
		n.Endpoint, n.Key, n.DueMs, nowMs, string(n.Body)); err != nil {
		return fmt.Errorf("queue a notice: %w", err)
	}
	return nil
}
