package store

import (
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// How two machines with one identity are told from one that was rebooted. Each
// process of a box that was not heard before is met with a question, a number
// that goes to all sessions of the box and that whoever is alive repeats. A
// process that is gone answers nothing, however late its last message comes.
// A box that starts over and over has maxClaims processes known at a time; from
// then on it is asked every askAgain at most, whichever of them comes.
const (
	claimLife   = 2 * time.Hour // boxes say HELLO each hour by themselves
	claimRepeat = 30 * time.Minute
	askAgain    = 30 * time.Second // an answer may be lost with its connection
	maxClaims   = 16               // of a box; one that starts over and over makes many
)

// Contest tells whether two machines are one box.
type Contest struct {
	// Began: this HELLO has shown it, and the box is in quarantine by now.
	Began bool
	Why   string
	// Ask is a question for all sessions of the box; 0: none.
	Ask uint64
}

type claim struct {
	sid         wire.SID
	starts      uint64
	machine     [8]byte
	first, last int64
	answered    int64
	words       string
}

type question struct{ number, asked int64 }

// claimOf tells the process of a HELLO, and its machine by what the board says of
// itself.
func claimOf(h wire.Hello, address string, now int64) claim {
	i := h.Inventory
	sum := sha256.Sum256([]byte(strings.Join([]string{i.Vendor, i.Product, i.Serial}, "\x00")))
	if address == "" {
		address = "an address that its broker does not tell"
	}
	var marks []string
	if board := strings.Join(strings.Fields(i.Vendor+" "+i.Product), " "); board != "" {
		marks = append(marks, board)
	}
	if i.Serial != "" {
		marks = append(marks, fmt.Sprintf("serial %q", i.Serial))
	}
	marks = append(marks, "boot "+h.Clock.Boot.String())
	if h.Starts != 0 {
		marks = append(marks, fmt.Sprintf("start %d of its agent", h.Starts))
	}
	return claim{
		sid: h.SID, starts: h.Starts, machine: [8]byte(sum[:]), first: now, last: now,
		words: fmt.Sprintf("%s (%s)", address, strings.Join(marks, ", ")),
	}
}

// Claim notes which process said a HELLO, from which address, and judges whether
// another machine is the box as well: then the box goes to quarantine. A HELLO of
// the process that is known already costs no write.
func (s *Store) Claim(ctx context.Context, id identity.ID, h wire.Hello, address string) (c Contest, err error) {
	now := s.now().UnixMilli()
	me := claimOf(h, address, now)
	known := false
	err = s.read(ctx, func(t *tx) error {
		all, q, err := claims(ctx, t, id)
		at := slices.IndexFunc(all, func(k claim) bool { return k.sid == me.sid })
		known = at >= 0 && all[at].last > now-claimRepeat.Milliseconds() && (len(all) == 1 || newest(all).sid == me.sid) &&
			(q.number == 0 || all[at].answered == q.number)
		return err
	})
	if err != nil || known {
		return Contest{}, err
	}
	err = s.write(ctx, func(t *tx) error { c, err = s.claim(ctx, t, id, me, int64(h.Answers)); return err })
	if err != nil {
		return Contest{}, fmt.Errorf("note the machine of box %s: %w", id, err)
	}
	return c, nil
}

// claim is Claim for what changes something.
func (s *Store) claim(ctx context.Context, t *tx, id identity.ID, me claim, answers int64) (c Contest, err error) {
	if err := lockBox(ctx, t, id); err != nil { // one of two HELLOs waits for the other
		return c, err
	}
	all, q, err := claims(ctx, t, id)
	if err != nil {
		return c, err
	}
	if at := slices.IndexFunc(all, func(k claim) bool { return k.sid == me.sid }); at >= 0 {
		me.first, me.answered = all[at].first, all[at].answered
	}
	if answers != 0 && answers == q.number {
		me.answered = answers
	}
	why, ask := judge(all, me, q)
	st, err := standingIn(ctx, t, id)
	if err != nil {
		return c, err
	}
	if err := keepClaims(ctx, t, id, all, me); err != nil || st.State == StateQuarantined {
		return c, err
	}
	if why != "" {
		c = Contest{Began: true, Why: why}
		_, err := s.setState(ctx, t, st, Change{Box: id, To: StateQuarantined, Why: why, By: "controller"})
		return c, err
	}
	if !ask {
		return c, nil
	}
	number := 1 + rand.Int64N(1<<62)
	c.Ask = uint64(number)
	_, err = t.Exec(ctx, `INSERT INTO claim_question (box, number, asked_ms) VALUES (?,?,?)
		ON CONFLICT (box) DO UPDATE SET number = excluded.number, asked_ms = excluded.asked_ms`, id, number, me.last)
	return c, err
}

func claims(ctx context.Context, t *tx, id identity.ID) (all []claim, q question, err error) {
	err = t.each(ctx, `SELECT sid, starts, machine, first_ms, last_ms, answered, words FROM claim WHERE box = ?`, []any{id}, func(rows *sql.Rows) error {
		var k claim
		var sid, machine []byte
		var starts int64
		err := rows.Scan(&sid, &starts, &machine, &k.first, &k.last, &k.answered, &k.words)
		copy(k.sid[:], sid)
		copy(k.machine[:], machine)
		k.starts = uint64(starts)
		all = append(all, k)
		return err
	})
	if err != nil {
		return nil, q, err
	}
	err = t.QueryRow(ctx, `SELECT number, asked_ms FROM claim_question WHERE box = ?`, id).Scan(&q.number, &q.asked)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return all, q, err
}

// newest is the process that came last.
func newest(all []claim) (n claim) {
	for _, k := range all {
		if k.first >= n.first {
			n = k
		}
	}
	return n
}

// judge compares the process that said HELLO just now with the others: why says
// that they are two machines, ask that it is worth a question. It is pure.
//
// A box that was rebooted, however often and with whatever network, is never
// blamed: whoever answers was alive after the newest process was heard, and of
// one box only that one can be.
func judge(all []claim, me claim, q question) (why string, ask bool) {
	known := slices.ContainsFunc(all, func(k claim) bool { return k.sid == me.sid })
	others := slices.DeleteFunc(slices.Clone(all), func(k claim) bool { return k.sid == me.sid })
	switch {
	case len(others) == 0:
		return "", false
	case !known:
		return "", len(all) < maxClaims || me.last-q.asked >= askAgain.Milliseconds() // each costs every controller a message
	case q.number == 0 || me.answered != q.number:
		return "", me.last-q.asked >= askAgain.Milliseconds()
	}
	for _, k := range others {
		if k.answered == q.number {
			return "two machines are this box at the same time, " + me.words + " and " + k.words + ": its disk was copied", false
		}
	}
	top := mostStarts(others)
	// A disk that loses what it promised to keep may repeat one number on the same
	// machine: that alone is no sign.
	if me.starts != 0 && (me.starts < top.starts || me.starts == top.starts && me.machine != top.machine) {
		return me.words + " comes after " + top.words + ": its disk was copied or put back", false
	}
	return "", false
}

func mostStarts(all []claim) (top claim) {
	for _, k := range all {
		if k.starts > top.starts {
			top = k
		}
	}
	return top
}

// keepClaims stores a claim and drops what tells nothing any more: what was not
// heard for long, but for the one with the most starts.
func keepClaims(ctx context.Context, t *tx, id identity.ID, all []claim, me claim) error {
	_, err := t.Exec(ctx, `INSERT INTO claim (box, sid, starts, machine, words, first_ms, last_ms, answered) VALUES (?,?,?,?,?,?,?,?)
		ON CONFLICT (box, sid) DO UPDATE SET last_ms = excluded.last_ms, words = excluded.words, answered = excluded.answered`,
		id, me.sid[:], int64(me.starts), me.machine[:], me.words, me.first, me.last, me.answered)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(slices.Clone(all), func(k claim) bool { return k.sid == me.sid })
	slices.SortFunc(all, func(a, b claim) int { return cmp.Compare(b.last, a.last) })
	top := mostStarts(append(slices.Clone(all), me))
	for i, k := range all {
		if k.sid == top.sid || i < maxClaims && k.last > me.last-claimLife.Milliseconds() {
			continue
		}
		if _, err := t.Exec(ctx, `DELETE FROM claim WHERE box = ? AND sid = ?`, id, k.sid[:]); err != nil {
			return err
		}
	}
	return nil
}

// forgetClaims begins anew: the box is another machine, or a person decided which
// one it is.
func forgetClaims(ctx context.Context, t *tx, id identity.ID) error {
	for _, q := range []string{`DELETE FROM claim WHERE box = ?`, `DELETE FROM claim_question WHERE box = ?`} {
		if _, err := t.Exec(ctx, q, id); err != nil {
			return fmt.Errorf("forget the machines of %s: %w", id, err)
		}
	}
	return nil
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
