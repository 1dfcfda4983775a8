package spool

import (
	"bytes"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/edgeherd/edgeherd/internal/wire"
)

func (s *Spool) cost() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.counts.total()
}

// room frees what costs at least want, in as many transactions as that takes:
// what one of them writes needs pages before it frees some. When there are too
// few even for that, it makes less coarser at a time, and at last drops instead.
func (s *Spool) room(want int64) error {
	most := int64(maxCoarsen)
	for want > 0 {
		var freed int64
		err := s.update(s.opts.MaxBytes, func(t *txn) (err error) {
			t.mostCoarser = most
			freed, err = t.evict(want)
			return err
		})
		if errors.Is(err, berrors.ErrMaxSizeReached) && most > 0 {
			if most /= 4; most < maxCoarsen/16 {
				most = 0
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("make room: %w", err)
		}
		want -= freed
	}
	return nil
}

// evict makes some room, in this order: the window, oldest first, bulk before
// telemetry before events; events beyond their quota and bulk, with a gap;
// telemetry, which becomes coarser before it goes. It frees more than was asked
// for, so that a full spool does not pay a commit and a gap for each block, or
// less, when coarsening would write too much at once.
func (t *txn) evict(need int64) (freed int64, err error) {
	spare := t.spool.opts.budget() / 64
	for lane := wire.Lanes - 1; lane >= 0 && freed < need+spare; lane-- {
		n, err := t.evictWindow(wire.Lane(lane), need+spare-freed)
		if err != nil {
			return 0, err
		}
		freed += n
	}
	lost := gaps{}
	for freed < need {
		lane, want, ok := t.victim(need + 2*spare - freed)
		if !ok {
			break
		}
		var n int64
		coarser := false
		if lane == wire.LaneTelemetry {
			n, coarser, err = t.shrinkTelemetry(want, lost)
		} else {
			n, err = t.evictUnacked(lane, want, lost, nil)
		}
		if err != nil {
			return 0, err
		}
		if freed += n; coarser { // the next round may do more, even if this one freed nothing
			return freed, lost.each(t.appendGap)
		}
	}
	if freed == 0 {
		return 0, fmt.Errorf("%d bytes needed, and all that is left are events in their quota", need)
	}
	return freed, lost.each(t.appendGap)
}

// entry is found in a bucket. It is collected before anything is deleted, since
// deleting moves cursors.
type entry struct {
	at    place
	value []byte
}

// oldest collects entries that cost want, up to the first that stop says.
func oldest(b *bbolt.Bucket, want int64, head int, stop func(v []byte) bool) []entry {
	var list []entry
	c := b.Cursor()
	for k, v := c.First(); k != nil && want > 0; k, v = c.Next() {
		if stop != nil && stop(v) {
			break
		}
		list = append(list, entry{place(k), v})
		want -= cost(len(v) - head)
	}
	return list
}

func (t *txn) evictWindow(lane wire.Lane, want int64) (int64, error) {
	var freed int64
	for _, e := range oldest(t.window[lane], want, windowHead, nil) {
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

func (t *txn) evictUnacked(lane wire.Lane, want int64, lost gaps, stop func(v []byte) bool) (int64, error) {
	list := oldest(t.unacked[lane], want, unackedHead, stop)
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

// canShrink says whether an un-acked entry becomes coarser before it goes.
func canShrink(v []byte) bool { return headOf(v).class != classOther }

// maxCoarsen bounds what one transaction rewrites: half of what ordinary writes
// leave free.
const maxCoarsen = 128 << 10

// pagePart is the size up to which packs are joined when they become coarser:
// two of it fill a page. Smaller entries would free no page, since bbolt does not
// join pages that are a quarter full.
const pagePart = 1900

// shrinkTelemetry makes the oldest telemetry coarser, so that a spool that is
// full of it is half exact, a quarter one row a minute, and the oldest quarter
// one row in ten minutes. What goes at last is the oldest that cannot become
// coarser.
func (t *txn) shrinkTelemetry(want int64, lost gaps) (freed int64, coarser bool, err error) {
	c, budget := t.state.counts, t.spool.opts.budget()
	_, first := t.unacked[wire.LaneTelemetry].Cursor().First()
	age := headOf(first).class
	switch {
	case t.mostCoarser == 0:
		freed, err = t.evictUnacked(wire.LaneTelemetry, want, lost, nil)
		return freed, false, err
	case c.Exact > budget/2 || age == classLoose || age == classExact:
		freed, err = t.coarsen(want, wire.GrainMember)
		return freed, true, err
	case c.ByMember > budget/4 || age == classMember:
		freed, err = t.coarsen(want, wire.GrainTen)
		return freed, true, err
	}
	freed, err = t.evictUnacked(wire.LaneTelemetry, want, lost, canShrink)
	return freed, false, err
}

// coarsen makes the oldest entries that can be packs of grain g out of those of
// the grain before.
func (t *txn) coarsen(want int64, g wire.Grain) (freed int64, err error) {
	for _, run := range t.toCoarsen(want, g) {
		n, err := t.coarsenRun(run, g)
		if err != nil {
			return freed, err
		}
		freed += n
	}
	return freed, nil
}

// coarseRun is what becomes one coarser pack: packs, or loose blocks.
type coarseRun struct {
	looseRun
	packs   []wire.Pack
	members int
	bytes   int
}

// joins says whether a pack can join those of the run. Rows of ten members must
// not be shared by two packs: there may be a hole between them.
func (r *coarseRun) joins(at place, p wire.Pack, size int, g wire.Grain) bool {
	if len(r.packs) == 0 {
		return false
	}
	last := r.packs[len(r.packs)-1]
	shrinks := 3 * (r.bytes + size) / 4
	if g == wire.GrainTen {
		shrinks = (r.bytes + size) / 3
	}
	return at.life() == r.at[0].life() && p.Boot == last.Boot && p.Schema == last.Schema && shrinks <= pagePart &&
		len(last.Members)%packBlocks == 0 && r.members+len(p.Members) <= wire.MaxMembers && r.rows+p.Members.Rows() <= wire.MaxRows &&
		p.Members[len(p.Members)-1].Seq-r.packs[0].Members[0].Seq <= maxSpan
}

func (r *coarseRun) addPack(at place, v []byte, p wire.Pack) {
	r.at, r.values, r.packs = append(r.at, at), append(r.values, bytes.Clone(v)), append(r.packs, p)
	r.members, r.rows, r.bytes = r.members+len(p.Members), r.rows+p.Members.Rows(), r.bytes+len(v)
}

func (t *txn) toCoarsen(want int64, g wire.Grain) []coarseRun {
	var runs []coarseRun
	var run coarseRun
	end := func() {
		if len(run.at) > 0 {
			runs, run = append(runs, run), coarseRun{}
		}
	}
	most := min(2*want, t.mostCoarser) // a minute of six samples shrinks by less than half
	c := t.unacked[wire.LaneTelemetry].Cursor()
	for k, v := c.First(); k != nil && most > 0; k, v = c.Next() {
		at, h := place(k), headOf(v)
		if g == wire.GrainTen && h.class != classMember || g == wire.GrainMember && h.class != classLoose && h.class != classExact {
			continue
		}
		most -= cost(len(v))
		p, err := readParcel(v)
		switch {
		case err != nil: // Pick will tell; until then it is left alone
			end()
			run.at, run.values = []place{at}, [][]byte{bytes.Clone(v)}
			end()
		case p.Pack != nil:
			if !run.joins(at, *p.Pack, len(v), g) {
				end()
			}
			run.addPack(at, v, *p.Pack)
		default:
			if len(run.packs) > 0 || !run.takes(at, p.Block) {
				end()
			}
			run.add(at, v, p.Block)
		}
	}
	end()
	return runs
}

func (t *txn) coarsenRun(run coarseRun, g wire.Grain) (int64, error) {
	size := 0
	for _, v := range run.values {
		size += len(v)
	}
	for ; g <= wire.GrainTen; g++ {
		p, err := t.coarser(run, g)
		if err != nil {
			t.spool.log.Debug("samples not made coarser", "at", run.at[0].seq(), "err", err)
			break
		}
		raw, err := wire.Encode(p)
		if err != nil {
			return 0, err
		}
		if len(raw) < size/8*7 { // else too little to lose samples for
			return t.replace(run.at, run.values, p)
		}
	}
	return 0, t.leaveAlone(run.looseRun)
}

func (t *txn) coarser(run coarseRun, g wire.Grain) (wire.Pack, error) {
	if len(run.blocks) > 0 {
		p, err := t.packOf(run.blocks)
		if err != nil {
			return wire.Pack{}, err
		}
		run.packs = []wire.Pack{p}
	}
	if len(run.packs) == 0 {
		return wire.Pack{}, errors.New("entry is damaged")
	}
	schema, err := t.schema(run.packs[0].Schema)
	if err != nil {
		return wire.Pack{}, err
	}
	return wire.Coarsen(schema, run.packs, g)
}

// leaveAlone marks entries as not to be made coarser.
func (t *txn) leaveAlone(run looseRun) error {
	for i, v := range run.values {
		h := headOf(v)
		h.class = classOther
		if _, err := t.takeUnacked(wire.LaneTelemetry, run.at[i], v); err != nil {
			return err
		}
		if err := t.putUnacked(wire.LaneTelemetry, run.at[i], entryOf(h, v[min(unackedHead, len(v)):])); err != nil {
			return err
		}
	}
	return nil
}
