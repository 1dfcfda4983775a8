package protosim

import (
	"fmt"
	"maps"
	"slices"
)

const lanes = 3

// key names a block for the database; rules leave parts of it zero.
type key struct {
	device    int
	sid       uint64
	lane      int
	seq, hash uint64
	stamp     int
}

// block is what a box sends. It holds records by number: one, unless it was
// re-packed. A gap tells of records, its own number is a record as well.
type block struct {
	key   key
	lane  int
	recs  []int
	gap   bool
	tells []int
}

// entry is a block on disk; acked, it is part of the window.
type entry struct {
	*block
	acked    bool
	run, lsn uint64
}

// disk survives the process. It is copied for images.
type disk struct {
	held []entry // oldest first
	sid  uint64  // of rules with seqOnDisk, as is seq
	seq  [lanes]uint64
	// stamp is the last timestamp given out: two blocks of one box differ in
	// it as long as the clock does not step.
	stamp int
	// knows is for the judge alone: the last life of the database that a
	// WELCOME has told this disk of.
	knows int
}

func (b *block) String() string {
	kind := "records"
	if b.gap {
		kind = fmt.Sprintf("gap of %v as record", b.tells)
	}
	return fmt.Sprintf("{%s %v, key %d/%04x/%d/%d/%04x at %d}", kind, b.recs, b.key.device, b.key.sid>>48, b.lane, b.key.seq, b.key.hash>>48, b.key.stamp)
}

func (d disk) copy() disk {
	d.held = slices.Clone(d.held)
	return d
}

type flight struct{ due, tries int }

// memory is the process. It is copied for snapshots.
type memory struct {
	sid  uint64
	seq  [lanes]uint64
	conn int // 0: none
	// of the connection
	since                        int
	nonce                        uint64
	helloAt, helloNext           int
	waiting, confirmed, progress bool
	run                          uint64
	flights                      map[key]flight
	oldFirst                     bool
	// between connections
	retryAt, limit int
}

func (m *memory) copy() *memory {
	if m == nil {
		return nil
	}
	c := *m
	c.flights = maps.Clone(m.flights)
	return &c
}

// box is a device or one of its clones, which share its certificate.
type box struct {
	w      *world
	device int
	room   int // blocks that fit
	clock  int // what it is wrong by, in ticks
	disk   disk
	mem    *memory // nil: not running

	images    []disk
	snapshots []snapshot
}

type snapshot struct {
	disk disk
	mem  *memory
}

// Times in steps of the world.
const (
	repeatAfter  = 24 // a block in flight goes out again
	repeatMax    = 200
	welcomeAfter = 60 // no WELCOME: the connection ends
	lasting      = 60 // a connection as long as this was a good one
	helloEvery   = 90
	helloPause   = 5
	tickSteps    = 8 // resolution of clocks: clones and stepped clocks meet in it
)

const (
	windowBlocks  = 4 // in flight
	dataBlocks    = 3 // in one DATA
	maxSessions   = 2 // of a device
	stampsPerTick = 64
)

func (b *box) number() int { return slices.Index(b.w.boxes, b) }

func (b *box) start() {
	m := &memory{sid: b.w.rng.Uint64(), limit: 2, flights: map[key]flight{}}
	if b.w.rules.seqOnDisk {
		if b.disk.sid == 0 {
			b.disk.sid = m.sid
		}
		m.sid = b.disk.sid
	}
	b.mem = m
}

// key seals: the hash is of the content, which the records stand for.
func (b *box) key(lane int, recs []int) key {
	seq := &b.mem.seq[lane]
	if b.w.rules.seqOnDisk {
		seq = &b.disk.seq[lane]
	}
	*seq++
	tick := (b.w.now/tickSteps + b.clock) * stampsPerTick
	if b.disk.stamp/stampsPerTick == tick/stampsPerTick {
		tick = b.disk.stamp + 1
	}
	b.disk.stamp = tick
	h := uint64(0)
	for _, r := range recs {
		h = (h ^ uint64(r)) * 0x9e3779b97f4a7c15
		h ^= h >> 29
	}
	switch b.w.rules.key {
	case keyDeviceSeq:
		return key{device: b.device, lane: lane, seq: *seq}
	case keySIDSeq:
		return key{device: b.device, sid: b.mem.sid, lane: lane, seq: *seq}
	case keyDeviceTime:
		return key{device: b.device, stamp: tick}
	}
	return key{device: b.device, sid: b.mem.sid, lane: lane, seq: *seq, hash: h}
}

// put stores a new block; from here on it is promised.
func (b *box) put(lane int, recs []int, tells []int, gap bool) {
	n := &block{key: b.key(lane, recs), lane: lane, recs: recs, gap: gap, tells: tells}
	b.disk.held = append(b.disk.held, entry{block: n})
	if b.w.log != nil {
		b.w.logf("box %d keeps %v", b.number(), n)
	}
}

// append makes room and stores one record.
func (b *box) append(lane int) {
	if over := len(b.disk.held) + 1 - b.room; over > 0 {
		b.evict(over)
	}
	b.put(lane, []int{b.w.record()}, nil, false)
	b.w.sum.records++
}

// evict drops blocks: the window, bulk first, events last; then events beyond
// their quota, bulk, telemetry, with a gap. There is always enough: the quota
// is a fraction of the room.
func (b *box) evict(need int) {
	spare := b.w.rng.IntN(2)
	doomed := map[int]bool{}
	take := func(lane int, acked bool) bool {
		for i, e := range b.disk.held {
			if e.lane == lane && e.acked == acked && !doomed[i] {
				doomed[i] = true
				return true
			}
		}
		return false
	}
	for lane := lanes - 1; lane >= 0; lane-- {
		for len(doomed) < need+spare && take(lane, true) {
		}
	}
	if len(doomed) < need {
		events := 0
		for _, e := range b.disk.held {
			if e.lane == 0 && !e.acked {
				events++
			}
		}
		for len(doomed) < need+2*spare {
			if events > b.quota() && take(0, false) {
				events--
			} else if !take(2, false) && !take(1, false) {
				break
			}
		}
	}
	b.dropAll(doomed)
}

func (b *box) quota() int { return max(b.room/10, 2) }

func (b *box) dropAll(doomed map[int]bool) {
	var kept []entry
	var tells []int
	for i, e := range b.disk.held {
		switch {
		case !doomed[i]:
			kept = append(kept, e)
		case e.acked:
			if b.w.log != nil {
				b.w.logf("box %d drops %v of its window", b.number(), e.block)
			}
			b.w.sum.evicted++
			b.w.leftWindow(b, e)
		default:
			b.w.sum.dropped++
			tells = append(tells, e.recs...)
			if !b.w.rules.forgetGap {
				tells = append(tells, e.tells...)
			}
		}
	}
	b.disk.held = kept
	if len(tells) == 0 || b.w.rules.silent {
		return
	}
	gap := b.w.record()
	for _, r := range tells {
		b.w.fates[r].toldBy = append(b.w.fates[r].toldBy, gap)
	}
	b.put(0, []int{gap}, tells, true)
	b.w.sum.gaps++
}

// repack is what the protocol forbids: blocks that may be stored already, their
// ACK lost, go out again under a key of their own.
func (b *box) repack() {
	var kept []entry
	var recs []int
	for _, e := range b.disk.held {
		if e.lane == 1 && !e.acked && len(recs) < 3 {
			recs = append(recs, e.recs...)
		} else {
			kept = append(kept, e)
		}
	}
	if len(recs) >= 2 {
		b.disk.held = kept
		b.put(1, recs, nil, false)
	}
}

// tick is one look of the agent at its work.
func (b *box) tick() {
	w, m := b.w, b.mem
	if m == nil {
		b.start()
		return
	}
	if m.conn != 0 && w.sessionOf(b) == nil {
		b.disconnect()
	}
	if m.conn == 0 {
		if w.now >= m.retryAt {
			b.connect()
		}
		return
	}
	if m.waiting && w.now-m.helloAt > welcomeAfter {
		w.endSession(m.conn)
		b.disconnect()
		return
	}
	if !m.waiting && w.now >= m.helloNext {
		b.hello()
	}
	if w.rules.repack && !w.calm && w.rng.IntN(8) == 0 {
		b.repack()
	}
	if m.confirmed {
		b.send()
	}
}

// disconnect forgets the conversation; what goes on is the wait, doubled unless
// something was acknowledged.
func (b *box) disconnect() {
	m := b.mem
	if m.progress || m.conn > 0 && b.w.now-m.since > lasting {
		m.limit = 2
	}
	m.retryAt = b.w.now + 1 + b.w.rng.IntN(m.limit)
	m.limit = min(m.limit*2, 200)
	*m = memory{sid: m.sid, seq: m.seq, retryAt: m.retryAt, limit: m.limit, flights: map[key]flight{}}
}

func (b *box) connect() {
	if conn := b.w.openSession(b); conn != 0 {
		b.mem.conn, b.mem.since = conn, b.w.now
		b.hello()
	} else {
		b.disconnect()
	}
}

func (b *box) hello() {
	m := b.mem
	m.nonce, m.waiting = b.w.rng.Uint64(), true
	m.helloAt, m.helloNext = b.w.now, b.w.now+helloEvery
	h := hello{nonce: m.nonce}
	for _, e := range b.disk.held {
		if e.acked && !slices.Contains(h.runs, e.run) {
			h.runs = append(h.runs, e.run)
		}
	}
	b.publish(h)
}

func (b *box) publish(v any) {
	b.w.net = append(b.w.net, message{leg: toBroker, conn: b.mem.conn, device: b.device, body: v})
}

// send fills the window of blocks in flight: events oldest first, telemetry in
// turns from both ends, bulk.
func (b *box) send() {
	m := b.mem
	free := windowBlocks
	for _, f := range m.flights {
		if b.w.now < f.due {
			free--
		}
	}
	var order, telemetry, bulk []*block
	for _, e := range b.disk.held {
		if f, ok := m.flights[e.key]; e.acked || ok && b.w.now < f.due {
			continue
		}
		switch e.lane {
		case 0:
			order = append(order, e.block)
		case 1:
			telemetry = append(telemetry, e.block)
		default:
			bulk = append(bulk, e.block)
		}
	}
	for ; len(telemetry) > 0; m.oldFirst = !m.oldFirst {
		last := len(telemetry) - 1
		if m.oldFirst {
			order, telemetry = append(order, telemetry[0]), telemetry[1:]
		} else {
			order, telemetry = append(order, telemetry[last]), telemetry[:last]
		}
	}
	order = append(order, bulk...)
	if n := min(len(order), free, 1+b.w.rng.IntN(dataBlocks)); n > 0 {
		for _, x := range order[:n] {
			f := m.flights[x.key]
			m.flights[x.key] = flight{due: b.w.now + min(repeatAfter<<f.tries, repeatMax), tries: min(f.tries+1, 8)}
		}
		b.publish(data(order[:n]))
	}
}

// receive handles what the broker brings.
func (b *box) receive(v any) {
	switch v := v.(type) {
	case welcome:
		b.onWelcome(v)
	case ack:
		b.onAck(v)
	case puback:
		if b.w.rules.deleteAtPuback {
			b.forget(v.keys)
		}
	}
}

// forget deletes blocks while there is room for them.
func (b *box) forget(keys []key) {
	b.disk.held = slices.DeleteFunc(b.disk.held, func(e entry) bool {
		if !slices.Contains(keys, e.key) {
			return false
		}
		for _, r := range e.recs {
			b.w.fates[r].wronged = true
		}
		return true
	})
}

func (b *box) onWelcome(v welcome) {
	m := b.mem
	if v.nonce != m.nonce || !m.waiting && !b.w.rules.everyWelcome {
		return
	}
	for i, e := range b.disk.held {
		lsn, known := v.valid[e.run]
		if e.acked && !b.w.rules.noLineage && (!known || e.lsn > lsn && !b.w.rules.noLSN) {
			b.disk.held[i].acked = false
			b.w.sum.withdrawn++
		}
	}
	if v.run != m.run {
		clear(m.flights)
	}
	m.run, m.waiting, m.confirmed = v.run, false, true
	b.disk.knows = max(b.disk.knows, v.life)
}

func (b *box) onAck(v ack) {
	m := b.mem
	if (!m.confirmed || v.run != m.run) && !b.w.rules.anyRun {
		m.confirmed = false
		if m.waiting || b.w.now-m.helloAt < helloPause {
			m.helloNext = m.helloAt + helloPause
		} else {
			b.hello()
		}
		return
	}
	for i, e := range b.disk.held {
		if !e.acked && slices.Contains(v.keys, e.key) {
			b.disk.held[i].acked, b.disk.held[i].run, b.disk.held[i].lsn = true, v.run, v.lsn
			m.progress = true
		}
	}
	for _, k := range v.keys {
		delete(m.flights, k)
	}
	if b.w.rules.noWindow {
		b.forget(v.keys)
	}
}
