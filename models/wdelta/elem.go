package wdelta

import (
	"encoding/binary"
	"math"
	"math/bits"

	"github.com/edgeherd/edgeherd/models"
)

// elem is how a stream's bytes are cut into numbers. The values are part of
// the format.
type elem byte

const (
	elemNone elem = iota
	elemI8        // 8 bits of any meaning
	elemI16
	elemF16
	elemBF16
	elemI32
	elemF32
	elemI64
	elemF64
	elemEnd
)

// shape is what the coders know of an element: its bits, and for a float the
// bits of its mantissa (0 marks an integer). The rest follows from these and spares
// the coders' loops some work.
type shape struct {
	bits, mantissa int
	top            uint8  // place of the highest bit
	mask           uint64 // all bits
	sign, fold     uint64 // of a float its sign and all bits, 0 of an integer
	field          int    // of a float the highest exponent
	least          int    // exponent of the first bucket
	hidden         uint64 // the bit above the mantissa
	drop           uint8  // lowest bits that the coder with rows is blind to
}

func shapeOf(bits, mantissa int) shape {
	s := shape{bits: bits, mantissa: mantissa, top: uint8(bits - 1), mask: 1<<(bits-1)<<1 - 1}
	if mantissa > 0 {
		s.sign, s.fold, s.field = 1<<s.top, s.mask, 1<<(bits-1-mantissa)-1
		s.hidden, s.drop = 1<<mantissa, uint8(max(mantissa-23, 0))
		s.least = max(s.field>>1-27, 0)
		if bits == 16 && mantissa == 10 {
			s.least = 0
		}
	}
	return s
}

var shapes = [elemEnd]shape{
	elemI8: shapeOf(8, 0), elemI16: shapeOf(16, 0), elemF16: shapeOf(16, 10), elemBF16: shapeOf(16, 7),
	elemI32: shapeOf(32, 0), elemF32: shapeOf(32, 23), elemI64: shapeOf(64, 0), elemF64: shapeOf(64, 52),
}

func (e elem) size() int { return shapes[e].bits / 8 }

// elemOf is the element of a tensor. A type without a name of ours is taken as
// bytes, which is right for 8-bit floats and harmless for packed 4-bit numbers.
func elemOf(t models.DType) elem {
	switch t {
	case models.FP16:
		return elemF16
	case models.BF16:
		return elemBF16
	case models.FP32:
		return elemF32
	case models.FP64:
		return elemF64
	}
	switch t.Size() {
	case 2:
		return elemI16
	case 4:
		return elemI32
	case 8:
		return elemI64
	}
	return elemI8
}

// block is how many elements the coders load at once, so that the switch over
// sizes stays out of their loops.
const block = 256

// load widens up to block elements of b into v and returns how many.
func (e elem) load(v *[block]uint64, b []byte) int {
	switch e.size() {
	case 1:
		n := min(block, len(b))
		for i, x := range b[:n] {
			v[i] = uint64(x)
		}
		return n
	case 2:
		n := min(block, len(b)/2)
		for i := range n {
			v[i] = uint64(binary.LittleEndian.Uint16(b[2*i:]))
		}
		return n
	case 4:
		n := min(block, len(b)/4)
		for i := range n {
			v[i] = uint64(binary.LittleEndian.Uint32(b[4*i:]))
		}
		return n
	}
	n := min(block, len(b)/8)
	for i := range n {
		v[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	return n
}

// store narrows n elements into b.
func (e elem) store(b []byte, v *[block]uint64, n int) {
	switch e.size() {
	case 1:
		for i := range n {
			b[i] = byte(v[i])
		}
	case 2:
		for i := range n {
			binary.LittleEndian.PutUint16(b[2*i:], uint16(v[i]))
		}
	case 4:
		for i := range n {
			binary.LittleEndian.PutUint32(b[4*i:], uint32(v[i]))
		}
	default:
		for i := range n {
			binary.LittleEndian.PutUint64(b[8*i:], v[i])
		}
	}
}

// ordered maps a float's bits to a number that grows with the float, so that
// neighbours differ by 1. Integers stay as they are. It undoes itself with
// unordered. Like all that looks at a sign here, it has no branch: no processor
// predicts signs of weights.
func (s *shape) ordered(u uint64) uint64 {
	return u ^ (s.sign | -(u>>(s.top&63)&1)&s.fold)
}

func (s *shape) unordered(u uint64) uint64 {
	return u ^ (s.sign | (u>>(s.top&63)&1-1)&s.fold)
}

// signed is the low bits of d as a signed number.
func (s *shape) signed(d uint64) int64 {
	shift := (63 - s.top) & 63
	return int64(d<<shift) >> shift
}

// exponent is the bucket, 0..31, of how large a number is: of a float its
// exponent from 2^-27 up, of an integer the bits of its amount.
func (s *shape) exponent(u uint64) int {
	if s.mantissa == 0 {
		return min(bits.Len64(amount(s.signed(u))), 31)
	}
	return min(max(int(u>>(s.mantissa&63))&s.field-s.least, 0), 31)
}

// amount is |d|; that of the least number is right too.
func amount(d int64) uint64 {
	negative := d >> 63
	return uint64((d ^ negative) - negative)
}

// float is the value of a float.
func (e elem) float(b []byte) float64 {
	switch e {
	case elemF64:
		return math.Float64frombits(binary.LittleEndian.Uint64(b))
	case elemF32, elemF16, elemBF16:
		return float64(e.get(b))
	}
	return 0
}
