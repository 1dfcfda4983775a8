package delivery

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing/synctest"
	"time"

	"github.com/edgeherd/edgeherd/agent/link"
	"github.com/edgeherd/edgeherd/agent/spool"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// station is a box's side: the real spool and link on one file. Two of one box
// are clones.
type station struct {
	w     *world
	id    *identity.Identity
	host  string
	disk  *disk
	vault string // where images are
	gen   int    // of the file in use
	room  int64  // bytes; 0: the default, which no schedule fills

	boot   wire.BootID
	booted time.Time
	skew   atomic.Int64 // of its wall clock, in nanoseconds

	spool *spool.Spool
	link  *link.Link
	stop  func()

	// has is what its disk has or had and answered for: what was appended here,
	// and on the disk that it began with.
	has    map[boxKey]bool
	images []diskImage
}

// diskImage is a copy of the file of a spool.
type diskImage struct {
	path string
	has  map[boxKey]bool
}

func (s *station) path() string { return filepath.Join(s.disk.dir, fmt.Sprintf("spool-%d.db", s.gen)) }

func (s *station) reboot() {
	rand.Read(s.boot[:])
	s.booted = time.Now()
}

func (s *station) now() time.Time { return time.Now().Add(time.Duration(s.skew.Load())) }

func (s *station) start() {
	s.disk.free()
	var err error
	s.spool, err = spool.Open(spool.Options{
		Path: s.path(), Boot: s.boot, MaxBytes: s.room, NoSync: true, WallClock: s.now,
		SinceBoot: func() time.Duration { return time.Since(s.booted) },
	}, s.w.log)
	if err != nil {
		s.w.t.Fatal(err)
	}
	s.link = link.New(link.Options{
		ID: s.id.ID, Spool: s.spool, MaxBackoff: time.Minute,
		Dial: s.dial,
		Hello: func() wire.Hello {
			return wire.Hello{Clock: wire.Clock{Boot: s.boot, MonoMs: time.Since(s.booted).Milliseconds(), WallMs: s.now().UnixMilli()}}
		},
	}, s.w.log)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.link.Run(ctx) }()
	s.stop = func() {
		cancel()
		if err := errors.Join(<-done, s.spool.Close()); err != nil {
			s.w.t.Error(err)
		}
	}
}

func (s *station) dial(ctx context.Context) (net.Conn, error) {
	raw, err := s.w.dial(ctx, s.host)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, s.id.ClientTLS(time.Now))
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	return conn, nil
}

// image copies the disk as it is: what a process that dies leaves.
func (s *station) image(to string) diskImage {
	synctest.Wait()
	copyFile(s.w.t, s.path(), to)
	copyFile(s.w.t, s.path()+".open", to+".open")
	return diskImage{to, maps.Clone(s.has)}
}

// die kills the process: what it had in memory is gone.
func (s *station) die() {
	s.disk.free()
	next := filepath.Join(s.disk.dir, fmt.Sprintf("spool-%d.db", s.gen+1))
	s.image(next)
	s.stop()
	s.gen++
	s.start()
}

// replaceDisk puts an image in place of the disk, and boots.
func (s *station) replaceDisk(by diskImage) {
	s.disk.free()
	s.stop()
	s.gen++
	copyFile(s.w.t, by.path, s.path())
	copyFile(s.w.t, by.path+".open", s.path()+".open")
	had := s.has
	s.has = maps.Clone(by.has)
	for k := range had {
		if s.w.heldBy(k) == 0 {
			s.w.ledger[k].destroyed = true
		}
	}
	s.reboot()
	s.start()
}

// append promises n blocks, as far as the disk takes them.
func (s *station) append(n int) {
	for range n {
		d, r := s.w.draft(s)
		keys, err := s.spool.Append(d)
		if err != nil && s.disk.full {
			s.w.untaken++
			continue
		}
		if err != nil {
			s.w.t.Fatal(err)
		}
		k := boxKey{s.id.ID, keys[0]}
		if s.w.ledger[k] != nil {
			s.w.t.Fatalf("two blocks have the key %s", keys[0])
		}
		s.w.ledger[k] = r
		s.has[k] = true
	}
}
