package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// Sample is one value of a metric.
type Sample struct {
	UnixMs int64
	Value  float64
}

// Samples calls each for every stored samples block of a box that touches
// [from, to), oldest first.
func (s *Store) Samples(ctx context.Context, id identity.ID, from, to time.Time, each func(startMs int64, samples wire.Samples) error) error {
	schemas := map[wire.SchemaID]wire.Schema{}
	rows, err := s.r.QueryContext(ctx, `SELECT b.t0_ms, b.schema, b.n, b.payload, coalesce(sc.body, '') FROM block b LEFT JOIN schema sc ON sc.id = b.schema
		WHERE b.box = ? AND b.kind = ? AND b.t0_ms < ? AND b.t0_ms >= ? AND b.t1_ms >= ? AND b.decoded ORDER BY b.t0_ms`,
		id, wire.KindSamples, to.UnixMilli(), from.Add(-MaxSpan).UnixMilli(), from.UnixMilli())
	if err != nil {
		return fmt.Errorf("read samples of %s: %w", id, err)
	}
	defer rows.Close()
	for rows.Next() {
		var t0 int64
		var n int
		var rawID, payload, body []byte
		if err := rows.Scan(&t0, &rawID, &n, &payload, &body); err != nil {
			return fmt.Errorf("read samples of %s: %w", id, err)
		}
		var sid wire.SchemaID
		copy(sid[:], rawID)
		schema, ok := schemas[sid]
		if !ok {
			if schema, err = wire.Decode[wire.Schema](body); err != nil {
				return fmt.Errorf("read schema %s: %w", sid, err)
			}
			schemas[sid] = schema
		}
		samples, err := wire.DecodeSamples(schema, payload, n)
		if err != nil {
			return fmt.Errorf("read samples of %s at %d: %w", id, t0, err)
		}
		if err := each(t0, samples); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Events returns the newest events of a box in [from, to).
func (s *Store) Events(ctx context.Context, id identity.ID, from, to time.Time, limit int) ([]fleetapi.Event, error) {
	rows, err := s.r.QueryContext(ctx, `SELECT t_ms, type, text, body FROM event WHERE box = ? AND t_ms >= ? AND t_ms < ? ORDER BY t_ms DESC, id DESC LIMIT ?`,
		id, from.UnixMilli(), to.UnixMilli(), limit)
	if err != nil {
		return nil, fmt.Errorf("read events of %s: %w", id, err)
	}
	defer rows.Close()
	out := []fleetapi.Event{}
	for rows.Next() {
		var e fleetapi.Event
		var ms int64
		if err := rows.Scan(&ms, &e.Type, &e.Text, &e.Body); err != nil {
			return nil, fmt.Errorf("read events of %s: %w", id, err)
		}
		e.Time = time.UnixMilli(ms).UTC()
		out = append(out, e)
	}
	return out, rows.Err()
}

// Results returns the newest results of a box.
func (s *Store) Results(ctx context.Context, id identity.ID, limit int) ([]fleetapi.Result, error) {
	rows, err := s.r.QueryContext(ctx, `SELECT t_ms, input, pipeline, item, text, want, score, latency, models FROM result WHERE box = ? ORDER BY t_ms DESC, id DESC LIMIT ?`, id, limit)
	if err != nil {
		return nil, fmt.Errorf("read results of %s: %w", id, err)
	}
	defer rows.Close()
	out := []fleetapi.Result{}
	for rows.Next() {
		var r fleetapi.Result
		var ms int64
		var names string
		if err := rows.Scan(&ms, &r.Input, &r.Pipeline, &r.Item, &r.Text, &r.Want, &r.Score, &r.LatencySeconds, &names); err != nil {
			return nil, fmt.Errorf("read results of %s: %w", id, err)
		}
		r.Time = time.UnixMilli(ms).UTC()
		if err := json.Unmarshal([]byte(names), &r.Models); err != nil {
			return nil, fmt.Errorf("read results of %s: %w", id, err)
		}
		out = append(out, r)
	}
	return out, rows.Err()
}

// Latencies calls each with the time and latency of every result in [from, to), oldest first.
func (s *Store) Latencies(ctx context.Context, id identity.ID, from, to time.Time, each func(Sample)) error {
	rows, err := s.r.QueryContext(ctx, `SELECT t_ms, latency FROM result WHERE box = ? AND t_ms >= ? AND t_ms < ? ORDER BY t_ms`, id, from.UnixMilli(), to.UnixMilli())
	if err != nil {
		return fmt.Errorf("read latencies of %s: %w", id, err)
	}
	defer rows.Close()
	for rows.Next() {
		var v Sample
		if err := rows.Scan(&v.UnixMs, &v.Value); err != nil {
			return fmt.Errorf("read latencies of %s: %w", id, err)
		}
		each(v)
	}
	return rows.Err()
}
