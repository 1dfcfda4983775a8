package pipeline

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/models"
)

// put writes v as element i of an array of that type; whole numbers are
// rounded and cut at their range.
func put(data []byte, i int, t models.DType, v float64) {
	le := binary.LittleEndian
	whole := func(low, high float64) int64 {
		if math.IsNaN(v) {
			return 0
		}
		return int64(min(max(math.Round(v), low), high))
	}
	switch t {
	case models.FP32:
		le.PutUint32(data[4*i:], math.Float32bits(float32(v)))
	case models.FP64:
		le.PutUint64(data[8*i:], math.Float64bits(v))
	case models.FP16:
		le.PutUint16(data[2*i:], halfBits(float32(v)))
	case models.BF16:
		le.PutUint16(data[2*i:], uint16(math.Float32bits(float32(v))>>16))
	case models.UINT8, models.BOOL:
		data[i] = byte(whole(0, 255))
	case models.INT8:
		data[i] = byte(whole(-128, 127))
	case models.UINT16:
		le.PutUint16(data[2*i:], uint16(whole(0, math.MaxUint16)))
	case models.INT16:
		le.PutUint16(data[2*i:], uint16(whole(math.MinInt16, math.MaxInt16)))
	case models.UINT32:
		le.PutUint32(data[4*i:], uint32(whole(0, math.MaxUint32)))
	case models.INT32:
		le.PutUint32(data[4*i:], uint32(whole(math.MinInt32, math.MaxInt32)))
	case models.UINT64, models.INT64:
		le.PutUint64(data[8*i:], uint64(whole(-1<<53, 1<<53)))
	}
}

// zeros is a tensor of the spec for one item.
func zeros(t models.TensorSpec) worker.Tensor {
	shape := t.AtOnce()
	if shape == nil {
		shape = []int64{}
	}
	n := t.DType.Size()
	for _, d := range shape {
		n *= int(d)
	}
	return worker.Tensor{Name: t.Name, DType: t.DType, Shape: shape, Data: make([]byte, n)}
}

// numbers reads a tensor of numbers whose shape and data agree.
func numbers(t worker.Tensor) ([]float32, error) {
	n := int64(1)
	for _, d := range t.Shape {
		if d < 0 || d > 1<<31 || n*d > 1<<31 {
			return nil, fmt.Errorf("tensor %s has impossible shape %v", t.Name, t.Shape)
		}
		n *= d
	}
	size := int64(t.DType.Size())
	if size == 0 || int64(len(t.Data)) != size*n {
		return nil, fmt.Errorf("tensor %s is %s%v with %d bytes", t.Name, t.DType, t.Shape, len(t.Data))
	}
	le := binary.LittleEndian
	out := make([]float32, n)
	for i := range out {
		switch t.DType {
		case models.FP32:
			out[i] = math.Float32frombits(le.Uint32(t.Data[4*i:]))
		case models.FP16:
			out[i] = halfFloat(le.Uint16(t.Data[2*i:]))
		case models.FP64:
			out[i] = float32(math.Float64frombits(le.Uint64(t.Data[8*i:])))
		case models.UINT8:
			out[i] = float32(t.Data[i])
		case models.INT8:
			out[i] = float32(int8(t.Data[i]))
		case models.INT32:
			out[i] = float32(int32(le.Uint32(t.Data[4*i:])))
		case models.INT64:
			out[i] = float32(int64(le.Uint64(t.Data[8*i:])))
		default:
			return nil, fmt.Errorf("tensor %s is %s, want numbers", t.Name, t.DType)
		}
	}
	return out, nil
}

// halfFloat widens an IEEE 754 half.
func halfFloat(h uint16) float32 {
	sign, exp, frac := uint32(h&0x8000)<<16, uint32(h>>10&0x1f), uint32(h&0x3ff)
	switch exp {
	case 0: // zero or subnormal: frac · 2⁻²⁴
		v := float32(frac) / (1 << 24)
		return math.Float32frombits(math.Float32bits(v) | sign)
	case 0x1f:
		return math.Float32frombits(sign | 0xff<<23 | frac<<13)
	}
	return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
}

// halfBits rounds to the nearest half, ties to even.
func halfBits(f float32) uint16 {
	b := math.Float32bits(f)
	sign, exp, frac := uint16(b>>16&0x8000), int(b>>23&0xff)-112, b&0x7fffff
	switch {
	case exp == 0xff-112:
		if frac != 0 {
			return sign | 0x7e00
		}
		return sign | 0x7c00
	case exp >= 0x1f:
		return sign | 0x7c00
	case exp < -10:
		return sign
	}
	shift := uint(13)
	if exp <= 0 { // subnormal: the hidden bit becomes visible
		frac |= 1 << 23
		shift += uint(1 - exp)
		exp = 0
	}
	out := uint32(exp)<<10 + frac>>shift
	rest, half := frac&(1<<shift-1), uint32(1)<<(shift-1)
	if rest > half || rest == half && out&1 == 1 {
		out++ // may carry into the exponent, which is right
	}
	return sign | uint16(out)
}

// softmax works along the last dimension, in place.
func softmax(v []float32, shape []int64) {
	n := len(v)
	if len(shape) > 0 && shape[len(shape)-1] > 0 {
		n = int(shape[len(shape)-1])
	}
	for i := 0; i+n <= len(v) && n > 0; i += n {
		row := v[i : i+n]
		top := float32(math.Inf(-1))
		for _, x := range row {
			top = max(top, x)
		}
		var sum float64
		for j, x := range row {
			e := math.Exp(float64(x - top))
			row[j] = float32(e)
			sum += e
		}
		for j := range row {
			row[j] = float32(float64(row[j]) / sum)
		}
	}
}

func logistic(x float32) float32 { return float32(1 / (1 + math.Exp(-float64(x)))) }
