package loadgen

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/edgeherd/edgeherd/internal/wire"
)

// link is one connection.
type link struct {
	sock *socket
	tls  *tls.Conn // nil: plain
	rest []byte    // a packet that is not whole
}

func (l *link) Read(p []byte) (int, error) {
	if l.tls != nil {
		return l.tls.Read(p)
	}
	return l.sock.Read(p)
}

func (l *link) Write(p []byte) (int, error) {
	if l.tls != nil {
		return l.tls.Write(p)
	}
	return l.sock.Write(p)
}

// shard serves a share of the devices. All but the mailbox belongs to the
// goroutine in run.
type shard struct {
	*engine
	queue  *queue
	epoll  int
	wakeup int                // eventfd: the mailbox has something
	orders map[wire.Key]order // desired states whose report is on its way
	in     []byte             // what was read last
	out    []byte             // what the device at hand will send
	making bool

	mu   sync.Mutex // guards mail
	mail []func(now int64)
}

func newShard(e *engine, devices []device) (*shard, error) {
	s := &shard{engine: e, queue: newQueue(devices), epoll: -1, wakeup: -1, in: make([]byte, 32<<10)}
	var err error
	if s.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("create epoll: %w", err)
	}
	if s.wakeup, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		s.close()
		return nil, fmt.Errorf("create eventfd: %w", err)
	}
	if err := unix.EpollCtl(s.epoll, unix.EPOLL_CTL_ADD, s.wakeup, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: -1}); err != nil {
		s.close()
		return nil, fmt.Errorf("watch eventfd: %w", err)
	}
	return s, nil
}

func (s *shard) close() {
	for _, fd := range []int{s.epoll, s.wakeup} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// post has f called on the shard's goroutine.
func (s *shard) post(f func(now int64)) {
	s.mu.Lock()
	s.mail = append(s.mail, f)
	s.mu.Unlock()
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	// EAGAIN: the counter is full, so the shard is about to wake anyway.
	_, _ = unix.Write(s.wakeup, one[:])
}

// run serves until stop was posted; it has then closed every connection.
func (s *shard) run(stopped *bool) error {
	events := make([]unix.EpollEvent, 256)
	for !*stopped {
		wait := -1
		if due := s.queue.first().due; due != never {
			wait = int(max(0, (due-s.now())/1e6)) + 1
		}
		n, err := unix.EpollWait(s.epoll, events, wait)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for connections: %w", err)
		}
		for i := range max(n, 0) {
			if events[i].Fd < 0 {
				s.readMail()
				continue
			}
			d := &s.queue.all[events[i].Fd]
			if uint32(events[i].Pad) != d.conn || d.link == nil {
				continue // of a connection that has ended meanwhile
			}
			s.serve(d, events[i].Events)
			s.queue.settle(d)
		}
		for now := s.now(); s.queue.first().due <= now; {
			d := s.queue.first()
			s.tick(d, now)
			if d.nextDue() <= now {
				panic(fmt.Sprintf("loadgen: device %s in state %d is due for ever", d.id, d.state))
			}
			s.queue.settle(d)
		}
	}
	return nil
}

func (s *shard) readMail() {
	var buf [8]byte
	_, _ = unix.Read(s.wakeup, buf[:])
	s.mu.Lock()
	mail := s.mail
	s.mail = nil
	s.mu.Unlock()
	now := s.now()
	for _, f := range mail {
		f(now)
	}
}

// watch registers or changes what epoll tells of a device.
func (s *shard) watch(d *device, op int) error {
	events := uint32(unix.EPOLLIN | unix.EPOLLRDHUP)
	if len(d.link.sock.backlog) > 0 {
		events |= unix.EPOLLOUT
	}
	return unix.EpollCtl(s.epoll, op, d.link.sock.fd, &unix.EpollEvent{Events: events, Fd: s.index(d), Pad: int32(d.conn)})
}

// index is the place of a device in the shard.
func (s *shard) index(d *device) int32 { return s.queue.order[d.place] }

// serve reads what came and answers.
func (s *shard) serve(d *device, events uint32) {
	if events&unix.EPOLLOUT != 0 {
		err := d.link.sock.flush()
		if err == nil {
			err = s.watch(d, unix.EPOLL_CTL_MOD)
		}
		if err != nil {
			s.drop(d, err)
			return
		}
	}
	for {
		n, err := d.link.Read(s.in)
		if errors.Is(err, errWait) {
			break
		}
		if err == nil {
			err = s.take(d, s.in[:n])
		} else if errors.Is(err, io.EOF) {
			err = errors.New("the controller ended the connection")
		}
		if err != nil {
			s.drop(d, err)
			return
		}
		if d.link == nil { // a fault
			return
		}
	}
	s.flush(d)
}

// take handles the packets in data and keeps what is not whole.
func (s *shard) take(d *device, data []byte) error {
	if len(d.link.rest) > 0 {
		data = append(d.link.rest, data...)
	}
	for len(data) > 0 {
		p, n, err := nextPacket(data)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		if err := s.handle(d, p); err != nil {
			return err
		}
		if d.link == nil {
			return nil
		}
		data = data[n:]
	}
	d.link.rest = append([]byte(nil), data...) // nil for nothing
	return nil
}

// flush sends what the device has to say.
func (s *shard) flush(d *device) {
	if len(s.out) == 0 {
		return
	}
	before := len(d.link.sock.backlog)
	_, err := d.link.Write(s.out)
	s.out = s.out[:0]
	d.pingAt = s.now() + int64(pingAfter)
	if err == nil && before == 0 && len(d.link.sock.backlog) > 0 {
		err = s.watch(d, unix.EPOLL_CTL_MOD)
	}
	if err != nil {
		s.drop(d, err)
	}
}

// joined takes over a connection that has shaken hands, or learns that it could not.
func (s *shard) joined(d *device, l *link, err error, now int64) {
	defer s.queue.settle(d)
	if err == nil {
		l.sock.attend()
		d.link = l
		err = s.watch(d, unix.EPOLL_CTL_ADD)
	}
	if err != nil {
		if l != nil {
			l.sock.Close()
		}
		d.link = nil
		s.stats.failures.Add(1)
		s.stats.blame(fmt.Errorf("connect: %w", err))
		d.state, d.fails = offline, d.fails+1
		d.dialAt = now + d.pause(s.opts.MaxPause)
		return
	}
	s.stats.connects.Add(1)
	d.state, d.answerAt, d.pingAt = greeting, now+int64(answerWait), now+int64(pingAfter)
}

// drop ends a connection that was lost.
func (s *shard) drop(d *device, err error) {
	s.stats.lost.Add(1)
	s.stats.blame(fmt.Errorf("connection lost: %w", err))
	s.end(d, d.pause(s.opts.MaxPause))
}

// end closes a connection as a box does that loses power, and has the device
// come back after a while.
func (s *shard) end(d *device, after int64) {
	s.out = s.out[:0]
	if d.link != nil {
		d.link.sock.reset()
		d.link.sock.Close()
		d.link = nil
	}
	if d.state == ready {
		s.stats.welcomed.Add(-1)
		d.fails = 0
	} else if d.state == greeting {
		d.fails++
	}
	if d.state != dialing {
		d.state, d.dialAt = offline, s.now()+after
	}
}

// tick does what is due.
func (s *shard) tick(d *device, now int64) {
	if d.dormant {
		s.birth(d, now)
		return
	}
	if d.makeAt != dueForBlock && d.makeAt <= now {
		d.makeAt += int64(s.opts.Every)
		if d.makeAt <= now {
			d.makeAt = now + int64(s.opts.Every)
		}
		if s.making {
			s.makeBlock(d, now)
		}
	}
	if d.state == offline && d.dialAt <= now {
		d.state = dialing
		d.conn++
		d.known = false
		s.dialer.want(job{s, d, d.opening()})
		return
	}
	if d.state >= greeting && d.answerAt <= now {
		s.drop(d, fmt.Errorf("no answer within %s", time.Duration(answerWait)))
		return
	}
	if d.state != ready {
		return
	}
	s.sendDue(d, now)
	if d.link != nil && d.pingAt <= now {
		s.out = appendPing(s.out)
		d.answerAt = now + int64(answerWait)
	}
	if d.link != nil {
		s.flush(d)
	}
}
