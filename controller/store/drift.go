package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/edgeherd/edgeherd/internal/drift"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// DriftRow is what one input showed one version of a model in one hour, or in a
// part of it.
type DriftRow struct {
	Model, Version, Input string
	HourMs                int64
	Sketch                drift.Sketch
}

// DriftWeek is how long the first sketches of a version on a box are its
// reference, in milliseconds: every day of the week is in it once.
const DriftWeek = 7 * 24 * 3600 * 1000

// What a box may make up is bounded: inputs times versions in an hour, and in
// all. A box that lost its disk and names all anew keeps the newest.
const (
	maxDriftHour       = 128
	maxDriftReferences = 512
)

type driftKey struct {
	box    identity.ID
	hourMs int64
	model  string
	vers   string
	input  string
}

// sketch collects the sketches of a delivery. Its block is new, so that each
// counts once.
func (c *commit) sketch(d *Delivery) {
	for _, r := range d.Drift {
		k := driftKey{d.Box, r.HourMs, r.Model, r.Version, r.Input}
		if c.drift == nil {
			c.drift = map[driftKey][]drift.Sketch{}
		}
		c.drift[k] = append(c.drift[k], r.Sketch)
	}
}

// saveDrift merges sketches into the stored hours. Stamp has locked out all
// other commits of Ingest. It counts what had no room by box.
func (c *commit) saveDrift(ctx context.Context) (noRoom map[identity.ID]int, err error) {
	keys := slices.SortedFunc(maps.Keys(c.drift), func(a, b driftKey) int {
		return cmp.Or(cmp.Compare(a.box, b.box), cmp.Compare(a.hourMs, b.hourMs), cmp.Compare(a.model, b.model), cmp.Compare(a.vers, b.vers), cmp.Compare(a.input, b.input))
	})
	for _, k := range keys {
		taken, refused, err := c.tx.mergeHour(ctx, k, c.drift[k])
		if err == nil && taken != (drift.Sketch{}) {
			err = c.tx.mergeReference(ctx, k, taken)
		}
		if err != nil {
			return nil, fmt.Errorf("store sketches of %s: %w", k.box, err)
		}
		if refused > 0 {
			if noRoom == nil {
				noRoom = map[identity.ID]int{}
			}
			noRoom[k.box] += refused
		}
	}
	return noRoom, nil
}

// mergeHour returns the sum of what was taken, and how many were not.
func (t *tx) mergeHour(ctx context.Context, k driftKey, all []drift.Sketch) (taken drift.Sketch, refused int, err error) {
	var sum drift.Sketch
	var body []byte
	err = t.QueryRow(ctx, `SELECT body FROM drift_hour WHERE box = ? AND hour_ms = ? AND model = ? AND version = ? AND input = ?`,
		string(k.box), k.hourMs, k.model, k.vers, k.input).Scan(&body)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		var n int
		if err := t.QueryRow(ctx, `SELECT count(*) FROM drift_hour WHERE box = ? AND hour_ms = ?`, string(k.box), k.hourMs).Scan(&n); err != nil {
			return taken, 0, err
		}
		if n >= maxDriftHour {
			return taken, len(all), nil
		}
	case err != nil:
		return taken, 0, err
	default:
		if sum, err = drift.Decode(body); err != nil {
			return taken, 0, err
		}
	}
	for _, s := range all {
		more := sum
		if more.Merge(s); more.Check() != nil {
			refused++
			continue
		}
		sum = more
		taken.Merge(s)
	}
	if taken == (drift.Sketch{}) {
		return taken, refused, nil
	}
	_, err = t.Exec(ctx, `INSERT INTO drift_hour (box, hour_ms, model, version, input, body) VALUES (?,?,?,?,?,?)
		ON CONFLICT (box, hour_ms, model, version, input) DO UPDATE SET body = excluded.body`,
		string(k.box), k.hourMs, k.model, k.vers, k.input, sum.Encode())
	return taken, refused, err
}

// mergeReference adds to the reference while its week lasts. An hour from before
// its first, which came late, belongs to it as well.
func (t *tx) mergeReference(ctx context.Context, k driftKey, s drift.Sketch) error {
	var first int64
	var body []byte
	err := t.QueryRow(ctx, `SELECT first_ms, body FROM drift_reference WHERE box = ? AND model = ? AND version = ? AND input = ?`,
		string(k.box), k.model, k.vers, k.input).Scan(&first, &body)
	if errors.Is(err, sql.ErrNoRows) {
		if _, err := t.Exec(ctx, `INSERT INTO drift_reference (box, model, version, input, first_ms, body) VALUES (?,?,?,?,?,?)`,
			string(k.box), k.model, k.vers, k.input, k.hourMs, s.Encode()); err != nil {
			return err
		}
		_, err := t.Exec(ctx, `DELETE FROM drift_reference WHERE box = ? AND first_ms <
			(SELECT first_ms FROM drift_reference WHERE box = ? ORDER BY first_ms DESC LIMIT 1 OFFSET ?)`, string(k.box), string(k.box), maxDriftReferences-1)
		return err
	}
	if err != nil || k.hourMs >= first+DriftWeek {
		return err
	}
	sum, err := drift.Decode(body)
	if err != nil {
		return err
	}
	sum.Merge(s)
	_, err = t.Exec(ctx, `UPDATE drift_reference SET body = ? WHERE box = ? AND model = ? AND version = ? AND input = ?`,
		sum.Encode(), string(k.box), k.model, k.vers, k.input)
	return err
}

// DriftQuery chooses streams of sketches. Box and Site may be empty.
type DriftQuery struct {
	Model, Version string
	Box            identity.ID
	Site           string
	FromMs         int64 // hours of now
}

// DriftStream is what one input of one box showed a version.
type DriftStream struct {
	Box       identity.ID
	Name      string // of the box
	Site      string
	Input     string
	FirstMs   int64        // when the week of the reference began
	Reference drift.Sketch // of that week, as far as it went
	Now       drift.Sketch // of the hours since FromMs that are not in the reference
}

// Drift returns the streams of a version by box and input.
func (s *Store) Drift(ctx context.Context, q DriftQuery) ([]DriftStream, error) {
	type key struct {
		box   identity.ID
		input string
	}
	const which = ` JOIN box b ON b.id = d.box WHERE d.model = ? AND d.version = ? AND (? = '' OR d.box = ?) AND (? = '' OR b.site = ?)`
	args := []any{q.Model, q.Version, string(q.Box), string(q.Box), q.Site, q.Site}
	var out []DriftStream
	at := map[key]int{}
	err := s.snapshot(ctx, func(t *tx) error {
		out = out[:0]
		err := t.each(ctx, `SELECT d.box, b.name, b.site, d.input, d.first_ms, d.body FROM drift_reference d`+which+` ORDER BY d.box, d.input`, args, func(rows *sql.Rows) error {
			var d DriftStream
			var body []byte
			err := rows.Scan((*string)(&d.Box), &d.Name, &d.Site, &d.Input, &d.FirstMs, &body)
			if err == nil {
				d.Reference, err = drift.Decode(body)
			}
			at[key{d.Box, d.Input}] = len(out)
			out = append(out, d)
			return err
		})
		if err != nil {
			return err
		}
		return t.each(ctx, `SELECT d.box, d.input, d.hour_ms, d.body FROM drift_hour d`+which+` AND d.hour_ms >= ?`, append(args, q.FromMs), func(rows *sql.Rows) error {
			var k key
			var hour int64
			var body sql.RawBytes
			if err := rows.Scan((*string)(&k.box), &k.input, &hour, &body); err != nil {
				return err
			}
			i, ok := at[k]
			if !ok || hour < out[i].FirstMs+DriftWeek {
				return nil
			}
			sk, err := drift.Decode(body)
			out[i].Now.Merge(sk)
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read sketches of %s:%s: %w", q.Model, q.Version, err)
	}
	return out, nil
}
