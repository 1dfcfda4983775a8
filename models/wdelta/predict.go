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
	patterns  = 10
	features  = patterns + 2 // with a constant and the base
	fineBits  = 16           // of a move below the last bit of what the patterns hold
	mostMove  = 1 << 26      // of a move that the patterns learn from
	mostBase  = 1 << 18
	mostWidth = 1 << 14 // of a row; memory is 49 bytes a column
)

// grid predicts the moves of one matrix, row by row.
type grid struct {
	width    int // 0: nothing is known of rows
	col, row int
	pattern  [][patterns]int32 // of each column
	still    []byte            // bits for the last two rows: 1 where nothing moved
	size     []int64           // moving average, down a column, of what prediction leaves
	weight   [features]int64   // of each pattern, the constant and the base in this row, in 1/65536
	unit     uint8             // a move of the usual size in fine units, as a power of two
	same     int64             // half of that: the constant
	base     int64             // in 64ths of it
	learnt   int               // from how many moves of this row
	power    int64             // of the column's patterns
	share    int64             // of what is left that a pattern takes on, for its weight, over 2^31
	guess    int64             // in fine units
	// Moving averages of the squares of moves and of what prediction leaves.
	moved, missed int64
}

// run is a matrix, or a part of one, in a stream.
type run struct {
	n     int // elements
	width int // of a row, 0 when it has none
	col   int // of the first element
}

// start begins a run.
func (g *grid) start(r run) {
	*g = grid{width: r.width, col: r.col, pattern: g.pattern, still: g.still, size: g.size, unit: g.unit}
	g.same = 1 << (g.unit - fineBits - 1)
	if cap(g.pattern) < r.width {
		g.pattern = make([][patterns]int32, r.width)
		g.still = make([]byte, r.width)
		g.size = make([]int64, r.width)
	}
	g.pattern, g.still, g.size = g.pattern[:r.width], g.still[:r.width], g.size[:r.width]
	clear(g.pattern)
	clear(g.still)
	for i := range g.size {
		g.size[i] = -1
	}
}

// predict sets guess and power for the next element. base is in fine units.
func (g *grid) predict(base int64) {
	v, w := &g.pattern[g.col], &g.weight
	g.base = min(max(base>>((g.unit-6)&63), -mostBase), mostBase)
	guess, power := g.same*w[patterns]+g.base*w[patterns+1], g.same*g.same+g.base*g.base
	for k := range patterns {
		x := int64(v[k])
		guess += x * w[k]
		power += x * x
	}
	g.guess, g.power = guess, power
}

// trusted reports whether prediction has left less than there was.
func (g *grid) trusted() bool { return g.missed < g.moved }

// learn takes note of a move, in fine units.
func (g *grid) learn(move int64) {
	h := min(max(move>>fineBits, -mostMove), mostMove)
	e := min(max((move-g.guess)>>fineBits, -mostMove), mostMove)
	g.moved += (h*h - g.moved) >> 7
	g.missed += (e*e - g.missed) >> 7
	v := &g.pattern[g.col]
	g.fit(v, e)
	if g.row < patterns {
		v[g.row] = int32(h)
	}
	g.learnt++
	g.next()
}

// next goes on to the next element, past one that nothing was learnt from.
func (g *grid) next() {
	if g.col++; g.col == g.width {
		g.col = 0
		g.row++
		g.weight = [features]int64{}
		g.learnt = 0
	}
}

// fit moves the weights of the patterns a part of the way to where they would have
// left nothing, half where a row begins and a 32nd later on, and half of the patterns
// themselves half of it.
func (g *grid) fit(v *[patterns]int32, e int64) {
	w := &g.weight
	toWeight := e << 36 / (g.power&(1<<62-1) | 1) >> min(bits.Len(uint(g.learnt>>4)), 4)
	w[patterns] += toWeight * g.same >> 21
	w[patterns+1] += toWeight * g.base >> 21
	for k := range patterns {
		w[k] += toWeight * int64(v[k]) >> 21
	}
	if g.row < patterns {
		return
	}
	half := g.row & 1 * (patterns / 2)
	hw, hv := (*[patterns / 2]int64)(w[half:]), (*[patterns / 2]int32)(v[half:])
	if g.learnt&15 == 0 {
		size := int64(0)
		for k := range hw {
			size += hw[k] * hw[k]
		}
		g.share = 1 << 46 / (size>>16&(1<<46-1) + 19661)
	}
	toPattern := e * g.share >> 31
	for k := range hw {
		hv[k] += int32(toPattern * hw[k] >> 16)
	}
}
