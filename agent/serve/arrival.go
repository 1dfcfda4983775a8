package serve

import (
	"context"
	"encoding/binary"
	"net"
	"sync"
	"sync/atomic"
	"time"

	grpcpeer "google.golang.org/grpc/peer"
)

// gRPC says how long a message is in its first five bytes, and its server then
// takes it whole, whatever else is under way. So the connections of gRPC are
// watched: memory for a large message is reserved when those bytes come. Where
// there is none they are overwritten by those of an empty message, and the call
// ends with that: no more of its message comes than the window of a stream.

const (
	prefixBytes  = 5  // a flag and a big-endian length
	prefaceBytes = 24 // of a client of HTTP/2
)

// emptied says that an empty message stands for one that was refused.
func emptied(ctx context.Context, m inbound) bool {
	p, ok := grpcpeer.FromContext(ctx)
	if !ok || m.buf == nil || m.buf.Len() > 0 {
		return false
	}
	a, ok := p.Addr.(watchedAddr)
	if !ok {
		return false
	}
	for {
		n := a.conn.refused.Load()
		if n == 0 {
			return false
		}
		if a.conn.refused.CompareAndSwap(n, n-1) {
			return true
		}
	}
}

// watchedAddr leads from a call to its connection.
type watchedAddr struct {
	net.Addr
	conn *arrival
}

// arrivals is a listener of watched connections.
type arrivals struct {
	net.Listener
	gate *gate
	max  int64         // longest message that the server takes
	slow time.Duration // a message that takes longer ends its connection
}

func (a *arrivals) Accept() (net.Conn, error) {
	conn, err := a.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &arrival{Conn: conn, from: a, in: frames{preface: prefaceBytes}, streams: map[uint32]*arriving{}}, nil
}

// arrival is one watched connection.
type arrival struct {
	net.Conn
	from    *arrivals
	refused atomic.Int64 // messages whose calls have not been told yet

	mu      sync.Mutex // guards all below
	in, out frames
	streams map[uint32]*arriving
}

// arriving is what is known of the message that comes on one stream.
type arriving struct {
	prefix  [prefixBytes]byte
	have    int   // bytes of prefix
	left    int64 // bytes of the message that are still to come
	refused bool
	held    *ticket // nil: the message is small
	late    *time.Timer
}

func (m *arriving) release() {
	if m.held != nil {
		m.held.drop()
		m.late.Stop()
		m.held = nil
	}
}

func (c *arrival) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.in.walk(b[:n], c.begins, c.comes, c.ends)
	if err != nil {
		c.forget()
	}
	return n, err
}

// Write looks for streams that the server ends: nobody waits for the rest of
// their messages.
func (c *arrival) Write(b []byte) (int, error) {
	c.mu.Lock()
	c.out.walk(b, func(f frame) {
		if f.ends() || f.kind == frameReset {
			c.drop(f.stream)
		}
	}, func(frame, []byte) {}, func(frame) {})
	c.mu.Unlock()
	return c.Conn.Write(b)
}

func (c *arrival) RemoteAddr() net.Addr { return watchedAddr{c.Conn.RemoteAddr(), c} }

func (c *arrival) Close() error {
	c.mu.Lock()
	c.forget()
	c.mu.Unlock()
	return c.Conn.Close()
}

func (c *arrival) forget() {
	for id := range c.streams {
		c.drop(id)
	}
}

func (c *arrival) drop(id uint32) {
	if m := c.streams[id]; m != nil {
		m.release()
		delete(c.streams, id)
	}
}

func (c *arrival) begins(f frame) {
	switch f.kind {
	case frameHeaders:
		if c.streams[f.stream] == nil && !f.ends() {
			c.streams[f.stream] = &arriving{}
		}
		if len(c.streams) > 2*maxStreams { // the server refuses streams from half of that on
			c.Conn.Close()
		}
	case frameReset:
		c.drop(f.stream)
	}
}

func (c *arrival) ends(f frame) {
	if f.ends() {
		c.drop(f.stream)
	}
}

// comes takes a piece of a stream's messages.
func (c *arrival) comes(f frame, b []byte) {
	m := c.streams[f.stream]
	for m != nil && !m.refused && len(b) > 0 {
		if m.left > 0 {
			n := min(m.left, int64(len(b)))
			b, m.left = b[n:], m.left-n
			if m.left == 0 {
				m.release() // who called RecvMsg reserves now what it has got
			}
			continue
		}
		n := copy(m.prefix[m.have:], b)
		at := b[:n]
		b = b[n:]
		if m.have += n; m.have < prefixBytes {
			return
		}
		m.have, m.left = 0, int64(binary.BigEndian.Uint32(m.prefix[1:]))
		if m.left <= grpcReserve || m.left > c.from.max || c.hold(m) {
			continue
		}
		m.refused = true
		if n < prefixBytes && (n < prefixBytes-1 || m.prefix[0] != 0) {
			c.Conn.Close() // a part of the prefix has been read already
			return
		}
		clear(at)
		c.refused.Add(1)
	}
}

// hold reserves memory for a message until it has come.
func (c *arrival) hold(m *arriving) bool {
	held := &ticket{gate: c.from.gate}
	if held.grow(m.left-grpcReserve) != nil {
		return false
	}
	m.held = held
	m.late = time.AfterFunc(c.from.slow, func() { c.Conn.Close() })
	return true
}
