package peer

import (
	"net"
	"sync"
)

// Bounds of connections, before anybody has proved who they are. A site has tens
// of boxes, each with one connection to each other.
const (
	maxConns     = 256
	maxConnsEach = 8 // of one address: a machine of the site cannot take all
)

// limited is a listener that closes what comes beyond the bounds at once.
type limited struct {
	net.Listener

	mu    sync.Mutex // guards all below
	total int
	each  map[string]int
}

func limit(l net.Listener) *limited { return &limited{Listener: l, each: map[string]int{}} }

// Accept waits for a connection within the bounds.
func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		host, _, err := net.SplitHostPort(c.RemoteAddr().String())
		if err != nil {
			host = c.RemoteAddr().String()
		}
		if l.enter(host) {
			return &counted{Conn: c, left: sync.OnceFunc(func() { l.leave(host) })}, nil
		}
		c.Close()
	}
}

func (l *limited) enter(host string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total >= maxConns || l.each[host] >= maxConnsEach {
		return false
	}
	l.total++
	l.each[host]++
	return true
}

func (l *limited) leave(host string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if l.each[host]--; l.each[host] == 0 {
		delete(l.each, host)
	}
}

// counted is a connection that makes room when it is closed.
type counted struct {
	net.Conn
	left func()
}

func (c *counted) Close() error {
	c.left()
	return c.Conn.Close()
}
