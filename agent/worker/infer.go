package worker

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/edgeherd/edgeherd/models"
)

// region is the runner's side of one part of the ring.
type region struct {
	base    int64
	end     int64 // of what the last request used
	frame   []byte
	req     request
	ans     answer
	results []result
	read    chan struct{} // closed when the answer has been read
}

// Infer runs the model once and returns the named outputs in that order, or
// all of them when none is named. The returned data belongs to the caller.
// Everything else is as in Run.
func (w *Worker) Infer(ctx context.Context, in []Tensor, outputs []string) ([]Tensor, error) {
	r := &Request{In: in, Outputs: outputs}
	_, err := w.Run(ctx, &Batch{Requests: []*Request{r}})
	if err != nil {
		return nil, err
	}
	return r.Out, nil
}

// Check prepares a request for Run, which does it itself for one that has not
// been checked. A request that was checked by one worker of a model suits all.
// The error is ErrBadInput.
func (w *Worker) Check(r *Request) error {
	if r.at != nil {
		return nil
	}
	ports, outs, err := check(w.in, w.out, r.In, r.Outputs)
	if err != nil {
		return err
	}
	at := make([]int, len(w.in))
	for i, port := range ports {
		at[port] = i
	}
	r.at, r.outs = at, outs
	return nil
}

// Run runs the model once for all requests of a batch. It is safe for
// concurrent use; the worker takes batches in turn. When ctx ends first, the
// run is stopped at the next node of the graph and ErrDeadline is returned; a
// process that has not stopped after Options.Grace is killed.
func (w *Worker) Run(ctx context.Context, b *Batch) (Cost, error) {
	for _, r := range b.Requests {
		if err := w.Check(r); err != nil {
			return Cost{}, err
		}
	}
	g, done, err := w.region(ctx, b)
	if err != nil {
		return Cost{}, err
	}
	left := false
	defer func() {
		if !left {
			done()
		}
	}()
	select {
	case <-w.done:
		return Cost{}, w.lost()
	case <-ctx.Done():
		return Cost{}, fmt.Errorf("%w before it started: %w", ErrDeadline, context.Cause(ctx))
	default:
	}
	began := time.Now()
	err = w.place(g, b)
	if b.Placed != nil {
		b.Placed()
	}
	if err != nil {
		return Cost{}, err
	}
	cost := Cost{Input: time.Since(began)}
	before, err := w.send(g)
	if err == nil {
		select {
		case <-before:
			err = w.receive(ctx, g)
		case <-ctx.Done():
			// Another batch computes still; this one is skipped when its turn comes.
			left = true
			w.abandon(g.req.id)
			go func() {
				<-before
				// It may have begun all the same: ctx, which has ended, bounds it by Grace.
				_ = w.receive(ctx, g)
				g.end = g.base + w.ring.max
				w.tidy(g, b)
				done()
			}()
			return Cost{}, fmt.Errorf("%w while waiting for its turn: %w", ErrDeadline, context.Cause(ctx))
		}
	}
	if err != nil {
		g.end = g.base + w.ring.max // whatever the worker has touched
		w.tidy(g, b)
		return Cost{}, err
	}
	cost.Run, cost.CPU = g.ans.run, g.ans.cpu
	began = time.Now()
	err = w.collect(g, b)
	cost.Output = time.Since(began)
	return cost, err
}

// region is where a batch runs: in the lease of its request, else in the next
// region that is free. done gives it back.
func (w *Worker) region(ctx context.Context, b *Batch) (g *region, done func(), err error) {
	l := b.lease(w)
	b.Requests[0].leased = l != nil
	if l != nil {
		l.refs.Add(1)
		return &w.regions[l.n], l.Release, nil
	}
	select {
	case n := <-w.free:
		return &w.regions[n], func() { w.free <- n }, nil
	case <-ctx.Done():
		return nil, nil, fmt.Errorf("%w while waiting for its turn: %w", ErrDeadline, context.Cause(ctx))
	}
}

// place copies the inputs into the region and fills g.req.
func (w *Worker) place(g *region, b *Batch) error {
	g.req.outs = b.Requests[0].outs
	g.req.in = resize(g.req.in, len(w.in))
	end, l := g.base, b.lease(w)
	if l != nil {
		end += l.size
	}
	for port := range w.in {
		s := &g.req.in[port]
		s.port = port
		s.shape, s.length = b.gathered(port, s.shape)
		if l != nil {
			var ok bool
			if s.offset, ok = l.offset(b.Requests[0].In[b.Requests[0].at[port]].Data); ok {
				continue
			}
		}
		s.offset = align(end)
		end = s.offset + s.length
		if end-g.base > w.ring.max {
			return fmt.Errorf("%w: the inputs exceed the limit of %d bytes for one request", ErrBadInput, w.ring.max)
		}
	}
	for port := range w.in {
		if s := &g.req.in[port]; l == nil || s.offset >= g.base+l.size {
			b.gather(w.ring.bytes(s.offset, s.length), port)
		}
	}
	g.end = end
	return nil
}

// send writes the request. The channel is closed when the answers to all
// earlier requests have been read: then the next answer is that to this one.
func (w *Worker) send(g *region) (before chan struct{}, err error) {
	g.read = make(chan struct{})
	w.order.Lock()
	defer w.order.Unlock()
	w.lastID++
	g.req.id, g.req.base = w.lastID, g.base
	g.frame = appendRequest(g.frame, &g.req)
	if _, err := w.conn.Write(g.frame); err != nil {
		close(g.read)
		return nil, w.broken()
	}
	before, w.newest = w.newest, g.read
	return before, nil
}

// abandon asks the worker to stop or skip a request.
func (w *Worker) abandon(id uint64) {
	_, _ = w.control.Write(binary.LittleEndian.AppendUint64(nil, id)) // fails only when the process is gone
}

// broken ends a worker that does not speak the protocol and says why.
func (w *Worker) broken() error {
	_ = w.cmd.Process.Kill()
	return w.lost()
}

// receive reads the answer to the oldest request.
func (w *Worker) receive(ctx context.Context, g *region) error {
	defer close(g.read)
	var killer *time.Timer
	var killed atomic.Bool
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(fired)
		w.abandon(g.req.id)
		killer = time.AfterFunc(w.opts.Grace, func() {
			killed.Store(true)
			_ = w.cmd.Process.Kill()
		})
	})
	frame, err := readFrame(w.reader, g.frame)
	g.frame = frame
	if !stop() {
		<-fired
		killer.Stop()
	}
	if err == nil {
		if err = decodeAnswer(frame, len(g.req.outs), &g.ans); err == nil && g.ans.id != g.req.id {
			err = errFrame
		}
	}
	if err != nil {
		died := w.broken()
		if killed.Load() {
			return fmt.Errorf("%w: %w; the worker did not stop within %v and was killed", ErrDeadline, context.Cause(ctx), w.opts.Grace)
		}
		return died
	}
	switch g.ans.code {
	case codeOK:
		return nil
	case codeTerminated:
		return fmt.Errorf("%w: %w", ErrDeadline, context.Cause(ctx))
	case codeBadInput:
		return fmt.Errorf("%w: %s", ErrBadInput, g.ans.text)
	case codeTooLarge:
		return fmt.Errorf("run model: %s, %d bytes", g.ans.text, w.ring.max)
	default:
		return fmt.Errorf("run model: %s", g.ans.text)
	}
}

// collect copies the outputs out of the region. The worker is not trusted with
// the bounds.
func (w *Worker) collect(g *region, b *Batch) error {
	g.results = g.results[:0]
	for i := range g.ans.outs {
		s, port := &g.ans.outs[i], g.req.outs[i]
		if !w.ring.covers(g.base, s.offset, s.length) {
			return fmt.Errorf("run model: the worker named memory outside its region: %w", errFrame)
		}
		g.end = max(g.end, s.offset+s.length)
		if !s.holds(w.out[port].Spec.DType) {
			return fmt.Errorf("run model: output %q of shape %v in %d bytes: %w", w.out[port].Spec.Name, s.shape, s.length, errFrame)
		}
		spec := Tensor{Name: w.out[port].Spec.Name, DType: w.out[port].Spec.DType, Shape: append(make([]int64, 0, len(s.shape)), s.shape...)}
		g.results = append(g.results, result{port: port, spec: spec, bytes: w.ring.bytes(s.offset, s.length)})
	}
	err := b.scatter(g.results)
	w.tidy(g, b)
	return err
}

// holds reports whether shape and length agree; dimensions are not negative.
func (s *span) holds(t models.DType) bool {
	left := s.length
	if t != models.BYTES {
		left /= int64(t.Size())
		if s.length%int64(t.Size()) != 0 {
			return false
		}
	}
	count := int64(1)
	for _, d := range s.shape {
		if d > 0 && count > left/d {
			return slices.Contains(s.shape, 0) && s.length == 0
		}
		count *= d
	}
	return count == left || t == models.BYTES
}

// tidy gives large memory back after a run; that of a lease follows later.
func (w *Worker) tidy(g *region, b *Batch) {
	if b.lease(w) == nil {
		w.ring.trim(g.base, g.end)
	}
}
