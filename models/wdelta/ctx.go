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
	modelled = 2   // bits below the leading one that have cells
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
	zero   []cell // [scale][frac][near]
	sign   []cell // [scale][frac]
	class  []cell // [scale][sign][far from a number][node]
	escape []cell // [scale][node]
	extra  []cell // [class][scale][node]
	grid   grid
	unit   int   // added to an exponent field: fine units of the last bit, as a power of two
	most   int   // of last bits in fine units
	off    int64 // moving average of what prediction leaves, in fine units
	all    int64 // a slower one
	prev   byte  // bits for the last two numbers: 1 where nothing moved
	// Of the number at work.
	value   int64 // of the base, in fine units
	guess   int64 // its move
	ordered uint64
	flip    int64 // -1 when what is expected lies below ordered
	scale   int
	zeroAt  int
	signAt  int
	classAt int
	*room
}

func newCtxModel(e elem) *ctxModel {
	s := shapes[e]
	m := &ctxModel{s: s, depth: depth(s.bits), room: &room{}}
	m.zero = newCells(scales * 8 * 16)
	m.sign = newCells(scales * 8)
	m.class = newCells(scales * 4 * 8)
	m.escape = newCells(scales << m.depth)
	m.extra = newCells((s.bits + 1) * scales << modelled)
	return m
}

// reset begins a stream. scale is the power of two that a float's move of 1 has
// in fine units.
func (m *ctxModel) reset(scale int) {
	for _, c := range [][]cell{m.zero, m.sign, m.class, m.escape, m.extra} {
		resetCells(c)
	}
	m.prev, m.grid.unit, m.most = 0, intShift, intShift
	if m.s.mantissa > 0 {
		m.grid.unit = 32
		m.most = maxBits - 1 - min(m.s.mantissa, 23)
		m.unit = scale - (1<<(m.s.bits-2-m.s.mantissa) - 1) - m.s.mantissa
	}
	m.off = 1 << m.grid.unit
}

// fixed is a number in fine units, cut where that needs more than 58 bits, and
// what its last bit is there, as a power of two.
func (m *ctxModel) fixed(u uint64) (v int64, last int) {
	if m.s.mantissa == 0 {
		v = m.s.signed(u)
		return min(max(v, -1<<31), 1<<31) << intShift, intShift
	}
	sig := u & (1<<m.s.mantissa - 1)
	e := int(u>>m.s.mantissa) & (1<<(m.s.bits-1-m.s.mantissa) - 1)
	if e > 0 {
		sig |= 1 << m.s.mantissa
	} else {
		e = 1
	}
	last = e + m.unit
	shift := last
	if m.s.bits == 64 {
		sig, shift = sig>>29, shift+29
	}
	if shift >= 0 {
		v = int64(sig << min(shift, m.most))
	} else {
		v = int64(sig >> -shift)
	}
	negative := -int64(u >> (m.s.bits - 1))
	return (v ^ negative) - negative, last
}

// place is where fine units lie among the ordered numbers, in sixteenths, and
// what the last bit of a number is there.
func (m *ctxModel) place(v int64) (at int64, last int, ok bool) {
	if m.s.mantissa == 0 {
		return v >> (intShift - 6), intShift, true
	}
	a := amount(v)
	last = bits.Len64(a) - 1 - m.s.mantissa
	e := last - m.unit
	if e < 1 {
		e, last = 1, 1+m.unit
	}
	if last >= 0 {
		a = a << 6 >> last
	} else {
		a = a << (6 - last)
	}
	zero := int64(1) << (m.s.bits - 1 + 6)
	at = int64(a) + int64(e-1)<<(m.s.mantissa+6)
	negative := v >> 63
	return zero + (at ^ negative) - negative&63, last, e < 1<<(m.s.bits-1-m.s.mantissa)-1
}

// look finds out what is expected of the number whose base is from.
func (m *ctxModel) look(from uint64) {
	var last int
	m.value, last = m.fixed(from)
	m.ordered, m.flip, m.guess = m.s.ordered(from), 0, 0
	frac, near := 0, 0
	still := byte(0)
	if g := &m.grid; g.width > 0 {
		g.predict(m.value)
		still = g.still[g.col]
		if g.trusted() && last <= m.most {
			if at, l, ok := m.place(m.value + g.guess); ok {
				m.guess, last = g.guess, l
				whole := (at + 32) >> 6
				frac = int(at - whole<<6)
				m.flip = int64(frac >> 63)
				frac = (frac ^ int(m.flip)) - int(m.flip)
				frac = min(bits.Len(uint(frac)), 7)
				near = int(min(amount(whole-int64(m.ordered)), 3))
				m.ordered = uint64(whole) & (1<<(m.s.bits-1)<<1 - 1)
			}
		}
	}
	m.scale = min(max(m.expected()-2*last+12, 0), scales-1)
	if near > 0 {
		near += 8
	} else {
		near = bits.OnesCount8(m.prev&3)*3 + bits.OnesCount8(still&3)
	}
	if m.scale >= wide {
		near = bits.OnesCount8(m.prev&3)*3 + bits.OnesCount8(still&3)
		frac = 0
	}
	m.signAt = m.scale*8 + frac
	m.zeroAt = m.signAt*16 + near
	m.classAt = m.scale*4 + frac/5
}

// expected is how far off prediction will be, in half powers of two of fine units:
// as it was in this row, more or less where its column always was.
func (m *ctxModel) expected() int {
	l := eighths(m.off)
	if g := &m.grid; g.width > 0 && g.size[g.col] >= 0 {
		l += 3 * (eighths(g.size[g.col]) - eighths(m.all)) >> 2
	}
	return (l - 6) >> 2
}

// eighths is the binary logarithm of twice v in eighths, 0 of 0.
func eighths(v int64) int {
	if v == 0 {
		return 0
	}
	l := bits.Len64(uint64(v))
	return l<<3 | int(uint64(v)<<(64-l)>>60&7)
}

// learn takes note of what the number became.
func (m *ctxModel) learn(from, to uint64) {
	v, _ := m.fixed(to)
	move := v - m.value
	left := int64(amount(move - m.guess))
	same := byte(0)
	if from == to {
		same = 1
	}
	m.prev = m.prev<<1 | same
	g := &m.grid
	if g.width == 0 {
		m.off += (left - m.off) >> 6
		return
	}
	m.off += (left - m.off) >> min(4+bits.Len(uint(g.col>>3)), 6)
	m.all += (left - m.all) >> 9
	size := &g.size[g.col]
	if *size < 0 {
		*size = m.all
	}
	*size += (left - *size) >> min(1+bits.Len(uint(g.row)), 4)
	g.still[g.col] = g.still[g.col]<<1 | same
	g.learn(move)
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
	for _, r := range runs {
		m.grid.start(r)
		m.all = m.off
		for left := r.n; left > 0; {
			n := min(e.load(&t, target), left)
			e.load(&b, base)
			for i, from := range b[:n] {
				m.look(from)
				m.write(&rc, &raw, from, t[i])
				m.learn(from, t[i])
			}
			target, base = target[n*e.size():], base[n*e.size():]
			left -= n
		}
	}
	m.coded, m.raw = rc.finish(), raw.finish()
	return joinCoded(out, m.coded, m.raw)
}

func (m *ctxModel) write(rc *rangeEncoder, raw *bitWriter, from, to uint64) {
	d := m.s.signed(m.s.ordered(to) - m.ordered)
	d = m.s.signed(uint64((d ^ m.flip) - m.flip))
	a := amount(d)
	class := bits.Len64(a)
	first := 0
	if m.scale >= wide {
		if from == to {
			rc.bit(&m.zero[m.zeroAt], 0)
			return
		}
	} else {
		if class == 0 {
			rc.bit(&m.zero[m.zeroAt], 0)
			return
		}
		first = 1
	}
	rc.bit(&m.zero[m.zeroAt], 1)
	sign := 0
	if d < 0 {
		sign = 1
	}
	rc.bit(&m.sign[m.signAt], sign)
	at := m.classAt + 2*sign
	least := max(m.scale>>1-9, first)
	sym := min(max(class-least, 0), 7)
	rc.tree(m.class[at*8:at*8+8], sym, 3)
	if sym == 7 || sym == 0 && least > first {
		rc.tree(m.escape[m.scale<<m.depth:(m.scale+1)<<m.depth], class, m.depth)
	}
	cells := m.extra[(class*scales+m.scale)<<modelled:]
	node, rest := 1, class-1
	for k := 0; k < modelled && rest > 0; k++ {
		rest--
		bit := int(a>>rest) & 1
		rc.bit(&cells[node], bit)
		node = node<<1 | bit
	}
	if rest > 0 {
		raw.write(a, rest)
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
	for _, r := range runs {
		m.grid.start(r)
		m.all = m.off
		for left := r.n; left > 0; {
			n := min(e.load(&b, base), left)
			for i, from := range b[:n] {
				m.look(from)
				if t[i], err = m.read(&rc, &rest, from); err != nil {
					return err
				}
				m.learn(from, t[i])
			}
			e.store(target, &t, n)
			target, base = target[n*e.size():], base[n*e.size():]
			left -= n
		}
	}
	return nil
}

func (m *ctxModel) read(rc *rangeDecoder, raw *bitReader, from uint64) (uint64, error) {
	first := 1
	if m.scale >= wide {
		first = 0
	}
	if rc.bit(&m.zero[m.zeroAt]) == 0 {
		if first == 0 {
			return from, nil
		}
		return m.s.unordered(m.ordered), nil
	}
	sign := rc.bit(&m.sign[m.signAt])
	at := m.classAt + 2*sign
	least := max(m.scale>>1-9, first)
	class := rc.tree(m.class[at*8:at*8+8], 3)
	if class == 7 || class == 0 && least > first {
		class = rc.tree(m.escape[m.scale<<m.depth:(m.scale+1)<<m.depth], m.depth)
	} else {
		class += least
	}
	if class > m.s.bits {
		return 0, errStream
	}
	if class == 0 {
		return m.s.unordered(m.ordered), nil
	}
	cells := m.extra[(class*scales+m.scale)<<modelled:]
	node, left := 1, class-1
	for k := 0; k < modelled && left > 0; k++ {
		left--
		node = node<<1 | rc.bit(&cells[node])
	}
	a := uint64(node)<<left | raw.read(left)
	negative := -uint64(sign) ^ uint64(m.flip)
	a = (a ^ negative) - negative
	return m.s.unordered((m.ordered + a) & (1<<(m.s.bits-1)<<1 - 1)), nil
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
