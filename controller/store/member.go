package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/internal/enrol"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// State is how a box stands.
type State string

// The states of a box. It may connect in the first three.
const (
	StateEnrolled    State = "enrolled"    // has a certificate that was not used yet
	StateActive      State = "active"      //
	StateQuarantined State = "quarantined" // may tell, is told nothing, until a person decides
	StateRevoked     State = "revoked"     // never again
	StateRetired     State = "retired"     // wipes itself at the next contact
)

// MayConnect says whether a box in that state may.
func (s State) MayConnect() bool {
	return s == StateEnrolled || s == StateActive || s == StateQuarantined
}

// Membership is how a box stands, and what is known of its machine.
type Membership struct {
	Box        identity.ID
	State      State
	Since      time.Time
	Why        string
	By         string
	Generation int    // counts the machines that stood in this place
	Fence      uint64 // greatest number of a start that its agent told
	Labels     map[string]string
	Hardware   enrol.Hardware
}

// IdentityEvent is something that happened to the identity of a box.
type IdentityEvent struct {
	Time  time.Time
	State State
	By    string
	Text  string
	Body  json.RawMessage // a receipt; or nothing
}

// CertState is what a certificate is good for.
type CertState string

// The states of a certificate.
const (
	CertPending    CertState = "pending"    // issued, not used yet
	CertCurrent    CertState = "current"    //
	CertSuperseded CertState = "superseded" // whoever uses it has a copy
	CertDead       CertState = "dead"       // refused
)

// Cert is the certificate of a box.
type Cert struct {
	Serial  string // hexadecimal
	Box     identity.ID
	Key     string // enrol.KeyID
	State   CertState
	Changed time.Time
	Ends    time.Time
	Address string // from where it was first used, or last when superseded
	PEM     string // with what stands between it and the root
}

// Membership returns how a box stands, or ErrNotFound.
func (s *Store) Membership(ctx context.Context, id identity.ID) (st Membership, err error) {
	err = s.read(ctx, func(t *tx) error { st, err = standingIn(ctx, t, id); return err })
	if err != nil {
		return Membership{}, fmt.Errorf("look up how %s stands: %w", id, err)
	}
	return st, nil
}

func standingIn(ctx context.Context, t *tx, id identity.ID) (Membership, error) {
	st := Membership{Box: id, State: StateActive}
	var since, fence sql.NullInt64
	var generation sql.NullInt64
	var state, why, by, labels, hardware sql.NullString
	err := t.QueryRow(ctx, `SELECT s.state, s.since_ms, s.why, s.author, s.generation, s.fence, s.labels, s.hardware
		FROM box b LEFT JOIN standing s ON s.box = b.id WHERE b.id = ?`, id).Scan(&state, &since, &why, &by, &generation, &fence, &labels, &hardware)
	if errors.Is(err, sql.ErrNoRows) {
		return st, fmt.Errorf("box %s: %w", id, ErrNotFound)
	}
	if err != nil || !state.Valid {
		return st, err
	}
	st.State, st.Since, st.Why, st.By = State(state.String), time.UnixMilli(since.Int64), why.String, by.String
	st.Generation, st.Fence = int(generation.Int64), uint64(fence.Int64)
	return st, errors.Join(json.Unmarshal([]byte(labels.String), &st.Labels), json.Unmarshal([]byte(hardware.String), &st.Hardware))
}

// lockBox makes all that decides about the identity of a box wait for one
// another.
func lockBox(ctx context.Context, t *tx, id identity.ID) error {
	var one int
	err := t.QueryRow(ctx, `SELECT 1 FROM box WHERE id = ? FOR UPDATE`, id).Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("box %s: %w", id, ErrNotFound)
	}
	return err
}

func putStanding(ctx context.Context, t *tx, st Membership) error {
	labels, err := json.Marshal(st.Labels)
	if err != nil {
		return err
	}
	hardware, err := json.Marshal(st.Hardware)
	if err != nil {
		return err
	}
	_, err = t.Exec(ctx, `INSERT INTO standing (box, state, since_ms, why, author, generation, fence, labels, hardware) VALUES (?,?,?,?,?,?,?,?,?)
		ON CONFLICT (box) DO UPDATE SET state = excluded.state, since_ms = excluded.since_ms, why = excluded.why, author = excluded.author,
		generation = excluded.generation, fence = excluded.fence, labels = excluded.labels, hardware = excluded.hardware`,
		st.Box, string(st.State), st.Since.UnixMilli(), st.Why, st.By, st.Generation, int64(st.Fence), string(labels), string(hardware))
	if err != nil {
		return fmt.Errorf("store how %s stands: %w", st.Box, err)
	}
	return nil
}

// Change is a change of the identity of a box.
type Change struct {
	Box  identity.ID
	From []State // in which it is allowed; none: in all
	To   State   // "": stays
	Why  string
	By   string
	// Body goes with the event: a receipt.
	Body []byte
	// Keep names the serial of the certificate that alone stays good; "": the
	// current one. Set when a box is released.
	Keep string
}

// ErrState says that a box does not stand as a change needs it.
var ErrState = errors.New("the box does not stand so")

// ChangeStanding carries out a change that a person decided. Asking for what is
// there already changes nothing.
func (s *Store) ChangeStanding(ctx context.Context, c Change) (st Membership, err error) {
	err = s.write(ctx, func(t *tx) error {
		if err := lockBox(ctx, t, c.Box); err != nil {
			return err
		}
		if st, err = standingIn(ctx, t, c.Box); err != nil {
			return err
		}
		if c.To == st.State && len(c.Body) == 0 {
			return nil
		}
		if len(c.From) > 0 && !slices.Contains(c.From, st.State) {
			return fmt.Errorf("%w: box %s is %s", ErrState, c.Box, st.State)
		}
		if st.State == StateQuarantined && c.To == StateActive {
			if err := settleCerts(ctx, t, c, s.now().UnixMilli()); err != nil {
				return err
			}
			if err := forgetClaims(ctx, t, c.Box); err != nil {
				return err
			}
			// The machine is what it says at its next contact, or it would be put back
			// into quarantine by what it was released from.
			st.Fence, st.Hardware = 0, enrol.Hardware{}
		}
		st, err = s.setState(ctx, t, st, c)
		return err
	})
	if err != nil {
		return Membership{}, fmt.Errorf("change how %s stands: %w", c.Box, err)
	}
	return st, nil
}

// setState stores a new state with its event, and an alarm when it is one.
func (s *Store) setState(ctx context.Context, t *tx, st Membership, c Change) (Membership, error) {
	was := st.State
	if c.To != "" {
		st.State, st.Since, st.Why, st.By = c.To, s.now(), c.Why, c.By
	}
	if st.State == StateRevoked || st.State == StateRetired && len(c.Body) > 0 {
		if _, err := t.Exec(ctx, `UPDATE device_cert SET state = ?, changed_ms = ? WHERE box = ?`, string(CertDead), s.now().UnixMilli(), st.Box); err != nil {
			return st, err
		}
	}
	if err := putStanding(ctx, t, st); err != nil {
		return st, err
	}
	if err := s.noteIdentity(ctx, t, st, c); err != nil {
		return st, err
	}
	if (was == StateQuarantined) == (st.State == StateQuarantined) {
		return st, nil
	}
	return st, s.alarmIdentity(ctx, t, st)
}

func (s *Store) noteIdentity(ctx context.Context, t *tx, st Membership, c Change) error {
	_, err := t.Exec(ctx, `INSERT INTO identity_event (box, t_ms, state, author, text, body) VALUES (?,?,?,?,?,?)`,
		st.Box, s.now().UnixMilli(), string(st.State), c.By, c.Why, string(c.Body))
	if err != nil {
		return fmt.Errorf("note what happened to %s: %w", st.Box, err)
	}
	return nil
}

// AlarmQuarantine is the kind of the alarm of a box in quarantine.
const AlarmQuarantine = "identity-quarantine"

func (s *Store) alarmIdentity(ctx context.Context, t *tx, st Membership) error {
	active := st.State == StateQuarantined
	text := "quarantined: " + st.Why
	if !active {
		text = "quarantine ended: " + st.Why
	}
	body, err := json.Marshal(wire.AlarmBody{Kind: AlarmQuarantine, Active: active})
	if err != nil {
		return err
	}
	_, err = t.Exec(ctx, `INSERT INTO event (box, t_ms, type, text, body) VALUES (?,?,?,?,?)`, st.Box, s.now().UnixMilli(), wire.EventAlarm, text, string(body))
	return err
}

// settleCerts makes one certificate the only good one of a box.
func settleCerts(ctx context.Context, t *tx, c Change, nowMs int64) error {
	keep := c.Keep
	if keep == "" {
		err := t.QueryRow(ctx, `SELECT serial FROM device_cert WHERE box = ? AND state = ?`, c.Box, string(CertCurrent)).Scan(&keep)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
	} else {
		var one int
		err := t.QueryRow(ctx, `SELECT 1 FROM device_cert WHERE box = ? AND serial = ? AND state <> ?`, c.Box, keep, string(CertDead)).Scan(&one)
		if errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("certificate %s of %s: %w", keep, c.Box, ErrNotFound)
		}
		if err != nil {
			return err
		}
	}
	if _, err := t.Exec(ctx, `UPDATE device_cert SET state = ?, changed_ms = ? WHERE box = ? AND serial <> ? AND state <> ?`, string(CertDead), nowMs, c.Box, keep, string(CertDead)); err != nil {
		return err
	}
	_, err := t.Exec(ctx, `UPDATE device_cert SET state = ? WHERE serial = ?`, string(CertCurrent), keep)
	return err
}

// ChangedMembers lists boxes that stand otherwise since a time.
func (s *Store) ChangedMembers(ctx context.Context, since time.Time) (ids []identity.ID, err error) {
	err = s.each(ctx, `SELECT box FROM standing WHERE since_ms >= ?`, []any{since.UnixMilli()}, scanIDs(&ids))
	if err != nil {
		return nil, fmt.Errorf("list boxes that changed: %w", err)
	}
	return ids, nil
}

// IdentityEvents lists what happened to the identity of a box, newest first.
func (s *Store) IdentityEvents(ctx context.Context, id identity.ID) (out []IdentityEvent, err error) {
	err = s.each(ctx, `SELECT t_ms, state, author, text, body FROM identity_event WHERE box = ? ORDER BY id DESC LIMIT 200`, []any{id}, func(rows *sql.Rows) error {
		var e IdentityEvent
		var ms int64
		var body string
		err := rows.Scan(&ms, &e.State, &e.By, &e.Text, &body)
		e.Time, e.Body = time.UnixMilli(ms), json.RawMessage(body)
		out = append(out, e)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list what happened to %s: %w", id, err)
	}
	return out, nil
}
