package protosim

import "slices"

// grain is how much detail is left.
type grain int

const (
	exact  grain = iota // all rows
	minute              // one row a block
	ten                 // one row a pack
)

// entry is what a box holds on disk as one: a block, or a pack of several.
type entry struct {
	members []member
	grain   grain
	packed  bool
}

// member is a block of an entry. An entry is part of the window when all its
// members are acknowledged.
type member struct {
	*block
	acked    bool
	run, lsn uint64
	sent     bool // of rules with sentMarks
}

func (e entry) acked() bool {
	return !slices.ContainsFunc(e.members, func(m member) bool { return !m.acked })
}

// coarsens reports whether there is less detail to be had.
func (e entry) coarsens() bool {
	return e.members[0].samples && e.grain < ten && !e.acked()
}

// Sizes are in units of room: about what the real ones are to each other.
const (
	blockSize  = 10
	packSize   = 2 // of a pack without members
	maxMembers = 10
)

func (e entry) size() int {
	if !e.packed {
		return blockSize
	}
	return packSize + []int{6, 2, 1}[e.grain]*len(e.members)
}

func (b *box) size() int {
	n := 0
	for _, e := range b.disk.held {
		n += e.size()
	}
	return n
}

// append makes room and stores one record.
func (b *box) append(lane int) {
	b.makeRoom(blockSize)
	r := b.w.record(1 + b.w.rng.IntN(6))
	b.put(block{lane: lane, recs: []int{r}, samples: lane == 1 && b.w.chance(80)})
	b.w.sum.records++
}

// makeRoom is the order of what goes: the window, detail, blocks.
func (b *box) makeRoom(need int) {
	if b.size()+need <= b.room {
		return
	}
	b.flush()
	if b.w.rules.hasty {
		b.coarsen()
	}
	b.giveWindow(need + b.w.rng.IntN(2)*blockSize)
	for b.size()+need > b.room && b.coarsen() {
	}
	if b.size()+need > b.room {
		b.dropOldest(need + blockSize + b.w.rng.IntN(2)*blockSize) // its gap takes room as well
	}
}

// giveWindow evicts acknowledged entries, bulk first, events last.
func (b *box) giveWindow(need int) {
	over := b.size() + need - b.room
	for lane := lanes - 1; lane >= 0; lane-- {
		b.disk.held = slices.DeleteFunc(b.disk.held, func(e entry) bool {
			gone := e.acked() || b.w.rules.sentMarks && !slices.ContainsFunc(e.members, func(m member) bool { return !m.sent && !m.acked })
			if over <= 0 || e.members[0].lane != lane || !gone {
				return false
			}
			over -= e.size()
			for _, m := range e.members {
				if b.w.log != nil {
					b.w.logf("box %d drops %v of its window", b.number(), m.block)
				}
				b.w.sum.evicted++
				b.w.leftWindow(b, m.recs)
			}
			return true
		})
	}
}

// haste notes that detail or a block is given up though the window could go.
func (b *box) haste() {
	if slices.ContainsFunc(b.disk.held, entry.acked) {
		b.w.sum.hasty++
		b.w.logf("HASTY: box %d has a window to give", b.number())
	}
}

// coarsen makes the oldest waiting samples of one process life coarser. Packs
// keep the keys of their members.
func (b *box) coarsen() bool {
	first := slices.IndexFunc(b.disk.held, entry.coarsens)
	if first >= 0 && b.w.rng.IntN(2) == 0 { // all to minutes first, or the oldest all the way: either is right
		if i := slices.IndexFunc(b.disk.held, func(e entry) bool { return e.coarsens() && e.grain == exact }); i >= 0 {
			first = i
		}
	}
	if first < 0 {
		return false
	}
	b.haste()
	to := b.disk.held[first].grain + 1
	if b.w.rng.IntN(4) == 0 {
		to = ten
	}
	list := b.gather(first, func(e entry) bool { return e.coarsens() && e.grain < to })
	b.w.sum.coarsened += len(list)
	b.replace(first, list, entry{members: list, grain: to, packed: true}, b.w.rules.coarseKey)
	return true
}

// pack puts waiting blocks of one process life into one entry, detail kept. Any
// of them may be stored already, its ACK lost.
func (b *box) pack() {
	single := func(e entry) bool {
		return !e.packed && e.coarsens() && !(b.w.rules.sentMarks && e.members[0].sent)
	}
	first := slices.IndexFunc(b.disk.held, single)
	if first < 0 {
		return
	}
	if list := b.gather(first, single); len(list) >= 2 {
		b.w.sum.packed += len(list)
		b.replace(first, list, entry{members: list, packed: true}, b.w.rules.repack)
	}
}

// gather collects the members of entries of one life from a place on.
func (b *box) gather(first int, fits func(entry) bool) []member {
	list := slices.Clone(b.disk.held[first].members)
	most := 1 + b.w.rng.IntN(maxMembers)
	for _, e := range b.disk.held[first+1:] {
		if fits(e) && e.members[0].life == list[0].life && len(list)+len(e.members) <= most {
			list = append(list, e.members...)
		}
	}
	return list
}

// replace puts one entry in the place of all that hold its members.
func (b *box) replace(first int, list []member, by entry, newKey bool) {
	had := map[*block]bool{}
	for _, m := range list {
		had[m.block] = true
	}
	if newKey { // what the protocol forbids
		var recs []int
		for _, m := range list {
			recs = append(recs, m.recs...)
		}
		fresh := &block{lane: 1, recs: recs, samples: true, life: b.mem.sid}
		fresh.key = b.key(1, recs)
		by.members = []member{{block: fresh}}
	}
	b.disk.held[first] = by
	tail := b.disk.held[first+1:]
	tail = slices.DeleteFunc(tail, func(e entry) bool { return had[e.members[0].block] })
	b.disk.held = b.disk.held[:first+1+len(tail)]
	if b.w.log != nil {
		b.w.logf("box %d packs, at grain %d, %v", b.number(), by.grain, list)
	}
}

func (b *box) quota() int { return max(b.room/10, 2*blockSize) }

// dropOldest gives up waiting blocks with a gap: events beyond their quota,
// bulk, telemetry.
func (b *box) dropOldest(need int) {
	events := 0
	for _, e := range b.disk.held {
		if e.members[0].lane == 0 && !e.acked() {
			events += e.size()
		}
	}
	var tells []int
	for over := b.size() + need - b.room; over > 0; {
		i := -1
		if events > b.quota() {
			i = b.oldest(0)
		}
		if i < 0 {
			i = b.oldest(2)
		}
		if i < 0 {
			i = b.oldest(1)
		}
		if i < 0 {
			break
		}
		b.haste()
		e := b.disk.held[i]
		b.disk.held = slices.Delete(b.disk.held, i, i+1)
		over -= e.size()
		if e.members[0].lane == 0 {
			events -= e.size()
		}
		for _, m := range e.members {
			if m.acked {
				b.w.sum.evicted++
				b.w.leftWindow(b, m.recs)
				continue
			}
			b.w.sum.dropped++
			tells = append(tells, m.recs...)
			if !b.w.rules.forgetGap {
				tells = append(tells, m.tells...)
			}
		}
	}
	if len(tells) == 0 || b.w.rules.silent {
		return
	}
	gap := b.w.record(1)
	b.w.fates[gap].gap = true
	for _, r := range tells {
		b.w.fates[r].toldBy = append(b.w.fates[r].toldBy, gap)
	}
	b.put(block{recs: []int{gap}, tells: tells, gap: true})
	b.w.sum.gaps++
}

// oldest finds what waits longest in a lane.
func (b *box) oldest(lane int) int {
	return slices.IndexFunc(b.disk.held, func(e entry) bool { return e.members[0].lane == lane && !e.acked() })
}
