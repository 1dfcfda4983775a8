package wdelta

import "math/bits"

// The context coder of differences of 8-bit numbers. Training moves most quantised
// weights by less than one, so they stay, and those that change say little of how far all
// moved. What can be known is the chance of a change, by how often numbers of its row and
// of its column changed; which way it goes, for the grid learns from changes alone, as moves of
// one and minus one; and by how much, from the changes before in row and column.

const (
	chances  = 18 // buckets of a chance, in half powers of two
	amounts  = 18 // of how large changes are, in half powers of two
	sureness = 16 // of how far from 0 a prediction is, in half powers of two
)

// line is what is known of a row or a column.
type line struct {
	changed cell  // the chance of a change; 0 before the first number
	more    int32 // moving average of what changes are above one, in 1/256
}

// chance is its bucket; what is rarer than one in 300 is all the same.
func (l *line) chance() int { return eighths(int64(l.changed.chance())+200)>>2 - 17 }

func (l *line) amount() int { return eighths(int64(l.more)+64)>>2 - 14 }

// heed makes the chance follow what comes as if it had seen n numbers.
func (l *line) heed(n cell) { l.changed = l.changed&^cellLimit | n }

// byteModel is the state of one stream. It starts anew with every frame.
type byteModel struct {
	grid   grid
	spot   spot
	row    line
	column []line
	change [chances * chances]cell        // [row][column]
	sign   [sureness]cell                 // whether prediction is wrong
	class  [amounts * amounts / 2][8]cell // [row][column][node]
	rest   [amounts][8][1 << 7]cell       // [row][class][node]
	*room
}

func newByteModel() *byteModel { return &byteModel{room: &room{}} }

func (m *byteModel) reset() {
	resetCells(m.change[:])
	resetCells(m.sign[:])
	for i := range m.class {
		resetCells(m.class[i][:])
	}
	for i := range m.rest {
		for k := range m.rest[i] {
			resetCells(m.rest[i][k][:])
		}
	}
	m.row = line{changed: cellNew}
	m.grid.unit = intShift
}

// start begins a run. One without rows is a row.
func (m *byteModel) start(r run) {
	if r.width == 0 {
		r.width = min(r.n, mostWidth)
	}
	m.grid.start(r)
	m.column = append(m.column[:0], make([]line, r.width)...)
	m.startRow()
}

func (m *byteModel) startRow() {
	m.row.heed(2)
	m.row.more = 0
}

// look goes on to the next number and finds the cell of whether it changes.
func (m *byteModel) look() *cell {
	if m.grid.next(); m.grid.col == 0 {
		m.startRow()
	}
	c := &m.column[m.grid.col]
	if c.changed == 0 {
		c.changed = m.row.changed
		c.heed(2)
	}
	return &m.change[m.row.chance()*chances+c.chance()]
}

// lookAgain finds the cells of a change. flip is -1 when it is thought to be negative.
func (m *byteModel) lookAgain(from byte) (flip int64, sign *cell, class []cell, rest *[8][1 << 7]cell) {
	m.grid.predict(&m.spot, int64(int8(from))<<intShift)
	guess := m.spot.move
	sure := min(max(eighths(int64(amount(guess)))>>2-44, 0), sureness-1)
	row := m.row.amount()
	at := (row*amounts + m.column[m.grid.col].amount()) / 2
	return guess >> 63, &m.sign[sure], m.class[at][:], &m.rest[row]
}

// learn takes note of a difference.
func (m *byteModel) learn(d int64) {
	c := &m.column[m.grid.col]
	if d == 0 {
		m.row.changed, c.changed = m.row.changed.learn(0), c.changed.learn(0)
	} else {
		m.row.changed, c.changed = m.row.changed.learn(1<<32-1), c.changed.learn(1<<32-1)
		more := int32(amount(d)-1) << 8
		m.row.more += (more - m.row.more) >> 3
		c.more += (more - c.more) >> 3
		m.grid.learn(&m.spot, (d>>63|1)<<intShift)
	}
}

// encode appends the stream of target against base, which are as long, cut into
// runs.
func (m *byteModel) encode(runs []run, base, target, out []byte) []byte {
	m.reset()
	var rc rangeEncoder
	rc.reset(m.coded[:0])
	for _, r := range runs {
		m.start(r)
		for i, from := range base[:r.n] {
			d := int64(int8(target[i] - from))
			if c := m.look(); d == 0 {
				rc.bit(c, 0)
			} else {
				rc.bit(c, 1)
				m.write(&rc, from, d)
			}
			m.learn(d)
		}
		base, target = base[r.n:], target[r.n:]
	}
	m.coded = rc.finish()
	return append(out, m.coded...)
}

func (m *byteModel) write(rc *rangeEncoder, from byte, d int64) {
	flip, sign, classes, rest := m.lookAgain(from)
	rc.bit(sign, int((d>>63^flip)&1))
	a := int(amount(d))
	class := bits.Len(uint(a)) - 1
	rc.tree(classes, class, 3)
	rc.tree(rest[class][:], a-1<<class, class)
}

// decode fills target, as long as base and the runs, from a stream.
func (m *byteModel) decode(runs []run, base, in, target []byte) {
	m.reset()
	var rc rangeDecoder
	rc.reset(in)
	for _, r := range runs {
		m.start(r)
		for i, from := range base[:r.n] {
			d := int64(0)
			if rc.bit(m.look()) != 0 {
				d = m.read(&rc, from)
			}
			target[i] = from + byte(d)
			m.learn(d)
		}
		base, target = base[r.n:], target[r.n:]
	}
}

// read is a difference other than 0.
func (m *byteModel) read(rc *rangeDecoder, from byte) int64 {
	flip, sign, classes, rest := m.lookAgain(from)
	negative := int64(-rc.bit(sign)) ^ flip
	class := rc.tree(classes, 3)
	a := int64(1<<class + rc.tree(rest[class][:], class))
	return int64(int8((a ^ negative) - negative))
}
