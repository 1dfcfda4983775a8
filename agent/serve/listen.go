package serve

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Bounds on idle and slow clients. Bodies and answers of inference have their
// own deadlines, by Options.Timeout; writeTimeout, longer than any probe of a
// candidate, is for a client that asks for more and more and reads nothing.
const (
	writeTimeout   = 15 * time.Minute
	headerTimeout  = 10 * time.Second
	idleTimeout    = 2 * time.Minute
	maxHeaderBytes = 64 << 10
)

// server answers on one open address until ctx ends and what is under way is done.
type server interface {
	net.Listener
	serve(ctx context.Context) error
}

// listener is one open address with its handler.
type listener struct {
	net.Listener
	handler  http.Handler
	log      *slog.Logger
	patience time.Duration // with the body of a request
}

// listen opens TCP and the socket, or neither.
func (s *Server) listen(ctx context.Context) (open []server, err error) {
	defer func() {
		if err != nil {
			for _, l := range open {
				l.Close()
			}
			open = nil
		}
	}()
	if s.opts.HTTP != "" {
		l, err := s.listenTCP(ctx, s.opts.HTTP, "http")
		if err != nil {
			return open, err
		}
		open = append(open, listener{l, s.hosts(s.routes(s.opts.Repository)), s.log, s.opts.Timeout})
		s.log.Info("serving", "addr", l.Addr().String())
		s.warnOpen(l.Addr())
	}
	if s.opts.GRPC != "" {
		l, err := s.listenTCP(ctx, s.opts.GRPC, "grpc")
		if err != nil {
			return open, err
		}
		open = append(open, s.newGRPC(l, s.opts.Repository))
		s.log.Info("serving gRPC", "addr", l.Addr().String())
		s.warnOpen(l.Addr())
	}
	if s.opts.Socket != "" {
		l, err := listenSocket(ctx, s.opts.Socket)
		if err != nil {
			return open, err
		}
		mux := s.routes(true)
		s.edgeRoutes(mux)
		split := newSplitter(l)
		open = append(open, listener{split.http, mux, s.log, s.opts.Timeout}, s.newGRPC(split.grpc, true), split)
		s.log.Info("serving", "addr", s.opts.Socket)
	}
	return open, nil
}

// listenTCP opens a port that a key of runner.yaml names, as the flag of that
// name does.
func (s *Server) listenTCP(ctx context.Context, address, key string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("listen on %s: another program has this port (%w); stop it, or choose another with `%s:` in runner.yaml or --%s", address, err, key, key)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s (`%s:` in runner.yaml): %w", address, key, err)
	}
	return bounded{l, &s.lobby}, nil
}

// warnOpen tells of a port that other machines reach: nobody is asked who they are.
func (s *Server) warnOpen(a net.Addr) {
	if tcp, ok := a.(*net.TCPAddr); ok && !tcp.IP.IsLoopback() {
		s.log.Warn("anyone on the network may use the models: there is no authentication", "addr", a.String())
	}
}

// listenSocket replaces a socket that a killed runner left behind, and nothing
// else: neither a socket that somebody serves nor a file of another kind.
func listenSocket(ctx context.Context, path string) (net.Listener, error) {
	const way = "choose another with `socket:` in runner.yaml or --socket"
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	case info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("listen on %s: there is something that is not a socket; remove it, or %s", path, way)
	default:
		conn, err := net.DialTimeout("unix", path, time.Second)
		if err == nil {
			conn.Close()
			return nil, fmt.Errorf("listen on %s: another runner serves there; stop it, or %s", path, way)
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return nil, fmt.Errorf("listen on %s: %w", path, err)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("remove stale socket: %w", err)
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("listen on %s: %w; %s", path, err, way)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w; %s", path, err, way)
	}
	// Owner and group: the agent runs as the same user or shares the group.
	if err := os.Chmod(path, 0o660); err != nil {
		l.Close()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return l, nil
}

// serve answers until ctx ends and requests under way are done.
func (l listener) serve(ctx context.Context) error {
	srv := &http.Server{
		Handler: survives(l.log, l.patience, l.handler), ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, WriteTimeout: writeTimeout,
		MaxHeaderBytes: maxHeaderBytes, ErrorLog: slog.NewLogLogger(l.log.Handler(), slog.LevelDebug),
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l.Listener) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
	defer cancel()
	if err := srv.Shutdown(grace); err != nil {
		l.log.Warn("requests did not end in time", "took", shutdownGrace, "err", err)
		_ = srv.Close() // nothing is left to say
	}
	<-ended
	return nil
}
