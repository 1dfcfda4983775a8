package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/edgeherd/edgeherd/internal/identity"
)

// Size is what is measured of the database.
type Size struct {
	LSN      uint64 // of the last commit of telemetry
	Sessions int    // of boxes that this node holds
	Bytes    int64
	WALBytes int64 // SQLite only: PostgreSQL's belongs to all its databases
}

// Size measures the database.
func (s *Store) Size(ctx context.Context) (Size, error) {
	var z Size
	var lsn int64
	err := s.one(ctx, `SELECT lsn, (SELECT count(*) FROM session WHERE node = ?) FROM meta`, []any{s.holder}, &lsn, &z.Sessions)
	z.LSN = uint64(lsn)
	if err == nil {
		switch e := s.engine.(type) {
		case *sqlite:
			z.Bytes, err = fileSize(e.path)
			if err == nil {
				z.WALBytes, err = fileSize(e.path + "-wal")
			}
		default:
			err = s.one(ctx, `SELECT pg_database_size(current_database())`, nil, &z.Bytes)
		}
	}
	if err != nil {
		return Size{}, fmt.Errorf("measure the database: %w", err)
	}
	return z, nil
}

// fileSize is 0 for a file that is not there: SQLite removes an empty log.
func fileSize(path string) (int64, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// Place is where a box is, and whether it is there.
type Place struct {
	ID        identity.ID
	Name      string
	Site      string
	Connected bool
}

// Places lists all boxes by ID, without what else is known of them.
func (s *Store) Places(ctx context.Context) (out []Place, err error) {
	err = s.each(ctx, `SELECT id, name, site, connected FROM box ORDER BY id`, nil, func(rows *sql.Rows) error {
		var p Place
		err := rows.Scan(&p.ID, &p.Name, &p.Site, &p.Connected)
		out = append(out, p)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list places of boxes: %w", err)
	}
	return out, nil
}
