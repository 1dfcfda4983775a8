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

// block is one promise, sealed: it holds a record by number, of mutants that
// re-pack several. A gap tells of records, its own number is a record as well.
type block struct {
	key     key
	life    uint64 // sid of the process that sealed it
	lane    int
	recs    []int
	samples bool // can be packed and made coarse
	gap     bool
	tells   []int
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
	for i, e := range d.held {
		d.held[i].members = slices.Clone(e.members)
	}
	return d
}

// mark is an acknowledgement.
type mark struct{ run, lsn uint64 }

type flight struct{ due, tries int }

// memory is the process. It is copied for snapshots.
type memory struct {
	sid    uint64
	client uint64 // of the client id: sid, but of rules with seqOnDisk
	seq    [lanes]uint64
	conn   int // 0: none
	// acks waits to be written: a commit for each ACK would wear the flash
	acks    map[key]mark
	flushAt int
	// of the connection
	since                        int
	nonce                        uint64
	helloAt, helloNext           int
	waiting, confirmed, progress bool
	run                          uint64
	flights                      map[key]flight
	heldAcks                     []ack // of run, came while waiting
	oldFirst                     bool
	// between connections
	retryAt, limit int
}

func (m *memory) copy() *memory {
	if m == nil {
		return nil
	}
	c := *m
	c.flights, c.acks = maps.Clone(m.flights), maps.Clone(m.acks)
	return &c
}

// box is a device or one of its clones, which share its certificate.
type box struct {
	w      *world
	device int
	room   int
	clock  int // what it is wrong by, in ticks
	disk   disk
	mem    *memory // nil: not running
	// ackPause is how long acknowledgements may wait in memory
	ackPause int

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
	m := &memory{sid: b.w.rng.Uint64(), limit: 2, flights: map[key]flight{}, acks: map[key]mark{}}
	m.client = m.sid
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

// put seals and stores a new block; from here on it is promised.
func (b *box) put(n block) {
	n.life, n.key = b.mem.sid, b.key(n.lane, n.recs)
	b.disk.held = append(b.disk.held, entry{members: []member{{block: &n}}})
	if b.w.log != nil {
		b.w.logf("box %d keeps %v", b.number(), &n)
	}
}

// tick is one look of the agent at its work.
func (b *box) tick() {
	w, m := b.w, b.mem
	if m == nil {
		b.start()
		return
	}
	if len(m.acks) > 0 && w.now >= m.flushAt {
		b.flush()
	}
	if !w.calm && w.rng.IntN(12) == 0 {
		b.pack()
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
	if m.confirmed {
		b.send()
	}
}

// disconnect forgets the conversation; what goes on is the wait, doubled unless
// something was acknowledged.
func (b *box) disconnect() {
	m := b.mem
	for _, a := range m.heldAcks { // no WELCOME of this connection can withdraw them
		b.count(a)
	}
	if m.progress || m.conn > 0 && b.w.now-m.since > lasting {
		m.limit = 2
	}
	m.retryAt = b.w.now + 1 + b.w.rng.IntN(m.limit)
	m.limit = min(m.limit*2, 200)
	*m = memory{sid: m.sid, client: m.client, seq: m.seq, acks: m.acks, flushAt: m.flushAt, retryAt: m.retryAt, limit: m.limit, flights: map[key]flight{}}
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
	note := func(run uint64, there bool) {
		if there && !slices.Contains(h.runs, run) {
			h.runs = append(h.runs, run)
		}
	}
	for _, e := range b.disk.held {
		for _, x := range e.members {
			note(x.run, x.acked)
			a, ok := m.acks[x.key]
			note(a.run, ok)
		}
	}
	b.publish(h)
}

func (b *box) publish(v any) {
	var node *controller
	if s := b.w.sessionOf(b); s != nil {
		node = s.node
	}
	b.w.net = append(b.w.net, message{leg: toBroker, conn: b.mem.conn, device: b.device, node: node, body: v})
}

// waits reports whether an entry is to be sent now.
func (b *box) waits(e entry) bool {
	waits := false
	for _, x := range e.members {
		if _, ok := b.mem.acks[x.key]; ok || x.acked {
			continue
		}
		if f, ok := b.mem.flights[x.key]; ok && b.w.now < f.due {
			return false
		}
		waits = true
	}
	return waits
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
	var order, telemetry, bulk []int
	for i, e := range b.disk.held {
		switch {
		case !b.waits(e):
		case e.members[0].lane == 0:
			order = append(order, i)
		case e.members[0].lane == 1:
			telemetry = append(telemetry, i)
		default:
			bulk = append(bulk, i)
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
	var d data
	for _, i := range order[:max(0, min(len(order), free, 1+b.w.rng.IntN(dataBlocks)))] {
		d = append(d, b.parcel(b.disk.held[i]))
	}
	if len(d) > 0 {
		b.publish(d)
	}
}

// parcel is an entry as it travels, with all its members: a pack is not cut.
func (b *box) parcel(e entry) parcel {
	p := parcel{grain: e.grain}
	for i, x := range e.members {
		p.blocks = append(p.blocks, x.block)
		e.members[i].sent = b.w.rules.sentMarks
		f := b.mem.flights[x.key]
		b.mem.flights[x.key] = flight{due: b.w.now + min(repeatAfter<<f.tries, repeatMax), tries: min(f.tries+1, 8)}
	}
	return p
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
	for i := range b.disk.held {
		e := &b.disk.held[i]
		e.members = slices.DeleteFunc(e.members, func(m member) bool {
			if !slices.Contains(keys, m.key) {
				return false
			}
			for _, r := range m.recs {
				b.w.fates[r].wronged = true
			}
			return true
		})
	}
	b.disk.held = slices.DeleteFunc(b.disk.held, func(e entry) bool { return len(e.members) == 0 })
}

func (b *box) onWelcome(v welcome) {
	m := b.mem
	if v.nonce != m.nonce || !m.waiting && !b.w.rules.everyWelcome {
		return
	}
	// has reports whether the database has what was acknowledged so.
	has := func(a mark) bool {
		lsn, known := v.valid[a.run]
		return b.w.rules.noLineage || known && (a.lsn <= lsn || b.w.rules.noLSN)
	}
	for _, e := range b.disk.held {
		for i, x := range e.members {
			if x.acked && !has(mark{x.run, x.lsn}) {
				e.members[i].acked = false
				b.w.sum.withdrawn++
			}
		}
	}
	if !b.w.rules.keepAcks {
		maps.DeleteFunc(m.acks, func(_ key, a mark) bool { return !has(a) })
	}
	if v.run != m.run {
		clear(m.flights)
	}
	held := m.heldAcks
	if m.heldAcks = nil; v.run != m.run {
		held = nil
	}
	m.run, m.waiting, m.confirmed = v.run, false, true
	b.disk.knows = max(b.disk.knows, v.life)
	for _, a := range held {
		b.count(a)
	}
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
	if m.waiting && !b.w.rules.anyRun { // the WELCOME may know less than this ACK
		m.heldAcks = append(slices.Clip(m.heldAcks), v)
		return
	}
	b.count(v)
}

func (b *box) count(v ack) {
	m := b.mem
	if len(m.acks) == 0 {
		m.flushAt = b.w.now + b.ackPause
	}
	for _, e := range b.disk.held {
		for _, x := range e.members {
			if _, ok := m.acks[x.key]; !ok && !x.acked && slices.Contains(v.keys, x.key) {
				m.acks[x.key] = mark{v.run, v.lsn}
				m.progress = true
			}
		}
	}
	for _, k := range v.keys {
		delete(m.flights, k)
	}
	if b.ackPause == 0 {
		b.flush()
	}
	if b.w.rules.noWindow {
		b.forget(v.keys)
	}
}

// flush writes acknowledgements to the disk.
func (b *box) flush() {
	for _, e := range b.disk.held {
		for i, x := range e.members {
			a, ok := b.mem.acks[x.key]
			if !ok || x.acked {
				continue
			}
			e.members[i].acked, e.members[i].run, e.members[i].lsn = true, a.run, a.lsn
			if b.w.rules.packByOne {
				for j := range e.members {
					e.members[j].acked, e.members[j].run, e.members[j].lsn = true, a.run, a.lsn
				}
			}
		}
	}
	clear(b.mem.acks)
}
