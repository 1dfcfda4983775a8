package update

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/firmware"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/slot"
)

var (
	oldProgram = blob.Sum([]byte("old"))
	newProgram = blob.Sum([]byte("new"))
	rel1       = blob.Sum([]byte("release 1"))
	rel2       = blob.Sum([]byte("release 2"))
	noon       = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	rules      = Rules{OS: "linux", Arch: "amd64", Version: "1.0.0", ProbationMin: 3 * time.Minute, ConfirmWindow: 10 * time.Minute}
)

func slotsGood() slot.State {
	return slot.State{V: 1, Gen: 7, Good: slot.A, Sum: slot.Pair[blob.Digest]{A: oldProgram}}
}

func slotsTrial() slot.State { return slotsGood().Arm(slot.B, newProgram) }

func release(edit func(*firmware.Release)) firmware.Release {
	r := firmware.Release{V: 1, Kind: firmware.KindAgent, Version: "1.1.0", Counter: 5,
		Builds: []firmware.Build{{OS: "linux", Arch: "amd64", Digest: newProgram, SizeBytes: 3}}}
	if edit != nil {
		edit(&r)
	}
	return r
}

// at is a state in the middle of the job for rel1.
func at(step Step, edit ...func(*State)) State {
	s := State{Step: step, Desired: rel1, Counter: 4, Job: Job{Release: rel1}}
	if step != Fetching && step != Idle {
		s.Job = Job{Release: rel1, Version: "1.1.0", Counter: 5, Program: newProgram, SizeBytes: 3, Slot: slot.B, Gen: 7}
	}
	if step == Idle {
		s.Job, s.Desired = Job{}, blob.Digest{}
	}
	for _, f := range edit {
		f(&s)
	}
	return s
}

// brief writes actions as words, reports as their phase.
func brief(actions []Action) string {
	var out []string
	for _, a := range actions {
		if tell, ok := a.(Tell); ok {
			out = append(out, "tell:"+tell.Phase.Phase)
			continue
		}
		word := strings.ToLower(strings.TrimPrefix(fmt.Sprintf("%T", a), "update."))
		if rb, ok := a.(RollBack); ok {
			word += ":" + string(rb.Reason)
		}
		out = append(out, word)
	}
	return strings.Join(out, " ")
}

func TestNext(t *testing.T) {
	opened := func(edit func(*firmware.Release)) Opened {
		return Opened{Release: release(edit), Running: slot.A, Slots: slotsGood()}
	}
	connected := func(s *State) { s.Job.WasConnected = true }
	astray := func(s *State) { s.Astray = true }
	waiting := func(s *State) { s.RetryAt, s.Attempts = noon, 1 }
	wants := func(d blob.Digest) func(*State) { return func(s *State) { s.Desired = d } }
	runs := func(d blob.Digest) func(*State) { return func(s *State) { s.Current = d } }
	for _, tc := range []struct {
		name  string
		state State
		event Event
		step  Step
		does  string
	}{
		{"a new wish", at(Idle), Desired{rel1}, Fetching, "tell:fetching fetch"},
		{"no wish", at(Idle), Desired{}, Idle, ""},
		{"wish that runs already", at(Idle, runs(rel1)), Desired{rel1}, Idle, "tell:active"},
		{"the same wish again", at(Idle, runs(rel1), wants(rel1)), Desired{rel1}, Idle, ""},
		{"refused wish again", at(Idle, wants(rel1), func(s *State) { s.Refused = rel1 }), Desired{rel1}, Idle, ""},
		{"refused wish after another", at(Idle, func(s *State) { s.Refused = rel1 }), Desired{rel1}, Idle, "tell:refused"},
		{"other wish while fetching", at(Fetching), Desired{rel2}, Fetching, "cancel tell:fetching fetch"},
		{"wish withdrawn while staging", at(Staging), Desired{}, Idle, "cancel"},
		{"same wish while fetching", at(Fetching), Desired{rel1}, Fetching, ""},
		{"same wish ends the wait", at(Staging, waiting), Desired{rel1}, Staging, "stage"},
		{"other wish in probation waits", at(Probation), Desired{rel2}, Probation, ""},
		{"other wish while judging", at(Judging), Desired{rel2}, Fetching, "tell:fetching fetch"},
		{"wish that ran before its slot was damaged", at(Idle, runs(rel1), wants(rel1), astray), Desired{rel1}, Fetching, "tell:fetching fetch"},
		{"release that ran before its slot was damaged", at(Fetching, runs(rel1), astray, func(s *State) { s.Counter = 5 }), opened(nil), Staging, "tell:staging stage"},
		{"wish for a thrice unjudged release", at(Idle, func(s *State) { s.Unjudged = Unjudged{rel1, 3} }), Desired{rel1}, Idle, "tell:refused"},
		{"wish for a twice unjudged release", at(Idle, func(s *State) { s.Unjudged = Unjudged{rel1, 2} }), Desired{rel1}, Fetching, "tell:fetching fetch"},

		{"good release", at(Fetching), opened(nil), Staging, "tell:staging stage"},
		{"release for others", at(Fetching), opened(func(r *firmware.Release) { r.Builds[0].Arch = "riscv64" }), Idle, "tell:refused"},
		{"older release", at(Fetching), opened(func(r *firmware.Release) { r.Counter = 3 }), Idle, "tell:refused"},
		{"same counter", at(Fetching), opened(func(r *firmware.Release) { r.Counter = 4 }), Idle, "tell:refused"},
		{"needs a newer agent", at(Fetching), opened(func(r *firmware.Release) { r.MinAgent = "1.0.1" }), Idle, "tell:refused"},
		{"this agent is enough", at(Fetching), opened(func(r *firmware.Release) { r.MinAgent = "1.0.0" }), Staging, "tell:staging stage"},
		{"program failed before", at(Fetching), Opened{release(nil), slot.A, slotsGood().Fail(newProgram)}, Idle, "tell:refused"},
		{"program runs already", at(Fetching), opened(func(r *firmware.Release) { r.Builds[0].Digest = oldProgram }), Idle, "tell:active"},
		{"stand-by agent does not update", at(Fetching), Opened{release(nil), slot.B, slotsGood()}, Fetching, "tell:waiting"},
		{"opened too late", at(Idle), opened(nil), Idle, ""},
		{"staged", at(Staging), Staged{true}, Arming, "arm"},
		{"armed", at(Arming), Armed{}, Arming, "tell:restarting restart"},
		{"network down", at(Fetching), WorkFailed{Err: "x"}, Fetching, "tell:waiting"},
		{"forged", at(Fetching), WorkFailed{Err: "x", Final: true}, Idle, "tell:refused"},
		{"wait over, fetching", at(Fetching, waiting), Tick{}, Fetching, "fetch"},
		{"wait over, staging", at(Staging, waiting), Tick{}, Staging, "stage"},
		{"wait over, arming", at(Arming, waiting), Tick{}, Arming, "arm"},
		{"no wait", at(Staging), Tick{}, Staging, ""},

		{"too early", at(Probation), Tick{Uptime: 2 * time.Minute, Connected: true}, Probation, ""},
		{"proved", at(Probation, connected), Tick{Uptime: 3 * time.Minute, Connected: true}, Probation, "confirm"},
		{"never had a connection", at(Probation), Tick{Uptime: 3 * time.Minute}, Probation, "confirm"},
		{"no connection yet", at(Probation, connected), Tick{Uptime: 9 * time.Minute}, Probation, ""},
		{"no connection", at(Probation, connected), Tick{Uptime: 10 * time.Minute}, Probation, "rollback:unconnected"},
		{"sick for now", at(Probation), Tick{Uptime: 5 * time.Minute, Unhealthy: "spool"}, Probation, ""},
		{"sick", at(Probation, connected), Tick{Uptime: 10 * time.Minute, Unhealthy: "spool"}, Probation, "rollback:unhealthy"},
		{"proved but late", at(Probation, connected), Tick{Uptime: time.Hour, Connected: true}, Probation, "confirm"},
		{"confirmed", at(Probation), Confirmed{}, Idle, "tell:active"},
		{"confirmed, other wish", at(Probation, wants(rel2)), Confirmed{}, Fetching, "tell:active tell:fetching fetch"},
		{"rolled back", at(Probation), RolledBack{}, Probation, "restart"},
		{"old agent is connected", at(Judging), Tick{Connected: true}, Judging, "blame"},
		{"blamed", at(Judging), Blamed{}, Idle, "tell:failed"},
		{"old agent waits", at(Judging), Tick{Uptime: 9 * time.Minute}, Judging, ""},
		{"old agent is cut off, too", at(Judging), Tick{Uptime: 10 * time.Minute}, Idle, "tell:inconclusive"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, actions := rules.Next(tc.state, tc.event, noon)
			if s.Step != tc.step || brief(actions) != tc.does {
				t.Errorf("step %q does %q, want %q does %q", s.Step, brief(actions), tc.step, tc.does)
			}
			if s.Step == Idle && s.Job != (Job{}) {
				t.Errorf("idle with job %+v", s.Job)
			}
			if s.Counter < tc.state.Counter {
				t.Errorf("the counter went back from %d to %d", tc.state.Counter, s.Counter)
			}
		})
	}
}

func TestStartFollowsTheLauncher(t *testing.T) {
	confirmed := slotsTrial().Confirm()
	earlier := slotsGood()
	earlier.LastRollback = slot.Rollback{Slot: slot.B, Digest: newProgram, Reason: slot.Unconnected, Gen: 6}
	for _, tc := range []struct {
		name    string
		state   State
		running slot.ID
		slots   slot.State
		step    Step
		does    string
	}{
		{"first start ever", State{}, slot.A, slotsGood(), Idle, ""},
		{"interrupted fetch", at(Fetching), slot.A, slotsGood(), Fetching, "tell:fetching fetch"},
		{"interrupted stage", at(Staging), slot.A, slotsGood(), Fetching, "tell:fetching fetch"},
		{"stopped before the trial was written", at(Arming), slot.A, slotsGood(), Staging, "stage"},
		{"the same after an earlier trial", at(Arming), slot.A, earlier, Staging, "stage"},
		{"new agent starts", at(Arming), slot.B, slotsTrial(), Probation, "tell:probation"},
		{"new agent starts again", at(Probation), slot.B, slotsTrial(), Probation, "tell:probation"},
		{"new agent starts, journal lost", State{}, slot.B, slotsTrial(), Probation, "tell:probation"},
		{"trial could not be counted", at(Arming), slot.A, slotsTrial(), Arming, "tell:waiting"},
		{"stopped after the confirmation", at(Probation), slot.B, confirmed, Idle, "tell:active"},
		{"tries used up", at(Arming), slot.A, slotsTrial().RollBack(slot.Tries, noon), Idle, "tell:failed"},
		{"unhealthy", at(Probation), slot.A, slotsTrial().RollBack(slot.Unhealthy, noon), Idle, "tell:failed"},
		{"no connection", at(Probation), slot.A, slotsTrial().RollBack(slot.Unconnected, noon), Judging, "tell:rolled_back"},
		{"damaged", at(Arming), slot.A, slotsTrial().RollBack(slot.Damaged, noon), Idle, "tell:inconclusive"},
		{"launcher state rebuilt", at(Probation), slot.A, slotsGood(), Fetching, "tell:fetching fetch"},
		{"current agent runs", State{Current: rel1, Program: newProgram, Desired: rel1}, slot.B, confirmed, Idle, "tell:active"},
		{"current agent was damaged", State{Current: rel1, Program: newProgram, Desired: rel1}, slot.A, slotsGood(), Fetching, "tell:fetching fetch"},
		{"still judging", at(Judging), slot.A, slotsGood(), Judging, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, actions := rules.Next(tc.state, Started{Running: tc.running, Slots: tc.slots}, noon)
			if s.Step != tc.step || brief(actions) != tc.does {
				t.Errorf("step %q does %q, want %q does %q", s.Step, brief(actions), tc.step, tc.does)
			}
		})
	}
}

func TestConfirmedReleaseRaisesTheFloor(t *testing.T) {
	s, _ := rules.Next(at(Probation), Confirmed{}, noon)
	if s.Current != rel1 || s.Counter != 5 {
		t.Errorf("current %s counter %d", s.Current.Short(), s.Counter)
	}
}

func TestWaitsGrowToAnHour(t *testing.T) {
	s := at(Fetching)
	for _, want := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60} {
		s, _ = rules.Next(s, WorkFailed{Err: "x"}, noon)
		if got := s.RetryAt.Sub(noon); got != want*time.Minute {
			t.Fatalf("wait %s, want %d minutes", got, want)
		}
	}
}

// Whatever happens in whatever state: no panic, no unknown step, no job left
// over, and the floor never sinks.
func TestNextIsTotal(t *testing.T) {
	events := []Event{
		Desired{}, Desired{rel1}, Desired{rel2}, Opened{release(nil), slot.A, slotsGood()}, Opened{},
		Staged{}, Staged{true}, Armed{}, WorkFailed{Err: "x"}, WorkFailed{Err: "x", Final: true},
		Tick{}, Tick{Connected: true}, Tick{Uptime: time.Hour, Unhealthy: "x"}, Tick{Uptime: time.Hour, Connected: true},
		Confirmed{}, RolledBack{}, Blamed{},
		Started{slot.A, slotsGood()}, Started{slot.B, slotsTrial()}, Started{slot.A, slotsTrial()}, Started{slot.B, slotsTrial().Confirm()}, Started{},
		Started{slot.A, slotsTrial().RollBack(slot.Tries, noon)}, Started{slot.A, slotsTrial().RollBack(slot.Unconnected, noon)},
	}
	steps := map[Step]bool{Idle: true, Fetching: true, Staging: true, Arming: true, Probation: true, Judging: true}
	seen, queue := map[State]bool{{}: true}, []State{{}}
	for depth := 0; len(queue) > 0 && depth < 200_000; depth++ {
		s := queue[0]
		queue = queue[1:]
		for _, e := range events {
			n, actions := rules.Next(s, e, noon)
			again, same := rules.Next(s, e, noon)
			if n != again || !reflect.DeepEqual(actions, same) {
				t.Fatalf("%+v with %#v is not a function", s, e)
			}
			if !steps[n.Step] || n.Counter < s.Counter || (n.Step == Idle) != (n.Job == Job{}) {
				t.Fatalf("%+v with %#v gives %+v", s, e, n)
			}
			n.Attempts, n.Unjudged.Trials = min(n.Attempts, 2), min(n.Unjudged.Trials, 4)
			if !seen[n] {
				seen[n] = true
				queue = append(queue, n)
			}
		}
	}
	if len(queue) > 0 {
		t.Errorf("%d states, %d still open", len(seen), len(queue))
	}
	t.Logf("%d states", len(seen))
}

// A journal written by format 1 keeps its meaning.
func TestJournalKeepsItsFormat(t *testing.T) {
	want := at(Arming, func(s *State) {
		s.Job.WasConnected = true
		s.Current, s.Program, s.Unjudged = rel2, oldProgram, Unjudged{rel1, 1}
	})
	var got State
	if ok, err := (durable.Journal{Path: "testdata/update-v1.json", Version: 1}).Load(&got); !ok || err != nil || got != want {
		t.Fatalf("loaded %+v, %v, %v\nwant %+v", got, ok, err, want)
	}
	path := filepath.Join(t.TempDir(), "update.json")
	if err := (durable.Journal{Path: path, Version: 1}).Save(want); err != nil {
		t.Fatal(err)
	}
	a, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile("testdata/update-v1.json"); err != nil || !bytes.Equal(a, b) {
		t.Errorf("saved\n%s\nwant\n%s (%v)", a, b, err)
	}
}
