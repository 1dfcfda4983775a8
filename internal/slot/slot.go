// Package slot keeps two copies of the agent on a box and decides which starts.
//
// Vocabulary: a slot (a or b) holds one agent program. The good slot holds the
// agent that has proved itself on this box. A trial is a new agent in the other
// slot with a bounded number of tries (starts); it becomes good when it confirms
// itself, else the launcher goes back. Files below the launcher's directory:
//
//	launcher.json        State as JSON and a line with its SHA-256
//	slots/{a,b}/agent    the programs, mode 0755
//	slots/{a,b}/.agent.new  a program on its way in; ignored and overwritten
//
// The launcher belongs to the operating system's packages and is never updated
// with the agent, so this format outlives every agent: fields may be added and
// are ignored by older launchers, but none may change its meaning.
//
// The one rule a caller can break: never write into the slot that is good or
// running; Seal a program in the other slot, then Arm a trial of it.
package slot

import (
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
)

// ID names a slot. The empty ID means "none".
type ID string

// The two slots.
const (
	A ID = "a"
	B ID = "b"
)

// Valid reports whether id names a slot.
func (id ID) Valid() bool { return id == A || id == B }

// Other returns the opposite slot.
func (id ID) Other() ID {
	if id == A {
		return B
	}
	return A
}

// Pair holds one value per slot.
type Pair[T any] struct {
	A T `json:"a,omitzero"`
	B T `json:"b,omitzero"`
}

// Of returns the value of a slot.
func (p Pair[T]) Of(id ID) T {
	if id == A {
		return p.A
	}
	return p.B
}

// With returns the pair with the value of one slot replaced.
func (p Pair[T]) With(id ID, v T) Pair[T] {
	if id == A {
		p.A = v
	} else {
		p.B = v
	}
	return p
}

// FormatVersion is the shape of State. It stays 1: see the package comment.
const FormatVersion = 1

// State is what launcher.json holds.
type State struct {
	V int `json:"v"`
	// Gen counts saves.
	Gen  uint64 `json:"gen"`
	Good ID     `json:"good"`
	// Trial has an empty Slot when nothing is on trial.
	Trial Trial `json:"trial,omitzero"`
	// Sum is what was put into each slot; zero for a slot never filled.
	Sum Pair[blob.Digest] `json:"sum"`
	// Failed lists programs that were rolled back for a fault of their own,
	// oldest first. They are not tried again.
	Failed       []Failure `json:"failed,omitempty"`
	LastRollback Rollback  `json:"last_rollback,omitzero"`
	Backoff      Backoff   `json:"backoff,omitzero"`
}

// Trial is a new agent that has not confirmed itself.
type Trial struct {
	Slot ID `json:"slot"`
	// Tries counts starts, bumped on disk before each.
	Tries int `json:"tries"`
	Max   int `json:"max"`
}

// Failure is a program that must not be tried again.
type Failure struct {
	Digest blob.Digest `json:"digest"`
	Count  int         `json:"count"`
}

// Rollback says what was left for the good slot, and why.
type Rollback struct {
	Slot   ID          `json:"slot"`
	Digest blob.Digest `json:"digest"`
	Reason Reason      `json:"reason"`
	// Gen is the generation that was left: it orders this rollback with what
	// else was done to the state, which At cannot while the clock is wrong.
	Gen uint64    `json:"gen"`
	At  time.Time `json:"at"`
}

// Reason says why a slot was left.
type Reason string

// Reasons. Tries, Unhealthy and Unconnected end a trial by the program's own
// behaviour; Damaged means that the slot no longer holds what was put there.
const (
	Tries       Reason = "tries"
	Unhealthy   Reason = "unhealthy"
	Unconnected Reason = "unconnected"
	Damaged     Reason = "damaged"
)

// DefaultTries is how often a new agent may start before it must be confirmed.
// One start is enough for a good one; the others forgive power cuts.
const DefaultTries = 3

// maxTries bounds Trial.Max in a file that was written by something else.
const maxTries = 100

// maxFailures bounds State.Failed; the oldest leave first.
const maxFailures = 32

// HasFailed reports whether a program was rolled back before.
func (s State) HasFailed(program blob.Digest) bool {
	return slices.ContainsFunc(s.Failed, func(f Failure) bool { return f.Digest == program })
}

// Arm puts the program in slot id on trial. Arming what is on trial already
// changes nothing, so a repeated Arm does not give it new tries.
func (s State) Arm(id ID, program blob.Digest) State {
	if s.Trial.Slot == id && s.Sum.Of(id) == program {
		return s
	}
	s.Sum = s.Sum.With(id, program)
	s.Trial = Trial{Slot: id, Max: DefaultTries}
	return s
}

// Confirm makes the slot on trial the good one.
func (s State) Confirm() State {
	if s.Trial.Slot != "" {
		s.Good, s.Trial = s.Trial.Slot, Trial{}
	}
	return s
}

// RollBack ends the trial. Reasons Tries and Unhealthy are the program's own
// fault: it is remembered as failed. Unconnected is judged by the agent that
// runs next, which knows whether the network was there.
func (s State) RollBack(why Reason, now time.Time) State {
	t := s.Trial
	if t.Slot == "" {
		return s
	}
	program := s.Sum.Of(t.Slot)
	s.Trial = Trial{}
	s = s.left(t.Slot, why, now)
	if why == Tries || why == Unhealthy {
		s = s.Fail(program)
	}
	return s
}

func (s State) left(id ID, why Reason, now time.Time) State {
	s.LastRollback = Rollback{Slot: id, Digest: s.Sum.Of(id), Reason: why, Gen: s.Gen, At: now.UTC().Truncate(time.Second)}
	return s
}

// Fail remembers a program as failed.
func (s State) Fail(program blob.Digest) State {
	list := slices.Clone(s.Failed)
	i := slices.IndexFunc(list, func(f Failure) bool { return f.Digest == program })
	f := Failure{Digest: program}
	if i >= 0 {
		f = list[i]
		list = slices.Delete(list, i, i+1)
	}
	f.Count++
	list = append(list, f)
	s.Failed = list[max(0, len(list)-maxFailures):]
	return s
}

// CleanStop takes back the start of the agent in slot running, which ends
// because it was asked to: that is neither a failed try nor a crash.
func (s State) CleanStop(running ID) State {
	if s.Trial.Slot == running {
		s.Trial.Tries = max(0, s.Trial.Tries-1)
		return s
	}
	s.Backoff = Backoff{}
	return s
}

// Backoff slows down an agent that keeps ending soon after its start.
type Backoff struct {
	// Starts are the newest starts of a good agent, oldest first.
	Starts []time.Time `json:"starts,omitempty"`
	// Level is 0 for no delay, else the delay is 5 s doubled Level-1 times.
	Level int `json:"level,omitzero"`
}

// A good agent that starts crashLoopStarts times within crashLoopWindow is in
// a crash loop; a run longer than the window ends it.
const (
	crashLoopStarts = 5
	crashLoopWindow = 10 * time.Minute
	firstDelay      = 5 * time.Second
	longestDelay    = 5 * time.Minute
)

// next records a start and returns how long it has to wait. A clock that jumps
// by more than the window forgets the loop, which costs only a shorter wait.
func (b Backoff) next(now time.Time) (Backoff, time.Duration) {
	recent := slices.DeleteFunc(slices.Clone(b.Starts), func(t time.Time) bool {
		return now.Sub(t).Abs() >= crashLoopWindow
	})
	switch {
	case len(recent) == 0:
		b.Level = 0
	case b.Level > 0 || len(recent) >= crashLoopStarts:
		b.Level = min(b.Level+1, 8)
	}
	var delay time.Duration
	if b.Level > 0 {
		delay = min(firstDelay<<(b.Level-1), longestDelay)
	}
	recent = append(recent, now.Add(delay).UTC().Truncate(time.Second))
	b.Starts = recent[max(0, len(recent)-crashLoopStarts):]
	return b, delay
}
