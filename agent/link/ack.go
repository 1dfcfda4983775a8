package link

import "github.com/edgeherd/edgeherd/internal/wire"

func (s *session) onAck(a wire.Ack) error {
	if !s.confirmed || a.Run != s.run0 {
		// A database that was not heard of since HELLO: ask what it has first.
		s.confirmed = false
		return s.helloAgain()
	}
	if !s.waiting {
		s.count(a)
	} else if len(s.held) < inboxSize {
		// The WELCOME may have been written before this commit, or answer a HELLO
		// that could not name this run yet, and would withdraw what is stored.
		s.held = append(s.held, a)
	}
	return nil
}

// countHeld counts what was held back, once no WELCOME to an earlier HELLO can
// come any more.
func (s *session) countHeld() {
	for _, a := range s.held {
		s.count(a)
	}
	s.held = nil
}

// count takes an ACK of the present run.
func (s *session) count(a wire.Ack) {
	if len(a.Keys) > 0 {
		n, err := s.link.opts.Spool.Ack(a.Run, a.LSN, a.Keys)
		if err != nil {
			// The blocks stay in flight and will be sent, and acked, again.
			s.link.log.Warn("acknowledgement not stored", "err", err)
			return
		}
		s.link.note(func(st *Status) { st.Acked += uint64(n) })
	}
	if len(a.Refused) > 0 {
		s.link.log.Error("controller refuses blocks", "blocks", len(a.Refused), "first", a.Refused[0].String())
		s.link.refuse(a.Refused)
	}
	for i, keys := range [][]wire.Key{a.Keys, a.Refused} {
		for _, key := range keys {
			s.land(key, i == 0)
			s.link.acquit(key)
		}
	}
}
