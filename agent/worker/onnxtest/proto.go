package onnxtest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/models"
)

// elementTypes lists the element types by their TensorProto.DataType number.
var elementTypes = map[uint64]models.DType{
	1: models.FP32, 2: models.UINT8, 3: models.INT8, 4: models.UINT16, 5: models.INT16,
	6: models.INT32, 7: models.INT64, 8: models.BYTES, 9: models.BOOL, 10: models.FP16,
	11: models.FP64, 12: models.UINT32, 13: models.UINT64, 16: models.BF16,
}

// maxElements bounds a tensor that is decoded element by element.
const maxElements = 1 << 28

// decoder collects the fields of a TensorProto (onnx.proto, message TensorProto).
type decoder struct {
	tensor worker.Tensor
	number uint64   // data_type
	words  []uint64 // float_data, int32_data, int64_data, double_data, uint64_data as bits
	text   [][]byte // string_data
	raw    []byte   // raw_data
	hasRaw bool
}

// DecodeTensor reads a serialised TensorProto.
func DecodeTensor(b []byte) (worker.Tensor, error) {
	d := decoder{tensor: worker.Tensor{Shape: []int64{}}}
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return worker.Tensor{}, fmt.Errorf("decode tensor: %w", protowire.ParseError(n))
		}
		b = b[n:]
		size := protowire.ConsumeFieldValue(num, typ, b)
		if size < 0 {
			return worker.Tensor{}, fmt.Errorf("decode tensor: field %d: %w", num, protowire.ParseError(size))
		}
		if err := d.field(num, typ, b[:size]); err != nil {
			return worker.Tensor{}, fmt.Errorf("decode tensor: field %d: %w", num, err)
		}
		b = b[size:]
	}
	if err := d.finish(); err != nil {
		return worker.Tensor{}, fmt.Errorf("decode tensor %q: %w", d.tensor.Name, err)
	}
	return d.tensor, nil
}

func (d *decoder) field(num protowire.Number, typ protowire.Type, value []byte) (err error) {
	content := value
	if typ == protowire.BytesType {
		content, _ = protowire.ConsumeBytes(value)
	}
	switch num {
	case 1: // dims
		var dims []uint64
		dims, err = numbers(nil, typ, protowire.VarintType, content)
		for _, v := range dims {
			d.tensor.Shape = append(d.tensor.Shape, int64(v))
		}
	case 2: // data_type
		if typ == protowire.VarintType {
			d.number, _ = protowire.ConsumeVarint(value)
		}
	case 4: // float_data
		d.words, err = numbers(d.words, typ, protowire.Fixed32Type, content)
	case 5, 7, 11: // int32_data, int64_data, uint64_data
		d.words, err = numbers(d.words, typ, protowire.VarintType, content)
	case 6: // string_data
		d.text = append(d.text, content)
	case 8: // name
		d.tensor.Name = string(content)
	case 9: // raw_data
		d.raw, d.hasRaw = content, true
	case 10: // double_data
		d.words, err = numbers(d.words, typ, protowire.Fixed64Type, content)
	case 13, 14: // external_data, data_location
		err = errors.New("tensors in other files are not read")
	}
	return err
}

// numbers appends a repeated field, packed or not.
func numbers(to []uint64, typ, element protowire.Type, b []byte) ([]uint64, error) {
	if typ != element && typ != protowire.BytesType {
		return to, fmt.Errorf("wire type %d is unexpected", typ)
	}
	for len(b) > 0 {
		var v uint64
		var n int
		switch element {
		case protowire.Fixed32Type:
			var v32 uint32
			v32, n = protowire.ConsumeFixed32(b)
			v = uint64(v32)
		case protowire.Fixed64Type:
			v, n = protowire.ConsumeFixed64(b)
		default:
			v, n = protowire.ConsumeVarint(b)
		}
		if n < 0 {
			return to, protowire.ParseError(n)
		}
		to, b = append(to, v), b[n:]
	}
	return to, nil
}

// finish turns what was collected into bytes.
func (d *decoder) finish() error {
	dtype, ok := elementTypes[d.number]
	if !ok {
		return fmt.Errorf("element type %d has no Open Inference Protocol name", d.number)
	}
	count := int64(1)
	for _, n := range d.tensor.Shape {
		if n < 0 || (n > 0 && count > maxElements/n) {
			return fmt.Errorf("shape %v is negative or too large", d.tensor.Shape)
		}
		count *= n
	}
	d.tensor.DType, d.tensor.Data = dtype, []byte{}
	have := int64(len(d.words))
	switch {
	case dtype == models.BYTES:
		have = int64(len(d.text))
		for _, s := range d.text {
			d.tensor.Data = append(binary.LittleEndian.AppendUint32(d.tensor.Data, uint32(len(s))), s...)
		}
	case d.hasRaw:
		have = int64(len(d.raw) / dtype.Size())
		d.tensor.Data = d.raw
		if len(d.raw)%dtype.Size() != 0 {
			have = math.MaxInt64
		}
	default:
		for _, v := range d.words {
			d.tensor.Data = appendLow(d.tensor.Data, v, dtype.Size())
		}
	}
	if have != count {
		return fmt.Errorf("shape %v needs %d elements, the data has another number", d.tensor.Shape, count)
	}
	return nil
}

// appendLow appends the low bytes of v: sign extension and bit patterns of
// smaller types live in the upper ones.
func appendLow(b []byte, v uint64, size int) []byte {
	return append(b, binary.LittleEndian.AppendUint64(nil, v)[:size]...)
}
