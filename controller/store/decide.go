package store

import (
	"context"
	"errors"
	"fmt"
	"time"
)

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
