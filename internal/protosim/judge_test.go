package protosim

// fate is what the judge knows of a record, and nobody else.
type fate struct {
	n         int // samples
	gap       bool
	stored    bool  // at some time, in some database
	destroyed bool  // the last disk that held it was replaced
	room      bool  // left a window that was full, while the box had reason to believe it stored
	wronged   bool  // deleted though the box could know better
	toldBy    []int // gaps that tell of it
}

// summary counts what happened to records and gaps.
type summary struct {
	records, gaps                       int // appended
	evicted, packed, coarsened, dropped int
	withdrawn                           int
	fine, coarse                        int // at the end
	told, destroyed, beyond, lost       int
	doubled                             int
	hasty                               int // waiting blocks made coarse or dropped though the window had room to give
	stuck                               int // blocks that found no rest
	taken, counted                      int // samples
}

func (s *summary) add(o summary) {
	for to, n := range map[*int]int{
		&s.records: o.records, &s.gaps: o.gaps, &s.evicted: o.evicted, &s.packed: o.packed, &s.coarsened: o.coarsened,
		&s.dropped: o.dropped, &s.withdrawn: o.withdrawn, &s.fine: o.fine, &s.coarse: o.coarse, &s.told: o.told,
		&s.destroyed: o.destroyed, &s.beyond: o.beyond, &s.lost: o.lost, &s.doubled: o.doubled, &s.hasty: o.hasty,
		&s.stuck: o.stuck, &s.taken: o.taken, &s.counted: o.counted,
	} {
		*to += n
	}
}

// bad reports what must not happen.
func (s summary) bad() bool {
	return s.lost > 0 || s.doubled > 0 || s.stuck > 0 || s.hasty > 0 || s.counted > s.taken
}

// held tells which records some disk has.
func (w *world) held() []bool {
	held := make([]bool, len(w.fates))
	for _, b := range w.boxes {
		for _, e := range b.disk.held {
			for _, m := range e.members {
				for _, r := range m.recs {
					held[r] = true
				}
			}
		}
	}
	return held
}

// leftWindow judges an eviction from the window. A box may believe an ACK until
// a WELCOME of the present life of the database has told it otherwise.
func (w *world) leftWindow(b *box, recs []int) {
	for _, r := range recs {
		f := &w.fates[r]
		if !f.stored || w.db.count(r).n == 0 && b.disk.knows == w.db.life {
			f.wronged = true
		} else {
			f.room = true
		}
	}
}

// settled: every box has heard of the database as it is, nothing waits, and
// nothing is under way.
func (w *world) settled() bool {
	for _, c := range w.controllers {
		if c.job != nil || len(c.inbox) > 0 {
			return false
		}
	}
	for _, m := range w.net {
		if _, ok := m.body.(data); ok {
			return false
		}
	}
	for _, b := range w.boxes {
		if b.mem == nil || b.disk.knows != w.db.life {
			return false
		}
		for _, e := range b.disk.held {
			if !e.acked() {
				return false
			}
		}
	}
	return true
}

// judge counts what became of each record and each gap.
func (w *world) judge() {
	s := &w.sum
	for _, b := range w.boxes {
		for _, e := range b.disk.held {
			if !e.acked() {
				s.stuck++
			}
		}
	}
	held := w.held()
	ends := make([]*int, len(w.fates)) // gaps are younger than what they tell of
	for r := len(w.fates) - 1; r > 0; r-- {
		f, got := &w.fates[r], w.db.count(r)
		if !f.gap {
			s.taken += f.n
			s.counted += got.n
		}
		end := &s.lost
		switch {
		case got.n >= f.n && got.grain == exact:
			end = &s.fine
		case got.n >= f.n:
			end = &s.coarse
		case got.n > 0 || held[r] || f.wronged: // some of its samples, or it could know better
		case w.toldOf(f, ends, &s.fine):
			end = &s.told
		case f.destroyed || w.toldOf(f, ends, &s.destroyed):
			end = &s.destroyed
		case f.room || w.toldOf(f, ends, &s.beyond):
			end = &s.beyond
		}
		*end++
		ends[r] = end
		if got.n > f.n {
			s.doubled++
			w.logf("DOUBLED: record %d, %d samples are counted as %d", r, f.n, got.n)
		}
		if end == &s.lost {
			w.logf("LOST: record %d, %+v", r, *f)
		}
	}
}

// toldOf reports whether a gap that tells of the record had that end.
func (w *world) toldOf(f *fate, ends []*int, end *int) bool {
	for _, gap := range f.toldBy {
		if ends[gap] == end {
			return true
		}
	}
	return false
}
