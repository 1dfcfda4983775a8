// Package update replaces the agent by a newer release, or keeps the old one.
//
// Vocabulary: a release is a signed document that names one program per
// platform (package firmware); a slot is one of the two places an agent lies in
// (package slot). An update goes fetching → staging → arming → restart by the
// launcher → probation → active. In probation the new agent has to stay up, be
// healthy and, if the old one had a connection, get one; else it goes back.
// Serving goes on throughout: the runner is another process.
//
// Two files are kept: launcher.json says what starts and is shared with the
// launcher; update.json (in Options.StateDir) remembers what was intended. When
// they differ after a crash, launcher.json is right.
//
// The one rule a caller can break: when Run returns ErrRestart the process must
// end, without calling CleanStop, so that the launcher can start the other slot.
package update

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/slot"
	"github.com/edgeherd/edgeherd/internal/trust"
)

// ErrRestart says that the process should exit: the launcher starts the agent
// that is due.
var ErrRestart = errors.New("restart into the other agent")

// Phase is one report to the controller. Phase is one of fetching, staging,
// waiting (Err says for what), restarting, probation, active, rolled_back,
// inconclusive (will be tried again), failed and refused (will not).
type Phase struct {
	Release blob.Digest
	// Version is empty until the release has been read.
	Version string
	Phase   string
	Err     string
}

// Options of New. Fields without a default are required.
type Options struct {
	// Slot and LauncherDir come from the environment that the launcher sets
	// (slot.EnvSlot, slot.EnvDir). While empty, updates are refused.
	Slot        slot.ID
	LauncherDir string
	// StateDir is the directory of update.json.
	StateDir string
	// Version is the version of the running agent.
	Version string
	// Keys say who may sign releases.
	Keys func() trust.Keyring
	// Allow is asked before a release is staged; nil allows all. An error that is
	// trust.ErrUntrusted ends it, others are tried again.
	Allow func(ctx context.Context, version string, release blob.Digest) error
	// Fetch returns a file with the content of a digest: first the envelope,
	// then the program. It has its own retries and resumes after a restart.
	Fetch func(context.Context, blob.Digest) (path string, err error)
	// Healthy returns nil if the agent can do its work: spool opened and
	// written. Default: always healthy.
	Healthy func() error
	// Report hands a phase to the controller; it must not block for long.
	// Default: phases are only logged.
	Report func(Phase)
	// ProbationMin is how long a new agent must be up before it is confirmed.
	// Default 3 minutes.
	ProbationMin time.Duration
	// ConfirmWindow is how long a new agent has to become healthy and
	// connected before it goes back. Default 10 minutes.
	ConfirmWindow time.Duration
	// WallClock stamps rollbacks. Default time.Now.
	WallClock func() time.Time
}

func (o Options) withDefaults() (Options, error) {
	if o.ProbationMin == 0 {
		o.ProbationMin = 3 * time.Minute
	}
	if o.ConfirmWindow == 0 {
		o.ConfirmWindow = 10 * time.Minute
	}
	if o.WallClock == nil {
		o.WallClock = time.Now
	}
	if o.Healthy == nil {
		o.Healthy = func() error { return nil }
	}
	if o.Report == nil {
		o.Report = func(Phase) {}
	}
	switch {
	case o.StateDir == "" || o.Fetch == nil:
		return o, errors.New("update needs StateDir and Fetch")
	case o.ProbationMin > o.ConfirmWindow:
		return o, fmt.Errorf("probation of %s does not fit into the confirm window of %s", o.ProbationMin, o.ConfirmWindow)
	case o.Slot != "" && (!o.Slot.Valid() || o.LauncherDir == ""):
		return o, fmt.Errorf("slot %q in launcher directory %q: start the agent by edgeherd-launcher, or without %s", o.Slot, o.LauncherDir, slot.EnvSlot)
	}
	return o, nil
}

// Status is what a status page shows.
type Status struct {
	Slot    slot.ID
	Version string
	Step    Step
	Desired blob.Digest
	// Release is the one under way; zero while Idle.
	Release blob.Digest
	Current blob.Digest
	// Last is the newest report.
	Last Phase
}

// Updater is the component. Its methods are safe for concurrent use.
type Updater struct {
	// Fixed after New.
	opts    Options
	rules   Rules
	log     *slog.Logger
	slots   slot.Store
	journal durable.Journal
	// free returns the bytes that a directory's file system has left.
	free func(dir string) (uint64, error)
	wake chan struct{}

	// mu guards what follows.
	mu        sync.Mutex
	desired   *blob.Digest // asked for and not yet seen by Run
	contact   time.Time    // newest authenticated round trip of this process
	status    Status
	connected bool
}

// New checks the options. It starts nothing and writes nothing.
func New(opts Options, log *slog.Logger) (*Updater, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Updater{
		opts: opts,
		rules: Rules{
			OS: runtime.GOOS, Arch: runtime.GOARCH, Version: opts.Version,
			ProbationMin: opts.ProbationMin, ConfirmWindow: opts.ConfirmWindow,
		},
		log:     log,
		slots:   slot.Store{Dir: opts.LauncherDir},
		journal: durable.Journal{Path: filepath.Join(opts.StateDir, "update.json"), Version: 1},
		free:    freeBytes,
		wake:    make(chan struct{}, 1),
		status:  Status{Slot: opts.Slot, Version: opts.Version},
	}, nil
}

// SetDesired says which release the controller wants; zero is none. Call it
// whenever the desired state arrives, also unchanged: it ends waits.
func (u *Updater) SetDesired(release blob.Digest) {
	u.mu.Lock()
	u.desired = &release
	u.mu.Unlock()
	u.poke()
}

// Connected says that the controller answered over an authenticated session.
// Call it at each WELCOME and each ACK: whether a new agent must get a
// connection depends on the last hour before the switch.
func (u *Updater) Connected() {
	u.mu.Lock()
	u.contact, u.connected = time.Now(), true
	u.mu.Unlock()
	u.poke()
}

func (u *Updater) poke() {
	select {
	case u.wake <- struct{}{}:
	default:
	}
}

// Status returns what is under way.
func (u *Updater) Status() Status {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.status
}

// CleanStop says that the process ends because it was asked to, so that this
// start counts neither as a try of a new agent nor as a crash. Call it last,
// after every component has ended without an error of its own.
func (u *Updater) CleanStop() error {
	if u.opts.Slot == "" {
		return nil
	}
	s, err := u.slots.Load()
	if err != nil {
		return fmt.Errorf("note clean stop: %w", err)
	}
	next := s.CleanStop(u.opts.Slot)
	if next.Trial == s.Trial && len(s.Backoff.Starts) == 0 {
		return nil
	}
	if err := u.slots.Save(next); err != nil {
		return fmt.Errorf("note clean stop: %w", err)
	}
	return nil
}
