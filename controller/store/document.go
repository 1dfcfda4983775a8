package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// Document is one version of a document of settings.
type Document struct {
	Name    string
	Version string // 1, 2, 3…
	Digest  blob.Digest
	Body    string // YAML; empty: the document was withdrawn
	Created time.Time
	By      string
	// Waits says that it was for no box when it was stored: it waits for some.
	Waits bool
}

// AddDocument stores a version that follows the newest one of the name.
// ErrConflict says that somebody else stored one meanwhile.
func (s *Store) AddDocument(ctx context.Context, d Document) error {
	version, err := strconv.Atoi(d.Version)
	if err != nil {
		return fmt.Errorf("version %q of document %s is no number", d.Version, d.Name)
	}
	err = s.write(ctx, func(t *tx) error {
		var newest int
		if err := t.QueryRow(ctx, `SELECT coalesce(max(version), 0) FROM config_document WHERE name = ?`, d.Name).Scan(&newest); err != nil {
			return err
		}
		if version != newest+1 {
			return fmt.Errorf("version %d is there already: %w", newest, ErrConflict)
		}
		_, err := t.Exec(ctx, `INSERT INTO config_document (name, version, digest, body, created_ms, author, waits) VALUES (?,?,?,?,?,?,?)`,
			d.Name, version, d.Digest.String(), d.Body, s.now().UnixMilli(), d.By, d.Waits)
		return err
	})
	if err != nil {
		return fmt.Errorf("store document %s: %w", d.Name, err)
	}
	return nil
}

const documentColumns = `SELECT name, version, digest, body, created_ms, author, waits FROM config_document `

func (s *Store) documents(ctx context.Context, where string, args ...any) ([]Document, error) {
	var out []Document
	err := s.each(ctx, documentColumns+where, args, func(rows *sql.Rows) error {
		var d Document
		var version, created int64
		var digest string
		if err := rows.Scan(&d.Name, &version, &digest, &d.Body, &created, &d.By, &d.Waits); err != nil {
			return err
		}
		d.Version, d.Created = strconv.FormatInt(version, 10), time.UnixMilli(created).UTC()
		if err := d.Digest.UnmarshalText([]byte(digest)); err != nil {
			return err
		}
		out = append(out, d)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list documents: %w", err)
	}
	return out, nil
}

// NewestDocuments returns the newest version of each document, by name.
func (s *Store) NewestDocuments(ctx context.Context) ([]Document, error) {
	return s.documents(ctx, `WHERE version = (SELECT max(version) FROM config_document o WHERE o.name = config_document.name) ORDER BY name`)
}

// Documents returns all versions of a document, newest first.
func (s *Store) Documents(ctx context.Context, name string) ([]Document, error) {
	return s.documents(ctx, `WHERE name = ? ORDER BY version DESC`, name)
}

// Document returns one version, or ErrNotFound.
func (s *Store) Document(ctx context.Context, name, version string) (Document, error) {
	number, err := strconv.Atoi(version)
	if err != nil {
		return Document{}, fmt.Errorf("document %s:%s: %w", name, version, ErrNotFound)
	}
	all, err := s.documents(ctx, `WHERE name = ? AND version = ?`, name, number)
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("document %s:%s: %w", name, version, ErrNotFound)
	}
	if err != nil {
		return Document{}, err
	}
	return all[0], nil
}

// SetLabels changes labels of a box: an empty value takes one away.
func (s *Store) SetLabels(ctx context.Context, id identity.ID, change map[string]string) error {
	err := s.write(ctx, func(t *tx) error {
		if err := lockBox(ctx, t, id); err != nil {
			return err
		}
		st, err := standingIn(ctx, t, id)
		if err != nil {
			return err
		}
		labels := map[string]string{}
		for k, v := range st.Labels {
			labels[k] = v
		}
		for k, v := range change {
			if v == "" {
				delete(labels, k)
			} else {
				labels[k] = v
			}
		}
		st.Labels = labels
		return putStanding(ctx, t, st)
	})
	if err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("set labels of %s: %w", id, err)
	}
	return err
}

// DesiredConfigs returns the settings that boxes shall follow, of those that
// have any.
func (s *Store) DesiredConfigs(ctx context.Context) (map[identity.ID]*wire.DesiredConfig, error) {
	out := map[identity.ID]*wire.DesiredConfig{}
	err := s.each(ctx, `SELECT id, desired FROM box WHERE desired LIKE '%"config":{%'`, nil, func(rows *sql.Rows) error {
		var id identity.ID
		var text string
		if err := rows.Scan(&id, &text); err != nil {
			return err
		}
		var d wire.Desired
		if err := json.Unmarshal([]byte(text), &d); err != nil {
			return fmt.Errorf("parse desired state of %s: %w", id, err)
		}
		if d.Config != nil {
			out[id] = d.Config
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list settings of boxes: %w", err)
	}
	return out, nil
}
