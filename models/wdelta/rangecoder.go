package wdelta

import (
	"encoding/binary"
	"math/bits"
)

// A cell is an adaptive probability: the chance of a 1 in the upper 25 bits and
// how often it was used, up to cellLimit, in the lower 7. It learns fast at
// first and slowly later: the rate after n uses is 1/(n+1.5).
type cell uint32

const (
	cellLimit = 1<<7 - 1 // more learns too slowly where one tensor ends and the next begins
	cellNew   = cell(1 << 31)
)

// rates are 2^16/(n+1.5), rounded down, and odd where n grows. Part of the format.
var rates = func() (r [cellLimit + 1]int64) {
	for n := range r {
		r[n] = int64(1<<17/(2*n+3)) | 1
	}
	r[cellLimit]--
	return r
}()

// chance is the probability of a 1 in 1/65536, never 0 and never 65536.
func (c cell) chance() uint64 { return uint64(c>>16 | 1) }

// learn is the cell after a bit. ones is 0 after a 0 and 2^32-1 after a 1.
func (c cell) learn(ones uint32) cell {
	r := rates[c&cellLimit]
	return c + cell((int64(ones)-int64(c&^cellLimit))*r>>16&^cellLimit|r&1)
}

func newCells(n int) []cell {
	c := make([]cell, n)
	resetCells(c)
	return c
}

func resetCells(c []cell) {
	for i := range c {
		c[i] = cellNew
	}
}

// rangeEncoder is a binary range coder with 63 bits of state that moves 32
// bits at once.
type rangeEncoder struct {
	low, size uint64
	out       []byte
}

const (
	wholeSize = 1<<63 - 1
	leastSize = 1 << 30
)

func (e *rangeEncoder) reset(out []byte) { *e = rangeEncoder{size: wholeSize, out: out} }

// bit has no branch on what it encodes, like that of the decoder.
func (e *rangeEncoder) bit(c *cell, bit int) {
	bound := (e.size >> 16) * c.chance()
	mask := -uint64(bit)
	low, carry := bits.Add64(e.low, bound&^mask, 0)
	if carry != 0 {
		e.carry()
	}
	e.low = low
	e.size = e.size - bound ^ mask&(bound^(e.size-bound))
	*c = c.learn(uint32(mask))
	if e.size < leastSize {
		e.out = binary.BigEndian.AppendUint32(e.out, uint32(e.low>>32))
		e.low <<= 32
		e.size <<= 32
	}
}

// carry adds 1 to what is already written.
func (e *rangeEncoder) carry() {
	for i := len(e.out) - 1; i >= 0; i-- {
		if e.out[i]++; e.out[i] != 0 {
			return
		}
	}
}

// tree codes the low n bits of v, highest first, each in a cell of its own
// prefix. cells has 2^n entries.
func (e *rangeEncoder) tree(cells []cell, v, n int) {
	low, size, node := e.low, e.size, 1
	for i := n - 1; i >= 0; i-- {
		c, bit := cells[node], v>>i&1
		bound := (size >> 16) * c.chance()
		mask := -uint64(bit)
		var carry uint64
		if low, carry = bits.Add64(low, bound&^mask, 0); carry != 0 {
			e.carry()
		}
		size = size - bound ^ mask&(bound^(size-bound))
		cells[node] = c.learn(uint32(mask))
		node = node<<1 | bit
		if size < leastSize {
			e.out = binary.BigEndian.AppendUint32(e.out, uint32(low>>32))
			low <<= 32
			size <<= 32
		}
	}
	e.low, e.size = low, size
}

// finish writes the shortest number inside the range: the decoder reads zeros
// beyond the end.
func (e *rangeEncoder) finish() []byte {
	for keep := 8; keep <= 64; keep += 8 {
		mask := ^uint64(0) >> keep
		v := e.low + mask
		carry := v < e.low
		v &^= mask
		if v-e.low < e.size {
			if carry {
				e.carry()
			}
			e.out = binary.BigEndian.AppendUint64(e.out, v)
			break
		}
	}
	n := len(e.out)
	for n > 0 && e.out[n-1] == 0 {
		n--
	}
	return e.out[:n]
}

// rangeDecoder undoes rangeEncoder. Any bytes decode to something: whether it
// is right is for the frame's hash to say.
type rangeDecoder struct {
	code, size uint64
	in         []byte
}

func (d *rangeDecoder) reset(in []byte) {
	*d = rangeDecoder{size: wholeSize, in: in}
	d.code = d.word()<<32 | d.word()
}

func (d *rangeDecoder) word() uint64 {
	if len(d.in) >= 4 {
		w := binary.BigEndian.Uint32(d.in)
		d.in = d.in[4:]
		return uint64(w)
	}
	var b [4]byte
	copy(b[:], d.in)
	d.in = nil
	return uint64(binary.BigEndian.Uint32(b[:]))
}

// narrow takes a bit from the code: all ones for a 1. It has no branch on what it
// decodes: half of the bits of weights are a toss-up that no processor predicts. The
// loops hold code and size in registers, and so ask for more by themselves.
func narrow(code, size uint64, c cell) (_, _, ones uint64) {
	bound := (size >> 16) * c.chance()
	code -= bound
	size -= bound
	ones = uint64(int64(code) >> 63)
	return code + bound&ones, size ^ ones&(size^bound), ones
}

func (d *rangeDecoder) bit(c *cell) int {
	code, size, ones := narrow(d.code, d.size, *c)
	*c = c.learn(uint32(ones))
	if size < leastSize {
		code, size = code<<32|d.word(), size<<32
	}
	d.code, d.size = code, size
	return int(ones & 1)
}

// tree is bit for every level of a tree.
func (d *rangeDecoder) tree(cells []cell, n int) int {
	code, size, ones, node := d.code, d.size, uint64(0), uint64(1)
	for range n {
		c := &cells[node]
		code, size, ones = narrow(code, size, *c)
		*c = c.learn(uint32(ones))
		node = node<<1 - ones
		if size < leastSize {
			code, size = code<<32|d.word(), size<<32
		}
	}
	d.code, d.size = code, size
	return int(node) - 1<<n
}

// room is what a context stream is written into, to be copied behind its length.
type room struct{ coded, raw []byte }

// bitWriter and bitReader hold the bits that no model can predict, lowest bit
// of a number first, in the lowest free bit of a byte.
type bitWriter struct {
	out  []byte
	acc  uint64
	fill int
}

// write appends the low n bits of v, n <= 64.
func (w *bitWriter) write(v uint64, n int) {
	if n > 32 {
		w.write(v&(1<<32-1), 32)
		v, n = v>>32, n-32
	}
	w.acc |= (v & (1<<n - 1)) << w.fill
	for w.fill += n; w.fill >= 8; w.fill -= 8 {
		w.out = append(w.out, byte(w.acc))
		w.acc >>= 8
	}
}

func (w *bitWriter) finish() []byte {
	if w.fill > 0 {
		w.out = append(w.out, byte(w.acc))
		w.acc, w.fill = 0, 0
	}
	return w.out
}

type bitReader struct {
	in   []byte
	acc  uint64
	fill int
}

func (r *bitReader) read(n int) uint64 {
	if n > 32 {
		low := r.read(32)
		return low | r.read(n-32)<<32
	}
	for r.fill < n {
		if len(r.in) >= 4 {
			r.acc |= uint64(binary.LittleEndian.Uint32(r.in)) << r.fill
			r.in = r.in[4:]
			r.fill += 32
			continue
		}
		if len(r.in) > 0 {
			r.acc |= uint64(r.in[0]) << r.fill
			r.in = r.in[1:]
		}
		r.fill += 8
	}
	v := r.acc & (1<<n - 1)
	r.acc >>= n
	r.fill -= n
	return v
}

// depth is how many bits a tree needs for the numbers 0..n.
func depth(n int) int { return bits.Len(uint(n)) }
