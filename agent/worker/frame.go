package worker

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// A frame on the socket is a 4-byte little-endian length and that many bytes:
//
//	request  id, base, inputs, outputs, input*, output port*    (base: the region's first byte in the ring)
//	answer   id, code, then run, cpu and the outputs (code 0) or the reason as text
//	input    port, tensor
//	tensor   offset, length, rank, dimension*       (offset and length: bytes in the ring)
//
// where each number is a 64-bit little-endian word. The first frame each way is
// JSON instead: the configuration, and what was loaded.

// maxFrame bounds one frame; it holds shapes and names, never tensor bytes.
const maxFrame = 16 << 20

// code is the outcome of one request in the worker.
type code uint64

const (
	codeOK         code = iota
	codeFailed          // the model reported an error
	codeBadInput        // the runtime refused what it was given
	codeTerminated      // abandoned through the control pipe
	codeTooLarge        // the outputs do not fit into the region
)

var errFrame = errors.New("malformed frame")

// span is one tensor in the ring.
type span struct {
	port           int
	offset, length int64
	shape          []int64
}

type request struct {
	id   uint64
	base int64
	in   []span
	outs []int
}

type answer struct {
	id   uint64
	code code
	run  time.Duration // in ONNX Runtime
	cpu  time.Duration // the CPU time of it
	outs []span        // port is not sent: the order is that of the request
	text string
}

// beginFrame leaves room for the length; endFrame fills it in.
func beginFrame(b []byte) []byte { return append(b[:0], 0, 0, 0, 0) }

func endFrame(b []byte) []byte {
	binary.LittleEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

func word[T ~int | ~int64 | ~uint64](b []byte, v T) []byte {
	return binary.LittleEndian.AppendUint64(b, uint64(v))
}

func appendSpan(b []byte, s *span) []byte {
	b = word(word(word(b, s.offset), s.length), len(s.shape))
	for _, d := range s.shape {
		b = word(b, d)
	}
	return b
}

func appendRequest(b []byte, r *request) []byte {
	b = word(word(word(word(beginFrame(b), r.id), r.base), len(r.in)), len(r.outs))
	for i := range r.in {
		b = appendSpan(word(b, r.in[i].port), &r.in[i])
	}
	for _, o := range r.outs {
		b = word(b, o)
	}
	return endFrame(b)
}

func appendAnswer(b []byte, a *answer) []byte {
	b = word(word(beginFrame(b), a.id), uint64(a.code))
	if a.code != codeOK {
		return endFrame(append(b, a.text[:min(len(a.text), 4096)]...))
	}
	b = word(word(b, int64(a.run)), int64(a.cpu))
	for i := range a.outs {
		b = appendSpan(b, &a.outs[i])
	}
	return endFrame(b)
}

// words reads a frame; after the first fault every further read fails.
type words struct {
	rest []byte
	bad  bool
}

func (w *words) next() int64 {
	if len(w.rest) < 8 {
		w.bad = true
		return 0
	}
	v := int64(binary.LittleEndian.Uint64(w.rest))
	w.rest = w.rest[8:]
	return v
}

// count reads a number of things that take at least size bytes each.
func (w *words) count(size int) int {
	n := w.next()
	if n < 0 || n > int64(len(w.rest)/size) {
		w.bad = true
		return 0
	}
	return int(n)
}

func (w *words) span(s *span) {
	s.offset, s.length = w.next(), w.next()
	if s.offset < 0 || s.length < 0 || s.offset+s.length < 0 {
		w.bad = true
	}
	s.shape = s.shape[:0]
	for range w.count(8) {
		d := w.next()
		w.bad = w.bad || d < 0
		s.shape = append(s.shape, d)
	}
}

// decodeRequest reads a frame body into r, whose slices are reused.
func decodeRequest(b []byte, r *request) error {
	w := words{rest: b}
	r.id, r.base = uint64(w.next()), w.next()
	nIn := w.count(1)
	nOut := w.count(1)
	if nIn*32+nOut*8 > len(w.rest) {
		return errFrame
	}
	r.in = resize(r.in, nIn)
	for i := range r.in {
		r.in[i].port = int(w.next())
		w.span(&r.in[i])
	}
	r.outs = resize(r.outs, nOut)
	for i := range r.outs {
		r.outs[i] = int(w.next())
	}
	if w.bad || len(w.rest) != 0 {
		return errFrame
	}
	return nil
}

// decodeAnswer reads a frame body into a, whose slices are reused. wanted is
// the number of outputs asked for.
func decodeAnswer(b []byte, wanted int, a *answer) error {
	w := words{rest: b}
	a.id, a.code, a.text = uint64(w.next()), code(w.next()), ""
	if a.code != codeOK {
		if w.bad || a.code > codeTooLarge {
			return errFrame
		}
		a.text = string(w.rest)
		return nil
	}
	a.run, a.cpu = time.Duration(w.next()), time.Duration(w.next())
	a.outs = resize(a.outs, wanted)
	for i := range a.outs {
		w.span(&a.outs[i])
	}
	if w.bad || len(w.rest) != 0 {
		return errFrame
	}
	return nil
}

// resize returns s with length n, keeping what the elements hold.
func resize[T any](s []T, n int) []T {
	for len(s) < n {
		s = append(s[:cap(s)], *new(T))
	}
	return s[:n]
}

// readFrame returns the body of the next frame in buf, grown when needed.
func readFrame(r *bufio.Reader, buf []byte) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return buf, err
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n > maxFrame {
		return buf, fmt.Errorf("frame of %d bytes: %w", n, errFrame)
	}
	buf = resize(buf, int(n))
	if _, err := io.ReadFull(r, buf); err != nil {
		return buf, fmt.Errorf("frame cut short: %w", err)
	}
	return buf, nil
}
