package serve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edgeherd/edgeherd/agent/backend"
	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/models"
)

// A version with a backend is served by a program that is not ours (package
// backend). It has the states of any other version: loaded when the program is
// ready, proved with its golden samples, switched to, retired when idle.

const (
	// healthEvery is how often a program is asked whether it is ready, and
	// healthMisses how often in a row it may fail to say so.
	healthEvery  = 2 * time.Second
	healthMisses = 3
	readyPoll    = 100 * time.Millisecond
)

// external is what a version knows of its backend.
type external struct {
	config   backend.Config
	manifest models.Manifest
	files    *stored
	state    string // directory for links to the files
	busy     atomic.Int64

	mu      sync.Mutex // guards all below
	program *backend.Program
	client  *backend.Client // nil: it does not serve
}

// newExternal finds the backend that a manifest asks for.
func newExternal(files *stored, configs []backend.Config, state string) (*external, error) {
	m := files.manifest
	for _, c := range configs {
		if c.Name != m.Backend.Name {
			continue
		}
		if c.API != m.Backend.API {
			return nil, fmt.Errorf("model %s:%s wants backend %q by %s, runner.yaml has it by %s", m.Name, m.Version, c.Name, m.Backend.API, c.API)
		}
		if c.Place == backend.PlaceCentral && m.LeavesSite != models.MayLeaveSite {
			return nil, fmt.Errorf("model %s:%s: its inputs must not leave the site, and backend %q is %s; a manifest allows it with leaves_site: %s",
				m.Name, m.Version, c.Name, c.Place, models.MayLeaveSite)
		}
		if state == "" {
			return nil, fmt.Errorf("model %s:%s: backends need a state directory", m.Name, m.Version)
		}
		return &external{config: c, manifest: m, files: files, state: state}, nil
	}
	return nil, fmt.Errorf("model %s:%s wants backend %q, which is not under `backends:` in runner.yaml", m.Name, m.Version, m.Backend.Name)
}

// place is what the response says of where it was computed.
func (e *external) place() string {
	if e.config.Place == backend.PlaceBox {
		return servedHere
	}
	return e.config.Place + ":" + e.config.Name
}

func (e *external) enter() bool {
	if e.busy.Add(1) > int64(e.config.MaxConcurrent) {
		e.busy.Add(-1)
		return false
	}
	return true
}

func (e *external) leave() { e.busy.Add(-1) }

// serving is the server to ask now.
func (e *external) serving() (peer, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.client == nil {
		return peer{}, fmt.Errorf("backend %s is down", e.config.Name)
	}
	model, number := e.manifest.Remote()
	return peer{e.client, model, number}, nil
}

func (e *external) pid() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.program == nil {
		return 0
	}
	return e.program.PID()
}

// start starts the program and waits until it is ready and serves what the
// manifest promises.
func (e *external) start(ctx context.Context, v *version) (err error) {
	ctx, cancel := context.WithTimeout(ctx, e.config.ReadyWithin)
	defer cancel()
	began := time.Now()
	for _, f := range e.manifest.Files {
		if err := e.files.verify(f); err != nil {
			return fmt.Errorf("file %s of %s: %w: %w", f.Path, v.ref, errDamaged, err)
		}
	}
	launch, err := e.launch(v.ref)
	if err != nil {
		return err
	}
	program, err := e.config.Start(ctx, launch, v.log)
	if err != nil {
		return err
	}
	client, err := e.connect(launch.Port)
	if err == nil {
		if err = e.await(ctx, program, client); err == nil {
			err = e.promised(ctx, client)
		}
		if err != nil {
			client.Close()
		}
	}
	if err != nil {
		program.Stop()
		return fmt.Errorf("backend %s of model %s: %w", e.config.Name, v.ref, err)
	}
	e.mu.Lock()
	e.program, e.client = program, client
	e.mu.Unlock()
	v.mu.Lock()
	v.loadTime, v.sig = time.Since(began), e.manifest.Signature
	v.mu.Unlock()
	v.log.Info("backend serves", "backend", e.config.Name, "kind", e.config.Kind(), "pid", program.PID(), "took", time.Since(began))
	return nil
}

// launch lays out the files and finds a free port.
func (e *external) launch(ref models.Ref) (backend.Launch, error) {
	id := ref.Digest.Hex()[:16]
	l := backend.Launch{Manifest: e.manifest, ID: id, Dir: filepath.Join(e.state, "backends", id), Blobs: e.files.blobs.Dir()}
	// Another program may take the port before ours does; then ours does not
	// become ready, and the next start has another.
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return l, fmt.Errorf("find a port for backend %s: %w", e.config.Name, err)
	}
	if a, ok := free.Addr().(*net.TCPAddr); ok {
		l.Port = a.Port
	}
	return l, errors.Join(free.Close(), l.Lay(e.files.path))
}

func (e *external) connect(port int) (*backend.Client, error) {
	model, number := e.manifest.Remote()
	return backend.Dial(e.config.At(port), model, number)
}

// await polls until the program is ready.
func (e *external) await(ctx context.Context, p *backend.Program, c *backend.Client) error {
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for {
		err := c.Ready(ctx, e.config.API)
		if err == nil {
			return nil
		}
		select {
		case <-p.Done():
			return cmp.Or(p.Err(), errors.New("it has ended"))
		case <-ctx.Done():
			return fmt.Errorf("not ready within %s: %w", e.config.ReadyWithin, err)
		case <-tick.C:
		}
	}
}

// promised compares what the program serves with the signed manifest.
func (e *external) promised(ctx context.Context, c *backend.Client) error {
	if e.config.API != models.APIOIP {
		return nil
	}
	sig, err := c.Signature(ctx)
	if err != nil {
		return err
	}
	if err := e.manifest.Signature.Accepts(sig); err != nil {
		return fmt.Errorf("it differs from the manifest: %w", err)
	}
	return nil
}

// down takes the program out of service; its end is awaited.
func (e *external) down() {
	e.mu.Lock()
	program, client := e.program, e.client
	e.program, e.client = nil, nil
	e.mu.Unlock()
	if client != nil {
		client.Close()
	}
	if program != nil {
		program.Stop()
	}
}

// startBackend is startWorker of a version with a backend.
func (v *version) startBackend(ctx context.Context) (ended func(context.Context) bool, err error) {
	err = v.ext.start(ctx, v)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.broken, v.lastErr = err != nil, err
	if err == nil {
		close(v.up)
	}
	return v.watchBackend, err
}

func (v *version) clear() {
	l := backend.Launch{Manifest: v.ext.manifest, Dir: filepath.Join(v.ext.state, "backends", v.ref.Digest.Hex()[:16])}
	if err := l.Clear(); err != nil {
		v.log.Warn("links stay", "err", err)
	}
}

// watchBackend waits for the end of the program or of its health. It reports
// true when the version has ended with it.
func (v *version) watchBackend(ctx context.Context) (ended bool) {
	e := v.ext
	e.mu.Lock()
	program, client := e.program, e.client
	e.mu.Unlock()
	tick := time.NewTicker(healthEvery)
	defer tick.Stop()
	retired := v.retired
	var idle <-chan struct{}
	var late <-chan time.Time
	var died error
	for misses := 0; ; {
		select {
		case <-retired:
			retired, idle, late = nil, v.idle, time.After(v.drain)
			continue
		case <-tick.C:
			err := client.Ready(ctx, e.config.API)
			if err == nil {
				misses = 0
				continue
			}
			if misses++; misses < healthMisses {
				continue
			}
			died = fmt.Errorf("backend %s is not ready any more: %w", e.config.Name, err)
		case <-program.Done():
			died = cmp.Or(program.Err(), errors.New("it has ended"))
		case <-idle:
		case <-late:
			v.log.Warn("backend is stopped under requests that did not end", "took", v.drain)
		case <-ctx.Done():
		}
		break
	}
	v.mu.Lock()
	leaving := v.leaving
	v.up = make(chan struct{})
	if died != nil && ctx.Err() == nil {
		v.lastErr = died
		v.restarts++
	}
	v.mu.Unlock()
	e.down()
	if died != nil && !leaving && ctx.Err() == nil {
		v.log.Error("backend is gone, "+e.remedy(), "err", died)
		return false
	}
	v.log.Info("backend is stopped", "backend", e.config.Name)
	return true
}

// remedy is what the runner does about a program that is gone.
func (e *external) remedy() string {
	if e.config.Kind() == "watched" {
		return "waiting for it"
	}
	return "starting it again"
}

// backendReady is ready of a version with a backend.
func (v *version) backendReady() (bool, error) {
	_, err := v.ext.serving()
	v.mu.Lock()
	defer v.mu.Unlock()
	if err != nil && v.lastErr != nil {
		err = v.lastErr
	}
	return err == nil, err
}

// backendUsage is what the process of a backend takes; containers and units
// are not ours to look into.
func (v *version) backendUsage() (worker.Usage, error) {
	pid := v.ext.pid()
	if pid == 0 || v.ext.config.Kind() != "process" {
		return worker.Usage{}, errors.New("the backend is no process of the runner")
	}
	return worker.UsageOf(pid)
}
