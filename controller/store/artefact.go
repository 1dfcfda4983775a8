package store

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/edgeherd/edgeherd/firmware"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/models"
)

// Model is one pushed version of a model.
type Model struct {
	Digest   blob.Digest
	Manifest models.Manifest
	PushedMs int64
	// Pinned versions are not retired, and boxes that have them keep them.
	Pinned bool
}

// Ref names the version.
func (m Model) Ref() models.Ref {
	return models.Ref{Name: m.Manifest.Name, Version: m.Manifest.Version, Digest: m.Digest}
}

// AddModel records a version whose envelope and files are in the blob store.
// The same version with the same digest changes nothing; with another digest
// it is ErrConflict: a version never changes its content, nor after it was retired.
func (s *Store) AddModel(ctx context.Context, digest blob.Digest, m models.Manifest) error {
	body, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return s.write(ctx, func(t *tx) error {
		return addArtefact(t, m.Name+":"+m.Version, digest,
			t.QueryRow(ctx, `SELECT digest FROM model WHERE name = ? AND version = ?`, m.Name, m.Version),
			func() error {
				if err := sameAsRetired(ctx, t, m, body); err != nil {
					return err
				}
				_, err := t.Exec(ctx, `INSERT INTO model (digest, name, version, manifest, pushed_ms, pinned) VALUES (?,?,?,?,?,0)`,
					digest.String(), m.Name, m.Version, string(body), s.now().UnixMilli())
				return err
			})
	})
}

// sameAsRetired refuses other content under the number of a version that was retired.
// What a program before wrote is compared as this one would write it.
func sameAsRetired(ctx context.Context, t *tx, m models.Manifest, body []byte) error {
	var was models.Manifest
	var text []byte
	err := t.QueryRow(ctx, `SELECT manifest FROM model_retired WHERE name = ? AND version = ?`, m.Name, m.Version).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(text, &was)
	}
	if err == nil {
		text, err = json.Marshal(was)
	}
	if err == nil && !bytes.Equal(text, body) {
		err = fmt.Errorf("%s:%s was retired here and had other content: %w", m.Name, m.Version, ErrConflict)
	}
	return err
}

func addArtefact(t *tx, what string, digest blob.Digest, present *sql.Row, insert func() error) error {
	var stored string
	switch err := present.Scan(&stored); {
	case errors.Is(err, sql.ErrNoRows):
		return insert()
	case err != nil:
		return err
	case stored != digest.String():
		return fmt.Errorf("%s is already pushed with other content; raise the version: %w", what, ErrConflict)
	}
	return nil
}

// Models returns all versions, newest first within a name.
func (s *Store) Models(ctx context.Context) ([]Model, error) {
	return s.models(ctx, `ORDER BY name, pushed_ms DESC, version DESC`)
}

func (s *Store) models(ctx context.Context, which string, args ...any) ([]Model, error) {
	var out []Model
	err := s.each(ctx, `SELECT digest, manifest, pushed_ms, pinned <> 0 FROM model `+which, args, func(rows *sql.Rows) error {
		var m Model
		var digest, body string
		if err := rows.Scan(&digest, &body, &m.PushedMs, &m.Pinned); err != nil {
			return err
		}
		if err := m.Digest.UnmarshalText([]byte(digest)); err != nil {
			return err
		}
		if err := json.Unmarshal([]byte(body), &m.Manifest); err != nil {
			return fmt.Errorf("parse manifest %s: %w", digest, err)
		}
		out = append(out, m)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list models: %w", err)
	}
	return out, nil
}

// PinModel pins a version, or no more. At most most of a name are: ErrConflict beyond
// that, since boxes give them room.
func (s *Store) PinModel(ctx context.Context, ref models.Ref, pinned bool, most int) error {
	to := 0
	if pinned {
		to = 1
	}
	err := s.write(ctx, func(t *tx) error {
		// All of the name: another controller pins as well, or retires this one.
		if err := t.each(ctx, `SELECT digest FROM model WHERE name = ? ORDER BY digest FOR UPDATE`, []any{ref.Name}, func(*sql.Rows) error { return nil }); err != nil {
			return err
		}
		res, err := t.Exec(ctx, `UPDATE model SET pinned = ? WHERE digest = ?`, to, ref.Digest.String())
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return fmt.Errorf("model %s: %w", ref, ErrNotFound)
		}
		var all int
		if err := t.QueryRow(ctx, `SELECT COUNT(*) FROM model WHERE name = ? AND pinned <> 0`, ref.Name).Scan(&all); err != nil {
			return err
		}
		if pinned && all > most {
			return fmt.Errorf("%d versions of %s are pinned already: %w", most, ref.Name, ErrConflict)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("pin model: %w", err)
	}
	return nil
}

// Pinned are the versions of a name that are pinned.
func (s *Store) Pinned(ctx context.Context, name string) (refs []models.Ref, err error) {
	err = s.each(ctx, `SELECT version, digest FROM model WHERE name = ? AND pinned <> 0 ORDER BY version`, []any{name}, func(rows *sql.Rows) error {
		ref, digest := models.Ref{Name: name}, ""
		if err := rows.Scan(&ref.Version, &digest); err != nil {
			return err
		}
		if err := ref.Digest.UnmarshalText([]byte(digest)); err != nil {
			return err
		}
		refs = append(refs, ref)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list pinned versions of %s: %w", name, err)
	}
	return refs, nil
}

// Model returns one version, or ErrNotFound.
func (s *Store) Model(ctx context.Context, name, version string) (Model, error) {
	found, err := s.models(ctx, `WHERE name = ? AND version = ?`, name, version)
	if err != nil {
		return Model{}, err
	}
	if len(found) == 0 {
		return Model{}, fmt.Errorf("model %s:%s: %w", name, version, ErrNotFound)
	}
	return found[0], nil
}

// Release is one pushed agent release.
type Release struct {
	Digest   blob.Digest
	Release  firmware.Release
	PushedMs int64
}

// AddRelease records an agent release, as AddModel does a model.
func (s *Store) AddRelease(ctx context.Context, digest blob.Digest, r firmware.Release) error {
	body, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return s.write(ctx, func(t *tx) error {
		return addArtefact(t, "release "+r.Version, digest,
			t.QueryRow(ctx, `SELECT digest FROM agent_release WHERE version = ?`, r.Version),
			func() error {
				_, err := t.Exec(ctx, `INSERT INTO agent_release (digest, version, manifest, pushed_ms) VALUES (?,?,?,?)`,
					digest.String(), r.Version, string(body), s.now().UnixMilli())
				return err
			})
	})
}

// Releases returns all agent releases, newest first.
func (s *Store) Releases(ctx context.Context) ([]Release, error) {
	return s.releases(ctx, `ORDER BY pushed_ms DESC, version DESC`)
}

func (s *Store) releases(ctx context.Context, which string, args ...any) ([]Release, error) {
	var out []Release
	err := s.each(ctx, `SELECT digest, manifest, pushed_ms FROM agent_release `+which, args, func(rows *sql.Rows) error {
		var r Release
		var digest, body string
		if err := rows.Scan(&digest, &body, &r.PushedMs); err != nil {
			return err
		}
		if err := r.Digest.UnmarshalText([]byte(digest)); err != nil {
			return err
		}
		if err := json.Unmarshal([]byte(body), &r.Release); err != nil {
			return fmt.Errorf("parse release %s: %w", digest, err)
		}
		out = append(out, r)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list releases: %w", err)
	}
	return out, nil
}

// Release returns one release by version, or ErrNotFound.
func (s *Store) Release(ctx context.Context, version string) (Release, error) {
	found, err := s.releases(ctx, `WHERE version = ?`, version)
	if err != nil {
		return Release{}, err
	}
	if len(found) == 0 {
		return Release{}, fmt.Errorf("release %s: %w", version, ErrNotFound)
	}
	return found[0], nil
}
