package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/edgeherd/edgeherd/controller/audit"
)

// recorded appends the draft of a context at the end of the transaction that
// makes the change: there is no change without its record, and no record of a
// change that was not made.
func (s *Store) recorded(ctx context.Context, f func(*tx) error) func(*tx) error {
	d := audit.Of(ctx)
	if !d.Pending() {
		return f
	}
	return func(t *tx) error {
		if err := f(t); err != nil {
			return err
		}
		if !d.Pending() { // f found that nothing is to be changed
			return nil
		}
		return appendAudit(ctx, t, d.Record(s.now()))
	}
}

// appendAudit locks the head, so that records come in the order of commits.
func appendAudit(ctx context.Context, t *tx, r audit.Record) error {
	head, err := headOf(ctx, t, " FOR UPDATE")
	if errors.Is(err, sql.ErrNoRows) {
		// Of two that are first, one waits here for the other.
		if _, err = t.Exec(ctx, `INSERT INTO audit_head (one, seq, hash) VALUES (1, 0, ?) ON CONFLICT (one) DO NOTHING`, audit.First); err == nil {
			head, err = headOf(ctx, t, " FOR UPDATE")
		}
	}
	if err != nil {
		return fmt.Errorf("read the head of the audit log: %w", err)
	}
	line, next, err := head.Append(r)
	if err != nil {
		return err
	}
	if _, err := t.Exec(ctx, `INSERT INTO audit (seq, actor, line) VALUES (?,?,?)`, next.Seq, r.Actor, line); err != nil {
		return fmt.Errorf("append to the audit log: %w", err)
	}
	if _, err := t.Exec(ctx, `UPDATE audit_head SET seq = ?, hash = ? WHERE one = 1`, next.Seq, next.Hash); err != nil {
		return fmt.Errorf("move the head of the audit log: %w", err)
	}
	return nil
}

func headOf(ctx context.Context, t *tx, lock string) (h audit.Head, err error) {
	err = t.QueryRow(ctx, `SELECT seq, hash FROM audit_head WHERE one = 1`+lock).Scan(&h.Seq, &h.Hash)
	return h, err
}

// RecordAudit writes the draft of a context whose request changed nothing in
// the database. A draft that is written already stays as it is.
func (s *Store) RecordAudit(ctx context.Context) error {
	if !audit.Of(ctx).Pending() {
		return nil
	}
	return s.write(ctx, func(*tx) error { return nil })
}

// SignsAudit says which key signs heads from now on. When another one did so
// before, the log says from which to which.
func (s *Store) SignsAudit(ctx context.Context, public string) error {
	err := s.write(ctx, func(t *tx) error {
		var before string
		err := t.QueryRow(ctx, `SELECT signer FROM audit_head WHERE one = 1 FOR UPDATE`).Scan(&before)
		if err != nil && !errors.Is(err, sql.ErrNoRows) || before == public {
			return err
		}
		if before != "" {
			d := audit.Itself(audit.NewKey)
			d.Before, d.After = before, public
			if err := appendAudit(ctx, t, d.Record(s.now())); err != nil {
				return err
			}
		}
		_, err = t.Exec(ctx, `INSERT INTO audit_head (one, seq, hash, signer) VALUES (1, 0, ?, ?) ON CONFLICT (one) DO UPDATE SET signer = excluded.signer`, audit.First, public)
		return err
	})
	if err != nil {
		return fmt.Errorf("note the key of the audit log: %w", err)
	}
	return nil
}

// AuditHead is the head of the log.
func (s *Store) AuditHead(ctx context.Context) (head audit.Head, err error) {
	err = s.read(ctx, func(t *tx) (err error) { head, err = headOf(ctx, t, ""); return err })
	if errors.Is(err, sql.ErrNoRows) {
		return audit.Empty(), nil
	}
	if err != nil {
		return head, fmt.Errorf("read the head of the audit log: %w", err)
	}
	return head, nil
}

// AuditQuery asks for lines of the log.
type AuditQuery struct {
	Actor  string // empty: of all
	Before int64  // older than this number; 0: from the newest on
	Limit  int
}

// AuditNewest returns lines, newest first.
func (s *Store) AuditNewest(ctx context.Context, q AuditQuery) (lines [][]byte, err error) {
	query, args := `SELECT line FROM audit WHERE 1 = 1`, []any{}
	if q.Actor != "" {
		query, args = query+` AND actor = ?`, append(args, q.Actor)
	}
	if q.Before > 0 {
		query, args = query+` AND seq < ?`, append(args, q.Before)
	}
	err = s.each(ctx, query+` ORDER BY seq DESC LIMIT ?`, append(args, q.Limit), func(rows *sql.Rows) error {
		var line []byte
		err := rows.Scan(&line)
		lines = append(lines, line)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the audit log: %w", err)
	}
	return lines, nil
}

// auditPage is how many lines are read at once.
const auditPage = 1000

// AuditLines calls f for the lines after a number, oldest first, limit of them
// at most; 0 means all. It stops at the head as it is when it begins, which it
// returns.
func (s *Store) AuditLines(ctx context.Context, after int64, limit int, f func(line []byte) error) (head audit.Head, err error) {
	if head, err = s.AuditHead(ctx); err != nil {
		return head, err
	}
	for left := limit; limit == 0 || left > 0; left -= auditPage {
		n := auditPage
		if limit > 0 {
			n = min(n, left)
		}
		var page [][]byte
		err := s.each(ctx, `SELECT seq, line FROM audit WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?`, []any{after, head.Seq, n}, func(rows *sql.Rows) error {
			var line []byte
			err := rows.Scan(&after, &line)
			page = append(page, line)
			return err
		})
		if err != nil {
			return head, fmt.Errorf("read the audit log: %w", err)
		}
		for _, line := range page {
			if err := f(line); err != nil {
				return head, err
			}
		}
		if len(page) < n {
			break
		}
	}
	return head, nil
}

// Seal is a head that the controller signed.
type Seal struct {
	Seq      int64
	Time     time.Time
	Envelope []byte
}

// PutSeal stores a seal.
func (s *Store) PutSeal(ctx context.Context, seal Seal) error {
	return s.write(ctx, func(t *tx) error {
		_, err := t.Exec(ctx, `INSERT INTO audit_seal (seq, sealed_ms, envelope) VALUES (?,?,?) ON CONFLICT (seq) DO NOTHING`, seal.Seq, seal.Time.UnixMilli(), seal.Envelope)
		if err != nil {
			return fmt.Errorf("store the seal of the audit log: %w", err)
		}
		return nil
	})
}

// Seals lists all seals, oldest first.
func (s *Store) Seals(ctx context.Context) (out []Seal, err error) {
	err = s.each(ctx, `SELECT seq, sealed_ms, envelope FROM audit_seal ORDER BY seq`, nil, func(rows *sql.Rows) error {
		var seal Seal
		var ms int64
		err := rows.Scan(&seal.Seq, &ms, &seal.Envelope)
		seal.Time = time.UnixMilli(ms)
		out = append(out, seal)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the seals of the audit log: %w", err)
	}
	return out, nil
}
