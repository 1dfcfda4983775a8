// Package activate makes the models that a box serves equal to those it is
// asked to serve.
//
// Vocabulary: a want is the version that the controller asks for; a candidate
// is on its way to serve; current was committed, previous before it. A
// candidate is fetched, probed (the runner loads it beside the current version
// and compares golden samples), run in the shadow of the current version (on
// copies of real requests), switched to (active.json), watched for a trial, and
// committed; whatever goes wrong, current serves again and the candidate is
// denied until the controller asks with a higher attempt.
//
// Rules (Rules.Next) decides and is pure; Activator does. On disk:
//
//	A/activate.json       the journal, written before each effect
//	A/models/active.json  what the runner serves, derived from the journal
//	A/blobs               manifests and files, by digest
//
// A file that the disk has spoiled is taken away and fetched again (Mend).
//
// Reports are kept in the journal until Options.Report has returned, so each
// is delivered at least once. A damaged journal is rebuilt from active.json:
// serving goes on, only the memory of failures is lost.
//
// The one rule a caller can break: nothing else writes active.json or deletes
// blobs that this package fetched.
package activate

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/models"
)

// JournalVersion is the shape of the journal. History: 1 first.
const JournalVersion = 1

// Runner is what this package asks of the runner.
type Runner interface {
	Status(ctx context.Context) (runnerapi.Status, error)
	Probe(ctx context.Context, ref models.Ref) (runnerapi.Probe, error)
	Shadow(ctx context.Context, ref models.Ref) (runnerapi.Status, error)
	Drop(ctx context.Context, ref models.Ref) error
	Reload(ctx context.Context) (runnerapi.Status, error)
}

// Options configure an Activator.
type Options struct {
	// Journal is A/activate.json with JournalVersion. Required.
	Journal durable.Journal
	// ActivePath is A/models/active.json; its directory must exist. Required.
	ActivePath string
	// Blobs holds manifests and files. Required.
	Blobs *blob.Store
	// Keyring says who may sign manifests. Required.
	Keyring func() trust.Keyring
	// Allow is asked before a version is fetched; nil allows all. An error that is
	// trust.ErrUntrusted ends the candidate, others are tried again.
	Allow func(ctx context.Context, ref models.Ref) error
	// Fetch brings a file into Blobs; size 0 is unknown. Errors that are
	// blob.ErrMismatch or blob.ErrTooLarge end the candidate, others are tried
	// again; while there is no room (blob.ErrNoRoom) or the disk fails, less and
	// less often.
	// Required.
	Fetch func(ctx context.Context, f models.File, progress func(done, total int64)) error
	// Room says whether the disk takes what is still to come of files, before the
	// first is fetched; nil: each is fetched as long as there is room.
	Room func(files []models.File) error
	// Runner tries and serves models. Required.
	Runner Runner
	// Heat finds out what the variants of a probed candidate draw and writes it
	// into p; nil: nobody does. What it returns is no fault of the candidate.
	Heat func(ctx context.Context, ref models.Ref, p *runnerapi.Probe) error
	// Report makes a phase durable before the next effect happens. Reports of
	// progress (DoneBytes > 0) come at most every ten seconds. Required.
	Report func(Phase)
	// Trial is how long a new version is watched; default 30 s.
	Trial time.Duration
	// FetchLimit bounds the download; default 7 days.
	FetchLimit time.Duration
	// ProbeLimit bounds the wait for the runner's verdict; default 10 minutes.
	ProbeLimit time.Duration
	// ReadyLimit bounds the wait until the runner serves; default 5 minutes.
	ReadyLimit time.Duration
	// MaxFailureRatio of requests may fail in the trial; default 0.05.
	MaxFailureRatio float64
	// MaxLatencyRatio bounds the trial's p95 against the version before;
	// default 4.
	MaxLatencyRatio float64
	// Poll is how often an idle runner is asked what it serves; default 5 s.
	Poll time.Duration
}

// An Activator looks after the models of one box.
type Activator struct {
	opts  Options
	rules Rules
	log   *slog.Logger

	// Only Run touches these.
	book    book
	saved   []byte // the journal's content on disk
	active  *runnerapi.Active
	effects map[string]*effect
	lastID  int
	spared  map[blob.Digest]bool // versions that serve though a file they can do without is gone
	events  chan message
	status  runnerapi.Status

	probing chan struct{} // held while the runner tries a candidate

	wake    chan struct{} // has a token when desired is set
	mu      sync.Mutex
	desired *Desired              // guarded by mu; nil once taken
	running []models.Ref          // guarded by mu
	asked   []models.Ref          // guarded by mu
	looks   map[blob.Digest]*look // guarded by mu; by version
}

// Desired is the list of models that shall serve; others shall not.
type Desired struct {
	Generation uint64
	Models     []Want
	// Keep are versions that stay if they are here.
	Keep []models.Ref
}

// New reads the journal. It starts nothing.
func New(opts Options, log *slog.Logger) (*Activator, error) {
	if opts.Journal.Path == "" || opts.ActivePath == "" || opts.Blobs == nil || opts.Keyring == nil || opts.Fetch == nil || opts.Runner == nil || opts.Report == nil {
		return nil, errors.New("activate: Options lacks Journal, ActivePath, Blobs, Keyring, Fetch, Runner or Report")
	}
	opts.Journal.Version = cmp.Or(opts.Journal.Version, JournalVersion)
	opts.Poll = cmp.Or(opts.Poll, 5*time.Second)
	a := &Activator{
		opts: opts, log: log,
		rules: Rules{
			Trial:           cmp.Or(opts.Trial, 30*time.Second),
			Shadow:          10 * time.Second,
			FetchLimit:      cmp.Or(opts.FetchLimit, 7*24*time.Hour),
			ProbeLimit:      cmp.Or(opts.ProbeLimit, 10*time.Minute),
			ReadyLimit:      cmp.Or(opts.ReadyLimit, 5*time.Minute),
			MaxFailureRatio: cmp.Or(opts.MaxFailureRatio, 0.05),
			MaxLatencyRatio: cmp.Or(opts.MaxLatencyRatio, 4),
		},
		effects: map[string]*effect{}, spared: map[blob.Digest]bool{}, looks: map[blob.Digest]*look{}, events: make(chan message),
		probing: make(chan struct{}, 1), wake: make(chan struct{}, 1),
	}
	if err := a.load(); err != nil {
		return nil, err
	}
	return a, nil
}

// SetDesired says what shall serve. It may be called before and while Run runs;
// only the newest list counts.
func (a *Activator) SetDesired(d Desired) {
	a.mu.Lock()
	a.desired = &d
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// Running returns the versions that serve, as the runner said last: committed
// or on trial, and ready.
func (a *Activator) Running() []models.Ref {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]models.Ref(nil), a.running...)
}

// Serving returns the versions that the runner is asked to serve.
func (a *Activator) Serving() []models.Ref {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.asked)
}

// Run works until ctx ends. It returns an error only when the journal or
// active.json cannot be written for a reason other than a full disk.
func (a *Activator) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var polling sync.WaitGroup
	defer polling.Wait()
	defer a.stopAll()
	defer cancel()
	if err := a.resume(ctx); err != nil {
		return ended(ctx, err)
	}
	polling.Go(func() { a.poll(ctx) })
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-a.wake:
			err = a.takeDesired(ctx)
		case m := <-a.events:
			err = a.handle(ctx, m)
		}
		if err != nil {
			return ended(ctx, err)
		}
	}
}

// ended makes being cancelled a success.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

// resume goes on where the journal ends.
func (a *Activator) resume(ctx context.Context) error {
	if err := a.deliver(ctx); err != nil {
		return err
	}
	if err := a.syncActive(ctx); err != nil {
		return err
	}
	for _, name := range a.book.names() {
		if err := a.recheck(ctx, name); err != nil {
			return err
		}
		if err := a.apply(ctx, name, Event{Kind: EventResumed}); err != nil {
			return err
		}
	}
	return a.sweep(ctx)
}

func (a *Activator) takeDesired(ctx context.Context) error {
	a.mu.Lock()
	d := a.desired
	a.desired = nil
	a.mu.Unlock()
	if d == nil {
		return nil
	}
	a.book.Generation, a.book.Keep = d.Generation, d.Keep
	wants := map[string]Want{}
	for _, w := range d.Models {
		wants[w.Name] = w
	}
	for _, name := range a.book.names() {
		if _, ok := wants[name]; !ok {
			wants[name] = Want{}
		}
	}
	for _, name := range sortedKeys(wants) {
		if err := a.apply(ctx, name, Event{Kind: EventWanted, Want: wants[name], Generation: d.Generation}); err != nil {
			return err
		}
	}
	// Also when no model changed: active.json carries the generation.
	if err := a.save(ctx); err != nil {
		return err
	}
	return a.syncActive(ctx)
}

// handle takes what an effect or the poll found out.
func (a *Activator) handle(ctx context.Context, m message) error {
	if m.event.Kind == EventStatus {
		a.status = m.event.Status
		a.publish()
	}
	if m.name == "" {
		return a.polled(ctx, m.event)
	}
	e, ok := a.effects[m.name]
	if !ok || e.id != m.id {
		return nil // from an effect that was replaced
	}
	if m.total > 0 {
		if err := a.arrives(ctx, m.name); err != nil {
			return err
		}
		p := a.book.get(m.name).report(string(StepFetching), "", nil).Phase
		p.DoneBytes, p.TotalBytes = m.done, m.total
		a.opts.Report(p)
		return nil
	}
	<-e.done // it has nothing left to do
	delete(a.effects, m.name)
	return a.apply(ctx, m.name, m.event)
}

// arrives takes back that a model waits for the disk.
func (a *Activator) arrives(ctx context.Context, name string) error {
	if a.book.get(name).Disk == "" {
		return nil
	}
	return a.apply(ctx, name, Event{Kind: EventArrives})
}

// polled hands the runner's state to the models that wait for nothing else.
func (a *Activator) polled(ctx context.Context, e Event) error {
	if e.Kind != EventStatus {
		a.status = runnerapi.Status{}
		a.publish()
		return nil
	}
	wanted := map[blob.Digest]bool{}
	for _, name := range a.book.names() {
		s := a.book.get(name)
		wanted[s.Candidate.Digest], wanted[s.Current.Digest] = true, true
		m, ok := statusOf(e.Status, s.Current.Digest)
		serves := m.State == runnerapi.ModelReady
		if ok && (m.Damaged || serves && a.spared[m.Digest]) && a.due(m.Digest) && !a.verifying(name, serves) {
			if err := a.apply(ctx, name, Event{Kind: EventSuspected, Digest: m.Digest, Serves: serves}); err != nil {
				return err
			}
			if !serves {
				continue
			}
		}
		if s.Step == StepIdle {
			if err := a.apply(ctx, name, e); err != nil {
				return err
			}
		}
	}
	for _, m := range e.Status.Models {
		if m.State == runnerapi.ModelCandidate && !wanted[m.Digest] {
			a.drop(ctx, m.Ref)
		}
	}
	return nil
}

// apply lets the rules decide and makes the decision real: journal, reports,
// active.json, then the effect.
func (a *Activator) apply(ctx context.Context, name string, e Event) error {
	was := a.book.get(name)
	s, actions := a.rules.Next(was, e, time.Now())
	if s.Step != was.Step {
		a.log.Info("model moves on", "model", name, "phase", s.Step, "version", cmp.Or(s.For.Version, s.Current.Version), "err", e.Err)
	} else if e.Kind == EventFailed {
		a.log.Debug("model has to wait", "model", name, "phase", s.Step, "err", e.Err)
	}
	a.book.put(s)
	for _, act := range actions {
		if act.Kind == ActReport {
			a.book.Pending = append(a.book.Pending, act.Phase)
		}
	}
	if err := a.save(ctx); err != nil {
		return err
	}
	if err := a.deliver(ctx); err != nil {
		return err
	}
	if err := a.syncActive(ctx); err != nil {
		return err
	}
	a.publish()
	a.begin(ctx, s, actions)
	return a.sweep(ctx)
}

// publish refreshes what Running returns.
func (a *Activator) publish() {
	var refs, asked []models.Ref
	for _, name := range a.book.names() {
		v := a.book.get(name).Serving()
		if v.none() {
			continue
		}
		asked = append(asked, v.Ref)
		if m, ok := statusOf(a.status, v.Digest); ok && m.State == runnerapi.ModelReady {
			refs = append(refs, v.Ref)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.running, a.asked = refs, asked
}
