package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/models"
)

// Back-off between restarts of a worker that keeps dying. One that has lived
// for steadyAfter starts again from the beginning.
const (
	restartMin  = 20 * time.Millisecond
	restartMax  = 30 * time.Second
	steadyAfter = time.Minute
)

// loadTimeout bounds one load: the largest models take seconds, and a switch
// waits for it.
const loadTimeout = 2 * time.Minute

// version is one model version with its worker process, which is started again
// when it dies. Its run loop is the only goroutine that starts workers.
type version struct {
	ref    models.Ref
	source source
	log    *slog.Logger
	// drain bounds how long a retired version waits for its users.
	drain    time.Duration
	stats    stats
	queue    queue
	measured measured
	outBytes atomic.Int64 // of the last answer
	ext      *external    // nil: a worker serves
	mayLeave bool         // inputs may leave the site
	standsIn *route       // whose absent this is, of a model that the box does not have; nil: it has it
	// mirror gives copies of the requests for this version to a candidate, and
	// shadow is the one that gives this version its copies; nil: none.
	mirror, shadow atomic.Pointer[mirror]
	said           rate.Sometimes
	ladder

	// The fields below belong to the run loop.
	lost   int // execution providers given up, from the first on
	deaths int // of workers in a row

	loaded  chan struct{} // closed when the first attempt to load has ended
	loadErr error         // how it ended; read after loaded
	retired chan struct{} // closed by retire
	idle    chan struct{} // closed when retired and nobody uses it

	mu       sync.Mutex // guards all below
	w        *worker.Worker
	up       chan struct{} // closed while w serves
	lastErr  error         // why the last worker ended, or did not start
	broken   bool          // the last start failed
	users    int
	leaving  bool // retired is closed
	restarts uint64
	opts     worker.Options // of the worker that was started last
	sig      models.Signature
	loadTime time.Duration
}

// source says where the files of a version are and checks them.
type source interface {
	// ladder are the variants, the best first; nil: the model has one form.
	ladder() []models.Variant
	// worker verifies the files and returns how to start a variant.
	worker(variant models.Variant) (worker.Options, error)
	// path is the absolute path of one file of the model.
	path(name string) (string, error)
	// check compares what was loaded with what was promised.
	check(loaded models.Signature) error
}

func (s *Server) newVersion(ref models.Ref, src source) *version {
	return &version{
		ref: ref, source: src, drain: s.opts.Timeout + shutdownGrace, queue: queue{max: s.opts.MaxQueue},
		said:     rate.Sometimes{Interval: time.Minute},
		measured: s.measured, ladder: newLadder(src.ladder(), &s.rung),
		log:    s.log.With("model", ref.Name, "version", ref.Version, "digest", ref.Digest.Short()),
		loaded: make(chan struct{}), retired: make(chan struct{}), idle: make(chan struct{}), up: make(chan struct{}),
	}
}

// run keeps what serves alive, a worker or a program, until the version is
// retired and idle, or ctx ends.
func (v *version) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stopped := context.AfterFunc(ctx, v.retire) // nobody may wait for a worker that never comes
	defer stopped()
	starting, abandon := context.WithCancel(ctx) // a version that is retired while it starts
	defer abandon()
	go func() {
		select {
		case <-v.retired:
			abandon()
		case <-starting.Done():
		}
	}()
	start := v.startWorker
	if v.ext != nil {
		start = v.startBackend
		defer v.clear()
	}
	pause := restartMin
	for first := true; ; first = false {
		ended, err := start(starting)
		if first {
			v.loadErr = err
			close(v.loaded)
			if err != nil {
				return
			}
		}
		if err == nil {
			began := time.Now()
			if ended(ctx) {
				return
			}
			if time.Since(began) > steadyAfter {
				pause = restartMin
			}
		} else if ctx.Err() == nil {
			v.log.Error("model does not start again", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-v.retired:
			return
		case <-time.After(pause):
			pause = min(2*pause, restartMax)
		}
	}
}

// startWorker verifies the files and starts a worker. It returns what waits for
// the worker's end and then says whether the version has ended with it.
func (v *version) startWorker(ctx context.Context) (ended func(context.Context) bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	v.mu.Lock()
	at := v.permittedLocked()
	v.mu.Unlock()
	l, err := v.load(ctx, at)
	if err != nil && at > 0 {
		v.log.Error("variant does not start, the best one serves", "variant", v.variants[at].Name, "err", err)
		v.note(err)
		at = 0
		l, err = v.load(ctx, at)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.broken = err != nil; v.broken {
		v.lastErr = err
		return nil, err
	}
	v.w, v.at, v.sig, v.loadTime, v.opts = l.w, at, l.w.Signature(), l.w.LoadTime(), l.opts
	if at == 0 {
		v.rungs, v.plans[0] = l.known.Ladder, l.known.Batching
	}
	v.queue.set(v.plans[at])
	close(v.up)
	v.look()
	return func(ctx context.Context) bool { return v.serve(ctx, l.w) }, nil
}

// loaded is a worker that has just been started.
type loaded struct {
	w     *worker.Worker
	opts  worker.Options
	known record
}

// load starts a worker for the variant at.
func (v *version) load(ctx context.Context, at int) (loaded, error) {
	opts, err := v.source.worker(v.variants[at])
	if err != nil {
		return loaded{}, err
	}
	opts.Providers = opts.Providers[min(v.lost, max(len(opts.Providers)-1, 0)):]
	known, ok := v.measured.apply(&opts)
	if !ok {
		opts.SaveGraph = v.measured.saveTo(opts)
	}
	w, err := worker.Start(ctx, opts, v.log)
	if err != nil && ctx.Err() == nil && (opts.Graph != "" || opts.SaveGraph != "" && strings.Contains(err.Error(), "serializ")) {
		// Some providers compile parts of the graph, which cannot be saved; and
		// a saved graph may be one that this runtime does not take any more.
		v.log.Warn("model is loaded without its optimised graph", "err", err)
		opts.Graph, opts.SaveGraph = "", ""
		w, err = worker.Start(ctx, opts, v.log)
	}
	if err != nil {
		return loaded{}, err
	}
	if err := v.source.check(w.Signature()); err != nil {
		return loaded{}, errors.Join(err, w.Close())
	}
	if !ok && opts.SaveGraph != "" {
		known = record{Model: v.ref.Digest}
		if err := errors.Join(v.measured.adopt(opts, &known), v.measured.write(opts, known)); err != nil {
			v.log.Warn("the next start is as slow as this one", "err", err)
		}
	}
	return loaded{w, opts, known}, nil
}

// deathsUntilLost is how often a worker may die early before the provider it
// used counts as lost: an accelerator that fails must not stop the model.
const deathsUntilLost = 3

// diedOf gives up a provider that other than the CPU takes the worker with it
// again and again.
func (v *version) diedOf(r worker.Runtime, lived time.Duration) {
	if lived > steadyAfter {
		v.deaths = 0
	}
	if v.deaths++; v.deaths < deathsUntilLost || r.Provider == worker.CPU {
		return
	}
	v.deaths = 0
	v.lost += len(r.Skipped) + 1
	v.log.Error("execution provider given up, its workers die", "provider", r.Provider)
}

// serve waits for the end of the worker. It reports true when the version has
// ended with it.
func (v *version) serve(ctx context.Context, w *worker.Worker) (ended bool) {
	v.log.Info("model loaded", "took", w.LoadTime())
	began := time.Now()
	retired := v.retired
	var idle <-chan struct{}
	var late, cool, again <-chan time.Time
	for {
		select {
		case <-retired:
			retired, idle, late = nil, v.idle, time.After(v.drain)
			continue
		case <-v.stepped:
			next, ok := v.step(ctx, w)
			if again = nil; !ok {
				again = time.After(v.retryStep())
			}
			w, cool = next, time.After(warmFor)
			continue
		case <-again:
			v.look()
			continue
		case <-cool:
			if cool = nil; !v.cool() {
				cool = time.After(stepRetry)
			}
			continue
		case <-idle:
		case <-late:
			v.log.Warn("model unloaded under requests that did not end", "took", v.drain)
		case <-ctx.Done():
		case <-w.Done():
		}
		break
	}
	died := w.Err()
	v.takeDown(w)
	v.mu.Lock()
	warm := v.warm
	v.warm = nil
	if died != nil {
		v.lastErr = died
		v.restarts++
	}
	leaving := v.leaving
	v.mu.Unlock()
	v.end(w)
	v.end(warm)
	if died != nil && !leaving {
		v.log.Error("worker died, starting it again", "err", died)
		v.diedOf(w.Runtime(), time.Since(began))
		return false
	}
	v.log.Info("model unloaded")
	return true
}

// acquire keeps the version loaded until release. It reports false when the
// version has been retired: the caller looks for its successor.
func (v *version) acquire() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.leaving {
		return false
	}
	v.users++
	return true
}

func (v *version) release() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.users--; v.users == 0 && v.leaving {
		close(v.idle)
	}
}

// retire lets the version end when its last user has left. Repeating it does
// nothing.
func (v *version) retire() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.leaving {
		return
	}
	v.leaving = true
	close(v.retired)
	if v.users == 0 {
		close(v.idle)
	}
}

// restartWait is how long a request waits for a worker that is starting again:
// more than any load of a small model, and not so long that the requests for
// one model that keeps dying take all places.
const restartWait = 5 * time.Second

// takeDown makes later requests wait for the next worker.
func (v *version) takeDown(w *worker.Worker) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.w == w {
		v.w, v.up, v.lastErr = nil, make(chan struct{}), w.Err()
	}
}

// worker returns the worker that serves, and waits for one that is starting again.
func (v *version) worker(ctx context.Context) (*worker.Worker, error) {
	var late <-chan time.Time
	for {
		v.mu.Lock()
		w, up, lastErr, broken := v.w, v.up, v.lastErr, v.broken
		v.mu.Unlock()
		down := func() error {
			if lastErr == nil {
				return faultf(http.StatusServiceUnavailable, "worker of model %s is down: it was unloaded", v.ref)
			}
			return faultf(http.StatusServiceUnavailable, "worker of model %s is down: %w", v.ref, lastErr)
		}
		if w != nil {
			select {
			case <-w.Done(): // dead already: only what it was running dies with it
				v.takeDown(w)
				continue
			default:
				return w, nil
			}
		}
		if broken {
			return nil, down()
		}
		if late == nil {
			late = time.After(restartWait)
		}
		select {
		case <-up:
		case <-late:
			return nil, down()
		case <-v.retired:
			return nil, down()
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the worker of model %s: %w", v.ref, context.Cause(ctx))
		}
	}
}

// ready reports whether a worker serves, and else why not.
func (v *version) ready() (bool, error) {
	if v.ext != nil {
		return v.backendReady()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.w != nil, v.lastErr
}

// signature is that of the loaded model.
func (v *version) signature() models.Signature {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.sig
}

// usage is that of the running worker.
func (v *version) usage() (worker.Usage, error) {
	if v.ext != nil {
		return v.backendUsage()
	}
	v.mu.Lock()
	w := v.w
	v.mu.Unlock()
	if w == nil {
		return worker.Usage{}, fmt.Errorf("worker of model %s is down", v.ref)
	}
	return w.Usage()
}
