package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/edgeherd/edgeherd/firmware"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/models"
)

// RetireModel forgets a version, with the packs that were made for its files, and
// returns the blobs that nothing needs any more. They are deleted afterwards: a
// blob too many costs room, one too few a version. One that is pinned is
// ErrConflict: another controller may have pinned it a moment ago.
func (s *Store) RetireModel(ctx context.Context, d blob.Digest) (rest []blob.Digest, err error) {
	err = s.write(ctx, func(t *tx) error {
		rest = nil
		before, err := needed(ctx, t)
		if err != nil {
			return err
		}
		var pinned int
		var name, version, body string
		if err := t.QueryRow(ctx, `SELECT pinned, name, version, manifest FROM model WHERE digest = ? FOR UPDATE`, d.String()).Scan(&pinned, &name, &version, &body); err != nil {
			if errors.Is(err, sql.ErrNoRows) {
				err = ErrNotFound
			}
			return fmt.Errorf("model %s: %w", d, err)
		}
		if pinned != 0 {
			return fmt.Errorf("model %s is pinned: %w", d, ErrConflict)
		}
		if _, err := t.Exec(ctx, `DELETE FROM model WHERE digest = ?`, d.String()); err != nil {
			return err
		}
		if _, err := t.Exec(ctx, `INSERT INTO model_retired (name, version, manifest, retired_ms) VALUES (?,?,?,?) ON CONFLICT (name, version) DO UPDATE SET retired_ms = excluded.retired_ms`,
			name, version, body, s.now().UnixMilli()); err != nil {
			return err
		}
		after, err := needed(ctx, t)
		if err != nil {
			return err
		}
		for x := range before {
			if after[x] {
				continue
			}
			rest = append(rest, x)
			packs, err := dropPacks(ctx, t, `target = ? OR base = ?`, x.String(), x.String())
			if err != nil {
				return err
			}
			rest = append(rest, packs...)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("retire model: %w", err)
	}
	return rest, nil
}

// needed are the blobs of all versions and releases, without packs.
func needed(ctx context.Context, t *tx) (map[blob.Digest]bool, error) {
	need := map[blob.Digest]bool{}
	read := func(query string, parts func(body []byte) ([]blob.Digest, error)) error {
		return t.each(ctx, query, nil, func(rows *sql.Rows) error {
			var digest, body string
			if err := rows.Scan(&digest, &body); err != nil {
				return err
			}
			d, err := blob.ParseDigest(digest)
			if err != nil {
				return err
			}
			list, err := parts([]byte(body))
			if err != nil {
				return fmt.Errorf("parse manifest %s: %w", digest, err)
			}
			for _, x := range append(list, d) {
				if !x.IsZero() {
					need[x] = true
				}
			}
			return nil
		})
	}
	err := read(`SELECT digest, manifest FROM model`, func(body []byte) (out []blob.Digest, err error) {
		var m models.Manifest
		err = json.Unmarshal(body, &m)
		for _, f := range m.Files {
			out = append(out, f.Digest, f.Frames)
		}
		return out, err
	})
	if err == nil {
		err = read(`SELECT digest, manifest FROM agent_release`, func(body []byte) (out []blob.Digest, err error) {
			var r firmware.Release
			err = json.Unmarshal(body, &r)
			for _, b := range r.Builds {
				out = append(out, b.Digest)
			}
			return out, err
		})
	}
	return need, err
}

// dropPacks forgets packs and returns their blobs.
func dropPacks(ctx context.Context, t *tx, where string, args ...any) (out []blob.Digest, err error) {
	err = t.each(ctx, `DELETE FROM pack WHERE (`+where+`) RETURNING digest, list`, args, func(rows *sql.Rows) error {
		var texts [2]string
		if err := rows.Scan(&texts[0], &texts[1]); err != nil {
			return err
		}
		for _, text := range texts {
			var d blob.Digest
			if err := d.UnmarshalText([]byte(text)); err != nil {
				return err
			}
			if !d.IsZero() {
				out = append(out, d)
			}
		}
		return nil
	})
	return out, err
}

// PacksBytes is how much room the packs take.
func (s *Store) PacksBytes(ctx context.Context) (n int64, err error) {
	err = s.one(ctx, `SELECT COALESCE(SUM(bytes + list_bytes), 0) FROM pack WHERE state = 'ready'`, nil, &n)
	return n, err
}

// UsePacks notes that boxes were told of the packs of a file.
func (s *Store) UsePacks(ctx context.Context, target blob.Digest) error {
	now := s.now().UnixMilli()
	return s.write(ctx, func(t *tx) error {
		_, err := t.Exec(ctx, `UPDATE pack SET used_ms = ? WHERE target = ? AND state = 'ready' AND used_ms < ?`, now, target.String(), now-packUseMs)
		return err
	})
}

// packUseMs is how exactly uses are noted: each is a write.
const packUseMs = 10 * 60 * 1000

// EvictPack forgets the pack that nobody was told of for longest, but for those of
// targets in keep, and returns its blobs; ErrNotFound: there is none.
func (s *Store) EvictPack(ctx context.Context, keep map[blob.Digest]bool) (out []blob.Digest, err error) {
	err = s.write(ctx, func(t *tx) error {
		var victim []any // target and base
		err := t.each(ctx, `SELECT target, base FROM pack WHERE state = 'ready' ORDER BY CASE WHEN used_ms > changed_ms THEN used_ms ELSE changed_ms END, target, base`, nil, func(rows *sql.Rows) error {
			var target, base string
			if err := rows.Scan(&target, &base); err != nil || victim != nil {
				return err
			}
			d, err := blob.ParseDigest(target)
			if !keep[d] {
				victim = []any{target, base}
			}
			return err
		})
		if err == nil && victim == nil {
			err = ErrNotFound
		}
		if err == nil {
			out, err = dropPacks(ctx, t, `target = ? AND base = ?`, victim...)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("evict a pack: %w", err)
	}
	return out, nil
}
