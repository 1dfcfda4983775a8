package activate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/models"
)

var errCrashed = errors.New("crashed")

// world is a box around an Activator: a disk, a controller that has blobs, and
// a runner that obeys active.json. It lives inside a bubble.
type world struct {
	t    *testing.T
	dir  string
	key  trust.PrivateKey
	opts Options
	*fakeRunner

	mu      sync.Mutex
	remote  map[blob.Digest][]byte // what the controller has
	offline bool
	fetched int
	phases  []Phase
	begins  func(d blob.Digest)       // a download; nil: nobody looks
	spoil   func(d blob.Digest) error // what the disk does to what it was given; nil: nothing
	crash   int                       // the effects that still happen before the box dies; < 0: never
	dead    bool

	act    *Activator
	cancel context.CancelFunc
	ended  chan error
}

func newWorld(t *testing.T) *world {
	t.Helper()
	key, err := trust.ParsePrivateKey([]byte("ed25519-private:" + strings.Repeat("A", 43) + "="))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "models"), 0o755); err != nil {
		t.Fatal(err)
	}
	store, err := blob.Open(filepath.Join(dir, "blobs"))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: dir, key: key, remote: map[blob.Digest][]byte{}, crash: -1}
	w.fakeRunner = &fakeRunner{w: w, store: store, path: filepath.Join(dir, "models", "active.json"), loaded: map[blob.Digest]*runnerapi.ModelStatus{}, faults: map[blob.Digest]fault{}}
	w.opts = Options{
		Journal:    durable.Journal{Path: filepath.Join(dir, "activate.json"), Version: JournalVersion, OnSave: w.point},
		ActivePath: w.fakeRunner.path,
		Blobs:      store,
		Keyring:    func() trust.Keyring { return trust.DevelopmentKeyring(key.Public()) },
		Fetch:      w.fetch,
		Runner:     w.fakeRunner,
		Report:     w.report,
		Poll:       time.Minute,
	}
	return w
}

// point is one place where the box may die. Whoever meets the end must have no
// effect any more.
func (w *world) point() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead {
		return errCrashed
	}
	if w.crash == 0 {
		w.dead = true
		w.cancel()
		return errCrashed
	}
	if w.crash > 0 {
		w.crash--
	}
	return nil
}

func (w *world) report(p Phase) {
	if err := w.point(); err != nil {
		panic(err) // nothing after this happens; start recovers
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.phases = append(w.phases, p)
}

func (w *world) fetch(ctx context.Context, f models.File, progress func(done, total int64)) error {
	d, size := f.Digest, f.SizeBytes
	if err := w.point(); err != nil {
		return err
	}
	w.mu.Lock()
	data, ok := w.remote[d]
	offline, begins, spoil := w.offline, w.begins, w.spoil
	w.mu.Unlock()
	if w.store.Has(d) {
		return nil
	}
	if offline || !ok {
		return errors.New("no route to controller")
	}
	if size > 0 && size != int64(len(data)) {
		return blob.ErrMismatch
	}
	if begins != nil {
		begins(d)
	}
	if err := os.WriteFile(w.store.StagePath(d), data[:len(data)/2], 0o600); err != nil {
		return err
	}
	progress(int64(len(data)/2), size)
	// A thin link: stopping in the middle leaves a part.
	if !sleep(ctx, 12*time.Second) {
		return ctx.Err()
	}
	if err := os.Remove(w.store.StagePath(d)); err != nil {
		return err
	}
	w.mu.Lock()
	w.fetched++
	w.mu.Unlock()
	if err := w.store.Put(bytes.NewReader(data), d); err != nil || spoil == nil {
		return err
	}
	return spoil(d)
}

// publish signs a version of a model and gives it to the controller.
func (w *world) publish(version string, change func(*models.Manifest)) Want {
	w.t.Helper()
	spec := []models.TensorSpec{{Name: "x", DType: models.FP32, Shape: []int64{-1, -1}}}
	m := models.Manifest{V: models.ManifestVersion, Name: "vad", Version: version,
		Signature: models.Signature{Inputs: spec, Outputs: spec}}
	for path, content := range map[string]string{models.ModelFile: "weights " + version, "labels.txt": "shared by all versions"} {
		d := blob.Sum([]byte(content))
		w.remote[d] = []byte(content)
		m.Files = append(m.Files, models.File{Path: path, Digest: d, SizeBytes: int64(len(content))})
	}
	if m.Files[0].Path != models.ModelFile {
		m.Files[0], m.Files[1] = m.Files[1], m.Files[0]
	}
	if change != nil {
		change(&m)
	}
	payload, err := m.Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	env, err := trust.Sign(trust.TypeModel, payload, w.key)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.offer(models.Ref{Name: m.Name, Version: m.Version, Digest: blob.Sum(env)}, env)
}

func (w *world) offer(ref models.Ref, env []byte) Want {
	w.remote[ref.Digest] = env
	return Want{Ref: ref, Rollout: "r-" + ref.Version}
}

// start opens the journal and runs.
func (w *world) start() {
	w.t.Helper()
	act, err := New(w.opts, slog.New(slog.DiscardHandler))
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	w.act, w.cancel, w.ended = act, cancel, make(chan error, 1)
	go func() {
		defer func() {
			if r := recover(); r != nil && r != any(errCrashed) {
				panic(r)
			} else if r != nil {
				w.ended <- errCrashed
			}
		}()
		w.ended <- act.Run(ctx)
	}()
}

func (w *world) stop() {
	w.t.Helper()
	w.cancel()
	if err := <-w.ended; err != nil && !errors.Is(err, errCrashed) {
		w.t.Errorf("run: %v", err)
	}
}

// want asks for versions and lets time pass until nothing moves any more.
func (w *world) want(gen uint64, wants ...Want) {
	w.act.SetDesired(Desired{Generation: gen, Models: wants})
	w.settle()
}

func (w *world) settle() {
	time.Sleep(20 * time.Minute)
	synctest.Wait()
}

// trace is the reported phases as words, without progress.
func (w *world) trace() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var words []string
	for _, p := range w.phases {
		if p.DoneBytes == 0 {
			words = append(words, p.Version+":"+p.Phase)
		}
	}
	return strings.Join(words, " ")
}

func (w *world) last() Phase {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.phases) == 0 {
		return Phase{}
	}
	return w.phases[len(w.phases)-1]
}

// serves is what active.json names, as words.
func (w *world) serves() string {
	w.t.Helper()
	act, err := w.readActive()
	if err != nil {
		w.t.Fatal(err)
	}
	var words []string
	for _, r := range act.Models {
		words = append(words, r.String())
	}
	return strings.Join(words, " ")
}

func (w *world) wantTrace(want string) {
	w.t.Helper()
	if got := w.trace(); got != want {
		w.t.Errorf("reports\ngot  %s\nwant %s", got, want)
	}
}

func (w *world) wantServes(want string) {
	w.t.Helper()
	if got := w.serves(); got != want {
		w.t.Errorf("active.json names %q, want %q", got, want)
	}
	var words []string
	for _, r := range w.act.Running() {
		words = append(words, r.String())
	}
	if got := strings.Join(words, " "); got != want {
		w.t.Errorf("running %q, want %q", got, want)
	}
}

// fault is what is wrong with one version.
type fault struct {
	probe  string // the probe's error
	broken bool   // never ready
	fails  bool   // requests fail
	crash  bool   // the worker crashes
	slow   bool
	// unreadable: the runner cannot read its files.
	unreadable bool
	// differs: it answers otherwise than the version before it.
	differs bool
}

// fakeRunner does what active.json says and checks that it may.
type fakeRunner struct {
	w     *world
	store *blob.Store
	path  string

	rmu    sync.Mutex
	down   bool
	loaded map[blob.Digest]*runnerapi.ModelStatus
	faults map[blob.Digest]fault
	probes int
	spoils bool // the disk does so: files that are not usable are no fault of the agent
	quiet  bool // no requests come
}

func (r *fakeRunner) readActive() (runnerapi.Active, error) {
	var act runnerapi.Active
	_, err := durable.Journal{Path: r.path, Version: runnerapi.ActiveVersion}.Load(&act)
	return act, err
}

// obey loads what active.json names.
func (r *fakeRunner) obey() {
	act, err := r.readActive()
	if err != nil {
		r.w.t.Errorf("active.json: %v", err)
	}
	names, keep := map[string]bool{}, map[blob.Digest]bool{}
	for _, ref := range act.Models {
		if names[ref.Name] {
			r.w.t.Errorf("active.json names two versions of %s", ref.Name)
		}
		names[ref.Name], keep[ref.Digest] = true, true
		m := r.loaded[ref.Digest]
		if m == nil || m.State != runnerapi.ModelReady {
			err := r.usable(ref)
			if err != nil && !r.spoils {
				r.w.t.Errorf("active.json names %s, which is not usable: %v", ref, err)
			}
			if err != nil || r.faults[ref.Digest].unreadable {
				r.loaded[ref.Digest] = &runnerapi.ModelStatus{Ref: ref, State: runnerapi.ModelFailed, Err: fmt.Sprint("unreadable: ", err), Damaged: true}
				continue
			}
		}
		if m == nil {
			m = &runnerapi.ModelStatus{Ref: ref}
			r.loaded[ref.Digest] = m
		}
		if m.State == runnerapi.ModelReady {
			continue
		}
		m.State, m.LatencyP95 = runnerapi.ModelReady, 0.01
		switch f := r.faults[ref.Digest]; {
		case f.broken:
			m.State = runnerapi.ModelLoading
		case f.fails:
			m.Failures = 10
		case f.crash:
			m.Restarts = 1
		case f.slow:
			m.LatencyP95 = 0.2
		}
		m.Requests = 100
	}
	for d, m := range r.loaded {
		if !keep[d] && m.State != runnerapi.ModelCandidate {
			delete(r.loaded, d)
		}
	}
}

// usable reads the version's manifest and files as the real runner would.
func (r *fakeRunner) usable(ref models.Ref) error {
	env, err := r.store.ReadAll(ref.Digest, trust.MaxEnvelopeBytes)
	if err != nil {
		return err
	}
	payload, err := trust.DevelopmentKeyring(r.w.key.Public()).Open(trust.TypeModel, env)
	if err != nil {
		return err
	}
	m, err := models.DecodeManifest(payload)
	if err != nil {
		return err
	}
	for _, f := range m.Files {
		if r.spoils && slices.ContainsFunc(m.Ladder()[1:], func(o models.Variant) bool { return o.Path == f.Path }) {
			continue // it serves with another one
		}
		if data, err := os.ReadFile(r.store.Path(f.Digest)); err != nil || blob.Sum(data) != f.Digest || int64(len(data)) != f.SizeBytes {
			return fmt.Errorf("file %s is missing or damaged: %w", f.Path, errors.Join(err, blob.ErrMismatch))
		}
	}
	return nil
}

// call is one request to the runner.
func (r *fakeRunner) call() error {
	if err := r.w.point(); err != nil {
		return err
	}
	if r.down {
		return errors.New("connection refused")
	}
	return nil
}

func (r *fakeRunner) Status(context.Context) (runnerapi.Status, error) {
	r.rmu.Lock()
	defer r.rmu.Unlock()
	if r.down {
		return runnerapi.Status{}, errors.New("connection refused")
	}
	r.obey() // the real one polls active.json
	return r.statusLocked(), nil
}

func (r *fakeRunner) statusLocked() runnerapi.Status {
	var st runnerapi.Status
	for _, m := range r.loaded {
		st.Models = append(st.Models, *m)
	}
	return st
}

func (r *fakeRunner) Reload(context.Context) (runnerapi.Status, error) {
	r.rmu.Lock()
	defer r.rmu.Unlock()
	if err := r.call(); err != nil {
		return runnerapi.Status{}, err
	}
	r.obey()
	return r.statusLocked(), nil
}

func (r *fakeRunner) Probe(_ context.Context, ref models.Ref) (runnerapi.Probe, error) {
	r.rmu.Lock()
	defer r.rmu.Unlock()
	if err := r.call(); err != nil {
		return runnerapi.Probe{}, err
	}
	r.probes++
	if err := r.usable(ref); err != nil && r.spoils {
		return runnerapi.Probe{Ref: ref, Err: err.Error(), Damaged: true}, nil
	} else if err != nil {
		r.w.t.Errorf("probe of %s: %v", ref, err)
	}
	if f := r.faults[ref.Digest]; f.probe != "" {
		return runnerapi.Probe{Ref: ref, Err: f.probe, GoldenTotal: 2}, nil
	}
	if r.loaded[ref.Digest] == nil {
		r.loaded[ref.Digest] = &runnerapi.ModelStatus{Ref: ref, State: runnerapi.ModelCandidate}
	}
	return runnerapi.Probe{Ref: ref, OK: true, GoldenPassed: 2, GoldenTotal: 2}, nil
}

func (r *fakeRunner) Shadow(_ context.Context, ref models.Ref) (runnerapi.Status, error) {
	r.rmu.Lock()
	defer r.rmu.Unlock()
	if err := r.call(); err != nil {
		return runnerapi.Status{}, err
	}
	m := r.loaded[ref.Digest]
	if m == nil || m.State != runnerapi.ModelCandidate {
		return runnerapi.Status{}, errors.New("it is probed first")
	}
	m.Shadow = &runnerapi.Shadow{Seen: 90, Compared: 60, Agreement: 1, LatencyRatio: 1}
	if r.quiet {
		m.Shadow = &runnerapi.Shadow{}
	}
	if r.faults[ref.Digest].differs {
		m.Shadow.Agreement = 0.5
	}
	return r.statusLocked(), nil
}

func (r *fakeRunner) Drop(_ context.Context, ref models.Ref) error {
	r.rmu.Lock()
	defer r.rmu.Unlock()
	if err := r.call(); err != nil {
		return err
	}
	if m := r.loaded[ref.Digest]; m != nil && m.State == runnerapi.ModelCandidate {
		delete(r.loaded, ref.Digest)
	}
	return nil
}

// candidates counts what the runner keeps warm.
func (r *fakeRunner) candidates() int {
	r.rmu.Lock()
	defer r.rmu.Unlock()
	n := 0
	for _, m := range r.loaded {
		if m.State == runnerapi.ModelCandidate {
			n++
		}
	}
	return n
}

func (r *fakeRunner) setDown(down bool) {
	r.rmu.Lock()
	defer r.rmu.Unlock()
	r.down = down
	if down {
		r.loaded = map[blob.Digest]*runnerapi.ModelStatus{}
	}
}

// blobs counts what lies in the store.
func (w *world) blobs() int {
	w.t.Helper()
	list, err := w.store.List()
	if err != nil {
		w.t.Fatal(err)
	}
	return len(list)
}
