package spool

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/edgeherd/edgeherd/internal/wire"
)

// Query says which un-acked blocks to pick.
type Query struct {
	MaxBlocks int                 // no more than these
	MaxBytes  int                 // as encoded; the first block is picked whatever its size
	Skip      func(wire.Key) bool // those in flight; nil skips none
	OldFirst  bool                // telemetry begins at its old end
	LiveOnly  bool                // of telemetry only what is younger than Since
	Since     Mark
}

// Mark is a moment in the life of the spool, see Now.
type Mark struct{ telemetry uint64 }

// Now marks the moment.
func (s *Spool) Now() Mark {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Mark{telemetry: s.state.seq[wire.LaneTelemetry]}
}

// Pick returns un-acked blocks in the order in which they should be sent:
// events oldest first, then telemetry in turns from its new and its old end,
// so that a page shows the present while the backlog drains, then bulk. Blocks
// that do not read back as they were sealed are dropped with a gap.
func (s *Spool) Pick(q Query) ([]wire.Block, error) {
	p := &picker{q: q}
	err := s.view(func(t *txn) error {
		p.oldestFirst(t.unacked[wire.LaneEvents], wire.LaneEvents)
		p.telemetry(t)
		if !q.LiveOnly {
			p.oldestFirst(t.unacked[wire.LaneBulk], wire.LaneBulk)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read spool: %w", err)
	}
	if len(p.bad) > 0 {
		if err := s.dropDamaged(p.bad); err != nil {
			return p.blocks, fmt.Errorf("drop damaged blocks: %w", err)
		}
	}
	return p.blocks, nil
}

type damaged struct {
	lane wire.Lane
	at   place
	err  error
}

type picker struct {
	q      Query
	blocks []wire.Block
	bytes  int
	full   bool
	bad    []damaged
}

func (p *picker) oldestFirst(bucket *bbolt.Bucket, lane wire.Lane) {
	c := bucket.Cursor()
	for k, v := c.First(); k != nil && !p.full; k, v = c.Next() {
		p.take(lane, k, v)
	}
}

// telemetry takes turns between both ends until they meet.
func (p *picker) telemetry(t *txn) {
	young, old := t.unacked[wire.LaneTelemetry].Cursor(), t.unacked[wire.LaneTelemetry].Cursor()
	since := placeOf(t.spool.life, p.q.Since.telemetry)
	yk, yv := young.Last()
	ok, ov := old.First()
	fromOld := p.q.OldFirst
	for !p.full && yk != nil && ok != nil && bytes.Compare(yk, ok) >= 0 {
		met := bytes.Equal(yk, ok)
		if p.q.LiveOnly || !fromOld {
			if p.q.LiveOnly && bytes.Compare(yk, since[:]) <= 0 {
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

// take adds a block unless it is skipped. It reports whether it did.
func (p *picker) take(lane wire.Lane, k, v []byte) bool {
	b, err := readBlock(v)
	if err != nil {
		p.bad = append(p.bad, damaged{lane, place(k), err})
		return false
	}
	if p.q.Skip != nil && p.q.Skip(b.Key) {
		return false
	}
	size := len(v) - unackedHead
	if len(p.blocks) > 0 && p.bytes+size > p.q.MaxBytes {
		p.full = true
		return false
	}
	p.blocks = append(p.blocks, b)
	p.bytes += size
	p.full = len(p.blocks) >= p.q.MaxBlocks
	return true
}

func readBlock(v []byte) (wire.Block, error) {
	if len(v) < unackedHead {
		return wire.Block{}, fmt.Errorf("entry of %d bytes", len(v))
	}
	b, err := wire.Decode[wire.Block](v[unackedHead:])
	if err != nil {
		return wire.Block{}, err
	}
	return b, b.Verify()
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
			raw := t.schemas.Get(id[:])
			if raw == nil {
				continue
			}
			schema, err := wire.Decode[wire.Schema](raw)
			if err != nil {
				return fmt.Errorf("schema %s: %w", id, err)
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
	for _, bucket := range []*bbolt.Bucket{t.unacked[lane], t.window[lane]} {
		c := bucket.Cursor()
		if k, _ := c.Seek(first[:]); k != nil && place(k).life() == number {
			if seq := place(k).seq(); lo == 0 || seq < lo {
				lo = seq
			}
		}
		k, _ := c.Seek(end[:])
		if k == nil {
			k, _ = c.Last()
		} else {
			k, _ = c.Prev()
		}
		if k != nil && place(k).life() == number {
			hi = max(hi, place(k).seq())
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
		for lane := range wire.Lanes {
			b.Blocks += c.Blocks[lane]
			b.Bytes += c.Bytes[lane]
			b.Window += c.WindowBlocks[lane]
			if k, v := t.unacked[lane].Cursor().First(); k != nil {
				if block, err := readBlock(v); err == nil && (b.OldestMs == 0 || block.WallMs < b.OldestMs) {
					b.OldestMs = block.WallMs
				}
			}
		}
		return nil
	})
	if err != nil {
		s.log.Warn("spool not readable", "err", err)
	}
	return b
}
