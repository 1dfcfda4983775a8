package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/edgeherd/edgeherd/agent/backend"
	"github.com/edgeherd/edgeherd/agent/inputs"
	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/models"
)

// Options of New.
type Options struct {
	// Active is the path of active.json; required. It need not exist yet.
	Active string
	// Keyring returns the keys that may sign models; required. It is asked at
	// each load, so that a box enrolled later needs no restart.
	Keyring func() (trust.Keyring, error)
	// Library is the path of libonnxruntime.so.1; required.
	Library string
	// HTTP is the host:port to serve the protocol on; empty: no TCP at all.
	HTTP string
	// GRPC is the host:port to serve the protocol over gRPC on; empty: no gRPC on TCP.
	GRPC string
	// Socket is the path of the unix socket, for both forms of the protocol; empty: none, and no /edge/v1.
	Socket string
	// State is the directory of what is measured about models; empty: it is
	// measured again each time, and no optimised graph is kept.
	State string
	// Repository lets clients on TCP load and unload models; default false:
	// on the socket only.
	Repository bool
	// Backends are the programs that may serve models in place of workers, as
	// WithDefaults returned them; default none. They need State.
	Backends []backend.Config
	// Routes let requests overflow to other servers; default none.
	Routes []Route
	// Worker holds what all workers share: Command, Threads, Providers, CPUs,
	// MaxDataBytes, Nice, Stderr; zero values as in package worker. Library
	// and Model are set here.
	Worker worker.Options
	// MaxInFlight bounds the requests admitted at once; default 512.
	MaxInFlight int
	// MaxQueue bounds the requests that wait for one model; default half of
	// MaxInFlight, so that a model that hangs leaves places for the others.
	MaxQueue int
	// MaxBodyBytes bounds one request body; default 64 MiB.
	MaxBodyBytes int64
	// MaxHeldBytes bounds the bodies of all admitted requests; default 256 MiB.
	MaxHeldBytes int64
	// MaxConnections bounds the connections open on TCP; default 16,384.
	MaxConnections int
	// Hosts are names of this box that requests over TCP may be for, beside its
	// addresses, its host name and localhost; default none.
	Hosts []string
	// Timeout bounds a request from its first byte to its answer, unless the
	// request asks for less; default 30 s.
	Timeout time.Duration
	// Version is that of this program, for metadata and status.
	Version string
	// WallClock stamps the start; default time.Now.
	WallClock func() time.Time
}

func (o Options) withDefaults() (Options, error) {
	if o.Active == "" || o.Keyring == nil || o.Library == "" {
		return o, errors.New("serve models: Active, Keyring and Library are required")
	}
	if o.MaxInFlight == 0 {
		o.MaxInFlight = 512
	}
	if o.MaxQueue == 0 {
		o.MaxQueue = max(o.MaxInFlight/2, 1)
	}
	if o.MaxBodyBytes == 0 {
		o.MaxBodyBytes = 64 << 20
	}
	if o.MaxHeldBytes == 0 {
		o.MaxHeldBytes = 256 << 20
	}
	if o.MaxConnections == 0 {
		o.MaxConnections = 16384
	}
	o.MaxHeldBytes = max(o.MaxHeldBytes, o.MaxBodyBytes)
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	if o.WallClock == nil {
		o.WallClock = time.Now
	}
	o.Worker.Library = o.Library
	if len(o.Worker.Providers) == 0 {
		o.Worker.Providers = []worker.Provider{{Name: worker.CPU}}
	}
	return o, nil
}

// Inputs is what the server asks of the cameras and pipelines of the box
// (package inputs); they are in turn callers of Infer.
type Inputs interface {
	Run(ctx context.Context) error
	Status() []runnerapi.InputStatus
	Results(after uint64, max int) (runnerapi.Results, error)
	Ack(outbox string, cursor uint64) error
	SetDuty(d runnerapi.Duty)
	Counts() (records, dropped int64)
}

// Server serves the models of one box.
type Server struct {
	opts     Options
	log      *slog.Logger
	inputs   Inputs // nil: none
	gate     gate
	spill    gate                              // of requests that there is no room for, and that go elsewhere
	ways     atomic.Pointer[map[string]*route] // by model; see SetRoutes
	heat     heat
	lobby    lobby
	streams  atomic.Int64 // ModelStreamInfer calls that are open
	buffers  buffers
	encoders encoders
	started  time.Time
	table    atomic.Pointer[table]
	measured measured
	looked   atomic.Bool // the first look at active.json is over
	rung     rung        // of the ladders of all models
	// jobs hands goroutines to Run, which owns them.
	jobs chan func(context.Context)
	// ended is closed when Run no longer takes jobs.
	ended chan struct{}

	switching sync.Mutex // held while active.json is read and applied
	lastSeen  fileStamp  // of active.json, guarded by switching

	mu       sync.Mutex // guards all below
	versions map[blob.Digest]*version
	unloaded map[string]bool // models that a client has unloaded
	cpu      cpuClock
}

// New returns a server that does nothing before Run.
func New(opts Options, log *slog.Logger) (*Server, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{
		opts: opts, log: log, started: opts.WallClock(),
		gate:  gate{maxRequests: int64(opts.MaxInFlight), maxBytes: opts.MaxHeldBytes},
		spill: gate{maxRequests: int64(max(opts.MaxInFlight/4, 1)), maxBytes: max(opts.MaxHeldBytes/4, opts.MaxBodyBytes)},
		lobby: lobby{max: int64(opts.MaxConnections)},
		jobs:  make(chan func(context.Context)), ended: make(chan struct{}),
		versions: map[blob.Digest]*version{}, unloaded: map[string]bool{},
		measured: newMeasured(opts.State), rung: rung{clock: opts.WallClock},
	}
	s.table.Store(&table{})
	return s, s.SetRoutes(opts.Routes)
}

// Attach makes the server run in and report about it; call it before Run.
func (s *Server) Attach(in Inputs) { s.inputs = in }

// shutdownGrace is how long requests under way may take when the runner ends:
// less than systemd's 90 s, more than any inference.
const shutdownGrace = 10 * time.Second

// Run serves until ctx ends. Listeners are open before the first model is
// loaded: a box that is starting answers "not ready" instead of nothing.
//
// Order of the end: no new requests; requests under way and the inputs finish;
// then the workers end, since both need them.
func (s *Server) Run(ctx context.Context) error {
	listeners, err := s.listen(ctx)
	if err != nil {
		return err
	}
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	var jobs sync.WaitGroup
	jobs.Go(func() { s.dispatch(work, &jobs) })

	g, gctx := errgroup.WithContext(ctx)
	for _, l := range listeners {
		g.Go(func() error { return l.serve(gctx) })
	}
	g.Go(func() error { return s.watch(gctx) })
	if s.inputs != nil {
		g.Go(func() error { return s.inputs.Run(gctx) })
	}
	err = g.Wait()
	stop()
	jobs.Wait()
	return err
}

// dispatch runs jobs until ctx ends; jobs end with it too.
func (s *Server) dispatch(ctx context.Context, running *sync.WaitGroup) {
	defer close(s.ended)
	for {
		select {
		case <-ctx.Done():
			return
		case job := <-s.jobs:
			running.Go(func() { job(ctx) })
		}
	}
}

// acquire returns the version that serves name now; number "" means the one
// that active.json names last. The caller releases it.
func (s *Server) acquire(name, number string) (*version, error) {
	for {
		t := s.table.Load()
		v, err := t.find(name, number)
		if err != nil {
			return nil, err
		}
		if v.acquire() {
			return v, nil
		}
		if s.table.Load() == t {
			// Only the end of Run retires a version that the table still has.
			return nil, faultf(http.StatusServiceUnavailable, "model %s: the runner is stopping", name)
		}
	}
}

// Infer runs a model for a pipeline of this process. It is not subject to
// admission: pipelines are paced by duty, and there are few of them.
func (s *Server) Infer(ctx context.Context, model string, in []worker.Tensor) ([]worker.Tensor, inputs.By, error) {
	v, err := s.acquire(model, "")
	if err != nil {
		return nil, inputs.By{}, fmt.Errorf("%w: %w", inputs.ErrNoModel, err)
	}
	defer v.release()
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	began := time.Now()
	c := call{inputs: in, exact: v.ref.Version}
	out, err := s.run(ctx, v, &c)
	by := inputs.By{Ref: v.ref}
	if c.served != servedHere {
		by.Elsewhere = c.served
	}
	if !c.elsewhere {
		v.stats.record(time.Since(began), err, s.opts.WallClock())
		return out, by, err
	}
	if err == nil {
		var names []wanted
		for _, o := range v.signature().Outputs {
			names = append(names, wanted{name: o.Name})
		}
		out, err = inOrder(out, names)
	}
	return out, by, err
}

// blobsBeside is where the agent keeps blobs when active.json does not say:
// A/blobs beside A/models/active.json.
func (s *Server) blobsBeside() string {
	return filepath.Join(filepath.Dir(filepath.Dir(s.opts.Active)), "blobs")
}

// load returns the loaded version, starting it if there is none. A version
// that does not load is forgotten, so that the next call tries again.
func (s *Server) load(ctx context.Context, ref models.Ref, blobs string) (*version, error) {
	s.mu.Lock()
	v := s.versions[ref.Digest]
	if v == nil {
		var err error
		if v, err = s.open(ref, blobs); err != nil {
			s.mu.Unlock()
			return nil, err
		}
		s.versions[ref.Digest] = v
		s.mu.Unlock()
		s.begin(ctx, v)
	} else {
		s.mu.Unlock()
	}
	select {
	case <-v.loaded:
	case <-ctx.Done():
		return nil, fmt.Errorf("load model %s: %w", ref, context.Cause(ctx))
	}
	if v.loadErr != nil {
		s.forget(v)
		return nil, v.loadErr
	}
	return v, nil
}

// begin hands the version to Run; where that is impossible it has failed.
func (s *Server) begin(ctx context.Context, v *version) {
	var err error
	select {
	case s.jobs <- v.run:
		return
	case <-s.ended:
		err = errors.New("the runner is stopping")
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	v.loadErr = fmt.Errorf("load model %s: %w", v.ref, err)
	close(v.loaded)
}

func (s *Server) open(ref models.Ref, dir string) (*version, error) {
	keys, err := s.opts.Keyring()
	if err != nil {
		return nil, fmt.Errorf("load model %s: %w", ref, err)
	}
	blobs, err := blob.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("load model %s: %w", ref, err)
	}
	src, err := openStored(blobs, keys, ref, s.opts.Worker)
	if err != nil {
		return nil, err
	}
	v := s.newVersion(ref, src)
	v.mayLeave = src.manifest.LeavesSite == models.MayLeaveSite
	if src.manifest.Backend != nil {
		v.ext, err = newExternal(src, s.opts.Backends, s.opts.State)
	}
	if v.isOpenAI() && s.routesNow()[ref.Name] != nil {
		s.log.Warn("the route of a language model is not used: take it out of runner.yaml", "model", ref.Name)
	}
	return v, err
}

// forget drops a version from the register and lets it end.
func (s *Server) forget(v *version) {
	s.mu.Lock()
	if s.versions[v.ref.Digest] == v {
		delete(s.versions, v.ref.Digest)
	}
	s.mu.Unlock()
	v.retire()
}
