package spool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// ErrFailed is wrapped by every error after the disk has failed in a way that
// leaves open what is on it: a sync that returns an error may have lost what
// was written before, and the next one succeeds all the same. bbolt would go on
// as if nothing had happened. Only a new process, which checks the file, may use
// it again.
var ErrFailed = errors.New("the disk has failed; the file is checked when the spool is opened again")

// ErrNoWrites is wrapped by errors of Open when the disk is full or read-only.
// It names the way out; nothing was changed, and a later Open may work.
var ErrNoWrites = errors.New("the disk takes no writes; make room on it, or mount it writable")

// ErrNotChecked is for Options.Check: the check could not be begun, such as for
// lack of memory for a process. Nothing was changed, and a later Open may work.
var ErrNotChecked = errors.New("the spool could not be checked")

// Run writes what waits and keeps the file small. It returns nil when ctx ends,
// and an error that wraps ErrFailed when the disk has failed.
func (s *Spool) Run(ctx context.Context) error {
	for {
		due, in := s.waiting()
		if due {
			if err := s.flush(); err != nil && s.Err() == nil {
				s.log.Debug("acknowledgements wait for the disk", "err", err)
			}
			in = ackDelay
		}
		if err := s.shrink(); err != nil && s.Err() == nil {
			s.log.Warn("spool file not made smaller", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.broken:
			return s.Err()
		case <-time.After(max(in, time.Second)):
		}
	}
}

// Err is nil until the disk has failed.
func (s *Spool) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// usable is called with mu held.
func (s *Spool) usable() error {
	switch {
	case s.failed != nil:
		return s.failed
	case s.db == nil:
		return errClosed
	}
	return nil
}

// commit is called with mu held.
func (s *Spool) commit(tx *bbolt.Tx) error {
	s.refuse = s.commitNow(tx)
	return s.refuse
}

func (s *Spool) commitNow(tx *bbolt.Tx) error {
	if s.step != nil {
		if err := s.step("commit"); err != nil {
			tx.Rollback()
			return s.judge(err)
		}
	}
	if err := tx.Commit(); err != nil {
		return s.judge(err)
	}
	return nil
}

// refusal is why the disk takes no writes, in words that fit into a message.
func (s *Spool) refusal() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse == nil {
		return ""
	}
	text := s.refuse.Error()
	return strings.ToValidUTF8(text[:min(len(text), 200)], "")
}

// judge returns an error of a commit, and closes the file when nobody knows
// what it left behind. Called with mu held.
func (s *Spool) judge(err error) error {
	if passes(err) {
		return err
	}
	return s.fail(err)
}

func (s *Spool) fail(err error) error {
	if s.failed == nil {
		s.failed = fmt.Errorf("%w: %w", ErrFailed, err)
		close(s.broken)
		s.db.Close() // an error of it says nothing new
	}
	return s.failed
}

// passes says whether a commit has changed nothing and may work another time:
// the file could not grow, or pages could not be written for lack of room. What
// fails after that is the sync, or the meta page.
func passes(err error) bool {
	if errors.Is(err, berrors.ErrMaxSizeReached) || strings.HasPrefix(err.Error(), "file resize error") {
		return true // bbolt keeps the cause of the second as text only
	}
	var write *fs.PathError
	return errors.As(err, &write) && write.Op == "write" && noWrites(write)
}

// noWrites says whether the disk is full or read-only.
func noWrites(err error) bool {
	return slices.ContainsFunc([]syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG, syscall.EROFS},
		func(e syscall.Errno) bool { return errors.Is(err, e) })
}
