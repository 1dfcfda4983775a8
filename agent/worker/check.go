package worker

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/edgeherd/edgeherd/models"
)

// Misfit says what of a request is not as a signature wants it, nil if nothing.
// The error is ErrBadInput.
func Misfit(s models.Signature, tensors []Tensor, outputs []string) error {
	ports := func(specs []models.TensorSpec) (list []port) {
		for _, t := range specs {
			list = append(list, port{Spec: t})
		}
		return list
	}
	_, _, err := check(ports(s.Inputs), ports(s.Outputs), tensors, outputs)
	return err
}

// check maps the tensors of a request to the ports of the model.
func check(in, out []port, tensors []Tensor, outputs []string) (ports, outs []int, err error) {
	ports = make([]int, len(tensors))
	given := make([]bool, len(in))
	for i := range tensors {
		t := &tensors[i]
		at := find(in, t.Name)
		if at < 0 {
			return nil, nil, fmt.Errorf("%w: the model has no input %q; it takes %s", ErrBadInput, t.Name, names(in))
		}
		if given[at] {
			return nil, nil, fmt.Errorf("%w: input %q is given twice", ErrBadInput, t.Name)
		}
		given[at], ports[i] = true, at
		if err := checkTensor(t, &in[at]); err != nil {
			return nil, nil, fmt.Errorf("%w: input %q: %w", ErrBadInput, t.Name, err)
		}
	}
	for i, ok := range given {
		if !ok {
			s := &in[i].Spec
			return nil, nil, fmt.Errorf("%w: input %q (%s, shape %s) is missing", ErrBadInput, s.Name, s.DType, shapeText(&in[i]))
		}
	}
	if len(outputs) == 0 {
		outs = make([]int, len(out))
		for i := range outs {
			outs[i] = i
		}
		return ports, outs, nil
	}
	outs = make([]int, len(outputs))
	for i, name := range outputs {
		if outs[i] = find(out, name); outs[i] < 0 {
			return nil, nil, fmt.Errorf("%w: the model has no output %q; it gives %s", ErrBadInput, name, names(out))
		}
		if slices.Contains(outs[:i], outs[i]) {
			return nil, nil, fmt.Errorf("%w: output %q is asked for twice", ErrBadInput, name)
		}
	}
	return ports, outs, nil
}

func find(ports []port, name string) int {
	for i := range ports {
		if ports[i].Spec.Name == name {
			return i
		}
	}
	return -1
}

func names(ports []port) string {
	text := ""
	for i := range ports {
		if i > 0 {
			text += ", "
		}
		text += fmt.Sprintf("%q", ports[i].Spec.Name)
	}
	return text
}

func shapeText(p *port) string {
	if p.AnyShape {
		return "any"
	}
	return fmt.Sprint(p.Spec.Shape)
}

func checkTensor(t *Tensor, p *port) error {
	if t.DType != p.Spec.DType {
		return fmt.Errorf("type is %s, wanted %s", t.DType, p.Spec.DType)
	}
	count, extent := int64(1), int64(1)
	for _, d := range t.Shape {
		if d < 0 {
			return fmt.Errorf("shape is %v; a dimension cannot be negative", t.Shape)
		}
		// Also where another dimension is 0: sums over a batch must not overflow.
		if d > 0 && extent > math.MaxInt64/16/d {
			return fmt.Errorf("shape is %v, which is beyond all memory", t.Shape)
		}
		extent *= max(d, 1)
		count *= d
	}
	if !p.AnyShape && !fits(t.Shape, p.Spec.Shape) {
		return fmt.Errorf("shape is %v, wanted %s", t.Shape, shapeText(p))
	}
	switch t.DType {
	case models.BYTES:
		return checkText(t.Data, count)
	case models.BOOL:
		for i, b := range t.Data {
			if b > 1 { // undefined behaviour in C++
				return fmt.Errorf("byte %d is %d; a BOOL is 0 or 1", i, b)
			}
		}
	}
	if want := count * int64(t.DType.Size()); int64(len(t.Data)) != want {
		return fmt.Errorf("data is %d bytes, wanted %d for %s of shape %v", len(t.Data), want, t.DType, t.Shape)
	}
	return nil
}

func fits(shape, want []int64) bool {
	if len(shape) != len(want) {
		return false
	}
	for i, d := range want {
		if d >= 0 && shape[i] != d {
			return false
		}
	}
	return true
}

// checkText walks the elements of a BYTES tensor.
func checkText(data []byte, count int64) error {
	var n int64
	for rest := data; len(rest) > 0; n++ {
		if len(rest) < 4 || uint64(len(rest)-4) < uint64(binary.LittleEndian.Uint32(rest)) {
			return fmt.Errorf("data ends inside element %d of %d", n, count)
		}
		rest = rest[4+binary.LittleEndian.Uint32(rest):]
	}
	if n != count {
		return fmt.Errorf("data holds %d elements, wanted %d", n, count)
	}
	return nil
}
