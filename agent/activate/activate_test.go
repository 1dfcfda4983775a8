package activate

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/models"
)

// inWorld runs a story in fake time.
func inWorld(t *testing.T, story func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start()
		story(w)
		w.stop()
	})
}

// A version with one before it runs in its shadow first.
const (
	firstUp = ":fetching %[1]s:probing %[1]s:switching %[1]s:trial %[1]s:active"
	nextUp  = ":fetching %[1]s:probing %[1]s:shadow %[1]s:switching %[1]s:trial %[1]s:active"
)

// upTo is the reports of versions that came to serve.
func upTo(versions ...string) string {
	var words []string
	for i, v := range versions {
		up := nextUp
		if i == 0 {
			up = firstUp
		}
		words = append(words, v+fmt.Sprintf(up, v))
	}
	return strings.Join(words, " ")
}

func TestWantedVersionComesToServe(t *testing.T) {
	inWorld(t, func(w *world) {
		one := w.publish("1.0", nil)
		w.want(7, one)
		w.wantTrace(upTo("1.0"))
		w.wantServes("vad:1.0")
		if p := w.last(); p.Rollout != "r-1.0" || p.Generation != 7 || p.Digest != one.Digest {
			t.Errorf("last report %+v, want rollout, generation and digest of the want", p)
		}
		act, _ := w.readActive()
		if act.Generation != 7 || act.Blobs != w.store.Dir() {
			t.Errorf("active.json has generation %d and blobs %s", act.Generation, act.Blobs)
		}
		two := w.publish("2.0", nil)
		w.want(8, two)
		w.wantTrace(upTo("1.0", "2.0"))
		w.wantServes("vad:2.0")
		for _, p := range w.phases {
			if p.Phase == string(StepSwitching) && (p.Probe == nil || p.Probe.GoldenPassed != 2) {
				t.Errorf("report %+v lacks the probe", p)
			}
		}
	})
}

func TestProgressOfADownloadIsReported(t *testing.T) {
	inWorld(t, func(w *world) {
		w.want(1, w.publish("1.0", nil))
		var got []int64
		for _, p := range w.phases {
			if p.DoneBytes > 0 {
				got = append(got, p.DoneBytes)
				if p.Phase != string(StepFetching) || p.TotalBytes != 33 || p.Version != "1.0" {
					t.Errorf("progress %+v, want fetching of 33 bytes", p)
				}
			}
		}
		// Each file takes twelve seconds; half of the second file is 22 bytes.
		if len(got) != 1 || got[0] != 22 {
			t.Errorf("progress at %v, want one report, at 22", got)
		}
	})
}

func TestPreviousVersionIsKeptAndOlderOnesAreNot(t *testing.T) {
	inWorld(t, func(w *world) {
		one, two, three := w.publish("1.0", nil), w.publish("2.0", nil), w.publish("3.0", nil)
		w.want(1, one)
		w.want(2, two)
		if got := w.blobs(); got != 5 {
			t.Errorf("%d blobs, want 5: two manifests, two models, the shared labels", got)
		}
		w.want(3, three)
		if got := w.blobs(); got != 5 || w.store.Has(one.Digest) {
			t.Errorf("%d blobs, want 5 of 2.0 and 3.0", got)
		}
		w.offline = true
		w.want(4, two)
		w.wantServes("vad:2.0")
		if p := w.last(); p.Version != "2.0" || p.Phase != PhaseActive {
			t.Errorf("last report %+v, want 2.0 active though the link is down", p)
		}
		w.offline = false
		// What is pinned stays besides, for as long as it is, and nothing is fetched for it.
		four := w.publish("4.0", nil)
		w.act.SetDesired(Desired{Generation: 5, Models: []Want{four}, Keep: []models.Ref{three.Ref, one.Ref}})
		w.settle()
		if got := w.blobs(); got != 7 || !w.store.Has(three.Digest) || w.store.Has(one.Digest) {
			t.Errorf("%d blobs, want 7: 2.0, 4.0 and the pinned 3.0", got)
		}
		w.want(6, two)
		if got := w.blobs(); got != 5 || w.store.Has(three.Digest) {
			t.Errorf("%d blobs, want 5 once 3.0 is not pinned any more", got)
		}
	})
}

func TestBlobsOfOthersStay(t *testing.T) {
	inWorld(t, func(w *world) {
		foreign := blob.Sum([]byte("release"))
		if err := w.store.Put(strings.NewReader("release"), foreign); err != nil {
			t.Fatal(err)
		}
		w.want(1, w.publish("1.0", nil))
		w.want(2)
		w.wantServes("")
		if got := w.blobs(); got != 1 || !w.store.Has(foreign) {
			t.Errorf("%d blobs, want only the one that somebody else put there", got)
		}
	})
}

// TestVersionThatDisagreesNeverServes: the manifest says how much two versions
// must have in common.
func TestVersionThatDisagreesNeverServes(t *testing.T) {
	inWorld(t, func(w *world) {
		one := w.publish("1.0", nil)
		two := w.publish("2.0", func(m *models.Manifest) { m.Shadow = &models.Shadow{MinAgreement: 0.9} })
		w.faults[two.Digest] = fault{differs: true}
		w.want(1, one)
		w.want(2, two)
		w.wantTrace(upTo("1.0") + " 2.0:fetching 2.0:probing 2.0:shadow 2.0:failed")
		w.wantServes("vad:1.0")
		if p := w.last(); !strings.Contains(p.Err, "agree to 50.0 %") || p.Probe == nil || p.Probe.Shadow == nil || p.Probe.Shadow.Compared != 60 {
			t.Errorf("report %+v, want a reason and what was compared", p)
		}
		if n := w.candidates(); n != 0 {
			t.Errorf("%d candidates stay warm", n)
		}
	})
}

func TestBadVersionLeavesTheOldOneServing(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault fault
		trace string
		err   string
	}{
		{"golden sample differs", fault{probe: "golden case 1: output differs"}, "2.0:fetching 2.0:probing 2.0:failed", "golden case 1"},
		{"never ready", fault{broken: true}, "2.0:fetching 2.0:probing 2.0:shadow 2.0:switching 2.0:rolled_back", "within 5m0s"},
		{"requests fail", fault{fails: true}, "2.0:fetching 2.0:probing 2.0:shadow 2.0:switching 2.0:trial 2.0:rolled_back", "10 of 100 requests failed"},
		{"worker crashes", fault{crash: true}, "2.0:fetching 2.0:probing 2.0:shadow 2.0:switching 2.0:trial 2.0:rolled_back", "worker crashed"},
		{"slow", fault{slow: true}, "2.0:fetching 2.0:probing 2.0:shadow 2.0:switching 2.0:trial 2.0:rolled_back", "it is slow"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				one, two := w.publish("1.0", nil), w.publish("2.0", nil)
				w.faults[two.Digest] = tt.fault
				w.want(1, one)
				w.want(2, two)
				w.wantTrace(upTo("1.0") + " " + tt.trace)
				w.wantServes("vad:1.0")
				if p := w.last(); !strings.Contains(p.Err, tt.err) || p.Rollout != "r-2.0" {
					t.Errorf("report %+v, want a reason with %q", p, tt.err)
				}
				if n := w.candidates(); n != 0 {
					t.Errorf("%d candidates stay warm", n)
				}
				// The same again is not tried, not even after a restart.
				w.stop()
				w.start()
				w.want(3, two)
				w.wantTrace(upTo("1.0") + " " + tt.trace)
				// Another rollout of it gets an answer without a try.
				other := two
				other.Rollout = "r-other"
				w.want(4, other)
				if p := w.last(); p.Rollout != "r-other" || !strings.Contains(p.Err, "failed on this box before") {
					t.Errorf("report %+v, want the old failure for the new rollout", p)
				}
				// An explicit retry is tried, and needs no bytes.
				w.fetched = 0
				delete(w.faults, two.Digest)
				other.Attempt = 1
				w.want(5, other)
				w.wantServes("vad:2.0")
				if w.fetched != 0 {
					t.Errorf("the retry fetched %d blobs again", w.fetched)
				}
			})
		})
	}
}

func TestFirstVersionThatFailsLeavesNothingServing(t *testing.T) {
	inWorld(t, func(w *world) {
		one := w.publish("1.0", nil)
		w.faults[one.Digest] = fault{fails: true}
		w.want(1, one)
		w.wantServes("")
		w.want(2)
		if got := w.blobs(); got != 0 {
			t.Errorf("%d blobs stay though nothing is wanted", got)
		}
	})
}

func TestManifestThatMayNotBeFollowedIsRefusedBeforeItsFilesAreFetched(t *testing.T) {
	for _, tt := range []struct {
		name string
		make func(w *world) Want
		err  string
	}{
		{"another signature", func(w *world) Want {
			return w.publish("2.0", func(m *models.Manifest) {
				m.Signature.Inputs = []models.TensorSpec{m.Signature.Inputs[0], {Name: "h", DType: models.FP32}}
			})
		}, `callers of 1.0 could not use it: input "h" is new`},
		{"a pipeline is gone", func(w *world) Want {
			return w.publish("2.0", nil)
		}, `callers of 1.0 could not use it: pipeline "parts" is gone`},
		{"another model", func(w *world) Want {
			want := w.publish("2.0", func(m *models.Manifest) { m.Name = "ocr" })
			want.Name = "vad"
			return want
		}, "it is of ocr:2.0, not of vad:2.0"},
		{"another key", func(w *world) Want {
			key, err := trust.NewKey()
			if err != nil {
				t.Fatal(err)
			}
			w.key, key = key, w.key
			want := w.publish("2.0", nil)
			w.key = key
			return want
		}, "not signed by a trusted key"},
		{"garbage", func(w *world) Want {
			return w.offer(models.Ref{Name: "vad", Version: "2.0", Digest: blob.Sum([]byte("{}"))}, []byte("{}"))
		}, "envelope"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.want(1, w.publish("1.0", func(m *models.Manifest) {
					m.Pipelines = []models.Pipeline{{Name: "parts", Takes: models.KindAudio, Stages: []models.Stage{
						{Name: "windows", With: map[string]any{"input": "x", "size": 16.0}}, {Name: "run"}, {Name: "segments", With: map[string]any{"output": "x", "label": "speech"}}}}}
				}))
				w.fetched = 0
				w.want(2, tt.make(w))
				w.wantTrace(upTo("1.0") + " 2.0:fetching 2.0:refused")
				w.wantServes("vad:1.0")
				if p := w.last(); !strings.Contains(p.Err, tt.err) {
					t.Errorf("reason %q, want one with %q", p.Err, tt.err)
				}
				if w.fetched != 1 {
					t.Errorf("%d blobs fetched, want the manifest only", w.fetched)
				}
			})
		})
	}
}

func TestLinkDownIsWaitedOutAndNotTheModelsFault(t *testing.T) {
	inWorld(t, func(w *world) {
		w.offline = true
		w.want(1, w.publish("1.0", nil))
		w.wantTrace("1.0:fetching")
		w.mu.Lock()
		w.offline = false
		w.mu.Unlock()
		w.settle()
		w.wantTrace(upTo("1.0"))
	})
}

func TestLinkDownForTooLongEndsWithAReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.opts.FetchLimit, w.offline = 10*time.Minute, true
		w.start()
		w.want(1, w.publish("1.0", nil))
		w.wantTrace("1.0:fetching 1.0:failed")
		if p := w.last(); !strings.Contains(p.Err, "not fetched within 10m0s: no route to controller") {
			t.Errorf("reason %q", p.Err)
		}
		w.stop()
	})
}

func TestRunnerAwayIsWaitedOut(t *testing.T) {
	inWorld(t, func(w *world) {
		w.setDown(true)
		w.act.SetDesired(Desired{Generation: 1, Models: []Want{w.publish("1.0", nil)}})
		time.Sleep(5 * time.Minute)
		w.wantTrace("1.0:fetching 1.0:probing")
		w.setDown(false)
		w.settle()
		w.wantTrace(upTo("1.0"))
		w.wantServes("vad:1.0")
		w.setDown(true)
		time.Sleep(2 * time.Minute)
		if got := w.act.Running(); len(got) != 0 {
			t.Errorf("running %v though the runner is gone", got)
		}
	})
}

func TestRunnerAwayForTooLongEndsWithAReason(t *testing.T) {
	for _, tt := range []struct {
		name, trace string
		when        time.Duration
	}{
		{"before the probe", "2.0:fetching 2.0:probing 2.0:failed", 0},
		{"in the trial", "2.0:fetching 2.0:probing 2.0:shadow 2.0:switching 2.0:trial 2.0:rolled_back", 40 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.want(1, w.publish("1.0", nil))
				w.act.SetDesired(Desired{Generation: 2, Models: []Want{w.publish("2.0", nil)}})
				time.Sleep(tt.when)
				w.setDown(true)
				w.settle()
				w.settle()
				w.wantTrace(upTo("1.0") + " " + tt.trace)
				if got := w.serves(); got != "vad:1.0" {
					t.Errorf("active.json names %q, want the old version", got)
				}
			})
		})
	}
}

func TestChangeOfMindAtAnyTimeEndsWithWhatIsWanted(t *testing.T) {
	for _, wait := range []time.Duration{0, time.Second, 13 * time.Second, 30 * time.Second, 37 * time.Second, 45 * time.Second, 2 * time.Minute} {
		for _, to := range []string{"back to 1.0", "on to 3.0", "none"} {
			t.Run(fmt.Sprintf("%s after %s", to, wait), func(t *testing.T) {
				inWorld(t, func(w *world) {
					one, two, three := w.publish("1.0", nil), w.publish("2.0", nil), w.publish("3.0", nil)
					w.want(1, one)
					w.act.SetDesired(Desired{Generation: 2, Models: []Want{two}})
					time.Sleep(wait)
					switch to {
					case "back to 1.0":
						w.want(3, one)
						w.wantServes("vad:1.0")
					case "on to 3.0":
						w.want(3, three)
						w.wantServes("vad:3.0")
					case "none":
						w.want(3)
						w.wantServes("")
						if got := w.blobs(); got != 0 {
							t.Errorf("%d blobs stay", got)
						}
					}
					if n := w.candidates(); n != 0 {
						t.Errorf("%d candidates stay warm", n)
					}
					// Nobody blamed 2.0, so it may come.
					w.want(4, two)
					w.wantServes("vad:2.0")
				})
			})
		}
	}
}

func TestRunningVersionIsReportedToANewRollout(t *testing.T) {
	inWorld(t, func(w *world) {
		one := w.publish("1.0", nil)
		w.want(1, one)
		one.Rollout = "r-again"
		w.want(2, one)
		w.wantTrace(upTo("1.0") + " 1.0:active")
		if p := w.last(); p.Rollout != "r-again" {
			t.Errorf("report %+v, want the new rollout", p)
		}
	})
}

func TestModelsMoveIndependently(t *testing.T) {
	inWorld(t, func(w *world) {
		other := w.publish("9.0", func(m *models.Manifest) { m.Name = "ocr" })
		gone := Want{Ref: models.Ref{Name: "late", Version: "1.0", Digest: blob.Sum([]byte("nowhere"))}}
		w.want(1, w.publish("1.0", nil), other, gone)
		w.wantServes("ocr:9.0 vad:1.0")
		w.want(2, other)
		w.wantServes("ocr:9.0")
	})
}

func TestFilesThatWereLostAreFetchedAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		one := w.publish("1.0", nil)
		w.want(1, one)
		w.stop()
		if err := os.Remove(w.store.Path(blob.Sum([]byte("weights 1.0")))); err != nil {
			t.Fatal(err)
		}
		w.loaded = map[blob.Digest]*runnerapi.ModelStatus{} // it restarts as well
		w.start()
		w.settle()
		w.wantServes("vad:1.0")
		if err := w.usable(one.Ref); err != nil {
			t.Error(err)
		}
	})
}

func TestDamagedJournalIsRebuiltFromWhatServes(t *testing.T) {
	inWorld(t, func(w *world) {
		one, two := w.publish("1.0", nil), w.publish("2.0", nil)
		w.want(1, one)
		w.stop()
		if err := os.WriteFile(w.opts.Journal.Path, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		w.start()
		w.settle()
		w.wantServes("vad:1.0")
		w.want(2, two)
		w.wantTrace(upTo("1.0", "2.0"))
	})
}

func TestOptionsAreRequired(t *testing.T) {
	if _, err := New(Options{}, nil); err == nil {
		t.Error("no error without options")
	}
}

// TestAFileThatIsWholeIsKeptWhateverAManifestSaysOfIt: the version that serves has it too.
func TestAFileThatIsWholeIsKeptWhateverAManifestSaysOfIt(t *testing.T) {
	inWorld(t, func(w *world) {
		one := w.publish("1.0", nil)
		two := w.publish("2.0", func(m *models.Manifest) { m.Files[1].SizeBytes++ })
		w.want(1, one)
		before := w.inodes()
		w.rmu.Lock()
		w.spoils = true
		w.rmu.Unlock()
		w.act.SetDesired(Desired{Generation: 2, Models: []Want{two}})
		time.Sleep(time.Minute) // the runner is being asked again
		w.restart(func() {})
		time.Sleep(time.Hour)
		w.wantServes("vad:1.0")
		w.whole(one)
		for d, inode := range before {
			if w.inodes()[d] != inode {
				t.Errorf("the sound file %s was touched", d)
			}
		}
		if p := w.last(); p.Phase != PhaseFailed || !strings.Contains(p.Err, "its manifest says") {
			t.Errorf("last report %+v", p)
		}
	})
}
