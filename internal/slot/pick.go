package slot

import (
	"fmt"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
)

// Facts are what the launcher sees on the disk.
type Facts struct {
	// Found is the digest of the program in each slot; zero if there is none,
	// if it is empty or if it cannot be read.
	Found Pair[blob.Digest]
	// Broken marks slots whose program could not be executed in this launch.
	Broken Pair[bool]
	// ReadOnly says that the state cannot be saved.
	ReadOnly bool
}

// Choice is what to start.
type Choice struct {
	// Slot is empty if no slot holds a program.
	Slot ID
	// State must be on disk before the program starts, if Save.
	State State
	Save  bool
	// Delay is how long to wait before the start.
	Delay time.Duration
	// Reason says in a few words why this slot.
	Reason string
}

// Pick decides which slot starts. known is false if there is no readable state.
// It never refuses to start something: a box whose agent is doubtful can still
// be reached and repaired, a box without an agent cannot.
func Pick(s State, known bool, f Facts, now time.Time) Choice {
	save := false
	if !known {
		s, save = adopt(f), true
	}
	if t := s.Trial; t.Slot != "" {
		switch {
		case f.Found.Of(t.Slot) != s.Sum.Of(t.Slot):
			s, save = s.RollBack(Damaged, now), true
		case t.Tries >= t.Max:
			s, save = s.RollBack(Tries, now), true
		case f.Broken.Of(t.Slot), f.ReadOnly && s.usable(s.Good, f):
			c := pickGood(s, f, now)
			c.Save, c.Reason = c.Save || save, fmt.Sprintf("the trial of slot %s has to wait: %s", t.Slot, c.Reason)
			return c
		default:
			s.Trial.Tries++
			return Choice{Slot: t.Slot, State: s, Save: true,
				Reason: fmt.Sprintf("trial, start %d of %d", s.Trial.Tries, t.Max)}
		}
	}
	c := pickGood(s, f, now)
	// Without a program there is nothing worth remembering.
	c.Save = c.Slot != "" && (c.Save || save)
	return c
}

// adopt makes a state from what lies in the slots. With two different programs
// and no knowledge, the first is on trial and the second stands by.
func adopt(f Facts) State {
	s := State{V: FormatVersion, Good: A, Sum: f.Found}
	switch {
	case f.Found.A.IsZero() && !f.Found.B.IsZero():
		s.Good = B
	case !f.Found.A.IsZero() && !f.Found.B.IsZero() && f.Found.A != f.Found.B && !f.ReadOnly:
		s.Good = B
		s.Trial = Trial{Slot: A, Max: DefaultTries}
	}
	return s
}

func (s State) usable(id ID, f Facts) bool {
	found := f.Found.Of(id)
	return !found.IsZero() && found == s.Sum.Of(id) && !f.Broken.Of(id)
}

// pickGood starts the good slot, else the other one, else whatever is there.
func pickGood(s State, f Facts, now time.Time) Choice {
	c := Choice{State: s}
	other := s.Good.Other()
	switch {
	case s.usable(s.Good, f):
		c.Slot, c.Reason = s.Good, "good"
	case s.usable(other, f) && s.Trial.Slot == "":
		c.Slot, c.Reason = other, fmt.Sprintf("slot %s is damaged", s.Good)
		c.State = s.left(s.Good, Damaged, now)
		c.State.Good, c.Save = other, true
	default:
		for _, id := range []ID{s.Good, other} {
			if !f.Found.Of(id).IsZero() && !f.Broken.Of(id) {
				c.Slot, c.Reason = id, "last resort: no slot holds what was put there"
				break
			}
		}
	}
	if c.Slot == "" {
		c.Reason = "no slot holds a program that can be started"
		return c
	}
	if !f.ReadOnly {
		c.State.Backoff, c.Delay = s.Backoff.next(now)
		c.Save = true
	}
	return c
}
