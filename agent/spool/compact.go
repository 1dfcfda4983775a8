package spool

import (
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"github.com/edgeherd/edgeherd/internal/durable"
)

// A bbolt file never shrinks by itself. When more than half of it is free and
// little waits to be sent, its content moves to a new file, at most once a day:
// that costs as much flash as the content.
const (
	compactAbove = 1 << 20
	compactEvery = 24 * time.Hour
	compactIdle  = 16       // un-acked blocks
	compactTx    = 64 << 10 // bytes of one transaction: they live in memory
)

// shrink compacts the file if that is worth it.
func (s *Spool) shrink() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.usable() != nil || !s.compacted.IsZero() && time.Since(s.compacted) < compactEvery {
		return nil
	}
	var waits int64
	for _, n := range s.state.counts.Blocks {
		waits += n
	}
	size, free, err := s.extent()
	if err != nil || size < compactAbove || free*2 <= size || waits > compactIdle {
		return err
	}
	s.compacted = time.Now()
	return s.compact()
}

// extent is how many bytes the file has and how many of them are free.
func (s *Spool) extent() (size, free int64, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		size = tx.Size()
		return nil
	})
	stats := s.db.Stats()
	return size, int64(stats.FreePageN+stats.PendingPageN) * int64(s.db.Info().PageSize), err
}

// compact is called with mu held. Until the new file has the name, the old one
// is the spool; then the new one is, and all that was in the one is in the other.
func (s *Spool) compact() error {
	path := s.opts.Path + ".compact"
	if err := s.writeCompact(path); err != nil {
		return errors.Join(fmt.Errorf("compact spool: %w", err), durable.Remove(path))
	}
	if err := s.at("rename"); err != nil {
		return err
	}
	if err := durable.Rename(path, s.opts.Path); err != nil {
		// It may have the name, and may lose it again: nobody knows.
		return s.fail(fmt.Errorf("compact spool: %w", err))
	}
	if err := s.at("open"); err != nil {
		return err
	}
	before, _, _ := s.extent()
	db, err := openDB(s.opts, s.opts.Path)
	if err != nil { // the old handle belongs to a file without a name
		return s.fail(fmt.Errorf("compact spool: %w", err))
	}
	old := s.db
	s.db = db
	after, _, _ := s.extent()
	s.log.Info("spool file compacted", "from", before, "to", after)
	if err := old.Close(); err != nil {
		return fmt.Errorf("close spool before compaction: %w", err)
	}
	return nil
}

func (s *Spool) writeCompact(path string) error {
	opts := s.opts
	opts.NoSync = true // until it is complete
	dst, err := openDB(opts, path)
	if err != nil {
		return err
	}
	if err := bbolt.Compact(dst, s.db, compactTx); err != nil {
		return errors.Join(err, dst.Close())
	}
	if err := s.at("sync"); err != nil {
		return errors.Join(err, dst.Close())
	}
	if !s.opts.NoSync {
		err = dst.Sync()
	}
	return errors.Join(err, dst.Close())
}

// at is where a test may crash.
func (s *Spool) at(what string) error {
	if s.step == nil {
		return nil
	}
	return s.step(what)
}
