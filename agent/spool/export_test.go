package spool

import (
	"encoding/binary"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/edgeherd/edgeherd/internal/wire"
)

// OnStep makes fn run before each step that a crash may come between: "commit",
// and those of a compaction. An error of it is one of the step.
func OnStep(s *Spool, fn func(what string) error) { s.step = fn }

// Compact moves the content to a new file, whether that is worth it or not.
func Compact(s *Spool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.compact()
}

// Shrink compacts if that is worth it.
func Shrink(s *Spool) error { return s.shrink() }

// Flush writes the acknowledgements that wait.
func Flush(s *Spool) error { return s.flush() }

// Recount counts the file and says what the counts in memory have wrong.
func Recount(s *Spool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.db.View(func(tx *bbolt.Tx) error {
		t := &txn{spool: s}
		t.open(tx)
		lives, runs := map[uint32]*life{}, map[wire.RunID]uint64{}
		got := s.state.counts
		want := counts{Dropped: got.Dropped}
		count := func(k []byte, lane wire.Lane, n int) {
			number := place(k).life()
			if lives[number] == nil {
				lives[number] = &life{}
			}
			lives[number].Blocks[lane] += uint64(n)
		}
		for lane := range wire.Lane(wire.Lanes) {
			if err := errors.Join(t.unacked[lane].ForEach(func(k, v []byte) error {
				want.unacked(lane, headOf(v), len(v)-unackedHead, 1)
				count(k, lane, headOf(v).n)
				return nil
			}), t.window[lane].ForEach(func(k, v []byte) error {
				h := headOf(v[windowHead-unackedHead:])
				want.windowed(lane, h, len(v)-windowHead, 1)
				count(k, lane, h.n)
				runs[wire.RunID(v[:8])] += uint64(h.n)
				return nil
			})); err != nil {
				return err
			}
		}
		if got != want {
			return fmt.Errorf("counts %+v, the file has %+v", got, want)
		}
		err := t.lives.ForEach(func(k, v []byte) error {
			l, err := decodeLife(v)
			n := binary.BigEndian.Uint32(k)
			is := lives[n]
			if is == nil {
				is = &life{}
			}
			if delete(lives, n); l.Blocks != is.Blocks {
				err = errors.Join(err, fmt.Errorf("life %d counts %v, the file has %v", n, l.Blocks, is.Blocks))
			}
			return err
		})
		if len(lives) > 0 {
			err = errors.Join(err, fmt.Errorf("blocks of %d lives that are not listed", len(lives)))
		}
		return errors.Join(err, t.runs.ForEach(func(k, _ []byte) error {
			r, err := t.run(k)
			if id := wire.RunID(k); r.Blocks != runs[id] {
				err = errors.Join(err, fmt.Errorf("run %s counts %d, the file has %d", id, r.Blocks, runs[id]))
			}
			return err
		}))
	})
}

// Acked names the blocks that will not be sent again as things are.
func Acked(s *Spool) (keys []wire.Key) {
	add := func(v []byte) {
		if p, err := readParcel(v); err == nil {
			keys = append(keys, p.Keys()...)
		}
	}
	s.view(func(t *txn) error {
		for at := range t.acked {
			add(t.unacked[at.lane].Get(at.at[:]))
		}
		for lane := range wire.Lanes {
			t.window[lane].ForEach(func(_, v []byte) error { add(v[windowHead-unackedHead:]); return nil })
		}
		return nil
	})
	return keys
}
