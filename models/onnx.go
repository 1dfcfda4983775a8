package models

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
)

// ONNXInfo is what the header of an ONNX file says, without its weights.
type ONNXInfo struct {
	IRVersion        int64
	Producer         string // name and version of the exporter
	Opset            int64  // of the default domain
	Signature        Signature
	Initializers     int
	InitializerBytes int64 // size of the encoded initializers in bytes
	// External are the files beside the model that hold weights of it.
	External []ExternalFile
}

// Bounds on what the parser keeps; everything else is skipped in a stream.
const (
	maxONNXName     = 4 << 10  // bytes of one name
	maxONNXNames    = 16 << 20 // bytes of all initializer names together
	maxONNXTensors  = 1 << 16  // graph inputs or outputs
	maxONNXDims     = 64
	maxONNXDepth    = 64
	onnxReadAhead   = 64 << 10
	onnxExternal    = 1 // TensorProto.DataLocation EXTERNAL
	onnxNoSizeLimit = math.MaxInt64
	maxONNXBytes    = math.MaxInt32 // of a file: protobuf, and so ONNX Runtime, reads no more
)

// waysToLess is what to do with a model that no box could load.
const waysToLess = "export the model with its weights in a second file (external data), store them as fp16 or int8, or have a backend serve it"

// ReadONNXFile reads the header of the ONNX file at path.
func ReadONNXFile(path string) (ONNXInfo, error) {
	f, err := os.Open(path)
	if err != nil {
		return ONNXInfo{}, fmt.Errorf("open model: %w", err)
	}
	defer f.Close()
	info, err := ReadONNX(f)
	if err != nil {
		return ONNXInfo{}, fmt.Errorf("model %s: %w", path, err)
	}
	return info, nil
}

// ReadONNX reads r to its end and returns what the header says. It keeps names
// and shapes only, so a model of gigabytes needs no more memory than a small
// one. Of weights in other files (external data) it says where they must be.
func ReadONNX(r io.Reader) (ONNXInfo, error) {
	p := onnxParser{r: bufio.NewReaderSize(r, onnxReadAhead), initializers: map[string]bool{}}
	if err := p.model(); err != nil {
		return ONNXInfo{}, fmt.Errorf("not a usable ONNX file: %w", err)
	}
	return p.info, nil
}

// onnxParser walks the protobuf messages of onnx.proto3 in a stream. The field
// numbers are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3.
type onnxParser struct {
	r            *bufio.Reader
	off          int64 // bytes consumed
	depth        int
	info         ONNXInfo
	graphs       int
	inputs       []TensorSpec
	initializers map[string]bool
	nameBytes    int
}

func (p *onnxParser) model() error {
	var version string
	err := p.message(onnxNoSizeLimit, func(f onnxField) (err error) {
		switch {
		case f.num == 1 && !f.text():
			p.info.IRVersion = int64(f.value)
		case f.num == 2 && f.text():
			p.info.Producer, err = p.name(f)
		case f.num == 3 && f.text():
			version, err = p.name(f)
		case f.num == 7 && f.text():
			if p.graphs++; p.graphs > 1 {
				return errors.New("it has two graphs")
			}
			return p.graph(f.end, true)
		case f.num == 8 && f.text():
			return p.opset(f.end)
		default:
			return p.skip(f)
		}
		return err
	})
	if err != nil {
		return err
	}
	if version != "" {
		p.info.Producer += " " + version
	}
	switch {
	case p.graphs == 0:
		return errors.New("it has no graph")
	case p.info.IRVersion <= 0:
		return errors.New("it has no IR version")
	}
	for _, in := range p.inputs {
		// Before IR version 4 every initializer is listed as an input too.
		if !p.initializers[in.Name] {
			p.info.Signature.Inputs = append(p.info.Signature.Inputs, in)
		}
	}
	return p.info.Signature.Validate()
}

func (p *onnxParser) opset(end int64) error {
	var domain string
	var version int64
	err := p.message(end, func(f onnxField) (err error) {
		switch {
		case f.num == 1 && f.text():
			domain, err = p.name(f)
		case f.num == 2 && !f.text():
			version = int64(f.value)
		default:
			return p.skip(f)
		}
		return err
	})
	if domain == "" || domain == "ai.onnx" {
		p.info.Opset = max(p.info.Opset, version)
	}
	return err
}

// graph reads a GraphProto. Graphs inside nodes (If, Loop) are searched for
// external data only.
func (p *onnxParser) graph(end int64, top bool) error {
	return p.message(end, func(f onnxField) error {
		switch {
		case f.num == 1 && f.text():
			return p.node(f.end)
		case f.num == 5 && f.text():
			return p.initializer(f.end, top, true)
		case f.num == 15 && f.text():
			return p.sparseInitializer(f.end, top)
		case f.num == 11 && f.text() && top:
			return p.valueInfo(f.end, &p.inputs, "input")
		case f.num == 12 && f.text() && top:
			return p.valueInfo(f.end, &p.info.Signature.Outputs, "output")
		}
		return p.skip(f)
	})
}

// node looks into the attributes of a NodeProto.
func (p *onnxParser) node(end int64) error {
	return p.message(end, func(f onnxField) error {
		if f.num != 5 || !f.text() {
			return p.skip(f)
		}
		return p.message(f.end, func(f onnxField) error {
			switch {
			case (f.num == 5 || f.num == 10) && f.text():
				_, err := p.tensor(f.end, false)
				return err
			case (f.num == 6 || f.num == 11) && f.text():
				return p.graph(f.end, false)
			}
			return p.skip(f)
		})
	})
}

// initializer reads a TensorProto that a graph lists, or the values of a sparse one.
func (p *onnxParser) initializer(end int64, top, dense bool) error {
	start := p.off
	name, err := p.tensor(end, dense)
	if err != nil {
		return err
	}
	p.info.Initializers++
	p.info.InitializerBytes += p.off - start
	if !top {
		return nil
	}
	if p.nameBytes += len(name) + 64; p.nameBytes > maxONNXNames {
		return fmt.Errorf("the names of its initializers need more than %d bytes", maxONNXNames)
	}
	p.initializers[name] = true
	return nil
}

// sparseInitializer reads a SparseTensorProto, whose values carry its name.
func (p *onnxParser) sparseInitializer(end int64, top bool) error {
	return p.message(end, func(f onnxField) error {
		switch {
		case f.num == 1 && f.text():
			return p.initializer(f.end, top, false)
		case f.num == 2 && f.text():
			_, err := p.tensor(f.end, false)
			return err
		}
		return p.skip(f)
	})
}

// tensor reads the name of a TensorProto and where its data are, and skips those.
func (p *onnxParser) tensor(end int64, mayBeOutside bool) (name string, err error) {
	at := onnxPlace{bytes: 1, entries: map[string]string{}}
	err = p.message(end, func(f onnxField) (err error) {
		if f.num == 8 && f.text() {
			name, err = p.name(f)
			return err
		}
		return p.placed(f, &at)
	})
	if err != nil || !at.external {
		return name, err
	}
	if !mayBeOutside {
		return name, fmt.Errorf("tensor %q, an attribute or part of a sparse one, keeps its data in another file, which is for initializers: export the model again (onnx.save with convert_attribute=False)", name)
	}
	return name, p.external(name, at)
}

func (p *onnxParser) valueInfo(end int64, into *[]TensorSpec, what string) error {
	if len(*into) == maxONNXTensors {
		return fmt.Errorf("it has more than %d %ss", maxONNXTensors, what)
	}
	var t TensorSpec
	elem, tensor := uint64(0), false
	err := p.message(end, func(f onnxField) (err error) {
		switch {
		case f.num == 1 && f.text():
			t.Name, err = p.name(f)
			return err
		case f.num == 2 && f.text():
			return p.message(f.end, func(f onnxField) error { // TypeProto
				if f.num != 1 || !f.text() {
					return p.skip(f)
				}
				tensor = true
				elem, t.Shape, err = p.tensorType(f.end)
				return err
			})
		}
		return p.skip(f)
	})
	if err != nil {
		return err
	}
	if !tensor {
		return fmt.Errorf("%s %q is not a tensor (sequences, maps and optionals are not served)", what, t.Name)
	}
	if t.DType = ONNXDType(elem); t.DType == "" {
		return fmt.Errorf("%s %q has ONNX element type %d, which is not served", what, t.Name, elem)
	}
	*into = append(*into, t)
	return nil
}

// tensorType reads TypeProto.Tensor. A file may leave the shape out, which
// means that even the rank is free; like ONNX Runtime it gives no dimensions.
func (p *onnxParser) tensorType(end int64) (elem uint64, shape []int64, err error) {
	err = p.message(end, func(f onnxField) error {
		switch {
		case f.num == 1 && !f.text():
			elem = f.value
			return nil
		case f.num != 2 || !f.text():
			return p.skip(f)
		}
		return p.message(f.end, func(f onnxField) error { // TensorShapeProto
			if f.num != 1 || !f.text() {
				return p.skip(f)
			}
			if len(shape) == maxONNXDims {
				return fmt.Errorf("a tensor has more than %d dimensions", maxONNXDims)
			}
			dim, err := p.dimension(f.end)
			shape = append(shape, dim)
			return err
		})
	})
	return elem, shape, err
}

// dimension reads one size; a name, a size below 1 or nothing means "free".
// Some exporters write 0 where they mean free.
func (p *onnxParser) dimension(end int64) (int64, error) {
	dim := int64(-1)
	err := p.message(end, func(f onnxField) error {
		if f.num == 1 && !f.text() {
			if dim = int64(f.value); dim < 1 {
				dim = -1
			}
			return nil
		}
		return p.skip(f)
	})
	return dim, err
}

// ONNXDType maps TensorProto.DataType; "" is a type that no caller can send.
func ONNXDType(t uint64) DType {
	switch t {
	case 1:
		return FP32
	case 2:
		return UINT8
	case 3:
		return INT8
	case 4:
		return UINT16
	case 5:
		return INT16
	case 6:
		return INT32
	case 7:
		return INT64
	case 8:
		return BYTES
	case 9:
		return BOOL
	case 10:
		return FP16
	case 11:
		return FP64
	case 12:
		return UINT32
	case 13:
		return UINT64
	case 16:
		return BF16
	}
	return ""
}
