package wdelta

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// The context coder. What a number is expected to be follows from the base and
// from how the rows above moved (grid); how far off that is, from how far off its
// neighbours were. The difference is written as its class (the bits of its
// amount), a sign, up to three bits below the leading one, and the rest as it is.
// The context of all is how many units in the last place are expected, in half
// powers of two, and where between two numbers the expected one lies.

const (
	scales   = 128 // buckets of the expected amount
	wide     = 20  // from here on, 16 units, a number that did not move is a case of its own
	intShift = 28  // fine units of an integer's 1, as a power of two
	maxBits  = 58  // of a base in fine units
	maxScale = 4096
)

// ctxModel is the state of one stream. It starts anew with every frame.
type ctxModel struct {
	s      shape
	depth  int
	zero   [scales * 8][8]cell // [scale][frac][near]
	sign   [scales * 8]cell    // [scale][frac]
	class  [scales * 2][8]cell // [scale][far from a number][node]
	escape []cell              // [scale][node]
	extra  []cell              // [class][scale]
	grid   grid
	place  [1 << 11]place // [exponent field]
	unit   int            // added to an exponent field: fine units of the last bit, as a power of two
	most   int            // of last bits in fine units
	off    int64          // moving average of what prediction leaves, in fine units
	all    int64          // a slower one
	usual  int            // its logarithm where the row began
	prev   byte           // 1 after a number that did not move
	*room
}

// number is one at work. What is expected of it is found out before the one before
// it is known, so that a processor can do both at once.
type number struct {
	spot
	from    uint64
	value   int64 // of the base, in fine units
	guess   int64 // its move, 0 where the base is cut in fine units
	ordered uint64
	flip    int64 // -1 when what is expected lies below ordered
	scale   int
	frac    int
	near    int
}

// place is where the mantissas of an exponent lie in fine units.
type place struct {
	hidden   uint64
	last     int32 // bit of a number, as a power of two
	up, down uint8
}

func newCtxModel(e elem) *ctxModel {
	s := shapes[e]
	m := &ctxModel{s: s, depth: depth(s.bits), room: &room{}}
	m.escape = newCells(scales << m.depth)
	m.extra = newCells((s.bits + 1) * scales)
	return m
}

// reset begins a stream. scale is the power of two that a float's move of 1 has
// in fine units.
func (m *ctxModel) reset(scale int) {
	for i := range m.zero {
		resetCells(m.zero[i][:])
	}
	for i := range m.class {
		resetCells(m.class[i][:])
	}
	resetCells(m.sign[:])
	resetCells(m.escape)
	resetCells(m.extra)
	m.prev, m.grid.unit, m.most = 0, intShift, intShift
	if m.s.mantissa > 0 {
		m.grid.unit = 32
		m.most = maxBits - 1 - min(m.s.mantissa, 23)
		m.unit = scale - m.s.field>>1 - m.s.mantissa
		for e := range m.s.field + 1 {
			p := place{hidden: m.s.hidden, last: int32(max(e, 1) + m.unit), down: m.s.drop}
			if e == 0 {
				p.hidden = 0
			}
			if up := int(p.last) + int(m.s.drop); up < 0 {
				p.down = uint8(min(int(m.s.drop)-up, 63))
			} else {
				p.up = uint8(min(up, m.most))
			}
			m.place[e] = p
		}
	}
	m.off = 1 << m.grid.unit
}

// fixed is a number in fine units, cut where that needs more than 58 bits, and
// what its last bit is there, as a power of two.
func (m *ctxModel) fixed(u uint64) (v int64, last int) {
	s := &m.s
	if s.mantissa == 0 {
		v = s.signed(u)
		return min(max(v, -1<<31), 1<<31) << intShift, intShift
	}
	p := &m.place[int(u>>(s.mantissa&63))&s.field%len(m.place)]
	v = int64((u&(s.hidden-1) | p.hidden) >> (p.down & 63) << (p.up & 63))
	negative := -int64(u >> (s.top & 63) & 1)
	return (v ^ negative) - negative, int(p.last)
}

// nearest is where fine units lie among the ordered numbers, in 64ths, and
// what the last bit of a number is there.
func (m *ctxModel) nearest(v int64) (at int64, last int, ok bool) {
	s := &m.s
	if s.mantissa == 0 {
		return v >> (intShift - 6), intShift, true
	}
	a := amount(v)
	last = max(bits.Len64(a)-1-s.mantissa, 1+m.unit)
	if last >= 0 {
		a = a << 6 >> (last & 63)
	} else {
		a = a << min(6-last, 63)
	}
	e := last - m.unit
	at = int64(a) + int64(e-1)<<((s.mantissa+6)&63)
	negative := v >> 63
	return int64(s.sign<<6) + (at ^ negative) - negative&63, last, e < s.field
}

// look finds out what is expected of the next number, whose base is from.
func (m *ctxModel) look(a *number, from uint64) {
	v, last := m.fixed(from)
	a.from, a.value, a.ordered, a.flip, a.guess = from, v, m.s.ordered(from), 0, 0
	a.frac = 0
	l := eighths(m.off)
	near, still := 0, int(m.prev)*2
	if g := &m.grid; g.width > 0 {
		g.next()
		g.predict(&a.spot, v)
		c := &g.column[g.col]
		still += int(c.still)
		if g.col == 0 {
			m.usual = eighths(m.all)
		}
		if c.size >= 0 {
			l += 3 * (eighths(c.size) - m.usual) >> 2
		}
		if last <= m.most {
			if at, b, ok := m.nearest(v + a.move); ok {
				a.guess, last = a.move, b
				whole := (at + 32) >> 6
				frac := at - whole<<6
				a.flip = frac >> 63
				a.frac = bits.Len64(amount(frac))
				near = int(min(amount(whole-int64(a.ordered)), 3))
				a.ordered = uint64(whole) & m.s.mask
			}
		}
	}
	// How far off prediction will be: as it was in this row, more or less where
	// its column always was.
	a.scale = min(max((l-6)>>2-2*last+12, 0), scales-1)
	if a.scale >= wide {
		a.frac, near = 0, 0
	}
	if a.near = still; near > 0 {
		a.near = near + 3
	}
}

// eighths is the binary logarithm of twice v in eighths.
func eighths(v int64) int {
	l := bits.Len64(uint64(v | 1))
	return l<<3 | int(uint64(v)<<(-l&63)>>60&7)
}

// learn takes note of what the number became.
func (m *ctxModel) learn(a *number, to uint64) {
	v, _ := m.fixed(to)
	move := v - a.value
	left := int64(amount(move - a.guess))
	other := a.from ^ to
	same := byte((other|-other)>>63) ^ 1
	m.prev = same
	g := &m.grid
	if g.width == 0 {
		m.off += (left - m.off) >> 6
		return
	}
	m.off += (left - m.off) >> 5
	m.all += (left - m.all) >> 9
	c := &g.column[a.col]
	if c.size < 0 {
		c.size = m.all
	}
	c.size += (left - c.size) >> (a.slow & 63)
	c.still = same
	g.learn(&a.spot, move)
}

// start begins a run whose first base is from.
func (m *ctxModel) start(r run, a *number, from uint64) {
	m.grid.start(r)
	m.all, m.usual = m.off, eighths(m.off)
	m.look(a, from)
}

// encode appends the stream of target against base, which are as long, cut into
// runs.
func (m *ctxModel) encode(e elem, runs []run, base, target, out []byte) []byte {
	scale := e.moveScale(base, target)
	m.reset(scale)
	if m.s.mantissa > 0 {
		out = binary.AppendUvarint(out, uint64(scale+maxScale/2))
	}
	var rc rangeEncoder
	rc.reset(m.coded[:0])
	raw := bitWriter{out: m.raw[:0]}
	var b, t [block]uint64
	now, then := &number{}, &number{}
	for _, r := range runs {
		e.load(&b, base)
		m.start(r, then, b[0])
		for left := r.n; left > 0; {
			n := e.numbers(&b, base, left)
			e.load(&t, target)
			for i, to := range t[:n] {
				now, then = then, now
				m.look(then, b[uint(i+1)%block])
				m.write(&rc, &raw, now, to)
				m.learn(now, to)
			}
			target, base = target[n*e.size():], base[n*e.size():]
			left -= n
		}
	}
	m.coded, m.raw = rc.finish(), raw.finish()
	return joinCoded(out, m.coded, m.raw)
}

// numbers loads a block of the left numbers of a run, and the one that follows it,
// and returns how many it has.
func (e elem) numbers(v *[block]uint64, b []byte, left int) int {
	if n := min(e.load(v, b), left); n == left {
		return n
	}
	return block - 1
}

func (m *ctxModel) write(rc *rangeEncoder, raw *bitWriter, a *number, to uint64) {
	d := m.s.signed(m.s.ordered(to) - a.ordered)
	d = m.s.signed(uint64((d ^ a.flip) - a.flip))
	v := amount(d)
	class := bits.Len64(v)
	at, some := a.scale*8+a.frac, class > 0
	if a.scale >= wide {
		some = a.from != to
	}
	if !some {
		rc.bit(&m.zero[at][a.near], 0)
		return
	}
	rc.bit(&m.zero[at][a.near], 1)
	sign := int(uint64(d) >> 63)
	rc.bit(&m.sign[at], sign)
	least := max(a.scale>>1-9, 1)
	sym := min(max(class-least, 0), 7)
	rc.tree(m.class[a.scale*2+(a.frac+3)>>3][:], sym, 3)
	if sym == 7 || sym == 0 && a.scale >= wide {
		rc.tree(m.escape[a.scale<<m.depth:(a.scale+1)<<m.depth], class, m.depth)
	}
	if class > 1 {
		rc.bit(&m.extra[class*scales+a.scale], int(v>>(class-2)&1))
	}
	if class > 2 {
		raw.write(v, class-2)
	}
}

// decode fills target, as long as base and the runs, from a stream.
func (m *ctxModel) decode(e elem, runs []run, base, in, target []byte) error {
	scale := uint64(0)
	if m.s.mantissa > 0 {
		var used int
		if scale, used = binary.Uvarint(in); used <= 0 || scale > maxScale {
			return errStream
		}
		in = in[used:]
	}
	coded, raw, err := splitCoded(in)
	if err != nil {
		return err
	}
	m.reset(int(scale) - maxScale/2)
	var rc rangeDecoder
	rc.reset(coded)
	rest := bitReader{in: raw}
	var b, t [block]uint64
	now, then := &number{}, &number{}
	for _, r := range runs {
		e.load(&b, base)
		m.start(r, then, b[0])
		for left := r.n; left > 0; {
			n := e.numbers(&b, base, left)
			for i := range n {
				now, then = then, now
				m.look(then, b[uint(i+1)%block])
				to, ok := m.read(&rc, &rest, now)
				if !ok {
					return errStream
				}
				t[i] = to
				m.learn(now, to)
			}
			e.store(target, &t, n)
			target, base = target[n*e.size():], base[n*e.size():]
			left -= n
		}
	}
	return nil
}

func (m *ctxModel) read(rc *rangeDecoder, raw *bitReader, a *number) (to uint64, ok bool) {
	code, size, bit := rc.code, rc.size, uint64(0)
	at := uint(a.scale*8+a.frac) % (scales * 8)
	c := &m.zero[at][uint(a.near)%8]
	code, size, bit = narrow(code, size, *c)
	*c = c.learn(uint32(bit))
	if size < leastSize {
		code, size = code<<32|rc.word(), size<<32
	}
	if bit == 0 {
		rc.code, rc.size = code, size
		if a.scale >= wide {
			return a.from, true
		}
		return m.s.unordered(a.ordered), true
	}
	c = &m.sign[at]
	code, size, bit = narrow(code, size, *c)
	*c = c.learn(uint32(bit))
	if size < leastSize {
		code, size = code<<32|rc.word(), size<<32
	}
	negative := bit
	cells, node := &m.class[uint(a.scale*2+(a.frac+3)>>3)%(scales*2)], uint64(1)
	for range 3 {
		c = &cells[node%8]
		code, size, bit = narrow(code, size, *c)
		*c = c.learn(uint32(bit))
		node = node<<1 - bit
		if size < leastSize {
			code, size = code<<32|rc.word(), size<<32
		}
	}
	class, least := int(node)-8, max(a.scale>>1-9, 1)
	if class == 7 || class == 0 && a.scale >= wide {
		rc.code, rc.size = code, size
		class = rc.tree(m.escape[a.scale<<m.depth:(a.scale+1)<<m.depth], m.depth)
		code, size = rc.code, rc.size
	} else {
		class += least
	}
	if class > m.s.bits {
		return 0, false
	}
	d := uint64(min(class, 1))
	if class > 1 {
		c = &m.extra[class*scales+a.scale]
		code, size, bit = narrow(code, size, *c)
		*c = c.learn(uint32(bit))
		if size < leastSize {
			code, size = code<<32|rc.word(), size<<32
		}
		d = (2|bit&1)<<((class-2)&63) | raw.read(class-2)
	}
	rc.code, rc.size = code, size
	negative ^= uint64(a.flip)
	return m.s.unordered((a.ordered + (d ^ negative) - negative) & m.s.mask), true
}

// moveScale is the power of two by which the moves of floats are multiplied so
// that they are about 2^32.
func (e elem) moveScale(base, target []byte) int {
	sum, n := 0.0, 0
	for i := 0; i+e.size() <= len(base); i += e.size() {
		d := math.Abs(e.float(target[i:]) - e.float(base[i:]))
		if d > 0 && d <= math.MaxFloat64 {
			sum, n = sum+d, n+1
		}
	}
	if n == 0 {
		return 32
	}
	_, exp := math.Frexp(sum / float64(n))
	return 32 - max(min(exp, 1024), -1074)
}

// joinCoded appends a stream of what the range coder wrote and the raw bits.
func joinCoded(out, coded, raw []byte) []byte {
	out = binary.AppendUvarint(out, uint64(len(coded)))
	return append(append(out, coded...), raw...)
}

// splitCoded parts a stream into what the range coder wrote and the raw bits.
func splitCoded(in []byte) (coded, raw []byte, err error) {
	n, used := binary.Uvarint(in)
	if used <= 0 || n > uint64(len(in)-used) {
		return nil, nil, errStream
	}
	in = in[used:]
	return in[:n], in[n:], nil
}
