package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/edgeherd/edgeherd/controller/rollout"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// RolloutHead is a rollout without what is in it.
type RolloutHead struct {
	ID      string
	State   fleetapi.RolloutState
	Created time.Time
	Ended   time.Time // zero while it is open
	Rev     int64     // another one: it was changed
}

// RolloutRow is a target with what is known of its box.
type RolloutRow struct {
	Wave, Place int
	Target      fleetapi.Target
	Fact        rollout.Fact
}

// RolloutStep is what one step changes.
type RolloutStep struct {
	Rollout fleetapi.Rollout // its targets are counted; those that changed are in Rows
	Rows    []RolloutRow
	Record  rollout.Record
	Notices []Notice // of what changed
}

// header is the stored form of a rollout without its targets, which it counts, and
// its sheet, which names every site and never changes.
func header(r fleetapi.Rollout) (string, error) {
	waves := make([]fleetapi.Wave, len(r.Waves))
	for i, w := range r.Waves {
		waves[i] = w
		waves[i].Counts, waves[i].Targets = fleetapi.CountTargets(w.Targets), nil
	}
	r.Waves, r.Sheet = waves, nil
	body, err := json.Marshal(r)
	return string(body), err
}

// endedMs is 0 while a rollout is open.
func endedMs(r fleetapi.Rollout) int64 {
	if r.Ended == nil {
		return 0
	}
	return r.Ended.UnixMilli()
}

// putRollout writes all of a rollout.
const putRollout = `INSERT INTO rollout (id, state, created_ms, ended_ms, rev, body, sheet) VALUES (?,?,?,?,1,?,?)
	ON CONFLICT (id) DO UPDATE SET state = excluded.state, ended_ms = excluded.ended_ms, body = excluded.body, sheet = excluded.sheet, rev = rollout.rev + 1`

var putTargets = many{
	head: `INSERT INTO rollout_target (rollout, wave, place, body, fact) VALUES `, row: `(?,?,?,?,?)`,
	tail: ` ON CONFLICT (rollout, wave, place) DO UPDATE SET body = excluded.body, fact = excluded.fact`, width: 5,
}

// PutRollout stores a rollout as it now stands; what is known of its boxes
// begins anew.
func (s *Store) PutRollout(ctx context.Context, r fleetapi.Rollout) error {
	return s.putRollout(ctx, r, func(*tx) error { return nil })
}

// BeginRollout stores a new rollout together with its first step, so that a
// process that dies leaves no draft that nobody made.
func (s *Store) BeginRollout(ctx context.Context, step RolloutStep) error {
	return s.putRollout(ctx, step.Rollout, func(t *tx) error { return s.addRecord(ctx, t, step.Rollout.ID, step) })
}

func (s *Store) putRollout(ctx context.Context, r fleetapi.Rollout, and func(*tx) error) error {
	body, err := header(r)
	if err != nil {
		return err
	}
	sheet, err := json.Marshal(r.Sheet)
	if err != nil {
		return err
	}
	var rows []any
	for i, w := range r.Waves {
		for j, t := range w.Targets {
			text, err := json.Marshal(t)
			if err != nil {
				return err
			}
			rows = append(rows, r.ID, i, j, string(text), "{}")
		}
	}
	return s.write(ctx, func(t *tx) error {
		_, err := t.Exec(ctx, putRollout, r.ID, string(r.State), r.Created.UnixMilli(), endedMs(r), body, string(sheet))
		if err == nil {
			_, err = t.execMany(ctx, putTargets, rows)
		}
		if err != nil {
			return fmt.Errorf("store rollout %s: %w", r.ID, err)
		}
		return and(t)
	})
}

// SaveStep writes a step of a rollout that was read as rev; ErrConflict says
// that somebody changed it since. It returns the new rev.
func (s *Store) SaveStep(ctx context.Context, rev int64, step RolloutStep) (int64, error) {
	r := step.Rollout
	body, err := header(r)
	if err != nil {
		return 0, err
	}
	var rows []any
	for _, row := range step.Rows {
		target, err := json.Marshal(row.Target)
		if err != nil {
			return 0, err
		}
		fact, err := json.Marshal(row.Fact)
		if err != nil {
			return 0, err
		}
		rows = append(rows, r.ID, row.Wave, row.Place, string(target), string(fact))
	}
	return rev + 1, s.write(ctx, func(t *tx) error {
		res, err := t.Exec(ctx, `UPDATE rollout SET state = ?, ended_ms = ?, body = ?, rev = rev + 1 WHERE id = ? AND rev = ?`, string(r.State), endedMs(r), body, r.ID, rev)
		if err != nil {
			return fmt.Errorf("store rollout %s: %w", r.ID, err)
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(fmt.Errorf("rollout %s was changed meanwhile: %w", r.ID, ErrConflict), err)
		}
		if _, err := t.execMany(ctx, putTargets, rows); err != nil {
			return fmt.Errorf("store targets of rollout %s: %w", r.ID, err)
		}
		return s.addRecord(ctx, t, r.ID, step)
	})
}

// addRecord logs a step and has people told of it.
func (s *Store) addRecord(ctx context.Context, t *tx, id string, step RolloutStep) error {
	body, err := json.Marshal(step.Record)
	if err != nil {
		return err
	}
	_, err = t.Exec(ctx, `INSERT INTO rollout_record (rollout, seq, t_ms, body)
		SELECT ?, COALESCE(MAX(seq), 0) + 1, ?, ? FROM rollout_record WHERE rollout = ?`, id, step.Record.At.UnixMilli(), string(body), id)
	if err != nil {
		return fmt.Errorf("log a step of rollout %s: %w", id, err)
	}
	for _, n := range step.Notices {
		if err := queueNotice(ctx, t, n, s.now().UnixMilli()); err != nil {
			return err
		}
	}
	return nil
}

// RolloutRecords are all steps of a rollout, in order.
func (s *Store) RolloutRecords(ctx context.Context, id string) ([]rollout.Record, error) {
	var out []rollout.Record
	err := s.each(ctx, `SELECT body FROM rollout_record WHERE rollout = ? ORDER BY seq`, []any{id}, func(rows *sql.Rows) error {
		var body string
		if err := rows.Scan(&body); err != nil {
			return err
		}
		var rec rollout.Record
		if err := json.Unmarshal([]byte(body), &rec); err != nil {
			return fmt.Errorf("parse a step: %w", err)
		}
		out = append(out, rec)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read steps of rollout %s: %w", id, err)
	}
	return out, nil
}

// UpdateRollout changes a rollout by what a person wants, in one transaction,
// so that what the conductor decides at the same time is not lost: change gets
// the rollout as it now stands and returns the next, what to log, and whom to tell; rows are not looked at. Its error
// ends the transaction and is returned as it is.
func (s *Store) UpdateRollout(ctx context.Context, id string, change func(fleetapi.Rollout) (RolloutStep, error)) (next fleetapi.Rollout, err error) {
	err = s.write(ctx, func(t *tx) error {
		was, _, err := readRollout(ctx, t, id, " FOR UPDATE")
		if err != nil {
			return err
		}
		step, err := change(was)
		if err != nil {
			return err
		}
		next = step.Rollout
		if reflect.DeepEqual(was, next) {
			return nil
		}
		body, err := header(next)
		if err != nil {
			return err
		}
		if _, err := t.Exec(ctx, `UPDATE rollout SET state = ?, ended_ms = ?, body = ?, rev = rev + 1 WHERE id = ?`, string(next.State), endedMs(next), body, id); err != nil {
			return fmt.Errorf("store rollout %s: %w", id, err)
		}
		for i, w := range next.Waves {
			for j, target := range w.Targets {
				if reflect.DeepEqual(target, was.Waves[i].Targets[j]) {
					continue
				}
				text, err := json.Marshal(target)
				if err != nil {
					return err
				}
				if _, err := t.Exec(ctx, `UPDATE rollout_target SET body = ? WHERE rollout = ? AND wave = ? AND place = ?`, string(text), id, i, j); err != nil {
					return fmt.Errorf("store targets of rollout %s: %w", id, err)
				}
			}
		}
		return s.addRecord(ctx, t, id, step)
	})
	return next, err
}
