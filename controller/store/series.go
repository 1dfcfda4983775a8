package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// Events returns the newest events of a box in [from, to).
func (s *Store) Events(ctx context.Context, id identity.ID, from, to time.Time, limit int) ([]fleetapi.Event, error) {
	out := []fleetapi.Event{}
	err := s.each(ctx, `SELECT t_ms, type, text, body FROM event WHERE box = ? AND t_ms >= ? AND t_ms < ? ORDER BY t_ms DESC, id DESC LIMIT ?`, []any{id, from.UnixMilli(), to.UnixMilli(), limit}, func(rows *sql.Rows) error {
		var e fleetapi.Event
		var ms int64
		if err := rows.Scan(&ms, &e.Type, &e.Text, &e.Body); err != nil {
			return err
		}
		e.Time = time.UnixMilli(ms).UTC()
		out = append(out, e)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read events of %s: %w", id, err)
	}
	return out, nil
}

// Results returns the newest results of a box.
func (s *Store) Results(ctx context.Context, id identity.ID, limit int) ([]fleetapi.Result, error) {
	out := []fleetapi.Result{}
	err := s.each(ctx, `SELECT t_ms, input, pipeline, item, text, want, score, latency, models FROM result WHERE box = ? ORDER BY t_ms DESC, id DESC LIMIT ?`, []any{id, limit}, func(rows *sql.Rows) error {
		var r fleetapi.Result
		var ms int64
		var names string
		if err := rows.Scan(&ms, &r.Input, &r.Pipeline, &r.Item, &r.Text, &r.Want, &r.Score, &r.LatencySeconds, &names); err != nil {
			return err
		}
		r.Time = time.UnixMilli(ms).UTC()
		if err := json.Unmarshal([]byte(names), &r.Models); err != nil {
			return err
		}
		out = append(out, r)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read results of %s: %w", id, err)
	}
	return out, nil
}

// Latencies calls each with the time and latency of every result in [from, to), oldest first.
func (s *Store) Latencies(ctx context.Context, id identity.ID, from, to time.Time, each func(Sample)) error {
	err := s.each(ctx, `SELECT t_ms, latency FROM result WHERE box = ? AND t_ms >= ? AND t_ms < ? ORDER BY t_ms`, []any{id, from.UnixMilli(), to.UnixMilli()}, func(rows *sql.Rows) error {
		var v Sample
		if err := rows.Scan(&v.UnixMs, &v.Value); err != nil {
			return err
		}
		each(v)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read latencies of %s: %w", id, err)
	}
	return nil
}
