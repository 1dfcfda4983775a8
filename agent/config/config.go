// Package config makes a box follow the settings that the fleet has for it, and
// go back by itself when it does not do well with them.
//
// Vocabulary: settings come as content in the signed desired state (packages
// boxconfig and wire). New ones are on trial: they count, and those of before
// are kept. They are kept for good when the runner has taken them up, its inputs
// work, and the controller was reached where they concern the way to it. Else
// those of before count again, and the documents that brought the change are
// reported as rolled back, with the reason. Settings of the agent need a new
// process: Run ends with ErrRestart.
//
//	STATE/config.json            journal: kept, on trial, given up
//	STATE/models/settings.json   what counts, for the runner (runnerapi.Settings)
//
// The journal is saved before anything is done; Open does again what a crash
// may have left undone.
//
// The one rule a caller can break: one Open a process, since it counts how often
// an agent began with settings on trial.
package config

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/edgeherd/edgeherd/internal/boxconfig"
	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// ErrRestart says that the process should exit, to begin again with other
// settings.
var ErrRestart = errors.New("restart with other settings")

// JournalVersion is that of config.json. History: 1 first.
const JournalVersion = 1

// lookEvery is how often settings on trial are looked at.
const lookEvery = 2 * time.Second

// Options of a Keeper. State is required.
type Options struct {
	State string
	// Settle is how long settings must do well; default 30 s. Confirm is how long
	// the runner and the controller may take to answer; default 5 min.
	Settle, Confirm time.Duration
	// Permit says what somebody on the box does not permit the fleet to set; nil:
	// everything is permitted. Settings that were followed before it said so are
	// followed no more.
	Permit func(boxconfig.Settings) error
	// OnSave, if set, runs after each write of the journal. Crash tests return an
	// error from it.
	OnSave func() error
}

// Parts are what Run works with; they are made with the settings that Open read.
type Parts struct {
	Runner *runnerapi.Client
	// Report stores the phase of a document; nil error: it will not be lost.
	Report func(Report) error
	// Connected reports whether the controller is there. Settings that concern the
	// way to it need a new process, so an answer to this one is one to them.
	Connected func() bool
	// Check says what this box has against settings; nil: nothing.
	Check func(boxconfig.Settings) error
	// Changed is called when Running has changed.
	Changed func()
}

// Keeper keeps the settings of a box.
type Keeper struct {
	opts    Options
	log     *slog.Logger
	journal durable.Journal
	poke    chan struct{}
	behind  bool // of Run: the runner's file says what counted before

	mu     sync.Mutex // guards all below
	state  State
	wanted *wire.DesiredConfig
	asked  bool      // wanted is new
	since  time.Time // the settings on trial count, in this process
	local  []string  // settings that agent.yaml has
	runner []string  // those that runner.yaml has
}

// Open reads the journal and brings the runner's file up to it. A journal that
// cannot be read is left: the settings come again with the desired state, and an
// agent that does not start could never be told.
func Open(opts Options, log *slog.Logger) (*Keeper, error) {
	if opts.Settle <= 0 {
		opts.Settle = 30 * time.Second
	}
	if opts.Confirm <= 0 {
		opts.Confirm = 5 * time.Minute
	}
	k := &Keeper{opts: opts, log: log, poke: make(chan struct{}, 1), since: time.Now()}
	k.journal = durable.Journal{Path: filepath.Join(opts.State, "config.json"), Version: JournalVersion}
	if _, err := k.journal.Load(&k.state); err != nil {
		log.Error("settings of the fleet are not known until they come again", "err", err)
		k.state = State{}
	}
	next, a := Next(k.state, Event{Started: true})
	if next.Trial != k.state.Trial {
		if err := errors.Join(k.save(next)); err != nil {
			return nil, fmt.Errorf("note a start with settings on trial: %w", err)
		}
	}
	k.state = next
	if a.Apply {
		log.Warn("settings of before count again")
	}
	return k, k.writeRunner()
}

// Settings are those of the fleet that count.
func (k *Keeper) Settings() boxconfig.Settings {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, s, err := k.current()
	if err != nil {
		k.log.Error("settings of the fleet are not followed", "err", err)
	}
	return s
}

// current is what counts: nothing, where somebody on the box does not permit it
// any more.
func (k *Keeper) current() (*wire.DesiredConfig, boxconfig.Settings, error) {
	c := k.state.Current()
	if c == nil {
		return nil, boxconfig.Settings{}, nil
	}
	s, err := boxconfig.Parse(c.Content)
	if err == nil && k.opts.Permit != nil {
		err = k.opts.Permit(s)
	}
	if err != nil {
		return nil, boxconfig.Settings{}, err
	}
	return c, s, nil
}

// SetLocal says which settings files on the box have.
func (k *Keeper) SetLocal(local []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.local = local
}

// SetRunnerLocal says which settings the runner's file has, and reports whether
// that is news.
func (k *Keeper) SetRunnerLocal(local []string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	news := !slices.Equal(k.runner, local)
	k.runner = slices.Clone(local)
	return news
}

// Running is what the box tells of its settings; nil: nothing is to be told.
func (k *Keeper) Running() *wire.RunningConfig {
	k.mu.Lock()
	defer k.mu.Unlock()
	c, _, _ := k.current() // Settings has told why not
	local := append(slices.Clone(k.local), k.runner...)
	local = local[:min(len(local), wire.MaxLocalSettings)]
	if c == nil && len(local) == 0 {
		return nil
	}
	out := &wire.RunningConfig{Documents: []wire.RunningModel{}, Local: local}
	if c != nil {
		out.Digest = c.Digest.String()
		for _, d := range c.Documents {
			if d.Fault == "" {
				out.Documents = append(out.Documents, wire.RunningModel{Name: d.Name, Version: d.Version, Digest: d.Digest.String()})
			}
		}
	}
	return out
}

// Want says what the desired state has; Run follows it.
func (k *Keeper) Want(c *wire.DesiredConfig) {
	k.mu.Lock()
	k.wanted, k.asked = c, true
	k.mu.Unlock()
	select {
	case k.poke <- struct{}{}:
	default:
	}
}

// Run follows what is wanted until ctx is done, or returns ErrRestart.
func (k *Keeper) Run(ctx context.Context, p Parts) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	if err := k.settle(p); err != nil { // what a crash left undone
		return err
	}
	for {
		if err := k.turn(ctx, p); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-k.poke:
		case <-tick.C:
		}
	}
}

// turn takes what is new and looks at settings on trial.
func (k *Keeper) turn(ctx context.Context, p Parts) error {
	if k.behind {
		k.catchUp()
	}
	k.mu.Lock()
	asked, wanted := k.asked, k.wanted
	k.asked = false
	k.mu.Unlock()
	if asked {
		before := map[string]string{}
		if s, ok := status(ctx, p.Runner); ok {
			for _, in := range s.Inputs {
				before[in.Name] = in.Err
			}
		}
		if err := k.step(p, Event{Want: &Wanted{wanted, k.check(p), before}}); err != nil {
			return err
		}
	}
	k.mu.Lock()
	trial, due := k.state.Trial != nil, len(k.state.Due) > 0
	k.mu.Unlock()
	if due {
		if err := k.settle(p); err != nil {
			return err
		}
	}
	if !trial {
		return nil
	}
	return k.step(p, Event{Look: k.look(ctx, p)})
}

// check is what the box has against settings, and whoever is on it.
func (k *Keeper) check(p Parts) func(boxconfig.Settings) error {
	return func(s boxconfig.Settings) error {
		if k.opts.Permit != nil {
			if err := k.opts.Permit(s); err != nil {
				return err
			}
		}
		if p.Check == nil {
			return nil
		}
		return p.Check(s)
	}
}

// look asks the runner how it is.
func (k *Keeper) look(ctx context.Context, p Parts) *Look {
	l := &Look{For: time.Since(k.since), Connected: p.Connected(), Settle: k.opts.Settle, Confirm: k.opts.Confirm, Inputs: map[string]string{}}
	if s, ok := status(ctx, p.Runner); ok && s.Settings != nil {
		l.Runner, l.RunnerErr = s.Settings.Digest, s.Settings.Err
		for _, in := range s.Inputs {
			l.Inputs[in.Name] = in.Err
		}
	}
	return l
}

func status(ctx context.Context, r *runnerapi.Client) (runnerapi.Status, bool) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	s, err := r.Status(ctx)
	return s, err == nil
}

// step decides, saves, then acts. Everything it does may be done again.
func (k *Keeper) step(p Parts, e Event) error {
	k.mu.Lock()
	was := k.state
	k.mu.Unlock()
	next, a := Next(was, e)
	if !a.Apply && !a.Restart && next.Trial == was.Trial && next.Kept == was.Kept && len(next.Due) == len(was.Due) {
		return nil
	}
	full, err := k.save(next)
	if err != nil {
		return err
	}
	if full != nil { // the disk takes no writes: nothing has happened, ask again
		k.log.Warn("settings are not taken up yet", "err", full)
		k.mu.Lock()
		k.asked = k.asked || e.Want != nil
		k.mu.Unlock()
		return nil
	}
	k.mu.Lock()
	k.state = next
	if a.Apply {
		k.since = time.Now()
	}
	k.mu.Unlock()
	for _, r := range next.Due[min(len(was.Due), len(next.Due)):] {
		k.log.Info("settings "+r.Phase, "document", r.Document.Name, "version", r.Document.Version, "err", r.Err)
	}
	if a.Apply {
		k.behind = true
		k.catchUp()
	}
	if err := k.settle(p); err != nil {
		return err
	}
	p.Changed()
	if a.Restart {
		return ErrRestart
	}
	return nil
}

// catchUp brings the runner's file up to the journal.
func (k *Keeper) catchUp() {
	if err := k.writeRunner(); err != nil {
		k.log.Warn("the runner is told of settings later", "err", err)
		return
	}
	k.behind = false
}

// save writes the journal. full says that it was not written, err that the
// program shall end at this point.
func (k *Keeper) save(s State) (full, err error) {
	if full = k.journal.Save(s); full == nil && k.opts.OnSave != nil {
		err = k.opts.OnSave()
	}
	return full, err
}

// settle stores reports that are due. What cannot be stored is tried again.
func (k *Keeper) settle(p Parts) error {
	k.mu.Lock()
	next := k.state
	k.mu.Unlock()
	due := len(next.Due)
	for len(next.Due) > 0 {
		if err := p.Report(next.Due[0]); err != nil {
			k.log.Debug("report on settings not stored yet", "err", err)
			break
		}
		next.Due = next.Due[1:]
	}
	if len(next.Due) == due {
		return nil
	}
	full, err := k.save(next)
	if full != nil {
		k.log.Debug("reports on settings come again after a restart", "err", full)
	}
	k.mu.Lock()
	k.state = next
	k.mu.Unlock()
	return err
}

// writeRunner makes the runner's file say what counts. It is written only when
// it says something else: flash wears.
func (k *Keeper) writeRunner() error {
	c, s, _ := k.current() // the same
	j := durable.Journal{Path: filepath.Join(k.opts.State, "models", "settings.json"), Version: runnerapi.SettingsVersion}
	next := runnerapi.Settings{Content: json.RawMessage("{}")}
	if c != nil {
		next.Digest = c.Digest.String()
		var err error
		if next.Content, err = s.Runner(); err != nil {
			return fmt.Errorf("write settings for the runner: %w", err)
		}
	}
	var have runnerapi.Settings
	found, err := j.Load(&have)
	if err == nil && (found && have.Digest == next.Digest || !found && c == nil) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(j.Path), 0o755); err != nil {
		return fmt.Errorf("write settings for the runner: %w", err)
	}
	return j.Save(next)
}
