// Package memnet is a network in memory for tests, made to be broken: links
// can be cut, healed, blackholed and slowed down.
//
// Everything blocks on channels and timers only, so that a testing/synctest
// bubble can see that all is quiet and let its clock run; a real socket would
// stall the bubble. TLS runs over it. Vocabulary: a host is the part of an
// address before the colon; a link joins two hosts.
//
//   - Cut resets the connections of a link and refuses new ones, as a router
//     that answers "unreachable" does.
//   - Blackhole lets bytes, and the end of a connection, vanish without a word,
//     as a dead modem does. A connection that lost bytes stays dead after Heal,
//     for TCP never delivers a stream with a hole in it.
//
// The one rule a caller can break: make the Network, its connections and its
// timers inside the bubble that uses them.
package memnet

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"
)

// bufferBytes is what one direction of a connection holds before writers
// wait: about a TCP window. Unbuffered pipes deadlock peers that both write.
const bufferBytes = 256 << 10

type linkState uint8

const (
	linkUp linkState = iota
	linkCut
	linkHole
)

// Network joins hosts. All are linked until something is cut.
type Network struct {
	mu        sync.Mutex
	listeners map[string]*listener
	links     map[[2]string]linkState // keys sorted; absent is up
	hosts     map[string]linkState    // as links, for all links of a host
	latency   time.Duration
	conns     map[*conn]struct{}
}

// New returns a network without hosts; they exist by being named.
func New() *Network {
	return &Network{
		listeners: map[string]*listener{},
		links:     map[[2]string]linkState{},
		hosts:     map[string]linkState{},
		conns:     map[*conn]struct{}{},
	}
}

// SetLatency sets the time that bytes written from now on take one way.
func (n *Network) SetLatency(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.latency = d
}

// Listen waits for connections to addr, "host:port".
func (n *Network) Listen(addr string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners[addr] != nil {
		return nil, &net.OpError{Op: "listen", Net: "mem", Addr: Addr(addr), Err: syscall.EADDRINUSE}
	}
	l := &listener{net: n, addr: Addr(addr), accept: make(chan *conn), closed: make(chan struct{})}
	n.listeners[addr] = l
	return l, nil
}

// Dial connects the host from to addr. Over a blackholed link it waits until
// ctx ends.
func (n *Network) Dial(ctx context.Context, from, addr string) (net.Conn, error) {
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "mem", Source: Addr(from), Addr: Addr(addr), Err: err}
	}
	n.mu.Lock()
	state, l, latency := n.stateLocked(from, addr), n.listeners[addr], n.latency
	n.mu.Unlock()
	switch {
	case state == linkHole:
		<-ctx.Done()
		return fail(ctx.Err())
	case state == linkCut:
		return fail(syscall.ENETUNREACH)
	case l == nil:
		return fail(syscall.ECONNREFUSED)
	}
	if err := sleep(ctx, 2*latency); err != nil {
		return fail(err)
	}
	near, far := n.pair(from, addr)
	select {
	case l.accept <- far:
		return near, nil
	case <-l.closed:
		near.reset()
		return fail(syscall.ECONNREFUSED)
	case <-ctx.Done():
		near.reset()
		return fail(ctx.Err())
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Cut resets the connections between two hosts and refuses new ones.
func (n *Network) Cut(from, addr string) { n.setLink(from, addr, linkCut) }

// Blackhole lets everything between two hosts vanish.
func (n *Network) Blackhole(from, addr string) { n.setLink(from, addr, linkHole) }

// Heal repairs the link between two hosts.
func (n *Network) Heal(from, addr string) { n.setLink(from, addr, linkUp) }

// CutAll cuts every link of a host.
func (n *Network) CutAll(host string) { n.setHost(host, linkCut) }

// BlackholeAll blackholes every link of a host.
func (n *Network) BlackholeAll(host string) { n.setHost(host, linkHole) }

// HealAll undoes CutAll and BlackholeAll of a host.
func (n *Network) HealAll(host string) { n.setHost(host, linkUp) }

func (n *Network) setLink(from, addr string, state linkState) {
	n.mu.Lock()
	n.links[linkKey(from, addr)] = state
	n.mu.Unlock()
	n.apply()
}

func (n *Network) setHost(host string, state linkState) {
	n.mu.Lock()
	n.hosts[hostOf(host)] = state
	n.mu.Unlock()
	n.apply()
}

// apply resets what is cut and marks what lost bytes may now happen to.
func (n *Network) apply() {
	n.mu.Lock()
	var cut []*conn
	for c := range n.conns {
		switch n.stateLocked(string(c.local), string(c.remote)) {
		case linkCut:
			cut = append(cut, c)
		case linkHole:
			c.hole.Store(true)
		case linkUp:
			c.hole.Store(false)
		}
	}
	n.mu.Unlock()
	for _, c := range cut {
		c.reset()
	}
}

func (n *Network) stateLocked(a, b string) linkState {
	state := n.links[linkKey(a, b)]
	return max(state, n.hosts[hostOf(a)], n.hosts[hostOf(b)])
}

func (n *Network) pair(from, addr string) (near, far *conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	up, down := newPipe(), newPipe()
	near = &conn{net: n, local: Addr(from), remote: Addr(addr), in: down, out: up}
	far = &conn{net: n, local: Addr(addr), remote: Addr(from), in: up, out: down}
	n.conns[near], n.conns[far] = struct{}{}, struct{}{}
	return near, far
}

func (n *Network) forget(c *conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, c)
}

func (n *Network) delay() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.latency
}

func hostOf(addr string) string {
	host, _, _ := strings.Cut(addr, ":")
	return host
}

func linkKey(a, b string) [2]string {
	a, b = hostOf(a), hostOf(b)
	return [2]string{min(a, b), max(a, b)}
}

// Addr is an address of the network.
type Addr string

// Network names the kind of network.
func (Addr) Network() string { return "mem" }

func (a Addr) String() string { return string(a) }

type listener struct {
	net    *Network
	addr   Addr
	accept chan *conn
	closed chan struct{}
	once   sync.Once
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.accept:
		return c, nil
	case <-l.closed:
		return nil, fmt.Errorf("accept %s: %w", l.addr, net.ErrClosed)
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		l.net.mu.Lock()
		delete(l.net.listeners, string(l.addr))
		l.net.mu.Unlock()
		close(l.closed)
	})
	return nil
}

func (l *listener) Addr() net.Addr { return l.addr }
