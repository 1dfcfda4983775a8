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

// maxGeneration is what a box may claim to follow: far beyond what is ever
// signed, and far from where the counter ends.
const maxGeneration = 1 << 53

// SetDesired changes what a box shall run. change edits the present document;
// the store raises its generation and keeps it with the envelope that sign
// returns, in one transaction, so that a generation is never signed twice with
// different content. A box that follows a newer generation than is stored here,
// since the database came back from a backup, gets one above that. When nothing
// is altered, nothing is stored and the envelope is nil. Neither change nor
// sign may call the store.
func (s *Store) SetDesired(ctx context.Context, id identity.ID, change func(*wire.Desired) error, sign func(payload []byte) ([]byte, error)) (envelope []byte, err error) {
	err = s.write(ctx, func(t *tx) error {
		envelope = nil
		var text, runs string
		if err := t.QueryRow(ctx, `SELECT desired, running FROM box WHERE id = ? FOR UPDATE`, id).Scan(&text, &runs); err != nil {
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
		generation := d.Generation
		if running.Generation <= maxGeneration {
			generation = max(generation, running.Generation)
		}
		outrun := generation > d.Generation
		before, err := d.Encode()
		if err != nil {
			return err
		}
		if err := change(&d); err != nil {
			return err
		}
		if after, err := d.Encode(); err != nil || bytes.Equal(before, after) && !outrun {
			return err
		}
		d.V, d.Box, d.Generation = wire.DesiredVersion, id, generation+1
		payload, err := d.Encode()
		if err != nil {
			return err
		}
		if envelope, err = sign(payload); err != nil {
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

// DesiredEnvelope returns the signed desired state of a box, or nil.
func (s *Store) DesiredEnvelope(ctx context.Context, id identity.ID) ([]byte, error) {
	var envelope []byte
	err := s.one(ctx, `SELECT desired_envelope FROM box WHERE id = ?`, []any{id}, &envelope)
	if errors.Is(err, ErrNotFound) {
		return nil, fmt.Errorf("box %s: %w", id, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("read desired state of %s: %w", id, err)
	}
	return envelope, nil
}
