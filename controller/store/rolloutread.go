package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/edgeherd/edgeherd/controller/rollout"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// readRollout reads a rollout with its targets.
func readRollout(ctx context.Context, t *tx, id, lock string) (r fleetapi.Rollout, rev int64, err error) {
	var body, sheet string
	err = t.QueryRow(ctx, `SELECT rev, body, sheet FROM rollout WHERE id = ?`+lock, id).Scan(&rev, &body, &sheet)
	if errors.Is(err, sql.ErrNoRows) {
		return r, 0, fmt.Errorf("rollout %s: %w", id, ErrNotFound)
	}
	if err == nil {
		err = json.Unmarshal([]byte(body), &r)
	}
	if err == nil {
		err = json.Unmarshal([]byte(sheet), &r.Sheet)
	}
	if err == nil {
		err = readTargets(ctx, t, &r, nil)
	}
	if err != nil {
		return r, 0, fmt.Errorf("read rollout %s: %w", id, err)
	}
	return r, rev, nil
}

// readTargets fills in the targets, and what is known of their boxes.
func readTargets(ctx context.Context, t *tx, r *fleetapi.Rollout, facts map[identity.ID]rollout.Fact) error {
	type text struct {
		wave         int
		target, fact string
	}
	var texts []text
	err := t.each(ctx, `SELECT wave, body, fact FROM rollout_target WHERE rollout = ? ORDER BY wave, place`, []any{r.ID}, func(rows *sql.Rows) error {
		var x text
		if err := rows.Scan(&x.wave, &x.target, &x.fact); err != nil {
			return err
		}
		if facts == nil {
			x.fact = ""
		}
		texts = append(texts, x)
		return nil
	})
	if err != nil {
		return err
	}
	targets, known, errs := make([]fleetapi.Target, len(texts)), make([]rollout.Fact, len(texts)), make([]error, len(texts))
	parallel(len(texts), func(i int) {
		errs[i] = json.Unmarshal([]byte(texts[i].target), &targets[i])
		if errs[i] == nil && facts != nil {
			errs[i] = json.Unmarshal([]byte(texts[i].fact), &known[i])
		}
	})
	for i := range r.Waves {
		r.Waves[i].Counts = nil // of headers: who has the targets counts them
	}
	for i, x := range texts {
		if errs[i] != nil {
			return fmt.Errorf("parse a target: %w", errs[i])
		}
		if x.wave >= len(r.Waves) {
			return fmt.Errorf("a target of wave %d, which is not there", x.wave+1)
		}
		r.Waves[x.wave].Targets = append(r.Waves[x.wave].Targets, targets[i])
		if facts != nil {
			facts[targets[i].Box] = known[i]
		}
	}
	return nil
}

// Rollout returns one rollout, or ErrNotFound.
func (s *Store) Rollout(ctx context.Context, id string) (r fleetapi.Rollout, err error) {
	err = s.snapshot(ctx, func(t *tx) error {
		r, _, err = readRollout(ctx, t, id, "")
		return err
	})
	return r, err
}

// RolloutCourse returns a rollout with what is known of its boxes, and its rev.
func (s *Store) RolloutCourse(ctx context.Context, id string) (r fleetapi.Rollout, facts map[identity.ID]rollout.Fact, rev int64, err error) {
	err = s.snapshot(ctx, func(t *tx) error {
		facts = map[identity.ID]rollout.Fact{}
		var body string
		if err := t.QueryRow(ctx, `SELECT rev, body FROM rollout WHERE id = ?`, id).Scan(&rev, &body); err != nil {
			return err
		}
		r = fleetapi.Rollout{}
		if err := json.Unmarshal([]byte(body), &r); err != nil {
			return err
		}
		return readTargets(ctx, t, &r, facts)
	})
	if err != nil {
		return r, nil, 0, fmt.Errorf("read rollout %s: %w", id, err)
	}
	return r, facts, rev, nil
}

// RolloutHeads returns all rollouts newest first, without what is in them.
func (s *Store) RolloutHeads(ctx context.Context) ([]RolloutHead, error) {
	var out []RolloutHead
	err := s.each(ctx, `SELECT id, state, created_ms, ended_ms, rev FROM rollout ORDER BY created_ms DESC, id DESC`, nil, func(rows *sql.Rows) error {
		var h RolloutHead
		var ms, ended int64
		if err := rows.Scan(&h.ID, &h.State, &ms, &ended, &h.Rev); err != nil {
			return err
		}
		h.Created = time.UnixMilli(ms)
		if ended != 0 {
			h.Ended = time.UnixMilli(ended)
		}
		out = append(out, h)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list rollouts: %w", err)
	}
	return out, nil
}

// BoxesOf returns the boxes of ids that are known, without counts of results,
// newest values and findings: what a rollout must know of them.
func (s *Store) BoxesOf(ctx context.Context, ids []identity.ID) ([]Box, error) {
	args := make([]any, len(ids))
	for i, id := range ids {
		args[i] = string(id)
	}
	var out []Box
	err := s.read(ctx, func(t *tx) error {
		out = nil
		var texts [][boxTexts]string
		find := many{head: boxRows + ` WHERE b.id IN (`, row: `?`, tail: `)`, width: 1}
		err := t.eachMany(ctx, find, args, func(rows *sql.Rows) error {
			b, said, err := scanBox(rows)
			out, texts = append(out, b), append(texts, said)
			return err
		})
		if err == nil {
			err = parseBoxes(out, texts)
		}
		if err != nil {
			return err
		}
		at := make(map[identity.ID]*Box, len(out))
		for i := range out {
			at[out[i].ID] = &out[i]
		}
		phases := many{head: phaseRows + ` WHERE box IN (`, row: `?`, tail: `) ORDER BY t_ms`, width: 1}
		return t.eachMany(ctx, phases, args, addPhase(func(id identity.ID) *Box { return at[id] }))
	})
	if err != nil {
		return nil, fmt.Errorf("read %d boxes: %w", len(ids), err)
	}
	return out, nil
}

// AddNewest fills in the newest values of boxes.
func (s *Store) AddNewest(ctx context.Context, boxes []Box) error {
	for i := range boxes {
		if err := s.addNewest(ctx, boxes[i].ID, func(identity.ID) *Box { return &boxes[i] }); err != nil {
			return err
		}
	}
	return nil
}

// AddHeats fills in what is known of the heat of boxes.
func (s *Store) AddHeats(ctx context.Context, boxes []Box) error {
	at, args := make(map[identity.ID]*Box, len(boxes)), make([]any, len(boxes))
	for i := range boxes {
		at[boxes[i].ID], args[i] = &boxes[i], string(boxes[i].ID)
	}
	find := many{head: `SELECT box, body FROM box_heat WHERE box IN (`, row: `?`, tail: `)`, width: 1}
	err := s.read(ctx, func(t *tx) error {
		return t.eachMany(ctx, find, args, func(rows *sql.Rows) error {
			var id identity.ID
			var body []byte
			err := rows.Scan((*string)(&id), &body)
			if b := at[id]; b != nil {
				b.Heat = body
			}
			return err
		})
	})
	if err != nil {
		return fmt.Errorf("read the heat of %d boxes: %w", len(boxes), err)
	}
	return nil
}

// EnrolledSince returns the boxes that were enrolled after a time.
func (s *Store) EnrolledSince(ctx context.Context, ms int64) ([]identity.ID, error) {
	var out []identity.ID
	if err := s.each(ctx, `SELECT id FROM box WHERE enrolled_ms > ? ORDER BY enrolled_ms`, []any{ms}, scanIDs(&out)); err != nil {
		return nil, fmt.Errorf("list boxes that were enrolled: %w", err)
	}
	return out, nil
}
