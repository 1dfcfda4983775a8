package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// keepVersions is how many versions of each document of the fleet's metadata are
// kept: a box may be in the middle of a refresh. Of root all are, see tufrepo.
const keepVersions = 5

// TrustDocument is a document of the fleet's metadata.
type TrustDocument struct {
	Role    string
	Version int64
	// Staged ones wait for signatures and are not served; one a role.
	Staged bool
	Body   []byte
}

// TrustDocument returns one that is served; version 0 is the newest.
func (s *Store) TrustDocument(ctx context.Context, role string, version int64) (body []byte, err error) {
	err = s.one(ctx, `SELECT body FROM trust_document WHERE role = ? AND staged = 0 AND (CAST(? AS BIGINT) = 0 OR version = ?) ORDER BY version DESC LIMIT 1`,
		[]any{role, version, version}, &body)
	if errors.Is(err, ErrNotFound) {
		return nil, fmt.Errorf("metadata of %s: %w", role, ErrNotFound)
	}
	return body, err
}

const newestTrust = `SELECT role, version, staged, body FROM trust_document d WHERE staged = 1
	OR version = (SELECT max(version) FROM trust_document o WHERE o.role = d.role AND o.staged = 0) ORDER BY role, staged`

func scanTrust(out *[]TrustDocument) func(*sql.Rows) error {
	return func(rows *sql.Rows) error {
		var d TrustDocument
		var staged int64
		if err := rows.Scan(&d.Role, &d.Version, &staged, &d.Body); err != nil {
			return err
		}
		d.Staged = staged != 0
		*out = append(*out, d)
		return nil
	}
}

// TrustDocuments returns the newest of each role, and what is staged.
func (s *Store) TrustDocuments(ctx context.Context) (out []TrustDocument, err error) {
	if err := s.each(ctx, newestTrust, nil, scanTrust(&out)); err != nil {
		return nil, fmt.Errorf("read the fleet's metadata: %w", err)
	}
	return out, nil
}

// ChangeTrust lets change see the newest of each role and what is staged, and
// writes what it returns; a staged one without a body is removed. Two changes at
// once do not both succeed: a version is written once.
func (s *Store) ChangeTrust(ctx context.Context, change func(have []TrustDocument) ([]TrustDocument, error)) error {
	return s.write(ctx, func(t *tx) error {
		var have []TrustDocument
		if err := t.each(ctx, newestTrust, nil, scanTrust(&have)); err != nil {
			return fmt.Errorf("read the fleet's metadata: %w", err)
		}
		docs, err := change(have)
		if err != nil {
			return err
		}
		for _, d := range docs {
			if err := putTrust(ctx, t, d); err != nil {
				return err
			}
		}
		return nil
	})
}

func putTrust(ctx context.Context, t *tx, d TrustDocument) error {
	if d.Staged {
		_, err := t.Exec(ctx, `DELETE FROM trust_document WHERE role = ? AND staged = 1`, d.Role)
		if err != nil || d.Body == nil {
			return err
		}
		_, err = t.Exec(ctx, `INSERT INTO trust_document (role, version, staged, body) VALUES (?,?,1,?)`, d.Role, d.Version, d.Body)
		return err
	}
	made, err := t.Exec(ctx, `INSERT INTO trust_document (role, version, staged, body) VALUES (?,?,0,?) ON CONFLICT DO NOTHING`, d.Role, d.Version, d.Body)
	if err != nil {
		return err
	}
	if n, err := made.RowsAffected(); err != nil || n == 0 {
		return errors.Join(err, fmt.Errorf("version %d of %s is there already: %w", d.Version, d.Role, ErrConflict))
	}
	if d.Role == "root" {
		return nil
	}
	_, err = t.Exec(ctx, `DELETE FROM trust_document WHERE role = ? AND staged = 0 AND version NOT IN
		(SELECT version FROM trust_document WHERE role = ? AND staged = 0 ORDER BY version DESC LIMIT ?)`, d.Role, d.Role, keepVersions)
	return err
}

// TrustTold is what an endpoint was told last of the end of a role.
type TrustTold struct {
	Endpoint, Role string
	Stage          int
}

// TellTrust lets decide see the newest of each role, what is staged, and what was
// told, and queues the notices that it returns. From then on told is what was told.
func (s *Store) TellTrust(ctx context.Context, decide func(docs []TrustDocument, told []TrustTold) (now []TrustTold, notices []Notice, err error)) error {
	return s.write(ctx, func(t *tx) error {
		var docs []TrustDocument
		if err := t.each(ctx, newestTrust, nil, scanTrust(&docs)); err != nil {
			return fmt.Errorf("read the fleet's metadata: %w", err)
		}
		var told []TrustTold
		if err := t.each(ctx, `SELECT endpoint, role, stage FROM trust_told`, nil, func(rows *sql.Rows) error {
			var one TrustTold
			err := rows.Scan(&one.Endpoint, &one.Role, &one.Stage)
			told = append(told, one)
			return err
		}); err != nil {
			return fmt.Errorf("read what was told of the fleet's metadata: %w", err)
		}
		now, notices, err := decide(docs, told)
		slices.SortFunc(told, byEndpoint)
		slices.SortFunc(now, byEndpoint)
		if err != nil || slices.Equal(now, told) && len(notices) == 0 {
			return err
		}
		if _, err := t.Exec(ctx, `DELETE FROM trust_told`); err != nil {
			return fmt.Errorf("note what was told of the fleet's metadata: %w", err)
		}
		for _, one := range now {
			if _, err := t.Exec(ctx, `INSERT INTO trust_told (endpoint, role, stage) VALUES (?,?,?)`, one.Endpoint, one.Role, one.Stage); err != nil {
				return fmt.Errorf("note what was told of the fleet's metadata: %w", err)
			}
		}
		for _, n := range notices {
			if err := queueNotice(ctx, t, n, s.now().UnixMilli()); err != nil {
				return err
			}
		}
		return nil
	})
}

func byEndpoint(a, b TrustTold) int {
	return cmp.Or(strings.Compare(a.Endpoint, b.Endpoint), strings.Compare(a.Role, b.Role))
}
