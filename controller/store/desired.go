package store

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// SetDesired changes what a box shall run. change edits the present document;
// the store raises its generation and keeps it with the envelope that sign
// returns, in one transaction, so that a generation is never signed twice with
// different content. A box that follows what this database does not know, or
// may do so, is told nothing: ErrAhead, ErrAwaits. When nothing is altered,
// nothing is stored and the envelope is nil. Neither change nor sign may call
// the store.
func (s *Store) SetDesired(ctx context.Context, id identity.ID, change func(*wire.Desired) error, sign func(payload []byte) ([]byte, error)) (envelope []byte, err error) {
	return s.setDesired(ctx, id, desiredChange{change: change, sign: sign})
}

// SettleAhead is SetDesired for a box that is ahead, once a person has chosen:
// the generation is above the one that the box follows. A box that is not
// ahead is ErrConflict.
func (s *Store) SettleAhead(ctx context.Context, id identity.ID, change func(*wire.Desired, wire.Running) error, sign func(payload []byte) ([]byte, error)) (envelope []byte, err error) {
	return s.setDesired(ctx, id, desiredChange{settle: change, sign: sign})
}

// desiredChange is a change, or one that settles what a box that is ahead runs.
type desiredChange struct {
	change func(*wire.Desired) error
	settle func(*wire.Desired, wire.Running) error
	sign   func(payload []byte) ([]byte, error)
}

// may says why a change must not be made.
func (c desiredChange) may(d wire.Desired, running wire.Running, awaits bool) error {
	is := ahead(running.Generation, d.Generation)
	switch {
	case awaits:
		return fmt.Errorf("box %s: %w", d.Box, ErrAwaits)
	case c.settle != nil && !is:
		return fmt.Errorf("box %s follows what it was told here, there is nothing to choose: %w", d.Box, ErrConflict)
	case c.settle == nil && is:
		return fmt.Errorf("box %s: %w", d.Box, ErrAhead)
	}
	return nil
}

func (c desiredChange) make(d *wire.Desired, running wire.Running) error {
	if c.settle != nil {
		return c.settle(d, running)
	}
	return c.change(d)
}

func (s *Store) setDesired(ctx context.Context, id identity.ID, c desiredChange) (envelope []byte, err error) {
	err = s.write(ctx, func(t *tx) error {
		envelope = nil
		var text, runs string
		var awaits bool
		if err := t.QueryRow(ctx, `SELECT desired, running, restores < (SELECT restores FROM meta) FROM box WHERE id = ? FOR UPDATE`, id).Scan(&text, &runs, &awaits); err != nil {
			if errors.Is(err, sql.ErrNoRows) {
				return fmt.Errorf("box %s: %w", id, ErrNotFound)
			}
			return err
		}
		d := wire.Desired{V: wire.DesiredVersion, Box: id}
		if text != "" {
			if err := json.Unmarshal([]byte(text), &d); err != nil {
				return fmt.Errorf("parse desired state of %s: %w", id, err)
			}
		}
		var running wire.Running
		if err := json.Unmarshal([]byte(runs), &running); err != nil {
			return fmt.Errorf("parse running state of %s: %w", id, err)
		}
		if err := c.may(d, running, awaits); err != nil {
			return err
		}
		generation := d.Generation
		if c.settle != nil {
			generation = running.Generation
		}
		before, err := d.Encode()
		if err != nil {
			return err
		}
		if err := c.make(&d, running); err != nil {
			return err
		}
		if after, err := d.Encode(); err != nil || bytes.Equal(before, after) && c.settle == nil {
			return err
		}
		d.V, d.Box, d.Generation = wire.DesiredVersion, id, generation+1
		payload, err := d.Encode()
		if err != nil {
			return err
		}
		if envelope, err = c.sign(payload); err != nil {
			return fmt.Errorf("sign desired state of %s: %w", id, err)
		}
		_, err = t.Exec(ctx, `UPDATE box SET desired = ?, desired_envelope = ?, desired_generation = ? WHERE id = ?`,
			string(payload), envelope, d.Generation, id)
		return err
	})
	if err != nil {
		return nil, err
	}
	return envelope, nil
}

// DesiredEnvelope returns the signed desired state of a box, or nil: also for a
// box that is ahead of it and waits for a person's choice.
func (s *Store) DesiredEnvelope(ctx context.Context, id identity.ID) ([]byte, error) {
	var envelope []byte
	var generation int64
	var runs string
	err := s.one(ctx, `SELECT desired_envelope, desired_generation, running FROM box WHERE id = ?`, []any{id}, &envelope, &generation, &runs)
	var running wire.Running
	if err == nil && json.Unmarshal([]byte(runs), &running) == nil && ahead(running.Generation, uint64(generation)) {
		return nil, nil
	}
	if errors.Is(err, ErrNotFound) {
		return nil, fmt.Errorf("box %s: %w", id, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("read desired state of %s: %w", id, err)
	}
	return envelope, nil
}
