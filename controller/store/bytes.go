package store

import (
	"encoding/binary"
	"errors"
	"math"
)

// errDamaged says that a stored row is not as this program writes it.
var errDamaged = errors.New("the row is damaged; restore the database from a backup")

// input takes a stored row apart; short is set at the first missing byte.
type input struct {
	rest  []byte
	short bool
}

func (r *input) end() error {
	if r.short || len(r.rest) > 0 {
		return errDamaged
	}
	return nil
}

func (r *input) take(n int) []byte {
	if n < 0 || len(r.rest) < n {
		r.short, r.rest = true, nil
		return make([]byte, max(0, min(n, 8)))
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *input) octet() byte     { return r.take(1)[0] }
func (r *input) eight() [8]byte  { return [8]byte(r.take(8)) }
func (r *input) float() float64  { return math.Float64frombits(binary.LittleEndian.Uint64(r.take(8))) }
func (r *input) section() []byte { return r.take(r.count()) }

func (r *input) uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.short, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *input) varint() int64 {
	u := r.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

// count reads the number of things that take at least a byte each.
func (r *input) count() int {
	n := r.uvarint()
	if n > uint64(len(r.rest)) {
		r.short, r.rest = true, nil
		return 0
	}
	return int(n)
}

func appendFloat(out []byte, v float64) []byte {
	return binary.LittleEndian.AppendUint64(out, math.Float64bits(v))
}

func appendSection(out, b []byte) []byte {
	return append(binary.AppendUvarint(out, uint64(len(b))), b...)
}

// pow10 of the scales that wire allows, which are exact.
func pow10(n int8) float64 {
	p := 1.0
	for range n {
		p *= 10
	}
	return p
}

// scale turns values into the integers as which they travelled, and back.
type scale struct {
	p   float64
	mul bool // value = integer * p, else integer / p
}

func scaleOf(n int8) scale { return scale{pow10(max(n, -n)), n < 0} }

func (s scale) value(k int64) float64 {
	if s.mul {
		return float64(k) * s.p
	}
	return float64(k) / s.p
}

// integer reports whether v is a multiple of the scale, as a measured value is
// and a mean is not.
func (s scale) integer(v float64) (int64, bool) {
	f := math.RoundToEven(v * s.p)
	if s.mul {
		f = math.RoundToEven(v / s.p)
	}
	if !(f > -1<<51 && f < 1<<51) {
		return 0, false
	}
	k := int64(f)
	return k, s.value(k) == v && (v != 0 || !math.Signbit(v))
}
