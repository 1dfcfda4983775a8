package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// RolloutPlace is where a page of rollouts ended: what the last one of it is
// ordered by. The zero value is before the newest.
type RolloutPlace struct {
	CreatedMs int64  `json:"c"`
	ID        string `json:"i"`
}

// PlaceOf is the place of a rollout.
func PlaceOf(r fleetapi.Rollout) RolloutPlace { return RolloutPlace{r.Created.UnixMilli(), r.ID} }

// RolloutPage returns up to n rollouts after a place, newest first, and how many
// there are at all. Without targets their waves have counts alone, so that a page
// costs the same in a large fleet.
func (s *Store) RolloutPage(ctx context.Context, after RolloutPlace, n int, targets bool) (page []fleetapi.Rollout, total int, err error) {
	where, args := "", []any{}
	if after.ID != "" {
		where, args = "WHERE created_ms < ? OR (created_ms = ? AND id < ?) ", []any{after.CreatedMs, after.CreatedMs, after.ID}
	}
	err = s.snapshot(ctx, func(t *tx) error {
		if err := t.QueryRow(ctx, `SELECT COUNT(*) FROM rollout`).Scan(&total); err != nil {
			return err
		}
		if page, err = readHeaders(ctx, t, where+"ORDER BY created_ms DESC, id DESC LIMIT ?", append(args, n)); err != nil {
			return err
		}
		if targets {
			return fillTargets(ctx, t, page)
		}
		return countOld(ctx, t, page)
	})
	if err != nil {
		return nil, 0, fmt.Errorf("list rollouts: %w", err)
	}
	return page, total, nil
}

// Rollouts returns rollouts newest first, without their sheets; with states, only
// those in them.
func (s *Store) Rollouts(ctx context.Context, states ...fleetapi.RolloutState) (out []fleetapi.Rollout, err error) {
	where, args := "", make([]any, len(states))
	for i, st := range states {
		args[i] = string(st)
	}
	if len(states) > 0 {
		where = "WHERE state IN (" + strings.Repeat("?,", len(states)-1) + "?) "
	}
	err = s.snapshot(ctx, func(t *tx) error {
		if out, err = readHeaders(ctx, t, where+"ORDER BY created_ms DESC, id DESC", args); err != nil {
			return err
		}
		return fillTargets(ctx, t, out)
	})
	if err != nil {
		return nil, fmt.Errorf("list rollouts: %w", err)
	}
	return out, nil
}

// Overtaken reports whether a rollout that was planned after r brought, or brings,
// another version of what r did.
func (s *Store) Overtaken(ctx context.Context, r fleetapi.Rollout) (overtaken bool, err error) {
	err = s.each(ctx, `SELECT body FROM rollout WHERE created_ms >= ? AND state <> ?`, []any{r.Created.UnixMilli(), string(fleetapi.RolloutDraft)}, func(rows *sql.Rows) error {
		var body string
		if err := rows.Scan(&body); err != nil {
			return err
		}
		var other fleetapi.Rollout
		if err := json.Unmarshal([]byte(body), &other); err != nil {
			return err
		}
		overtaken = overtaken || other.ID != r.ID && other.Kind == r.Kind && other.Target.Name == r.Target.Name &&
			other.Started != nil && other.Created.After(r.Created)
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("look for rollouts after %s: %w", r.ID, err)
	}
	return overtaken, nil
}

// readHeaders reads rollouts without targets and sheets. rest is the rest of the query.
func readHeaders(ctx context.Context, t *tx, rest string, args []any) ([]fleetapi.Rollout, error) {
	var out []fleetapi.Rollout
	err := t.each(ctx, `SELECT body FROM rollout `+rest, args, func(rows *sql.Rows) error {
		var body string
		if err := rows.Scan(&body); err != nil {
			return err
		}
		var r fleetapi.Rollout
		if err := json.Unmarshal([]byte(body), &r); err != nil {
			return fmt.Errorf("parse a rollout: %w", err)
		}
		out = append(out, r)
		return nil
	})
	return out, err
}

// fillTargets reads the targets of rollouts, many rollouts at a time.
func fillTargets(ctx context.Context, t *tx, rollouts []fleetapi.Rollout) error {
	at, ids := make(map[string]*fleetapi.Rollout, len(rollouts)), make([]any, len(rollouts))
	for i := range rollouts {
		at[rollouts[i].ID], ids[i] = &rollouts[i], rollouts[i].ID
		for j := range rollouts[i].Waves {
			rollouts[i].Waves[j].Counts = nil
		}
	}
	find := many{head: `SELECT rollout, wave, body FROM rollout_target WHERE rollout IN (`, row: `?`, tail: `) ORDER BY rollout, wave, place`, width: 1}
	return t.eachMany(ctx, find, ids, func(rows *sql.Rows) error {
		var id, body string
		var wave int
		if err := rows.Scan(&id, &wave, &body); err != nil {
			return err
		}
		r := at[id]
		if wave >= len(r.Waves) {
			return fmt.Errorf("rollout %s: a target of wave %d, which is not there", id, wave+1)
		}
		var target fleetapi.Target
		if err := json.Unmarshal([]byte(body), &target); err != nil {
			return fmt.Errorf("parse a target of rollout %s: %w", id, err)
		}
		r.Waves[wave].Targets = append(r.Waves[wave].Targets, target)
		return nil
	})
}

// countOld counts the targets of rollouts that were stored last before headers had
// counts.
func countOld(ctx context.Context, t *tx, page []fleetapi.Rollout) error {
	var old []fleetapi.Rollout
	var places []int
	for i, r := range page {
		if len(r.Waves) > 0 && r.Waves[0].Counts == nil {
			old, places = append(old, r), append(places, i)
		}
	}
	if err := fillTargets(ctx, t, old); err != nil {
		return err
	}
	for i, r := range old {
		for j := range r.Waves {
			r.Waves[j].Counts, r.Waves[j].Targets = fleetapi.CountTargets(r.Waves[j].Targets), nil
		}
		page[places[i]] = r
	}
	return nil
}
