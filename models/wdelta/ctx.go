package wdelta

import (
	"encoding/binary"
	"math/bits"
)

// The context coder. A difference d is written as its class (the bits of |d|),
// a sign, up to three bits below the leading one, and the rest as it is. Fine-
// tuning moves all weights of a tensor by about the same amount, so how many
// units in the last place that is follows from the exponent of the base weight
// and from how far its neighbours moved: those two are the context of the class.

const (
	expectations = 48 // buckets of how large the class will be
	exponents    = 32
	signContexts = 9 * 3 * 2
	modelled     = 3 // bits below the leading one that have cells
)

// ctxModel is the state of one stream. It starts anew with every frame.
type ctxModel struct {
	s     shape
	depth int
	class []cell // [exponent][expectation][node]
	extra []cell // [class][exponent][node]
	sign  [signContexts]cell
	// What the neighbours did: the moving averages of class (for floats plus
	// exponent) in 1/16, and of the sign in 1/256; the last sign, -1..1.
	level, drift, last int
	coded, raw         []byte // room of the encoder
}

func newCtxModel(e elem) *ctxModel {
	s := shapes[e]
	m := &ctxModel{s: s, depth: depth(s.bits)}
	m.class = newCells(exponents * expectations << m.depth)
	m.extra = newCells((s.bits + 1) * exponents << modelled)
	m.reset()
	return m
}

func (m *ctxModel) reset() {
	resetCells(m.class)
	resetCells(m.extra)
	resetCells(m.sign[:])
	m.level, m.drift, m.last = 0, 0, 0
	if m.s.mantissa > 0 {
		m.level = exponents / 2 * 16
	}
}

// classCells are the cells of the class of a number whose base has exponent x.
func (m *ctxModel) classCells(x int) []cell {
	want := m.level >> 1
	if m.s.mantissa > 0 {
		want = m.level>>3 - 2*x + 6 // half classes, from 3 below the last bit on
	}
	want = min(max(want, 0), expectations-1)
	at := (x*expectations + want) << m.depth
	return m.class[at : at+1<<m.depth]
}

func (m *ctxModel) signCell(base uint64) *cell {
	i := (m.drift+256)>>6*3 + m.last + 1
	return &m.sign[i<<1|int(base>>(m.s.bits-1))&1]
}

// learn takes note of a class and a sign (0 when d is 0).
func (m *ctxModel) learn(x, class, sign int) {
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
func (m *ctxModel) encode(e elem, base, target, out []byte) []byte {
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
			cells := m.extra[(class*exponents+x)<<modelled:]
			node, rest := 1, class-1
			for k := 0; k < modelled && rest > 0; k++ {
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
	out = binary.AppendUvarint(out, uint64(len(m.coded)))
	out = append(out, m.coded...)
	return append(out, m.raw...)
}

// decode fills target, as long as base, from a stream.
func (m *ctxModel) decode(e elem, base, in, target []byte) error {
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
			cells := m.extra[(class*exponents+x)<<modelled:]
			node, left := 1, class-1
			for k := 0; k < modelled && left > 0; k++ {
				left--
				node = node<<1 | rc.bit(&cells[node])
			}
			a := uint64(node)<<left | rest.read(left)
			sign := 1
			if negative != 0 {
				a, sign = -a, -1
			}
			t[i] = m.s.unordered((m.s.ordered(from) + a) & (1<<(m.s.bits-1)<<1 - 1))
			m.learn(x, class, sign)
		}
		e.store(target, &t, n)
		target, base = target[n*e.size():], base[n*e.size():]
	}
	return nil
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
