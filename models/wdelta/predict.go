package wdelta

import "math/bits"

// A step of training moves a matrix by a sum of few products of a column and a
// row (what the outputs lacked, times what came in), and optimisers such as Adam keep
// much of that. So how far the weights of a row moved follows from how those above
// them did: a row's moves are fitted, while they are decoded, by a sum of a few
// learned patterns, and the patterns by what the fit leaves. All in whole numbers,
// so every machine gets the same.

const (
	patterns  = 10
	fineBits  = 16      // of a move below the last bit of what the patterns hold
	mostMove  = 1 << 26 // of a move that the patterns learn from
	mostWidth = 1 << 14 // of a row; memory is 41 bytes a column
)

// grid predicts the moves of one matrix, row by row.
type grid struct {
	width    int // 0: nothing is known of rows
	col, row int
	pattern  [][patterns]int32 // of each column
	still    []byte            // bits for the last two rows: 1 where nothing moved
	weight   [patterns]int64   // of each pattern in this row, in 1/65536
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
	*g = grid{width: r.width, col: r.col, pattern: g.pattern, still: g.still}
	if cap(g.pattern) < r.width {
		g.pattern = make([][patterns]int32, r.width)
		g.still = make([]byte, r.width)
	}
	g.pattern, g.still = g.pattern[:r.width], g.still[:r.width]
	clear(g.pattern)
	clear(g.still)
}

// predict sets guess and power for the next element.
func (g *grid) predict() {
	v, w := &g.pattern[g.col], &g.weight
	guess, power := int64(0), int64(0)
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
	if g.row > 0 {
		g.fit(v, e)
	}
	if g.row < patterns {
		v[g.row] = int32(h)
	}
	if g.col++; g.col == g.width {
		g.col = 0
		g.row++
		g.weight = [patterns]int64{}
		g.share = 1 << 46 / 19661
	}
}

// fit moves the weights of the patterns a part of the way to where they would have
// left nothing, half where a row begins and a 32nd later on, and half of the patterns
// themselves half of it.
func (g *grid) fit(v *[patterns]int32, e int64) {
	w := &g.weight
	toWeight := e << 36 / (g.power&(1<<62-1) | 1) >> min(bits.Len(uint(g.col>>4)), 4)
	for k := range patterns {
		w[k] += toWeight * int64(v[k]) >> 21
	}
	if g.row < patterns {
		return
	}
	half := g.row & 1 * (patterns / 2)
	hw, hv := (*[patterns / 2]int64)(w[half:]), (*[patterns / 2]int32)(v[half:])
	if g.col&15 == 0 {
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
