package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/edgeherd/edgeherd/controller/audit"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// engine is all that differs between SQLite and PostgreSQL.
type engine interface {
	// write runs f in one transaction that changes things; f may run again
	// when the database broke it off.
	write(ctx context.Context, f func(*tx) error) error
	// read runs f, whose statements may each see a newer state.
	read(ctx context.Context, f func(*tx) error) error
	// snapshot runs f, whose statements all see the same state.
	snapshot(ctx context.Context, f func(*tx) error) error
	// stamp begins a new run where this life of the database demands it and
	// takes the next LSN. Its lock is held until the transaction ends, so that
	// transactions commit in the order of their LSNs: call it first.
	stamp(ctx context.Context, t *tx) (wire.RunID, uint64, error)
	// settle begins a new run if it is due, before the present one is told.
	settle(ctx context.Context) error
	// settled says whether the run that t sees is the present one.
	settled(ctx context.Context, t *tx) (bool, error)
	// tidy makes and drops whole parts of tables by age.
	tidy(ctx context.Context, keep Retention, now time.Time) error
	// shrink gives back a slice of disk space that deleted rows left.
	shrink(ctx context.Context) error
	// checkpoint spares commits the work of tidying up after themselves.
	checkpoint(ctx context.Context) error
	close() error
}

// A tx runs statements, written once for both engines: with ? for arguments,
// and FOR UPDATE at the end of a SELECT whose answer decides what is written.
// Rows must be closed before the next statement: PostgreSQL has one answer
// under way per connection.
type tx struct {
	on    runner
	texts *texts
	stmts map[string]*sql.Stmt // prepared on this connection; nil: the driver prepares
	conn  *sql.Conn            // of stmts
	whole bool                 // a statement is not broken off when its context ends
	plain bool                 // texts must be UTF-8 without the sign 0
}

// runner is *sql.DB, *sql.Conn or *sql.Tx.
type runner interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Exec runs a statement that returns no rows.
func (t *tx) Exec(ctx context.Context, query string, args ...any) (sql.Result, error) {
	ctx = t.bound(ctx)
	if stmt, ok := t.prepared(ctx, query); ok {
		return stmt.ExecContext(ctx, args...)
	}
	return t.on.ExecContext(ctx, t.texts.of(query), t.fit(args)...)
}

// Query runs a statement that returns rows.
func (t *tx) Query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	ctx = t.bound(ctx)
	if stmt, ok := t.prepared(ctx, query); ok {
		return stmt.QueryContext(ctx, args...)
	}
	return t.on.QueryContext(ctx, t.texts.of(query), t.fit(args)...)
}

// QueryRow runs a statement that returns at most one row.
func (t *tx) QueryRow(ctx context.Context, query string, args ...any) *sql.Row {
	ctx = t.bound(ctx)
	if stmt, ok := t.prepared(ctx, query); ok {
		return stmt.QueryRowContext(ctx, args...)
	}
	return t.on.QueryRowContext(ctx, t.texts.of(query), t.fit(args)...)
}

// bound: a write to SQLite takes milliseconds, and watching a context costs a
// goroutine for every statement.
func (t *tx) bound(ctx context.Context) context.Context {
	if t.whole {
		return context.WithoutCancel(ctx)
	}
	return ctx
}

// maxPrepared bounds what a connection keeps. All our texts are constants, far
// fewer than that.
const maxPrepared = 500

// prepared returns the statement of a text, parsed once per connection. What
// cannot be prepared is run as it is and tells its error there.
func (t *tx) prepared(ctx context.Context, query string) (*sql.Stmt, bool) {
	if t.stmts == nil {
		return nil, false
	}
	if stmt, ok := t.stmts[query]; ok {
		return stmt, true
	}
	if len(t.stmts) >= maxPrepared {
		return nil, false
	}
	stmt, err := t.conn.PrepareContext(ctx, t.texts.of(query))
	if err != nil {
		return nil, false
	}
	t.stmts[query] = stmt
	return stmt, true
}

// fit makes texts storable: PostgreSQL refuses the sign 0 and what is not UTF-8,
// and one such text of a box would hold up all others for ever.
func (t *tx) fit(args []any) []any {
	if !t.plain {
		return args
	}
	for i, arg := range args {
		if text, ok := arg.(string); ok && (strings.ContainsRune(text, 0) || !utf8.ValidString(text)) {
			args = slices.Clone(args)
			args[i] = strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
		}
	}
	return args
}

// texts keeps statements as one engine wants them.
type texts struct {
	translate func(string) string
	known     sync.Map // string to string
}

func (x *texts) of(query string) string {
	if text, ok := x.known.Load(query); ok {
		return text.(string)
	}
	text := x.translate(query)
	x.known.Store(query, text)
	return text
}

// forSQLite: its one writer has locked all rows. A statement that fails ends
// its transaction; unless it is told so, SQLite copies every page that an
// INSERT of many rows changes, to undo only that.
func forSQLite(query string) string {
	query = strings.TrimSuffix(query, " FOR UPDATE")
	if values, ok := strings.CutPrefix(query, "INSERT INTO"); ok {
		query = "INSERT OR FAIL INTO" + values
	}
	return query
}

// forPostgres numbers the arguments.
func forPostgres(query string) string {
	var b strings.Builder
	n, quoted := 0, false
	for _, r := range query {
		switch {
		case r == '\'':
			quoted = !quoted
		case r == '?' && !quoted:
			n++
			b.WriteString("$" + strconv.Itoa(n))
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// write runs f in one transaction that changes things, with the audit record of
// what is changed where ctx has one. f may run twice.
func (s *Store) write(ctx context.Context, f func(*tx) error) error {
	err := s.engine.write(ctx, fenced(ctx, s.recorded(ctx, f)))
	if d := audit.Of(ctx); err == nil && d.Pending() {
		d.Written()
	}
	return err
}

// read runs f, whose statements may each see a newer state.
func (s *Store) read(ctx context.Context, f func(*tx) error) error { return s.engine.read(ctx, f) }

// snapshot runs f, whose statements all see the same state.
func (s *Store) snapshot(ctx context.Context, f func(*tx) error) error {
	return s.engine.snapshot(ctx, f)
}

// one asks for a single row; none is ErrNotFound.
func (s *Store) one(ctx context.Context, query string, args []any, into ...any) error {
	err := s.read(ctx, func(t *tx) error { return t.QueryRow(ctx, query, args...).Scan(into...) })
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	return err
}

// each calls scan for every row of an answer.
func (s *Store) each(ctx context.Context, query string, args []any, scan func(*sql.Rows) error) error {
	return s.read(ctx, func(t *tx) error { return t.each(ctx, query, args, scan) })
}

func (t *tx) each(ctx context.Context, query string, args []any, scan func(*sql.Rows) error) error {
	rows, err := t.Query(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// scanIDs reads rows that are a box's id each.
func scanIDs(into *[]identity.ID) func(*sql.Rows) error {
	return func(rows *sql.Rows) error {
		var id identity.ID
		err := rows.Scan(&id)
		*into = append(*into, id)
		return err
	}
}

// runOf reads a stored run id.
func runOf(raw []byte) (run wire.RunID, err error) {
	if copy(run[:], raw) != len(run) || len(raw) != len(run) {
		return run, fmt.Errorf("run id of %d bytes; restore the database from a backup", len(raw))
	}
	return run, nil
}
