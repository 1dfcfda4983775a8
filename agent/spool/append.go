package spool

import (
	"errors"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/edgeherd/edgeherd/internal/wire"
)

// Draft is a block before it has a number.
type Draft struct {
	Lane    wire.Lane
	Kind    wire.Kind
	MonoMs  int64
	WallMs  int64
	SpanMs  int64
	Quality wire.TimeQuality
	Schema  *wire.Schema // of KindSamples, else nil
	Count   uint32       // records
	Payload []byte
}

// Append stores drafts, all or none. When it returns nil they are on disk. A
// full or read-only disk is an error that changes nothing; a later Append works
// when the disk does.
func (s *Spool) Append(drafts ...Draft) ([]wire.Key, error) {
	return s.append("", nil, drafts)
}

// AppendWithCursor stores drafts and a cursor of the caller in one transaction.
func (s *Spool) AppendWithCursor(name string, cursor []byte, drafts ...Draft) ([]wire.Key, error) {
	return s.append(name, cursor, drafts)
}

// Cursor returns what was last stored under name, nil if nothing was.
func (s *Spool) Cursor(name string) ([]byte, error) {
	var cursor []byte
	err := s.view(func(t *txn) error {
		if v := t.cursors.Get([]byte(name)); v != nil {
			cursor = append([]byte{}, v...)
		}
		return nil
	})
	return cursor, err
}

func (s *Spool) append(name string, cursor []byte, drafts []Draft) ([]wire.Key, error) {
	if name == "" && len(drafts) == 0 {
		return nil, nil
	}
	var need int64
	for _, d := range drafts {
		if d.Lane >= wire.Lanes {
			return nil, fmt.Errorf("append to spool: lane %d, there are %d", d.Lane, wire.Lanes)
		}
		need += cost(len(d.Payload) + 160)
	}
	if need > s.opts.budget()/2 {
		return nil, fmt.Errorf("append to spool: %d bytes at once, its room is %d", need, s.opts.budget())
	}
	if over := s.cost() + need - s.opts.budget(); over > 0 {
		if err := s.room(over); err != nil {
			return nil, fmt.Errorf("append to spool: %w", err)
		}
	}
	var keys []wire.Key
	err := s.write(func(t *txn) (err error) {
		if name != "" {
			if err := t.cursors.Put([]byte(name), cursor); err != nil {
				return err
			}
		}
		keys, err = t.append(drafts)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("append to spool: %w", err)
	}
	if len(keys) > 0 {
		s.signal()
	}
	return keys, nil
}

func (t *txn) append(drafts []Draft) ([]wire.Key, error) {
	keys := make([]wire.Key, 0, len(drafts))
	for _, d := range drafts {
		b := wire.Block{
			Key:  wire.Key{SID: t.spool.sid, Lane: d.Lane, Seq: t.state.seq[d.Lane] + 1},
			Kind: d.Kind, Boot: t.spool.opts.Boot, MonoMs: d.MonoMs, WallMs: d.WallMs,
			Quality: d.Quality, Count: d.Count, SpanMs: d.SpanMs, Payload: d.Payload,
		}
		if d.Schema != nil {
			id, err := t.putSchema(*d.Schema)
			if err != nil {
				return nil, err
			}
			b.Schema = id
		}
		if err := wire.Seal(&b); err != nil {
			return nil, err
		}
		if err := t.put(b); err != nil {
			return nil, err
		}
		t.state.seq[d.Lane]++
		keys = append(keys, b.Key)
	}
	return keys, nil
}

func (t *txn) putSchema(s wire.Schema) (wire.SchemaID, error) {
	id := wire.SchemaIDOf(s)
	if t.schemas.Get(id[:]) != nil {
		return id, nil
	}
	raw, err := wire.Encode(s)
	if err != nil {
		return id, err
	}
	return id, t.schemas.Put(id[:], raw)
}

// put stores a sealed block of this life.
func (t *txn) put(b wire.Block) error {
	if !t.state.named {
		if err := t.putLife(t.spool.life, life{SID: t.spool.sid}); err != nil {
			return err
		}
		t.state.named = true
	}
	raw, err := wire.Encode(b)
	if err != nil {
		return err
	}
	lane, key := b.Key.Lane, placeOf(t.spool.life, b.Key.Seq)
	c := &t.state.counts
	c.Blocks[lane]++
	c.Bytes[lane] += int64(len(raw))
	c.Cost[lane] += cost(len(raw))
	return errors.Join(
		t.unacked[lane].Put(key[:], append(b.Key.H64[:], raw...)),
		t.countLife(t.spool.life, lane, 1))
}

func (s *Spool) cost() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.counts.total()
}

// evict frees at least need: the window, oldest first, bulk before telemetry
// before events; then un-acked blocks with a gap. It frees more than was asked
// for, so that a full spool does not pay a commit and a gap for each block.
func (t *txn) evict(need int64) error {
	var freed int64
	spare := t.spool.opts.budget() / 64
	for lane := wire.Lanes - 1; lane >= 0 && freed < need+spare; lane-- {
		n, err := t.evictWindow(wire.Lane(lane), need+spare-freed)
		if err != nil {
			return err
		}
		freed += n
	}
	if freed >= need {
		return nil
	}
	lost := gaps{}
	for target := need + 2*spare; freed < target; {
		lane, want, ok := t.victim(target - freed)
		if !ok {
			break
		}
		n, err := t.evictUnacked(lane, want, lost)
		if err != nil {
			return err
		}
		freed += n
	}
	if freed < need {
		return fmt.Errorf("%d bytes needed, and all that is left are events in their quota", need)
	}
	return lost.each(t.appendGap)
}

// entry is a block found in a bucket. It is collected before anything is
// deleted, since deleting moves cursors.
type entry struct {
	at    place
	value []byte
}

func oldest(b *bbolt.Bucket, want int64, head int) []entry {
	var list []entry
	c := b.Cursor()
	for k, v := c.First(); k != nil && want > 0; k, v = c.Next() {
		list = append(list, entry{place(k), v})
		want -= cost(len(v) - head)
	}
	return list
}

func (t *txn) evictWindow(lane wire.Lane, want int64) (int64, error) {
	var freed int64
	for _, e := range oldest(t.window[lane], want, windowHead) {
		n, err := t.dropWindow(lane, e.at, e.value)
		if err != nil {
			return freed, err
		}
		freed += n
	}
	return freed, nil
}

// victim is the lane whose oldest un-acked blocks go next, and how much of it.
// Events in their quota never go: an append may need half of the budget at
// most, so the others can always make room.
func (t *txn) victim(want int64) (wire.Lane, int64, bool) {
	c := t.state.counts
	over := c.Cost[wire.LaneEvents] - t.spool.opts.quota()
	switch {
	case over > 0:
		return wire.LaneEvents, min(want, over), true
	case c.Blocks[wire.LaneBulk] > 0:
		return wire.LaneBulk, want, true
	case c.Blocks[wire.LaneTelemetry] > 0:
		return wire.LaneTelemetry, want, true
	}
	return 0, 0, false
}

func (t *txn) evictUnacked(lane wire.Lane, want int64, lost gaps) (int64, error) {
	list := oldest(t.unacked[lane], want, unackedHead)
	if len(list) == 0 {
		return 0, fmt.Errorf("lane %d counts %d blocks and has none", lane, t.state.counts.Blocks[lane])
	}
	var freed int64
	for _, e := range list {
		if err := t.tell(lost, wire.ReasonSpace, lane, e.at, e.value); err != nil {
			return freed, err
		}
		n, err := t.dropUnacked(lane, e.at, e.value)
		if err != nil {
			return freed, err
		}
		freed += n
	}
	return freed, nil
}
