package models

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// maxElements bounds the product of a shape: 2³¹ elements are more than any
// tensor of a box, and far from where the product would overflow.
const maxElements = 1 << 31

// maxTensors bounds the inputs and the outputs of a model. Language models
// with a cache per layer have some hundreds.
const maxTensors = 1024

// Elements returns how many elements a tensor of this exact shape has. A shape
// with a free dimension has no number of elements.
func (t TensorSpec) Elements() (int64, error) {
	n := int64(1)
	for _, d := range t.Shape {
		if d < 0 {
			return 0, fmt.Errorf("shape %v has a free dimension", t.Shape)
		}
		if d > maxElements || n*d > maxElements {
			return 0, fmt.Errorf("shape %v has more than %d elements", t.Shape, int64(maxElements))
		}
		n *= d
	}
	return n, nil
}

// CheckData reports whether data fills exactly this shape. BYTES elements are
// a 4-byte little-endian length and the string, as in the Open Inference
// Protocol's binary extension.
func (t TensorSpec) CheckData(data []byte) error {
	n, err := t.Elements()
	if err != nil {
		return err
	}
	if size := t.DType.Size(); size > 0 {
		if int64(len(data)) != n*int64(size) {
			return fmt.Errorf("%d bytes of data, shape %v of %s needs %d", len(data), t.Shape, t.DType, n*int64(size))
		}
		return nil
	}
	if t.DType != BYTES {
		return fmt.Errorf("unknown datatype %q", t.DType)
	}
	for i := range n {
		if len(data) < 4 || uint64(len(data)-4) < uint64(binary.LittleEndian.Uint32(data)) {
			return fmt.Errorf("string %d of %d runs past the end of the data", i, n)
		}
		data = data[4+binary.LittleEndian.Uint32(data):]
	}
	if len(data) > 0 {
		return fmt.Errorf("%d bytes of data after the last string", len(data))
	}
	return nil
}

// admits reports whether a tensor described by got may be used as t.
func (t TensorSpec) admits(got TensorSpec) error {
	if got.DType != t.DType {
		return fmt.Errorf("is %s, the model has %s", got.DType, t.DType)
	}
	if len(got.Shape) != len(t.Shape) {
		return fmt.Errorf("has shape %v, the model has %v", got.Shape, t.Shape)
	}
	for i, d := range t.Shape {
		if d >= 0 && got.Shape[i] != d {
			return fmt.Errorf("has shape %v, the model has %v", got.Shape, t.Shape)
		}
	}
	return nil
}

// Accepts reports whether callers written for s can use a model with the
// signature next unchanged: every call that was legal stays legal, and every
// answer that they read is still there. The error names the first difference.
func (s Signature) Accepts(next Signature) error {
	for _, was := range s.Inputs {
		is, ok := find(next.Inputs, was.Name)
		if !ok {
			return fmt.Errorf("input %q is gone", was.Name)
		}
		if err := was.accepts(is); err != nil {
			return fmt.Errorf("input %q %w", was.Name, err)
		}
		for i, d := range is.Shape {
			if d >= 0 && was.Shape[i] < 0 {
				return fmt.Errorf("input %q: dimension %d was free and is now fixed to %d", was.Name, i, d)
			}
		}
	}
	for _, is := range next.Inputs {
		if _, ok := find(s.Inputs, is.Name); !ok {
			return fmt.Errorf("input %q is new", is.Name)
		}
	}
	for _, was := range s.Outputs {
		is, ok := find(next.Outputs, was.Name)
		if !ok {
			return fmt.Errorf("output %q is gone", was.Name)
		}
		if len(was.Shape) == 0 || len(is.Shape) == 0 {
			// The exporter did not declare the rank.
			is.Shape = was.Shape
		}
		if err := was.accepts(is); err != nil {
			return fmt.Errorf("output %q %w", was.Name, err)
		}
	}
	return nil
}

// accepts compares type, rank and those dimensions that both sides fix.
func (t TensorSpec) accepts(is TensorSpec) error {
	if is.DType != t.DType {
		return fmt.Errorf("was %s and is now %s", t.DType, is.DType)
	}
	if len(is.Shape) != len(t.Shape) {
		return fmt.Errorf("had %d dimensions and has now %d", len(t.Shape), len(is.Shape))
	}
	for i, d := range is.Shape {
		if d >= 0 && t.Shape[i] >= 0 && d != t.Shape[i] {
			return fmt.Errorf("had size %d in dimension %d and has now %d", t.Shape[i], i, d)
		}
	}
	return nil
}

// Validate names the first fault of the signature.
func (s Signature) Validate() error {
	if len(s.Inputs) == 0 || len(s.Outputs) == 0 {
		return errors.New("signature has no inputs or no outputs")
	}
	for _, side := range [][]TensorSpec{s.Inputs, s.Outputs} {
		if len(side) > maxTensors {
			return fmt.Errorf("signature has %d tensors on one side, at most %d are served", len(side), maxTensors)
		}
		for i, t := range side {
			if t.Name == "" {
				return fmt.Errorf("tensor %d of the signature has no name", i)
			}
			if j := slices.IndexFunc(side, func(o TensorSpec) bool { return o.Name == t.Name }); j != i {
				return fmt.Errorf("tensor %q is in the signature twice", t.Name)
			}
			if t.DType.Size() == 0 && t.DType != BYTES {
				return fmt.Errorf("tensor %q has unknown datatype %q", t.Name, t.DType)
			}
			for _, d := range t.Shape {
				if d < -1 || d > maxElements {
					return fmt.Errorf("tensor %q has impossible shape %v", t.Name, t.Shape)
				}
			}
		}
	}
	return nil
}

func find(specs []TensorSpec, name string) (TensorSpec, bool) {
	for _, t := range specs {
		if t.Name == name {
			return t, true
		}
	}
	return TensorSpec{}, false
}

// sameShape compares exact shapes; nil and empty are both a scalar.
func sameShape(a, b []int64) bool { return slices.Equal(a, b) }
