package protosim

import (
	"fmt"
	"maps"
	"slices"
)

// database is all that a backup copies.
type database struct {
	life   int // for the judge alone: grows with each restore
	server int // that the run belongs to
	lsn    uint64
	run    uint64            // the one that has not ended
	ended  map[uint64]uint64 // runs before, with their last LSN
	drawn  uint64            // of rules with sequence
	rows   map[key]grain
	counts []tallied // by record, what is derived
}

// tallied is how many samples of a record were counted, and in which detail it
// came first.
type tallied struct {
	n     int
	grain grain
}

func (d *database) count(r int) tallied {
	if r < len(d.counts) {
		return d.counts[r]
	}
	return tallied{}
}

func (d *database) copy() *database {
	c := *d
	c.ended, c.rows, c.counts = maps.Clone(d.ended), maps.Clone(d.rows), slices.Clone(d.counts)
	return &c
}

// controller is one of several processes on one database, or the only one.
type controller struct {
	up    bool
	inbox []message // DATA that came and is in no transaction yet
	job   *job
}

// job is a group commit, from the look at its messages to its answers.
type job struct {
	work     []message
	phase    phase
	run, lsn uint64
	renews   bool // it begins the run
	there    map[key]bool
}

type phase int

const (
	looks   phase = iota // outside the transaction: mutants decide here
	begins               // takes the row of run and lsn
	commits              // and gives it back
	answers
)

const groupMessages = 3 // in one commit

// startController begins a run if the database is a file: only one process has
// it, and a restored file is noticed by opening it.
func (w *world) startController(c *controller) {
	w.stopController(c)
	c.up = true
	if !w.shared {
		w.server++
		if !w.rules.sameRun || w.db.run == 0 {
			w.db.renew(w.server, w.rng.Uint64())
		}
	} else if w.db.run == 0 {
		w.db.renew(w.server, w.rng.Uint64())
	}
}

// stopController ends a process and, with it, an open transaction and the
// sessions of its own broker.
func (w *world) stopController(c *controller) {
	if w.lock == c.job {
		w.lock = nil
	}
	c.up, c.job, c.inbox = false, nil, nil
	w.sessions = slices.DeleteFunc(w.sessions, func(s session) bool { return s.node == c })
}

// breakTransactions is what a database that goes does: open ones are undone.
func (w *world) breakTransactions() {
	w.lock = nil
	for _, c := range w.controllers {
		if c.job != nil && c.job.phase == commits {
			c.job = nil
		}
	}
}

// stale reports whether the run was begun on another server than the present
// one: a restored, failed over or restarted one.
func (w *world) stale() bool {
	return w.shared && w.db.server != w.server && !w.rules.noEpoch && !w.rules.sameRun
}

// renew ends the run at what the database has and begins one.
func (d *database) renew(server int, run uint64) {
	if d.run != 0 {
		d.ended[d.run] = d.lsn
	}
	d.run, d.server = run, server
}

func (w *world) running() []*controller {
	var up []*controller
	for _, c := range w.controllers {
		if c.up {
			up = append(up, c)
		}
	}
	return up
}

// handle takes a message that has reached a controller.
func (w *world) handle(c *controller, m message) {
	switch v := m.body.(type) {
	case hello:
		if w.stale() && !w.rules.helloNoEpoch {
			if w.lock != nil { // the row is taken: later
				w.net = append(w.net, m)
				return
			}
			w.db.renew(w.server, w.rng.Uint64())
		}
		answer := welcome{nonce: v.nonce, run: w.db.run, valid: map[uint64]uint64{}, life: w.db.life}
		for _, run := range v.runs {
			if lsn, ok := w.db.ended[run]; ok {
				answer.valid[run] = lsn
			} else if run == w.db.run {
				answer.valid[run] = w.db.lsn
			}
		}
		w.publish(c, m.device, answer)
	case data:
		c.inbox = append(c.inbox, m)
	}
}

// work moves a controller's transaction on by one phase; those of others may
// come between any two.
func (w *world) work(c *controller) {
	if c.job == nil {
		if n := min(len(c.inbox), groupMessages); n > 0 {
			c.job = &job{work: slices.Clone(c.inbox[:n])}
			c.inbox = slices.Delete(c.inbox, 0, n)
		}
		return
	}
	switch j := c.job; j.phase {
	case looks:
		w.look(c, j)
	case begins:
		if w.lock != nil && w.lock != j {
			return // waits for the row
		}
		w.begin(j)
	case commits:
		if w.crashNext && w.rng.IntN(4) == 0 {
			w.crashNext = false
			w.stopController(c) // undone
			return
		}
		w.commit(j)
		if w.lock == j {
			w.lock = nil
		}
	case answers:
		w.answer(c, j)
		return
	}
	c.job.phase++
}

// look is where mutants decide what only the transaction may.
func (w *world) look(c *controller, j *job) {
	if w.rules.runOutside {
		if w.stale() && w.lock == nil {
			w.db.renew(w.server, w.rng.Uint64())
		}
		j.run = w.db.run
	}
	if w.rules.lookOutside {
		j.there = map[key]bool{}
		for _, k := range j.keys(-1) {
			_, j.there[k] = w.db.rows[k]
		}
	}
	if w.rules.eagerAck || w.rules.eagerNode && c == w.controllers[0] {
		j.run, j.lsn = w.db.run, w.db.lsn+1
		w.answers(c, j)
	}
}

func (w *world) begin(j *job) {
	if !w.rules.sequence {
		w.lock = j
	}
	j.lsn = w.db.lsn + 1
	if w.rules.sequence {
		w.db.drawn = max(w.db.drawn, w.db.lsn) + 1
		j.lsn = w.db.drawn
	}
	if w.rules.runOutside {
		return
	}
	j.run, j.renews = w.db.run, w.stale()
	if j.renews {
		j.run = w.rng.Uint64()
	}
}

// commit inserts what is not there, in one transaction.
func (w *world) commit(j *job) {
	d := w.db
	if j.renews {
		d.renew(w.server, j.run)
	}
	d.lsn = max(d.lsn, j.lsn)
	for _, m := range j.work {
		for _, p := range m.body.(data) {
			w.insert(j, p)
		}
	}
	if w.shared && !w.calm && w.rng.IntN(16) == 0 { // a replica that has just got this one
		w.backups = append(w.backups, d.copy())
	}
}

// insert is the overlap rule: each key counts once, in the detail in which it
// came first.
func (w *world) insert(j *job, p parcel) {
	d := w.db
	missing := 0
	was := make([]bool, len(p.blocks))
	for i, b := range p.blocks {
		_, was[i] = d.rows[b.key]
		if w.rules.lookOutside {
			was[i] = j.there[b.key]
		}
		if !was[i] {
			missing++
		}
	}
	for i, b := range p.blocks {
		if w.rules.wholeOnly && missing < len(p.blocks) {
			continue
		}
		first, there := d.rows[b.key]
		if !there {
			d.rows[b.key] = p.grain
		}
		if !was[i] || w.rules.deriveAlways ||
			w.rules.coarseAgain && p.grain != exact && first == exact ||
			w.rules.wholeRow && p.grain == ten && missing > 0 {
			w.countIn(b, p.grain)
		}
	}
}

func (w *world) countIn(b *block, g grain) {
	d := w.db
	for _, r := range b.recs {
		for len(d.counts) <= r {
			d.counts = append(d.counts, tallied{})
		}
		if d.counts[r].n == 0 {
			d.counts[r].grain = g
		}
		d.counts[r].n += w.fates[r].n
		w.fates[r].stored = true
	}
}

// answer sends the ACKs, unless the controller dies before all are out.
func (w *world) answer(c *controller, j *job) {
	if w.crashNext {
		w.crashNext = false
		w.fired[ackCrash]++
		j.work = j.work[:w.rng.IntN(len(j.work))]
		if !w.rules.eagerAck {
			w.answers(c, j)
		}
		w.stopController(c)
		return
	}
	if !w.rules.eagerAck {
		w.answers(c, j)
	}
	c.job = nil
}

// answers sends each device one ACK.
func (w *world) answers(c *controller, j *job) {
	var done []int
	for _, m := range j.work {
		if !slices.Contains(done, m.device) {
			done = append(done, m.device)
			w.publish(c, m.device, ack{run: j.run, lsn: j.lsn, keys: j.keys(m.device)})
		}
	}
}

// keys are those of a device, or of all.
func (j *job) keys(device int) []key {
	var keys []key
	for _, m := range j.work {
		if device < 0 || m.device == device {
			keys = append(keys, m.body.(data).keys()...)
		}
	}
	return keys
}

func (d data) keys() []key {
	var keys []key
	for _, p := range d {
		for _, b := range p.blocks {
			keys = append(keys, b.key)
		}
	}
	return keys
}

func (p parcel) String() string { return fmt.Sprintf("grain %d %v", p.grain, p.blocks) }
