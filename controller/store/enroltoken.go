package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// How long rows of enrolment are kept after they stopped to matter.
const (
	tokenKept   = 90 * 24 * time.Hour // after a token expired
	requestKept = 30 * 24 * time.Hour // after a request that led to nothing
)

// AddEnrolToken stores a token and forgets what is long over.
func (s *Store) AddEnrolToken(ctx context.Context, k EnrolToken) error {
	body, err := json.Marshal(k.TokenTerms)
	if err != nil {
		return fmt.Errorf("encode terms of token: %w", err)
	}
	now := s.now()
	return s.write(ctx, func(t *tx) error {
		if _, err := t.Exec(ctx, `DELETE FROM enrol_token WHERE expires_ms < ?`, now.Add(-tokenKept).UnixMilli()); err != nil {
			return fmt.Errorf("forget old tokens: %w", err)
		}
		if _, err := t.Exec(ctx, `DELETE FROM enrol_request WHERE state <> 'issued' AND changed_ms < ?`, now.Add(-requestKept).UnixMilli()); err != nil {
			return fmt.Errorf("forget old requests: %w", err)
		}
		if _, err := t.Exec(ctx, `DELETE FROM enrol_claim WHERE key NOT IN (SELECT key FROM enrol_request)`); err != nil {
			return fmt.Errorf("forget old claims: %w", err)
		}
		_, err := t.Exec(ctx, `INSERT INTO enrol_token (id, hash, made_ms, expires_ms, uses_left, refused, off, body) VALUES (?,?,?,?,?,0,'',?)`,
			k.ID, k.Hash[:], now.UnixMilli(), k.Expires.UnixMilli(), k.Uses, string(body))
		if err != nil {
			return fmt.Errorf("store token %s: %w", k.ID, err)
		}
		return nil
	})
}

// EnrolToken returns one token, or ErrNotFound.
func (s *Store) EnrolToken(ctx context.Context, id string) (EnrolToken, error) {
	var list []EnrolToken
	err := s.each(ctx, enrolTokenColumns+` WHERE id = ?`, []any{id}, scanEnrolTokens(&list))
	if err == nil && len(list) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return EnrolToken{}, fmt.Errorf("token %s: %w", id, err)
	}
	return list[0], nil
}

// EnrolTokens lists tokens, newest first.
func (s *Store) EnrolTokens(ctx context.Context) ([]EnrolToken, error) {
	var list []EnrolToken
	if err := s.each(ctx, enrolTokenColumns+` ORDER BY made_ms DESC, id`, nil, scanEnrolTokens(&list)); err != nil {
		return nil, fmt.Errorf("list tokens: %w", err)
	}
	return list, nil
}

// EndEnrolToken makes a token good for nothing more. Requests that wait for a
// decision stay.
func (s *Store) EndEnrolToken(ctx context.Context, id, why string) error {
	return s.write(ctx, func(t *tx) error {
		k, err := enrolTokenIn(ctx, t, id)
		if err == nil && k == nil {
			err = ErrNotFound
		}
		if err == nil && k.Off == "" {
			_, err = t.Exec(ctx, `UPDATE enrol_token SET off = ? WHERE id = ?`, why, id)
		}
		if err != nil {
			return fmt.Errorf("end token %s: %w", id, err)
		}
		return nil
	})
}

// EnrolRequests lists requests in a state, or all, newest first; at most 1000.
func (s *Store) EnrolRequests(ctx context.Context, state EnrolState) ([]EnrolRequest, error) {
	var list []EnrolRequest
	err := s.each(ctx, enrolRequestColumns+` WHERE ? = '' OR state = ? ORDER BY changed_ms DESC, key LIMIT 1000`, []any{string(state), string(state)}, scanEnrolRequests(&list))
	if err != nil {
		return nil, fmt.Errorf("list requests: %w", err)
	}
	return list, nil
}

// DecideEnrol lets a person agree to a request that waits, or not; a denied one
// gives its use of the token back. name is what the box will be called; "" leaves
// that to what it asked for.
func (s *Store) DecideEnrol(ctx context.Context, key string, agree bool, by, name string) (r EnrolRequest, err error) {
	err = s.write(ctx, func(t *tx) error {
		was, err := enrolRequestIn(ctx, t, key)
		if err != nil {
			return err
		}
		if was == nil {
			return ErrNotFound
		}
		r = *was
		to := EnrolDenied
		if agree {
			to = EnrolApproved
		}
		if r.State == to || agree && r.State == EnrolIssued {
			return nil
		}
		if r.State != EnrolPending && (r.State != EnrolApproved || agree) {
			return fmt.Errorf("%w: it is %s", ErrConflict, r.State)
		}
		r.State, r.By = to, by
		if name != "" {
			r.NameHint = name
		}
		if !agree {
			if _, err := t.Exec(ctx, `UPDATE enrol_token SET uses_left = uses_left + 1 WHERE id = ?`, r.Token); err != nil {
				return err
			}
		}
		return s.putRequest(ctx, t, r)
	})
	if err != nil {
		return EnrolRequest{}, fmt.Errorf("decide about request %s: %w", key, err)
	}
	return r, nil
}

// FindEnrol returns the request that waits with a short code, or with a key.
func (s *Store) FindEnrol(ctx context.Context, word string) (EnrolRequest, error) {
	list, err := s.EnrolRequests(ctx, "")
	if err != nil {
		return EnrolRequest{}, err
	}
	var found []EnrolRequest
	for _, r := range list {
		if r.Key == word {
			return r, nil
		}
		if r.ShortCode == word && (r.State == EnrolPending || r.State == EnrolApproved) {
			found = append(found, r)
		}
	}
	switch len(found) {
	case 0:
		return EnrolRequest{}, fmt.Errorf("request %q: %w", word, ErrNotFound)
	case 1:
		return found[0], nil
	}
	return EnrolRequest{}, errors.Join(ErrConflict, fmt.Errorf("%d requests have the code %s: name the one you mean by its key", len(found), word))
}

// ProveEnrol notes that the key of a request that was challenged lies in its TPM,
// if proves says so of the row.
func (s *Store) ProveEnrol(ctx context.Context, key string, proves func(EnrolRequest) bool) (r EnrolRequest, err error) {
	err = s.write(ctx, func(t *tx) error {
		was, err := enrolRequestIn(ctx, t, key)
		if err != nil {
			return err
		}
		if was == nil || was.State != EnrolChallenge || !proves(*was) {
			return ErrNotFound
		}
		r = *was
		r.Proved, r.Challenge = true, nil
		return s.putRequest(ctx, t, r)
	})
	if err != nil {
		return EnrolRequest{}, fmt.Errorf("prove request %s: %w", key, err)
	}
	return r, nil
}
