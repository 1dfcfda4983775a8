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
	embedded  bool // each controller has a broker of its own; else an outside one serves all
	limited   bool // sessions of a device, by embedded brokers; an outside one takes all
	crashNext bool

	controllers []*controller
	shared      bool // one database server with several controllers; else one process with its own file
	slow        int  // steps for one phase of a transaction
	server      int  // what the database runs on: grows with each restore, failover and start of it
	db          *database
	lock        *job // the transaction that holds the row of run and lsn
	backups     []*database
	lives       int

	fates []fate // by number of record
	fired [faults]int
	sum   summary
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

// chance is true in that many of 100 cases.
func (w *world) chance(percent int) bool { return w.rng.IntN(100) < percent }

// newWorld draws what a schedule is like. Each fault is absent from some
// schedules and frequent in others, or rare ones would drown in the usual.
func newWorld(seed uint64, r rules, m mix) *world {
	w := &world{rng: rand.New(rand.NewPCG(seed, 0x65686572)), rules: r, fates: make([]fate, 1, 128)}
	room := 1 << 30
	if w.chance(m[fullDisk]) {
		room = 60 + w.rng.IntN(300)
		w.fired[fullDisk]++
	}
	for f := range m {
		w.mix[f] = m[f] * []int{0, 1, 2, 2, 5}[w.rng.IntN(5)]
	}
	w.db = &database{ended: map[uint64]uint64{}, rows: map[key]grain{}}
	w.limited = w.rng.IntN(2) == 0
	w.slow = []int{1, 1, 2, 6}[w.rng.IntN(4)]
	nodes := 1
	if w.chance(m[manyNodes]) {
		nodes = 2 + w.rng.IntN(2)
		w.fired[manyNodes]++
		w.shared, w.embedded = true, w.rng.IntN(2) == 0
		w.limited = w.limited || w.embedded
	}
	for range nodes {
		c := &controller{}
		w.controllers = append(w.controllers, c)
		w.startController(c)
	}
	w.backups = []*database{w.db.copy()}
	for i := range 1 + w.rng.IntN(2) {
		b := &box{w: w, device: i, room: room, clock: 10_000, ackPause: []int{0, 16, 48}[w.rng.IntN(3)]}
		b.start()
		b.images = []disk{{}} // as delivered by the factory
		w.boxes = append(w.boxes, b)
	}
	return w
}

// record numbers a record, or a gap, that stands for n samples.
func (w *world) record(n int) int {
	w.fates = append(w.fates, fate{n: n})
	return len(w.fates) - 1
}

// run plays the schedule, lets things calm down, and judges.
func (w *world) run() summary {
	for w.now = 1; w.now <= steps; w.now++ {
		w.step()
		w.strike()
	}
	w.calm, w.crashNext = true, false
	for _, c := range w.controllers {
		if !c.up {
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

// step lets some parts do one thing each.
func (w *world) step() {
	w.release()
	if c := w.controllers[w.rng.IntN(len(w.controllers))]; c.up && w.rng.IntN(w.slow) == 0 {
		w.work(c)
	}
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
		w.startController(w.controllers[w.rng.IntN(len(w.controllers))])
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
	case dbRestart:
		if did = w.shared; did {
			w.server++
			w.breakTransactions()
		}
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

// replaceDisk destroys what was on the old disk, is not on the new one, and is
// nowhere else.
func (w *world) replaceDisk(b *box, by disk) {
	gone := b.disk
	b.disk = by.copy()
	there := w.held()
	for _, e := range gone.held {
		for _, m := range e.members {
			for _, r := range m.recs {
				if !there[r] {
					w.fates[r].destroyed = true
				}
			}
		}
	}
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
	c := &box{w: w, device: b.device, room: b.room, ackPause: b.ackPause, clock: b.clock,
		disk: b.disk.copy(), images: b.images[:len(b.images):len(b.images)]}
	if b.mem != nil && w.rng.IntN(2) == 0 {
		c.mem = b.mem.copy()
		c.mem.conn = -1 // its connection is not that of the other
	}
	w.boxes = append(w.boxes, c)
	return true
}

// restore puts a backup in place, perhaps one of a branch that an earlier
// restore had left. With a server of its own the database may come back, or
// fail over, under running controllers; a file never does.
func (w *world) restore() {
	under := w.shared && w.rng.IntN(2) == 0
	w.breakTransactions()
	w.lives++
	w.server++
	w.db = recent(w, w.backups).copy()
	w.db.life = w.lives
	if under {
		return
	}
	for _, c := range w.controllers {
		w.stopController(c)
	}
	w.startController(w.controllers[w.rng.IntN(len(w.controllers))])
}
