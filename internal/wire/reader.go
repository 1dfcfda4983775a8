package wire

import (
	"encoding/binary"
	"errors"
	"math"
	"math/bits"
)

// reader takes a payload apart and refuses what no encoder writes; bad says
// what the first such thing was, and what follows it is not to be used.
type reader struct {
	rest []byte
	bad  string
}

const (
	badEnd    = "ends early"
	badVarint = "a varint is not in its shortest form"
	badRange  = "a value is out of range"
	badMode   = "a column has another mode than its values"
)

// fail notes what is wrong; the first stays.
func (r *reader) fail(what string) {
	if r.bad == "" {
		r.bad = what
	}
}

// end returns what was wrong. Bytes that are left over are.
func (r *reader) end() error {
	if len(r.rest) > 0 {
		r.fail("bytes are left over")
	}
	if r.bad != "" {
		return errors.New(r.bad)
	}
	return nil
}

func (r *reader) take(n int) []byte {
	if r.bad != "" || len(r.rest) < n {
		r.fail(badEnd)
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }

// varint returns how many bytes it took, 0 when they are none that an encoder
// writes.
func varint(b []byte) (int64, int) {
	u, n := binary.Uvarint(b)
	if n <= 0 || n > 1 && b[n-1] == 0 {
		return 0, 0
	}
	return unzigzag(u), n
}

func (r *reader) varint() int64 {
	v, n := varint(r.rest)
	if n == 0 {
		r.fail(badVarint)
		r.rest = nil
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *reader) times(n int) []int64 {
	times := make([]int64, n)
	var last, step int64
	for i := range times {
		d := r.varint()
		if i >= 2 {
			d += step
		}
		last, step = last+d, d
		times[i] = last
	}
	return times
}

// column reads one column of samples.
func (r *reader) column(dst []float64, mode byte, scale int8) {
	switch mode {
	case modeMissing:
		for i := range dst {
			dst[i] = math.NaN()
		}
	case modeConstant:
		k := r.varint()
		if !inRange(k) {
			r.fail(badRange)
		}
		if len(dst) < 2 {
			r.fail(badMode)
		}
		v := fromInteger(k, scale)
		for i := range dst {
			dst[i] = v
		}
	case modeFull:
		if r.full(dst, scale) && len(dst) > 1 {
			r.fail(badMode)
		}
	case modeHoles:
		r.holes(dst, scale)
	}
}

func inRange(k int64) bool { return uint64(k+maxInteger-1) <= 2*maxInteger-2 }

// full reads a value for each of dst and reports whether all were equal.
func (r *reader) full(dst []float64, scale int8) (equal bool) {
	rest, p := r.rest, pow10(max(scale, -scale))
	var k, moved int64
	wide := false
	for i := range dst {
		var d int64
		if len(rest) > 0 && rest[0] < 0x80 {
			d = unzigzag(uint64(rest[0]))
			rest = rest[1:]
		} else {
			var n int
			if d, n = varint(rest); n == 0 {
				r.fail(badVarint)
				return false
			}
			rest = rest[n:]
		}
		k += d
		wide = wide || !inRange(k)
		if i > 0 {
			moved |= d
		}
		if scale >= 0 {
			dst[i] = float64(k) / p
		} else {
			dst[i] = float64(k) * p
		}
	}
	if wide {
		r.fail(badRange)
	}
	r.rest = rest
	return moved == 0
}

// holes reads the values of the rows that are present to the front of dst and
// then spreads them.
func (r *reader) holes(dst []float64, scale int8) {
	presence := r.take((len(dst) + 7) / 8)
	if r.bad != "" {
		return
	}
	present := 0
	for _, b := range presence {
		present += bits.OnesCount8(b)
	}
	if extra := len(dst) % 8; extra != 0 && presence[len(presence)-1]>>extra != 0 {
		r.fail("presence of no row")
		return
	}
	if present == 0 || present == len(dst) {
		r.fail(badMode)
		return
	}
	r.full(dst[:present], scale)
	for i := len(dst) - 1; i >= 0; i-- {
		if presence[i/8]>>(i%8)&1 == 1 {
			present--
			dst[i] = dst[present]
		} else {
			dst[i] = math.NaN()
		}
	}
}
