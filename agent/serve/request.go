package serve

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/models"
)

// HeaderLength is the header of the binary tensor extension: how many bytes of
// the body are JSON; the tensors follow.
const HeaderLength = "Inference-Header-Content-Length"

// maxRank and maxTensors bound what a request may describe.
const (
	maxRank    = 32
	maxTensors = 4096
	// maxName bounds ids, names and types, in bytes: answers and errors repeat them.
	maxName = 4096
)

var errLongName = fmt.Errorf("an id, a name or a datatype is longer than %d bytes", maxName)

// call is one decoded inference request.
type call struct {
	model, version string // gRPC only; in REST they are in the path
	id             string
	timeout        time.Duration // 0: as the server says
	until          time.Time     // when it is over, where the context does not say so
	priority       uint64        // 1 is the highest, 0 the default
	least          string        // the cheapest variant that may answer; empty: any
	variant        string        // that answered; empty: the model has one form
	binary         bool          // form of outputs that the request does not name
	inputs         []worker.Tensor
	outputs        []wanted
	pixels         map[int]pixels // by input, where a request says how
	lease          *worker.Lease  // the memory that inputs lie in; nil: their own
	room           []byte         // memory for the outputs; what was used of it, afterwards
	reserve        func(n int64) error
	forwarded      bool          // a runner has passed it on: it is answered here or refused
	away           bool          // there is no room for it here, only on its way to another server
	served         string        // where it was computed; empty: here, and nobody asks
	elsewhere      bool          // what became of it says nothing of the version here
	by             string        // the version that answered elsewhere
	exact          string        // the version that other servers are asked for; empty: that of the route, or theirs
	took           time.Duration // in the model; 0: it shared a run, or another server answered
}

// wanted is an output that the request names.
type wanted struct {
	name   string
	binary bool
	form   bool // binary was said for this output
	// classes asks for that many best classes as text, 0 for the tensor.
	classes int
}

// decoder turns a request body into a call in one pass. Tensors in JSON are
// written into arena; those of the binary extension alias the body.
type decoder struct {
	scanner
	call  call
	tail  []byte // binary tensors not yet taken
	arena []byte
	count int64 // elements of the tensor under way
	spans []span
	// reserve is asked for each arenaStep bytes of arena.
	reserve  func(n int64) error
	reserved int
	answer   bool // an inference response is read: its outputs are the inputs of the call

	// Memory of a usual request, for what is appended to else.
	few    [4]worker.Tensor
	places [4]span
	dims   [16]int64
	shaped int // of dims
}

// span is where in arena the data of an input lies, once arena stops moving.
type span struct{ from, to int }

// splitBody separates JSON and binary tensors by the value of HeaderLength.
func splitBody(body []byte, header string) (text, tail []byte, err error) {
	if header == "" {
		return body, nil, nil
	}
	n, err := strconv.ParseUint(header, 10, 63)
	if err != nil {
		return nil, nil, faultf(http.StatusBadRequest, "%s is %q, want a number of bytes", HeaderLength, header)
	}
	if n > uint64(len(body)) {
		return nil, nil, faultf(http.StatusBadRequest, "%s says %d bytes, the body has %d", HeaderLength, n, len(body))
	}
	return body[:n], body[n:], nil
}

// decode reads the whole request. The error of a fault is 400 unless reserve
// said otherwise.
func (d *decoder) decode(text, tail []byte) error {
	d.buf, d.tail = text, tail
	d.call.inputs, d.spans = d.few[:0], d.places[:0]
	seen, tensors := false, "inputs"
	if d.answer {
		tensors = "outputs"
	}
	err := d.object(func(key []byte) error {
		if d.answer && string(key) != tensors && string(key) != "model_version" {
			return d.skip()
		}
		switch string(key) {
		case "model_version":
			if !d.answer {
				return d.skip()
			}
			number, err := d.name()
			d.call.version = string(number)
			return err
		case "id":
			id, err := d.name()
			d.call.id = string(id)
			return err
		case "parameters":
			return d.parameters(d.call.requestParameter)
		case tensors:
			if seen {
				return d.fault(fmt.Sprintf("%q is there twice", tensors))
			}
			seen = true
			return d.array(d.input)
		case "outputs":
			return d.array(d.output)
		}
		return d.skip()
	})
	if err == nil {
		err = d.end()
	}
	if err == nil && !seen {
		err = fmt.Errorf("there are no %q", tensors)
	}
	if err == nil && len(d.tail) > 0 {
		err = fmt.Errorf("%d bytes of binary data belong to no input: check binary_data_size and %s", len(d.tail), HeaderLength)
	}
	if err != nil {
		return badRequest(err)
	}
	for i, s := range d.spans {
		if s.to >= 0 {
			d.call.inputs[i].Data = d.arena[s.from:s.to:s.to]
		}
	}
	for i := range d.call.outputs {
		if o := &d.call.outputs[i]; !o.form {
			o.binary = d.call.binary
		}
	}
	return nil
}

func badRequest(err error) error {
	if _, is := err.(*fault); is {
		return err
	}
	return &fault{http.StatusBadRequest, err}
}

// parameters calls set with every parameter.
func (d *decoder) parameters(set func(key string, v value) error) error {
	return d.object(func(key []byte) error {
		v, err := d.value()
		if err != nil {
			return err
		}
		return set(string(key), v)
	})
}

// natural reads an integer from 0 to max.
func (d *decoder) natural(max uint64) (uint64, error) {
	n, text, err := d.number()
	if err != nil {
		return 0, err
	}
	v, ok := n.unsigned(text, max)
	if !ok {
		return 0, d.fault(fmt.Sprintf("%.40s is not an integer from 0 to %d", text, max))
	}
	return v, nil
}

func (d *decoder) output() error {
	var o wanted
	err := d.object(func(key []byte) error {
		switch string(key) {
		case "name":
			name, err := d.name()
			o.name = string(name)
			return err
		case "parameters":
			return d.parameters(o.parameter)
		}
		return d.skip()
	})
	if err != nil {
		return err
	}
	if o.name == "" {
		return d.fault("output without a name")
	}
	if len(d.call.outputs) == maxTensors {
		return d.fault(fmt.Sprintf("more than %d outputs", maxTensors))
	}
	d.call.outputs = append(d.call.outputs, o)
	return nil
}

// input reads one tensor. The order of its keys is free: data in front of
// datatype is skipped and read when the type is known.
func (d *decoder) input() error {
	if len(d.call.inputs) == maxTensors {
		return d.fault(fmt.Sprintf("more than %d inputs", maxTensors))
	}
	t := worker.Tensor{}
	place := span{-1, -1}
	late, size := -1, int64(-1)
	hasShape, hasData := false, false
	err := d.object(func(key []byte) error {
		switch string(key) {
		case "name":
			name, err := d.name()
			t.Name = string(name)
			return err
		case "datatype":
			return d.dtype(&t.DType)
		case "shape":
			hasShape = true
			return d.shape(&t.Shape)
		case "parameters":
			return d.parameters(func(key string, v value) error {
				if key != "binary_data_size" && d.answer {
					return nil
				}
				if key != "binary_data_size" {
					return d.call.inputParameter(len(d.call.inputs), key, v)
				}
				n, err := v.whole(key, 1<<53)
				size = int64(n)
				return err
			})
		case "data":
			if hasData {
				return d.fault(`"data" is there twice`)
			}
			hasData = true
			if t.DType == "" {
				d.space()
				late = d.pos
				return d.skip()
			}
			return d.data(t.DType, &place)
		}
		return d.skip()
	})
	if err == nil && late >= 0 && t.DType != "" {
		after := d.pos
		d.pos = late
		err = d.data(t.DType, &place)
		d.pos = after
	}
	if err == nil {
		err = d.finish(&t, size, hasShape, hasData)
	}
	if err != nil {
		if t.Name == "" {
			return err
		}
		return named(t.Name, err)
	}
	d.call.inputs = append(d.call.inputs, t)
	d.spans = append(d.spans, place)
	return nil
}

// named adds the tensor to an error and keeps its status.
func named(name string, err error) error {
	if f, is := err.(*fault); is {
		return f
	}
	return fmt.Errorf("input %q: %w", name, err)
}

// finish checks what does not depend on the model and takes binary data.
func (d *decoder) finish(t *worker.Tensor, size int64, hasShape, hasData bool) error {
	switch {
	case t.Name == "":
		return d.fault("input without a name")
	case t.DType == "":
		return fmt.Errorf("no datatype")
	case !hasShape:
		return fmt.Errorf("no shape")
	case hasData && size >= 0:
		return fmt.Errorf("has both data and binary_data_size")
	case !hasData && size < 0:
		return fmt.Errorf("has neither data nor binary_data_size")
	case size > int64(len(d.tail)):
		return fmt.Errorf("binary_data_size is %d, the body has %d bytes left", size, len(d.tail))
	case size >= 0:
		t.Data, d.tail = d.tail[:size:size], d.tail[size:]
		return nil // the worker checks length against shape
	}
	spec := models.TensorSpec{Shape: t.Shape}
	want, err := spec.Elements()
	if err != nil {
		return err
	}
	if d.count != want {
		return fmt.Errorf("data has %d elements, shape %v needs %d", d.count, t.Shape, want)
	}
	return nil
}

// name reads an id, a name or a type.
func (d *decoder) name() ([]byte, error) {
	text, err := d.text()
	if err == nil && len(text) > maxName {
		return nil, errLongName
	}
	return text, err
}

func (d *decoder) dtype(t *models.DType) error {
	text, err := d.name()
	if err != nil {
		return err
	}
	dt := models.DType(text)
	if dt.Size() == 0 && dt != models.BYTES {
		return fmt.Errorf("unknown datatype %q", text)
	}
	if *t != "" {
		return d.fault(`"datatype" is there twice`)
	}
	*t = dt
	return nil
}

func (d *decoder) shape(shape *[]int64) error {
	at := d.shaped
	*shape = d.dims[at:at]
	err := d.array(func() error {
		if len(*shape) == maxRank {
			return d.fault(fmt.Sprintf("more than %d dimensions", maxRank))
		}
		n, err := d.natural(1 << 31)
		*shape = append(*shape, int64(n))
		return err
	})
	if n := len(*shape); at+n <= len(d.dims) {
		d.shaped, *shape = at+n, (*shape)[:n:n]
	}
	return err
}

// data reads a flat or nested array; nesting must not agree with the shape, as
// the protocol's own examples send either.
func (d *decoder) data(t models.DType, place *span) error {
	if t == models.FP16 || t == models.BF16 {
		return fmt.Errorf("%s has no JSON form, send it as binary data", t)
	}
	d.count = 0
	place.from = len(d.arena)
	var err error
	if t == models.FP32 {
		err = d.floats()
	} else {
		err = d.elements(t)
	}
	place.to = len(d.arena)
	return err
}

func (d *decoder) elements(t models.DType) error {
	return d.array(func() error {
		if d.peek() == '[' {
			return d.elements(t)
		}
		d.count++
		if err := d.charge(); err != nil {
			return err
		}
		return d.element(t)
	})
}

// floats is elements for FP32, the type of nearly all large tensors, without a
// call per element.
func (d *decoder) floats() error {
	if err := d.enter('['); err != nil {
		return err
	}
	for first := true; ; first = false {
		// As programs write it: a comma and at once the next number.
		if first || d.pos+1 >= len(d.buf) || d.buf[d.pos] != ',' || d.buf[d.pos+1] <= ' ' {
			more, err := d.more(first, ']')
			if err != nil || !more {
				return err
			}
			d.space()
		} else {
			d.pos++
		}
		before := d.count
		if err := d.plainFloats(); err != nil {
			return err
		}
		if d.count > before {
			continue
		}
		n, end := scanNumber(d.buf, d.pos)
		if end == d.pos {
			if d.peek() != '[' {
				return d.fault("want a number")
			}
			if err := d.floats(); err != nil {
				return err
			}
			continue
		}
		f, ok := n.float32(d.buf[d.pos:end])
		if !ok {
			return d.fault("number is beyond FP32")
		}
		d.pos = end
		d.count++
		d.arena = binary.LittleEndian.AppendUint32(d.arena, math.Float32bits(f))
		if err := d.charge(); err != nil {
			return err
		}
	}
}

// element appends one element of a type other than FP32.
func (d *decoder) element(t models.DType) error {
	switch t {
	case models.BYTES:
		text, err := d.text()
		d.arena = binary.LittleEndian.AppendUint32(d.arena, uint32(len(text)))
		d.arena = append(d.arena, text...)
		return err
	case models.BOOL:
		v, err := d.boolean()
		b := byte(0)
		if v {
			b = 1
		}
		d.arena = append(d.arena, b)
		return err
	}
	n, text, err := d.number()
	if err != nil {
		return err
	}
	var bits uint64
	var ok bool
	width := t.Size() * 8
	switch t {
	case models.FP64:
		var f float64
		f, ok = n.float64(text)
		bits = math.Float64bits(f)
	case models.UINT8, models.UINT16, models.UINT32, models.UINT64:
		bits, ok = n.unsigned(text, math.MaxUint64>>(64-width))
	default:
		var v int64
		v, ok = n.signed(math.MaxInt64 >> (64 - width))
		bits = uint64(v)
	}
	if !ok {
		return fmt.Errorf("element %d: %.40s is no %s", d.count-1, text, t)
	}
	for range width / 8 {
		d.arena = append(d.arena, byte(bits))
		bits >>= 8
	}
	return nil
}
