package update

import (
	"fmt"
	"time"

	"github.com/edgeherd/edgeherd/firmware"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/slot"
)

// Step is how far an update is.
type Step string

// The steps, in order; Idle is the zero Step.
const (
	Idle Step = ""
	// Fetching gets and checks the signed release.
	Fetching Step = "fetching"
	// Staging gets the program and puts it into the other slot.
	Staging Step = "staging"
	// Arming writes the trial into the launcher's state and asks for a restart.
	Arming Step = "arming"
	// Probation: this process is the new agent and has yet to prove itself.
	Probation Step = "probation"
	// Judging: this process is the old agent again, because the new one had no
	// connection. If this one gets none either, nobody is to blame.
	Judging Step = "judging"
)

// State is what update.json holds.
type State struct {
	Step Step `json:"step"`
	// Job is zero while Idle.
	Job Job `json:"job,omitzero"`
	// Desired is what the controller asked for last; zero is nothing.
	Desired blob.Digest `json:"desired"`
	// Current is the release that was confirmed last; zero if none was.
	Current blob.Digest `json:"current"`
	// Program is that of Current.
	Program blob.Digest `json:"program"`
	// Counter is the floor: releases up to it are refused.
	Counter uint64 `json:"counter"`
	// Refused is the last release that will not be tried again by this process.
	Refused blob.Digest `json:"refused"`
	// Unjudged is the release whose trials ended without a verdict.
	Unjudged Unjudged `json:"unjudged,omitzero"`
	// RetryAt and Attempts are for Fetching, Staging and Arming after a failure
	// that may pass. They are not saved: a restart tries at once.
	RetryAt  time.Time `json:"-"`
	Attempts int       `json:"-"`
	// Astray says that Current is not what runs: its slot was damaged and the
	// launcher fell back. Not saved either: each start looks again.
	Astray bool `json:"-"`
}

// kept is the part of the state that is saved.
func (s State) kept() State {
	s.RetryAt, s.Attempts, s.Astray = time.Time{}, 0, false
	return s
}

// Job is one update under way.
type Job struct {
	Release blob.Digest `json:"release"`
	// The rest is known from Staging on.
	Version   string      `json:"version"`
	Counter   uint64      `json:"counter"`
	Program   blob.Digest `json:"program"`
	SizeBytes int64       `json:"size_bytes"`
	Slot      slot.ID     `json:"slot"`
	// Gen is the generation of the launcher's state that the job started from;
	// an older rollback there belongs to an earlier trial.
	Gen uint64 `json:"gen"`
	// WasConnected, from Arming on: the old agent had a connection within the
	// hour before the switch, so the new one must get one too.
	WasConnected bool `json:"was_connected"`
}

// Unjudged counts trials of one release that proved nothing.
type Unjudged struct {
	Release blob.Digest `json:"release"`
	Trials  int         `json:"trials"`
}

// maxUnjudged is how many trials without a verdict a release gets.
const maxUnjudged = 3

// Waits after a failure that may pass: doubled from the first to the longest.
const (
	firstRetry   = time.Minute
	longestRetry = time.Hour
	// uncountedRetry is how long a trial waits that the launcher could not
	// count; each retry restarts the agent.
	uncountedRetry = 10 * time.Minute
)

// Event is what happened. The types below are the events.
type Event interface{ event() }

type (
	// Started is the first event of a process.
	Started struct {
		Running slot.ID
		Slots   slot.State
	}
	// Desired is the release that the controller wants; zero is none.
	Desired struct{ Release blob.Digest }
	// Opened brings the release that Fetch asked for, its signature checked.
	Opened struct {
		Release firmware.Release
		Running slot.ID
		Slots   slot.State
	}
	// Staged: the program lies in the other slot.
	Staged struct{ WasConnected bool }
	// Armed: the launcher's state names the trial.
	Armed struct{}
	// WorkFailed ends Fetch, Stage or Arm. Final failures are not repeated.
	WorkFailed struct {
		Err   string
		Final bool
	}
	// Tick comes every few seconds while not Idle, and after each connection.
	Tick struct {
		Uptime time.Duration
		// Connected says that this process had an authenticated round trip.
		Connected bool
		// Unhealthy is empty or names the fault; asked for in Probation only.
		Unhealthy string
	}
	// Confirmed: the launcher's state names this process's slot as good.
	Confirmed struct{}
	// RolledBack: the launcher's state names the old slot, or cannot be saved.
	RolledBack struct{}
	// Blamed: the launcher's state remembers the program of the job as failed.
	Blamed struct{}
)

func (Started) event()    {}
func (Desired) event()    {}
func (Opened) event()     {}
func (Staged) event()     {}
func (Armed) event()      {}
func (WorkFailed) event() {}
func (Tick) event()       {}
func (Confirmed) event()  {}
func (RolledBack) event() {}
func (Blamed) event()     {}

// Action is what to do. The types below are the actions; all may be repeated.
type Action interface{ action() }

type (
	// Fetch gets and opens a release: Opened or WorkFailed. Work before ends.
	Fetch struct{ Release blob.Digest }
	// Stage fills the other slot: Staged or WorkFailed. Work before ends.
	Stage struct{ Job Job }
	// Cancel ends Fetch or Stage.
	Cancel struct{}
	// Arm writes the trial: Armed or WorkFailed.
	Arm struct{ Job Job }
	// Confirm makes the running slot good: Confirmed, or nothing if it cannot
	// be saved.
	Confirm struct{}
	// RollBack ends the trial: RolledBack.
	RollBack struct{ Reason slot.Reason }
	// Blame remembers a program as failed: Blamed, or nothing if it cannot be
	// saved.
	Blame struct{ Program blob.Digest }
	// Restart ends the process, so that the launcher picks again.
	Restart struct{}
	// Tell reports a phase to the controller.
	Tell struct{ Phase Phase }
)

func (Fetch) action()    {}
func (Stage) action()    {}
func (Cancel) action()   {}
func (Arm) action()      {}
func (Confirm) action()  {}
func (RollBack) action() {}
func (Blame) action()    {}
func (Restart) action()  {}
func (Tell) action()     {}

// Rules are the constants of Next.
type Rules struct {
	// OS and Arch choose the build; Version is that of the running agent.
	OS, Arch, Version string
	ProbationMin      time.Duration
	ConfirmWindow     time.Duration
}

// Next is the state machine: pure, total, and safe to repeat after a crash.
func (r Rules) Next(s State, e Event, now time.Time) (State, []Action) {
	switch e := e.(type) {
	case Started:
		return started(s, e, now)
	case Desired:
		return desired(s, e.Release)
	case Opened:
		if s.Step == Fetching {
			return r.opened(s, e, now)
		}
	case Staged:
		if s.Step == Staging {
			s.Step, s.Job.WasConnected, s.Attempts = Arming, e.WasConnected, 0
			return s, []Action{Arm{s.Job}}
		}
	case Armed:
		if s.Step == Arming {
			return s, []Action{s.tell("restarting", ""), Restart{}}
		}
	case WorkFailed:
		if s.Step == Fetching || s.Step == Staging || s.Step == Arming {
			return workFailed(s, e, now)
		}
	case Tick:
		return r.tick(s, e, now)
	case Confirmed:
		if s.Step == Probation {
			return finish(s)
		}
	case RolledBack:
		if s.Step == Probation {
			return s, []Action{Restart{}}
		}
	case Blamed:
		if s.Step == Judging {
			return refuse(s, "failed", "the new agent got no connection, the old one did")
		}
	}
	return s, nil
}

func (s State) tell(phase, err string) Action {
	return Tell{Phase{Release: s.Job.Release, Version: s.Job.Version, Phase: phase, Err: err}}
}

// started compares what the launcher did with what was under way.
func started(s State, e Started, now time.Time) (State, []Action) {
	s.RetryAt, s.Attempts, s.Refused = time.Time{}, 0, blob.Digest{}
	s.Astray = !s.Current.IsZero() && e.Slots.Sum.Of(e.Running) != s.Program
	if t := e.Slots.Trial; t.Slot != "" {
		if program := e.Slots.Sum.Of(t.Slot); s.Job.Program != program {
			// The journal was lost; the launcher's state is what counts.
			s.Job = Job{Program: program, Slot: t.Slot}
		}
		if t.Slot == e.Running {
			s.Step = Probation
			return s, []Action{s.tell("probation", "")}
		}
		s.Step, s.RetryAt = Arming, now.Add(uncountedRetry)
		return s, []Action{s.tell("waiting", "the launcher could not write down the start of the new agent: make space on the disk")}
	}
	switch s.Step {
	case Arming, Probation:
		return trialOver(s, e)
	case Judging:
		return s, nil
	}
	return begin(s)
}

// trialOver: there was a trial, or nearly, and there is none now.
func trialOver(s State, e Started) (State, []Action) {
	last := e.Slots.LastRollback
	ours := last.Digest == s.Job.Program && last.Gen >= s.Job.Gen
	switch {
	case e.Slots.Good == e.Running && e.Slots.Sum.Of(e.Running) == s.Job.Program:
		return finish(s)
	case !ours && s.Step == Arming:
		// Crashed before the trial was written down: repeat, the file is there.
		s.Step = Staging
		return s, []Action{Stage{s.Job}}
	case !ours:
		return begin(s)
	case last.Reason == slot.Unconnected:
		s.Step = Judging
		return s, []Action{s.tell("rolled_back", "the new agent got no connection")}
	case last.Reason == slot.Damaged:
		return unjudged(s, "the new agent was damaged on disk")
	}
	return refuse(s, "failed", fmt.Sprintf("rolled back: %s", last.Reason))
}

// begin starts towards Desired, from the beginning.
func begin(s State) (State, []Action) {
	s.Step, s.Job, s.RetryAt, s.Attempts = Idle, Job{}, time.Time{}, 0
	d := s.Desired
	if d.IsZero() {
		return s, nil
	}
	s.Job.Release = d
	switch {
	case d == s.Current && !s.Astray:
		tell := s.tell("active", "")
		s.Job = Job{}
		return s, []Action{tell}
	case d == s.Refused:
		tell := s.tell("refused", "refused before, see the earlier report")
		s.Job = Job{}
		return s, []Action{tell}
	case s.Unjudged.Release == d && s.Unjudged.Trials >= maxUnjudged:
		return refuse(s, "refused", fmt.Sprintf("%d trials ended without a verdict", s.Unjudged.Trials))
	}
	s.Step = Fetching
	return s, []Action{s.tell("fetching", ""), Fetch{d}}
}

func desired(s State, d blob.Digest) (State, []Action) {
	same := d == s.Desired
	s.Desired = d
	switch s.Step {
	case Arming, Probation:
		// Finish first; finish and trialOver look at Desired again.
		return s, nil
	case Judging:
		if d == s.Job.Release {
			return s, nil
		}
	case Fetching, Staging:
		if d != s.Job.Release {
			s, actions := begin(s)
			return s, append([]Action{Cancel{}}, actions...)
		}
		if s.RetryAt.IsZero() {
			return s, nil
		}
		return retry(s)
	case Idle:
		if same && (d == s.Current && !s.Astray || d == s.Refused) {
			return s, nil
		}
	}
	return begin(s)
}

func (r Rules) opened(s State, e Opened, now time.Time) (State, []Action) {
	rel := e.Release
	s.Job.Version, s.Job.Counter = rel.Version, rel.Counter
	build, ok := rel.For(r.OS, r.Arch)
	switch {
	case !ok:
		return refuse(s, "refused", fmt.Sprintf("the release has no build for %s/%s", r.OS, r.Arch))
	case rel.Counter <= s.Counter && s.Job.Release != s.Current:
		return refuse(s, "refused", fmt.Sprintf("counter %d is not above %d, which this box has confirmed", rel.Counter, s.Counter))
	case e.Slots.HasFailed(build.Digest):
		return refuse(s, "refused", "this program was rolled back on this box before")
	case rel.MinAgent != "" && firmware.CompareVersions(r.Version, rel.MinAgent) < 0:
		return refuse(s, "refused", fmt.Sprintf("needs agent %s or newer, this is %q: update to that first", rel.MinAgent, r.Version))
	case e.Slots.Good != e.Running || e.Slots.Trial.Slot != "":
		return workFailed(s, WorkFailed{Err: "the running agent is not the good one of the launcher's state"}, now)
	case build.Digest == e.Slots.Sum.Of(e.Running):
		s.Job.Program = build.Digest
		return finish(s)
	}
	s.Job.Program, s.Job.SizeBytes, s.Job.Slot = build.Digest, build.SizeBytes, e.Running.Other()
	s.Job.Gen = e.Slots.Gen
	s.Step, s.Attempts = Staging, 0
	return s, []Action{s.tell("staging", ""), Stage{s.Job}}
}

func workFailed(s State, e WorkFailed, now time.Time) (State, []Action) {
	if e.Final {
		return refuse(s, "refused", e.Err)
	}
	s.RetryAt = now.Add(min(firstRetry<<min(s.Attempts, 10), longestRetry))
	s.Attempts++
	return s, []Action{s.tell("waiting", e.Err)}
}

func retry(s State) (State, []Action) {
	s.RetryAt = time.Time{}
	switch s.Step {
	case Fetching:
		return s, []Action{Fetch{s.Job.Release}}
	case Staging:
		return s, []Action{Stage{s.Job}}
	}
	return s, []Action{Arm{s.Job}}
}

func (r Rules) tick(s State, e Tick, now time.Time) (State, []Action) {
	switch s.Step {
	case Fetching, Staging, Arming:
		if !s.RetryAt.IsZero() && !now.Before(s.RetryAt) {
			return retry(s)
		}
	case Probation:
		unconnected := s.Job.WasConnected && !e.Connected
		switch {
		case e.Uptime >= r.ProbationMin && e.Unhealthy == "" && !unconnected:
			// Also after the window, for a state that could not be saved before.
			return s, []Action{Confirm{}}
		case e.Uptime < r.ConfirmWindow:
			return s, nil
		case e.Unhealthy != "":
			return s, []Action{RollBack{slot.Unhealthy}}
		case unconnected:
			return s, []Action{RollBack{slot.Unconnected}}
		}
	case Judging:
		if e.Connected {
			return s, []Action{Blame{s.Job.Program}}
		}
		if e.Uptime >= r.ConfirmWindow {
			return unjudged(s, "neither the new agent nor the old one got a connection")
		}
	}
	return s, nil
}

// finish: the release of the job runs and has proved itself.
func finish(s State) (State, []Action) {
	tell := s.tell("active", "")
	if !s.Job.Release.IsZero() {
		s.Current, s.Program, s.Counter = s.Job.Release, s.Job.Program, max(s.Counter, s.Job.Counter)
		s.Astray = false
	}
	s.Unjudged = Unjudged{}
	if s.Desired == s.Current && !s.Astray {
		s.Step, s.Job, s.Attempts = Idle, Job{}, 0
		return s, []Action{tell}
	}
	s, actions := begin(s)
	return s, append([]Action{tell}, actions...)
}

// refuse gives up the job for good.
func refuse(s State, phase, err string) (State, []Action) {
	tell := s.tell(phase, err)
	s.Refused = s.Job.Release
	if s.Desired != s.Refused {
		s, actions := begin(s)
		return s, append([]Action{tell}, actions...)
	}
	s.Step, s.Job, s.RetryAt, s.Attempts = Idle, Job{}, time.Time{}, 0
	return s, []Action{tell}
}

// unjudged gives up this trial; the next Desired tries again, a few times.
func unjudged(s State, err string) (State, []Action) {
	tell := s.tell("inconclusive", err)
	if s.Unjudged.Release != s.Job.Release {
		s.Unjudged = Unjudged{Release: s.Job.Release}
	}
	s.Unjudged.Trials++
	s.Step, s.Job = Idle, Job{}
	return s, []Action{tell}
}
