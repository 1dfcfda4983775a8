package fleettest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeherd/edgeherd/controller/rollout"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// story runs f with a fleet of n boxes in a bubble, beside other stories: most
// of what they wait for in real time is the disk.
func story(t *testing.T, n int, f func(*Fleet)) {
	t.Helper()
	t.Parallel()
	bubble(t, n, f)
}

func bubble(t *testing.T, n int, f func(*Fleet)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		fleet := New(t, n)
		defer fleet.Close()
		f(fleet)
	})
}

// longAfter is when nothing more comes of a decision: twice as long as a wave
// waits for a silent box.
const longAfter = 20 * time.Minute

// pass lets time go by in a bubble.
func pass(d time.Duration) { time.Sleep(d) }

// settled waits until every box is live and has nothing left to send.
func settled(f *Fleet) {
	f.T.Helper()
	f.Until("all boxes live with empty buffers", time.Hour, func() bool {
		for _, b := range f.boxes() {
			if b.Link != fleetapi.LinkLive {
				return false
			}
		}
		return true
	})
	time.Sleep(3 * time.Minute) // a commit of telemetry and its acknowledgement
}

func (f *Fleet) boxes() []fleetapi.Box {
	f.T.Helper()
	list, err := f.API.Boxes(context.Background(), fleetapi.ListQuery{})
	if err != nil {
		f.T.Fatalf("list boxes: %v", err)
	}
	return list.Items
}

// checkLedger asserts that each result that an agent had taken over by now is
// stored exactly once when the dust has settled, that no later one is stored
// twice, and that blocks have no holes.
func checkLedger(f *Fleet) {
	f.T.Helper()
	promised := map[*Box][]string{}
	for _, b := range f.Boxes {
		promised[b], _ = b.Runner.Ledger()
	}
	settled(f)
	f.Store(func(s *store.Store) {
		for _, b := range f.Boxes {
			stored := map[string]int{}
			results, err := s.Results(context.Background(), b.ID, 1_000_000)
			if err != nil {
				f.T.Fatal(err)
			}
			for _, r := range results {
				if stored[r.Item]++; stored[r.Item] > 1 {
					f.T.Errorf("%s: result %s is stored %d times", b.Name, r.Item, stored[r.Item])
				}
			}
			for _, item := range promised[b] {
				if stored[item] == 0 {
					f.T.Errorf("%s: result %s is lost", b.Name, item)
				}
			}
			if len(promised[b]) < 100 {
				f.T.Errorf("%s: only %d results taken over: the story proves nothing", b.Name, len(promised[b]))
			}
			checkHoles(f, s, b)
		}
	})
}

func checkHoles(f *Fleet, s *store.Store, b *Box) {
	type stream struct {
		sid  wire.SID
		lane wire.Lane
	}
	seqs := map[stream]map[uint64]bool{}
	err := s.Keys(context.Background(), b.ID, func(k wire.Key) {
		st := stream{k.SID, k.Lane}
		if seqs[st] == nil {
			seqs[st] = map[uint64]bool{}
		}
		if seqs[st][k.Seq] {
			f.T.Errorf("%s: block %s is stored under two hashes", b.Name, k)
		}
		seqs[st][k.Seq] = true
	})
	if err != nil {
		f.T.Fatal(err)
	}
	for st, have := range seqs {
		for seq := uint64(1); seq <= uint64(len(have)); seq++ {
			if !have[seq] {
				f.T.Errorf("%s: block %s/%d/%d is missing, %d are stored", b.Name, st.sid, st.lane, seq, len(have))
			}
		}
	}
}

func TestT10TwoHourOutageLosesAndDoublesNothing(t *testing.T) {
	story(t, 3, func(f *Fleet) {
		settled(f)
		f.Boxes[0].Cut()
		f.Boxes[1].Cut()
		time.Sleep(2 * time.Hour)
		f.Boxes[0].Heal()
		f.Boxes[1].Heal()
		checkLedger(f)
	})
}

func TestControllerDownLosesAndDoublesNothing(t *testing.T) {
	story(t, 3, func(f *Fleet) {
		for range 3 {
			settled(f)
			f.StopController()
			time.Sleep(20 * time.Minute)
			f.StartController()
		}
		checkLedger(f)
	})
}

func TestAgentRestartsLoseAndDoubleNothing(t *testing.T) {
	story(t, 2, func(f *Fleet) {
		for range 5 {
			time.Sleep(7 * time.Minute)
			for _, b := range f.Boxes {
				if err := b.StopAgent(); err != nil {
					f.T.Fatalf("agent of %s: %v", b.Name, err)
				}
			}
			time.Sleep(time.Minute)
			for _, b := range f.Boxes {
				b.StartAgent()
			}
		}
		checkLedger(f)
	})
}

func TestGoodModelReachesEveryBoxInWaves(t *testing.T) {
	story(t, 3, func(f *Fleet) {
		settled(f)
		one := f.Roll(f.MustPush(Model{Name: "vad", Version: "5.0.0"}), "rest")
		f.Until("first version rolled out", 20*time.Minute, func() bool { return f.Rollout(one.ID).State == fleetapi.RolloutDone })
		two := f.Roll(f.MustPush(Model{Name: "vad", Version: "6.0.0"}))
		f.Until("second version rolled out", 20*time.Minute, func() bool { return f.Rollout(two.ID).State == fleetapi.RolloutDone })
		for _, b := range f.boxes() {
			if len(b.Models) != 1 || b.Models[0].RunningVersion != "6.0.0" || b.Update != fleetapi.UpdateCurrent {
				t.Errorf("%s: %s, models %+v", b.Name, b.Update, b.Models)
			}
		}
	})
}

func TestBadModelStopsInTheFirstWave(t *testing.T) {
	t.Parallel()
	for _, bad := range []Model{
		{Name: "vad", Version: "6.0.0", FailsGolden: true},
		{Name: "vad", Version: "6.0.0", FailsInTrial: true},
	} {
		t.Run(fmt.Sprintf("golden %v trial %v", bad.FailsGolden, bad.FailsInTrial), func(t *testing.T) {
			story(t, 3, func(f *Fleet) {
				settled(f)
				one := f.Roll(f.MustPush(Model{Name: "vad", Version: "5.0.0"}), "rest")
				f.Until("first version rolled out", 20*time.Minute, func() bool { return f.Rollout(one.ID).State == fleetapi.RolloutDone })
				two := f.Roll(f.MustPush(bad))
				f.Until("rollout halted", 20*time.Minute, func() bool { return f.Rollout(two.ID).State == fleetapi.RolloutHalted })
				time.Sleep(longAfter)
				touched := 0
				for _, b := range f.Boxes {
					if strings.Contains(fmt.Sprint(b.Runner.Switches()), "6.0.0") {
						touched++
					}
				}
				if want := map[bool]int{true: 1, false: 0}[bad.FailsInTrial]; touched != want {
					t.Errorf("%d boxes switched to the bad model, want %d", touched, want)
				}
				for _, b := range f.boxes() {
					if b.Models[0].RunningVersion != "5.0.0" {
						t.Errorf("%s runs %s after the halt", b.Name, b.Models[0].RunningVersion)
					}
				}
				r := f.Rollout(two.ID)
				if !strings.Contains(r.Sentence, "Halted in wave 1 of 2") || r.Waves[1].State != fleetapi.WaveWaiting {
					t.Errorf("rollout says %q, second wave %s", r.Sentence, r.Waves[1].State)
				}
			})
		})
	}
}

func TestOtherSignatureIsRefusedBeforeAnyBoxHearsOfIt(t *testing.T) {
	story(t, 1, func(f *Fleet) {
		f.MustPush(Model{Name: "vad", Version: "5.0.0"})
		_, err := f.Push(Model{Name: "vad", Version: "7.0.0", Input: "h"})
		if err == nil || !strings.Contains(err.Error(), `input "x" is gone`) {
			t.Errorf("push of another signature: %v; want a refusal that names input x", err)
		}
	})
}

// TestAgentKilledBetweenJournalWrites kills the agent at the n-th write of its
// activation journal, for every n that occurs, and expects the same end.
func TestAgentKilledBetweenJournalWrites(t *testing.T) {
	t.Parallel()
	writes := 0 // of a whole rollout
	t.Run("none", func(t *testing.T) { bubble(t, 1, func(f *Fleet) { writes = killAtWrite(f, 0) }) })
	if writes < 5 {
		t.Fatalf("only %d journal writes seen", writes)
	}
	for n := range writes {
		t.Run(fmt.Sprintf("write %d", n+1), func(t *testing.T) {
			story(t, 1, func(f *Fleet) {
				if got := killAtWrite(f, n+1); got <= n {
					t.Errorf("only %d journal writes seen", got)
				}
			})
		})
	}
}

// killAtWrite replaces a model while the agent is killed at its nth write of a
// journal, 0 for never, and returns how many writes there were until then.
func killAtWrite(f *Fleet, n int) (writes int) {
	t, b := f.T, f.Boxes[0]
	settled(f)
	one := f.Roll(f.MustPush(Model{Name: "vad", Version: "5.0.0"}), "rest")
	f.Until("first version rolled out", 20*time.Minute, func() bool { return f.Rollout(one.ID).State == fleetapi.RolloutDone })
	if err := b.StopAgent(); err != nil {
		t.Fatal(err)
	}
	killed := false
	b.OnJournal = func() error {
		if writes++; writes == n {
			killed = true
			return ErrKilled
		}
		return nil
	}
	b.StartAgent()
	settled(f)
	two := f.Roll(f.MustPush(Model{Name: "vad", Version: "6.0.0"}))
	time.Sleep(5 * time.Minute) // less than a wave waits for a silent box
	if killed {
		if err := b.AgentEnded(); !errors.Is(err, ErrKilled) {
			t.Fatalf("agent ended with %v", err)
		}
		b.OnJournal = nil
		b.StartAgent()
	}
	f.Until("second version rolled out", time.Hour, func() bool { return f.Rollout(two.ID).State == fleetapi.RolloutDone })
	if got := fmt.Sprint(b.Runner.Switches()); strings.Count(got, "vad:6.0.0") != 1 {
		t.Errorf("switches %s, want one to 6.0.0", got)
	}
	return writes
}

// done waits for the end of rollouts.
func (f *Fleet) done(rollouts ...fleetapi.Rollout) {
	f.T.Helper()
	for _, r := range rollouts {
		f.Until(r.Target.String()+" rolled out", time.Hour, func() bool { return f.Rollout(r.ID).State == fleetapi.RolloutDone })
	}
}

// versions tells what boxes run, as the controller sees it: "box-1 vad:5.0.0".
func (f *Fleet) versions() []string {
	var out []string
	for _, b := range f.boxes() {
		for _, m := range b.Models {
			out = append(out, fmt.Sprintf("%s %s:%s", b.Name, m.Name, m.RunningVersion))
		}
	}
	slices.Sort(out)
	return out
}

// TestTheClockOfABoxDoesNotMatter: one box starts in 1970 and is set right
// later, one is a year ahead; both lose their connection once.
func TestTheClockOfABoxDoesNotMatter(t *testing.T) {
	story(t, 3, func(f *Fleet) {
		settled(f)
		year := 365 * 24 * time.Hour
		began := time.Now()
		for i, skew := range []time.Duration{time.Unix(500, 0).Sub(began), year, 0} {
			b := f.Boxes[i]
			if err := b.StopAgent(); err != nil {
				t.Fatal(err)
			}
			b.SetClock(skew)
			b.StartAgent()
		}
		time.Sleep(7 * time.Minute)
		settled(f) // whatever their clocks say
		f.Boxes[0].Cut()
		f.Boxes[1].Cut()
		time.Sleep(20 * time.Minute)
		f.Boxes[0].SetClock(0) // while nobody sees it
		time.Sleep(5 * time.Minute)
		f.Boxes[0].Heal()
		f.Boxes[1].Heal()
		settled(f)
		ended := time.Now()
		f.Store(func(s *store.Store) {
			for _, b := range f.Boxes {
				checkTimes(f, s, b, began, ended)
			}
		})
	})
}

// checkTimes asserts that samples and results of b fill the time from began to
// ended, and that there are none elsewhere.
func checkTimes(f *Fleet, s *store.Store, b *Box, began, ended time.Time) {
	f.T.Helper()
	ctx := context.Background()
	var at []int64
	collect := func(from, to time.Time) {
		err := s.Samples(ctx, b.ID, from, to, func(start int64, samples wire.Samples) error {
			for _, rel := range samples.TimesMs {
				at = append(at, start+rel)
			}
			return nil
		})
		if err != nil {
			f.T.Fatal(err)
		}
	}
	collect(time.Unix(0, 0), began.Add(-time.Hour))
	collect(ended.Add(time.Hour), ended.AddDate(50, 0, 0))
	if len(at) > 0 {
		f.T.Errorf("%s: samples at %s, from %s to %s", b.Name, time.UnixMilli(at[0]).UTC(), began.UTC(), ended.UTC())
	}
	at = nil
	collect(began, ended)
	slices.Sort(at)
	last := began.UnixMilli()
	for _, t := range append(at, ended.UnixMilli()) {
		if t-last > 2*time.Minute.Milliseconds() {
			f.T.Errorf("%s: no sample from %s for %d s", b.Name, time.UnixMilli(last).UTC(), (t-last)/1000)
		}
		last = t
	}
	results, err := s.Results(ctx, b.ID, 1_000_000)
	if err != nil {
		f.T.Fatal(err)
	}
	for _, r := range results {
		if r.Time.Before(began.Add(-time.Hour)) || r.Time.After(ended.Add(time.Minute)) {
			f.T.Errorf("%s: result %s at %s, from %s to %s", b.Name, r.Item, r.Time, began.UTC(), ended.UTC())
			return
		}
	}
}

// TestT40RestoredControllerDoesNotWindBackABox: the boxes are ahead of it, send again
// what it lacks, and are told nothing before a person has chosen. What ran when
// the backup was made is paused. A box that was away is heard first.
func TestT40RestoredControllerDoesNotWindBackABox(t *testing.T) {
	story(t, 3, func(f *Fleet) {
		settled(f)
		five := f.roll(fleetapi.PlanRequest{Model: f.MustPush(Model{Name: "vad", Version: "5.0.0"}).String(), Policy: "approve: [2]"})
		f.Until("the first box has 5.0.0", time.Hour, func() bool { return f.Rollout(five.ID).Waves[0].State == fleetapi.WavePassed })
		backup := f.Backup()
		f.act(five.ID, "approve")
		f.done(five)
		away := f.Boxes[2]
		away.Cut()
		f.done(f.roll(fleetapi.PlanRequest{Model: f.MustPush(Model{Name: "vad", Version: "6.0.0"}).String(), Filter: `name < "box-3"`}))
		time.Sleep(10 * time.Minute)
		f.Restore(backup)
		f.Until("two boxes are back", time.Hour, func() bool { return len(f.restores().Conflicts) == 2 })
		if r := f.restores(); r.Restored == nil || r.Awaits != 1 {
			t.Errorf("restored %v, %d boxes awaited", r.Restored, r.Awaits)
		}
		if r := f.Rollout(five.ID); r.State != fleetapi.RolloutPaused || !strings.Contains(r.Sentence, "came back from a backup") {
			t.Errorf("what ran in the backup is %s: %s", r.State, r.Sentence)
		}
		f.act(five.ID, "resume")
		f.act(five.ID, "approve")
		time.Sleep(5 * time.Minute)
		if got := fmt.Sprint(f.switches()); got != "[box-1 vad:5.0.0 vad:6.0.0 box-2 vad:5.0.0 vad:6.0.0 box-3 vad:5.0.0]" {
			t.Errorf("before anybody chose boxes switched %s", got)
		}
		f.choose(rollout.Adopt, `name = "box-1"`)
		f.choose(rollout.Reimpose, `name = "box-2"`)
		f.Until("box-2 is in its rollout again", time.Hour, func() bool { return slices.Contains(f.versions(), "box-2 vad:5.0.0") })
		away.Heal()
		f.Until("the third is back", time.Hour, func() bool { return len(f.restores().Conflicts) == 1 })
		f.choose(rollout.Reimpose, "")
		f.done(f.Rollout(five.ID))
		f.done(f.Roll(f.MustPush(Model{Name: "vad", Version: "8.0.0"}), "rest"))
		// The third may get 8.0.0 before it has switched to what it runs already.
		if got := fmt.Sprint(slices.Compact(f.switches())); got != "[box-1 vad:5.0.0 vad:6.0.0 vad:8.0.0 box-2 vad:5.0.0 vad:6.0.0 vad:5.0.0 vad:8.0.0 box-3 vad:5.0.0 vad:8.0.0]" {
			t.Errorf("in the end boxes switched %s", got)
		}
		checkLedger(f)
	})
}

func (f *Fleet) roll(req fleetapi.PlanRequest) fleetapi.Rollout {
	f.T.Helper()
	r, err := f.API.Plan(context.Background(), req)
	if err != nil {
		f.T.Fatal(err)
	}
	return f.act(r.ID, "start")
}

func (f *Fleet) act(id, action string) fleetapi.Rollout {
	f.T.Helper()
	r, err := f.API.Act(context.Background(), id, action)
	if err != nil {
		f.T.Fatalf("%s %s: %v", action, id, err)
	}
	return r
}

func (f *Fleet) restores() fleetapi.RestoreState {
	f.T.Helper()
	r, err := f.API.Restores(context.Background())
	if err != nil {
		f.T.Fatal(err)
	}
	return r
}

// choose settles the one box that the filter matches.
func (f *Fleet) choose(choice, filter string) {
	f.T.Helper()
	if _, err := f.API.ChooseRestore(context.Background(), fleetapi.RestoreChoice{Choice: choice, Filter: filter, ExpectCount: 1}); err != nil {
		f.T.Fatal(err)
	}
}

// switches tells what each box switched to, in order.
func (f *Fleet) switches() []string {
	var out []string
	for _, b := range f.Boxes {
		out = append(append(out, b.Name), b.Runner.Switches()...)
	}
	return out
}

func TestManyRolloutsAtOnceEndWell(t *testing.T) {
	story(t, 3, func(f *Fleet) {
		settled(f)
		var all []fleetapi.Rollout
		var want []string
		for _, name := range []string{"det", "ocr", "rec", "vad"} {
			all = append(all, f.Roll(f.MustPush(Model{Name: name, Version: "1.0.0"}), "1", "rest"))
			for _, b := range f.Boxes {
				want = append(want, b.Name+" "+name+":1.0.0")
			}
		}
		f.done(all...)
		slices.Sort(want)
		if got := f.versions(); !slices.Equal(got, want) {
			t.Errorf("boxes run %v, want %v", got, want)
		}
		for _, b := range f.Boxes {
			if got := b.Runner.Switches(); len(got) != len(all) {
				t.Errorf("%s switched %v, want each once", b.Name, got)
			}
		}
	})
}

// TestPausedAndCanceledRolloutsTouchNoFurtherBox stops a rollout while its
// first wave is in work.
func TestPausedAndCanceledRolloutsTouchNoFurtherBox(t *testing.T) {
	story(t, 3, func(f *Fleet) {
		settled(f)
		act := func(r fleetapi.Rollout, action string) {
			t.Helper()
			if _, err := f.API.Act(context.Background(), r.ID, action); err != nil {
				t.Fatal(err)
			}
		}
		ran := func(version string) (n int) {
			for _, b := range f.Boxes {
				if slices.Contains(b.Runner.Switches(), "vad:"+version) {
					n++
				}
			}
			return n
		}
		one := f.Roll(f.MustPush(Model{Name: "vad", Version: "5.0.0"}))
		f.Until("first box on trial", 10*time.Minute, func() bool { return ran("5.0.0") == 1 })
		act(one, "pause")
		time.Sleep(longAfter)
		if n := ran("5.0.0"); n != 1 {
			t.Errorf("%d boxes switched while the rollout was paused, want the one at work", n)
		}
		act(one, "resume")
		f.done(one)
		two := f.Roll(f.MustPush(Model{Name: "vad", Version: "6.0.0"}))
		f.Until("first box on trial", 10*time.Minute, func() bool { return ran("6.0.0") == 1 })
		act(two, "cancel")
		time.Sleep(longAfter)
		if n, state := ran("6.0.0"), f.Rollout(two.ID).State; n != 1 || state != fleetapi.RolloutCanceled {
			t.Errorf("%d boxes switched, rollout %s; want one and canceled", n, state)
		}
		// What was canceled stands in nobody's way.
		f.done(f.Roll(f.MustPush(Model{Name: "vad", Version: "7.0.0"})))
		if n := ran("7.0.0"); n != 3 {
			t.Errorf("%d boxes run the next version", n)
		}
	})
}

func TestASilentBoxCatchesUpToTheNewestOnly(t *testing.T) {
	story(t, 3, func(f *Fleet) {
		settled(f)
		away := f.Boxes[1]
		away.Cut()
		f.done(f.Roll(f.MustPush(Model{Name: "vad", Version: "5.0.0"}), "rest"))
		f.done(f.Roll(f.MustPush(Model{Name: "vad", Version: "6.0.0"}), "rest"))
		if err := away.StopAgent(); err != nil {
			t.Fatal(err)
		}
		away.StartAgent()
		time.Sleep(longAfter)
		if got := away.Runner.Switches(); len(got) != 0 {
			t.Fatalf("a box without network switched %v", got)
		}
		away.Heal()
		f.Until("all boxes run the newest", time.Hour, func() bool {
			return fmt.Sprint(f.versions()) == "[box-1 vad:6.0.0 box-2 vad:6.0.0 box-3 vad:6.0.0]"
		})
		if got := fmt.Sprint(away.Runner.Switches()); got != "[vad:6.0.0]" {
			t.Errorf("the box that was away switched %s, want the newest alone", got)
		}
	})
}
