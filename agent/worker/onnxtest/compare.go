package onnxtest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/models"
)

// Tolerances of ONNX's own backend test runner (onnx/backend/test/runner):
// |got-want| <= absolute + relative*|want|.
const (
	relative = 1e-3
	absolute = 1e-7
)

// Compare reports how got differs from want. Types and shapes must be equal,
// whole numbers and texts identical, floating-point numbers within tolerance,
// with NaN equal to NaN. Names are not compared: test data is positional.
func Compare(got, want worker.Tensor) error {
	if got.DType != want.DType {
		return fmt.Errorf("type is %s, want %s", got.DType, want.DType)
	}
	if !slices.Equal(got.Shape, want.Shape) {
		return fmt.Errorf("shape is %v, want %v", got.Shape, want.Shape)
	}
	size := want.DType.Size()
	switch want.DType {
	case models.FP16, models.BF16, models.FP32, models.FP64:
	default:
		size = 0
	}
	if size == 0 || len(got.Data) != len(want.Data) {
		if !bytes.Equal(got.Data, want.Data) {
			return fmt.Errorf("data is % .60x, want % .60x", got.Data, want.Data)
		}
		return nil
	}
	for i := 0; i < len(want.Data); i += size {
		g, w := number(got.DType, got.Data[i:]), number(want.DType, want.Data[i:])
		if !near(g, w) {
			return fmt.Errorf("element %d is %v, want %v", i/size, g, w)
		}
	}
	return nil
}

func near(got, want float64) bool {
	if got == want || (math.IsNaN(got) && math.IsNaN(want)) {
		return true
	}
	return math.Abs(got-want) <= absolute+relative*math.Abs(want) && !math.IsInf(got, 0) && !math.IsInf(want, 0)
}

func number(t models.DType, b []byte) float64 {
	switch t {
	case models.FP16:
		return half(binary.LittleEndian.Uint16(b))
	case models.BF16:
		return float64(math.Float32frombits(uint32(binary.LittleEndian.Uint16(b)) << 16))
	case models.FP32:
		return float64(math.Float32frombits(binary.LittleEndian.Uint32(b)))
	}
	return math.Float64frombits(binary.LittleEndian.Uint64(b))
}

// half decodes IEEE 754 binary16.
func half(v uint16) float64 {
	sign, exponent, fraction := 1.0, int(v>>10&31), float64(v&1023)
	if v>>15 == 1 {
		sign = -1
	}
	switch {
	case exponent == 0:
		return sign * math.Ldexp(fraction, -24)
	case exponent < 31:
		return sign * math.Ldexp(1024+fraction, exponent-25)
	case fraction == 0:
		return math.Inf(int(sign))
	}
	return math.NaN()
}
