package slot

import (
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
)

var (
	oldAgent = blob.Sum([]byte("old"))
	newAgent = blob.Sum([]byte("new"))
	rotten   = blob.Sum([]byte("rotten"))
	none     = blob.Digest{}
	noon     = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
)

func goodA() State {
	return State{V: FormatVersion, Gen: 1, Good: A, Sum: Pair[blob.Digest]{A: oldAgent}}
}

// trialB has the old agent in a and the new one on trial in b.
func trialB(tries int) State {
	s := goodA().Arm(B, newAgent)
	s.Trial.Tries = tries
	return s
}

func found(a, b blob.Digest) Facts { return Facts{Found: Pair[blob.Digest]{A: a, B: b}} }

func TestPickStartsTheRightSlot(t *testing.T) {
	readOnly := func(f Facts) Facts { f.ReadOnly = true; return f }
	broken := func(f Facts, id ID) Facts { f.Broken = f.Broken.With(id, true); return f }
	for _, tc := range []struct {
		name  string
		state State
		lost  bool
		facts Facts
		slot  ID
		good  ID
		tries int // of the trial afterwards; -1 when there is none
		why   Reason
	}{
		{name: "good agent", state: goodA(), facts: found(oldAgent, none), slot: A, good: A, tries: -1},
		{name: "half an update in the other slot", state: goodA(), facts: found(oldAgent, rotten), slot: A, good: A, tries: -1},
		{name: "first try", state: trialB(0), facts: found(oldAgent, newAgent), slot: B, good: A, tries: 1},
		{name: "last try", state: trialB(2), facts: found(oldAgent, newAgent), slot: B, good: A, tries: 3},
		{name: "tries used up", state: trialB(3), facts: found(oldAgent, newAgent), slot: A, good: A, tries: -1, why: Tries},
		{name: "trial damaged", state: trialB(0), facts: found(oldAgent, rotten), slot: A, good: A, tries: -1, why: Damaged},
		{name: "trial gone", state: trialB(1), facts: found(oldAgent, none), slot: A, good: A, tries: -1, why: Damaged},
		{name: "trial cannot be counted", state: trialB(0), facts: readOnly(found(oldAgent, newAgent)), slot: A, good: A, tries: 0},
		{name: "trial cannot be counted, good damaged", state: trialB(0), facts: readOnly(found(rotten, newAgent)), slot: B, good: A, tries: 1},
		{name: "good damaged during a trial", state: trialB(1), facts: found(rotten, newAgent), slot: B, good: A, tries: 2},
		{name: "trial does not execute and cannot be counted", state: trialB(0), facts: broken(readOnly(found(rotten, newAgent)), B), slot: A, good: A, tries: 0},
		{name: "good damaged", state: trialB(0).Confirm(), facts: found(oldAgent, rotten), slot: A, good: A, tries: -1, why: Damaged},
		{name: "good gone", state: trialB(0).Confirm(), facts: found(oldAgent, none), slot: A, good: A, tries: -1, why: Damaged},
		{name: "good does not execute", state: trialB(0).Confirm(), facts: broken(found(oldAgent, newAgent), B), slot: A, good: A, tries: -1, why: Damaged},
		{name: "last resort good", state: goodA(), facts: found(rotten, none), slot: A, good: A, tries: -1},
		{name: "last resort other", state: goodA(), facts: found(none, rotten), slot: B, good: A, tries: -1},
		{name: "nothing at all", state: goodA(), facts: found(none, none), slot: "", good: A, tries: -1},
		{name: "nothing executes", state: goodA(), facts: broken(found(oldAgent, none), A), slot: "", good: A, tries: -1},
		{name: "state lost, only a", lost: true, facts: found(oldAgent, none), slot: A, good: A, tries: -1},
		{name: "state lost, only b", lost: true, facts: found(none, newAgent), slot: B, good: B, tries: -1},
		{name: "state lost, both", lost: true, facts: found(oldAgent, newAgent), slot: A, good: B, tries: 1},
		{name: "state lost, both the same", lost: true, facts: found(oldAgent, oldAgent), slot: A, good: A, tries: -1},
		{name: "state lost and not writable", lost: true, facts: readOnly(found(oldAgent, newAgent)), slot: A, good: A, tries: -1},
		{name: "state lost, nothing there", lost: true, facts: found(none, none), slot: "", good: A, tries: -1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := Pick(tc.state, !tc.lost, tc.facts, noon)
			tries := -1
			if c.State.Trial.Slot != "" {
				tries = c.State.Trial.Tries
			}
			if c.Slot != tc.slot || c.State.Good != tc.good || tries != tc.tries || c.State.LastRollback.Reason != tc.why {
				t.Errorf("slot %q good %q tries %d why %q, want %q %q %d %q (%s)",
					c.Slot, c.State.Good, tries, c.State.LastRollback.Reason, tc.slot, tc.good, tc.tries, tc.why, c.Reason)
			}
			if failed := c.State.HasFailed(newAgent); failed != (tc.why == Tries) {
				t.Errorf("remembered as failed: %v after reason %q", failed, tc.why)
			}
			if c.Slot == "" && c.Save {
				t.Error("a state without any program is saved")
			}
			if c.Delay != 0 {
				t.Errorf("a first start waits %s", c.Delay)
			}
			if err := c.State.validate(); err != nil {
				t.Errorf("state after the choice: %v", err)
			}
		})
	}
}

func TestTrialEndsAfterItsTries(t *testing.T) {
	s, f := trialB(0), found(oldAgent, newAgent)
	var slots []ID
	for range 5 {
		c := Pick(s, true, f, noon)
		slots, s = append(slots, c.Slot), c.State
	}
	want := []ID{B, B, B, A, A}
	for i := range want {
		if slots[i] != want[i] {
			t.Fatalf("starts %v, want %v", slots, want)
		}
	}
	if !s.HasFailed(newAgent) {
		t.Error("the new agent is not remembered as failed")
	}
}

func TestCleanStopIsNoTry(t *testing.T) {
	s, f := trialB(0), found(oldAgent, newAgent)
	for range 20 {
		c := Pick(s, true, f, noon)
		if c.Slot != B {
			t.Fatalf("the trial ended: %s", c.Reason)
		}
		s = c.State.CleanStop(B)
	}
	if s.Trial.Tries != 0 {
		t.Errorf("%d tries after clean stops", s.Trial.Tries)
	}
}

func TestArmTwiceGivesNoNewTries(t *testing.T) {
	s := trialB(2).Arm(B, newAgent)
	if s.Trial.Tries != 2 {
		t.Errorf("tries %d, want 2", s.Trial.Tries)
	}
}

func TestUnconnectedIsNotYetFailed(t *testing.T) {
	s := trialB(1).RollBack(Unconnected, noon)
	if s.HasFailed(newAgent) || s.LastRollback.Reason != Unconnected || s.Good != A {
		t.Errorf("state %+v", s)
	}
	if !s.Fail(newAgent).HasFailed(newAgent) {
		t.Error("Fail does not remember")
	}
}

func TestFailuresAreBounded(t *testing.T) {
	s := goodA().Fail(oldAgent)
	for i := range 3 * maxFailures {
		s = s.Fail(blob.Sum([]byte{byte(i)}))
	}
	s = s.Fail(newAgent).Fail(newAgent)
	if len(s.Failed) != maxFailures || s.HasFailed(oldAgent) || !s.HasFailed(newAgent) {
		t.Errorf("%d failures, oldest kept %v, newest kept %v", len(s.Failed), s.HasFailed(oldAgent), s.HasFailed(newAgent))
	}
	if last := s.Failed[len(s.Failed)-1]; last.Count != 2 {
		t.Errorf("count %d, want 2", last.Count)
	}
}

func TestCrashLoopSlowsDown(t *testing.T) {
	var b Backoff
	var got []time.Duration
	now := noon
	for range 13 {
		var d time.Duration
		b, d = b.next(now)
		got = append(got, d)
		now = now.Add(d + time.Second) // the agent lives one second
	}
	want := []time.Duration{0, 0, 0, 0, 0, 5, 10, 20, 40, 80, 160, 300, 300}
	for i := range want {
		if got[i] != want[i]*time.Second {
			t.Fatalf("delays %v, want %v seconds", got, want)
		}
	}
	if _, d := b.next(now.Add(crashLoopWindow)); d != 0 {
		t.Errorf("a start after a long run waits %s", d)
	}
	if _, d := b.next(time.Unix(0, 0)); d != 0 {
		t.Errorf("a start after the clock was lost waits %s", d)
	}
	s := goodA()
	s.Backoff = b
	if _, d := s.CleanStop(A).Backoff.next(now); d != 0 {
		t.Errorf("a start after a clean stop waits %s", d)
	}
}

func TestRareStartsDoNotWait(t *testing.T) {
	var b Backoff
	for i := range 20 {
		var d time.Duration
		if b, d = b.next(noon.Add(time.Duration(i) * 3 * time.Minute)); d != 0 {
			t.Fatalf("start %d waits %s", i, d)
		}
	}
}
