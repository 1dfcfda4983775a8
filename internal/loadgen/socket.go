package loadgen

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// errWait says that a socket has nothing to read now. crypto/tls goes on after
// an error that is temporary, and stays broken after any other.
var errWait error = waitError{}

type waitError struct{}

func (waitError) Error() string   { return "nothing to read now" }
func (waitError) Timeout() bool   { return true }
func (waitError) Temporary() bool { return true }

// maxBacklog bounds what a socket keeps that the kernel would not take.
const maxBacklog = 1 << 20

// socket is a non-blocking TCP connection without the runtime's poller, of
// which 10,000 would cost memory and a goroutine each. Until attend is called
// it blocks, with a deadline; then Read gives errWait, and Write keeps what the
// kernel does not take for flush.
type socket struct {
	fd       int
	async    bool
	deadline time.Time
	backlog  []byte
}

// dial connects from source, or from any address when source is not valid.
func dial(to netip.AddrPort, source netip.Addr, deadline time.Time) (_ *socket, err error) {
	family := unix.AF_INET
	if to.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open socket: %w", err)
	}
	s := &socket{fd: fd, deadline: deadline}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) // or it is a little slower
	if source.IsValid() {
		// The port is chosen when the other end is known: 28,000 for each pair
		// of addresses instead of 28,000 in all.
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
			return nil, fmt.Errorf("bind to %s: %w", source, err)
		}
		if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(source, 0))); err != nil {
			return nil, fmt.Errorf("bind to %s: %w", source, err)
		}
	}
	if err := unix.Connect(fd, sockaddr(to)); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return nil, fmt.Errorf("connect to %s: %w", to, err)
	}
	if err := s.wait(unix.POLLOUT); err != nil {
		return nil, fmt.Errorf("connect to %s: %w", to, err)
	}
	if code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || code != 0 {
		return nil, fmt.Errorf("connect to %s: %w", to, errors.Join(err, unix.Errno(code)))
	}
	return s, nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is6() {
		return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	}
	return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
}

// wait blocks this thread until the socket is ready or the deadline has passed.
func (s *socket) wait(events int16) error {
	for {
		left := time.Until(s.deadline)
		if left <= 0 {
			return os.ErrDeadlineExceeded
		}
		fds := []unix.PollFd{{Fd: int32(s.fd), Events: events}}
		n, err := unix.Poll(fds, int(left.Milliseconds())+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("poll: %w", err)
		}
		if n > 0 {
			return nil
		}
	}
}

func (s *socket) Read(p []byte) (int, error) {
	for {
		n, err := unix.Read(s.fd, p)
		switch {
		case n > 0:
			return n, nil
		case n == 0 && err == nil:
			return 0, io.EOF
		case errors.Is(err, unix.EINTR):
		case !errors.Is(err, unix.EAGAIN):
			return 0, fmt.Errorf("read: %w", err)
		case s.async:
			return 0, errWait
		default:
			if err := s.wait(unix.POLLIN); err != nil {
				return 0, err
			}
		}
	}
}

// Write takes all of p or fails.
func (s *socket) Write(p []byte) (int, error) {
	done := 0
	if len(s.backlog) == 0 {
		for done < len(p) {
			n, err := unix.Write(s.fd, p[done:])
			done += max(n, 0)
			switch {
			case err == nil || errors.Is(err, unix.EINTR):
				continue
			case !errors.Is(err, unix.EAGAIN):
				return done, fmt.Errorf("write: %w", err)
			case !s.async:
				if err := s.wait(unix.POLLOUT); err != nil {
					return done, err
				}
				continue
			}
			break
		}
	}
	if done < len(p) {
		if len(s.backlog)+len(p)-done > maxBacklog {
			return done, errors.New("write: the controller does not read")
		}
		s.backlog = append(s.backlog, p[done:]...)
	}
	return len(p), nil
}

// flush writes what was kept.
func (s *socket) flush() error {
	kept := s.backlog
	s.backlog = nil
	_, err := s.Write(kept)
	return err
}

// attend makes the socket ready for a shard.
func (s *socket) attend() { s.async = true }

// reset makes Close break the connection off, as a box that loses power does.
func (s *socket) reset() {
	_ = unix.SetsockoptLinger(s.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}

// Close implements net.Conn. It may be called twice.
func (s *socket) Close() error {
	if s.fd < 0 {
		return nil
	}
	fd := s.fd
	s.fd = -1
	return unix.Close(fd)
}

// SetDeadline bounds what blocks.
func (s *socket) SetDeadline(t time.Time) error {
	s.deadline = t
	return nil
}

// The rest of net.Conn, which crypto/tls does not use on a client's side.

func (s *socket) SetReadDeadline(t time.Time) error  { return s.SetDeadline(t) }
func (s *socket) SetWriteDeadline(t time.Time) error { return s.SetDeadline(t) }
func (s *socket) LocalAddr() net.Addr                { return nil }
func (s *socket) RemoteAddr() net.Addr               { return nil }
