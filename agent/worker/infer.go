package worker

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync/atomic"
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

// Infer runs the model once and returns the named outputs in that order, or
// all of them when none is named. It is safe for concurrent use; calls take
// turns. The inputs are checked before the worker sees them (ErrBadInput). When
// ctx ends first, the inference is stopped at the next node of the graph and
// ErrDeadline is returned; a process that has not stopped after Options.Grace
// is killed. The returned data belongs to the caller.
func (w *Worker) Infer(ctx context.Context, in []Tensor, outputs []string) ([]Tensor, error) {
	ports, outs, err := check(w.in, w.out, in, outputs)
	if err != nil {
		return nil, err
	}
	select {
	case <-w.turn:
	case <-ctx.Done():
		return nil, fmt.Errorf("%w while waiting for its turn: %w", ErrDeadline, context.Cause(ctx))
	}
	defer func() { w.turn <- struct{}{} }()
	select {
	case <-w.done:
		return nil, w.lost()
	case <-ctx.Done():
		return nil, fmt.Errorf("%w before it started: %w", ErrDeadline, context.Cause(ctx))
	default:
	}
	if err := w.place(in, ports, outs); err != nil {
		return nil, err
	}
	if err := w.exchange(ctx); err != nil {
		w.slot.trim(w.opts.MaxSlotBytes)
		return nil, err
	}
	return w.collect()
}

// place copies the inputs into the slot and fills w.req.
func (w *Worker) place(in []Tensor, ports, outs []int) error {
	w.lastID++
	w.req.id, w.req.outs = w.lastID, outs
	w.req.in = resize(w.req.in, len(in))
	var end int64
	for i := range in {
		s := &w.req.in[i]
		s.port, s.shape = ports[i], append(s.shape[:0], in[i].Shape...)
		s.offset, s.length = align(end), int64(len(in[i].Data))
		end = s.offset + s.length
	}
	if end > w.opts.MaxSlotBytes {
		return fmt.Errorf("%w: %d bytes of inputs exceed the limit of %d bytes for one request", ErrBadInput, end, w.opts.MaxSlotBytes)
	}
	if err := w.slot.reserve(end); err != nil {
		return err
	}
	for i := range in {
		copy(w.slot.bytes(w.req.in[i].offset, w.req.in[i].length), in[i].Data)
	}
	return nil
}

// exchange sends w.req and reads w.ans.
func (w *Worker) exchange(ctx context.Context) error {
	id := w.req.id
	fired := make(chan struct{})
	var killer *time.Timer
	var killed atomic.Bool
	stop := context.AfterFunc(ctx, func() {
		defer close(fired)
		_, _ = w.control.Write(binary.LittleEndian.AppendUint64(nil, id)) // fails only when the process is gone
		killer = time.AfterFunc(w.opts.Grace, func() {
			killed.Store(true)
			_ = w.cmd.Process.Kill()
		})
	})
	w.frame = appendRequest(w.frame, &w.req)
	_, err := w.conn.Write(w.frame)
	if err == nil {
		w.frame, err = readFrame(w.reader, w.frame)
	}
	if !stop() {
		<-fired
		killer.Stop()
	}
	if err == nil {
		if err = decodeAnswer(w.frame, len(w.req.outs), &w.ans); err == nil && w.ans.id != id {
			err = errFrame
		}
	}
	if err != nil {
		_ = w.cmd.Process.Kill()
		died := w.lost()
		if killed.Load() {
			return fmt.Errorf("%w: %w; the worker did not stop within %v and was killed", ErrDeadline, context.Cause(ctx), w.opts.Grace)
		}
		return died
	}
	switch w.ans.code {
	case codeOK:
		return nil
	case codeTerminated:
		return fmt.Errorf("%w: %w", ErrDeadline, context.Cause(ctx))
	case codeBadInput:
		return fmt.Errorf("%w: %s", ErrBadInput, w.ans.text)
	default:
		return fmt.Errorf("run model: %s", w.ans.text)
	}
}

// collect copies the outputs out of the slot. The worker is not trusted with
// the bounds.
func (w *Worker) collect() ([]Tensor, error) {
	var total, end int64
	for i := range w.ans.outs {
		s := &w.ans.outs[i]
		if !w.slot.covers(s.offset, s.length) {
			return nil, fmt.Errorf("run model: the worker named memory outside the slot: %w", errFrame)
		}
		total += s.length
		end = max(end, s.offset+s.length)
	}
	data := make([]byte, total)
	outs := make([]Tensor, len(w.ans.outs))
	for i := range outs {
		s, spec := &w.ans.outs[i], &w.out[w.req.outs[i]].Spec
		n := copy(data, w.slot.bytes(s.offset, s.length))
		outs[i] = Tensor{Name: spec.Name, DType: spec.DType, Shape: append(make([]int64, 0, len(s.shape)), s.shape...), Data: data[:n:n]}
		data = data[n:]
	}
	w.slot.trim(end)
	return outs, nil
}
