package worker

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/models"
)

// Tensor is a named array. Data is little-endian; a BYTES element is a 4-byte
// length and its bytes. An empty Shape is a scalar.
type Tensor struct {
	Name  string
	DType models.DType
	Shape []int64
	Data  []byte
}

// Request is what one caller wants of a run.
type Request struct {
	In      []Tensor
	Outputs []string // in the order wanted; none: all
	// Buf is memory for the outputs; it is used when it is large enough.
	Buf []byte
	// Lease is the memory that In lies in, and that Out will lie in; nil: none.
	Lease *Lease
	// Out is the result of Worker.Run; its data lies in Buf, or in new memory.
	Out []Tensor

	at   []int // position in In of each input of the model; set by Check
	outs []int // outputs of the model that are wanted
	// leased is set when the run takes place in Lease.
	leased bool
}

// Axes says along which axis of each input and output, in the order of the
// model's signature, requests can be put together. -1 is a tensor that has no
// such axis: as an input, all requests of a batch must give the same.
type Axes struct{ In, Out []int }

// Batch is one run of the model.
type Batch struct {
	Requests []*Request
	Axes     Axes // of no use for a single request
	// Placed is called when the inputs have been copied, so that the memory of
	// Request.In may be used again. It may be nil.
	Placed func()
}

// Cost is what one run took.
type Cost struct {
	Input  time.Duration // copying the inputs into shared memory
	Run    time.Duration // in ONNX Runtime
	Output time.Duration // copying the outputs
	CPU    time.Duration // CPU time of ONNX Runtime
}

// Fits reports whether b may be in a batch with a; both have passed Check.
func (x *Axes) Fits(a, b *Request) bool {
	if !slices.Equal(a.outs, b.outs) {
		return false
	}
	for port, axis := range x.In {
		s, t := &a.In[a.at[port]], &b.In[b.at[port]]
		if len(s.Shape) != len(t.Shape) {
			return false
		}
		for i := range s.Shape {
			if i != axis && s.Shape[i] != t.Shape[i] || s.Shape[i] == 0 || t.Shape[i] == 0 {
				return false // what is empty has no rows to put together
			}
		}
		if axis < 0 && !bytes.Equal(s.Data, t.Data) {
			return false
		}
	}
	return true
}

// Items is how many items along the axes a request holds, at least 1.
func (x *Axes) Items(r *Request) int64 {
	for port, axis := range x.In {
		if shape := r.In[r.at[port]].Shape; axis >= 0 && axis < len(shape) {
			return max(shape[axis], 1)
		}
	}
	return 1
}

// rows is how often the bytes of a tensor of shape are interrupted along axis:
// the product of the dimensions in front of it.
func rows(shape []int64, axis int) int {
	n := 1
	for _, d := range shape[:max(axis, 0)] {
		n *= int(d)
	}
	return n
}

// gather writes one input of all requests to dst.
func (b *Batch) gather(dst []byte, port int) {
	first := &b.Requests[0].In[b.Requests[0].at[port]]
	if len(b.Requests) == 1 || b.Axes.In[port] < 0 {
		copy(dst, first.Data)
		return
	}
	n := rows(first.Shape, b.Axes.In[port])
	for row := range n {
		for _, r := range b.Requests {
			data := r.In[r.at[port]].Data
			size := len(data) / n
			dst = dst[copy(dst, data[row*size:(row+1)*size]):]
		}
	}
}

// gathered is the shape and the length of one input of all requests.
func (b *Batch) gathered(port int, shape []int64) ([]int64, int64) {
	first := &b.Requests[0].In[b.Requests[0].at[port]]
	shape, size := append(shape[:0], first.Shape...), int64(len(first.Data))
	if len(b.Requests) == 1 || b.Axes.In[port] < 0 {
		return shape, size
	}
	for _, r := range b.Requests[1:] {
		t := &r.In[r.at[port]]
		shape[b.Axes.In[port]] += t.Shape[b.Axes.In[port]]
		size += int64(len(t.Data))
	}
	return shape, size
}

// result is one output of the model in shared memory.
type result struct {
	port  int
	spec  Tensor // without data
	bytes []byte
}

// scatter gives each request its part of the results.
func (b *Batch) scatter(results []result) error {
	if len(b.Requests) == 1 {
		b.Requests[0].take(results)
		return nil
	}
	var total int64
	for _, r := range b.Requests {
		total += b.Axes.Items(r)
	}
	for _, o := range results {
		axis := b.Axes.Out[o.port]
		if axis >= len(o.spec.Shape) || axis >= 0 && (o.spec.Shape[axis] != total || rows(o.spec.Shape, axis) == 0) {
			return fmt.Errorf("run model: output %q has shape %v, wanted %d items along axis %d", o.spec.Name, o.spec.Shape, total, axis)
		}
	}
	var before int64
	for _, r := range b.Requests {
		items := b.Axes.Items(r)
		r.takeRows(results, b.Axes.Out, part{before, items, total})
		before += items
	}
	return nil
}

// part is items of a batch of total, after before.
type part struct{ before, items, total int64 }

// room returns n bytes for the outputs.
func (r *Request) room(n int64) []byte {
	if int64(cap(r.Buf)) < n {
		r.Buf = make([]byte, n)
	}
	return r.Buf[:n]
}

func (r *Request) take(results []result) {
	if r.leased {
		r.Out = r.Out[:0]
		for _, o := range results {
			t := o.spec
			t.Data = o.bytes
			r.Out = append(r.Out, t)
		}
		return
	}
	var size int64
	for _, o := range results {
		size += int64(len(o.bytes))
	}
	data := r.room(size)
	r.Out = r.Out[:0]
	for _, o := range results {
		n := copy(data, o.bytes)
		t := o.spec
		t.Data, data = data[:n:n], data[n:]
		r.Out = append(r.Out, t)
	}
}

func (r *Request) takeRows(results []result, axes []int, p part) {
	var size int64
	for _, o := range results {
		size += o.share(axes[o.port], p)
	}
	data := r.room(size)
	r.Out = r.Out[:0]
	for _, o := range results {
		t, axis := o.spec, axes[o.port]
		t.Shape = slices.Clone(t.Shape)
		n := o.share(axis, p)
		t.Data, data = data[:n:n], data[n:]
		if axis < 0 {
			copy(t.Data, o.bytes)
		} else {
			t.Shape[axis] = p.items
			o.copyRows(t.Data, axis, p)
		}
		r.Out = append(r.Out, t)
	}
}

// share is the length of a request's part of a result.
func (o *result) share(axis int, p part) int64 {
	if axis < 0 {
		return int64(len(o.bytes))
	}
	return int64(len(o.bytes)) / p.total * p.items
}

func (o *result) copyRows(dst []byte, axis int, p part) {
	n := rows(o.spec.Shape, axis)
	row := int64(len(o.bytes) / n)
	item := row / p.total
	for i := range int64(n) {
		from := i*row + p.before*item
		dst = dst[copy(dst, o.bytes[from:from+p.items*item]):]
	}
}
