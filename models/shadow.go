package models

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
)

// MaxShadowSeconds bounds how long a manifest may keep a box from switching.
const MaxShadowSeconds = 24 * 3600

// Shadow says what a version must show beside the one before it, on copies of
// the requests that the box gets, before it serves; the zero value: that it
// answers at all, for as long as the box looks on by itself.
type Shadow struct {
	// Seconds is how long the box looks on at most; 0: as its agent says.
	Seconds float64 `json:"seconds,omitempty" yaml:"seconds"`
	// MinCompared answers must have been compared by then; 0: traffic is not needed.
	MinCompared int `json:"min_compared,omitempty" yaml:"min_compared"`
	// MinAgreement, 0..1, is the least mean Agreement; 0: it may answer otherwise,
	// as a version that was made to be better does.
	MinAgreement float64 `json:"min_agreement,omitempty" yaml:"min_agreement"`
}

func (m Manifest) checkShadow() error {
	s := m.Shadow
	switch {
	case s == nil:
		return nil
	case math.IsNaN(s.Seconds) || s.Seconds < 0 || s.Seconds > MaxShadowSeconds:
		return fmt.Errorf("shadow: seconds is %v, want 0 to %d", s.Seconds, MaxShadowSeconds)
	case s.MinCompared < 0 || s.MinCompared > 1e6:
		return fmt.Errorf("shadow: min_compared is %d, want 0 to 1000000", s.MinCompared)
	case math.IsNaN(s.MinAgreement) || s.MinAgreement < 0 || s.MinAgreement > 1:
		return fmt.Errorf("shadow: min_agreement is %v, want a share from 0 to 1", s.MinAgreement)
	case m.Backend != nil && m.Backend.API == APIOpenAI:
		return errors.New("shadow: texts of a language model are not compared: leave it out")
	}
	return nil
}

// near is how far two numbers may lie apart and still agree: of the larger one,
// and never less than of 1, since most outputs are scores from 0 to 1.
const near = 0.1

// Agreement is the share, 0..1, in which two versions answer alike. Rows of
// numbers (the last axis of a tensor of two or more, when longer than 1) agree
// when their largest elements stand at the same place, for these are scores of
// classes; other numbers when they differ by at most a tenth; integers, booleans
// and strings when they are equal. Tensors of different type or shape do not agree.
func Agreement(a TensorSpec, aData []byte, b TensorSpec, bData []byte) float64 {
	if a.DType != b.DType || !slices.Equal(a.Shape, b.Shape) || a.CheckData(aData) != nil || b.CheckData(bData) != nil {
		return 0
	}
	if len(aData) == 0 {
		return 1
	}
	var same, all int
	switch a.DType {
	case BYTES:
		same, all = sameStrings(aData, bData)
	case FP16, BF16, FP32, FP64:
		if n := len(a.Shape); n > 1 && a.Shape[n-1] > 1 {
			same, all = sameRows(a.DType, int(a.Shape[n-1]), aData, bData)
		} else {
			same, all = sameNumbers(a.DType, aData, bData)
		}
	default:
		size := a.DType.Size()
		for i := 0; i+size <= len(aData); i += size {
			all++
			if string(aData[i:i+size]) == string(bData[i:i+size]) {
				same++
			}
		}
	}
	return float64(same) / float64(max(all, 1))
}

func sameNumbers(t DType, a, b []byte) (same, all int) {
	for all = 0; all < len(a)/t.Size(); all++ {
		x, y := t.float(a, all), t.float(b, all)
		far := math.Abs(x - y)
		if x == y || !math.IsInf(far, 0) && far <= near*max(1, math.Abs(x), math.Abs(y)) || math.IsNaN(x) && math.IsNaN(y) {
			same++
		}
	}
	return same, all
}

func sameRows(t DType, row int, a, b []byte) (same, all int) {
	for at := 0; at+row <= len(a)/t.Size(); at += row {
		all++
		if largest(t, a, at, row) == largest(t, b, at, row) {
			same++
		}
	}
	return same, all
}

// largest is the place of the first largest of row elements from at on; a row
// of nothing but NaN has none.
func largest(t DType, data []byte, at, row int) int {
	best, place := math.Inf(-1), -1
	for i := range row {
		if x := t.float(data, at+i); x > best || place < 0 && x == best {
			best, place = x, i
		}
	}
	return place
}

// sameStrings compares the elements of two BYTES tensors of one shape, whose
// data has been checked.
func sameStrings(a, b []byte) (same, all int) {
	for len(a) >= 4 && len(b) >= 4 {
		n, m := 4+binary.LittleEndian.Uint32(a), 4+binary.LittleEndian.Uint32(b)
		all++
		if string(a[4:n]) == string(b[4:m]) {
			same++
		}
		a, b = a[n:], b[m:]
	}
	return same, all
}
