package wdelta

// The context coder without a base. Of a float it models the exponent, given
// how large the numbers before were, and the three highest bits of the
// mantissa; of an integer its highest byte and the three bits below. The rest,
// and the sign of a float, have no order and are written as they are.

const (
	expectations = 48 // buckets of how large the next number will be
	exponents    = 32
	mantissas    = 3 // bits of the mantissa that have cells
)

// ctx0Model is the state of one stream. It starts anew with every frame.
type ctx0Model struct {
	s     shape
	high  int    // bits of the mantissas head
	low   int    // bits below head
	head  []cell // [expectation][node]
	extra []cell // [exponent][node]
	level int    // moving average of the exponent bucket in 1/16
	*room
}

func newCtx0Model(e elem) *ctx0Model {
	s := shapes[e]
	m := &ctx0Model{s: s, high: 8, low: s.bits - 8, room: &room{}}
	if s.mantissa > 0 {
		m.high, m.low = s.bits-1-s.mantissa, s.mantissa
	}
	m.head = newCells(expectations << m.high)
	m.extra = newCells(exponents << mantissas)
	m.reset()
	return m
}

func (m *ctx0Model) reset() {
	resetCells(m.head)
	resetCells(m.extra)
	m.level = exponents / 2 * 16
}

func (m *ctx0Model) headCells() []cell {
	want := min(m.level>>3, expectations-1) << m.high
	return m.head[want : want+1<<m.high]
}

func (m *ctx0Model) learn(x int) { m.level += (x<<4 - m.level) >> 3 }

func (m *ctx0Model) encode(e elem, src, out []byte) []byte {
	m.reset()
	var rc rangeEncoder
	rc.reset(m.coded[:0])
	raw := bitWriter{out: m.raw[:0]}
	var v [block]uint64
	for len(src) > 0 {
		n := e.load(&v, src)
		for _, u := range v[:n] {
			if m.s.mantissa > 0 {
				raw.write(u>>(m.s.bits-1), 1)
			}
			rc.tree(m.headCells(), int(u>>m.low)&(1<<m.high-1), m.high)
			x := m.s.exponent(u &^ (1<<m.low - 1))
			cells := m.extra[x<<mantissas:]
			node, rest := 1, m.low
			for k := 0; k < mantissas && rest > 0; k++ {
				rest--
				bit := int(u>>rest) & 1
				rc.bit(&cells[node], bit)
				node = node<<1 | bit
			}
			raw.write(u, rest)
			m.learn(x)
		}
		src = src[n*e.size():]
	}
	m.coded, m.raw = rc.finish(), raw.finish()
	return joinCoded(out, m.coded, m.raw)
}

func (m *ctx0Model) decode(e elem, in, dst []byte) error {
	coded, raw, err := splitCoded(in)
	if err != nil {
		return err
	}
	m.reset()
	var rc rangeDecoder
	rc.reset(coded)
	rest := bitReader{in: raw}
	var v [block]uint64
	for len(dst) > 0 {
		n := min(block, len(dst)/e.size())
		for i := range n {
			u := uint64(0)
			if m.s.mantissa > 0 {
				u = rest.read(1) << (m.s.bits - 1)
			}
			u |= uint64(rc.tree(m.headCells(), m.high)) << m.low
			x := m.s.exponent(u)
			cells := m.extra[x<<mantissas:]
			node, left := 1, m.low
			for k := 0; k < mantissas && left > 0; k++ {
				left--
				bit := rc.bit(&cells[node])
				node = node<<1 | bit
				u |= uint64(bit) << left
			}
			u |= rest.read(left)
			v[i] = u
			m.learn(x)
		}
		e.store(dst, &v, n)
		dst = dst[n*e.size():]
	}
	return nil
}
