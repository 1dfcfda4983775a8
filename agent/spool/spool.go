// Package spool keeps blocks on disk until the controller has them, and longer:
// a bounded FIFO in one bbolt file.
//
// Vocabulary: a draft becomes a block when it is appended: it gets its number
// and is sealed. A block is un-acked until an ACK with its exact key arrives;
// then it moves to the window, where it stays as long as there is room, since
// the controller may come back from an older backup (Validate). A life is one
// Open of the file, named by a random SID. When room is needed the window goes
// first, then the oldest un-acked blocks, and a gap tells of them.
//
// Files on disk:
//
//	PATH               the bbolt file; its buckets are listed in layout.go
//	PATH.open          there while the file is open: found at Open, it was not
//	                   closed cleanly and is checked first
//	PATH.lock          held by the process that has it open
//	PATH.corrupt-TIME  damaged files, the last two
//
// The promise starts when Append returns nil. The one rule a caller can break:
// delete nothing on a PUBACK; only Ack, with the keys of an ACK, counts.
package spool

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// Options configure a Spool. Path is required.
type Options struct {
	Path string
	// Boot names the boot of the machine; it goes into every block.
	Boot wire.BootID
	// MaxBytes bounds the bbolt file. Default 64 MiB, at least 2 MiB.
	MaxBytes int64
	// EventQuota is the share of the space, in percent, from which telemetry
	// cannot push events. Default 10.
	EventQuota int
	// NoSync leaves out fsync: the promise of Append is void. For tests.
	NoSync bool
	// WallClock stamps gaps and names damaged files. Default time.Now.
	WallClock func() time.Time
	// SinceBoot stamps gaps. Default: time since Open.
	SinceBoot func() time.Duration
	// Check looks at a file that was not closed cleanly; an error sets the file
	// aside. Damage can make bbolt crash the process from a goroutine of its own
	// or by SIGBUS, so the agent runs CheckFile in a child. Default: CheckFile
	// in this process.
	Check func(path string) error
}

func (o Options) withDefaults() Options {
	if o.MaxBytes == 0 {
		o.MaxBytes = 64 << 20
	}
	o.MaxBytes = max(o.MaxBytes, 2<<20)
	if o.EventQuota == 0 {
		o.EventQuota = 10
	}
	if o.WallClock == nil {
		o.WallClock = time.Now
	}
	if o.SinceBoot == nil {
		opened := time.Now()
		o.SinceBoot = func() time.Duration { return time.Since(opened) }
	}
	if o.Check == nil {
		o.Check = CheckFile
	}
	return o
}

// bbolt grows the file by allocBytes, and refuses a transaction that would
// need more than MaxSize less allocBytes. reserveBytes are kept from everything
// but evictions, which need pages before they free some.
const (
	allocBytes   = 256 << 10
	reserveBytes = 512 << 10
)

// budget is what blocks may cost (see cost) of MaxBytes. The rest is for
// bbolt: pages that are not full and pages that a transaction copies.
func (o Options) budget() int64 { return (o.MaxBytes - reserveBytes - allocBytes) / 100 * 65 }

func (o Options) quota() int64 { return o.budget() / 100 * int64(o.EventQuota) }

// Spool is safe for concurrent use.
type Spool struct {
	opts    Options // never changes
	log     *slog.Logger
	sid     wire.SID // never changes
	life    uint32   // never changes: the number of sid
	lock    *os.File
	changed chan struct{}

	mu    sync.Mutex // held during every write transaction; guards the fields below
	db    *bbolt.DB
	lives map[wire.SID]uint32
	state state
}

// Open opens the spool and begins a life. A damaged file is set aside and a
// new one begun, with a gap that says so.
func Open(opts Options, log *slog.Logger) (_ *Spool, err error) {
	opts = opts.withDefaults()
	s := &Spool{opts: opts, log: log, changed: make(chan struct{}, 1)}
	rand.Read(s.sid[:])
	if err := durable.MkdirAll(filepath.Dir(opts.Path), 0o700); err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	if s.lock, err = lockFile(opts.Path + ".lock"); err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	defer func() {
		if err != nil {
			if s.db != nil {
				s.db.Close()
			}
			s.lock.Close()
		}
	}()
	damage := s.inspect()
	if damage != nil {
		log.Error("spool is damaged and set aside; what it held may be lost", "path", opts.Path, "err", damage)
		if err := s.setAside(); err != nil {
			return nil, fmt.Errorf("set damaged spool aside: %w", err)
		}
	}
	if err := durable.WriteFile(opts.Path+".open", []byte("not closed cleanly\n"), 0o600); err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	if s.db, err = openDB(opts, opts.Path); err != nil {
		return nil, fmt.Errorf("open spool %s: %w", opts.Path, err)
	}
	if err := s.begin(); err != nil {
		return nil, fmt.Errorf("open spool %s: %w", opts.Path, err)
	}
	if damage != nil {
		gap := wire.Gap{Reason: wire.ReasonCorrupt}
		if err := s.write(func(t *txn) error { return t.appendGap(gap) }); err != nil {
			return nil, fmt.Errorf("open spool %s: %w", opts.Path, err)
		}
	}
	return s, nil
}

// bbolt settings: the free list is rebuilt at open, which saves 4 kB of flash
// for each commit; growing by 256 kB wastes less than the default 16 MB.
func openDB(opts Options, path string) (*bbolt.DB, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout:        10 * time.Second,
		NoFreelistSync: true,
		FreelistType:   bbolt.FreelistMapType,
		NoSync:         opts.NoSync,
		NoGrowSync:     opts.NoSync,
		NoStatistics:   true,
	})
	if err != nil {
		return nil, err
	}
	db.AllocSize = allocBytes
	return db, nil
}

func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s is held by another process, stop that one first: %w", path, err)
	}
	return f, nil
}

// Close ends the life cleanly.
func (s *Spool) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db == nil {
		return nil
	}
	err := s.db.Close()
	s.db = nil
	if err == nil {
		err = durable.Remove(s.opts.Path + ".open")
	}
	return errors.Join(err, s.lock.Close())
}

// SID names this life.
func (s *Spool) SID() wire.SID { return s.sid }

// Changed receives after something became worth sending. It is for one
// receiver and holds one signal.
func (s *Spool) Changed() <-chan struct{} { return s.changed }

func (s *Spool) signal() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// errClosed is what every method returns after Close. errUnchanged rolls a
// transaction back that has nothing to write: a commit costs 32 kB of flash.
var (
	errClosed    = errors.New("spool is closed")
	errUnchanged = errors.New("nothing to write")
)

// write runs fn in a write transaction; what it changed of the state becomes
// visible when the transaction is on disk. If the file cannot grow, which means
// that cost was too low for how bbolt fills its pages, it evicts and tries
// again.
func (s *Spool) write(fn func(*txn) error) error {
	for try := 1; ; try++ {
		err := s.update(s.opts.MaxBytes-reserveBytes, fn)
		if !errors.Is(err, berrors.ErrMaxSizeReached) || try == 5 {
			return err
		}
		if err := s.room(s.opts.budget() / 16); err != nil {
			return err
		}
	}
}

// room evicts blocks that cost at least want.
func (s *Spool) room(want int64) error {
	err := s.update(s.opts.MaxBytes, func(t *txn) error { return t.evict(want) })
	if err != nil {
		return fmt.Errorf("make room: %w", err)
	}
	return nil
}

func (s *Spool) update(limit int64, fn func(*txn) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db == nil {
		return errClosed
	}
	s.db.MaxSize = int(limit)
	t := &txn{spool: s, state: s.state}
	err := s.db.Update(func(tx *bbolt.Tx) error {
		t.open(tx)
		if err := fn(t); err != nil {
			return err
		}
		return t.save()
	})
	if errors.Is(err, errUnchanged) {
		return nil
	}
	if err != nil {
		return err
	}
	s.state = t.state
	for _, sid := range t.gone {
		delete(s.lives, sid)
	}
	return nil
}

// view runs fn in a read transaction.
func (s *Spool) view(fn func(*txn) error) error {
	s.mu.Lock()
	db, state := s.db, s.state
	s.mu.Unlock()
	if db == nil {
		return errClosed
	}
	return db.View(func(tx *bbolt.Tx) error {
		t := &txn{spool: s, state: state}
		t.open(tx)
		return fn(t)
	})
}
