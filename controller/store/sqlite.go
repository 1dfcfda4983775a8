package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the database engine, in pure Go

	"github.com/edgeherd/edgeherd/internal/wire"
)

// idleReaders is how many connections stay open for reading; opening one costs
// more than most queries.
const idleReaders = 4

// sqlite is a database file of this process.
type sqlite struct {
	db      *sql.DB
	path    string
	texts   *texts
	writer  chan *session // buffer 1: the only one, or nil when it broke
	readers chan *session // those that are idle
}

var errClosed = errors.New("the database is closed")

// session is one connection with what was prepared on it.
type session struct {
	conn  *sql.Conn
	stmts map[string]*sql.Stmt
}

// sqliteDSN names a file; escaped, or a ? or % in the path would end or change it.
func sqliteDSN(path string, pragmas ...string) string {
	dsn := (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: filepath.ToSlash(path)}).EscapedPath()}).String()
	return dsn + "?_pragma=" + strings.Join(append([]string{"busy_timeout(10000)"}, pragmas...), "&_pragma=")
}

func openSQLite(ctx context.Context, path string, now func() time.Time) (*sqlite, error) {
	if err := touch(path); err != nil {
		return nil, err
	}
	if err := format(ctx, path); err != nil {
		return nil, err
	}
	e := &sqlite{path: path, texts: &texts{translate: forSQLite}, writer: make(chan *session, 1), readers: make(chan *session, idleReaders)}
	var err error
	if e.db, err = sql.Open("sqlite", sqliteDSN(path, "journal_mode(WAL)", "synchronous(FULL)")); err != nil {
		return nil, err
	}
	e.writer <- nil
	if err = migrate(ctx, e.db, goose.DialectSQLite3, "migrations/sqlite"); err == nil {
		err = e.begin(ctx, now)
	}
	if err != nil {
		return nil, errors.Join(err, e.close())
	}
	return e, nil
}

// touch makes sure of a file that only its owner reads. Its errors, unlike
// those of SQLite, say what stands in the way.
func touch(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// format makes an empty file one that can give disk space back (auto_vacuum 2,
// incremental), which is chosen before anything is in it.
func format(ctx context.Context, path string) error {
	if info, err := os.Stat(path); err != nil || info.Size() > 0 {
		return err
	}
	db, err := sql.Open("sqlite", sqliteDSN(path, "auto_vacuum(2)", "journal_mode(WAL)"))
	if err != nil {
		return err
	}
	return errors.Join(db.PingContext(ctx), db.Close())
}

// begin draws the run of this life. The file may be a copy of an older state:
// the last run ends with what is in it.
func (e *sqlite) begin(ctx context.Context, now func() time.Time) error {
	var run wire.RunID
	rand.Read(run[:])
	return e.write(ctx, func(t *tx) error {
		for _, q := range []struct {
			text string
			args []any
		}{
			{`UPDATE run SET end_lsn = (SELECT lsn FROM meta) WHERE end_lsn IS NULL`, nil},
			{`INSERT INTO run (id, started_ms, start_lsn) SELECT ?, ?, lsn FROM meta`, []any{run[:], now().UnixMilli()}},
			{`UPDATE meta SET run = ?`, []any{run[:]}},
			{beginRestored, []any{now().UnixMilli()}},
			// Sessions die with the process that held them.
			{`UPDATE box SET connected = ?`, []any{false}},
			{`DELETE FROM session`, nil},
		} {
			if _, err := t.Exec(ctx, q.text, q.args...); err != nil {
				return fmt.Errorf("begin a run: %w", err)
			}
		}
		return nil
	})
}

func (e *sqlite) stamp(ctx context.Context, t *tx) (run wire.RunID, lsn uint64, err error) {
	var raw []byte
	if err := t.QueryRow(ctx, `UPDATE meta SET lsn = lsn + 1 RETURNING lsn, run`).Scan(&lsn, &raw); err != nil {
		return run, 0, fmt.Errorf("take the next LSN: %w", err)
	}
	run, err = runOf(raw)
	return run, lsn, err
}

// settle: the run was drawn at the start, and nobody else writes the file.
func (e *sqlite) settle(context.Context) error { return nil }

func (e *sqlite) settled(context.Context, *tx) (bool, error) { return true, nil }

// tidy: its tables have no parts.
func (e *sqlite) tidy(context.Context, Retention, time.Time) error { return nil }

// shrinkPages of 4096 bytes are given back at once: some milliseconds of writing.
const shrinkPages = "1000"

func (e *sqlite) shrink(ctx context.Context) error {
	return e.write(ctx, func(t *tx) error {
		return t.each(ctx, `PRAGMA incremental_vacuum(`+shrinkPages+`)`, nil, func(*sql.Rows) error { return nil })
	})
}

// forWriter prepares the connection that writes. After 16384 pages of 4096
// bytes a commit moves the log into the file itself, and whoever waits for it
// waits for that as well: only if nobody calls checkpoint. 16384 KiB keep the
// pages of a large commit in memory, which else are written to the log twice.
const forWriter = `PRAGMA query_only = 0; PRAGMA wal_autocheckpoint = 16384; PRAGMA cache_size = -16384`

// checkpoint moves what was committed from the log into the file, beside
// commits.
func (e *sqlite) checkpoint(ctx context.Context) error {
	conn, err := e.db.Conn(ctx)
	if err != nil {
		return err
	}
	_, err = conn.ExecContext(ctx, `PRAGMA wal_checkpoint(PASSIVE)`)
	return errors.Join(err, conn.Close())
}

func (e *sqlite) session(ctx context.Context, pragma string) (*session, error) {
	conn, err := e.db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := conn.ExecContext(ctx, pragma); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &session{conn: conn, stmts: map[string]*sql.Stmt{}}, nil
}

func (s *session) end() error {
	for _, stmt := range s.stmts {
		stmt.Close()
	}
	return s.conn.Close()
}

func (e *sqlite) tx(s *session, whole bool) *tx {
	return &tx{on: s.conn, texts: e.texts, stmts: s.stmts, conn: s.conn, whole: whole}
}

func (e *sqlite) write(ctx context.Context, f func(*tx) error) (err error) {
	var s *session
	open := false
	select {
	case s, open = <-e.writer:
	case <-ctx.Done():
		return ctx.Err()
	}
	if !open {
		return errClosed
	}
	defer func() { e.writer <- s }()
	if s == nil {
		if s, err = e.session(ctx, forWriter); err != nil {
			return fmt.Errorf("connect: %w", err)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	t := e.tx(s, true)
	if _, err := t.Exec(ctx, `BEGIN IMMEDIATE`); err != nil {
		return fmt.Errorf("begin transaction: %w", err)
	}
	committed := false
	defer func() { // a panic of f as well must not leave the transaction open
		if committed {
			return
		}
		// The reason is err: SQLite may have rolled back by itself (disk full),
		// and what could not be rolled back was not committed.
		if _, fault := t.Exec(ctx, `ROLLBACK`); fault != nil && !strings.Contains(fault.Error(), "no transaction is active") {
			s.end()
			s = nil
		}
	}()
	if err := f(t); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err // who asked does not wait any more
	}
	if _, err := t.Exec(ctx, `COMMIT`); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	committed = true
	return nil
}

func (e *sqlite) read(ctx context.Context, f func(*tx) error) (err error) {
	var s *session
	select {
	case s = <-e.readers:
	default:
		if s, err = e.session(ctx, `PRAGMA query_only = 1`); err != nil {
			return fmt.Errorf("connect: %w", err)
		}
	}
	defer func() {
		select {
		case e.readers <- s:
		default:
			s.end()
		}
	}()
	return f(e.tx(s, false))
}

func (e *sqlite) snapshot(ctx context.Context, f func(*tx) error) error {
	return e.read(ctx, func(t *tx) error {
		if _, err := t.Exec(ctx, `BEGIN`); err != nil {
			return fmt.Errorf("begin transaction: %w", err)
		}
		defer t.on.ExecContext(context.WithoutCancel(ctx), `ROLLBACK`) // nothing was changed
		return f(t)
	})
}

func (e *sqlite) close() error {
	s, open := <-e.writer // after the write that is under way
	if !open {
		return nil
	}
	close(e.writer)
	var errs []error
	if s != nil {
		errs = append(errs, s.end())
	}
	for {
		select {
		case s := <-e.readers:
			errs = append(errs, s.end())
			continue
		default:
		}
		break
	}
	return errors.Join(append(errs, e.db.Close())...)
}
