package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// How two machines with one identity are told from one that was rebooted: both
// say HELLO again after both were there for a keep-alive of agents. The session
// of a machine that lost its power may stay open for that long, but it says
// nothing any more.
const (
	claimProof  = time.Minute     // a keep-alive
	claimEnd    = 5 * time.Minute // without a HELLO: that machine is gone
	claimLife   = 2 * time.Hour   // boxes say HELLO each hour by themselves
	claimRepeat = 30 * time.Minute
)

// Contest tells whether two machines are one box.
type Contest struct {
	// Now: they are. Desired state is withheld, as nobody knows which of them
	// is meant. Began and Ended say that this HELLO has shown it.
	Now, Began, Ended bool
	// Ask is when the box should be asked for another HELLO to find out; zero
	// means that nothing is to be found out.
	Ask time.Time
	// Machines are those that claim to be the box, in words.
	Machines []string
}

type claim struct {
	machine     [8]byte
	first, last int64
	words       string
}

// machineOf tells the machine of a HELLO from others: by what the board says of
// itself, and by the boot, which no two machines have in common.
func machineOf(h wire.Hello) (id [8]byte, words string) {
	i := h.Inventory
	sum := sha256.Sum256([]byte(strings.Join([]string{i.Vendor, i.Product, i.Serial, h.Clock.Boot.String()}, "\x00")))
	copy(id[:], sum[:])
	board := strings.Join(strings.Fields(i.Vendor+" "+i.Product), " ")
	return id, fmt.Sprintf("%s, serial %q, boot %s", board, i.Serial, h.Clock.Boot)
}

// Claim notes which machine said a HELLO, and judges whether another one does
// so as well. A HELLO of the machine that is known already costs no write.
func (s *Store) Claim(ctx context.Context, id identity.ID, h wire.Hello) (c Contest, err error) {
	machine, words := machineOf(h)
	now := s.now().UnixMilli()
	known := false
	err = s.read(ctx, func(t *tx) error {
		all, contested, err := claims(ctx, t, id)
		known = len(all) == 1 && !contested && all[0].machine == machine && all[0].last > now-claimRepeat.Milliseconds()
		return err
	})
	if err != nil || known {
		return Contest{}, err
	}
	err = s.write(ctx, func(t *tx) error {
		// The row of the box makes one of two HELLOs wait for the other.
		var one int
		if err := t.QueryRow(ctx, `SELECT 1 FROM box WHERE id = ? FOR UPDATE`, id).Scan(&one); err != nil {
			return err
		}
		all, was, err := claims(ctx, t, id)
		if err != nil {
			return err
		}
		if _, err := t.Exec(ctx, `DELETE FROM claim WHERE box = ? AND last_ms < ?`, id, now-claimLife.Milliseconds()); err != nil {
			return err
		}
		if _, err := t.Exec(ctx, `INSERT INTO claim (box, machine, first_ms, last_ms, words) VALUES (?,?,?,?,?)
			ON CONFLICT (box, machine) DO UPDATE SET last_ms = excluded.last_ms`, id, machine[:], now, now, words); err != nil {
			return err
		}
		c = judge(all, claim{machine, now, now, words}, now)
		return s.noteContest(ctx, t, id, &c, was)
	})
	if err != nil {
		return Contest{}, fmt.Errorf("note the machine of box %s: %w", id, err)
	}
	return c, nil
}

func claims(ctx context.Context, t *tx, id identity.ID) (all []claim, contested bool, err error) {
	err = t.each(ctx, `SELECT machine, first_ms, last_ms, words FROM claim WHERE box = ?`, []any{id}, func(rows *sql.Rows) error {
		var k claim
		var raw []byte
		err := rows.Scan(&raw, &k.first, &k.last, &k.words)
		copy(k.machine[:], raw)
		all = append(all, k)
		return err
	})
	if err == nil {
		err = t.QueryRow(ctx, `SELECT count(*) > 0 FROM contest WHERE box = ?`, id).Scan(&contested)
	}
	return all, contested, err
}

// judge compares the machine that said HELLO just now with the others.
func judge(all []claim, me claim, now int64) (c Contest) {
	all = slices.Clone(all)
	if at := slices.IndexFunc(all, func(k claim) bool { return k.machine == me.machine }); at >= 0 && all[at].last > now-claimLife.Milliseconds() {
		me.first = all[at].first
	}
	all = slices.DeleteFunc(all, func(k claim) bool { return k.machine == me.machine || k.last < now-claimLife.Milliseconds() })
	c.Machines = []string{me.words}
	for _, k := range all {
		proved := max(k.first, me.first) + claimProof.Milliseconds()
		if k.last >= proved && now >= proved && k.last > now-claimEnd.Milliseconds() {
			c.Now, c.Machines = true, append(c.Machines, k.words)
		}
		if next := time.UnixMilli(proved).Add(claimProof / 12); next.UnixMilli() > now && next.After(c.Ask) {
			c.Ask = next
		}
	}
	if c.Now {
		c.Ask = time.UnixMilli(now).Add(claimProof)
	}
	return c
}

// noteContest stores the beginning or the end of a contest with its alarm.
func (s *Store) noteContest(ctx context.Context, t *tx, id identity.ID, c *Contest, was bool) (err error) {
	now := s.now().UnixMilli()
	c.Began, c.Ended = c.Now && !was, was && !c.Now
	text := ""
	switch {
	case c.Began:
		text = "two machines show the certificate of this box: " + strings.Join(c.Machines, "; ")
		_, err = t.Exec(ctx, `INSERT INTO contest (box, since_ms) VALUES (?,?) ON CONFLICT (box) DO NOTHING`, id, now)
	case c.Ended:
		text = "only one machine shows the certificate of this box: " + c.Machines[0]
		_, err = t.Exec(ctx, `DELETE FROM contest WHERE box = ?`, id)
	}
	if err != nil || text == "" {
		return err
	}
	body, err := json.Marshal(wire.AlarmBody{Kind: "duplicate-identity", Active: c.Began})
	if err != nil {
		return err
	}
	_, err = t.Exec(ctx, `INSERT INTO event (box, t_ms, type, text, body) VALUES (?,?,?,?,?)`, id, now, wire.EventAlarm, text, string(body))
	return err
}

// Contested reports whether two machines are this box.
func (s *Store) Contested(ctx context.Context, id identity.ID) (yes bool, err error) {
	if err = s.one(ctx, `SELECT count(*) > 0 FROM contest WHERE box = ?`, []any{id}, &yes); err != nil {
		return false, fmt.Errorf("look up machines of box %s: %w", id, err)
	}
	return yes, nil
}

// Reconnects returns an error when a HELLO is older than the present session of
// its process: a message or a memory snapshot that came back.
func (s *Store) Reconnects(ctx context.Context, id identity.ID, h wire.Hello) (older, err error) {
	var conn int64
	err = s.one(ctx, `SELECT conn FROM session WHERE box = ? AND sid = ?`, []any{id, h.SID[:]}, &conn)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read session of box %s: %w", id, err)
	case int64(h.Conn) < conn:
		return fmt.Errorf("HELLO of connection %d of process %s after one of connection %d", h.Conn, h.SID, conn), nil
	}
	return nil, nil
}
