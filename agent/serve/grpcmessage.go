package serve

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/models"
)

// Field numbers of ModelInferRequest, ModelInferResponse and what is in them,
// see oip/inference.proto. These two messages carry the tensors, so they are
// read and written here without a copy of the data.
const (
	fieldModelName = 1
	fieldVersion   = 2
	fieldID        = 3
	fieldParams    = 4
	fieldTensors   = 5 // inputs of a request, outputs of a response
	fieldOutputs   = 6 // requested outputs
	fieldRawIn     = 7
	fieldRawOut    = 6
	fieldContents  = 5
)

// message walks the fields of one protobuf message. Its slices alias the input.
type message struct{ rest []byte }

// next returns the number, type and content of the next field: the content of
// a length-delimited field is without its length. It reports false at the end.
func (m *message) next() (num protowire.Number, typ protowire.Type, content []byte, more bool, err error) {
	if len(m.rest) == 0 {
		return 0, 0, nil, false, nil
	}
	num, typ, n := protowire.ConsumeTag(m.rest)
	if n < 0 {
		return 0, 0, nil, false, protowire.ParseError(n)
	}
	m.rest = m.rest[n:]
	size := protowire.ConsumeFieldValue(num, typ, m.rest)
	if size < 0 {
		return 0, 0, nil, false, protowire.ParseError(size)
	}
	content, m.rest = m.rest[:size], m.rest[size:]
	if typ == protowire.BytesType {
		content, _ = protowire.ConsumeBytes(content)
	}
	return num, typ, content, true, nil
}

// fields calls each for every field of b.
func fields(b []byte, each func(num protowire.Number, typ protowire.Type, content []byte) error) error {
	m := message{b}
	for {
		num, typ, content, more, err := m.next()
		if err != nil || !more {
			return err
		}
		if err := each(num, typ, content); err != nil {
			return err
		}
	}
}

// grpcDecoder turns a ModelInferRequest into a call. Raw tensors alias the
// message; typed contents are written into arena.
type grpcDecoder struct {
	call     call
	raw      [][]byte
	contents [][]byte // of each input, nil when it has none
	spans    []span
	arena    []byte
	reserve  func(n int64) error
	reserved int
	answer   bool // a ModelInferResponse is read: its outputs are the inputs of the call
}

var errWireType = errors.New("a field has the wrong wire type")

// decode reads a whole message.
func (d *grpcDecoder) decode(b []byte) error {
	err := fields(b, func(num protowire.Number, typ protowire.Type, content []byte) error {
		if num >= fieldModelName && num <= fieldRawIn && typ != protowire.BytesType {
			return errWireType
		}
		if num <= fieldID && len(content) > maxName {
			return errLongName
		}
		switch num {
		case fieldModelName:
			d.call.model = string(content)
		case fieldVersion:
			d.call.version = string(content)
		case fieldID:
			d.call.id = string(content)
		case fieldParams:
			if d.answer {
				return nil
			}
			return parameter(content, d.call.requestParameter)
		case fieldTensors:
			return d.input(content)
		case fieldOutputs, fieldRawIn:
			if (num == fieldRawOut) != d.answer {
				if d.answer {
					return nil
				}
				return d.output(content)
			}
			if len(d.raw) == maxTensors {
				return fmt.Errorf("more than %d raw_input_contents", maxTensors)
			}
			d.raw = append(d.raw, content)
		}
		return nil
	})
	if err == nil {
		err = d.place()
	}
	if err != nil {
		return badRequest(err)
	}
	return nil
}

func (d *grpcDecoder) input(b []byte) error {
	if len(d.call.inputs) == maxTensors {
		return fmt.Errorf("more than %d inputs", maxTensors)
	}
	t := worker.Tensor{Shape: make([]int64, 0, 8)}
	var contents []byte
	err := fields(b, func(num protowire.Number, typ protowire.Type, content []byte) error {
		if (num <= 2 || num == fieldParams || num == fieldContents) && typ != protowire.BytesType {
			return errWireType
		}
		if num <= 2 && len(content) > maxName {
			return errLongName
		}
		switch num {
		case 1:
			t.Name = string(content)
		case 2:
			t.DType = models.DType(content)
		case 3:
			return appendShape(&t.Shape, typ, content)
		case fieldParams:
			if d.answer {
				return nil
			}
			return parameter(content, func(key string, v value) error { return d.call.inputParameter(len(d.call.inputs), key, v) })
		case fieldContents:
			contents = content
			if contents == nil {
				contents = []byte{}
			}
		}
		return nil
	})
	if err == nil && t.DType.Size() == 0 && t.DType != models.BYTES {
		err = fmt.Errorf("unknown datatype %q", t.DType)
	}
	if err != nil {
		return named(t.Name, err)
	}
	d.call.inputs = append(d.call.inputs, t)
	d.contents = append(d.contents, contents)
	return nil
}

// appendShape reads a repeated int64, packed or not.
func appendShape(shape *[]int64, typ protowire.Type, b []byte) error {
	if typ != protowire.VarintType && typ != protowire.BytesType {
		return errWireType
	}
	for len(b) > 0 {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		if len(*shape) == maxRank {
			return fmt.Errorf("more than %d dimensions", maxRank)
		}
		*shape, b = append(*shape, int64(v)), b[n:]
	}
	return nil
}

func (d *grpcDecoder) output(b []byte) error {
	if len(d.call.outputs) == maxTensors {
		return fmt.Errorf("more than %d outputs", maxTensors)
	}
	o := wanted{binary: true, form: true}
	err := fields(b, func(num protowire.Number, typ protowire.Type, content []byte) error {
		if num <= 2 && typ != protowire.BytesType {
			return errWireType
		}
		if num == 1 && len(content) > maxName {
			return errLongName
		}
		switch num {
		case 1:
			o.name = string(content)
		case 2:
			return parameter(content, o.parameter)
		}
		return nil
	})
	if err == nil && o.name == "" {
		err = errors.New("output without a name")
	}
	d.call.outputs = append(d.call.outputs, o)
	return err
}

// place gives each input its data: raw contents in order, else typed ones.
func (d *grpcDecoder) place() error {
	d.call.binary = true
	if len(d.raw) > 0 {
		if len(d.raw) != len(d.call.inputs) {
			return fmt.Errorf("%d raw_input_contents for %d inputs: there is one for each, or none", len(d.raw), len(d.call.inputs))
		}
		for i, c := range d.contents {
			if c != nil {
				return named(d.call.inputs[i].Name, errors.New("has contents beside raw_input_contents"))
			}
			d.call.inputs[i].Data = d.raw[i]
		}
		return nil
	}
	for i := range d.call.inputs {
		from := len(d.arena)
		if err := d.typed(d.call.inputs[i].DType, d.contents[i]); err != nil {
			return named(d.call.inputs[i].Name, err)
		}
		d.spans = append(d.spans, span{from, len(d.arena)})
	}
	for i, s := range d.spans {
		d.call.inputs[i].Data = d.arena[s.from:s.to:s.to]
	}
	return nil
}

// contentsField is the field of InferTensorContents that holds a type.
func contentsField(t models.DType) protowire.Number {
	switch t {
	case models.BOOL:
		return 1
	case models.INT8, models.INT16, models.INT32:
		return 2
	case models.INT64:
		return 3
	case models.UINT8, models.UINT16, models.UINT32:
		return 4
	case models.UINT64:
		return 5
	case models.FP32:
		return 6
	case models.FP64:
		return 7
	case models.BYTES:
		return 8
	}
	return 0 // FP16 and BF16 have none
}

// typed appends InferTensorContents to arena.
func (d *grpcDecoder) typed(t models.DType, b []byte) error {
	want := contentsField(t)
	if want == 0 {
		return fmt.Errorf("%s has no typed form, send it in raw_input_contents", t)
	}
	return fields(b, func(num protowire.Number, typ protowire.Type, content []byte) error {
		switch {
		case num > 8:
			return nil
		case num != want:
			return fmt.Errorf("contents are in field %d, %s belongs into field %d of InferTensorContents", num, t, want)
		case t == models.BYTES:
			if typ != protowire.BytesType {
				return errWireType
			}
			d.arena = binary.LittleEndian.AppendUint32(d.arena, uint32(len(content)))
			d.arena = append(d.arena, content...)
			return d.charge()
		case t == models.FP32 || t == models.FP64:
			if typ == protowire.VarintType || len(content)%t.Size() != 0 {
				return errWireType
			}
			d.arena = append(d.arena, content...) // little-endian on the wire too
			return d.charge()
		}
		return d.varints(t, typ, content)
	})
}

func (d *grpcDecoder) varints(t models.DType, typ protowire.Type, b []byte) error {
	if typ != protowire.VarintType && typ != protowire.BytesType {
		return errWireType
	}
	size := t.Size()
	unused := 64 - 8*size
	for len(b) > 0 {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		ok := v<<unused>>unused == v
		switch {
		case t == models.BOOL:
			ok = v <= 1
		case t[0] == 'I':
			ok = int64(v)<<unused>>unused == int64(v)
		}
		if !ok {
			return fmt.Errorf("%d does not fit into %s", int64(v), t)
		}
		for range size {
			d.arena = append(d.arena, byte(v))
			v >>= 8
		}
		if err := d.charge(); err != nil {
			return err
		}
	}
	return nil
}

// charge reserves memory for what arena has grown to.
func (d *grpcDecoder) charge() error {
	for len(d.arena) > d.reserved {
		d.reserved += arenaStep
		if err := d.reserve(arenaStep); err != nil {
			return err
		}
	}
	return nil
}

// parameter reads one entry of a map<string, InferParameter>.
func parameter(b []byte, set func(key string, v value) error) error {
	var key string
	var v value
	err := fields(b, func(num protowire.Number, typ protowire.Type, content []byte) error {
		switch {
		case num > 2:
			return nil
		case typ != protowire.BytesType:
			return errWireType
		case num == 1:
			key = string(content)
			return nil
		}
		return fields(content, v.read)
	})
	if err != nil {
		return err
	}
	return set(key, v)
}

// read takes the field of an InferParameter that is set.
func (v *value) read(num protowire.Number, typ protowire.Type, content []byte) error {
	switch {
	case typ == protowire.VarintType && (num == 1 || num == 2 || num == 5):
		n, _ := protowire.ConsumeVarint(content)
		switch num {
		case 1:
			*v = value{kind: isBool, flag: n != 0}
		case 2:
			*v = value{kind: isNumber, number: float64(int64(n))}
		default:
			*v = value{kind: isNumber, number: float64(n)}
		}
	case typ == protowire.BytesType && num == 3:
		*v = value{kind: isText, text: string(content)}
	case typ == protowire.Fixed64Type && num == 4:
		n, _ := protowire.ConsumeFixed64(content)
		*v = value{kind: isNumber, number: math.Float64frombits(n)}
	case num <= 5:
		return errWireType
	}
	return nil
}

// appendReply writes a ModelInferResponse without the bytes of its tensors:
// each of lead is followed by the data of one output.
func appendReply(ref models.Ref, c *call, outs []worker.Tensor) (lead [][]byte) {
	b := make([]byte, 0, 256)
	b = protowire.AppendString(protowire.AppendTag(b, fieldModelName, protowire.BytesType), ref.Name)
	b = protowire.AppendString(protowire.AppendTag(b, fieldVersion, protowire.BytesType), ref.Version)
	if c.id != "" {
		b = protowire.AppendString(protowire.AppendTag(b, fieldID, protowire.BytesType), c.id)
	}
	for _, p := range [...]struct{ key, text string }{{"variant", c.variant}, {"served_by", c.served}} {
		if p.text != "" {
			b = appendParameter(b, p.key, p.text)
		}
	}
	for i := range outs {
		b = protowire.AppendBytes(protowire.AppendTag(b, fieldTensors, protowire.BytesType), tensorMeta(&outs[i]))
	}
	for i := range outs {
		b = protowire.AppendVarint(protowire.AppendTag(b, fieldRawOut, protowire.BytesType), uint64(len(outs[i].Data)))
		lead = append(lead, b)
		b = b[len(b):]
	}
	if len(outs) == 0 {
		lead = append(lead, b)
	}
	return lead
}
