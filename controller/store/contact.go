package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/edgeherd/edgeherd/internal/identity"
)

// forkGrace is how long after its replacement was first used a certificate may
// still turn up: connections that were begun before.
const forkGrace = time.Minute

// maxCerts of a box are kept; the oldest dead ones go.
const maxCerts = 64

// ErrRefused says that a box may not come in.
var ErrRefused = errors.New("refused")

// Contact notes that a box has proved itself with the certificate of that serial
// from an address, and returns how it stands. The first contact makes a box
// active, and a new certificate the current one. A certificate that was replaced
// puts the box in quarantine: somebody has a copy. changed says that it stands
// otherwise than before. An error that wraps ErrRefused says that it must go.
//
// Certificates that are not recorded are good while none of the box is.
func (s *Store) Contact(ctx context.Context, id identity.ID, serial, address string) (st Membership, changed bool, err error) {
	var c Cert
	err = s.read(ctx, func(t *tx) error {
		if st, err = standingIn(ctx, t, id); err != nil {
			return err
		}
		c, err = certIn(ctx, t, id, serial)
		return err
	})
	if err == nil && (!st.State.MayConnect() || c.State == CertDead) {
		return st, false, s.refusal(st, c)
	}
	calm := c.State == CertCurrent || c.State == CertSuperseded && (st.State == StateQuarantined || s.now().Sub(c.Changed) < forkGrace)
	if err == nil && calm && st.State != StateEnrolled {
		return st, false, nil
	}
	if err == nil {
		err = s.write(ctx, func(t *tx) error { st, changed, err = s.contact(ctx, t, id, serial, address); return err })
	}
	if errors.Is(err, ErrNotFound) {
		err = fmt.Errorf("%w: box %s is not enrolled here", ErrRefused, id)
	}
	if err != nil {
		return st, false, fmt.Errorf("note contact of %s: %w", id, err)
	}
	return st, changed, nil
}

// RenewFacts are what a decision about a renewal stands on.
type RenewFacts struct {
	Member  Membership
	Cert    Cert  // that was shown
	Pending *Cert // that was issued before and not used yet
}

// RenewDecision is what is stored of one.
type RenewDecision struct {
	Quarantine string // why; "": not
	Issue      *Cert
	Member     *Membership // what is known of the machine, when it changed
}

// Renew loads the facts about a renewal, has decide judge them, and stores what
// it decided, all at once. decide may be called again.
func (s *Store) Renew(ctx context.Context, id identity.ID, serial string, decide func(RenewFacts) (RenewDecision, error)) error {
	return s.write(ctx, func(t *tx) error {
		if err := lockBox(ctx, t, id); err != nil {
			return err
		}
		var f RenewFacts
		var err error
		if f.Member, err = standingIn(ctx, t, id); err != nil {
			return err
		}
		if f.Cert, err = certIn(ctx, t, id, serial); err != nil {
			return err
		}
		all, err := certsIn(ctx, t, id)
		if err != nil {
			return err
		}
		for _, c := range all {
			if c.State == CertPending {
				f.Pending = &c
			}
		}
		d, err := decide(f)
		if err != nil {
			return err
		}
		if d.Member != nil {
			f.Member = *d.Member
			if err := putStanding(ctx, t, f.Member); err != nil {
				return err
			}
		}
		if d.Quarantine != "" && f.Member.State != StateQuarantined {
			if _, err := s.setState(ctx, t, f.Member, Change{Box: id, To: StateQuarantined, Why: d.Quarantine, By: "controller"}); err != nil {
				return err
			}
		}
		if d.Issue != nil {
			return s.addCert(ctx, t, *d.Issue)
		}
		return nil
	})
}

// Place returns what a box is called and where it stands.
func (s *Store) Place(ctx context.Context, id identity.ID) (name, site string, err error) {
	if err = s.one(ctx, `SELECT name, site FROM box WHERE id = ?`, []any{id}, &name, &site); err != nil {
		return "", "", fmt.Errorf("box %s: %w", id, err)
	}
	return name, site, nil
}

func (s *Store) refusal(st Membership, c Cert) error {
	if !st.State.MayConnect() {
		return fmt.Errorf("%w: box %s is %s", ErrRefused, st.Box, st.State)
	}
	return fmt.Errorf("%w: certificate %s of box %s was withdrawn", ErrRefused, c.Serial, st.Box)
}

// certIn finds the certificate of a serial. One that is not recorded is current
// when none of the box is recorded as such, else it is an earlier one.
func certIn(ctx context.Context, t *tx, id identity.ID, serial string) (c Cert, err error) {
	c = Cert{Serial: serial, Box: id}
	var changed, ends int64
	err = t.QueryRow(ctx, `SELECT key, state, changed_ms, ends_ms, address, pem FROM device_cert WHERE serial = ? AND box = ?`, serial, id).
		Scan(&c.Key, &c.State, &changed, &ends, &c.Address, &c.PEM)
	c.Changed, c.Ends = time.UnixMilli(changed), time.UnixMilli(ends)
	if !errors.Is(err, sql.ErrNoRows) {
		return c, err
	}
	var n int
	c.State = CertCurrent
	err = t.QueryRow(ctx, `SELECT count(*) FROM device_cert WHERE box = ? AND state IN ('current', 'dead')`, id).Scan(&n)
	if n > 0 {
		c.State = CertSuperseded
	}
	return c, err
}

// contact is Contact for what changes something.
func (s *Store) contact(ctx context.Context, t *tx, id identity.ID, serial, address string) (st Membership, changed bool, err error) {
	if err := lockBox(ctx, t, id); err != nil {
		return st, false, err
	}
	if st, err = standingIn(ctx, t, id); err != nil {
		return st, false, err
	}
	c, err := certIn(ctx, t, id, serial)
	if err != nil {
		return st, false, err
	}
	now := s.now().UnixMilli()
	switch {
	case !st.State.MayConnect() || c.State == CertDead:
		return st, false, s.refusal(st, c)
	case c.State == CertPending:
		if _, err := t.Exec(ctx, `UPDATE device_cert SET state = ?, changed_ms = ? WHERE box = ? AND state = ?`, string(CertSuperseded), now, id, string(CertCurrent)); err != nil {
			return st, false, err
		}
		if _, err := t.Exec(ctx, `UPDATE device_cert SET state = ?, changed_ms = ?, address = ? WHERE serial = ?`, string(CertCurrent), now, address, serial); err != nil {
			return st, false, err
		}
	case c.State == CertSuperseded && s.now().Sub(c.Changed) >= forkGrace && st.State != StateQuarantined:
		st, err = s.fork(ctx, t, st, c, address)
		return st, true, err
	}
	if st.State != StateEnrolled {
		return st, c.State == CertPending, nil // another key: what is sealed to it changes
	}
	if err := forgetClaims(ctx, t, id); err != nil { // of the machine of before, heard until now
		return st, false, err
	}
	st, err = s.setState(ctx, t, st, Change{Box: id, To: StateActive, Why: "first contact from " + address, By: "controller"})
	return st, true, err
}

// fork puts a box in quarantine because a certificate came back.
func (s *Store) fork(ctx context.Context, t *tx, st Membership, c Cert, address string) (Membership, error) {
	var other string
	err := t.QueryRow(ctx, `SELECT address FROM device_cert WHERE box = ? AND state = ?`, st.Box, string(CertCurrent)).Scan(&other)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return st, err
	}
	if other == "" {
		other = "an address that is not known"
	}
	why := fmt.Sprintf("certificate %s, which was replaced, came back from %s; the present one was used from %s: its disk was copied or put back", c.Serial, address, other)
	return s.setState(ctx, t, st, Change{Box: st.Box, To: StateQuarantined, Why: why, By: "controller"})
}

// AddCert records a certificate that a box was given, as pending: one that was
// pending before is superseded.
func (s *Store) AddCert(ctx context.Context, c Cert) error {
	err := s.write(ctx, func(t *tx) error {
		if err := lockBox(ctx, t, c.Box); err != nil {
			return err
		}
		return s.addCert(ctx, t, c)
	})
	if err != nil {
		return fmt.Errorf("record certificate of %s: %w", c.Box, err)
	}
	return nil
}

func (s *Store) addCert(ctx context.Context, t *tx, c Cert) error {
	now := s.now().UnixMilli()
	for _, q := range []struct {
		text string
		args []any
	}{
		{`UPDATE device_cert SET state = ?, changed_ms = ? WHERE box = ? AND state = ?`, []any{string(CertSuperseded), now, c.Box, string(CertPending)}},
		{`INSERT INTO device_cert (serial, box, key, state, changed_ms, ends_ms, address, pem) VALUES (?,?,?,?,?,?,'',?) ON CONFLICT (serial) DO NOTHING`,
			[]any{c.Serial, c.Box, c.Key, string(CertPending), now, c.Ends.UnixMilli(), c.PEM}},
		{`DELETE FROM device_cert WHERE box = ? AND state IN ('superseded', 'dead') AND serial NOT IN
			(SELECT serial FROM device_cert WHERE box = ? ORDER BY changed_ms DESC LIMIT ?)`, []any{c.Box, c.Box, maxCerts}},
	} {
		if _, err := t.Exec(ctx, q.text, q.args...); err != nil {
			return fmt.Errorf("record certificate of %s: %w", c.Box, err)
		}
	}
	return nil
}

// HasCert says whether a certificate is recorded.
func (s *Store) HasCert(ctx context.Context, serial string) (has bool, err error) {
	if err = s.one(ctx, `SELECT count(*) > 0 FROM device_cert WHERE serial = ?`, []any{serial}, &has); err != nil {
		return false, fmt.Errorf("look up certificate %s: %w", serial, err)
	}
	return has, nil
}

// DeadCerts lists what has not ended yet and opens nothing any more, by number:
// what was replaced or revoked, and all of boxes that may not connect.
func (s *Store) DeadCerts(ctx context.Context) (out []Cert, err error) {
	err = s.each(ctx, `SELECT c.serial, c.box, c.changed_ms FROM device_cert c LEFT JOIN standing s ON s.box = c.box
		WHERE c.ends_ms > ? AND (c.state = 'dead' OR s.state IN ('revoked', 'retired')) ORDER BY c.serial`, []any{s.now().UnixMilli()}, func(rows *sql.Rows) error {
		var c Cert
		var changed int64
		err := rows.Scan(&c.Serial, &c.Box, &changed)
		c.Changed = time.UnixMilli(changed)
		out = append(out, c)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list revoked certificates: %w", err)
	}
	return out, nil
}

// Certs lists the certificates of a box, newest first.
func (s *Store) Certs(ctx context.Context, id identity.ID) (out []Cert, err error) {
	err = s.read(ctx, func(t *tx) error { out, err = certsIn(ctx, t, id); return err })
	if err != nil {
		return nil, fmt.Errorf("list certificates of %s: %w", id, err)
	}
	return out, nil
}

func certsIn(ctx context.Context, t *tx, id identity.ID) (out []Cert, err error) {
	err = t.each(ctx, `SELECT serial, key, state, changed_ms, ends_ms, address, pem FROM device_cert WHERE box = ? ORDER BY changed_ms DESC, ends_ms DESC`, []any{id}, func(rows *sql.Rows) error {
		c := Cert{Box: id}
		var changed, ends int64
		err := rows.Scan(&c.Serial, &c.Key, &c.State, &changed, &ends, &c.Address, &c.PEM)
		c.Changed, c.Ends = time.UnixMilli(changed), time.UnixMilli(ends)
		out = append(out, c)
		return err
	})
	return out, err
}
