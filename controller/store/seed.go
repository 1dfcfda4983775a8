package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/edgeherd/edgeherd/controller/site"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// SeedAsk is a box of a site that wants a file.
type SeedAsk struct {
	Box     identity.ID
	Site    string
	Digest  blob.Digest
	Size    int64
	Done    int64
	Address string // where it gives what it has to others; empty: it does not
	Yield   bool
	Shun    []identity.ID // boxes that gave it wrong bytes
}

// Holder is a box that has a part of a file, or all of it.
type Holder struct {
	Box     identity.ID
	Address string
	Done    int64
}

const (
	maxHolders = 8
	// A box that is loading is heard from; one that has all says nothing more.
	holderFresh = 3 * site.SeedTTL
	holderWhole = 24 * time.Hour
	shunFor     = 24 * time.Hour
)

// AskSeed lets site.NextSeed decide who of a site fetches a file, remembers
// what the asker has, and returns others to ask: the one who fetches first.
func (s *Store) AskSeed(ctx context.Context, a SeedAsk) (lease site.Seed, holders []Holder, err error) {
	now := s.now()
	err = s.write(ctx, func(t *tx) error {
		holders = nil
		var until, moved int64
		lease = site.Seed{}
		err := t.QueryRow(ctx, `SELECT box, epoch, until_ms, done, moved_ms FROM seed WHERE site = ? AND digest = ? FOR UPDATE`, a.Site, a.Digest.String()).
			Scan(&lease.Box, &lease.Epoch, &until, &lease.Done, &moved)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		lease.Until, lease.Moved = time.UnixMilli(until), time.UnixMilli(moved)
		for _, bad := range a.Shun {
			if _, err := t.Exec(ctx, `UPDATE holder SET shunned_ms = ? WHERE site = ? AND digest = ? AND box = ?`,
				now.Add(shunFor).UnixMilli(), a.Site, a.Digest.String(), string(bad)); err != nil {
				return err
			}
			if lease.Box == bad {
				lease = site.NextSeed(lease, site.SeedAsk{Box: bad, Shunned: true}, now)
			}
		}
		shunned, err := keepHolder(ctx, t, a, now)
		if err != nil {
			return err
		}
		lease = site.NextSeed(lease, site.SeedAsk{Box: a.Box, Done: a.Done, Yield: a.Yield, Shunned: shunned}, now)
		if _, err := t.Exec(ctx, `INSERT INTO seed (site, digest, box, epoch, until_ms, done, moved_ms) VALUES (?,?,?,?,?,?,?)
			ON CONFLICT (site, digest) DO UPDATE SET box = excluded.box, epoch = excluded.epoch, until_ms = excluded.until_ms, done = excluded.done, moved_ms = excluded.moved_ms`,
			a.Site, a.Digest.String(), string(lease.Box), lease.Epoch, lease.Until.UnixMilli(), lease.Done, lease.Moved.UnixMilli()); err != nil {
			return err
		}
		holders, err = readHolders(ctx, t, a, lease.Box, now)
		return err
	})
	if err != nil {
		return site.Seed{}, nil, fmt.Errorf("lease of %s at %q: %w", a.Digest.Short(), a.Site, err)
	}
	return lease, holders, nil
}

func keepHolder(ctx context.Context, t *tx, a SeedAsk, now time.Time) (shunned bool, err error) {
	if _, err := t.Exec(ctx, `INSERT INTO holder (site, digest, box, address, done, seen_ms, shunned_ms) VALUES (?,?,?,?,?,?,0)
		ON CONFLICT (site, digest, box) DO UPDATE SET address = excluded.address, done = excluded.done, seen_ms = excluded.seen_ms`,
		a.Site, a.Digest.String(), string(a.Box), a.Address, a.Done, now.UnixMilli()); err != nil {
		return false, err
	}
	var until int64
	err = t.QueryRow(ctx, `SELECT shunned_ms FROM holder WHERE site = ? AND digest = ? AND box = ?`, a.Site, a.Digest.String(), string(a.Box)).Scan(&until)
	return until > now.UnixMilli(), err
}

// readHolders finds others to ask; nobody is sent to a box that is in quarantine
// or gone, whatever it has.
func readHolders(ctx context.Context, t *tx, a SeedAsk, seed identity.ID, now time.Time) (out []Holder, err error) {
	rows, err := t.Query(ctx, `SELECT box, address, done FROM holder
		WHERE site = ? AND digest = ? AND box <> ? AND address <> '' AND shunned_ms <= ?
		AND NOT EXISTS (SELECT 1 FROM standing WHERE standing.box = holder.box AND state NOT IN ('active', 'enrolled')) AND (box = ? OR done > 0 AND seen_ms >= ? OR done >= ? AND seen_ms >= ?)
		ORDER BY CASE WHEN box = ? THEN 0 ELSE 1 END, done DESC, box LIMIT ?`,
		a.Site, a.Digest.String(), string(a.Box), now.UnixMilli(), string(seed), now.Add(-holderFresh).UnixMilli(), a.Size, now.Add(-holderWhole).UnixMilli(), string(seed), maxHolders)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var h Holder
		if err := rows.Scan(&h.Box, &h.Address, &h.Done); err != nil {
			return nil, err
		}
		out = append(out, h)
	}
	return out, rows.Err()
}
