package spool

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/edgeherd/edgeherd/internal/wire"
)

// Query says which un-acked parcels to pick.
type Query struct {
	MaxParcels int                 // no more than these
	MaxBytes   int                 // as encoded; the first is picked whatever its size
	Skip       func(wire.Key) bool // those in flight; nil skips none. A pack goes with its first that is skipped
	OldFirst   bool                // telemetry begins at its old end
	EventsOnly bool
	LiveOnly   bool // beside events only what is younger than Since
	Since      Mark
}

// Mark is a moment in the life of the spool, see Now.
type Mark struct{ seq [wire.Lanes]uint64 }

// Now marks the moment.
func (s *Spool) Now() Mark {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Mark{s.state.seq}
}

// Pick returns un-acked parcels in the order in which they should be sent:
// events oldest first, then telemetry in turns from its new and its old end,
// so that a page shows the present while the backlog drains, then bulk. What
// does not read back as it was sealed is dropped with a gap.
func (s *Spool) Pick(q Query) ([]Parcel, error) {
	p := &picker{q: q}
	err := s.view(func(t *txn) error {
		p.txn = t
		p.oldestFirst(wire.LaneEvents)
		if !q.EventsOnly {
			p.telemetry()
			p.oldestFirst(wire.LaneBulk)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read spool: %w", err)
	}
	if len(p.bad) > 0 {
		if err := s.dropDamaged(p.bad); err != nil {
			return p.parcels, fmt.Errorf("drop damaged blocks: %w", err)
		}
	}
	return p.parcels, nil
}

type damaged struct {
	lane wire.Lane
	at   place
	err  error
}

type picker struct {
	*txn
	q       Query
	parcels []Parcel
	bytes   int
	full    bool
	bad     []damaged
}

func (p *picker) oldestFirst(lane wire.Lane) {
	c := p.unacked[lane].Cursor()
	k, v := c.First()
	if p.q.LiveOnly && lane != wire.LaneEvents {
		since := p.since(lane)
		k, v = c.Seek(since[:])
	}
	for ; k != nil && !p.full; k, v = c.Next() {
		p.take(lane, k, v)
	}
}

// since is the first place that is younger than Since.
func (p *picker) since(lane wire.Lane) place {
	return placeOf(p.spool.life, p.q.Since.seq[lane]+1)
}

// telemetry takes turns between both ends until they meet.
func (p *picker) telemetry() {
	young, old := p.unacked[wire.LaneTelemetry].Cursor(), p.unacked[wire.LaneTelemetry].Cursor()
	since := p.since(wire.LaneTelemetry)
	yk, yv := young.Last()
	ok, ov := old.First()
	fromOld := p.q.OldFirst
	for !p.full && yk != nil && ok != nil && bytes.Compare(yk, ok) >= 0 {
		met := bytes.Equal(yk, ok)
		if p.q.LiveOnly || !fromOld {
			if p.q.LiveOnly && bytes.Compare(yk, since[:]) < 0 {
				return
			}
			fromOld = p.take(wire.LaneTelemetry, yk, yv)
			yk, yv = young.Prev()
		} else {
			fromOld = !p.take(wire.LaneTelemetry, ok, ov)
			ok, ov = old.Next()
		}
		if met {
			return
		}
	}
}

// take adds a parcel unless it is acked or skipped. It reports whether it did.
func (p *picker) take(lane wire.Lane, k, v []byte) bool {
	at := place(k)
	if _, acked := p.acked[spot{lane, at}]; acked {
		return false
	}
	parcel, err := readParcel(v)
	if err != nil {
		p.bad = append(p.bad, damaged{lane, at, err})
		return false
	}
	if p.q.Skip != nil && slices.ContainsFunc(parcel.Keys(), p.q.Skip) {
		return false
	}
	if len(p.parcels) > 0 && p.bytes+parcel.Bytes > p.q.MaxBytes {
		p.full = true
		return false
	}
	since := p.since(lane)
	parcel.Old = lane != wire.LaneEvents && bytes.Compare(k, since[:]) < 0
	p.parcels = append(p.parcels, parcel)
	p.bytes += parcel.Bytes
	p.full = len(p.parcels) >= p.q.MaxParcels
	return true
}

func (s *Spool) dropDamaged(bad []damaged) error {
	defer s.signal()
	return s.write(func(t *txn) error {
		lost := gaps{}
		for _, d := range bad {
			v := t.unacked[d.lane].Get(d.at[:])
			if v == nil {
				continue
			}
			s.log.Error("stored block is damaged and dropped", "lane", d.lane, "seq", d.at.seq(), "err", d.err)
			if err := t.tell(lost, wire.ReasonCorrupt, d.lane, d.at, v); err != nil {
				return err
			}
			if _, err := t.dropUnacked(d.lane, d.at, v); err != nil {
				return err
			}
		}
		return lost.each(t.appendGap)
	})
}

// Schemas returns the schemas with these ids, as far as they are stored.
func (s *Spool) Schemas(ids ...wire.SchemaID) ([]wire.Schema, error) {
	var list []wire.Schema
	err := s.view(func(t *txn) error {
		for _, id := range ids {
			if t.schemas.Get(id[:]) == nil {
				continue
			}
			schema, err := t.schema(id)
			if err != nil {
				return err
			}
			list = append(list, schema)
		}
		return nil
	})
	return list, err
}

// Streams tells which blocks the file holds, youngest lives first, at most
// wire.MaxStreams entries.
func (s *Spool) Streams() []wire.SIDRange {
	var list []wire.SIDRange
	err := s.view(func(t *txn) error {
		c := t.lives.Cursor()
		for k, v := c.Last(); k != nil; k, v = c.Prev() {
			l, err := decodeLife(v)
			if err != nil {
				return err
			}
			for lane := range wire.Lane(wire.Lanes) {
				if l.Blocks[lane] == 0 {
					continue
				}
				if len(list) == wire.MaxStreams {
					return nil
				}
				lo, hi := t.extent(lane, binary.BigEndian.Uint32(k))
				list = append(list, wire.SIDRange{SID: l.SID, Lane: lane, Lo: lo, Hi: hi, Count: l.Blocks[lane]})
			}
		}
		return nil
	})
	if err != nil {
		s.log.Warn("streams not readable", "err", err)
	}
	return list
}

// extent is the lowest and the highest Seq of a life in a lane.
func (t *txn) extent(lane wire.Lane, number uint32) (lo, hi uint64) {
	first, end := placeOf(number, 0), placeOf(number+1, 0)
	for i, bucket := range []*bbolt.Bucket{t.unacked[lane], t.window[lane]} {
		c := bucket.Cursor()
		if k, _ := c.Seek(first[:]); k != nil && place(k).life() == number {
			if seq := place(k).seq(); lo == 0 || seq < lo {
				lo = seq
			}
		}
		last := c.Prev
		if k, _ := c.Seek(end[:]); k == nil {
			last = c.Last
		}
		k, v := last()
		// The last entry need not have the last Seq: a pack before it may go on.
		for ; k != nil && place(k).life() == number && place(k).seq()+maxSpan > hi; k, v = c.Prev() {
			h := headOf(v[i*(windowHead-unackedHead):])
			hi = max(hi, place(k).seq()+uint64(h.span))
		}
	}
	return lo, hi
}

// Buffer tells how full the spool is.
func (s *Spool) Buffer() wire.Buffer {
	var b wire.Buffer
	err := s.view(func(t *txn) error {
		c := t.state.counts
		b.DroppedBlocks = c.Dropped
		for lane := range wire.Lane(wire.Lanes) {
			b.Blocks += c.Blocks[lane]
			b.Bytes += c.Bytes[lane]
			b.Window += c.WindowBlocks[lane]
			cursor := t.unacked[lane].Cursor()
			k, v := cursor.First()
			for ; k != nil; k, v = cursor.Next() {
				if _, acked := t.acked[spot{lane, place(k)}]; !acked {
					break
				}
			}
			if k == nil {
				continue
			}
			if p, err := readParcel(v); err == nil && (b.OldestMs == 0 || p.wallMs() < b.OldestMs) {
				b.OldestMs = p.wallMs()
			}
		}
		for _, m := range t.acked {
			b.Blocks, b.Bytes, b.Window = b.Blocks-m.blocks, b.Bytes-m.bytes, b.Window+m.blocks
		}
		return nil
	})
	if err != nil {
		s.log.Warn("spool not readable", "err", err)
	}
	b.Disk = s.refusal()
	return b
}
