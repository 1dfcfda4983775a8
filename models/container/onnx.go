package container

import (
	"fmt"
	"math"
	"path"
	"strconv"
	"strings"

	"github.com/edgeherd/edgeherd/models"
)

// maxONNX is the most that one protobuf message can hold; larger models keep
// their weights in a second file.
const maxONNX = math.MaxInt32

// onnx walks ModelProto. Field numbers are those of
// https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3.
func (s *scan) onnx() error {
	if s.size > maxONNX {
		return fmt.Errorf("it has %d bytes, and no program can load more than %d: export the model with its weights in a second file (external data)", s.size, maxONNX)
	}
	graphs := 0
	err := s.message(s.size, func(f field) error {
		switch {
		case f.num == 7 && f.text():
			graphs++
			return s.graph(f, "")
		case f.num == 25 && f.text(): // a FunctionProto
			return s.message(f.end, func(f field) error {
				if f.num == 7 && f.text() {
					return s.node(f, "")
				}
				return nil
			})
		}
		return nil
	})
	if err == nil && graphs != 1 {
		err = fmt.Errorf("it has %d graphs instead of one", graphs)
	}
	return err
}

// graph reads a GraphProto. scope is the way to it, such as "then_branch/".
func (s *scan) graph(f field, scope string) error {
	return s.message(f.end, func(f field) error {
		switch {
		case f.num == 1 && f.text():
			return s.node(f, scope)
		case f.num == 5 && f.text():
			return s.tensorProto(f, scope)
		case f.num == 15 && f.text():
			return s.sparse(f, scope)
		}
		return nil
	})
}

// node looks into the attributes of a NodeProto. A tensor of a Constant node
// has no name of its own mostly: it gets that of the node's first output.
func (s *scan) node(f field, scope string) error {
	first, output := len(s.tensors), ""
	err := s.message(f.end, func(f field) (err error) {
		switch {
		case f.num == 2 && f.text() && output == "":
			output, err = s.string(f)
		case f.num == 5 && f.text():
			return s.attribute(f, scope)
		}
		return err
	})
	for i := first; i < len(s.tensors); i++ {
		if t := &s.tensors[i]; t.Name == scope {
			if s.nameBytes += len(output); s.nameBytes > MaxNameBytes {
				return fmt.Errorf("its names need more than %d bytes", MaxNameBytes)
			}
			t.Name += output
		}
	}
	return err
}

func (s *scan) attribute(f field, scope string) error {
	name := ""
	return s.message(f.end, func(f field) (err error) {
		switch {
		case f.num == 1 && f.text():
			name, err = s.string(f)
		case (f.num == 5 || f.num == 10) && f.text():
			return s.tensorProto(f, scope)
		case (f.num == 6 || f.num == 11) && f.text():
			return s.graph(f, scope+name+"/")
		case (f.num == 22 || f.num == 23) && f.text():
			return s.sparse(f, scope)
		case f.num == 7 && f.text() && f.len() >= 64: // packed floats, as the weights of traditional ML operators
			n := f.len() / 4
			return s.add(Tensor{Name: scope + name, DType: models.FP32, Shape: []int64{n}, Off: f.start, Len: 4 * n})
		}
		return err
	})
}

func (s *scan) sparse(f field, scope string) error {
	return s.message(f.end, func(f field) error {
		if (f.num == 1 || f.num == 2) && f.text() {
			return s.tensorProto(f, scope)
		}
		return nil
	})
}

// onnxTensor is what the fields of a TensorProto say.
type onnxTensor struct {
	Tensor
	elem     uint64
	typed    models.DType // of the typed field that holds the data
	external bool
	place    map[string]string // external_data
}

func (s *scan) tensorProto(f field, scope string) error {
	t := onnxTensor{place: map[string]string{}}
	err := s.message(f.end, func(f field) (err error) {
		switch {
		case f.num == 1:
			err = s.dims(f, &t)
		case f.num == 2 && !f.text():
			t.elem = f.value
		case f.num == 8 && f.text():
			t.Name, err = s.string(f)
		case f.num == 9 && f.text():
			t.Off, t.Len, t.typed = f.start, f.len(), ""
		case f.num == 4 && f.text(): // float_data; complex numbers are stored in it too
			t.Off, t.Len, t.typed = f.start, f.len(), models.FP32
		case f.num == 10 && f.text(): // double_data
			t.Off, t.Len, t.typed = f.start, f.len(), models.FP64
		case f.num == 13 && f.text():
			err = s.externalData(f, &t)
		case f.num == 14 && !f.text():
			t.external = f.value == 1
		}
		return err
	})
	if err != nil {
		return err
	}
	t.Name = scope + t.Name
	t.DType = models.ONNXDType(t.elem)
	if t.typed != "" {
		t.DType = t.typed
	}
	want, err := bytesOf(t.Shape, int64(t.DType.Size()))
	if err != nil {
		return fmt.Errorf("tensor %q: %w", t.Name, err)
	}
	if t.external || len(t.place) > 0 {
		if err := t.locate(want); err != nil {
			return err
		}
	} else if t.typed == "" && t.Len > 0 && want > 0 && t.Len != want {
		return fmt.Errorf("tensor %q has %d bytes where its shape %v of %s needs %d", t.Name, t.Len, t.Shape, t.DType, want)
	}
	if t.Len == 0 {
		return nil // its data are varints, strings or nothing: no range of elements
	}
	return s.add(t.Tensor)
}

// dims reads TensorProto.dims, packed or one by one.
func (s *scan) dims(f field, t *onnxTensor) error {
	one := func(v uint64) error {
		if len(t.Shape) == maxDims {
			return fmt.Errorf("a tensor has more than %d dimensions", maxDims)
		}
		t.Shape = append(t.Shape, int64(v))
		return nil
	}
	if !f.text() {
		return one(f.value)
	}
	for s.off < f.end {
		v, err := s.varint(f.end)
		if err != nil {
			return err
		}
		if err := one(v); err != nil {
			return err
		}
	}
	return nil
}

// externalData reads one key and value of TensorProto.external_data.
func (s *scan) externalData(f field, t *onnxTensor) error {
	var key, value string
	err := s.message(f.end, func(f field) (err error) {
		switch {
		case f.num == 1 && f.text():
			key, err = s.string(f)
		case f.num == 2 && f.text():
			value, err = s.string(f)
		}
		return err
	})
	if len(t.place) < 8 { // location, offset, length, checksum are all that exist
		t.place[key] = value
	}
	return err
}

// locate turns external_data into a range. want is the size by shape and type,
// used when the length is left out.
func (t *onnxTensor) locate(want int64) error {
	t.File = t.place["location"]
	clean := path.Clean(strings.ReplaceAll(t.File, `\`, "/"))
	if t.File == "" || path.IsAbs(clean) || clean == ".." || strings.HasPrefix(clean, "../") || strings.Contains(clean, ":") {
		return fmt.Errorf("tensor %q keeps its data in %q, which is outside the model's folder", t.Name, t.File)
	}
	t.Off, t.Len = 0, want
	for key, into := range map[string]*int64{"offset": &t.Off, "length": &t.Len} {
		text, ok := t.place[key]
		if !ok {
			continue
		}
		v, err := strconv.ParseInt(text, 10, 64)
		if err != nil || v < 0 {
			return fmt.Errorf("tensor %q has the external %s %q", t.Name, key, text)
		}
		*into = v
	}
	if t.Len > math.MaxInt64-t.Off {
		return fmt.Errorf("tensor %q ends beyond what a file can have", t.Name)
	}
	if want > 0 && t.Len != want {
		return fmt.Errorf("tensor %q has %d external bytes where its shape %v of %s needs %d", t.Name, t.Len, t.Shape, t.DType, want)
	}
	return nil
}
