package activate

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/models"
)

// TestATimeWithoutRoomMakesNoVersionLate: the journal of a switch waits for room for
// longer than a version may take to serve, and the version then loads for a while.
func TestATimeWithoutRoomMakesNoVersionLate(t *testing.T) {
	inWorld(t, func(w *world) {
		one, two := w.publish("1.0", nil), w.publish("2.0", nil)
		w.want(1, one)
		w.stop()
		set := w.journalDisk()
		once := false
		report := w.opts.Report
		w.opts.Report = func(p Phase) {
			report(p)
			if p.Version == "2.0" && p.Phase == string(StepSwitching) && !once {
				once = true
				set(true)
			}
		}
		w.start()
		loads := func(is bool) {
			w.rmu.Lock()
			defer w.rmu.Unlock()
			w.faults[two.Digest] = fault{broken: is}
			if m := w.loaded[two.Digest]; m != nil && !is {
				m.State = runnerapi.ModelLoading
			}
		}
		loads(true)
		w.act.SetDesired(Desired{Generation: 2, Models: []Want{two}})
		w.pass(time.Hour)
		set(false)
		w.pass(time.Minute)
		loads(false)
		w.settle()
		w.wantServes("vad:2.0")
		if trace := w.trace(); strings.Contains(trace, PhaseRolledBack) || strings.Contains(trace, PhaseFailed) {
			t.Errorf("reports %s", trace)
		}
	})
}

// TestADiskThatFailsIsNoVerdict on the version: it is waited for like one that is full.
func TestADiskThatFailsIsNoVerdict(t *testing.T) {
	for _, no := range []error{syscall.EIO, syscall.EROFS, syscall.EUCLEAN} {
		t.Run(no.Error(), func(t *testing.T) {
			inWorld(t, func(w *world) {
				one, two := w.publish("1.0", nil), w.publish("2.0", nil)
				w.want(1, one)
				disk := w.smallDisk("2.0")
				disk.set(fmt.Errorf("write stage file: %w", no))
				w.want(2, two)
				w.pass(24 * time.Hour)
				w.wantServes("vad:1.0")
				p := w.last()
				if p.Phase != string(StepFetching) || !p.Disk || !strings.Contains(p.Err, "waits for a disk that takes it: write stage file: "+no.Error()) {
					t.Errorf("last report %+v", p)
				}
				disk.set(nil)
				w.pass(2 * time.Hour)
				w.wantServes("vad:2.0")
			})
		})
	}
}

// TestAVersionThatTheDiskSpoilsWhileItSwitchesIsNotRolledBack: it comes again, each
// time later, and at last it is the box that is given up.
func TestAVersionThatTheDiskSpoilsWhileItSwitchesIsNotRolledBack(t *testing.T) {
	now := time.Date(2000, 1, 1, 12, 0, 0, 0, time.UTC)
	for _, step := range []Step{StepSwitching, StepTrial} {
		for _, proved := range []bool{false, true} {
			t.Run(fmt.Sprint(step, " proved ", proved), func(t *testing.T) {
				s := State{Name: "vad", Step: step, Want: wantOf("2", 0), For: wantOf("2", 0), Candidate: versionOf("2"), Current: versionOf("1"), Since: now}
				if proved {
					s.Mend = Mend{Digest: s.Candidate.Digest, Why: "it was gone", Times: 1, Proved: true}
				}
				damaged := Event{Kind: EventStatus, Status: statusWith("2", runnerapi.ModelStatus{State: runnerapi.ModelFailed, Err: "a file of it is damaged", Damaged: true})}
				back := Event{Kind: EventStatus, Status: statusWith("1", runnerapi.ModelStatus{State: runnerapi.ModelReady})}
				var waits []time.Duration
				for len(waits) < 20 {
					var actions []Action
					s.Step = step
					s, _ = testRules.Next(s, damaged, now)
					s, actions = testRules.Next(s, back, now)
					said := words(actions)
					if s.Step == StepIdle {
						if told := actions[1].Phase; said != "drop report-failed stop" || !told.Disk || !strings.Contains(told.Err, "the disk of this box spoils") {
							t.Errorf("in the end %q, %+v", said, told)
						}
						break
					}
					told := actions[1].Phase
					if said != "drop report-fetching files-later" || !told.Disk || !strings.Contains(told.Err, "damaged, it is fetched again; 1 serves meanwhile") {
						t.Fatalf("%q, %+v", said, told)
					}
					waits = append(waits, actions[2].Delay)
				}
				if n := len(waits); proved != (n == 20) || !proved && n != maxMends {
					t.Errorf("%d times again", n)
				}
				for i, d := range waits[1:] {
					if d < waits[i] || d > lookMax || d == waits[i] && d != lookMax {
						t.Errorf("waits %v", waits)
						break
					}
				}
			})
		}
	}
}

// TestWhatServedIsMendedThoughItWasLostWhileAnotherVersionWasOnItsWay, and that one
// then failed.
func TestWhatServedIsMendedThoughItWasLostWhileAnotherVersionWasOnItsWay(t *testing.T) {
	now := time.Date(2000, 1, 1, 12, 0, 0, 0, time.UTC)
	away := Event{Kind: EventFailed, Err: "away"}
	fails := map[Step][]Event{
		StepFetching:  {{Kind: EventFailed, Blame: BlameCandidate, Err: "wrong"}},
		StepProbing:   {{Kind: EventProbed, Probe: runnerapi.Probe{Err: "wrong"}}},
		StepShadow:    {{Kind: EventStatus, Status: statusWith("2", runnerapi.ModelStatus{State: runnerapi.ModelFailed})}},
		StepSwitching: {{Kind: EventStatus, Status: statusWith("2", runnerapi.ModelStatus{State: runnerapi.ModelFailed})}, {Kind: EventStatus}},
		StepTrial:     {{Kind: EventStatus, Status: statusWith("2", runnerapi.ModelStatus{State: runnerapi.ModelFailed})}, {Kind: EventStatus}},
		StepUndoing:   {away, {Kind: EventStatus}},
	}
	for step, events := range fails {
		t.Run(string(step), func(t *testing.T) {
			s := State{Name: "vad", Step: step, Want: wantOf("2", 0), For: wantOf("2", 0), Candidate: versionOf("2"), Current: versionOf("1"), Since: now, Reason: "bad"}
			s, _ = testRules.Next(s, Event{Kind: EventLost, Digest: s.Current.Digest, Err: "of its files, model.onnx is gone from the disk"}, now)
			if got := s.kept(); got[len(got)-1].Digest != refOf("1").Digest {
				t.Errorf("kept are %v: its sound files would go", got)
			}
			var actions []Action
			for _, e := range events {
				s, actions = testRules.Next(s, e, now)
			}
			if s.Step != StepFetching || s.Candidate.Digest != refOf("1").Digest || !s.mending() || !strings.HasSuffix(words(actions), "files") {
				t.Errorf("%s of %q with %q", s.Step, s.Candidate.Version, words(actions))
			}
			if _, denied := s.denial(refOf("2").Digest); !denied {
				t.Error("the version that failed is not denied")
			}
		})
	}
}

// TestOneBadReadNowAndThenGivesNoFileUp: two in a row do.
func TestOneBadReadNowAndThenGivesNoFileUp(t *testing.T) {
	inWorld(t, func(w *world) {
		one := w.publish("1.0", nil)
		w.want(1, one)
		before := w.inodes()
		w.fetched = 0
		path := w.weights("1.0")
		unreadable := func(is bool) {
			from, to := path, path+".away"
			if !is {
				from, to = to, path
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Rename(from, to); err != nil {
				t.Fatal(err)
			}
			if is {
				if err := os.Symlink("/proc/self/mem", path); err != nil { // the first page is EIO
					t.Fatal(err)
				}
			}
		}
		v := w.act.book.get("vad").Current
		w.stop()
		w.act.looking(v.Digest)
		for i, bad := range []bool{true, false, true} {
			if bad {
				unreadable(true)
			}
			flaws, err := w.act.examine(context.Background(), v)
			if (err != nil) != bad || len(flaws) > 0 {
				t.Errorf("look %d: %v, %v", i, flaws, err)
			}
			if bad {
				unreadable(false)
			}
		}
		if fmt.Sprint(w.inodes()) != fmt.Sprint(before) {
			t.Error("a file was touched")
		}
		unreadable(true)
		if flaws, err := w.act.examine(context.Background(), v); err != nil || len(flaws) != 1 {
			t.Errorf("the second in a row: %v, %v", flaws, err)
		}
		unreadable(false)
		w.start()
	})
}

// cheaper gives a version a second variant.
func (w *world) cheaper(m *models.Manifest) {
	for path, content := range map[string]string{"int8.onnx": "cheap weights " + m.Version, models.GoldenFile: "golden"} {
		d := blob.Sum([]byte(content))
		w.remote[d] = []byte(content)
		m.Files = append(m.Files, models.File{Path: path, Digest: d, SizeBytes: int64(len(content))})
	}
	m.Variants = []models.Variant{{Name: "fp32", Path: models.ModelFile}, {Name: "int8", Path: "int8.onnx"}}
}

// TestADamagedVariantIsMendedWhileAnotherServes: nothing else of the box changes.
func TestADamagedVariantIsMendedWhileAnotherServes(t *testing.T) {
	inWorld(t, func(w *world) {
		one, two := w.publish("1.0", nil), w.publish("2.0", w.cheaper)
		w.want(1, one)
		w.want(2, two)
		path := w.store.Path(blob.Sum([]byte("cheap weights 2.0")))
		flip(t, path)
		w.phases, w.fetched = nil, 0
		w.setOffline(true)
		w.rmu.Lock()
		w.loaded[two.Digest].Damaged, w.loaded[two.Digest].Err = true, "another variant of it cannot serve"
		w.spoils = true
		w.rmu.Unlock()
		w.settle()
		w.wantServes("vad:2.0")
		w.restart(func() {}) // without a line, with the file set aside
		w.wantServes("vad:2.0")
		w.setOffline(false)
		w.settle()
		w.settle()
		w.wantServes("vad:2.0")
		w.whole(one, two)
		if trace := w.trace(); w.fetched != 1 || strings.Contains(trace, "fetching") {
			t.Errorf("%d files fetched, reports %q", w.fetched, trace)
		}
	})
}

// TestAVersionThatDoesNotFitWholeIsNotBegun: half of it would only take room.
func TestAVersionThatDoesNotFitWholeIsNotBegun(t *testing.T) {
	inWorld(t, func(w *world) {
		one, two := w.publish("1.0", nil), w.publish("2.0", w.alone)
		w.want(1, one)
		w.stop()
		var mu sync.Mutex
		full := errRoom
		w.opts.Room = func(files []models.File) error {
			mu.Lock()
			defer mu.Unlock()
			if len(files) != 3 {
				t.Errorf("asked for %d files", len(files))
			}
			return full
		}
		w.start()
		w.fetched = 0
		w.want(2, two)
		w.wantServes("vad:1.0")
		if p := w.last(); w.fetched != 1 || !p.Disk || !strings.Contains(p.Err, "waits for room: "+errRoom.Error()) { // the manifest
			t.Errorf("%d files fetched, last report %+v", w.fetched, p)
		}
		mu.Lock()
		full = nil
		mu.Unlock()
		w.pass(2 * time.Hour)
		w.wantServes("vad:2.0")
	})
}

// TestAVersionThatServesNoMoreWaitsForNoMending: a variant of it cannot be fetched
// without a line, and now the box has lost the one that served, too.
func TestAVersionThatServesNoMoreWaitsForNoMending(t *testing.T) {
	inWorld(t, func(w *world) {
		one, two := w.publish("1.0", nil), w.publish("2.0", w.cheaper)
		w.want(1, one)
		w.want(2, two)
		flip(t, w.store.Path(blob.Sum([]byte("cheap weights 2.0"))))
		w.setOffline(true)
		w.rmu.Lock()
		w.loaded[two.Digest].Damaged, w.spoils = true, true
		w.rmu.Unlock()
		w.settle()
		w.wantServes("vad:2.0")
		flip(t, w.weights("2.0"))
		w.rmu.Lock()
		w.loaded = map[blob.Digest]*runnerapi.ModelStatus{} // the runner begins anew
		w.rmu.Unlock()
		w.settle()
		w.wantServes("vad:1.0")
		w.setOffline(false)
		w.pass(time.Hour)
		w.wantServes("vad:2.0")
		w.whole(one, two)
	})
}

// TestAnotherVersionDoesNotWaitForTheOneThatTheDiskSpoiled, nor is it told with the
// words of that one, when it is wanted while that one is taken back.
func TestAnotherVersionDoesNotWaitForTheOneThatTheDiskSpoiled(t *testing.T) {
	now := time.Date(2000, 1, 1, 12, 0, 0, 0, time.UTC)
	s := State{Name: "vad", Step: StepTrial, Want: wantOf("2", 0), For: wantOf("2", 0), Candidate: versionOf("2"), Current: versionOf("1"), Since: now}
	var actions []Action
	for _, e := range []Event{
		{Kind: EventStatus, Status: statusWith("2", runnerapi.ModelStatus{State: runnerapi.ModelFailed, Err: "a file of it is damaged", Damaged: true})},
		{Kind: EventWanted, Want: wantOf("3", 0), Generation: 2},
		{Kind: EventStatus, Status: statusWith("1", runnerapi.ModelStatus{State: runnerapi.ModelFailed, Err: "no memory"})},
	} {
		s, actions = testRules.Next(s, e, now)
	}
	if said := words(actions); said != "drop report-fetching manifest" || s.Candidate.Digest != refOf("3").Digest || actions[1].Phase.Err != "" {
		t.Errorf("%q of %s, told %+v", said, s.Candidate.Version, actions[1].Phase)
	}
}

// TestABoxThatItsDiskMadeGiveUpTellsEachRolloutSo: none takes it for a verdict on the
// version.
func TestABoxThatItsDiskMadeGiveUpTellsEachRolloutSo(t *testing.T) {
	now := time.Date(2000, 1, 1, 12, 0, 0, 0, time.UTC)
	candidate := versionOf("2")
	for step, events := range map[Step][]Event{
		StepProbing: {{Kind: EventLost, Digest: candidate.Digest, Err: "of its files, model.onnx is damaged"}},
		StepTrial: {{Kind: EventStatus, Status: statusWith("2", runnerapi.ModelStatus{State: runnerapi.ModelFailed, Err: "a file of it is damaged", Damaged: true})},
			{Kind: EventStatus, Status: statusWith("1", runnerapi.ModelStatus{State: runnerapi.ModelReady})}},
	} {
		s := State{Name: "vad", Step: step, Want: wantOf("2", 0), For: wantOf("2", 0), Candidate: candidate, Current: versionOf("1"), Since: now,
			Mend: Mend{Digest: candidate.Digest, Times: maxMends}}
		for _, e := range events {
			s, _ = testRules.Next(s, e, now)
		}
		next := wantOf("2", 0)
		next.Rollout = "r-next"
		_, actions := testRules.Next(s, Event{Kind: EventWanted, Want: next, Generation: 2}, now)
		if said := words(actions); said != "stop report-failed" || !actions[1].Phase.Disk || actions[1].Phase.Rollout != "r-next" {
			t.Errorf("%s: %q, %+v", step, said, actions)
		}
	}
}
