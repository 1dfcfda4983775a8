package serve

import (
	"encoding/binary"
	"math"
	"strconv"
)

// decimal is a JSON number as it is written: mant × 10^exp, if exact.
type decimal struct {
	mant    uint64
	exp     int
	neg     bool
	integer bool // neither fraction nor exponent
	exact   bool // all digits are in mant
}

// maxExponent bounds what is collected of an exponent; beyond it every number
// of a supported type is zero or infinite, and strconv decides which.
const maxExponent = 10_000

// maxDigits always fit into 64 bits; with more, mant has overflowed.
const maxDigits = 19

// scanNumber reads the JSON number (RFC 8259 §6) that starts at b[i] and
// returns where it ends; an end of i means that there is none.
func scanNumber(b []byte, i int) (d decimal, end int) {
	start := i
	d.integer = true
	if i < len(b) && b[i] == '-' {
		d.neg = true
		i++
	}
	first := i
	mant := uint64(0)
	for ; i < len(b) && b[i]-'0' <= 9; i++ {
		mant = mant*10 + uint64(b[i]-'0')
	}
	digits := i - first
	if digits == 0 || digits > 1 && b[first] == '0' {
		return decimal{}, start
	}
	if i < len(b) && b[i] == '.' {
		d.integer = false
		i++
		point := i
		for ; i < len(b) && b[i]-'0' <= 9; i++ {
			mant = mant*10 + uint64(b[i]-'0')
		}
		if i == point {
			return decimal{}, start
		}
		d.exp = point - i
		digits -= d.exp
	}
	d.mant, d.exact = mant, digits <= maxDigits
	if i < len(b) && b[i]|0x20 == 'e' {
		d.integer = false
		e, next := scanExponent(b, i+1)
		if next < 0 {
			return decimal{}, start
		}
		d.exp += e
		i = next
	}
	return d, i
}

// scanExponent reads sign and digits; a negative end means there are none.
func scanExponent(b []byte, i int) (e, end int) {
	sign := 1
	if i < len(b) && (b[i] == '+' || b[i] == '-') {
		if b[i] == '-' {
			sign = -1
		}
		i++
	}
	first := i
	for ; i < len(b) && b[i]-'0' <= 9; i++ {
		if e < maxExponent {
			e = e*10 + int(b[i]-'0')
		}
	}
	if i == first {
		return 0, -1
	}
	return sign * e, i
}

// tenTo holds the powers of ten that a float64 represents exactly; read only.
var tenTo = [...]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12,
	1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22}

// fast is Clinger's fast path: with both factors exact, one multiplication or
// division rounds once and the result is the correctly rounded float64.
func (d decimal) fast() (float64, bool) {
	if !d.exact || d.mant > 1<<53 || d.exp > 22 || d.exp < -22 {
		return 0, false
	}
	f := float64(d.mant)
	if d.neg {
		f = -f // keeps the sign of -0
	}
	if d.exp < 0 {
		return f / tenTo[-d.exp], true
	}
	return f * tenTo[d.exp], true
}

// float64 returns the nearest float64; text is the number as written. It
// reports false when the number is beyond the type.
func (d decimal) float64(text []byte) (float64, bool) {
	if f, ok := d.fast(); ok {
		return f, true
	}
	f, err := strconv.ParseFloat(string(text), 64)
	return f, err == nil
}

// Bounds between which rounding a float64 to float32 yields a normal number.
const (
	minNormal32 = 0x1p-126
	maxSafe32   = 0x1.fffffep127
)

// float32 returns the nearest float32. Going through float64 rounds twice; that
// is harmless unless the float64 lies exactly between two float32s, where the
// first rounding may have hidden on which side the number was.
func (d decimal) float32(text []byte) (float32, bool) {
	if f, ok := d.fast(); ok {
		a := math.Abs(f)
		between := math.Float64bits(f)&(1<<29-1) == 1<<28
		if a >= minNormal32 && a <= maxSafe32 && !between || f == 0 {
			return float32(f), true
		}
	}
	f, err := strconv.ParseFloat(string(text), 32)
	return float32(f), err == nil
}

// exactDigits always fit into the 53 bits of a float64.
const exactDigits = 15

// plainFloats reads numbers as programs write them, for as long as they come:
// at most 15 digits, no exponent, a comma between and nothing else. It stops
// in front of anything else, and of the comma before it.
func (d *decoder) plainFloats() error {
	b, i := d.buf, d.pos
	for {
		neg := i < len(b) && b[i] == '-'
		if neg {
			i++
		}
		first, mant, fraction := i, uint64(0), 0
		for ; i < len(b) && b[i]-'0' <= 9; i++ {
			mant = mant*10 + uint64(b[i]-'0')
		}
		whole := i - first
		if i < len(b) && b[i] == '.' {
			i++
			point := i
			for ; i < len(b) && b[i]-'0' <= 9; i++ {
				mant = mant*10 + uint64(b[i]-'0')
			}
			if fraction = i - point; fraction == 0 {
				return nil
			}
		}
		if whole == 0 || whole > 1 && b[first] == '0' || whole+fraction > exactDigits || i >= len(b) || b[i] != ',' && b[i] != ']' {
			return nil
		}
		// Both are exact, so the quotient is rounded once; see float32.
		f := float64(mant) / tenTo[fraction]
		if math.Float64bits(f)&(1<<29-1) == 1<<28 {
			return nil
		}
		v := math.Float32bits(float32(f))
		if neg {
			v |= 1 << 31
		}
		d.arena = binary.LittleEndian.AppendUint32(d.arena, v)
		d.count++
		d.pos = i
		if len(d.arena) > d.reserved {
			if err := d.charge(); err != nil {
				return err
			}
		}
		if b[i] != ',' || i+1 >= len(b) || b[i+1]-'0' > 9 && b[i+1] != '-' {
			return nil
		}
		i++
	}
}

// unsigned returns an integer of at most max; text is the number as written.
func (d decimal) unsigned(text []byte, max uint64) (uint64, bool) {
	if d.integer && !d.exact { // 20 digits may still fit
		n, err := strconv.ParseUint(string(text), 10, 64)
		return n, err == nil && n <= max
	}
	return d.mant, d.integer && d.mant <= max && (!d.neg || d.mant == 0)
}

// signed returns an integer from -max-1 to max.
func (d decimal) signed(max int64) (int64, bool) {
	if !d.integer || !d.exact {
		return 0, false
	}
	if d.neg {
		return -int64(d.mant), d.mant <= uint64(max)+1
	}
	return int64(d.mant), d.mant <= uint64(max)
}
