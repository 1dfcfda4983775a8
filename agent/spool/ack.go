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

// Ack notes that the commit at (run, lsn) or an earlier one has stored these
// blocks. Only an exact key counts; others are ignored. A pack is acked when all
// its members are. It returns how many blocks were un-acked until now. They move
// to the window with the next commit, within a minute; a crash until then only
// makes the box send them again.
func (s *Spool) Ack(run wire.RunID, lsn uint64, keys []wire.Key) (int, error) {
	n, due, err := s.note(run, lsn, keys)
	if err != nil {
		return n, fmt.Errorf("note acknowledgement: %w", err)
	}
	if !due {
		return n, nil
	}
	if err := s.flush(); err != nil {
		if s.Err() != nil {
			return n, fmt.Errorf("store acknowledgement: %w", err)
		}
		s.log.Debug("acknowledgements wait for the disk", "err", err)
	}
	return n, nil
}

func (s *Spool) note(run wire.RunID, lsn uint64, keys []wire.Key) (n int, due bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return 0, false, err
	}
	if len(s.acks.marks) >= maxPending { // the disk takes no writes, and memory is small
		return 0, false, fmt.Errorf("%d acknowledgements wait for the disk", len(s.acks.marks))
	}
	err = s.db.View(func(tx *bbolt.Tx) error {
		t := s.txn(tx)
		for _, k := range keys {
			e, ok := t.find(k)
			at := spot{k.Lane, e.at}
			if _, marked := s.acks.marks[at]; !ok || marked {
				continue
			}
			m := mark{run, lsn, int64(e.head.n), e.size}
			if !e.head.pack {
				n++
				s.acks.add(at, m)
				continue
			}
			complete, fresh, last := s.acks.member(at, e.head.n, e.member, run, lsn)
			if fresh {
				n++
			}
			if complete {
				m.lsn = last
				s.acks.add(at, m)
			}
		}
		return nil
	})
	return n, s.acks.due(), err
}

// found is an un-acked block, or the pack that it is a member of.
type found struct {
	at     place
	head   head
	member int
	size   int64
	value  []byte
}

// find returns where the un-acked block with exactly this key is. A pack lies
// at the place of its first member, with results between it and its last.
func (t *txn) find(k wire.Key) (found, bool) {
	number, known := t.spool.lives[k.SID]
	if k.SID == t.spool.sid {
		number, known = t.spool.life, true
	}
	if !known || k.Lane >= wire.Lanes {
		return found{}, false
	}
	want := placeOf(number, k.Seq)
	c := t.unacked[k.Lane].Cursor()
	key, v := c.Seek(want[:])
	if key == nil {
		key, v = c.Last()
	} else if !bytes.Equal(key, want[:]) {
		key, v = c.Prev()
	}
	for ; key != nil; key, v = c.Prev() {
		at, h := place(key), headOf(v)
		if at.life() != number || k.Seq-at.seq() > maxSpan {
			break
		}
		e := found{at: at, head: h, size: int64(len(v) - unackedHead), value: v}
		switch {
		case !h.pack && at == want:
			return e, h.h64 == k.H64
		case h.pack && at.seq()+uint64(h.span) >= k.Seq:
			if e.member = t.memberOf(v, k); e.member >= 0 {
				return e, true
			}
		}
	}
	return found{}, false
}

// memberOf returns the index of a key in a pack, -1 if it is not in it.
func (t *txn) memberOf(v []byte, k wire.Key) int {
	p, err := wire.Decode[wire.Pack](v[unackedHead:])
	if err != nil {
		return -1 // Pick will tell
	}
	return slices.IndexFunc(p.Members, func(m wire.Member) bool { return m.Seq == k.Seq && m.H64 == k.H64 })
}

func (t *txn) ack(lane wire.Lane, at place, value []byte, run wire.RunID, lsn uint64) error {
	if _, err := t.takeUnacked(lane, at, value); err != nil {
		return err
	}
	h := headOf(value)
	t.state.counts.windowed(lane, h, len(value)-unackedHead, 1)
	head := binary.BigEndian.AppendUint64(append(make([]byte, 0, 16+len(value)), run[:]...), lsn)
	return errors.Join(
		t.window[lane].Put(at[:], append(head, value...)),
		t.countRun(run[:], lsn, h.n))
}

// Validate makes blocks un-acked again that were acked by a run that is not in
// valid, or beyond the LSN that valid has for it: the database does not have
// them any more. It returns how many.
func (s *Spool) Validate(valid []wire.RunLSN) (int, error) {
	reach := make(map[wire.RunID]uint64, len(valid))
	for _, v := range valid {
		reach[v.Run] = v.LSN
	}
	s.mu.Lock()
	total := s.acks.withdraw(reach)
	s.mu.Unlock()
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
			n += headOf(m.value[windowHead-unackedHead:]).n
			if err := t.unack(lane, m.at, m.value); err != nil {
				return err
			}
		}
		if n == 0 {
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
	t.state.packFrom = place{}
	return t.putUnacked(lane, at, value[16:])
}

// Refuse sets blocks aside that the controller will never store, and leaves a
// gap. The last few are kept in the file for a look. It returns how many.
func (s *Spool) Refuse(keys []wire.Key) (int, error) {
	n := 0
	err := s.write(func(t *txn) error {
		n = 0
		lost := gaps{}
		for _, k := range keys {
			e, ok := t.find(k)
			if !ok {
				continue
			}
			refused, err := t.refuse(lost, k, e)
			if err != nil {
				return err
			}
			n += refused
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

func (t *txn) refuse(lost gaps, k wire.Key, e found) (n int, err error) {
	value := bytes.Clone(e.value)
	if e.head.class == classExact {
		if single, err := t.split(k, e.at, value); err != nil {
			return 0, err
		} else if single != nil {
			e.at, value = placeOf(e.at.life(), k.Seq), single
		}
	}
	// A refused gap is not told of by another one: that could go on for ever.
	if _, isGap := gapIn(value[unackedHead:]); !isGap {
		if err := t.tell(lost, wire.ReasonRefused, k.Lane, e.at, value); err != nil {
			return 0, err
		}
	}
	if _, err := t.dropUnacked(k.Lane, e.at, value); err != nil {
		return 0, err
	}
	if err := t.refused.Put(append([]byte{byte(k.Lane)}, e.at[:]...), value[unackedHead:]); err != nil {
		return 0, err
	}
	kept := 0
	c := t.refused.Cursor()
	for key, _ := c.Last(); key != nil; key, _ = c.Prev() {
		if kept++; kept > maxRefused {
			return headOf(value).n, t.refused.Delete(bytes.Clone(key))
		}
	}
	return headOf(value).n, nil
}

// split takes an exact pack apart, so that the member with key k can be refused
// and the others stay. It returns the entry of that member, nil if the pack does
// not come apart; it is refused whole then, as a coarse one is.
func (t *txn) split(k wire.Key, at place, value []byte) (single []byte, err error) {
	p, err := readParcel(value)
	if err != nil {
		return nil, nil
	}
	schema, err := t.schema(p.Pack.Schema)
	if err != nil {
		return nil, nil
	}
	blocks, err := p.Pack.Blocks(schema)
	if err != nil {
		return nil, nil
	}
	if _, err := t.takeUnacked(k.Lane, at, value); err != nil {
		return nil, err
	}
	for _, b := range blocks {
		raw, err := wire.Encode(b)
		if err != nil {
			return nil, err
		}
		v := entryOf(headOfBlock(b), raw)
		if b.Key == k {
			single = v
		}
		if err := t.putUnacked(k.Lane, placeOf(at.life(), b.Key.Seq), v); err != nil {
			return nil, err
		}
	}
	t.state.packFrom = place{}
	return single, nil
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
		waiting := map[wire.RunID]uint64{} // for the next commit
		for _, m := range t.acked {
			waiting[m.run] += uint64(m.blocks)
		}
		err := t.runs.ForEach(func(k, _ []byte) error {
			id := wire.RunID(k)
			r, err := t.run(k)
			list = append(list, share{id, r.Blocks + waiting[id]})
			delete(waiting, id)
			return err
		})
		for id, n := range waiting {
			list = append(list, share{id, n})
		}
		return err
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
