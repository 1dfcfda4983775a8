// Package spool keeps blocks on disk until the controller has them, and longer:
// a bounded FIFO in one bbolt file.
//
// Vocabulary: a draft becomes a block when it is appended: it gets its number
// and is sealed. A block is un-acked until an ACK with its exact key arrives;
// then it moves to the window, where it stays as long as there is room, since
// the controller may come back from an older backup (Validate). A life is one
// Open of the file, named by a random SID. A pack holds blocks of samples that
// nobody took for ten minutes. When room is needed the window goes first; then
// the oldest samples become coarser; then the oldest un-acked blocks go, and a
// gap tells of them.
//
// Files on disk:
//
//	PATH               the bbolt file; its buckets are listed in layout.go
//	PATH.open          there while the file is open: found at Open, it was not
//	                   closed cleanly and is checked first
//	PATH.lock          held by the process that has it open
//	PATH.compact       a smaller copy of the file in the making
//	PATH.corrupt-TIME  damaged files, the last two
//
// The promise starts when Append returns nil. A disk that is full or takes no
// writes is an error that passes; a disk that failed to sync is one that does
// not (ErrFailed): the process must end, and open the file anew. The one rule a
// caller can break: delete nothing on a PUBACK; only Ack, with the keys of an
// ACK, counts.
package spool

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

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
	// or by SIGBUS, so the agent runs CheckFile in a child. An error that wraps
	// ErrNotChecked says nothing of the file: Open returns it. Default:
	// CheckFile in this process.
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
// but evictions, which need pages before they free some; when the file has grown
// into them, half as many must be free.
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
	lock    *durable.Lock
	changed chan struct{}
	broken  chan struct{}           // closed when the disk has failed
	step    func(what string) error // never changes; nil, but in tests of crashes

	mu     sync.Mutex // held during every write transaction; guards the fields below
	db     *bbolt.DB
	failed error // why broken is closed
	refuse error // of the last commit, when it changed nothing
	lives  map[wire.SID]uint32
	state  state
	acks   acks

	compacted time.Time // the last time
}

// Open opens the spool and begins a life. A damaged file is set aside and a
// new one begun, with a gap that says so. An error that wraps ErrNoWrites may
// pass.
func Open(opts Options, log *slog.Logger) (*Spool, error) {
	s, err := openFile(opts.withDefaults(), log)
	if err != nil && noWrites(err) {
		return nil, fmt.Errorf("%w: %w", ErrNoWrites, err)
	}
	return s, err
}

func openFile(opts Options, log *slog.Logger) (_ *Spool, err error) {
	s := &Spool{opts: opts, log: log, changed: make(chan struct{}, 1), broken: make(chan struct{}), acks: newAcks()}
	rand.Read(s.sid[:])
	if err := durable.MkdirAll(filepath.Dir(opts.Path), 0o700); err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	if s.lock, err = lockFile(opts.Path + ".lock"); err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	fresh := false
	defer func() {
		if err != nil {
			if s.db != nil {
				s.db.Close()
			}
			if fresh { // a half-made file would pass for a damaged one
				err = errors.Join(err, durable.Remove(opts.Path))
			}
			s.lock.Close()
		}
	}()
	if err := durable.Remove(opts.Path + ".compact"); err != nil { // a crash left it
		return nil, fmt.Errorf("open spool: %w", err)
	}
	damage := s.inspect()
	if errors.Is(damage, ErrNotChecked) {
		return nil, fmt.Errorf("open spool: %w", damage)
	}
	if err := durable.WriteFile(opts.Path+".open", []byte("not closed cleanly\n"), 0o600); err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	if damage != nil {
		log.Error("spool is damaged and set aside; what it held may be lost", "path", opts.Path, "err", damage)
		if err := s.setAside(); err != nil {
			return nil, fmt.Errorf("set damaged spool aside: %w", err)
		}
	}
	info, err := os.Stat(opts.Path)
	fresh = err != nil || info.Size() == 0
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
	})
	if err != nil {
		return nil, err
	}
	db.AllocSize = allocBytes
	return db, nil
}

func lockFile(path string) (*durable.Lock, error) {
	lock, err := durable.LockFile(path)
	if errors.Is(err, durable.ErrLocked) {
		return nil, fmt.Errorf("%s is held by another process, stop that one first: %w", path, err)
	}
	return lock, err
}

// Close ends the life cleanly. What was acked and cannot be written any more
// will be sent again.
func (s *Spool) Close() error {
	flushed := s.flush()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db == nil {
		return nil
	}
	if s.failed != nil { // the handle is closed, and the file is to be checked
		s.db = nil
		return errors.Join(s.failed, s.lock.Close())
	}
	if flushed != nil {
		s.log.Warn("acknowledgements not stored, the blocks will be sent again", "err", flushed)
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

// update takes as many transactions as the marks need, so that each of them
// fits, and runs fn in the last.
func (s *Spool) update(limit int64, fn func(*txn) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		more, err := s.transact(limit, fn)
		if err != nil || !more {
			return err
		}
	}
}

// transact writes marks, and what fn does unless there are more of them. Called
// with mu held.
func (s *Spool) transact(limit int64, fn func(*txn) error) (more bool, err error) {
	if err := s.usable(); err != nil {
		return false, err
	}
	if limit < s.opts.MaxBytes {
		if size, free, err := s.extent(); err != nil || s.opts.MaxBytes-size+free < reserveBytes/2 {
			return false, errors.Join(err, berrors.ErrMaxSizeReached)
		}
	}
	s.db.MaxSize = int(limit)
	tx, err := s.db.Begin(true)
	if err != nil {
		return false, s.fail(err)
	}
	t := s.txn(tx)
	written, err := t.applyAcks(s.moveCost())
	if more = len(t.acked) > 0; err == nil && !more {
		err = fn(t)
	}
	if err != nil {
		tx.Rollback()
		if errors.Is(err, errUnchanged) {
			return false, nil
		}
		return false, err
	}
	if err := t.save(); err != nil {
		tx.Rollback()
		return false, err
	}
	if err := s.commit(tx); err != nil {
		return false, err
	}
	s.state = t.state
	s.acks.written(written, t.packs)
	for _, sid := range t.gone {
		delete(s.lives, sid)
	}
	return more, nil
}

// txn is called with mu held.
func (s *Spool) txn(tx *bbolt.Tx) *txn {
	t := &txn{spool: s, state: s.state, acked: maps.Clone(s.acks.marks)}
	t.open(tx)
	return t
}

// view runs fn in a read transaction.
func (s *Spool) view(fn func(*txn) error) error {
	s.mu.Lock()
	if err := s.usable(); err != nil {
		s.mu.Unlock()
		return err
	}
	tx, err := s.db.Begin(false) // under mu, so that state and file agree
	if err != nil {
		defer s.mu.Unlock()
		return s.fail(err)
	}
	t := s.txn(tx)
	s.mu.Unlock()
	defer tx.Rollback()
	return fn(t)
}

// Known is the latest time of a record whose clock could be trusted, or was said
// to be no earlier than such a time; zero if there was none. It outlives the
// records: a box without a clock goes on from it.
func (s *Spool) Known() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.known == 0 {
		return time.Time{}
	}
	return time.UnixMilli(s.state.known)
}
