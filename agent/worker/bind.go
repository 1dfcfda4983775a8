package worker

import (
	"encoding/binary"
	"fmt"
	"slices"
	"unsafe"

	"github.com/edgeherd/edgeherd/models"
)

// maxBindings bounds the bindings that are kept: a model is usually asked with
// one shape in each region, or with a few.
const maxBindings = 32

// binding is the argument memory of OrtApi::Run for one layout of a request:
// names and values of inputs and outputs, bound to places in the ring. Most
// requests look like an earlier one, and then nothing is left to do but Run.
type binding struct {
	key                                    string // the request's frame behind its id
	inNames, inValues, outNames, outValues []uintptr
	// bound is set when the outputs have their places, as learned from the
	// first run; answer then describes them.
	bound  bool
	answer []span
}

// bindings are the ones in use, the oldest first.
type bindings struct {
	session *session
	ring    *ring
	known   []*binding
	// vary is set when the outputs had other shapes than in an earlier run on
	// inputs of the same shapes; then no output is bound in advance.
	vary bool
}

// find returns the binding of a request, a new one when there is none. keep
// says that it may serve a later request too.
func (b *bindings) find(key []byte, r *request) (found *binding, keep bool, err error) {
	for _, k := range b.known {
		if k.key == string(key) {
			return k, true, nil
		}
	}
	made := &binding{}
	keep = true
	for i := range r.in {
		s := &r.in[i]
		if s.port < 0 || s.port >= len(b.session.in) || !b.ring.covers(r.base, s.offset, s.length) {
			b.drop(made)
			return nil, false, errFrame
		}
		v, text, err := b.session.value(s, b.ring.bytes(s.offset, s.length))
		if v != 0 {
			made.inValues = append(made.inValues, v)
		}
		if err != nil {
			b.drop(made)
			return nil, false, fmt.Errorf("input %q: %w", b.session.in[s.port].Spec.Name, err)
		}
		made.inNames = append(made.inNames, b.session.in[s.port].name)
		keep = keep && !text // strings are copied, so they are of this request alone
	}
	for _, o := range r.outs {
		if o < 0 || o >= len(b.session.out) {
			b.drop(made)
			return nil, false, errFrame
		}
		made.outNames = append(made.outNames, b.session.out[o].name)
		made.outValues = append(made.outValues, 0)
	}
	if keep {
		made.key = string(key)
		if len(b.known) == maxBindings {
			b.drop(b.known[0])
			b.known = slices.Delete(b.known, 0, 1)
		}
		b.known = append(b.known, made)
	}
	return made, keep, nil
}

// drop frees the values of a binding.
func (b *bindings) drop(d *binding) {
	for _, v := range d.inValues {
		b.session.lib.call(slotReleaseValue, v)
	}
	b.unbind(d)
}

// unbind frees the values of the outputs.
func (b *bindings) unbind(d *binding) {
	for i, v := range d.outValues {
		if v != 0 {
			b.session.lib.call(slotReleaseValue, v)
			d.outValues[i] = 0
		}
	}
	d.bound = false
}

// run runs the model. terminated tells a failure that was asked for.
func (b *bindings) run(d *binding, terminated func() bool) error {
	err := b.session.run(d)
	if err == nil || !d.bound || terminated() {
		return err
	}
	// Outputs of other shapes than the last time are refused; without places
	// of their own they are allocated by the runtime.
	b.unbind(d)
	if again := b.session.run(d); again != nil {
		return err
	}
	b.vary = true
	return nil
}

// outputs describes where the outputs of the run lie. Those that were not
// bound are copied behind the inputs, which end at end.
func (b *bindings) outputs(d *binding, r *request, end int64) ([]span, error) {
	if d.bound {
		return d.answer, nil
	}
	d.answer = d.answer[:0]
	bindable := !b.vary
	for i, o := range r.outs {
		if d.outValues[i] == 0 {
			return nil, fmt.Errorf("output %q: the model produced no value", b.session.out[o].Spec.Name)
		}
		s, err := b.collect(o, d.outValues[i], r.base, &end)
		if err != nil {
			return nil, fmt.Errorf("output %q: %w", b.session.out[o].Spec.Name, err)
		}
		// An input that is an output too is handed through by the runtime, which
		// does not write it to a place: there it would be that of an older request.
		name := b.session.out[o].Spec.Name
		bindable = bindable && s.length > 0 && b.session.out[o].Spec.DType != models.BYTES && find(b.session.in, name) < 0
		d.answer = append(d.answer, s)
	}
	b.unbind(d)
	if bindable {
		b.bind(d, r)
	}
	return d.answer, nil
}

// bind gives the outputs of later runs the places that d.answer names. Where
// that fails they are copied as before.
func (b *bindings) bind(d *binding, r *request) {
	for i, o := range r.outs {
		s := d.answer[i]
		s.port = o
		v, err := b.session.wrap(&b.session.out[o], s.shape, b.ring.bytes(s.offset, s.length))
		if err != nil {
			b.unbind(d)
			return
		}
		d.outValues[i] = v
	}
	d.bound = true
}

// collect copies one output to the ring.
func (b *bindings) collect(o int, v uintptr, base int64, end *int64) (span, error) {
	s := b.session
	var info uintptr
	if err := s.lib.try(slotGetTensorTypeAndShape, v, uintptr(unsafe.Pointer(&info))); err != nil {
		return span{}, err
	}
	shape, _, err := s.shapeOf(info)
	s.lib.call(slotReleaseTensorTypeAndShapeInfo, info)
	if err != nil {
		return span{}, err
	}
	count := 1
	for _, d := range shape {
		count *= int(d)
	}
	dtype := s.out[o].Spec.DType
	size := count * dtype.Size()
	if dtype == models.BYTES {
		var total uintptr
		if err := s.lib.try(slotGetStringTensorDataLength, v, uintptr(unsafe.Pointer(&total))); err != nil {
			return span{}, err
		}
		size = int(total) + 4*count
	}
	at := span{port: o, offset: align(*end), length: int64(size), shape: shape}
	*end = at.offset + at.length
	if !b.ring.covers(base, at.offset, at.length) {
		return span{}, errTooLarge
	}
	dst := b.ring.bytes(at.offset, at.length)
	switch {
	case size == 0:
		return at, nil
	case dtype == models.BYTES:
		return at, s.collectText(v, count, dst)
	}
	var data uintptr
	if err := s.lib.try(slotGetTensorMutableData, v, uintptr(unsafe.Pointer(&data))); err != nil {
		return span{}, err
	}
	copy(dst, unsafe.Slice((*byte)(pointer(data)), size))
	return at, nil
}

// collectText copies the strings of a BYTES tensor, each behind its length.
func (s *session) collectText(v uintptr, count int, dst []byte) error {
	total := len(dst) - 4*count
	text := make([]byte, total+1) // +1: never a nil pointer
	starts := make([]uintptr, count)
	if err := s.lib.try(slotGetStringTensorContent, v, uintptr(unsafe.Pointer(unsafe.SliceData(text))), uintptr(total),
		uintptr(unsafe.Pointer(unsafe.SliceData(starts))), uintptr(count)); err != nil {
		return err
	}
	for i, start := range starts {
		end := uintptr(total)
		if i+1 < count {
			end = starts[i+1]
		}
		binary.LittleEndian.PutUint32(dst, uint32(end-start))
		dst = dst[4+copy(dst[4:], text[start:end]):]
	}
	return nil
}

// run is OrtApi::Run.
func (s *session) run(d *binding) error {
	return s.lib.try(slotRun, s.handle, s.options,
		address(d.inNames), address(d.inValues), uintptr(len(d.inNames)),
		address(d.outNames), uintptr(len(d.outNames)), address(d.outValues))
}

// address is the C view of a slice that lives on the heap with its binding.
func address(s []uintptr) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(s))) }

// wrap makes a value of bytes that stay where they are.
func (s *session) wrap(p *port, shape []int64, data []byte) (v uintptr, err error) {
	err = s.lib.try(slotCreateTensorWithDataAsOrtValue, s.memory, uintptr(unsafe.Pointer(unsafe.SliceData(data))), uintptr(len(data)),
		uintptr(unsafe.Pointer(unsafe.SliceData(shape))), uintptr(len(shape)), p.element, uintptr(unsafe.Pointer(&v)))
	return v, err
}

// value wraps the bytes of one input; only strings are copied, which text tells.
func (s *session) value(at *span, data []byte) (v uintptr, text bool, err error) {
	p := &s.in[at.port]
	if p.Spec.DType != models.BYTES {
		v, err = s.wrap(p, at.shape, data)
		return v, false, err
	}
	if err = s.lib.try(slotCreateTensorAsOrtValue, s.allocator, uintptr(unsafe.Pointer(unsafe.SliceData(at.shape))), uintptr(len(at.shape)),
		p.element, uintptr(unsafe.Pointer(&v))); err != nil {
		return 0, true, err
	}
	for i, rest := 0, data; len(rest) >= 4; i++ {
		n := int(binary.LittleEndian.Uint32(rest))
		if n > len(rest)-4 {
			return v, true, errFrame
		}
		var buffer uintptr
		if err = s.lib.try(slotGetResizedStringTensorElementBuffer, v, uintptr(i), uintptr(n), uintptr(unsafe.Pointer(&buffer))); err != nil {
			return v, true, err
		}
		copy(unsafe.Slice((*byte)(pointer(buffer)), n), rest[4:4+n])
		rest = rest[4+n:]
	}
	return v, true, nil
}
