package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/edgeherd/edgeherd/controller/site"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
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
	// witnesses must say that a box gave out wrong bytes before it is left by
	// others than them: one hostile box could else take the line and the peers
	// from all that are good.
	witnesses = 2
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
		if err := accuse(ctx, t, a, now); err != nil {
			return err
		}
		if lease.Box != "" && lease.Box != a.Box {
			gone, err := shunned(ctx, t, a, lease.Box, now)
			if err != nil {
				return err
			}
			if gone {
				lease = site.NextSeed(lease, site.SeedAsk{Box: lease.Box, Shunned: true}, now)
			}
		}
		if err := keepHolder(ctx, t, a, now); err != nil {
			return err
		}
		left, err := shunned(ctx, t, a, a.Box, now)
		if err != nil {
			return err
		}
		lease = site.NextSeed(lease, site.SeedAsk{Box: a.Box, Done: a.Done, Yield: a.Yield, Shunned: left}, now)
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

// accuse notes whom the asker calls bad, and forgets what is too old to matter.
func accuse(ctx context.Context, t *tx, a SeedAsk, now time.Time) error {
	for _, bad := range a.Shun {
		if bad == a.Box {
			continue
		}
		// A box says so with each question: its word is as old as the first one that
		// still holds, or the ban would never end.
		var until int64
		if err := t.QueryRow(ctx, `SELECT COALESCE(MAX(until_ms), 0) FROM accused WHERE site = ? AND box = ? AND witness = ? AND until_ms > ?`,
			a.Site, string(bad), string(a.Box), now.UnixMilli()).Scan(&until); err != nil {
			return err
		}
		if until == 0 {
			until = now.Add(shunFor).UnixMilli()
		}
		if _, err := t.Exec(ctx, `INSERT INTO accused (site, digest, box, witness, until_ms) VALUES (?,?,?,?,?)
			ON CONFLICT (site, digest, box, witness) DO UPDATE SET until_ms = excluded.until_ms`,
			a.Site, a.Digest.String(), string(bad), string(a.Box), until); err != nil {
			return err
		}
	}
	old := now.Add(-holderWhole).UnixMilli()
	for _, q := range []string{
		`DELETE FROM accused WHERE site = ? AND until_ms < ?`,
		`DELETE FROM holder WHERE site = ? AND seen_ms < ?`,
		`DELETE FROM seed WHERE site = ? AND until_ms < ?`,
	} {
		if _, err := t.Exec(ctx, q, a.Site, old); err != nil {
			return err
		}
	}
	return nil
}

// shunned reports whether enough others call a box bad.
func shunned(ctx context.Context, t *tx, a SeedAsk, box identity.ID, now time.Time) (bool, error) {
	var n int
	err := t.QueryRow(ctx, `SELECT COUNT(*) FROM accused WHERE site = ? AND digest = ? AND box = ? AND until_ms > ?`,
		a.Site, a.Digest.String(), string(box), now.UnixMilli()).Scan(&n)
	return n >= witnesses, err
}

func keepHolder(ctx context.Context, t *tx, a SeedAsk, now time.Time) error {
	_, err := t.Exec(ctx, `INSERT INTO holder (site, digest, box, address, done, seen_ms) VALUES (?,?,?,?,?,?)
		ON CONFLICT (site, digest, box) DO UPDATE SET address = excluded.address, done = excluded.done, seen_ms = excluded.seen_ms`,
		a.Site, a.Digest.String(), string(a.Box), a.Address, a.Done, now.UnixMilli())
	return err
}

// readHolders finds others to ask; nobody is sent to a box that is in quarantine
// or gone, whatever it has.
func readHolders(ctx context.Context, t *tx, a SeedAsk, seed identity.ID, now time.Time) (out []Holder, err error) {
	err = t.each(ctx, `SELECT box, address, done FROM holder
		WHERE site = ? AND digest = ? AND box <> ? AND address <> ''
		AND NOT EXISTS (SELECT 1 FROM accused x WHERE x.site = holder.site AND x.digest = holder.digest AND x.box = holder.box AND x.until_ms > ? AND x.witness = ?)
		AND (SELECT COUNT(*) FROM accused x WHERE x.site = holder.site AND x.digest = holder.digest AND x.box = holder.box AND x.until_ms > ?) < ?
		AND NOT EXISTS (SELECT 1 FROM standing WHERE standing.box = holder.box AND state NOT IN ('active', 'enrolled')) AND (box = ? OR done > 0 AND seen_ms >= ? OR done >= ? AND seen_ms >= ?)
		ORDER BY CASE WHEN box = ? THEN 0 ELSE 1 END, done DESC, box LIMIT ?`,
		[]any{a.Site, a.Digest.String(), string(a.Box), now.UnixMilli(), string(a.Box), now.UnixMilli(), witnesses, string(seed), now.Add(-holderFresh).UnixMilli(), a.Size, now.Add(-holderWhole).UnixMilli(), string(seed), maxHolders}, func(rows *sql.Rows) error {
			var h Holder
			err := rows.Scan(&h.Box, &h.Address, &h.Done)
			out = append(out, h)
			return err
		})
	return out, err
}

// Shunned are the boxes of a site that others of it call bad now, by box.
func (s *Store) Shunned(ctx context.Context, siteName string) ([]fleetapi.Shunned, error) {
	out := []fleetapi.Shunned{}
	err := s.each(ctx, `SELECT box, witness, MAX(until_ms) FROM accused WHERE site = ? AND until_ms > ? GROUP BY box, witness ORDER BY box, witness`,
		[]any{siteName, s.now().UnixMilli()}, func(rows *sql.Rows) error {
			var box, witness identity.ID
			var until int64
			if err := rows.Scan(&box, &witness, &until); err != nil {
				return err
			}
			if n := len(out); n == 0 || out[n-1].Box != box {
				out = append(out, fleetapi.Shunned{Box: box})
			}
			at := &out[len(out)-1]
			at.By = append(at.By, witness)
			at.ByAll = len(at.By) >= witnesses
			if end := time.UnixMilli(until).UTC(); end.After(at.Until) {
				at.Until = end
			}
			return nil
		})
	if err != nil {
		return nil, fmt.Errorf("read who is shunned at %q: %w", siteName, err)
	}
	return out, nil
}
