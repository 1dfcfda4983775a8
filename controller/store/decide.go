package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// UpdateRollout changes a rollout in one transaction, so that what a person
// and the conductor decide at the same time is not lost: change gets the
// rollout as it now stands and returns the next. Its error ends the
// transaction and is returned as it is.
func (s *Store) UpdateRollout(ctx context.Context, id string, change func(fleetapi.Rollout) (fleetapi.Rollout, error)) (next fleetapi.Rollout, err error) {
	err = s.write(ctx, func(t *tx) error {
		var body string
		err := t.QueryRow(ctx, `SELECT body FROM rollout WHERE id = ? FOR UPDATE`, id).Scan(&body)
		if errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("rollout %s: %w", id, ErrNotFound)
		}
		if err != nil {
			return fmt.Errorf("read rollout %s: %w", id, err)
		}
		var r fleetapi.Rollout
		if err := json.Unmarshal([]byte(body), &r); err != nil {
			return fmt.Errorf("parse rollout %s: %w", id, err)
		}
		if next, err = change(r); err != nil {
			return err
		}
		after, err := json.Marshal(next)
		if err != nil {
			return err
		}
		if _, err := t.Exec(ctx, `UPDATE rollout SET state = ?, body = ? WHERE id = ?`, string(next.State), string(after), id); err != nil {
			return fmt.Errorf("store rollout %s: %w", id, err)
		}
		return nil
	})
	return next, err
}

// replyLife is how long an answer is kept for a repeated request.
const replyLife = 24 * time.Hour

// Reply is the answer to a request that bore an idempotency key.
type Reply struct {
	Request []byte // digest of the request
	Status  int
	Body    []byte
}

// Reply returns the kept answer for a key, or ErrNotFound.
func (s *Store) Reply(ctx context.Context, key string) (Reply, error) {
	var r Reply
	err := s.one(ctx, `SELECT request, status, reply FROM idempotency WHERE key = ? AND created_ms > ?`,
		[]any{key, s.now().Add(-replyLife).UnixMilli()}, &r.Request, &r.Status, &r.Body)
	if errors.Is(err, ErrNotFound) {
		return r, fmt.Errorf("answer for key: %w", ErrNotFound)
	}
	if err != nil {
		return r, fmt.Errorf("look up answer for key: %w", err)
	}
	return r, nil
}

// KeepReply keeps an answer for a day and forgets older ones.
func (s *Store) KeepReply(ctx context.Context, key string, r Reply) error {
	return s.write(ctx, func(t *tx) error {
		now := s.now()
		if _, err := t.Exec(ctx, `DELETE FROM idempotency WHERE created_ms <= ?`, now.Add(-replyLife).UnixMilli()); err != nil {
			return fmt.Errorf("forget old answers: %w", err)
		}
		_, err := t.Exec(ctx, `INSERT INTO idempotency (key, request, status, reply, created_ms) VALUES (?,?,?,?,?) ON CONFLICT DO NOTHING`,
			key, r.Request, r.Status, r.Body, now.UnixMilli())
		if err != nil {
			return fmt.Errorf("keep answer for key: %w", err)
		}
		return nil
	})
}
