package serve

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edgeherd/edgeherd/agent/backend"
	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/models"
)

// A candidate in the shadow of the version that serves gets copies of its
// requests, after they have been answered, and is compared with it. It takes
// what is left over: one request at a time, a tenth of the time at most, none
// while requests wait or the box is to do less for its heat.

const (
	// shadowShare is the part of the time for which a candidate may compute.
	shadowShare = 0.1
	// shadowRest bounds the pause after a slow request.
	shadowRest = 5 * time.Second
	// maxMirrored bounds inputs and outputs of one request, in bytes.
	maxMirrored = 16 << 20
	// shadowWindow is how many requests the latencies are compared over.
	shadowWindow = 256
)

// mirror hands the requests for one version to the candidate in its shadow.
type mirror struct {
	front, candidate *version
	spared           func() bool // the box is to do less
	free             atomic.Bool // the candidate takes one; who swaps it to false sends
	copies           chan *mirrored
	stop             func() // the candidate gets no more
	stopped          chan struct{}

	mu     sync.Mutex // guards all below
	seen   runnerapi.Shadow
	agreed float64 // sum over what was compared
	ratios []float64
}

// mirrored is a request and its answer, in memory of their own.
type mirrored struct {
	call
	want []worker.Tensor
	took time.Duration
}

// shadow lets a candidate run in the shadow of the version that serves under
// its name, until it serves itself or is dropped. Repeating it changes nothing.
func (s *Server) shadow(ctx context.Context, digest blob.Digest) error {
	s.switching.Lock()
	defer s.switching.Unlock()
	candidate, err := s.candidate(digest)
	if err != nil {
		return err
	}
	front, err := s.table.Load().find(candidate.ref.Name, "")
	if err != nil {
		return err
	}
	if m := candidate.shadow.Load(); m != nil && m.front == front {
		return nil
	}
	m := &mirror{
		front: front, candidate: candidate, copies: make(chan *mirrored, 1), stopped: make(chan struct{}),
		spared: func() bool { return s.rung.down() > 0 || s.heat.spared(s.opts.WallClock()) },
	}
	m.stop = sync.OnceFunc(func() { close(m.stopped) })
	m.free.Store(true)
	select {
	case s.jobs <- m.run:
	case <-s.ended:
		return faultf(http.StatusServiceUnavailable, "the runner is stopping")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if old := front.mirror.Swap(m); old != nil {
		old.stop()
	}
	candidate.shadow.Store(m)
	if m.away() {
		candidate.log.Warn("the candidate is not compared: inputs of the version that serves must not leave the site, and it would send them to "+candidate.ext.place(), "front", front.ref.Version)
	}
	return nil
}

// away reports whether the copies would go where the requests may not.
func (m *mirror) away() bool {
	e := m.candidate.ext
	return e != nil && e.config.Place == backend.PlaceCentral && !m.front.mayLeave
}

// endShadows stops the mirrors of candidates that serve now.
func (s *Server) endShadows(t *table) {
	for _, v := range s.known() {
		if m := v.mirror.Load(); m != nil && t.serves(m.candidate) {
			v.mirror.Store(nil)
			m.candidate.shadow.Store(nil)
			m.stop()
		}
	}
}

// offer copies a request for the candidate, if that has time for it.
func (m *mirror) offer(c *call, outs []worker.Tensor) {
	if m.away() {
		return
	}
	left := &m.seen.Busy
	switch {
	case m.spared():
		left = &m.seen.Hot
	case bytesOf(c.inputs)+bytesOf(outs) > maxMirrored:
		left = &m.seen.Large
	case m.front.queue.length() == 0 && m.free.CompareAndSwap(true, false):
		left = nil
	}
	m.mu.Lock()
	m.seen.Seen++
	if left != nil {
		*left++
	}
	m.mu.Unlock()
	if left == nil {
		m.copies <- &mirrored{call: call{inputs: clone(c.inputs), outputs: c.outputs}, want: clone(outs), took: c.took}
	}
}

func bytesOf(ts []worker.Tensor) int {
	n := 0
	for i := range ts {
		n += len(ts[i].Data)
	}
	return n
}

func clone(ts []worker.Tensor) []worker.Tensor {
	out := slices.Clone(ts)
	for i := range out {
		out[i].Shape, out[i].Data = slices.Clone(out[i].Shape), slices.Clone(out[i].Data)
	}
	return out
}

// run gives the candidate what it is offered, until one of the two versions goes.
func (m *mirror) run(ctx context.Context) {
	defer m.front.mirror.CompareAndSwap(m, nil)
	for {
		var r *mirrored
		select {
		case <-ctx.Done():
			return
		case <-m.stopped:
			return
		case <-m.front.retired:
			return
		case <-m.candidate.retired:
			return
		case r = <-m.copies:
		}
		began := time.Now()
		m.compare(ctx, r)
		rest := time.Duration(float64(time.Since(began)) * (1/shadowShare - 1))
		select {
		case <-ctx.Done():
			return
		case <-m.stopped:
			return
		case <-time.After(min(rest, shadowRest)):
		}
		m.free.Store(true)
	}
}

func (m *mirror) compare(ctx context.Context, r *mirrored) {
	v := m.candidate
	if !v.acquire() {
		return
	}
	defer v.release()
	ctx, cancel := context.WithTimeout(ctx, v.drain)
	defer cancel()
	outs, err := v.infer(ctx, &r.call)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		if ctx.Err() == nil || context.Cause(ctx) == context.DeadlineExceeded {
			m.seen.Failures++ // the version before it could answer
			m.seen.Err = err.Error()
		}
		return
	}
	m.seen.Compared++
	m.agreed += agreement(r.want, outs)
	if r.took > 0 && r.call.took > 0 {
		m.ratios = append(m.ratios, float64(r.call.took)/float64(r.took))
		m.ratios = m.ratios[max(0, len(m.ratios)-shadowWindow):]
	}
}

// agreement is the mean over the outputs of an answer.
func agreement(want, got []worker.Tensor) float64 {
	if len(want) != len(got) {
		return 0
	}
	var sum float64
	for i, w := range want {
		g := got[i]
		if w.Name == g.Name {
			sum += models.Agreement(models.TensorSpec{DType: w.DType, Shape: w.Shape}, w.Data, models.TensorSpec{DType: g.DType, Shape: g.Shape}, g.Data)
		}
	}
	return sum / float64(max(len(want), 1))
}

func (m *mirror) status() *runnerapi.Shadow {
	m.mu.Lock()
	defer m.mu.Unlock()
	st := m.seen
	if st.Compared > 0 {
		st.Agreement = m.agreed / float64(st.Compared)
	}
	if n := len(m.ratios); n > 0 {
		sorted := slices.Sorted(slices.Values(m.ratios))
		st.LatencyRatio = sorted[n/2]
	}
	return &st
}
