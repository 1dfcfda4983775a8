package protosim

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// world is one schedule.
type world struct {
	rng   *rand.Rand
	rules rules
	mix   mix
	log   func(string) // nil: nothing is told
	now   int
	calm  bool // no faults any more

	boxes     []*box
	net       []message
	late      []message // kept back
	sessions  []session
	conns     int
	limited   bool // sessions of a device, by the embedded broker; an outside one takes all
	crashNext bool

	controllers []*controller
	ownRuns     bool
	db          *database
	backups     []*database
	lives       int

	fates []fate // by number of record
	fired [faults]int
	sum   summary
}

// fate is what the judge knows of a record, and nobody else.
type fate struct {
	stored    bool  // at some time, in some database
	destroyed bool  // a disk that held it was replaced
	room      bool  // left a window because its room was needed, while the box had reason to believe it stored
	wronged   bool  // deleted though the box could know better
	toldBy    []int // gaps that tell of it
}

// summary counts what happened to records and gaps.
type summary struct {
	records, gaps                                  int // appended
	evicted, dropped, withdrawn                    int
	stored, told, destroyed, beyond, lost, doubled int // at the end
	stuck                                          int // blocks that found no rest
}

func (s *summary) add(o summary) {
	s.records += o.records
	s.gaps += o.gaps
	s.evicted += o.evicted
	s.dropped += o.dropped
	s.withdrawn += o.withdrawn
	s.stored += o.stored
	s.told += o.told
	s.destroyed += o.destroyed
	s.beyond += o.beyond
	s.lost += o.lost
	s.doubled += o.doubled
	s.stuck += o.stuck
}

const (
	steps     = 600
	calmSteps = 20_000 // at most, until nothing moves any more
	maxBoxes  = 5
)

func (w *world) logf(format string, args ...any) {
	if w.log != nil {
		w.log(fmt.Sprintf("%4d ", w.now) + fmt.Sprintf(format, args...))
	}
}

// newWorld draws what a schedule is like. Each fault is absent from some
// schedules and frequent in others, or rare ones would drown in the usual.
func newWorld(seed uint64, r rules, m mix) *world {
	w := &world{rng: rand.New(rand.NewPCG(seed, 0x65686572)), rules: r, fates: make([]fate, 1, 128)}
	room := 1 << 30
	if w.rng.IntN(100) < m[fullDisk] {
		room = 8 + w.rng.IntN(30)
		w.fired[fullDisk]++
	}
	for f := range m {
		w.mix[f] = m[f] * []int{0, 1, 2, 2, 5}[w.rng.IntN(5)]
	}
	w.db = &database{ended: map[uint64]uint64{}, rows: map[key]bool{}, counts: map[int]int{}}
	w.backups = []*database{w.db.copy()}
	w.ownRuns, w.limited = w.rng.IntN(2) == 0, w.rng.IntN(2) == 0
	for range 1 + w.rng.IntN(3) {
		c := &controller{}
		w.controllers = append(w.controllers, c)
		w.startController(c)
	}
	for i := range 1 + w.rng.IntN(2) {
		b := &box{w: w, device: i, room: room, clock: 10_000}
		b.start()
		b.images = []disk{{}} // as delivered by the factory
		w.boxes = append(w.boxes, b)
	}
	return w
}

// record numbers a record, or a gap.
func (w *world) record() int {
	w.fates = append(w.fates, fate{})
	return len(w.fates) - 1
}

// run plays the schedule, lets things calm down, and judges.
func (w *world) run() summary {
	for w.now = 1; w.now <= steps; w.now++ {
		w.step()
		w.strike()
	}
	w.calm = true
	if w.ownRuns { // see runOf
		w.controllers = w.controllers[:1]
	}
	for _, c := range w.controllers {
		if !c.up || w.ownRuns {
			w.startController(c)
		}
	}
	for ; w.now < steps+calmSteps && !(w.now%16 == 0 && w.settled()); w.now++ {
		w.step()
	}
	w.judge()
	return w.sum
}

func (w *world) anyBox() *box { return w.boxes[w.rng.IntN(len(w.boxes))] }

// step lets one part do one thing.
func (w *world) step() {
	w.release()
	switch n := w.rng.IntN(100); {
	case n < 55 && len(w.net) > 0:
		w.deliver()
	case n < 85:
		w.anyBox().tick()
	case n < 97:
		if b := w.anyBox(); b.mem != nil && !w.calm {
			b.append([]int{0, 1, 1, 1, 1, 2}[w.rng.IntN(6)])
		}
	case n < 99:
		w.reap()
	default:
		if c := w.controllers[w.rng.IntN(len(w.controllers))]; !c.up {
			w.startController(c)
		}
	}
}

// strike makes images, snapshots and backups, and lets faults happen.
func (w *world) strike() {
	switch w.rng.IntN(60) {
	case 0:
		b := w.anyBox()
		b.images = append(b.images, b.disk.copy())
	case 1:
		if b := w.anyBox(); b.mem != nil {
			b.snapshots = append(b.snapshots, snapshot{b.disk.copy(), b.mem.copy()})
		}
	case 2:
		w.backups = append(w.backups, w.db.copy())
	}
	n := w.rng.IntN(2 * steps) // newWorld doubles weights on average
	for f, weight := range w.mix[:fullDisk] {
		if n -= weight; n < 0 {
			w.happen(fault(f))
			return
		}
	}
}

func (w *world) happen(f fault) {
	b := w.anyBox()
	did := true
	switch f {
	case kill:
		did = b.mem != nil
		b.mem = nil
	case cut:
		if did = w.sessionOf(b) != nil; did && w.rng.IntN(2) == 0 {
			w.endSession(b.mem.conn)
		} else if did {
			b.disconnect()
		}
	case drop, dup, delay:
		if did = len(w.net) > 0; did {
			w.disturb(f)
		}
	case brokerLoss:
		w.net, w.late, w.sessions = nil, nil, nil
	case ackCrash: // counted when it happens
		did, w.crashNext = false, true
	case restart:
		c := w.controllers[w.rng.IntN(len(w.controllers))]
		w.startController(c)
	case diskImage:
		w.replaceDisk(b, recent(w, b.images))
		b.mem = nil
	case memSnapshot:
		if did = len(b.snapshots) > 0; did {
			s := recent(w, b.snapshots)
			w.replaceDisk(b, s.disk)
			b.mem = s.mem.copy()
		}
	case clone:
		did = w.clone(b)
	case dbRestore:
		w.restore()
	case clockStep:
		b.clock += w.rng.IntN(41) - 30 // rather back than forth
	}
	if did {
		w.fired[f]++
		w.logf("FAULT %s, box %d", f, b.number())
	}
}

// recent prefers young ones: what came after them is often still under way.
func recent[T any](w *world, list []T) T {
	return list[len(list)-1-min(w.rng.IntN(len(list)), w.rng.IntN(len(list)))]
}

func (w *world) disturb(f fault) {
	i := w.rng.IntN(len(w.net))
	if f == dup {
		w.net = append(w.net, w.net[i])
		return
	}
	m := w.take(i)
	if f == delay {
		m.due = w.now + w.rng.IntN(300)
		w.late = append(w.late, m)
	}
}

// take removes a message.
func (w *world) take(i int) message {
	m := w.net[i]
	last := len(w.net) - 1
	w.net[i] = w.net[last]
	w.net[last] = message{}
	w.net = w.net[:last]
	return m
}

// release lets go what was kept back.
func (w *world) release() {
	w.late = slices.DeleteFunc(w.late, func(m message) bool {
		if m.due > w.now {
			return false
		}
		w.net = append(w.net, m)
		return true
	})
}

func (w *world) replaceDisk(b *box, by disk) {
	there := map[int]bool{}
	for _, e := range by.held {
		for _, r := range e.recs {
			there[r] = true
		}
	}
	for _, e := range b.disk.held {
		for _, r := range e.recs {
			if !there[r] {
				w.fates[r].destroyed = true
			}
		}
	}
	b.disk = by.copy()
	if w.rng.IntN(2) == 0 { // no clock of its own: time goes on from what the disk has seen
		b.clock = by.stamp/stampsPerTick - w.now/tickSteps
	}
}

func (w *world) clone(b *box) bool {
	n := 0
	for _, o := range w.boxes {
		if o.device == b.device {
			n++
		}
	}
	// Of three clones and more, the limit lets one wait for a day and longer.
	if len(w.boxes) == maxBoxes || w.limited && n == maxSessions {
		return false
	}
	c := &box{w: w, device: b.device, room: b.room, clock: b.clock, disk: b.disk.copy(), images: b.images[:len(b.images):len(b.images)]}
	if b.mem != nil && w.rng.IntN(2) == 0 {
		c.mem = b.mem.copy()
		c.mem.conn = -1 // its connection is not that of the other
	}
	w.boxes = append(w.boxes, c)
	return true
}

// restore puts a backup in place, perhaps one of a branch that an earlier
// restore had left.
func (w *world) restore() {
	for _, c := range w.controllers {
		c.up = false
	}
	w.lives++
	w.db = recent(w, w.backups).copy()
	w.db.life = w.lives
	w.startController(w.controllers[w.rng.IntN(len(w.controllers))])
}

// leftWindow judges an eviction from the window. A box may believe an ACK until
// a WELCOME of the present life of the database has told it otherwise.
func (w *world) leftWindow(b *box, e entry) {
	for _, r := range e.recs {
		f := &w.fates[r]
		if !f.stored || w.db.counts[r] == 0 && b.disk.knows == w.db.life {
			f.wronged = true
		} else {
			f.room = true
		}
	}
}

// settled: every box has heard of the database as it is, and nothing waits.
func (w *world) settled() bool {
	for _, b := range w.boxes {
		if b.mem == nil || b.disk.knows != w.db.life {
			return false
		}
		for _, e := range b.disk.held {
			if !e.acked {
				return false
			}
		}
	}
	return true
}

// judge counts what became of each record and each gap.
func (w *world) judge() {
	held := make([]bool, len(w.fates))
	for _, b := range w.boxes {
		for _, e := range b.disk.held {
			if !e.acked {
				w.sum.stuck++
			}
			for _, r := range e.recs {
				held[r] = true
			}
		}
	}
	ends := make([]*int, len(w.fates)) // gaps are younger than what they tell of
	s := &w.sum
	for r := len(w.fates) - 1; r > 0; r-- {
		f := &w.fates[r]
		end := &s.lost
		switch {
		case w.db.counts[r] > 0:
			end = &s.stored
		case held[r] || f.wronged:
		case w.toldOf(f, ends, &s.stored):
			end = &s.told
		case f.destroyed || w.toldOf(f, ends, &s.destroyed):
			end = &s.destroyed
		case f.room || w.toldOf(f, ends, &s.beyond):
			end = &s.beyond
		}
		*end++
		ends[r] = end
		if w.db.counts[r] > 1 {
			s.doubled++
			w.logf("DOUBLED: record %d", r)
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
