package wdelta

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/bits"
	"slices"

	"github.com/edgeherd/edgeherd/models/container"
)

// Delta-quantised publishing. The low bits of a fine-tune are noise, and a
// lossless delta ships them. Quantise makes another version of the new weights,
// base + q*m with small whole m, that is as good by any measure but costs a
// fraction on the wire. That version is then what gets evaluated, signed and
// published; its delivery is lossless like any other. The next version is
// quantised against it, so errors do not add up.
//
// q is a power of two. So an encoder finds it in the two files by itself: a delta
// is small whoever makes it, with nothing told to it about how the files came to
// be, and also when it is made from a base that is two versions old.

// Quantum says how a tensor was quantised.
type Quantum struct {
	Name    string
	Weights int64
	// Step is q, a power of two; Bits hold any of its m, with the sign.
	Step float32
	Bits int
	// RelativeError is the distance of the published weights to the trained
	// ones, as a part of how far training moved them (root mean square).
	RelativeError float64
}

// QuantiseOptions say how finely, and where tensors are that the files do not
// list themselves.
type QuantiseOptions struct {
	// Levels is how many steps the typical move of a weight has, within a factor
	// of 1.42, since steps are powers of two. 0 is DefaultLevels.
	Levels float64
	// BaseTensors and TargetTensors are as in Options.
	BaseTensors, TargetTensors []container.Tensor
}

// DefaultLevels has an error of 5 to 10 % of the move, and no evaluation has told
// the difference yet.
const DefaultLevels = 4

// MaxLevels is as fine as it gets: 0.03 % of the move.
const MaxLevels = 1024

// Quantise writes to w the target with each float tensor that base has under
// the same name and shape moved to the nearest base + q*m, q being about the root
// mean square of its moves divided by the levels. All else is copied. Tensors
// whose moves are no numbers, or all zero, are left as they are.
//
// The result is another model: the caller has to evaluate it before it is
// published, and to record that it was made so.
func Quantise(ctx context.Context, base, target Source, w io.Writer, o QuantiseOptions) ([]Quantum, error) {
	if o.Levels == 0 {
		o.Levels = DefaultLevels
	}
	if !(o.Levels >= 0.5 && o.Levels <= MaxLevels) {
		return nil, fmt.Errorf("quantise: %v levels are not between 0.5 and %d", o.Levels, MaxLevels)
	}
	q := quantiser{base: base, target: target, w: w, levels: o.Levels}
	if err := q.run(ctx, o); err != nil {
		return nil, fmt.Errorf("quantise: %w", err)
	}
	return q.tensors, nil
}

type quantiser struct {
	base, target Source
	w            io.Writer
	levels       float64
	tensors      []Quantum
	own, from    []byte
}

func (q *quantiser) run(ctx context.Context, o QuantiseOptions) error {
	bases, err := spansOf(q.base, o.BaseTensors)
	if err != nil {
		return fmt.Errorf("base: %w", err)
	}
	targets, err := spansOf(q.target, o.TargetTensors)
	if err != nil {
		return fmt.Errorf("target: %w", err)
	}
	byName := map[string]container.Tensor{}
	for _, b := range bases {
		byName[b.Name+"\x00"+like(b)] = b
	}
	at := int64(0)
	copyTo := func(off int64) error {
		_, err := io.Copy(q.w, io.NewSectionReader(q.target, at, off-at))
		at = off
		return err
	}
	for _, t := range targets {
		if err := ctx.Err(); err != nil {
			return err
		}
		b, ok := byName[t.Name+"\x00"+like(t)]
		if e := elemOf(t.DType); !ok || e != elemF32 && e != elemF16 && e != elemBF16 {
			continue
		}
		if err := copyTo(t.Off); err != nil {
			return err
		}
		if err := q.tensor(t, b); err != nil {
			return fmt.Errorf("tensor %q: %w", t.Name, err)
		}
		at = t.Off + t.Len
	}
	return copyTo(q.target.Size())
}

// spansOf are the tensors in a file, those given or those that it lists.
func spansOf(f Source, given []container.Tensor) ([]container.Tensor, error) {
	l := container.Layout{Tensors: slices.Clone(given)}
	for i := range l.Tensors {
		l.Tensors[i].File = "" // whatever the model calls it, it is the file at hand
	}
	if given == nil {
		var err error
		if l, err = container.Read(f, f.Size()); err != nil {
			return nil, err
		}
	}
	out := l.Spans("")
	for _, t := range out {
		if t.Off < 0 || t.Len > f.Size()-t.Off {
			return nil, fmt.Errorf("tensor %q lies outside of its %d bytes", t.Name, f.Size())
		}
	}
	return out, nil
}

// tensor goes over it twice: for the step, and for the values.
func (q *quantiser) tensor(t, b container.Tensor) error {
	e := elemOf(t.DType)
	sum, n := 0.0, 0
	err := q.each(e, t, b, func(own, from float32, _ int) {
		d := float64(own) - float64(from)
		sum, n = sum+d*d, n+1
	}, nil)
	if err != nil {
		return err
	}
	step := powerOfTwo(math.Sqrt(sum/float64(max(n, 1))) / q.levels)
	if step == 0 {
		return q.each(e, t, b, nil, q.w)
	}
	lost, farthest := 0.0, int32(0)
	err = q.each(e, t, b, func(own, from float32, at int) {
		m := steps(own, from, step)
		farthest = max(farthest, m, -m)
		v := e.plus(from, step, m)
		e.put(q.own[at:], v)
		d := float64(e.get(q.own[at:])) - float64(own)
		lost += d * d
	}, q.w)
	q.tensors = append(q.tensors, Quantum{t.Name, int64(n), step, bits.Len32(uint32(farthest)) + 1, math.Sqrt(lost / sum)})
	return err
}

// each visits the elements of a tensor in pieces, and writes each piece after.
func (q *quantiser) each(e elem, t, b container.Tensor, visit func(own, from float32, at int), w io.Writer) error {
	for at := int64(0); at < t.Len; at += FrameBytes {
		n := int(min(FrameBytes, t.Len-at))
		q.own, q.from = grow(q.own, n), grow(q.from, n)
		if err := readFull(q.target, q.own, t.Off+at); err != nil {
			return err
		}
		if visit != nil {
			if err := readFull(q.base, q.from, b.Off+at); err != nil {
				return err
			}
			for i := 0; i < n; i += e.size() {
				visit(e.get(q.own[i:]), e.get(q.from[i:]), i)
			}
		}
		if w != nil {
			if _, err := w.Write(q.own); err != nil {
				return err
			}
		}
	}
	return nil
}

func usableStep(q float32) bool { return q > 0 && !math.IsInf(float64(q), 0) }

// powerOfTwo is the power of two nearest to v, by ratio; 0 when that is no normal
// binary32.
func powerOfTwo(v float64) float32 {
	l := math.Round(math.Log2(v))
	if !(l >= -126 && l <= 127) {
		return 0
	}
	return float32(math.Ldexp(1, int(l)))
}

// stepOf finds the step that makes target of base, from samples of a tensor; 0
// when there is none. It looks for the coarsest: any part of it fits as well.
func (e elem) stepOf(target, base []byte) float32 {
	sum, n := 0.0, len(target)/e.size()
	for i := 0; i < n*e.size(); i += e.size() {
		d := float64(e.get(target[i:])) - float64(e.get(base[i:]))
		sum += d * d
	}
	buf := make([]byte, 4*n)
	// The sample may have moved more or less than the tensor did.
	for q := powerOfTwo(8 * math.Sqrt(sum/float64(max(n, 1)))); q > 0 && float64(q) > math.Sqrt(sum)/math.Sqrt(float64(n))/(4*MaxLevels); q /= 2 {
		if e.toSteps(buf, target[:n*e.size()], base, q) {
			if !e.fewer(buf, target[:n*e.size()], base) {
				return 0
			}
			return q
		}
	}
	return 0
}

// steps is the whole number of steps nearest to the way from one to the other.
func steps(own, from, step float32) int32 {
	m := math.RoundToEven((float64(own) - float64(from)) / float64(step))
	if !(math.Abs(m) < 1<<30) {
		return 0
	}
	return int32(m)
}

// plus is base + q*m with one rounding for each operation, the same on every
// machine: the conversion forbids the compiler to fuse them.
func (e elem) plus(base, q float32, m int32) float32 {
	return base + float32(q*float32(m))
}

// get reads a float of any of the three types exactly.
func (e elem) get(b []byte) float32 {
	switch e {
	case elemF32:
		return math.Float32frombits(binary.LittleEndian.Uint32(b))
	case elemBF16:
		return math.Float32frombits(uint32(binary.LittleEndian.Uint16(b)) << 16)
	}
	h := uint32(binary.LittleEndian.Uint16(b))
	sign, exp, frac := h>>15<<31, h>>10&31, h&1023
	switch exp {
	case 0:
		f := float32(frac) / (1 << 24)
		return math.Float32frombits(math.Float32bits(f) | sign)
	case 31:
		return math.Float32frombits(sign | 0x7f800000 | frac<<13)
	}
	return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
}

// put rounds v to the nearest, to even; what is no number becomes one bit
// pattern.
func (e elem) put(b []byte, v float32) {
	bits := math.Float32bits(v)
	nan := v != v
	switch e {
	case elemF32:
		if nan {
			bits = 0x7fc00000
		}
		binary.LittleEndian.PutUint32(b, bits)
	case elemBF16:
		bits += 0x7fff + bits>>16&1
		if nan {
			bits = 0x7fc00000
		}
		binary.LittleEndian.PutUint16(b, uint16(bits>>16))
	default:
		binary.LittleEndian.PutUint16(b, halfOf(v, nan))
	}
}

func halfOf(v float32, nan bool) uint16 {
	bits := math.Float32bits(v)
	sign := uint16(bits >> 16 & 0x8000)
	bits &= 0x7fffffff
	switch {
	case nan:
		return 0x7e00
	case bits >= 0x47800000: // 65536 and more
		return sign | 0x7c00
	case bits < 0x38800000: // below 2^-14: a multiple of 2^-24
		return sign | uint16(math.RoundToEven(float64(math.Float32frombits(bits))*(1<<24)))
	}
	bits += 0xfff + bits>>13&1
	return sign | uint16((bits-112<<23)>>13)
}

// toSteps writes the m of every element, as 32-bit numbers, and reports whether
// they make exactly target.
func (e elem) toSteps(dst, target, base []byte, step float32) bool {
	var b [4]byte
	for i, j := 0, 0; i < len(target); i, j = i+e.size(), j+4 {
		from := e.get(base[i:])
		m := steps(e.get(target[i:]), from, step)
		e.put(b[:], e.plus(from, step, m))
		if string(b[:e.size()]) != string(target[i:i+e.size()]) {
			return false
		}
		binary.LittleEndian.PutUint32(dst[j:], uint32(m))
	}
	return true
}

// addSteps undoes toSteps.
func (e elem) addSteps(dst, src, base []byte, step float32) {
	for i, j := 0, 0; i < len(dst); i, j = i+e.size(), j+4 {
		e.put(dst[i:], e.plus(e.get(base[i:]), step, int32(binary.LittleEndian.Uint32(src[j:]))))
	}
}

// fewer reports whether steps cost clearly less than the differences that they
// are made from: with 16-bit floats a step may be smaller than the last bit, and
// the coder of differences knows the exponents, which this estimate does not.
func (e elem) fewer(steps, target, base []byte) bool {
	n := min(4096, len(target)/e.size())
	zero := make([]byte, 4*n)
	return elemI32.movedBits(steps[:4*n], zero) < 0.8*e.movedBits(target[:n*e.size()], base[:n*e.size()])
}
