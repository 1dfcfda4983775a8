package serve

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/edgeherd/edgeherd/agent/worker"
)

// defaultPriority is where requests stand that name none: 1 is the highest.
const defaultPriority = 100

// depth is how many runs of a model may be under way: one computes, the next
// lies ready for it.
const depth = 2

// batching says which requests may share a run; the zero value: none.
type batching struct {
	MaxItems int64       `json:"max_items"`
	Axes     worker.Axes `json:"axes"`
	at       int         // the variant it was proved for
}

// queue orders the requests for one version. There is no goroutine: the caller
// whose turn it is leads a run, and takes along what has come meanwhile and
// fits. So a single caller pays nothing for it, and nobody waits for others
// to come.
type queue struct {
	max int // bound on those that wait

	mu      sync.Mutex // guards all below
	waiting []*job     // by priority, then by arrival
	running int        // leaders
	batching

	timers sync.Pool // *time.Timer, stopped
}

// job is one request in a queue.
type job struct {
	worker.Request
	priority uint64
	until    time.Time // when its caller gives up; zero: never
	// wake holds one signal: to lead a run, or, with led, that it is over.
	wake chan struct{}
	// The rest is guarded by queue.mu until wake is signalled.
	placed chan struct{} // closed when the run that took the job along has read its inputs; nil: none did
	gone   bool          // the caller has left, and its inputs with it
	led    bool
	shared bool // the run was of several
	err    error
	cost   worker.Cost
	items  int64
	at     int // the variant that ran
}

// gone reports why a caller gave up.
func gone(why error) error {
	return fmt.Errorf("%w while waiting for its turn: %w", worker.ErrDeadline, why)
}

// alarm is a timer that q keeps; put it back stopped. Timers on their own cost a
// third of what a context with a deadline does, for each of many small requests.
func (q *queue) alarm(until time.Time) *time.Timer {
	left := time.Until(until)
	if t, ok := q.timers.Get().(*time.Timer); ok {
		t.Reset(left)
		return t
	}
	return time.NewTimer(left)
}

// ends is when the caller gives up: gRPC clients say it by the context, beside
// what the call says.
func (c *call) ends(ctx context.Context) time.Time {
	at, ok := ctx.Deadline()
	if !ok || !c.until.IsZero() && c.until.Before(at) {
		return c.until
	}
	return at
}

// within is ctx with the deadline until; zero: that which it has.
func within(ctx context.Context, until time.Time) (context.Context, context.CancelFunc) {
	if until.IsZero() {
		return ctx, func() {}
	}
	return context.WithDeadline(ctx, until)
}

// enter waits for the job's turn, until ctx ends or the job's own time is up. It
// returns true when the job leads: the caller then runs it and calls leave.
// Otherwise the job is over, with err.
func (q *queue) enter(ctx context.Context, j *job) (lead bool, err error) {
	if j.priority == 0 {
		j.priority = defaultPriority
	}
	q.mu.Lock()
	if len(q.waiting) == 0 && q.running < q.slotsLocked() {
		q.running++
		q.mu.Unlock()
		return true, nil
	}
	if len(q.waiting) >= q.max && !q.displaceLocked(j.priority) {
		q.mu.Unlock()
		return false, overload()
	}
	j.wake = make(chan struct{}, 1)
	at := len(q.waiting)
	for at > 0 && q.waiting[at-1].priority > j.priority {
		at--
	}
	q.waiting = slices.Insert(q.waiting, at, j)
	q.mu.Unlock()
	var late <-chan time.Time
	if !j.until.IsZero() {
		t := q.alarm(j.until)
		defer func() { t.Stop(); q.timers.Put(t) }()
		late = t.C
	}
	select {
	case <-j.wake:
		return !j.led, j.err
	case <-ctx.Done():
		return false, q.abandon(context.Cause(ctx), j)
	case <-late:
		return false, q.abandon(context.DeadlineExceeded, j)
	}
}

// slotsLocked is how many may lead now. Where requests can share a run, a
// second one begins only when it is full: else it would leave half empty.
func (q *queue) slotsLocked() int {
	if q.MaxItems > 1 && int64(len(q.waiting)) < q.MaxItems {
		return 1
	}
	return depth
}

// displaceLocked makes room by refusing the last that waits, if it is of lower
// priority.
func (q *queue) displaceLocked(priority uint64) bool {
	last := q.waiting[len(q.waiting)-1]
	if last.priority <= priority {
		return false
	}
	q.waiting = q.waiting[:len(q.waiting)-1]
	last.led, last.err = true, overload()
	last.wake <- struct{}{}
	return true
}

// abandon takes out a job whose caller has given up.
func (q *queue) abandon(why error, j *job) error {
	q.mu.Lock()
	if at := slices.Index(q.waiting, j); at >= 0 {
		q.waiting = slices.Delete(q.waiting, at, at+1)
		q.mu.Unlock()
		return gone(why)
	}
	defer q.mu.Unlock()
	if j.placed == nil {
		q.mu.Unlock()
		<-j.wake
		if !j.led {
			q.leave() // its turn had just come
		}
		q.mu.Lock()
		return gone(why)
	}
	for !j.gone {
		placed := j.placed
		q.mu.Unlock()
		<-placed
		q.mu.Lock()
		j.gone = j.placed == placed // else a run of its own reads them
	}
	return gone(why)
}

// again prepares a run of its own for a job whose batch failed. It reports
// false when the caller has left.
func (q *queue) again(j *job) (placed func(), ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if j.gone {
		return nil, false
	}
	c := make(chan struct{})
	j.placed = c
	return sync.OnceFunc(func() { close(c) }), true
}

// take returns what shares a run with the leader j, itself included, and the
// axes of a run of several. The plan may be of another variant than that at
// which the run takes place: then there is no other.
func (q *queue) take(j *job, placed chan struct{}, at int) ([]*job, worker.Axes) {
	q.mu.Lock()
	defer q.mu.Unlock()
	all := []*job{j}
	if q.MaxItems <= 1 || q.at != at {
		return all, worker.Axes{}
	}
	j.items = q.Axes.Items(&j.Request)
	total := j.items
	q.waiting = slices.DeleteFunc(q.waiting, func(o *job) bool {
		if total >= q.MaxItems || !q.Axes.Fits(&j.Request, &o.Request) {
			return false
		}
		o.items = q.Axes.Items(&o.Request)
		if o.items > q.MaxItems-total {
			return false
		}
		total += o.items
		o.placed = placed
		all = append(all, o)
		return true
	})
	return all, q.Axes
}

// leave ends a lead and hands it on.
func (q *queue) leave() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.running--
	for len(q.waiting) > 0 && q.running < q.slotsLocked() {
		next := q.waiting[0]
		q.waiting = slices.Delete(q.waiting, 0, 1)
		q.running++
		next.wake <- struct{}{}
	}
}

// set changes which requests may share a run.
func (q *queue) set(b batching) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.batching = b
}

func (q *queue) plan() batching {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.batching
}

// length is how many wait.
func (q *queue) length() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting)
}

// infer answers one request, and shows it to a candidate that is being tried.
func (v *version) infer(ctx context.Context, c *call) ([]worker.Tensor, error) {
	outs, err := v.compute(ctx, c)
	if m := v.mirror.Load(); m != nil && err == nil {
		m.offer(c, outs)
	}
	return outs, err
}

// compute runs one request, alone or together with others.
func (v *version) compute(ctx context.Context, c *call) ([]worker.Tensor, error) {
	if v.ext != nil {
		ctx, cancel := within(ctx, c.until)
		defer cancel()
		return v.forward(ctx, c)
	}
	j := &job{priority: c.priority, until: c.ends(ctx)}
	w, err := v.workerBy(ctx, j.until)
	if err != nil {
		return nil, err
	}
	j.In, j.Outputs, j.Buf, j.Lease = c.inputs, c.outputNames(), c.room, c.lease
	if err := w.Check(&j.Request); err != nil {
		return nil, err
	}
	if err := v.suits(c, v.serving()); err != nil {
		return nil, err
	}
	began := time.Now()
	lead, err := v.queue.enter(ctx, j)
	if lead {
		err = v.lead(ctx, j)
	}
	if err != nil {
		return nil, err
	}
	v.stats.parts(time.Since(began), j.cost)
	v.served[j.at].Add(1)
	c.room, c.variant = j.Buf, v.variants[j.at].Name
	if !j.shared {
		c.took = j.cost.Run
	}
	if err := v.suits(c, j.at); err != nil {
		return nil, err // it got hot while the request waited
	}
	return j.Out, nil
}

// workerBy is worker for a request whose context does not know its deadline.
func (v *version) workerBy(ctx context.Context, until time.Time) (*worker.Worker, error) {
	v.mu.Lock()
	w := v.w
	v.mu.Unlock()
	if w != nil {
		select {
		case <-w.Done():
		default:
			return w, nil
		}
	}
	ctx, cancel := within(ctx, until)
	defer cancel()
	return v.worker(ctx)
}

// lead runs the job with those that fit and tells them.
func (v *version) lead(ctx context.Context, j *job) error {
	defer v.queue.leave()
	ctx, cancel := within(ctx, j.until)
	defer cancel()
	w, at, err := v.hold(ctx)
	if err != nil {
		return err
	}
	defer v.unhold(w)
	c := make(chan struct{})
	placed := sync.OnceFunc(func() { close(c) })
	jobs, axes := v.queue.take(j, c, at)
	if j.at = at; len(jobs) == 1 {
		j.cost, err = w.Run(ctx, &worker.Batch{Requests: []*worker.Request{&j.Request}})
		v.stats.executed(j.items, j.cost, err)
		return err
	}
	batch := &worker.Batch{Axes: axes, Placed: placed}
	var items int64
	for _, o := range jobs {
		batch.Requests = append(batch.Requests, &o.Request)
		items += o.items
	}
	shared, cancel := patient(ctx, jobs)
	defer cancel()
	cost, err := w.Run(shared, batch)
	placed() // if it failed before that
	v.stats.executed(items, cost, err)
	for _, o := range jobs {
		o.cost, o.err, o.at, o.shared = cost, err, at, true
		if err != nil && mayBeAnothers(err) {
			v.single(shared, w, o)
		}
		if o != j {
			o.led = true
			o.wake <- struct{}{}
		}
	}
	return j.err
}

// patient is a context that ends with the most patient of the callers: a leader
// that leaves must not end the run of the others.
func patient(ctx context.Context, jobs []*job) (context.Context, context.CancelFunc) {
	ctx = context.WithoutCancel(ctx)
	var until time.Time
	for _, j := range jobs {
		if j.until.IsZero() {
			return context.WithCancel(ctx)
		}
		if j.until.After(until) {
			until = j.until
		}
	}
	return context.WithDeadline(ctx, until)
}

// mayBeAnothers says that a batch failed by what one of its requests holds:
// the runtime refuses a bad index as bad input, or as a failure.
func mayBeAnothers(err error) bool {
	status := statusOf(err)
	return status == http.StatusInternalServerError || status == http.StatusBadRequest
}

// single runs a job of a batch that failed: one of them may be at fault, and
// each gets an answer of its own.
func (v *version) single(ctx context.Context, w *worker.Worker, j *job) {
	placed, ok := v.queue.again(j)
	if !ok {
		return
	}
	j.cost, j.err = w.Run(ctx, &worker.Batch{Requests: []*worker.Request{&j.Request}, Placed: placed})
	placed()
	v.stats.executed(j.items, j.cost, j.err)
}
