package serve

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// lobby bounds the connections that are open on TCP. One too many is closed at
// once: that tells its client more than a connection that nobody answers.
type lobby struct {
	max     int64
	open    atomic.Int64
	refused atomic.Int64
}

// bounded is a listener with a lobby.
type bounded struct {
	net.Listener
	lobby *lobby
}

func (l bounded) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.lobby.open.Add(1) <= l.lobby.max {
			return &counted{halved: halved{conn}, leave: sync.OnceFunc(func() { l.lobby.open.Add(-1) })}, nil
		}
		l.lobby.open.Add(-1)
		l.lobby.refused.Add(1)
		_ = conn.Close()
	}
}

// counted is a connection in a lobby.
type counted struct {
	halved
	leave func()
}

func (c *counted) Close() error {
	c.leave()
	return c.Conn.Close()
}

// halved is a connection that shows net/http how to end its side first, so that
// a client that still sends can read why it is refused.
type halved struct{ net.Conn }

func (h halved) CloseWrite() error {
	if c, ok := h.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

// hosts refuses requests for a name that is not this box's: a page in a browser
// can make its own name lead here (DNS rebinding), and would then be let in as
// if it came from here.
func (s *Server) hosts(next http.Handler) http.Handler {
	known := slices.Clone(s.opts.Hosts)
	if own, err := os.Hostname(); err == nil {
		short, _, _ := strings.Cut(own, ".")
		known = append(known, own, short, short+".local")
	}
	known = append(known, "localhost", "")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		host = strings.TrimSuffix(strings.ToLower(strings.Trim(host, "[]")), ".")
		if net.ParseIP(host) == nil && !slices.ContainsFunc(known, func(k string) bool { return strings.EqualFold(k, host) }) {
			writeError(w, faultf(http.StatusMisdirectedRequest, "this box is not %.100q: ask by its address or host name, or add the name to `hosts:` in runner.yaml", host))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// survives makes a panic an error of the one request that it came up in, and
// bounds how long its body may take to come.
func survives(log *slog.Logger, patience time.Duration, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen := &begun{ResponseWriter: w}
		if r.ContentLength != 0 {
			control, body := http.NewResponseController(w), r.Body
			_ = control.SetReadDeadline(time.Now().Add(patience))
			r.Body = &timed{body, control}
			// Of a body of its own net/http knows whether the rest need not be waited for:
			// since it is too long, or since the client asks first (Expect: 100-continue).
			defer func() { r.Body = body }()
		}
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if p == http.ErrAbortHandler || seen.any {
				panic(p) // net/http ends the connection: half an answer must not pass for one
			}
			log.Error("request failed by a fault of ours", "path", r.URL.Path, "err", p, "stack", string(debug.Stack()))
			writeError(w, faultf(http.StatusInternalServerError, "this request met a fault of the runner, which its log describes"))
		}()
		next.ServeHTTP(seen, r)
	})
}

// errSlowBody is what a client hears whose body takes too long (RFC 9110, 15.5.9).
var errSlowBody = errors.New("it did not come whole in time")

// timed is a body with a deadline. net/http reads what the handler leaves of
// one before it answers, an error too: without the deadline, a client that never
// sends the rest would keep its connection for ever.
type timed struct {
	io.ReadCloser
	control *http.ResponseController
}

func (a *timed) Read(p []byte) (int, error) {
	n, err := a.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		// Else the server would take the deadline for a lost client.
		_ = a.control.SetReadDeadline(time.Time{})
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = errSlowBody
	}
	return n, err
}

// begun knows whether an answer has begun.
type begun struct {
	http.ResponseWriter
	any bool
}

func (b *begun) WriteHeader(status int) {
	b.any = true
	b.ResponseWriter.WriteHeader(status)
}

func (b *begun) Write(p []byte) (int, error) {
	b.any = true
	return b.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (b *begun) Unwrap() http.ResponseWriter { return b.ResponseWriter }

// caught is survives for gRPC; called by defer.
func caught(log *slog.Logger, err *error) {
	if p := recover(); p != nil {
		log.Error("call failed by a fault of ours", "err", fmt.Sprint(p), "stack", string(debug.Stack()))
		*err = status.Error(codes.Internal, "this call met a fault of the runner, which its log describes")
	}
}

// messageTime is how long one message of gRPC may take to come: longer than
// its call may, so that the call ends first where there is one.
func (o Options) messageTime() time.Duration { return o.Timeout + 5*time.Second }
