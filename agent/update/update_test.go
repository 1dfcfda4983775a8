package update

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeherd/edgeherd/firmware"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/slot"
	"github.com/edgeherd/edgeherd/internal/trust"
)

func TestGoodAgentIsConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		first := b.publish("good new", 1)
		if got := b.boot(); got != slot.B {
			t.Errorf("slot %s runs, want b: %q", got, b.reports)
		}
		want := "fetching staging restarting probation active"
		if got := b.phases(); got != want || b.last().Release != first || b.last().Version != "1.1.0" {
			t.Errorf("phases %s, want %s (%+v)", got, want, b.last())
		}
		if s := b.slotState(); s.Good != slot.B || s.Trial.Slot != "" {
			t.Errorf("state %+v", s)
		}
		// The next one goes into the slot that became free, and only upwards.
		second := b.publish("good newer", 2)
		if got := b.boot(); got != slot.A || b.last().Release != second {
			t.Errorf("slot %s runs after the second update, %+v", got, b.last())
		}
		b.desired = first
		b.boot()
		if p := b.last(); p.Phase != "refused" || !strings.Contains(p.Err, "counter") {
			t.Errorf("downgrade: %+v, want refused", p)
		}
	})
}

func TestBadAgentGoesBackAndStaysRefused(t *testing.T) {
	for _, tc := range []struct{ program, phases string }{
		{"sick new", "fetching staging restarting probation failed"},
		{"deaf new", "fetching staging restarting probation rolled_back failed"},
		{"crash new", "fetching staging restarting failed"},
		{"garbage new", "fetching staging restarting failed"},
	} {
		t.Run(tc.program, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBox(t)
				digest := b.publish(tc.program, 1)
				if got := b.boot(); got != slot.A {
					t.Errorf("slot %s runs, want a", got)
				}
				if got := b.phases(); got != tc.phases || b.last().Release != digest {
					t.Errorf("phases %s, want %s", got, tc.phases)
				}
				if s := b.slotState(); s.Good != slot.A || s.Trial.Slot != "" || !s.HasFailed(blob.Sum([]byte(tc.program))) {
					t.Errorf("state %+v", s)
				}
				// The controller keeps asking, and then packs the same program anew.
				starts := len(b.starts)
				b.boot()
				b.publish(tc.program, 2)
				b.boot()
				if p := b.last(); p.Phase != "refused" || len(b.starts) != starts+2 {
					t.Errorf("asked again: %+v after %d more starts", p, len(b.starts)-starts)
				}
				// A better one is welcome.
				b.publish("good newer", 3)
				if got := b.boot(); got != slot.B || b.last().Phase != "active" {
					t.Errorf("slot %s, %+v", got, b.last())
				}
			})
		})
	}
}

func TestNobodyIsBlamedForADeadLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		digest := b.publish("good new", 1)
		for i := range maxUnjudged {
			// The line dies when the new agent starts.
			b.offline = false
			b.edit = func(u *Updater) { b.offline = b.offline || u.opts.Slot == slot.B }
			if got := b.boot(); got != slot.A || b.last().Phase != "inconclusive" || b.last().Release != digest {
				t.Fatalf("trial %d: slot %s, %+v", i, got, b.last())
			}
			if b.slotState().HasFailed(blob.Sum([]byte("good new"))) {
				t.Fatal("the new agent is remembered as failed")
			}
		}
		b.offline, b.edit = false, nil
		if got := b.boot(); got != slot.A || b.last().Phase != "refused" {
			t.Errorf("after %d trials: slot %s, %+v", maxUnjudged, got, b.last())
		}
	})
}

func TestAgentWithoutALineIsConfirmedWithoutOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		b.publish("deaf new", 1)
		// The release came from a site cache: no contact in this process.
		b.edit = func(u *Updater) { u.contact = time.Time{} }
		b.offline = true
		if err := os.WriteFile(filepath.Join(b.state, "update.json"),
			fmt.Appendf(nil, `{"version":1,"state":{"step":"fetching","job":{"release":%q},"desired":%q}}`, b.desired, b.desired), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := b.boot(); got != slot.B || b.last().Phase != "active" {
			t.Errorf("slot %s, %+v", got, b.last())
		}
	})
}

func TestForgedAndForeignReleasesAreRefused(t *testing.T) {
	stranger, err := trust.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		ours := b.key
		b.key = stranger
		b.publish("good new", 1)
		b.boot()
		if p := b.last(); p.Phase != "refused" || !strings.Contains(p.Err, trust.ErrUntrusted.Error()) {
			t.Errorf("forged: %+v", p)
		}
		b.key = ours
		r := firmware.Release{V: 1, Kind: firmware.KindAgent, Version: "9.0.0", Counter: 9,
			Builds: []firmware.Build{{OS: "plan9", Arch: "mips", Digest: newProgram, SizeBytes: 3}}}
		envelope, digest, err := firmware.Sign(r, ours)
		if err != nil {
			t.Fatal(err)
		}
		b.put(envelope)
		b.desired = digest
		b.boot()
		if p := b.last(); p.Phase != "refused" || !strings.Contains(p.Err, "no build for") {
			t.Errorf("foreign: %+v", p)
		}
		if !b.slots.Find().Found.B.IsZero() {
			t.Error("something was put into the other slot")
		}
	})
}

func TestFetchIsRepeatedUntilItWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		b.publish("good new", 1)
		program := blob.Sum([]byte("good new"))
		if err := b.blobs.Delete(program); err != nil {
			t.Fatal(err)
		}
		go func() {
			time.Sleep(20 * time.Minute)
			b.put([]byte("good new"))
		}()
		if got := b.boot(); got != slot.B || !strings.Contains(b.phases(), "staging waiting waiting") {
			t.Errorf("slot %s, phases %s", got, b.phases())
		}
		synctest.Wait()
	})
}

func TestFullDiskKeepsTheOldAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		b.publish("good new", 1)
		since := time.Now()
		b.edit = func(u *Updater) {
			u.free = func(string) (uint64, error) {
				if time.Since(since) < 30*time.Minute {
					return 1 << 20, nil
				}
				return 1 << 40, nil
			}
		}
		if got := b.boot(); got != slot.B || !strings.Contains(b.phases(), "staging waiting") {
			t.Errorf("slot %s, phases %s", got, b.phases())
		}
	})
}

// On a real file system without space nothing gets lost, and the update goes
// through when there is space again.
func TestRealFullDisk(t *testing.T) {
	mnt := t.TempDir()
	if err := syscall.Mount("tmpfs", mnt, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("needs the right to mount a tmpfs: %v (TestFullDiskKeepsTheOldAgent covers the rule)", err)
	}
	defer syscall.Unmount(mnt, syscall.MNT_DETACH)
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		b.slots.Dir = filepath.Join(mnt, "launcher")
		b.state = filepath.Join(mnt, "state")
		if err := os.Mkdir(b.state, 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := b.slots.Install(strings.NewReader("good old")); err != nil {
			t.Fatal(err)
		}
		program := "good " + strings.Repeat("x", 100<<10)
		b.publish(program, 1)
		b.edit = func(u *Updater) { u.free = func(string) (uint64, error) { return 1 << 40, nil } }
		full := fill(t, filepath.Join(mnt, "ballast"))
		// Room for state files and for half of the program.
		if fi, err := os.Stat(full); err != nil || os.Truncate(full, fi.Size()-64<<10) != nil {
			t.Fatal("make some room", err)
		}
		if got := b.boot(); got != slot.A || b.last().Phase == "active" {
			t.Errorf("full: slot %s, phases %s", got, b.phases())
		}
		if s := b.slotState(); s.Good != slot.A || s.Trial.Slot != "" {
			t.Errorf("full: state %+v", s)
		}
		if _, err := os.Stat(b.slots.StagePath(slot.B)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("half a program keeps the disk full: %v", err)
		}
		if err := os.Truncate(full, 0); err != nil {
			t.Fatal(err)
		}
		if got := b.boot(); got != slot.B || b.last().Phase != "active" {
			t.Errorf("with space: slot %s, %+v", got, b.last())
		}
	})
}

// fill writes until there is no space left and returns the path.
func fill(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 64 << 10; size > 0; size /= 2 {
		for {
			if _, err := f.Write(make([]byte, size)); err != nil {
				break
			}
		}
	}
	return path
}

// The journal only remembers what was intended: without a place for it a new
// agent is confirmed all the same.
func TestNewAgentIsConfirmedWithoutItsJournal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		b.publish("good new", 1)
		b.edit = func(u *Updater) {
			if u.opts.Slot == slot.B {
				u.journal.Path = filepath.Join(b.state, "absent", "update.json")
			}
		}
		if got, s := b.boot(), b.slotState(); got != slot.B || s.Good != slot.B {
			t.Errorf("slot %s, state %+v, phases %s", got, s, b.phases())
		}
	})
}

func TestDamagedStageIsDoneAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		b.publish("good new", 1)
		rotted := false
		b.edit = func(u *Updater) {
			u.slots.OnStep = func(step string) error {
				if step == "state saved" && !rotted {
					rotted = true
					return os.WriteFile(b.slots.Path(slot.B), []byte("rot"), 0o755)
				}
				return nil
			}
		}
		b.boot()
		if got := b.boot(); got != slot.B || !strings.Contains(b.phases(), "inconclusive") {
			t.Errorf("slot %s, phases %s", got, b.phases())
		}
	})
}

// TestAnyPowerCutLeavesAnAgent cuts the power after each durable step of a
// whole update, from the wish to the end, and boots again.
func TestAnyPowerCutLeavesAnAgent(t *testing.T) {
	for _, tc := range []struct {
		program string
		slot    slot.ID
		least   int
	}{
		{"good new", slot.B, 9},
		{"sick new", slot.A, 9},
		{"deaf new", slot.A, 10},
		{"crash new", slot.A, 10},
		{"garbage new", slot.A, 10},
	} {
		t.Run(tc.program, func(t *testing.T) {
			for at := 1; ; at++ {
				steps := 0
				synctest.Test(t, func(t *testing.T) {
					b := newBox(t)
					b.cutAt = at
					b.publish(tc.program, 1)
					got := b.boot()
					// A second boot, so that a cut in the last steps is repaired too.
					if again := b.boot(); again != got {
						t.Errorf("step %d: slot %s, after another boot %s", at, got, again)
					}
					s := b.slotState()
					failed := s.HasFailed(blob.Sum([]byte(tc.program)))
					if got != tc.slot || s.Good != tc.slot || s.Trial.Slot != "" || failed != (tc.slot == slot.A) {
						t.Errorf("step %d of %d: slot %s runs, state %+v, starts %q, phases %s", at, b.steps, got, s, b.starts, b.phases())
					}
					steps = b.steps
				})
				if at > steps {
					if at <= tc.least {
						t.Errorf("only %d durable steps: a hook is missing", at-1)
					}
					t.Logf("%d durable steps", steps)
					break
				}
				if t.Failed() {
					break
				}
			}
		})
	}
}

func TestCleanStopsDoNotEndATrial(t *testing.T) {
	b := newBox(t)
	s := b.slotState()
	if err := b.slots.Prepare(slot.B); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.slots.StagePath(slot.B), []byte("good new"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := b.slots.Seal(slot.B, blob.Sum([]byte("good new"))); err != nil {
		t.Fatal(err)
	}
	if err := b.slots.Save(s.Arm(slot.B, blob.Sum([]byte("good new")))); err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		c, err := b.slots.Choose(slot.Pair[bool]{}, time.Now())
		if err != nil || c.Slot != slot.B {
			t.Fatalf("start %d: %+v, %v", i, c, err)
		}
		u, err := New(Options{Slot: c.Slot, LauncherDir: b.slots.Dir, StateDir: b.state,
			Fetch: func(context.Context, blob.Digest) (string, error) { return "", errors.New("no line") }}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := errors.Join(u.Run(ctx), u.CleanStop()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWithoutLauncherUpdatesAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []Phase
		u, err := New(Options{StateDir: t.TempDir(), Report: func(p Phase) { got = append(got, p) },
			Fetch: func(context.Context, blob.Digest) (string, error) { return "", errors.New("no line") }}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- u.Run(ctx) }()
		for range 3 {
			u.SetDesired(rel1)
			synctest.Wait()
		}
		cancel()
		if err := errors.Join(<-done, u.CleanStop()); err != nil {
			t.Fatal(err)
		}
		if len(got) != 1 || got[0].Phase != "refused" || got[0].Release != rel1 {
			t.Errorf("reports %+v", got)
		}
	})
}

func TestOptionsAreChecked(t *testing.T) {
	fetch := func(context.Context, blob.Digest) (string, error) { return "", nil }
	for name, o := range map[string]Options{
		"nothing":           {},
		"no fetch":          {StateDir: "x"},
		"slot without dir":  {StateDir: "x", Fetch: fetch, Slot: slot.A},
		"unknown slot":      {StateDir: "x", Fetch: fetch, Slot: "c", LauncherDir: "x"},
		"probation too big": {StateDir: "x", Fetch: fetch, ProbationMin: time.Hour},
	} {
		if _, err := New(o, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
