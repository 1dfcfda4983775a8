// Package store keeps all that a controller knows in one database: a SQLite
// file of its own, or a PostgreSQL database that controllers share.
//
// Telemetry is stored as the sealed blocks that boxes send, one row a block or
// pack, with its keys and the newest values, events and results derived from it
// in the transaction that inserts it. Compact merges the samples of a closed
// hour of a box into one row, with its rollups; until then both are made of the
// blocks when they are asked for. A run is one life of the database:
// SQLite draws a new one at each Open, PostgreSQL when it was restarted, failed
// over or was restored. The log sequence number (LSN) grows with every ingest
// commit, so that a box can tell what a restored backup lacks.
//
//	FILE, FILE-wal, FILE-shm   of SQLite (WAL, synchronous=FULL)
//
// The one rule a caller can break: acknowledge a block only with what Ingest
// returned, since its commit is what makes the block safe.
package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pressly/goose/v3"
)

// ErrNotFound says that the thing asked for is not in the database.
var ErrNotFound = errors.New("not found")

// ErrConflict says that a thing of that name exists with other content.
var ErrConflict = errors.New("conflict")

//go:embed migrations
var migrations embed.FS

// Options of a Store. Path or Database is required.
type Options struct {
	Path string
	// Database is the address of a PostgreSQL database, which several
	// controllers may share: postgres://user@host/name. Empty means SQLite.
	Database string
	// PasswordFile holds the password for Database; without it PGPASSWORD and
	// the user's passfile are asked, as by psql.
	PasswordFile string
	// Node names this process among the controllers of one database. The
	// sessions of boxes are its, unless Brokered: a broker of others holds them.
	Node     string
	Brokered bool
	// Retention is what Examine judges by; Retain is told its own.
	Retention Retention
	// WallClock stamps rows; nil means time.Now.
	WallClock func() time.Time
}

// Store is an open database. Safe for concurrent use.
type Store struct {
	schemas     sync.Map     // wire.SchemaID to *wire.Schema, as they were read
	schemaBytes atomic.Int64 // of schemas, encoded
	eras        eras
	engine      engine
	now         func() time.Time
	node        string
	holder      string // of sessions: node, or "" for a broker of others
}

// Open opens the database, migrates it and begins a new run if this is another
// life of it.
func Open(ctx context.Context, opts Options) (*Store, error) {
	if opts.WallClock == nil {
		opts.WallClock = time.Now
	}
	if opts.Database != "" {
		e, err := openPostgres(ctx, opts)
		if err != nil {
			return nil, fmt.Errorf("open database: %w", err)
		}
		return &Store{engine: e, now: opts.WallClock, node: opts.Node, holder: opts.holder()}, nil
	}
	e, err := openSQLite(ctx, opts.Path, opts.WallClock)
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", opts.Path, explainDisk(opts.Path, err))
	}
	return &Store{engine: e, now: opts.WallClock, node: opts.Node, holder: opts.holder()}, nil
}

func (o Options) holder() string {
	if o.Brokered {
		return ""
	}
	return o.Node
}

// migrate brings the tables to the newest version that this program knows.
func migrate(ctx context.Context, db *sql.DB, dialect goose.Dialect, dir string) error {
	files, err := fs.Sub(migrations, dir)
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(dialect, db, files)
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
	return nil
}

// Checkpoint does now what a later commit would have to do besides its own
// work. Call it every few seconds; it holds up nobody.
func (s *Store) Checkpoint(ctx context.Context) error {
	if err := s.engine.checkpoint(ctx); err != nil {
		return fmt.Errorf("move the log into the database: %w", err)
	}
	return nil
}

// Close releases the database.
func (s *Store) Close() error { return s.engine.close() }
