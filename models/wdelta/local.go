package wdelta

import "math/bits"

// The context coder without rows: for numbers that did not move together. A
// difference d is written as its class (the bits of |d|), a sign, up to three bits
// below the leading one, and the rest as it is. The context of the class is the
// exponent of the base and how far the neighbours moved; of the sign, that of the
// base, for a weight that moves by its own size moves towards zero, and those before.

const signContexts = 9 * 3 * 2

// localModel is the state of one stream. It starts anew with every frame.
type localModel struct {
	s     shape
	depth int
	class []cell // [exponent][expectation][node]
	extra []cell // [class][exponent][node]
	sign  [signContexts]cell
	// What the neighbours did: the moving averages of class (for floats plus
	// exponent) in 1/16, and of the sign in 1/256; the last sign, -1..1.
	level, drift, last int
	*room
}

func newLocalModel(e elem) *localModel {
	s := shapes[e]
	m := &localModel{s: s, depth: depth(s.bits), room: &room{}}
	m.class = newCells(exponents * expectations << m.depth)
	m.extra = newCells((s.bits + 1) * exponents << mantissas)
	m.reset()
	return m
}

func (m *localModel) reset() {
	resetCells(m.class)
	resetCells(m.extra)
	resetCells(m.sign[:])
	m.level, m.drift, m.last = 0, 0, 0
	if m.s.mantissa > 0 {
		m.level = exponents / 2 * 16
	}
}

// classCells are the cells of the class of a number whose base has exponent x.
func (m *localModel) classCells(x int) []cell {
	want := m.level >> 1
	if m.s.mantissa > 0 {
		want = m.level>>3 - 2*x + 6 // half classes, from 3 below the last bit on
	}
	want = min(max(want, 0), expectations-1)
	at := (x*expectations + want) << m.depth
	return m.class[at : at+1<<m.depth]
}

func (m *localModel) signCell(base uint64) *cell {
	i := (m.drift+256)>>6*3 + m.last + 1
	return &m.sign[i<<1|int(base>>(m.s.top&63))&1]
}

// learn takes note of a class and a sign (0 when d is 0).
func (m *localModel) learn(x, class, sign int) {
	if m.s.mantissa == 0 {
		x = 0
	}
	m.level += ((class+x)<<4 - m.level) >> 3
	if sign != 0 {
		m.drift += (sign<<8 - m.drift) >> 3
	}
	m.last = sign
}

// encode appends the stream of target against base, which are as long.
func (m *localModel) encode(e elem, base, target, out []byte) []byte {
	m.reset()
	var rc rangeEncoder
	rc.reset(m.coded[:0])
	raw := bitWriter{out: m.raw[:0]}
	var b, t [block]uint64
	for len(target) > 0 {
		n := e.load(&t, target)
		e.load(&b, base)
		for i, from := range b[:n] {
			d := m.s.signed(m.s.ordered(t[i]) - m.s.ordered(from))
			a := amount(d)
			x, class := m.s.exponent(from), bits.Len64(a)
			rc.tree(m.classCells(x), class, m.depth)
			if class == 0 {
				m.learn(x, 0, 0)
				continue
			}
			bit, sign := 0, 1
			if d < 0 {
				bit, sign = 1, -1
			}
			rc.bit(m.signCell(from), bit)
			cells := m.extra[(class*exponents+x)<<mantissas:]
			node, rest := 1, class-1
			for k := 0; k < mantissas && rest > 0; k++ {
				rest--
				bit := int(a>>rest) & 1
				rc.bit(&cells[node], bit)
				node = node<<1 | bit
			}
			raw.write(a, rest)
			m.learn(x, class, sign)
		}
		target, base = target[n*e.size():], base[n*e.size():]
	}
	m.coded, m.raw = rc.finish(), raw.finish()
	return joinCoded(out, m.coded, m.raw)
}

// decode fills target, as long as base, from a stream.
func (m *localModel) decode(e elem, base, in, target []byte) error {
	coded, raw, err := splitCoded(in)
	if err != nil {
		return err
	}
	m.reset()
	var rc rangeDecoder
	rc.reset(coded)
	rest := bitReader{in: raw}
	var b, t [block]uint64
	for len(target) > 0 {
		n := e.load(&b, base)
		for i, from := range b[:n] {
			x := m.s.exponent(from)
			class := rc.tree(m.classCells(x), m.depth)
			if class == 0 {
				t[i] = from
				m.learn(x, 0, 0)
				continue
			}
			if class > m.s.bits {
				return errStream
			}
			negative := rc.bit(m.signCell(from))
			cells := m.extra[(class*exponents+x)<<mantissas:]
			node, left := 1, class-1
			for k := 0; k < mantissas && left > 0; k++ {
				left--
				node = node<<1 | rc.bit(&cells[node])
			}
			a := uint64(node)<<left | rest.read(left)
			sign := 1
			if negative != 0 {
				a, sign = -a, -1
			}
			t[i] = m.s.unordered((m.s.ordered(from) + a) & m.s.mask)
			m.learn(x, class, sign)
		}
		e.store(target, &t, n)
		target, base = target[n*e.size():], base[n*e.size():]
	}
	return nil
}
