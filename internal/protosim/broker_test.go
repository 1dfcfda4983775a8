package protosim

import "slices"

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
	node   *controller // whose broker has it; nil: an outside broker
	due    int         // when it was kept back
	body   any         // hello, data, welcome, ack or puback
}

type (
	hello struct {
		nonce uint64
		runs  []uint64
	}
	data []parcel
	// parcel is a block or a pack of several.
	parcel struct {
		grain  grain
		blocks []*block
	}
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
	conn   int
	box    *box
	client uint64
	node   *controller // nil: an outside broker
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
// (device and sid) replaces the old one. Embedded brokers know nothing of each
// other.
func (w *world) openSession(b *box) int {
	var node *controller
	if w.embedded {
		up := w.running()
		if len(up) == 0 {
			return 0
		}
		node = up[w.rng.IntN(len(up))]
	}
	w.sessions = slices.DeleteFunc(w.sessions, func(s session) bool {
		return s.box.device == b.device && s.client == b.mem.client && s.node == node
	})
	n := 0
	for _, s := range w.sessions {
		if s.box.device == b.device && s.node == node {
			n++
		}
	}
	if w.limited && n >= maxSessions {
		return 0
	}
	w.conns++
	w.sessions = append(w.sessions, session{w.conns, b, b.mem.client, node})
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
		up := w.running()
		if m.node != nil {
			up = slices.DeleteFunc(up, func(c *controller) bool { return c != m.node })
		}
		if len(up) > 0 {
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

// publish reaches every session of the device, with embedded brokers those of
// the controller's own: clones hear each other's answers.
func (w *world) publish(c *controller, device int, v any) {
	for _, s := range w.sessions {
		if s.box.device == device && (s.node == nil || s.node == c) {
			w.net = append(w.net, message{leg: toBox, conn: s.conn, device: device, node: s.node, body: v})
		}
	}
}
