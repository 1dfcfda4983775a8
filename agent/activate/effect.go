package activate

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/models"
)

const (
	dropTimeout   = 5 * time.Second
	answerTimeout = time.Minute // of the runner, for all but probes
	progressEvery = 10 * time.Second
)

// effect is the one thing that is being done for a model.
type effect struct {
	id     int
	kind   ActionKind
	cancel context.CancelFunc
	done   chan struct{}
}

// message is what an effect tells Run; name is empty for the idle poll.
type message struct {
	name        string
	id          int
	event       Event
	done, total int64 // progress, when total > 0
}

// begin performs the actions that are not reports. A new effect replaces the
// old one, after it has ended: two downloads must not meet in one stage file.
func (a *Activator) begin(ctx context.Context, s State, actions []Action) {
	var drops []models.Ref
	for _, act := range actions {
		switch act.Kind {
		case ActReport:
		case ActDrop:
			drops = append(drops, act.Ref)
		default:
			if act.Kind == ActMend {
				delete(a.spared, act.Ref.Digest)
			}
			a.stop(s.Name)
			a.start(ctx, s, act, drops)
			drops = nil
		}
	}
	for _, ref := range drops {
		a.drop(ctx, ref)
	}
}

func (a *Activator) start(ctx context.Context, s State, act Action, drops []models.Ref) {
	ctx, cancel := context.WithCancel(ctx)
	a.lastID++
	e := &effect{a.lastID, act.Kind, cancel, make(chan struct{})}
	a.effects[s.Name] = e
	go func() {
		defer close(e.done)
		defer cancel()
		for _, ref := range drops {
			a.drop(ctx, ref)
		}
		// Half of the delay is random: models that failed together do not
		// come back together.
		if act.Delay > 0 && !sleep(ctx, act.Delay/2+rand.N(act.Delay/2+1)) {
			return
		}
		ev, ok := a.perform(ctx, s, act, e.id)
		if !ok || ctx.Err() != nil {
			return // what failed by being stopped is nobody's fault
		}
		select {
		case a.events <- message{name: s.Name, id: e.id, event: ev}:
		case <-ctx.Done():
		}
	}()
}

// verifying reports whether the files of a model are being looked at. What is mended
// beside a version that serves may wait for the line: one that serves no more does not.
func (a *Activator) verifying(name string, serves bool) bool {
	e := a.effects[name]
	return e != nil && (e.kind == ActVerify || serves && e.kind == ActMend)
}

// stop ends the effect of a model and waits for it.
func (a *Activator) stop(name string) {
	if e, ok := a.effects[name]; ok {
		e.cancel()
		<-e.done
		delete(a.effects, name)
	}
}

func (a *Activator) stopAll() {
	for _, name := range sortedKeys(a.effects) {
		a.stop(name)
	}
}

// drop tells the runner to forget a candidate. Failing is no harm: the poll
// drops candidates that nobody wants.
func (a *Activator) drop(ctx context.Context, ref models.Ref) {
	ctx, cancel := context.WithTimeout(ctx, dropTimeout)
	defer cancel()
	if err := a.opts.Runner.Drop(ctx, ref); err != nil {
		a.log.Debug("candidate not dropped", "model", ref.Name, "digest", ref.Digest, "err", err)
	}
}

// perform does one action and returns the event that answers it.
func (a *Activator) perform(ctx context.Context, s State, act Action, id int) (Event, bool) {
	switch act.Kind {
	case ActManifest:
		return a.fetchManifest(ctx, s), true
	case ActFiles:
		return a.fetchFiles(ctx, s, id), true
	case ActProbe:
		return a.probe(ctx, s), true
	case ActVerify:
		return a.verify(ctx, s, s.version(act.Ref.Digest)), true
	case ActMend:
		return a.mendBeside(ctx, s.version(act.Ref.Digest)), true
	case ActShadow:
		return answer(ctx, func(ctx context.Context) (runnerapi.Status, error) {
			return a.opts.Runner.Shadow(ctx, s.Candidate.Ref)
		}), true
	case ActReload:
		return answer(ctx, a.opts.Runner.Reload), true
	case ActStatus:
		return answer(ctx, a.opts.Runner.Status), true
	}
	return Event{}, false
}

func answer(ctx context.Context, ask func(context.Context) (runnerapi.Status, error)) Event {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	st, err := ask(ctx)
	if err != nil {
		return Event{Kind: EventFailed, Err: err.Error()}
	}
	return Event{Kind: EventStatus, Status: st}
}

func failed(err error) Event {
	e := Event{Kind: EventFailed, Err: err.Error()}
	switch {
	case errors.Is(err, errUntrusted), errors.Is(err, trust.ErrUntrusted):
		e.Blame = BlameTrust
	case errors.Is(err, blob.ErrMismatch), errors.Is(err, blob.ErrTooLarge):
		e.Blame = BlameCandidate
	case errors.Is(err, blob.ErrNoRoom), full(err):
		e.Blame = BlameRoom
	case badDisk(err):
		e.Blame = BlameDisk
	}
	return e
}

func (a *Activator) allow(ctx context.Context, ref models.Ref) error {
	if a.opts.Allow == nil {
		return nil
	}
	return a.opts.Allow(ctx, ref)
}

func (a *Activator) fetchManifest(ctx context.Context, s State) Event {
	if err := a.allow(ctx, s.Candidate.Ref); err != nil {
		return failed(err)
	}
	if err := a.opts.Fetch(ctx, models.File{Digest: s.Candidate.Digest}, func(_, _ int64) {}); err != nil {
		return failed(err)
	}
	m, err := a.Manifest(s.Candidate.Ref)
	if errors.Is(err, blob.ErrMismatch) {
		// It lay here already, and the disk has spoiled it: the next try fetches it.
		return Event{Kind: EventFailed, Err: errors.Join(err, a.opts.Blobs.Delete(s.Candidate.Digest)).Error()}
	}
	if err != nil {
		return failed(err)
	}
	return Event{Kind: EventManifest, Manifest: m}
}

func (a *Activator) fetchFiles(ctx context.Context, s State, id int) Event {
	var before, total int64
	for _, f := range s.Candidate.Files {
		total += f.SizeBytes
	}
	told := time.Now()
	progress := func(done, _ int64) {
		if total == 0 || time.Since(told) < progressEvery {
			return
		}
		told = time.Now()
		select {
		case a.events <- message{name: s.Name, id: id, done: before + done, total: total}:
		case <-ctx.Done():
		}
	}
	// It may have been revoked since the manifest was fetched. What is only not
	// known any more does not stop a download that was allowed.
	if err := a.allow(ctx, s.Candidate.Ref); errors.Is(err, trust.ErrUntrusted) {
		return failed(err)
	}
	// The manifest too: the runner reads it, and it may be lost since.
	if err := a.opts.Fetch(ctx, models.File{Digest: s.Candidate.Digest}, func(_, _ int64) {}); err != nil {
		return failed(err)
	}
	if a.opts.Room != nil {
		if err := a.opts.Room(s.Candidate.Files); err != nil {
			return failed(err)
		}
	}
	for _, f := range s.Candidate.Files {
		if err := a.opts.Fetch(ctx, f, progress); err != nil {
			return failed(err)
		}
		before += f.SizeBytes
	}
	return Event{Kind: EventFetched}
}

// probe lets the runner try the candidate. One at a time: two would disturb
// each other's measurements and could fill the memory.
func (a *Activator) probe(ctx context.Context, s State) Event {
	select {
	case a.probing <- struct{}{}:
		defer func() { <-a.probing }()
	case <-ctx.Done():
		return failed(ctx.Err())
	}
	ctx, cancel := context.WithTimeout(ctx, a.rules.ProbeLimit)
	defer cancel()
	st, err := a.opts.Runner.Status(ctx)
	if err != nil {
		return failed(err)
	}
	base, _ := statusOf(st, s.Current.Digest)
	p, err := a.opts.Runner.Probe(ctx, s.Candidate.Ref)
	if err != nil {
		return failed(err)
	}
	if p.OK && a.opts.Heat != nil {
		if err := a.opts.Heat(ctx, s.Candidate.Ref, &p); err != nil {
			a.log.Warn("what the variants of a model draw is not known", "model", s.Candidate.Ref, "err", err)
		}
	}
	return Event{Kind: EventProbed, Probe: p, Base: base}
}

// poll asks the runner now and then what it serves.
func (a *Activator) poll(ctx context.Context) {
	for {
		select {
		case a.events <- message{event: answer(ctx, a.opts.Runner.Status)}:
		case <-ctx.Done():
			return
		}
		if !sleep(ctx, a.opts.Poll) {
			return
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
