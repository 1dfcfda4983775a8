package wdelta

import "math/bits"

// A step of training moves a matrix by a sum of few products of a column and a
// row (what the outputs lacked, times what came in), and optimisers such as Adam keep
// much of that. So how far the weights of a row moved follows from how those above
// them did: a row's moves are fitted, while they are decoded, by a sum of a few
// learned patterns, and the patterns by what the fit leaves. A constant and the base
// are fitted with them: rows drift, and shrink. All in whole numbers, so every machine
// gets the same.

const (
	patterns  = 8
	features  = patterns + 2 // with a constant and the base
	fineBits  = 16           // of a move below the last bit of what the patterns hold
	mostMove  = 1 << 26      // of a move that the patterns learn from
	mostBase  = 1 << 18
	mostWidth = 1 << 14 // of a row; memory is 48 bytes a column
)

// grid predicts the moves of one matrix, row by row.
type grid struct {
	width    int // 0: nothing is known of rows
	col, row int
	column   []column
	weight   [features]int64 // of each pattern, the constant and the base in this row, in 1/65536
	unit     uint8           // a move of the usual size in fine units, as a power of two
	same     int64           // half of that: the constant
	learnt   int             // from how many moves of this row
	slow     uint8           // how slowly sizes learn, as a power of two
	rate     uint8           // how slowly the weights learn, as a power of two
	share    int64           // of what is left that a pattern takes on, for its weight, over 2^31
}

// column is what is known of a column.
type column struct {
	pattern [patterns]int32
	still   byte  // 1 below a number that did not move
	size    int64 // moving average of what prediction leaves; -1 before the first number
}

// spot is a number of a matrix, from where its move is predicted to where it is learnt from.
type spot struct {
	col, row int
	base     int64 // in 64ths of a unit
	share    int64 // of what is left that a weight takes on, for its pattern, over 2^58
	move     int64 // predicted, in fine units
	slow     uint8 // how slowly its column's size learns, as a power of two
}

// run is a matrix, or a part of one, in a stream.
type run struct {
	n     int // elements
	width int // of a row, 0 when it has none
	col   int // of the first element
}

// start begins a run, before its first element.
func (g *grid) start(r run) {
	*g = grid{width: r.width, col: r.col - 1, slow: 1, column: g.column, unit: g.unit}
	g.same = 1 << (g.unit - fineBits - 1)
	if cap(g.column) < r.width {
		g.column = make([]column, r.width)
	}
	g.column = g.column[:r.width]
	for i := range g.column {
		g.column[i] = column{size: -1}
	}
}

// next goes on to the next element.
func (g *grid) next() {
	if g.col++; g.col == g.width {
		g.col = 0
		g.row++
		g.slow = uint8(min(1+bits.Len(uint(g.row)), 4))
		g.weight = [features]int64{}
		g.learnt = 0
	}
}

// predict says what is known of the element. base is in fine units.
func (g *grid) predict(s *spot, base int64) {
	base = min(max(base>>((g.unit-6)&63), -mostBase), mostBase)
	w, v := &g.weight, &g.column[g.col].pattern
	x0, x1, x2, x3 := int64(v[0]), int64(v[1]), int64(v[2]), int64(v[3])
	x4, x5, x6, x7 := int64(v[4]), int64(v[5]), int64(v[6]), int64(v[7])
	power := x0*x0 + x1*x1 + x2*x2 + x3*x3 + (x4*x4 + x5*x5 + x6*x6 + x7*x7) + (g.same*g.same + base*base)
	s.col, s.row, s.slow, s.base = g.col, g.row, g.slow, base
	s.share = 1 << 58 / (power&(1<<62-1) | 1)
	s.move = x0*w[0] + x1*w[1] + x2*w[2] + x3*w[3] + (x4*w[4] + x5*w[5] + x6*w[6] + x7*w[7]) + (g.same*w[patterns] + base*w[patterns+1])
}

// learn takes note of a move, in fine units. The weights have no use for that of the
// last column when the next row has begun.
func (g *grid) learn(s *spot, move int64) {
	v := &g.column[s.col].pattern
	if s.row == g.row {
		g.fit(s, v, min(max((move-s.move)>>fineBits, -mostMove), mostMove))
	}
	if s.row < patterns {
		v[s.row] = int32(min(max(move>>fineBits, -mostMove), mostMove))
	}
}

// fit moves the weights of the patterns a part of the way to where they would have
// left nothing, half where a row begins and a 32nd later on, and half of the patterns
// themselves half of it.
func (g *grid) fit(s *spot, v *[patterns]int32, e int64) {
	w, half := &g.weight, s.row&1*(patterns/2)
	often := g.learnt&15 == 0 // enough for what changes slowly
	if often {
		g.rate = uint8(22 + min(bits.Len(uint(g.learnt>>4)), 4))
	}
	g.learnt++
	t := e * s.share >> (g.rate & 63)
	w[0] += t * int64(v[0]) >> 21
	w[1] += t * int64(v[1]) >> 21
	w[2] += t * int64(v[2]) >> 21
	w[3] += t * int64(v[3]) >> 21
	w[4] += t * int64(v[4]) >> 21
	w[5] += t * int64(v[5]) >> 21
	w[6] += t * int64(v[6]) >> 21
	w[7] += t * int64(v[7]) >> 21
	w[patterns] += t * g.same >> 21
	w[patterns+1] += t * s.base >> 21
	if s.row < patterns {
		return
	}
	hw, hv := (*[patterns / 2]int64)(w[half:]), (*[patterns / 2]int32)(v[half:])
	if often {
		size := hw[0]*hw[0] + hw[1]*hw[1] + hw[2]*hw[2] + hw[3]*hw[3]
		g.share = 1 << 46 / (size>>16&(1<<46-1) + 19661)
	}
	t = e * g.share >> 31
	hv[0] += int32(t * hw[0] >> 16)
	hv[1] += int32(t * hw[1] >> 16)
	hv[2] += int32(t * hw[2] >> 16)
	hv[3] += int32(t * hw[3] >> 16)
}
