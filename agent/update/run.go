package update

import (
	"context"
	"errors"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/slot"
)

// contactWindow is how recent a round trip must be for a new agent to need one.
const contactWindow = time.Hour

// session is what one Run owns; only its goroutine touches it.
type session struct {
	*Updater
	state State
	saved State
	since time.Time
	// held are events whose outcome could not be saved; the next tick repeats them.
	held    []Event
	restart bool
	// work is the running Fetch or Stage; nil if none.
	work *work
}

// work is one goroutine; outcome has room for its one event, so it always ends.
type work struct {
	cancel  context.CancelFunc
	outcome chan Event
}

// Run works towards the desired release until ctx ends (nil) or the process
// has to be restarted (ErrRestart).
func (u *Updater) Run(ctx context.Context) error {
	if u.opts.Slot == "" {
		return u.runWithoutLauncher(ctx)
	}
	s := &session{Updater: u, since: time.Now()}
	defer s.stopWork()
	if _, err := u.journal.Load(&s.state); err != nil {
		// What boots is in launcher.json; only the intention is lost.
		u.log.Warn("update journal unreadable, starting afresh", "err", err)
		s.state = State{}
	}
	s.saved = s.state
	slots, err := u.slots.Load()
	if err != nil {
		u.log.Warn("launcher state unreadable", "err", err)
	}
	s.handle(ctx, Started{Running: u.opts.Slot, Slots: slots})
	return s.loop(ctx)
}

func (s *session) loop(ctx context.Context) error {
	for {
		if ctx.Err() != nil {
			return nil
		}
		if s.restart {
			return ErrRestart
		}
		var tick <-chan time.Time
		if s.state.Step != Idle || len(s.held) > 0 {
			tick = time.After(min(5*time.Second, s.opts.ProbationMin/4))
		}
		var outcome chan Event
		if s.work != nil {
			outcome = s.work.outcome
		}
		select {
		case <-ctx.Done():
		case e := <-outcome:
			s.work.cancel()
			s.work = nil
			s.handle(ctx, e)
		case <-tick:
			s.look(ctx)
		case <-s.wake:
			s.look(ctx)
		}
	}
}

// look repeats held events, takes a new wish and looks at the clock.
func (s *session) look(ctx context.Context) {
	held := s.held
	s.held = nil
	for _, e := range held {
		s.handle(ctx, e)
	}
	s.mu.Lock()
	wish, connected := s.desired, s.connected
	s.desired = nil
	if wish != nil && *wish != s.state.Desired {
		// A new wish is news from the controller, however it got here.
		s.contact = time.Now()
	}
	s.mu.Unlock()
	if wish != nil {
		s.handle(ctx, Desired{*wish})
	}
	tick := Tick{Uptime: time.Since(s.since), Connected: connected}
	if s.state.Step == Probation {
		if err := s.opts.Healthy(); err != nil {
			tick.Unhealthy = err.Error()
		}
	}
	s.handle(ctx, tick)
}

// handle is load, Next, save, act.
func (s *session) handle(ctx context.Context, e Event) {
	next, actions := s.rules.Next(s.state, e, time.Now())
	// What changes nothing needs no journal, even if an older change waits for it.
	if err := s.save(next); err != nil && next.kept() != s.state.kept() {
		s.log.Warn("update journal not saved", "err", err)
		switch e.(type) {
		case Started, Confirmed:
			// launcher.json says the same already: go on without the journal.
		case Tick:
			return // another one comes
		default:
			s.held = append(s.held, e)
			return
		}
	}
	s.state = next
	s.mu.Lock()
	s.status.Step, s.status.Desired, s.status.Release, s.status.Current = next.Step, next.Desired, next.Job.Release, next.Current
	s.mu.Unlock()
	for _, a := range actions {
		if ctx.Err() != nil {
			return
		}
		s.act(ctx, a)
	}
}

func (s *session) save(next State) error {
	next = next.kept()
	if next == s.saved {
		return nil
	}
	if err := s.journal.Save(next); err != nil {
		return err
	}
	s.saved = next
	return nil
}

func (s *session) act(ctx context.Context, a Action) {
	switch a := a.(type) {
	case Fetch:
		s.start(ctx, func(ctx context.Context) Event { return s.open(ctx, a.Release) })
	case Stage:
		s.start(ctx, func(ctx context.Context) Event { return s.stage(ctx, a.Job) })
	case Cancel:
		s.stopWork()
	case Arm:
		s.handle(ctx, s.arm(a.Job))
	case Confirm:
		if err := s.confirm(); err != nil {
			s.log.Warn("confirmation not saved, will repeat", "err", err)
			return
		}
		s.log.Info("new agent confirmed", "version", s.opts.Version)
		s.handle(ctx, Confirmed{})
	case RollBack:
		s.log.Warn("going back to the old agent", "reason", a.Reason)
		err := s.change(func(st slot.State) slot.State { return st.RollBack(a.Reason, s.opts.WallClock()) })
		if err != nil {
			// The launcher will not start a trial that it cannot count either.
			s.log.Warn("rollback not saved", "err", err)
		}
		s.handle(ctx, RolledBack{})
	case Blame:
		if err := s.change(func(st slot.State) slot.State { return st.Fail(a.Program) }); err != nil {
			s.log.Warn("failed program not remembered, will repeat", "err", err)
			return
		}
		s.handle(ctx, Blamed{})
	case Restart:
		s.restart = true
	case Tell:
		s.tellPhase(a.Phase)
	}
}

func (u *Updater) tellPhase(p Phase) {
	u.mu.Lock()
	u.status.Last = p
	u.mu.Unlock()
	u.log.Info("update", "phase", p.Phase, "digest", p.Release, "version", p.Version, "err", p.Err)
	u.opts.Report(p)
}

// change loads, changes and saves the launcher's state.
func (u *Updater) change(f func(slot.State) slot.State) error {
	s, err := u.slots.Load()
	if err != nil {
		return err
	}
	return u.slots.Save(f(s))
}

var errNotOnTrial = errors.New("this agent is neither good nor on trial in the launcher's state")

func (u *Updater) confirm() error {
	s, err := u.slots.Load()
	switch {
	case err != nil:
		return err
	case s.Trial.Slot == u.opts.Slot:
		return u.slots.Save(s.Confirm())
	case s.Good != u.opts.Slot:
		return errNotOnTrial
	}
	return nil
}

// start runs f as the one piece of work.
func (s *session) start(ctx context.Context, f func(context.Context) Event) {
	s.stopWork()
	ctx, cancel := context.WithCancel(ctx)
	w := &work{cancel: cancel, outcome: make(chan Event, 1)}
	s.work = w
	go func() { w.outcome <- f(ctx) }()
}

// stopWork ends the work and waits for it: two writers in one slot would mix.
func (s *session) stopWork() {
	if s.work != nil {
		s.work.cancel()
		<-s.work.outcome
		s.work = nil
	}
}

// runWithoutLauncher refuses what it cannot do.
func (u *Updater) runWithoutLauncher(ctx context.Context) error {
	var last blob.Digest
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-u.wake:
		}
		u.mu.Lock()
		wish := u.desired
		u.desired = nil
		u.mu.Unlock()
		if wish == nil || *wish == last {
			continue
		}
		if last = *wish; !last.IsZero() {
			u.tellPhase(Phase{Release: last, Phase: "refused", Err: "the agent was not started by edgeherd-launcher"})
		}
	}
}
