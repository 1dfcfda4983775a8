package activate

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
)

// The box dies at every point in turn: after a write of the journal or of
// active.json, before a report, a download, and each call to the runner. What
// ran before must still be there, and the end must be the same.
func TestBoxThatDiesAnywhereComesToTheSameEnd(t *testing.T) {
	stories := []struct {
		name   string
		fault  fault
		serves string
		phase  string
	}{
		{"a good version", fault{}, "vad:2.0", PhaseActive},
		{"a version that fails its probe", fault{probe: "golden"}, "vad:1.0", PhaseFailed},
		{"a version that fails its trial", fault{fails: true}, "vad:1.0", PhaseRolledBack},
		{"a version that is never ready", fault{broken: true}, "vad:1.0", PhaseRolledBack},
	}
	for _, st := range stories {
		t.Run(st.name, func(t *testing.T) {
			for point := 0; ; point++ {
				died := false
				synctest.Test(t, func(t *testing.T) {
					died = dieAt(t, point, st.fault, st.serves, st.phase)
					if t.Failed() {
						t.Logf("when the box dies at point %d", point)
					}
				})
				if !died {
					if point < 10 {
						t.Errorf("only %d points were met", point)
					}
					return
				}
			}
		})
	}
}

func dieAt(t *testing.T, point int, f fault, serves, phase string) bool {
	w := newWorld(t)
	one, two, three := w.publish("1.0", nil), w.publish("2.0", nil), w.publish("3.0", nil)
	w.start()
	w.want(1, one)
	w.faults[two.Digest] = f
	w.phases, w.crash = nil, point
	w.act.SetDesired(Desired{Generation: 2, Models: []Want{two}})
	time.Sleep(10 * time.Minute)
	w.stop()
	died := w.dead
	// Whatever the disk holds now must be enough to serve without an agent.
	w.rmu.Lock()
	w.loaded = map[blob.Digest]*runnerapi.ModelStatus{}
	w.obey()
	served := w.serves()
	w.rmu.Unlock()
	if served != "vad:1.0" && served != "vad:2.0" {
		t.Errorf("after the crash active.json names %q", served)
	}
	var b book
	if _, err := w.opts.Journal.Load(&b); err != nil {
		t.Error(err)
	}
	if step := b.Models["vad"].Step; served == "vad:2.0" && (step == StepFetching || step == StepProbing) {
		t.Errorf("active.json names 2.0 though the journal is still %s", step)
	}
	w.mu.Lock()
	w.crash, w.dead = -1, false
	w.mu.Unlock()
	w.start()
	w.want(2, two)
	w.wantServes(serves)
	if p := w.last(); p.Version != "2.0" || p.Phase != phase {
		t.Errorf("last report %s:%s, want 2.0:%s; all: %s", p.Version, p.Phase, phase, w.trace())
	}
	if n := w.candidates(); n != 0 {
		t.Errorf("%d candidates stay warm", n)
	}
	// Nothing is left over: the next version comes, and old blobs go.
	w.want(3, three)
	w.wantServes("vad:3.0")
	if got := w.blobs(); got != 5 {
		t.Errorf("%d blobs, want 5 of two versions", got)
	}
	w.stop()
	return died
}

// A version that takes the box down in its probe or trial must not do so for
// ever.
func TestVersionThatKillsTheBoxIsGivenUp(t *testing.T) {
	for _, when := range []time.Duration{25 * time.Second, 40 * time.Second} {
		t.Run(fmt.Sprintf("after %s", when), func(t *testing.T) {
			inWorld(t, func(w *world) {
				one, two := w.publish("1.0", nil), w.publish("2.0", nil)
				w.want(1, one)
				if when < 30*time.Second {
					w.setDown(true) // it stays in its probe
				}
				w.act.SetDesired(Desired{Generation: 2, Models: []Want{two}})
				time.Sleep(when + 12*time.Second)
				for range maxRestarts {
					w.stop()
					w.start()
					time.Sleep(5 * time.Second)
				}
				w.stop()
				w.setDown(false)
				w.start()
				w.settle()
				w.wantServes("vad:1.0")
				if p := w.last(); p.Version != "2.0" || p.Err != "the box or its agent restarted 6 times with it" {
					t.Errorf("last report %+v, want 2.0 given up", p)
				}
			})
		})
	}
}
