package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/edgeherd/edgeherd/controller/audit"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// What programs on the machine of a controller do with its database, beside a
// controller that may be running.

// besideAny runs f in one transaction on a database of either engine.
func besideAny(ctx context.Context, opts Options, f func(*tx) error) (err error) {
	if opts.Database != "" {
		e, err := connectPostgres(opts)
		if err != nil {
			return err
		}
		return errors.Join(e.write(ctx, f), e.close())
	}
	db, t, err := beside(opts.Path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	on, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	t.on = on
	if err := f(t); err != nil {
		return errors.Join(err, on.Rollback())
	}
	return on.Commit()
}

// Note writes a record into the audit log of a database.
func Note(ctx context.Context, opts Options, d *audit.Draft) error {
	err := besideAny(ctx, opts, func(t *tx) error { return appendAudit(ctx, t, d.Record(opts.WallClock())) })
	if err != nil {
		return fmt.Errorf("note %s in the audit log: %w", d.Verb, err)
	}
	return nil
}

// CertHolder is a box that may come in with one.
type CertHolder struct {
	Box  identity.ID
	Name string
	PEM  string // what it comes in with; empty: not known
}

// CertHolders lists the boxes that are members, by name. A state directory
// without a database has none.
func CertHolders(ctx context.Context, opts Options) (out []CertHolder, err error) {
	if _, err := os.Stat(opts.Path); opts.Database == "" && errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	err = besideAny(ctx, opts, func(t *tx) error {
		out = nil
		// What is pending counts for who has nothing else: it came with the enrolment.
		return t.each(ctx, `SELECT b.id, b.name, coalesce(c.pem, '') FROM box b LEFT JOIN standing s ON s.box = b.id
			LEFT JOIN device_cert c ON c.box = b.id AND c.state IN ('current', 'pending')
			WHERE coalesce(s.state, 'active') IN ('active', 'enrolled', 'quarantined')
			ORDER BY b.name, b.id, CASE c.state WHEN 'current' THEN 0 ELSE 1 END`, nil, func(rows *sql.Rows) error {
			var h CertHolder
			if err := rows.Scan(&h.Box, &h.Name, &h.PEM); err != nil {
				return err
			}
			if n := len(out); n == 0 || out[n-1].Box != h.Box {
				out = append(out, h)
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("list the certificates of boxes: %w", err)
	}
	return out, nil
}
