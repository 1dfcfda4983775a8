// Package balancer learns from a TCP balancer who is behind it, by the PROXY
// protocol, versions 1 and 2 (haproxy.org, proxy-protocol.txt).
//
// Without it every box has the address of the balancer, and what one of them
// does wrong is held against all: an address from which rules are broken shakes
// hands slowly.
//
// A header is read from trusted addresses alone. From any other it is what it
// looks like, bytes that are no TLS. The address in it proves nothing but where
// a connection came from: who somebody is, is the business of certificates.
//
// The one rule a caller can break: trust no address from which others than the
// balancer can connect. They could be anybody's address then.
package balancer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/pires/go-proxyproto"
)

const (
	// headerWait bounds the wait for a header, which a balancer sends at once.
	headerWait = 5 * time.Second
	// maxWaiting bounds the connections whose header has not come.
	maxWaiting = 1024
	// sayAgain is how long the log is silent after a connection without header.
	sayAgain = time.Hour
)

// Options of a Listener.
type Options struct {
	// Trusted are the addresses of balancers. Connections from others are passed
	// on as they are.
	Trusted []netip.Prefix
	// Optional passes on a connection from a trusted address that begins with
	// something else than a header. Default: it is refused, and the log says so.
	Optional bool
}

// Listener gives connections whose RemoteAddr is that of the client. Accept
// waits until Run runs.
type Listener struct {
	net.Listener
	opts  Options
	log   *slog.Logger
	ready chan accepted
	ended chan struct{} // closed when Run has ended

	mu   sync.Mutex // guards said
	said time.Time
}

type accepted struct {
	conn net.Conn
	err  error
}

// New prepares a listener. Closing it closes l.
func New(l net.Listener, opts Options, log *slog.Logger) *Listener {
	return &Listener{Listener: l, opts: opts, log: log, ready: make(chan accepted), ended: make(chan struct{})}
}

// Run takes in connections until ctx ends or the listener is closed.
func (l *Listener) Run(ctx context.Context) error {
	defer close(l.ended)
	stop := context.AfterFunc(ctx, func() { l.Listener.Close() })
	defer stop()
	// A listener that is closed ends those that wait, too.
	ctx, cancel := context.WithCancel(ctx)
	var reading sync.WaitGroup
	defer reading.Wait()
	defer cancel()
	places := make(chan struct{}, maxWaiting)
	for {
		conn, err := l.Listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed) || ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case err != nil || !l.trusts(conn.RemoteAddr()):
			l.pass(ctx, accepted{conn, err})
			continue
		}
		select {
		case places <- struct{}{}:
		default:
			conn.Close()
			continue
		}
		reading.Go(func() {
			defer func() { <-places }()
			if c := l.introduce(ctx, conn); c != nil {
				l.pass(ctx, accepted{c, nil})
			}
		})
	}
}

func (l *Listener) pass(ctx context.Context, a accepted) {
	select {
	case l.ready <- a:
	case <-ctx.Done():
		if a.conn != nil {
			a.conn.Close()
		}
	}
}

// Accept returns a connection whose client is known.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case a := <-l.ready:
		return a.conn, a.err
	case <-l.ended:
		return nil, fmt.Errorf("accept on %s: %w", l.Addr(), net.ErrClosed)
	}
}

func (l *Listener) trusts(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return false
	}
	from := tcp.AddrPort().Addr().Unmap().WithZone("")
	return slices.ContainsFunc(l.opts.Trusted, func(p netip.Prefix) bool { return p.Contains(from) })
}

// introduce reads the header of a balancer; nil means that the connection is
// closed.
func (l *Listener) introduce(ctx context.Context, c net.Conn) net.Conn {
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	b := &behind{Conn: c, first: bufio.NewReaderSize(c, 256), from: c.RemoteAddr()}
	err := c.SetReadDeadline(time.Now().Add(headerWait))
	if err == nil {
		err = b.introduce()
	}
	if errors.Is(err, proxyproto.ErrNoProxyProtocol) && l.opts.Optional {
		err = nil
	}
	if err == nil {
		err = c.SetReadDeadline(time.Time{})
	}
	if err == nil {
		return b
	}
	defer c.Close()
	// A balancer that looks whether somebody is there says nothing, and goes.
	var silent net.Error
	gone := errors.As(err, &silent) || errors.Is(err, proxyproto.ErrNoProxyProtocol) && b.first.Buffered() == 0
	if !gone {
		l.tell(c.RemoteAddr(), err)
	}
	return nil
}

func (l *Listener) tell(from net.Addr, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.said.IsZero() && time.Since(l.said) < sayAgain {
		return
	}
	l.said = time.Now()
	l.log.Warn("connection of a balancer refused: let it send the PROXY protocol (send-proxy-v2 in HAProxy), or take it out of proxy_protocol",
		"addr", l.Addr().String(), "remote", from.String(), "err", err)
}

// behind is a connection of somebody behind a balancer.
type behind struct {
	net.Conn
	first *bufio.Reader // what came with the header; nil once it was read
	from  net.Addr
}

// introduce reads the header. What a balancer says on its own behalf, or of
// something that is not TCP, leaves the address as it is.
func (b *behind) introduce() error {
	h, err := proxyproto.Read(b.first)
	if err != nil {
		return err
	}
	if source, _, ok := h.TCPAddrs(); ok && h.Command.IsProxy() {
		b.from = source
	}
	return nil
}

// RemoteAddr is that of the client.
func (b *behind) RemoteAddr() net.Addr { return b.from }

func (b *behind) Read(p []byte) (int, error) {
	if b.first == nil {
		return b.Conn.Read(p)
	}
	n, err := b.first.Read(p)
	if b.first.Buffered() == 0 {
		b.first = nil
	}
	return n, err
}
