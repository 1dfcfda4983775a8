package serve

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// splitter lets HTTP/1 and gRPC share the unix socket: a gRPC client begins
// with the preface of HTTP/2 (RFC 9113, 3.4), which no HTTP/1 request does.
type splitter struct {
	net.Listener
	http, grpc *branch
}

// prefaceStart tells HTTP/2 from every method of HTTP/1.
var prefaceStart = []byte("PRI ")

func newSplitter(l net.Listener) *splitter {
	branch := func() *branch { return &branch{addr: l.Addr(), conns: make(chan net.Conn), ended: make(chan struct{})} }
	return &splitter{l, branch(), branch()}
}

// serve hands connections on until ctx ends; its servers then drain them.
func (s *splitter) serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.Listener.Close() })
	defer stop()
	var sniffing sync.WaitGroup
	defer sniffing.Wait()
	pause := time.Duration(0)
	for {
		conn, err := s.Accept()
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil { // too many open files: it passes when clients leave
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			continue
		}
		pause = 0
		sniffing.Go(func() { s.hand(ctx, conn) })
	}
}

// hand reads the first bytes and gives the connection to its server.
func (s *splitter) hand(ctx context.Context, conn net.Conn) {
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Now()) })
	_ = conn.SetReadDeadline(time.Now().Add(headerTimeout)) // the read below reports a dead connection
	first := make([]byte, len(prefaceStart))
	n, err := io.ReadFull(conn, first)
	if !stop() || err != nil {
		conn.Close()
		return
	}
	_ = conn.SetReadDeadline(time.Time{})
	to := s.http
	if bytes.Equal(first, prefaceStart) {
		to = s.grpc
	}
	select {
	case to.conns <- &resumed{halved{conn}, first[:n]}:
	case <-to.ended:
		conn.Close()
	case <-ctx.Done():
		conn.Close()
	}
}

// resumed is a connection whose first bytes were read already.
type resumed struct {
	halved
	first []byte
}

func (r *resumed) Read(b []byte) (int, error) {
	if len(r.first) > 0 {
		n := copy(b, r.first)
		r.first = r.first[n:]
		return n, nil
	}
	return r.Conn.Read(b)
}

// branch is the listener of one of the two servers.
type branch struct {
	addr  net.Addr
	conns chan net.Conn
	once  sync.Once
	ended chan struct{}
}

func (b *branch) Accept() (net.Conn, error) {
	select {
	case conn := <-b.conns:
		return conn, nil
	case <-b.ended:
		return nil, net.ErrClosed
	}
}

func (b *branch) Close() error {
	b.once.Do(func() { close(b.ended) })
	return nil
}

func (b *branch) Addr() net.Addr { return b.addr }
