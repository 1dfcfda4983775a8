package spool

import (
	"bytes"
	"maps"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/internal/wire"
)

// An ACK is kept in memory and written with the next commit, since a commit of
// its own would double what a box writes to its flash. What a crash forgets is
// sent again.
const (
	ackDelay    = time.Minute // then an ACK gets a commit of its own
	ackBytes    = 64 << 10    // so do ACKs of this many bytes
	ackEntries  = 512         // or entries
	maxPending  = 8 * ackEntries
	maxPartials = 64 // packs of which some members were acknowledged
)

// spot names an entry.
type spot struct {
	lane wire.Lane
	at   place
}

// mark is an ACK of an un-acked entry that is not written yet.
type mark struct {
	run    wire.RunID
	lsn    uint64
	blocks int64
	bytes  int64
}

// partial is a pack of which not all members were acknowledged yet.
type partial struct {
	run  wire.RunID
	lsn  uint64
	seen map[int]bool // members
}

// acks are what a transaction has not written yet.
type acks struct {
	marks    map[spot]mark
	partials map[spot]*partial
	bytes    int64
	since    time.Time // of the oldest mark
}

func newAcks() acks { return acks{marks: map[spot]mark{}, partials: map[spot]*partial{}} }

func (a *acks) add(at spot, m mark) {
	if len(a.marks) == 0 {
		a.since = time.Now()
	}
	a.marks[at] = m
	a.bytes += m.bytes
}

// due says whether the marks want a commit of their own.
func (a *acks) due() bool {
	return len(a.marks) > 0 && (a.bytes >= ackBytes || len(a.marks) >= ackEntries || time.Since(a.since) >= ackDelay)
}

// written forgets marks after the commit that wrote them.
func (a *acks) written(spots []spot, packsWent bool) {
	for _, at := range spots {
		a.bytes -= a.marks[at].bytes
		delete(a.marks, at)
	}
	if packsWent { // places may mean other packs now
		clear(a.partials)
	}
}

// withdraw forgets marks that do not hold any more and returns how many blocks
// they were.
func (a *acks) withdraw(reach map[wire.RunID]uint64) int {
	n := 0
	for at, m := range a.marks {
		if lsn, ok := reach[m.run]; !ok || m.lsn > lsn {
			n += int(m.blocks)
			a.bytes -= m.bytes
			delete(a.marks, at)
		}
	}
	clear(a.partials)
	return n
}

// member notes a member of a pack and reports whether the pack is complete, and
// whether the member is new.
func (a *acks) member(at spot, n, member int, run wire.RunID, lsn uint64) (complete, fresh bool, last uint64) {
	p := a.partials[at]
	if p == nil || p.run != run {
		if len(a.partials) >= maxPartials {
			clear(a.partials) // they will be sent again
		}
		p = &partial{run: run, seen: map[int]bool{}}
		a.partials[at] = p
	}
	fresh = !p.seen[member]
	p.seen[member], p.lsn = true, max(p.lsn, lsn)
	if len(p.seen) < n {
		return false, fresh, 0
	}
	delete(a.partials, at)
	return true, fresh, p.lsn
}

// applyAcks writes marks that cost no more than most; the first thing of a
// transaction. The others stay in t.acked: when a disk was full for long there
// are more than the file has room to copy at once.
func (t *txn) applyAcks(most int64) (written []spot, err error) {
	spots := slices.SortedFunc(maps.Keys(t.acked), func(a, b spot) int { return bytes.Compare(a.at[:], b.at[:]) })
	for _, at := range spots {
		if most <= 0 {
			break
		}
		if v := t.unacked[at.lane].Get(at.at[:]); v != nil {
			most -= cost(len(v) - unackedHead)
			m := t.acked[at]
			if err := t.ack(at.lane, at.at, bytes.Clone(v), m.run, m.lsn); err != nil {
				return nil, err
			}
		}
		written = append(written, at)
		delete(t.acked, at)
	}
	return written, nil
}

// flush writes the marks, with a commit of their own.
func (s *Spool) flush() error {
	s.mu.Lock()
	none := len(s.acks.marks) == 0
	s.mu.Unlock()
	if none {
		return nil
	}
	return s.write(func(*txn) error { return nil })
}

// waiting says whether the marks want a commit of their own, and in how long at
// the latest they will.
func (s *Spool) waiting() (due bool, in time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.acks.marks) == 0 {
		return false, ackDelay
	}
	return s.acks.due(), ackDelay - time.Since(s.acks.since)
}
