package protosim

import (
	"maps"
	"slices"
)

// leg is how far a message has come.
type leg int

const (
	toBroker leg = iota
	toController
	toBox
)

func (l leg) String() string {
	return [...]string{"to the broker", "to a controller", "to a box"}[l]
}

type message struct {
	leg    leg
	conn   int // of the box that sent it or shall get it
	device int
	due    int // when it was kept back
	body   any // hello, data, welcome, ack or puback
}

type (
	hello struct {
		nonce uint64
		runs  []uint64
	}
	data    []*block
	welcome struct {
		nonce, run uint64
		valid      map[uint64]uint64
		life       int // for the judge alone
	}
	ack struct {
		run, lsn uint64
		keys     []key
	}
	puback struct{ keys []key }
)

// session is a connection as the broker sees it, which learns late that a box
// is gone.
type session struct {
	conn int
	box  *box
	sid  uint64
}

// sessionOf returns the session that a box believes to be in.
func (w *world) sessionOf(b *box) *session {
	for i, s := range w.sessions {
		if b.mem != nil && s.conn == b.mem.conn && s.box == b {
			return &w.sessions[i]
		}
	}
	return nil
}

func (w *world) endSession(conn int) {
	w.sessions = slices.DeleteFunc(w.sessions, func(s session) bool { return s.conn == conn })
}

// openSession may refuse a third session of a device; one with the same client id
// (device and sid) replaces the old one.
func (w *world) openSession(b *box) int {
	w.sessions = slices.DeleteFunc(w.sessions, func(s session) bool { return s.box.device == b.device && s.sid == b.mem.sid })
	n := 0
	for _, s := range w.sessions {
		if s.box.device == b.device {
			n++
		}
	}
	if w.limited && n >= maxSessions {
		return 0
	}
	w.conns++
	w.sessions = append(w.sessions, session{w.conns, b, b.mem.sid})
	return w.conns
}

// reap ends one session at random that is dead, or too old.
func (w *world) reap() {
	if len(w.sessions) == 0 {
		return
	}
	s := w.sessions[w.rng.IntN(len(w.sessions))]
	if w.sessionOf(s.box) == nil || s.box.mem.conn != s.conn || w.rng.IntN(20) == 0 {
		w.endSession(s.conn)
	}
}

// deliver moves one message on, any one: there is no order.
func (w *world) deliver() {
	m := w.take(w.rng.IntN(len(w.net)))
	if w.log != nil {
		w.logf("%s, session %d: %T %+v", m.leg, m.conn, m.body, m.body)
	}
	switch m.leg {
	case toBroker:
		// The worst broker: it acknowledges what it has only in memory.
		if d, ok := m.body.(data); ok {
			w.net = append(w.net, message{leg: toBox, conn: m.conn, device: m.device, body: puback{d.keys()}})
		}
		m.leg = toController
		w.net = append(w.net, m)
	case toController:
		if up := w.running(); len(up) > 0 {
			w.handle(up[w.rng.IntN(len(up))], m)
		}
	case toBox:
		for _, s := range w.sessions {
			if s.conn == m.conn && w.sessionOf(s.box) != nil {
				s.box.receive(m.body)
				return
			}
		}
	}
}

func (d data) keys() []key {
	keys := make([]key, len(d))
	for i, b := range d {
		keys[i] = b.key
	}
	return keys
}

// database is all that a backup copies.
type database struct {
	life   int // for the judge alone: grows with each restore
	lsn    uint64
	run    uint64            // the one that has not ended
	ended  map[uint64]uint64 // runs before, with their last LSN
	rows   map[key]bool
	counts map[int]int // what is derived: how often a record was counted
}

func (d *database) copy() *database {
	c := *d
	c.ended, c.rows, c.counts = maps.Clone(d.ended), maps.Clone(d.rows), maps.Clone(d.counts)
	return &c
}

// controller is one of several processes on one database. Its run is the one it
// began, and stays that when another one begins.
type controller struct {
	up  bool
	run uint64
}

// startController ends the last run and begins one, in one transaction.
func (w *world) startController(c *controller) {
	d := w.db
	if d.run == 0 || !w.rules.sameRun {
		if d.run != 0 {
			d.ended[d.run] = d.lsn
		}
		d.run = w.rng.Uint64()
	}
	c.up, c.run = true, d.run
}

func (w *world) running() []*controller {
	var up []*controller
	for _, c := range w.controllers {
		if c.up {
			up = append(up, c)
		}
	}
	return up
}

// runOf is the run under which c commits: with ownRuns the one it began itself,
// as one process does that has the database for itself; else what the database
// says in the same transaction.
func (w *world) runOf(c *controller) uint64 {
	if w.ownRuns {
		return c.run
	}
	return w.db.run
}

func (w *world) handle(c *controller, m message) {
	switch v := m.body.(type) {
	case hello:
		answer := welcome{nonce: v.nonce, run: w.runOf(c), valid: map[uint64]uint64{}, life: w.db.life}
		for _, run := range v.runs {
			if lsn, ok := w.db.ended[run]; ok {
				answer.valid[run] = lsn
			} else if run == w.db.run {
				answer.valid[run] = w.db.lsn
			}
		}
		w.publish(m.device, answer)
	case data:
		a := ack{run: w.runOf(c), lsn: w.db.lsn + 1, keys: v.keys()}
		if w.rules.eagerAck {
			w.publish(m.device, a)
		} else {
			w.commit(v)
		}
		if w.crashNext { // between the two, whichever comes first
			w.crashNext, c.up = false, false
			w.fired[ackCrash]++
			return
		}
		if w.rules.eagerAck {
			w.commit(v)
		} else {
			w.publish(m.device, a)
		}
	}
}

// commit inserts what is not there, in one transaction.
func (w *world) commit(blocks data) {
	w.db.lsn++
	for _, b := range blocks {
		there := w.db.rows[b.key]
		w.db.rows[b.key] = true
		if there && !w.rules.deriveAlways {
			continue
		}
		for _, r := range b.recs {
			w.db.counts[r]++
			w.fates[r].stored = true
		}
	}
}

// publish reaches every session of the device: clones hear each other's answers.
func (w *world) publish(device int, v any) {
	for _, s := range w.sessions {
		if s.box.device == device {
			w.net = append(w.net, message{leg: toBox, conn: s.conn, device: device, body: v})
		}
	}
}
