package serve

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/edgeherd/edgeherd/agent/govern"
	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/models"
)

// The variants of a model are the rungs of its ladder (models.Variant). The
// agent says how many rungs the box goes down for its heat; a version serves
// the best variant that leaves it, of those that the probe found right and
// cheaper on this box. Without a probe it serves the best one only.

const (
	// ladderRounds are measured of each variant; the least counts.
	ladderRounds = 5
	// warmFor is how long the variant that served before stays loaded: a
	// request that is with it must end, and the heat may pass at once.
	warmFor = time.Minute
	// stepRetry is when a step that was not possible is tried again, and spoiltRetry
	// when that was for a damaged file: each try reads them all, on a box that may be
	// too hot already. The agent says when it has mended them.
	stepRetry   = 5 * time.Second
	spoiltRetry = 5 * time.Minute
)

// ladder is what a version knows of its variants. The fields below mu of the
// version are guarded by it.
type ladder struct {
	variants []models.Variant          // never changes
	wanted   *rung                     // as the agent says
	served   []atomic.Uint64           // requests, by variant
	refused  atomic.Uint64             // requests that insisted on a better variant
	stepped  chan struct{}             // has a token when the rung may have changed
	rungs    []runnerapi.VariantStatus // as measured; empty: only the best serves
	at       int                       // the variant that serves
	probing  bool                      // no steps while it is measured
	warm     *worker.Worker            // served before; nil: none
	warmAt   int
	spoilt   error                  // why a variant that does not serve cannot, if a file is damaged
	holds    map[*worker.Worker]int // runs under way
	plans    []batching             // by variant
}

func newLadder(variants []models.Variant, wanted *rung) ladder {
	if len(variants) == 0 {
		variants = models.Manifest{}.Ladder()
	}
	return ladder{
		variants: variants, wanted: wanted, served: make([]atomic.Uint64, len(variants)), plans: make([]batching, len(variants)),
		stepped: make(chan struct{}, 1), holds: map[*worker.Worker]int{},
	}
}

// look makes the run loop look which variant to serve.
func (l *ladder) look() {
	select {
	case l.stepped <- struct{}{}:
	default:
	}
}

// permittedLocked is the variant to serve: the best one that is so many rungs
// down, or the cheapest.
func (l *ladder) permittedLocked() int {
	if l.probing {
		return 0
	}
	at, down := 0, l.wanted.down()
	for i := 1; i < len(l.rungs) && down > 0; i++ {
		if l.rungs[i].Skipped == "" {
			at, down = i, down-1
		}
	}
	return at
}

// skipDearer marks the variants that are no cheaper than the one above them:
// what a precision saves differs from box to box, and may be less than nothing.
func skipDearer(rungs []runnerapi.VariantStatus) {
	above := 0
	for i := 1; i < len(rungs); i++ {
		r, a := &rungs[i], &rungs[above]
		switch cost, costs := costOf(*r), costOf(*a); {
		case r.Skipped != "":
		case cost.Saves(costs):
			above = i
		case cost.Joules > 0 && costs.Joules > 0:
			r.Skipped = fmt.Sprintf("it takes %.3g J an item on this box, %s takes %.3g", cost.Joules, a.Name, costs.Joules)
		default:
			r.Skipped = fmt.Sprintf("it takes %.0f µs an item on this box, %s takes %.0f", 1e6*cost.Seconds, a.Name, 1e6*costs.Seconds)
		}
	}
}

func costOf(r runnerapi.VariantStatus) govern.Cost {
	return govern.Cost{Seconds: r.SecondsPerItem, Joules: r.JoulesPerItem}
}

// best makes the best variant serve while the version is probed. It reports
// false when that did not happen in time.
func (v *version) best(ctx context.Context) bool {
	v.mu.Lock()
	v.probing = true
	v.mu.Unlock()
	v.look()
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for v.serving() != 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			v.endProbe()
			return false
		}
	}
	return true
}

func (v *version) endProbe() {
	v.mu.Lock()
	v.probing = false
	v.mu.Unlock()
	v.look()
}

// measureLadder tries every variant on this box, one after the other beside
// the best one: its golden samples, what an item takes, and the memory. A
// variant that fails is skipped; the candidate is judged by its best one.
func (v *version) measureLadder(ctx context.Context, golden models.Golden) []runnerapi.VariantStatus {
	var rungs []runnerapi.VariantStatus
	for i, variant := range v.variants {
		r := runnerapi.VariantStatus{Name: variant.Name}
		if err := v.measureVariant(ctx, i, golden, &r); err != nil {
			r.Skipped = err.Error()
		}
		rungs = append(rungs, r)
	}
	skipDearer(rungs)
	for _, r := range rungs {
		v.log.Info("variant measured", "variant", r.Name, "took", time.Duration(r.SecondsPerItem*1e9), "bytes", r.PeakRSSBytes, "skipped", r.Skipped)
	}
	return rungs
}

// variant is a worker with the variant at, and what ends its use.
func (v *version) variant(ctx context.Context, at int) (w *worker.Worker, done func() error, err error) {
	done = func() error { return nil }
	if w, err = v.worker(ctx); err == nil && at > 0 {
		var l loaded
		if l, err = v.load(ctx, at); err == nil {
			w, done = l.w, l.w.Close
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("does not load: %w", err)
	}
	return w, done, nil
}

func (v *version) measureVariant(ctx context.Context, at int, golden models.Golden, r *runnerapi.VariantStatus) (err error) {
	w, done, err := v.variant(ctx, at)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	own := golden
	if v.variants[at].Golden != "" {
		path, err := v.source.path(v.variants[at].Golden)
		if err != nil {
			return err
		}
		if own, err = models.ReadGolden(path); err != nil {
			return err
		}
	}
	if len(v.variants) == 1 {
		own.Cases = nil // the probe has run them
	}
	for _, c := range own.For(hardwareOf(w)).Cases {
		if err := answersRightly(ctx, w, c); err != nil {
			return fmt.Errorf("golden case %q: %w", c.Name, err)
		}
	}
	// The same input for all variants: only then their costs compare.
	for range ladderRounds {
		cost, err := runSample(ctx, w, golden)
		if err != nil {
			return err
		}
		took := cost.CPU
		if w.Runtime().Provider != worker.CPU {
			took = cost.Run // the processor only waits for an accelerator
		}
		if s := took.Seconds(); r.SecondsPerItem == 0 || s < r.SecondsPerItem {
			r.SecondsPerItem = s
		}
	}
	u, err := w.Usage()
	r.PeakRSSBytes = u.PeakRSSBytes
	return err
}

// runSample lets the worker compute the first golden case, whatever it answers.
func runSample(ctx context.Context, w *worker.Worker, golden models.Golden) (worker.Cost, error) {
	req := &worker.Request{In: goldenInputs(golden.Cases[0])}
	if err := w.Check(req); err != nil {
		return worker.Cost{}, err
	}
	return w.Run(ctx, &worker.Batch{Requests: []*worker.Request{req}})
}

func answersRightly(ctx context.Context, w *worker.Worker, c models.GoldenCase) error {
	out, err := w.Infer(ctx, goldenInputs(c), goldenOutputs(c))
	if err != nil {
		return err
	}
	return isRight(c, out)
}

// isRight compares outputs in the order of the case with what it wants.
func isRight(c models.GoldenCase, out []worker.Tensor) error {
	for i, w := range c.Outputs {
		got := models.TensorSpec{Name: out[i].Name, DType: out[i].DType, Shape: out[i].Shape}
		if err := w.Check(got, out[i].Data); err != nil {
			return err
		}
	}
	return nil
}

// step goes from the worker now to that of the permitted variant, and returns
// the one that serves. It reports false when that has to be tried again.
func (v *version) step(ctx context.Context, now *worker.Worker) (*worker.Worker, bool) {
	v.mu.Lock()
	from, to := v.at, v.permittedLocked()
	warm, warmAt := v.warm, v.warmAt
	busy := warm != nil && v.holds[warm] > 0
	v.mu.Unlock()
	if from == to {
		v.note(nil)
		return now, true
	}
	next := loaded{w: warm}
	if warm == nil || warmAt != to || warm.Err() != nil {
		if busy {
			return now, false // three at once would take too much memory
		}
		v.cool()
		var err error
		next, err = v.load(ctx, to)
		if v.note(err); err != nil {
			if ctx.Err() == nil {
				v.log.Error("variant does not load", "variant", v.variants[to].Name, "err", err)
			}
			return now, false
		}
	}
	v.log.Info("variant serves now", "variant", v.variants[to].Name, "before", v.variants[from].Name)
	v.queue.set(batching{}) // a plan of one variant is not proved for another
	v.mu.Lock()
	if v.w == nil { // it has died just now, and requests wait
		close(v.up)
	}
	v.warm, v.warmAt = now, from
	v.w, v.at = next.w, to
	plan := v.plans[to]
	if warm != next.w {
		v.opts = next.opts
	}
	v.mu.Unlock()
	v.queue.set(plan)
	return next.w, true
}

// note remembers whether a variant that does not serve could not for a damaged file,
// which the agent mends.
func (v *version) note(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.spoilt = nil; errors.Is(err, errDamaged) {
		v.spoilt = fmt.Errorf("it goes on, but another variant of it cannot serve: %w", err)
	}
}

// retryStep is when a step that was not possible is tried again.
func (v *version) retryStep() time.Duration {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.spoilt != nil {
		return spoiltRetry
	}
	return stepRetry
}

// cool closes the variant that served before. It reports false while a request
// is with it.
func (v *version) cool() bool {
	v.mu.Lock()
	w := v.warm
	if w != nil && v.holds[w] > 0 {
		v.mu.Unlock()
		return false
	}
	v.warm = nil
	v.mu.Unlock()
	v.end(w)
	return true
}

// end closes a worker that nobody uses any more; nil is none.
func (v *version) end(w *worker.Worker) {
	if w == nil {
		return
	}
	if err := w.Close(); err != nil {
		v.log.Warn("worker did not close cleanly", "err", err)
	}
}

// hold returns the worker that serves, with its variant, and keeps it from
// being cooled until unhold.
func (v *version) hold(ctx context.Context) (*worker.Worker, int, error) {
	for {
		w, err := v.worker(ctx)
		if err != nil {
			return nil, 0, err
		}
		v.mu.Lock()
		if v.w == w {
			v.holds[w]++
			at := v.at
			v.mu.Unlock()
			return w, at, nil
		}
		v.mu.Unlock()
	}
}

func (v *version) unhold(w *worker.Worker) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.holds[w]--; v.holds[w] == 0 {
		delete(v.holds, w)
	}
}

// suits refuses a call that insists on a better variant than the one at.
func (v *version) suits(c *call, at int) error {
	if c.least == "" {
		return nil
	}
	want := slices.IndexFunc(v.variants, func(o models.Variant) bool { return o.Name == c.least })
	if want < 0 {
		return faultf(http.StatusBadRequest, "parameter %q: model %s has no variant %q", minVariant, v.ref, c.least)
	}
	if at <= want {
		return nil
	}
	v.refused.Add(1)
	v.mu.Lock()
	climb := 0 // rungs that are between
	for i := want + 1; i <= at && i < len(v.rungs); i++ {
		if v.rungs[i].Skipped == "" {
			climb++
		}
	}
	v.mu.Unlock()
	why, wait := v.wanted.why(climb)
	return &later{wait: wait, err: fmt.Errorf("model %s serves variant %q now, and %q was asked for: %s; try again in %.0f s, or take %q without %q",
		v.ref, v.variants[at].Name, c.least, why, wait.Seconds(), v.variants[at].Name, minVariant)}
}

// serving is the variant that serves now.
func (v *version) serving() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.at
}

// workers are those that run, what was stepped off included.
func (v *version) workers() []*worker.Worker {
	v.mu.Lock()
	defer v.mu.Unlock()
	var ws []*worker.Worker
	for _, w := range []*worker.Worker{v.w, v.warm} {
		if w != nil {
			ws = append(ws, w)
		}
	}
	return ws
}
