package fleettest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// story runs f with a fleet of n boxes in a bubble.
func story(t *testing.T, n int, f func(*Fleet)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		fleet := New(t, n)
		defer fleet.Close()
		f(fleet)
	})
}

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
	list, err := f.API.Boxes(context.Background(), fleetapi.BoxQuery{})
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

func TestTwoHourOutageLosesAndDoublesNothing(t *testing.T) {
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
				time.Sleep(time.Hour)
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
	for n := 1; ; n++ {
		killed := false
		ok := t.Run(fmt.Sprintf("write %d", n), func(t *testing.T) {
			story(t, 1, func(f *Fleet) {
				b := f.Boxes[0]
				settled(f)
				one := f.Roll(f.MustPush(Model{Name: "vad", Version: "5.0.0"}), "rest")
				f.Until("first version rolled out", 20*time.Minute, func() bool { return f.Rollout(one.ID).State == fleetapi.RolloutDone })
				if err := b.StopAgent(); err != nil {
					t.Fatal(err)
				}
				writes := 0
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
			})
		})
		if !ok || !killed {
			if n < 5 {
				t.Errorf("only %d journal writes seen", n-1)
			}
			return
		}
	}
}
