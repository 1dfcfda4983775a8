package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/edgeherd/edgeherd/internal/blob"
)

// PackState says how a pack stands.
type PackState string

// The states of a pack.
const (
	PackWanted PackState = "wanted"
	PackReady  PackState = "ready"
	PackUnfit  PackState = "unfit"  // it would save too little
	PackFailed PackState = "failed" // Why says why
)

// Pack is a form of the file Target for thin lines: a delta from the file Base,
// or, without one, a cold pack.
type Pack struct {
	Target, Base blob.Digest
	State        PackState
	// Digest and SizeBytes are of the pack, Index and IndexBytes of its index;
	// they are set when it is ready. SizeBytes of an unfit one is what it had.
	Digest     blob.Digest
	SizeBytes  int64
	Index      blob.Digest
	IndexBytes int64
	Why        string
}

// WantPacks asks for packs that nobody has asked for yet.
func (s *Store) WantPacks(ctx context.Context, packs []Pack) error {
	if len(packs) == 0 {
		return nil
	}
	err := s.write(ctx, func(t *tx) error {
		for _, p := range packs {
			if _, err := t.Exec(ctx, `INSERT INTO pack (target, base, state, digest, bytes, list, list_bytes, why, changed_ms)
				VALUES (?,?,?,'',0,'',0,'',?) ON CONFLICT (target, base) DO NOTHING`,
				p.Target.String(), p.Base.String(), string(PackWanted), s.now().UnixMilli()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("ask for packs: %w", err)
	}
	return nil
}

// NextPack is the wanted pack that has waited longest, cold packs first: what a
// delta is worth is measured against them. ErrNotFound: none is wanted.
func (s *Store) NextPack(ctx context.Context) (Pack, error) {
	packs, err := s.packs(ctx, `WHERE state = 'wanted' ORDER BY CASE WHEN base = '' THEN 0 ELSE 1 END, changed_ms, target, base LIMIT 1`)
	if err == nil && len(packs) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return Pack{}, fmt.Errorf("next pack: %w", err)
	}
	return packs[0], nil
}

// Packs are those of one target.
func (s *Store) Packs(ctx context.Context, target blob.Digest) ([]Pack, error) {
	return s.packs(ctx, `WHERE target = ? ORDER BY base`, target.String())
}

// ReadyPacks are all that boxes are told of, the oldest first.
func (s *Store) ReadyPacks(ctx context.Context) ([]Pack, error) {
	return s.packs(ctx, `WHERE state = 'ready' ORDER BY changed_ms, target, base`)
}

// WantPackAgain asks for a pack in place of p, unless that has gone meanwhile.
func (s *Store) WantPackAgain(ctx context.Context, p Pack) error {
	err := s.write(ctx, func(t *tx) error {
		_, err := t.Exec(ctx, `UPDATE pack SET state = 'wanted', digest = '', bytes = 0, list = '', list_bytes = 0, changed_ms = ? WHERE target = ? AND base = ? AND digest = ?`,
			s.now().UnixMilli(), p.Target.String(), p.Base.String(), p.Digest.String())
		return err
	})
	if err != nil {
		return fmt.Errorf("ask for a pack again: %w", err)
	}
	return nil
}

func (s *Store) packs(ctx context.Context, where string, args ...any) (out []Pack, err error) {
	err = s.each(ctx, `SELECT target, base, state, digest, bytes, list, list_bytes, why FROM pack `+where, args, func(rows *sql.Rows) error {
		var p Pack
		var target, base, digest, list string
		if err := rows.Scan(&target, &base, &p.State, &digest, &p.SizeBytes, &list, &p.IndexBytes, &p.Why); err != nil {
			return err
		}
		err := errors.Join(p.Target.UnmarshalText([]byte(target)), p.Base.UnmarshalText([]byte(base)),
			p.Digest.UnmarshalText([]byte(digest)), p.Index.UnmarshalText([]byte(list)))
		out = append(out, p)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read packs: %w", err)
	}
	return out, nil
}

// PutPack says what became of a pack.
func (s *Store) PutPack(ctx context.Context, p Pack) error {
	err := s.write(ctx, func(t *tx) error {
		_, err := t.Exec(ctx, `INSERT INTO pack (target, base, state, digest, bytes, list, list_bytes, why, changed_ms) VALUES (?,?,?,?,?,?,?,?,?)
			ON CONFLICT (target, base) DO UPDATE SET state = excluded.state, digest = excluded.digest, bytes = excluded.bytes,
				list = excluded.list, list_bytes = excluded.list_bytes, why = excluded.why, changed_ms = excluded.changed_ms`,
			p.Target.String(), p.Base.String(), string(p.State), p.Digest.String(), p.SizeBytes, p.Index.String(), p.IndexBytes, p.Why, s.now().UnixMilli())
		return err
	})
	if err != nil {
		return fmt.Errorf("keep pack of %s: %w", p.Target.Short(), err)
	}
	return nil
}
