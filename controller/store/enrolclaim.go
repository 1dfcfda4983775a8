package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/edgeherd/edgeherd/internal/identity"
)

// EnrolClaim is what somebody in front of a machine said of it when agreeing to
// it: where it is, and what it looks like. It bears the id of the act, so that a
// phone may send it again.
type EnrolClaim struct {
	ID    string
	Token string
	Code  string // that the machine shows
	By    string
	Made  time.Time // when it was stored
	Where string    // in words
	Photo []byte    // JPEG; nil: none

	// Name of a new box, or Box, in whose place the machine comes. Neither is
	// stored: they become part of the request.
	Name string
	Box  identity.ID
}

// Claimed is a claim and what became of it.
type Claimed struct {
	EnrolClaim // without the photo
	HasPhoto   bool
	Request    EnrolRequest
}

// A ClaimError says to whoever claims why that machine cannot be.
type ClaimError struct{ Why string }

func (e *ClaimError) Error() string { return e.Why }

func noClaim(format string, args ...any) error { return &ClaimError{fmt.Sprintf(format, args...)} }

const claimColumns = `SELECT id, key, token, code, author, made_ms, place, length(photo) FROM enrol_claim`

// ClaimMachine agrees to the machine that waits with a token and a code, and keeps what
// was said of it. The same claim again changes nothing.
func (s *Store) ClaimMachine(ctx context.Context, c EnrolClaim) (out Claimed, err error) {
	err = s.write(ctx, func(t *tx) error {
		// The token first, as a machine does that asks meanwhile.
		if _, err := enrolTokenIn(ctx, t, c.Token); err != nil {
			return err
		}
		was, err := claimsIn(ctx, t, ` WHERE id = ?`, c.ID)
		if err != nil {
			return err
		}
		if len(was) > 0 {
			if was[0].Token != c.Token || was[0].Code != c.Code {
				return noClaim("the claim %s was of another machine", c.ID)
			}
			out = was[0]
			return nil
		}
		r, err := claimable(ctx, t, c)
		if err != nil {
			return err
		}
		if r.State == EnrolPending {
			r.State, r.By, r.Place = EnrolApproved, c.By, c.Box
			if c.Name != "" {
				r.NameHint = c.Name
			}
			if err := s.putRequest(ctx, t, r); err != nil {
				return err
			}
		}
		c.Made = s.now()
		// What is left of an enrolment before, with the same key.
		if _, err := t.Exec(ctx, `DELETE FROM enrol_claim WHERE key = ?`, r.Key); err != nil {
			return err
		}
		photo := c.Photo
		if photo == nil {
			photo = []byte{}
		}
		if _, err := t.Exec(ctx, `INSERT INTO enrol_claim (id, key, token, code, author, made_ms, place, photo) VALUES (?,?,?,?,?,?,?,?)`,
			c.ID, r.Key, c.Token, c.Code, c.By, c.Made.UnixMilli(), c.Where, photo); err != nil {
			return err
		}
		out = Claimed{EnrolClaim: c, HasPhoto: len(photo) > 0, Request: r}
		out.Photo = nil
		if r.State != EnrolIssued {
			return nil
		}
		return s.placeClaimed(ctx, t, r.Key, r.Box)
	})
	if err != nil {
		return Claimed{}, fmt.Errorf("claim machine %s: %w", c.Code, err)
	}
	return out, nil
}

// claimable finds the machine of a claim.
func claimable(ctx context.Context, t *tx, c EnrolClaim) (EnrolRequest, error) {
	var list, found []EnrolRequest
	err := t.each(ctx, enrolRequestColumns+` WHERE token = ? AND state IN ('pending', 'approved', 'issued') FOR UPDATE`, []any{c.Token}, scanEnrolRequests(&list))
	if err != nil {
		return EnrolRequest{}, err
	}
	for _, r := range list {
		if r.ShortCode == c.Code {
			found = append(found, r)
		}
	}
	switch len(found) {
	case 1:
	case 0:
		return EnrolRequest{}, noClaim("no machine that shows %s asks with this token: compare the code, and see that the machine has a network", c.Code)
	default:
		return EnrolRequest{}, noClaim("%d machines show %s, so the code tells nothing: have ops approve the right one by its key", len(found), c.Code)
	}
	r := found[0]
	if r.State == EnrolPending {
		return r, nil
	}
	before, err := claimsIn(ctx, t, ` WHERE key = ? AND token = ?`, r.Key, c.Token)
	switch {
	case err != nil:
		return r, err
	case len(before) > 0:
		return r, noClaim("%s has claimed this machine before", before[0].By)
	case c.Box != "" && c.Box != r.Box:
		return r, noClaim("this machine was agreed to before, for another place: ask ops for a replace token")
	}
	return r, nil
}

func claimsIn(ctx context.Context, t *tx, where string, args ...any) (out []Claimed, err error) {
	var keys []string
	err = t.each(ctx, claimColumns+where, args, func(rows *sql.Rows) error {
		var c Claimed
		var key string
		var made int64
		var size int
		err := rows.Scan(&c.ID, &key, &c.Token, &c.Code, &c.By, &made, &c.Where, &size)
		c.Made, c.HasPhoto = time.UnixMilli(made), size > 0
		out, keys = append(out, c), append(keys, key)
		return err
	})
	if err != nil {
		return nil, err
	}
	for i, key := range keys {
		var list []EnrolRequest
		if err := t.each(ctx, enrolRequestColumns+` WHERE key = ?`, []any{key}, scanEnrolRequests(&list)); err != nil {
			return nil, err
		}
		if len(list) > 0 {
			out[i].Request = list[0]
		}
	}
	return out, nil
}

// placeClaimed gives a box the place that was said of its machine.
func (s *Store) placeClaimed(ctx context.Context, t *tx, key string, box identity.ID) error {
	claims, err := claimsIn(ctx, t, ` WHERE key = ?`, key)
	if err != nil || len(claims) == 0 || claims[0].Where == "" {
		return err
	}
	c := &CareTx{tx: t, nowMs: s.now().UnixMilli()}
	u, err := c.Upkeep(ctx, box)
	if err != nil {
		return err
	}
	u.Place = claims[0].Where
	return c.PutUpkeep(ctx, box, u)
}

// Claimed returns a claim, or ErrNotFound.
func (s *Store) Claimed(ctx context.Context, id string) (c Claimed, err error) {
	err = s.snapshot(ctx, func(t *tx) error {
		list, err := claimsIn(ctx, t, ` WHERE id = ?`, id)
		if err == nil && len(list) == 0 {
			err = ErrNotFound
		}
		if err == nil {
			c = list[0]
		}
		return err
	})
	if err != nil {
		return Claimed{}, fmt.Errorf("claim %s: %w", id, err)
	}
	return c, nil
}

// Photo is the newest picture of a box, JPEG, and when it came; or ErrNotFound.
func (s *Store) Photo(ctx context.Context, box identity.ID) (data []byte, made time.Time, err error) {
	var ms int64
	err = s.one(ctx, newestPhoto("c.photo, c.made_ms"), []any{box}, &data, &ms)
	if err != nil {
		return nil, made, fmt.Errorf("photo of box %s: %w", box, err)
	}
	return data, time.UnixMilli(ms), nil
}

// PhotoMade is when the newest picture of a box came, or ErrNotFound.
func (s *Store) PhotoMade(ctx context.Context, box identity.ID) (time.Time, error) {
	var ms int64
	if err := s.one(ctx, newestPhoto("c.made_ms"), []any{box}, &ms); err != nil {
		return time.Time{}, fmt.Errorf("photo of box %s: %w", box, err)
	}
	return time.UnixMilli(ms), nil
}

func newestPhoto(columns string) string {
	return `SELECT ` + columns + ` FROM enrol_claim c JOIN enrol_request r ON r.key = c.key
		WHERE r.box = ? AND r.state = 'issued' AND length(c.photo) > 0 ORDER BY c.made_ms DESC LIMIT 1`
}
