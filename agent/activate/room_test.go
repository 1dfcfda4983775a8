package activate

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/models"
)

// smallDisk refuses the weights of one version for as long as err is set.
type smallDisk struct {
	w     *world
	d     blob.Digest
	mu    sync.Mutex // guards the fields below
	err   error
	looks []time.Time // at the disk, while err was set
}

func (w *world) smallDisk(version string) *smallDisk {
	w.t.Helper()
	s := &smallDisk{w: w, d: blob.Sum([]byte("weights " + version))}
	w.stop()
	w.opts.Fetch, w.opts.FetchLimit = s.fetch, 6*time.Hour
	w.start()
	return s
}

func (s *smallDisk) set(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *smallDisk) fetch(ctx context.Context, f models.File, progress func(done, total int64)) error {
	if f.Digest != s.d || s.w.store.Has(f.Digest) {
		return s.w.fetch(ctx, f, progress)
	}
	s.mu.Lock()
	err := s.err
	if err != nil {
		s.looks = append(s.looks, time.Now())
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if !sleep(ctx, 2*progressEvery) {
		return ctx.Err()
	}
	progress(1, f.SizeBytes)
	return s.w.fetch(ctx, f, progress)
}

func (s *smallDisk) seen() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.looks
}

// journalDisk gives the journal of a world that is stopped a disk that is full while
// set says so.
func (w *world) journalDisk() (set func(full bool)) {
	var full atomic.Bool
	w.opts.Journal.OnSave = func() error {
		if full.Load() {
			return fmt.Errorf("write activate.json: %w", syscall.ENOSPC)
		}
		return w.point()
	}
	return full.Store
}

// pass lets time go by, in the bubble.
func (w *world) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// said is the errors of the reports of one phase, in their order.
func (w *world) said(version string, phase Step) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, p := range w.phases {
		if p.DoneBytes == 0 && p.Version == version && p.Phase == string(phase) {
			out = append(out, p.Err)
		}
	}
	return out
}

var errRoom = fmt.Errorf("fetch model.onnx: %w: it needs 812 MB, /models has 300 MB", blob.ErrNoRoom)

// TestAFullDiskIsWaitedOutWithItsReason, however long it takes: it says nothing
// of the version.
func TestAFullDiskIsWaitedOutWithItsReason(t *testing.T) {
	for name, full := range map[string]error{"no room before the first byte": errRoom, "no space": syscall.ENOSPC, "over the quota": syscall.EDQUOT} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				one, two := w.publish("1.0", nil), w.publish("2.0", nil)
				w.want(1, one)
				disk := w.smallDisk("2.0")
				disk.set(full)
				w.want(2, two)
				w.pass(24 * time.Hour)
				w.wantServes("vad:1.0")
				said := w.said("2.0", StepFetching)
				if len(said) != 2 || said[0] != "" || !strings.Contains(said[1], "waits for room: "+full.Error()) || !strings.Contains(said[1], "1.0 serves meanwhile") {
					t.Errorf("said %q, want the reason once", said)
				}
				looks := disk.seen()
				if len(looks) < 10 {
					t.Errorf("looked %d times in a day", len(looks))
					return
				}
				for i, at := range looks[1:] {
					if gap := at.Sub(looks[i]); gap < 30*time.Second || gap > time.Hour {
						t.Errorf("looked again after %s, want half a minute to an hour", gap)
					}
				}
				if last := looks[len(looks)-1].Sub(looks[len(looks)-2]); last < 30*time.Minute {
					t.Errorf("still looks each %s after a day", last)
				}
				w.fetched = 0
				disk.set(nil)
				w.pass(2 * time.Hour)
				w.wantServes("vad:2.0")
				if w.fetched != 1 {
					t.Errorf("%d files came once there was room, want the one that was missing", w.fetched)
				}
			})
		})
	}
}

// TestTheReasonGoesWhenBytesCome: a download may take hours.
func TestTheReasonGoesWhenBytesCome(t *testing.T) {
	inWorld(t, func(w *world) {
		disk := w.smallDisk("1.0")
		disk.set(errRoom)
		w.want(1, w.publish("1.0", nil))
		disk.set(nil)
		w.pass(2 * time.Hour)
		if said := w.said("1.0", StepFetching); len(said) != 3 || !strings.Contains(said[1], "nothing serves meanwhile") || said[2] != "" {
			t.Errorf("said %q, want the reason, and that it has gone", said)
		}
	})
}

// TestWhoAsksAgainHasTheDiskLookedAt at once.
func TestWhoAsksAgainHasTheDiskLookedAt(t *testing.T) {
	inWorld(t, func(w *world) {
		disk := w.smallDisk("1.0")
		disk.set(errRoom)
		one := w.publish("1.0", nil)
		w.want(1, one)
		w.pass(12 * time.Hour)
		disk.set(nil)
		one.Attempt++
		w.want(2, one)
		w.wantServes("vad:1.0")
	})
}

// TestALineThatBreaksAfterTheDiskWasFullHasItsWholeTime.
func TestALineThatBreaksAfterTheDiskWasFullHasItsWholeTime(t *testing.T) {
	now := time.Date(2000, 1, 1, 12, 0, 0, 0, time.UTC)
	s := State{Name: "vad", Step: StepFetching, Want: wantOf("2", 0), For: wantOf("2", 0), Candidate: versionOf("2"), Since: now}
	s, _ = testRules.Next(s, Event{Kind: EventFailed, Err: "full", Blame: BlameRoom}, now.Add(50*time.Hour))
	s, actions := testRules.Next(s, Event{Kind: EventFailed, Err: "away"}, now.Add(50*time.Hour+time.Minute))
	if s.Step != StepFetching || words(actions) != "files-later" {
		t.Errorf("%s with %q, want another try", s.Step, words(actions))
	}
}

// TestAFileBeyondEveryLimitFails: waiting would not help.
func TestAFileBeyondEveryLimitFails(t *testing.T) {
	inWorld(t, func(w *world) {
		disk := w.smallDisk("1.0")
		disk.set(fmt.Errorf("fetch: %w", blob.ErrTooLarge))
		w.want(1, w.publish("1.0", nil))
		if p := w.last(); p.Phase != PhaseFailed || !strings.Contains(p.Err, "too large") {
			t.Errorf("last report %+v", p)
		}
	})
}

// TestAJournalThatTakesNothingIsTold: the version stands still until it does.
func TestAJournalThatTakesNothingIsTold(t *testing.T) {
	inWorld(t, func(w *world) {
		one, two := w.publish("1.0", nil), w.publish("2.0", nil)
		w.want(1, one)
		w.stop()
		set := w.journalDisk()
		w.start()
		w.act.SetDesired(Desired{Generation: 2, Models: []Want{two}})
		w.pass(time.Second)
		set(true)
		w.settle()
		w.wantServes("vad:1.0")
		if p := w.last(); p.Version != "2.0" || !strings.Contains(p.Err, "takes no writes") || !strings.Contains(p.Err, "make room") {
			t.Errorf("last report %+v, want why it stands still", p)
		}
		set(false)
		w.settle()
		w.wantServes("vad:2.0")
		if said := w.said("2.0", StepFetching); len(said) == 0 || strings.Contains(said[len(said)-1], "takes no writes") {
			t.Errorf("said %q and nothing after it", said)
		}
	})
}

// TestFewMillisecondsAreNoRegression: a busy box adds them to any version.
func TestFewMillisecondsAreNoRegression(t *testing.T) {
	for _, tt := range []struct {
		name    string
		was, is float64 // milliseconds
		want    string
	}{
		{"a small model on a box that has become busy", 0.4, 3, ""},
		{"some slices of the scheduler", 1, 11, ""},
		{"more than a busy box adds", 1, 11.1, "it is slow: 95 % of requests within 11.1 ms, the version before needed 1.0 ms"},
		{"a fraction of a millisecond before", 0.4, 20, "it is slow: 95 % of requests within 20.0 ms, the version before needed 0.4 ms"},
		{"slower within the ratio", 100, 399, ""},
		{"slower beyond it", 100, 401, "it is slow: 95 % of requests within 401.0 ms, the version before needed 100.0 ms"},
	} {
		m := runnerapi.ModelStatus{State: runnerapi.ModelReady, Requests: 100, LatencyP95: tt.is / 1e3}
		base := runnerapi.ModelStatus{Requests: 100, LatencyP95: tt.was / 1e3}
		if got := testRules.judge(m, base, true); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
