package memnet

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// conn is one end of a connection.
type conn struct {
	net           *Network // never changes
	local, remote Addr     // never change
	in, out       *pipe    // never change

	hole atomic.Bool // the link swallows what is written now
	lost atomic.Bool // it has swallowed something: this direction is dead
	once sync.Once
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.in.read(b)
	return n, c.wrap("read", err)
}

func (c *conn) Write(b []byte) (int, error) {
	if c.swallows() {
		return len(b), c.wrap("write", c.out.refusal())
	}
	n, err := c.out.write(b, c.net.delay())
	return n, c.wrap("write", err)
}

// swallows reports whether bytes written now vanish, and remembers it.
func (c *conn) swallows() bool {
	if c.hole.Load() {
		c.lost.Store(true)
	}
	return c.lost.Load()
}

// Close ends both directions. Over a blackhole the peer does not learn of it.
func (c *conn) Close() error {
	c.once.Do(func() {
		c.net.forget(c)
		c.in.fail(net.ErrClosed, nil)
		if !c.swallows() {
			c.out.end(c.net.delay())
		}
		c.out.fail(nil, net.ErrClosed)
	})
	return nil
}

// reset ends the connection for both sides at once.
func (c *conn) reset() {
	c.net.forget(c)
	c.in.fail(syscall.ECONNRESET, syscall.ECONNRESET)
	c.out.fail(syscall.ECONNRESET, syscall.ECONNRESET)
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) SetDeadline(t time.Time) error {
	c.in.readDeadline.set(t)
	c.out.writeDeadline.set(t)
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.in.readDeadline.set(t)
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.out.writeDeadline.set(t)
	return nil
}

func (c *conn) wrap(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return &net.OpError{Op: op, Net: "mem", Source: c.local, Addr: c.remote, Err: err}
}

// pipe is one direction: chunks with the time at which they arrive.
type pipe struct {
	readDeadline, writeDeadline *deadline // never change

	mu       sync.Mutex
	chunks   []chunk
	size     int
	hasEnd   bool // the writer closed; EOF arrives at endsAt
	endsAt   time.Time
	readErr  error         // what readers get, at once
	writeErr error         // what writers get
	changed  chan struct{} // closed and replaced at every change
}

type chunk struct {
	data []byte
	at   time.Time
}

func newPipe() *pipe {
	return &pipe{readDeadline: newDeadline(), writeDeadline: newDeadline(), changed: make(chan struct{})}
}

func (p *pipe) wakeLocked() {
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *pipe) read(b []byte) (int, error) {
	for {
		p.mu.Lock()
		n, wait, err := p.readLocked(b)
		changed := p.changed
		p.mu.Unlock()
		if n > 0 || err != nil {
			return n, err
		}
		if len(b) == 0 {
			return 0, nil
		}
		if err := p.readDeadline.wait(changed, wait); err != nil {
			return 0, err
		}
	}
}

// readLocked returns how long the next bytes still travel; 0 means not known.
func (p *pipe) readLocked(b []byte) (n int, wait time.Duration, err error) {
	if p.readErr != nil {
		return 0, 0, p.readErr
	}
	now := time.Now()
	for len(p.chunks) > 0 && n < len(b) {
		head := &p.chunks[0]
		if d := head.at.Sub(now); d > 0 {
			return n, d, nil
		}
		k := copy(b[n:], head.data)
		n += k
		p.size -= k
		if head.data = head.data[k:]; len(head.data) == 0 {
			p.chunks = p.chunks[1:]
		}
	}
	if n > 0 {
		p.wakeLocked()
		return n, 0, nil
	}
	if p.hasEnd && len(p.chunks) == 0 {
		if d := p.endsAt.Sub(now); d > 0 {
			return 0, d, nil
		}
		return 0, 0, io.EOF
	}
	return 0, 0, nil
}

func (p *pipe) write(b []byte, latency time.Duration) (int, error) {
	written := 0
	for {
		p.mu.Lock()
		if err := p.refusalLocked(); err != nil {
			p.mu.Unlock()
			return written, err
		}
		if room := bufferBytes - p.size; room > 0 && written < len(b) {
			k := min(room, len(b)-written)
			p.chunks = append(p.chunks, chunk{append([]byte(nil), b[written:written+k]...), p.arrivalLocked(latency)})
			p.size += k
			written += k
			p.wakeLocked()
		}
		changed := p.changed
		p.mu.Unlock()
		if written == len(b) {
			return written, nil
		}
		if err := p.writeDeadline.wait(changed, 0); err != nil {
			return written, err
		}
	}
}

// arrivalLocked keeps bytes in order when the latency shrinks.
func (p *pipe) arrivalLocked(latency time.Duration) time.Time {
	at := time.Now().Add(latency)
	if n := len(p.chunks); n > 0 && p.chunks[n-1].at.After(at) {
		return p.chunks[n-1].at
	}
	return at
}

// refusal is why a write fails now, without regard to room.
func (p *pipe) refusal() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.writeErr != nil {
		return p.writeErr
	}
	return p.writeDeadline.expired()
}

func (p *pipe) refusalLocked() error {
	if p.writeErr != nil {
		return p.writeErr
	}
	if p.readErr != nil { // the peer closed: its kernel answers with a reset
		return syscall.ECONNRESET
	}
	return p.writeDeadline.expired()
}

func (p *pipe) end(latency time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hasEnd, p.endsAt = true, p.arrivalLocked(latency)
	p.wakeLocked()
}

// fail sets what readers and writers get from now on; the first error stays.
func (p *pipe) fail(read, write error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.readErr == nil && read != nil {
		p.readErr = read
		p.chunks, p.size = nil, 0
	}
	if p.writeErr == nil {
		p.writeErr = write
	}
	p.wakeLocked()
}

// deadline is a time at which waiting ends, and may be moved while waiting.
type deadline struct {
	mu      sync.Mutex
	at      time.Time
	changed chan struct{}
}

func newDeadline() *deadline { return &deadline{changed: make(chan struct{})} }

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at = t
	close(d.changed)
	d.changed = make(chan struct{})
}

func (d *deadline) expired() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.at.IsZero() && !time.Now().Before(d.at) {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// wait returns nil when changed fires, the deadline moved or after a positive
// limit, and an error when the deadline has passed.
func (d *deadline) wait(changed <-chan struct{}, limit time.Duration) error {
	d.mu.Lock()
	at, moved := d.at, d.changed
	d.mu.Unlock()
	var expire, arrive <-chan time.Time
	if !at.IsZero() {
		left := time.Until(at)
		if left <= 0 {
			return os.ErrDeadlineExceeded
		}
		t := time.NewTimer(left)
		defer t.Stop()
		expire = t.C
	}
	if limit > 0 {
		t := time.NewTimer(limit)
		defer t.Stop()
		arrive = t.C
	}
	select {
	case <-changed:
		return nil
	case <-moved:
		return nil
	case <-arrive:
		return nil
	case <-expire:
		return os.ErrDeadlineExceeded
	}
}
