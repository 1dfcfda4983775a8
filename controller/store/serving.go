package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// ServingRow is how one model of a box serves, as it said last.
type ServingRow struct {
	wire.Serving
	TimeMs int64
	MonoMs int64 // since boot; orders the reports of one boot
}

// maxServing bounds the models of a box, of which the newest are kept: a box can
// name any.
const maxServing = wire.MaxModels

func (r ServingRow) apply(ctx context.Context, t *tx, d Delivery) error {
	body, err := json.Marshal(r.Serving)
	if err != nil {
		return err
	}
	if _, err := t.Exec(ctx, `INSERT INTO serving (box, model, body, t_ms, boot, mono_ms, seq) VALUES (?,?,?,?,?,?,?)
		ON CONFLICT (box, model) DO UPDATE SET body = excluded.body, t_ms = excluded.t_ms, boot = excluded.boot, mono_ms = excluded.mono_ms, seq = excluded.seq
		WHERE CASE WHEN excluded.boot = serving.boot THEN (excluded.mono_ms, excluded.seq) >= (serving.mono_ms, serving.seq)
		ELSE excluded.t_ms >= serving.t_ms END`,
		d.Box, r.Name, string(body), r.TimeMs, d.Block.Boot[:], r.MonoMs, int64(d.Block.Key.Seq)); err != nil {
		return fmt.Errorf("store how %s serves: %w", r.Name, err)
	}
	if _, err := t.Exec(ctx, `DELETE FROM serving WHERE box = ? AND model <> ? AND model IN
		(SELECT model FROM serving WHERE box = ? ORDER BY t_ms DESC, model LIMIT 1000 OFFSET ?)`, d.Box, r.Name, d.Box, maxServing); err != nil {
		return fmt.Errorf("forget how old models served: %w", err)
	}
	return nil
}

// Serving returns how the models of a box serve, by name.
func (s *Store) Serving(ctx context.Context, id identity.ID) (map[string]ServingRow, error) {
	found := map[string]ServingRow{}
	err := s.each(ctx, `SELECT body, t_ms, mono_ms FROM serving WHERE box = ?`, []any{id}, func(rows *sql.Rows) error {
		var r ServingRow
		var body []byte
		if err := rows.Scan(&body, &r.TimeMs, &r.MonoMs); err != nil {
			return err
		}
		if err := json.Unmarshal(body, &r.Serving); err != nil {
			return err
		}
		found[r.Name] = r
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read how models of %s serve: %w", id, err)
	}
	return found, nil
}
