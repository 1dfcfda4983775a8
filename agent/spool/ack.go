package spool

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/edgeherd/edgeherd/internal/wire"
)

// moveCost bounds what one transaction moves between un-acked and window: the
// pages it copies live in memory until the commit, and need room in the file.
func (s *Spool) moveCost() int64 { return min(s.opts.budget()/16, 1<<20) }

// Ack moves blocks to the window: the commit at (run, lsn) or an earlier one
// has stored them. Only an exact key counts; others are ignored. It returns how
// many blocks were un-acked until now.
func (s *Spool) Ack(run wire.RunID, lsn uint64, keys []wire.Key) (int, error) {
	total := 0
	for done := 0; done < len(keys); {
		acked, seen := 0, 0
		err := s.write(func(t *txn) (err error) {
			acked, seen, err = t.ackSome(keys[done:], run, lsn)
			if err == nil && acked == 0 {
				return errUnchanged
			}
			return err
		})
		if err != nil {
			return total, fmt.Errorf("store acknowledgement: %w", err)
		}
		total += acked
		done += seen
	}
	return total, nil
}

// ackSome moves blocks until that costs enough for one transaction. It returns
// how many it moved and how many keys it has looked at.
func (t *txn) ackSome(keys []wire.Key, run wire.RunID, lsn uint64) (acked, seen int, err error) {
	var moved int64
	for _, k := range keys {
		if moved >= t.spool.moveCost() {
			break
		}
		seen++
		at, v, ok := t.find(k)
		if !ok {
			continue
		}
		moved += cost(len(v) - unackedHead)
		if err := t.ack(k.Lane, at, bytes.Clone(v), run, lsn); err != nil {
			return acked, seen, err
		}
		acked++
	}
	return acked, seen, nil
}

// find returns the un-acked block with exactly this key.
func (t *txn) find(k wire.Key) (at place, value []byte, ok bool) {
	number, known := t.spool.lives[k.SID]
	if k.SID == t.spool.sid {
		number, known = t.spool.life, true
	}
	if !known || k.Lane >= wire.Lanes {
		return at, nil, false
	}
	at = placeOf(number, k.Seq)
	value = t.unacked[k.Lane].Get(at[:])
	return at, value, len(value) > unackedHead && bytes.Equal(value[:unackedHead], k.H64[:])
}

func (t *txn) ack(lane wire.Lane, at place, value []byte, run wire.RunID, lsn uint64) error {
	size := len(value) - unackedHead
	c := &t.state.counts
	c.Blocks[lane]--
	c.Bytes[lane] -= int64(size)
	c.Cost[lane] -= cost(size)
	c.WindowBlocks[lane]++
	c.WindowCost[lane] += cost(size)
	head := binary.BigEndian.AppendUint64(append(make([]byte, 0, 16+len(value)), run[:]...), lsn)
	return errors.Join(
		t.unacked[lane].Delete(at[:]),
		t.window[lane].Put(at[:], append(head, value...)),
		t.countRun(run[:], lsn, 1))
}

// Validate makes blocks un-acked again that were acked by a run that is not in
// valid, or beyond the LSN that valid has for it: the database does not have
// them any more. It returns how many.
func (s *Spool) Validate(valid []wire.RunLSN) (int, error) {
	reach := make(map[wire.RunID]uint64, len(valid))
	for _, v := range valid {
		reach[v.Run] = v.LSN
	}
	total := 0
	for lane := range wire.Lane(wire.Lanes) {
		for from := []byte(nil); ; {
			n, next, err := s.unack(lane, from, reach)
			total += n
			if err != nil {
				return total, fmt.Errorf("withdraw acknowledgements: %w", err)
			}
			if next == nil {
				break
			}
			from = next
		}
	}
	if total == 0 {
		return 0, nil
	}
	s.signal()
	// What is left of each run is within reach: do not search again next time.
	err := s.write(func(t *txn) error { return t.clampRuns(reach) })
	if err != nil {
		return total, fmt.Errorf("withdraw acknowledgements: %w", err)
	}
	return total, nil
}

func (t *txn) clampRuns(reach map[wire.RunID]uint64) error {
	changed := map[wire.RunID]run{}
	err := t.runs.ForEach(func(k, _ []byte) error {
		r, err := t.run(k)
		if lsn, ok := reach[wire.RunID(k)]; ok && r.MaxLSN > lsn {
			changed[wire.RunID(k)] = run{r.Blocks, lsn}
		}
		return err
	})
	if err == nil && len(changed) == 0 {
		return errUnchanged
	}
	for id, r := range changed {
		err = errors.Join(err, t.putRun(id[:], r))
	}
	return err
}

// unack moves some blocks of the window back, from a place on, and returns the
// place to go on from, nil at the end.
func (s *Spool) unack(lane wire.Lane, from []byte, reach map[wire.RunID]uint64) (n int, next []byte, err error) {
	clean := true
	err = s.view(func(t *txn) error {
		if t.state.counts.WindowBlocks[lane] == 0 {
			return nil
		}
		clean, err = t.allReached(reach)
		return err
	})
	if err != nil || clean {
		return 0, nil, err
	}
	err = s.write(func(t *txn) error {
		n, next = 0, nil
		var moves []entry
		var moved int64
		c := t.window[lane].Cursor()
		for k, v := seek(c, from); k != nil; k, v = c.Next() {
			if moved >= s.moveCost() {
				next = bytes.Clone(k)
				break
			}
			lsn, ok := reach[wire.RunID(v[:8])]
			if !ok || binary.BigEndian.Uint64(v[8:16]) > lsn {
				moves = append(moves, entry{place(k), bytes.Clone(v)})
				moved += cost(len(v) - windowHead)
			}
		}
		for _, m := range moves {
			if err := t.unack(lane, m.at, m.value); err != nil {
				return err
			}
		}
		if n = len(moves); n == 0 {
			return errUnchanged
		}
		return nil
	})
	return n, next, err
}

func seek(c *bbolt.Cursor, from []byte) (k, v []byte) {
	if from == nil {
		return c.First()
	}
	return c.Seek(from)
}

// allReached spares reading the window when no block of it is in question.
func (t *txn) allReached(reach map[wire.RunID]uint64) (bool, error) {
	all := true
	err := t.runs.ForEach(func(k, _ []byte) error {
		r, err := t.run(k)
		lsn, ok := reach[wire.RunID(k)]
		all = all && ok && r.MaxLSN <= lsn
		return err
	})
	return all, err
}

func (t *txn) unack(lane wire.Lane, at place, value []byte) error {
	if _, err := t.leaveWindow(lane, at, value); err != nil {
		return err
	}
	size := len(value) - windowHead
	c := &t.state.counts
	c.Blocks[lane]++
	c.Bytes[lane] += int64(size)
	c.Cost[lane] += cost(size)
	return t.unacked[lane].Put(at[:], value[16:])
}

// Refuse sets blocks aside that the controller will never store, and leaves a
// gap. The last few are kept in the file for a look. It returns how many.
func (s *Spool) Refuse(keys []wire.Key) (int, error) {
	n := 0
	err := s.write(func(t *txn) error {
		n = 0
		lost := gaps{}
		for _, k := range keys {
			at, v, ok := t.find(k)
			if !ok {
				continue
			}
			if err := t.refuse(lost, k.Lane, at, bytes.Clone(v)); err != nil {
				return err
			}
			n++
		}
		if n == 0 {
			return errUnchanged
		}
		return lost.each(t.appendGap)
	})
	if err != nil {
		return 0, fmt.Errorf("set refused blocks aside: %w", err)
	}
	s.signal()
	return n, nil
}

func (t *txn) refuse(lost gaps, lane wire.Lane, at place, value []byte) error {
	// A refused gap is not told of by another one: that could go on for ever.
	if _, isGap := gapIn(value[unackedHead:]); !isGap {
		if err := t.tell(lost, wire.ReasonRefused, lane, at, value); err != nil {
			return err
		}
	}
	if _, err := t.dropUnacked(lane, at, value); err != nil {
		return err
	}
	if err := t.refused.Put(append([]byte{byte(lane)}, at[:]...), value[unackedHead:]); err != nil {
		return err
	}
	kept := 0
	c := t.refused.Cursor()
	for k, _ := c.Last(); k != nil; k, _ = c.Prev() {
		if kept++; kept > maxRefused {
			return t.refused.Delete(bytes.Clone(k))
		}
	}
	return nil
}

// Runs returns the runs that acked blocks of the window, those with most blocks
// first, at most wire.MaxRuns. Blocks of a run that is left out will be sent
// again, which does no harm.
func (s *Spool) Runs() []wire.RunID {
	type share struct {
		id     wire.RunID
		blocks uint64
	}
	var list []share
	err := s.view(func(t *txn) error {
		return t.runs.ForEach(func(k, _ []byte) error {
			r, err := t.run(k)
			list = append(list, share{wire.RunID(k), r.Blocks})
			return err
		})
	})
	if err != nil {
		s.log.Warn("runs not readable", "err", err)
	}
	slices.SortStableFunc(list, func(a, b share) int { return cmp.Compare(b.blocks, a.blocks) })
	ids := make([]wire.RunID, 0, len(list))
	for _, e := range list[:min(len(list), wire.MaxRuns)] {
		ids = append(ids, e.id)
	}
	return ids
}
