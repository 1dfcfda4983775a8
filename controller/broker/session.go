package broker

import (
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"

	"github.com/edgeherd/edgeherd/internal/wire"
)

// writeWait bounds one write. A box that pings but never reads would keep the
// lock of its session, and whoever waits for that, for as long as it likes.
const writeWait = 10 * time.Second

// maxPosted bounds what waits for a box that does not read: two of the
// largest messages.
const maxPosted = 2 * (wire.MaxMessageBytes + 512)

// session is one connection, from before its CONNECT to its last hook. The
// fields that OnConnect sets are guarded by Broker.mu until it returns.
type session struct {
	peer    Peer
	conn    net.Conn
	deliver func(wire.Topic, []byte) error
	greet   func() error          // asks whether the box may be here
	pace    func(bytes int) error // waits until the box may send that much
	greeted func()                // CONNECT was accepted, or will never be; may be called again
	client  *mqtt.Client          // set by OnConnect
	sid     wire.SID              // set by OnConnect
	resumed bool                  // set by OnConnect: the end of the session before was not told yet
	done    chan struct{}         // closed when mochi has forgotten it

	established bool // OnConnect of the options was called, or resumed; of the session's goroutine

	writing sync.Mutex // held during a write to conn

	mu       sync.Mutex // guards the fields below
	waiting  []byte     // packets on their way down
	corked   bool       // a PUBACK will follow soon and take them along
	draining bool       // a goroutine writes them
}

// boundConn carries its session to the hooks of mochi, and mochi's packets,
// one whole packet a call, to the session.
type boundConn struct {
	net.Conn
	session *session
}

func (c boundConn) Write(p []byte) (int, error) {
	if err := c.session.write(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// write sends what waits, and p after it, as one TLS record where it fits.
func (s *session) write(p []byte) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.mu.Lock()
	all := s.waiting
	s.waiting = nil
	s.mu.Unlock()
	if all = append(all, p...); len(all) == 0 {
		return nil
	}
	err := s.conn.SetWriteDeadline(time.Now().Add(writeWait))
	if err == nil {
		_, err = s.conn.Write(all)
	}
	if err != nil {
		s.conn.Close() // a part may have left
	}
	return err
}

// errSlow says that a box does not read what it is sent.
var errSlow = errors.New("box does not read")

// post has a packet sent soon. It never blocks.
func (s *session) post(packet []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting)+len(packet) > maxPosted {
		s.conn.Close()
		return errSlow
	}
	s.waiting = append(s.waiting, packet...)
	s.drainLocked()
	return nil
}

func (s *session) drainLocked() {
	if s.corked || s.draining || len(s.waiting) == 0 {
		return
	}
	s.draining = true
	go s.drain()
}

// drain writes until nothing waits. It ends with the connection.
func (s *session) drain() {
	for more := true; more; {
		err := s.write(nil)
		s.mu.Lock()
		more = err == nil && len(s.waiting) > 0
		s.draining = more
		s.mu.Unlock()
	}
}

// cork keeps what is posted until uncork. A PUBACK of mochi takes it along: ACK
// and PUBACK leave in one write.
func (s *session) cork() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.corked = true
}

func (s *session) uncork(pubackFollows bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.corked = false; !pubackFollows {
		s.drainLocked()
	}
}

// publishPacket is a PUBLISH of QoS 0. QoS 1 would add nothing: the session is
// clean, so mochi never sends again, and the PUBACK would cost the box a packet
// for each message.
func publishPacket(topic string, payload []byte) []byte {
	size := 2 + len(topic) + len(payload)
	p := make([]byte, 0, size+5)
	p = binary.AppendUvarint(append(p, 0x30), uint64(size))
	p = append(binary.BigEndian.AppendUint16(p, uint16(len(topic))), topic...)
	return append(p, payload...)
}
