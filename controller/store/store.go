// Package store keeps all that a controller knows in one SQLite database.
//
// Telemetry is stored as the sealed blocks that boxes send, one row a block,
// with the newest values, hourly rollups, events and results derived from a
// block in the transaction that inserts it. A run is one life of the database:
// each Open draws a new RunID, and the log sequence number (LSN) grows with
// every ingest commit, so that a box can tell what a restored backup lacks.
//
//	FILE, FILE-wal, FILE-shm   the database (WAL, synchronous=FULL)
//
// The one rule a caller can break: acknowledge a block only with what Ingest
// returned, since its commit is what makes the block safe.
package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the database engine, in pure Go

	"github.com/edgeherd/edgeherd/internal/wire"
)

// ErrNotFound says that the thing asked for is not in the database.
var ErrNotFound = errors.New("not found")

// ErrConflict says that a thing of that name exists with other content.
var ErrConflict = errors.New("conflict")

//go:embed migrations/*.sql
var migrations embed.FS

// Options of a Store. Path is required.
type Options struct {
	Path string
	// WallClock stamps rows; nil means time.Now.
	WallClock func() time.Time
}

// Store is an open database. Safe for concurrent use: one writer, many readers.
type Store struct {
	w, r *sql.DB
	run  wire.RunID
	now  func() time.Time
}

// Open opens the database, migrates it and begins a new run.
func Open(ctx context.Context, opts Options) (*Store, error) {
	if opts.WallClock == nil {
		opts.WallClock = time.Now
	}
	if err := touch(opts.Path); err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	s := &Store{now: opts.WallClock}
	// Escaped, or a ? or % in the path would end or change it.
	dsn := (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: filepath.ToSlash(opts.Path)}).EscapedPath()}).String() +
		"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_txlock=immediate"
	var err error
	if s.w, err = sql.Open("sqlite", dsn); err != nil {
		return nil, fmt.Errorf("open database %s: %w", opts.Path, err)
	}
	s.w.SetMaxOpenConns(1)
	if err := s.begin(ctx); err != nil {
		s.w.Close()
		return nil, fmt.Errorf("open database %s: %w", opts.Path, err)
	}
	if s.r, err = sql.Open("sqlite", dsn+"&_pragma=query_only(1)"); err != nil {
		s.w.Close()
		return nil, fmt.Errorf("open database %s: %w", opts.Path, err)
	}
	s.r.SetMaxOpenConns(4)
	s.r.SetMaxIdleConns(4) // opening one costs more than most queries
	return s, nil
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

func (s *Store) begin(ctx context.Context) error {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, s.w, dir)
	if err != nil {
		return fmt.Errorf("prepare migrations: %w", err)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	have, known, err := p.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("read the version of the tables: %w", err)
	}
	if have > known {
		return fmt.Errorf("its tables have version %d, this program knows %d: run the newer edgeherd that wrote it", have, known)
	}
	rand.Read(s.run[:])
	return s.write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.Exec(`UPDATE run SET end_lsn = (SELECT value FROM meta WHERE key = 'lsn') WHERE end_lsn IS NULL`); err != nil {
			return err
		}
		// Sessions die with the process that held them.
		if _, err := tx.Exec(`UPDATE box SET connected = 0`); err != nil {
			return err
		}
		_, err := tx.Exec(`INSERT INTO run (id, started_ms, start_lsn) SELECT ?, ?, value FROM meta WHERE key = 'lsn'`, s.run[:], s.now().UnixMilli())
		return err
	})
}

// Close releases the database.
func (s *Store) Close() error { return errors.Join(s.r.Close(), s.w.Close()) }

// Run names this life of the database.
func (s *Store) Run() wire.RunID { return s.run }

// Valid returns, for each of the runs that this database descends from, the
// highest LSN of it that the database contains.
func (s *Store) Valid(ctx context.Context, runs []wire.RunID) ([]wire.RunLSN, error) {
	var out []wire.RunLSN
	for _, run := range runs {
		var lsn uint64
		err := s.r.QueryRowContext(ctx,
			`SELECT coalesce(end_lsn, (SELECT value FROM meta WHERE key = 'lsn')) FROM run WHERE id = ?`, run[:]).Scan(&lsn)
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look up run %s: %w", run, err)
		}
		out = append(out, wire.RunLSN{Run: run, LSN: lsn})
	}
	return out, nil
}

// write runs f in the only write transaction.
func (s *Store) write(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := s.w.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin transaction: %w", err)
	}
	if err = f(tx); err == nil {
		if err = tx.Commit(); err == nil {
			return nil
		}
		err = fmt.Errorf("commit: %w", err)
	}
	// The reason is err: SQLite may have rolled back by itself (disk full, ctx
	// done), and what could not be rolled back was not committed.
	_ = tx.Rollback()
	if errors.Is(err, sql.ErrTxDone) && ctx.Err() != nil {
		return ctx.Err() // it ended the transaction under us
	}
	return err
}
