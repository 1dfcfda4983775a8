package activate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/models"
)

// spoilt ways of a file.
var spoilings = []struct {
	name string
	do   func(t *testing.T, path string)
}{
	{"a bit flips", func(t *testing.T, path string) {
		rewrite(t, path, func(data []byte) []byte { data[len(data)/2] ^= 1; return data })
	}},
	{"it is cut short", func(t *testing.T, path string) {
		rewrite(t, path, func(data []byte) []byte { return data[:len(data)-1] })
	}},
	{"it is gone", func(t *testing.T, path string) {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}},
	{"it cannot be read", func(t *testing.T, path string) {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("/proc/self/mem", path); err != nil { // the first page is EIO
			t.Fatal(err)
		}
		if _, err := os.ReadFile(path); !strings.Contains(fmt.Sprint(err), syscall.EIO.Error()) {
			t.Fatalf("reading gives %v, want EIO", err)
		}
	}},
}

// rewrite changes a blob in its place, as a disk does.
func rewrite(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(data), 0o444); err != nil {
		t.Fatal(err)
	}
}

func flip(t *testing.T, path string) { t.Helper(); spoilings[0].do(t, path) }

// weights is where the model file of a version lies.
func (w *world) weights(version string) string {
	return w.store.Path(blob.Sum([]byte("weights " + version)))
}

func (w *world) setOffline(offline bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.offline = offline
}

// restart is a power cycle of the box; spoil is what its disk did meanwhile.
func (w *world) restart(spoil func()) {
	w.t.Helper()
	w.stop()
	spoil()
	w.rmu.Lock()
	w.spoils = true
	w.loaded = map[blob.Digest]*runnerapi.ModelStatus{}
	w.rmu.Unlock()
	w.start()
	w.settle()
}

// whole wants that versions lie on the disk as they were published.
func (w *world) whole(wants ...Want) {
	w.t.Helper()
	for _, want := range wants {
		if err := w.usable(want.Ref); err != nil {
			w.t.Errorf("%s: %v", want.Ref, err)
		}
	}
}

// inodes tells which files of the store are the same as before.
func (w *world) inodes() map[blob.Digest]uint64 {
	w.t.Helper()
	list, err := w.store.List()
	if err != nil {
		w.t.Fatal(err)
	}
	found := map[blob.Digest]uint64{}
	for _, d := range list {
		if fi, err := os.Lstat(w.store.Path(d)); err == nil {
			found[d] = fi.Sys().(*syscall.Stat_t).Ino
		}
	}
	return found
}

// TestADamagedFileIsFetchedAgainWhileTheVersionBeforeServes: whatever the disk does to
// whichever file, the box says so, serves what is whole, fetches the one file, and
// says nothing any more.
func TestADamagedFileIsFetchedAgainWhileTheVersionBeforeServes(t *testing.T) {
	for _, file := range []string{"model.onnx", "the manifest", "own.txt"} {
		for _, sp := range spoilings {
			t.Run(file+", "+sp.name, func(t *testing.T) {
				inWorld(t, func(w *world) {
					one, two := w.publish("1.0", nil), w.publish("2.0", w.alone)
					w.want(1, one)
					w.want(2, two)
					victim := map[string]blob.Digest{"model.onnx": blob.Sum([]byte("weights 2.0")), "the manifest": two.Digest, "own.txt": blob.Sum([]byte("only 2.0"))}[file]
					w.setOffline(true)
					before := w.inodes()
					w.phases, w.fetched = nil, 0
					w.restart(func() { sp.do(t, w.store.Path(victim)) })
					w.wantServes("vad:1.0")
					if len(w.phases) == 0 {
						w.t.Fatal("nothing is told")
					}
					told := w.phases[0]
					if told.Version != "2.0" || told.Phase != "fetching" || !strings.Contains(told.Err, file) || !strings.Contains(told.Err, "1.0 serves meanwhile") {
						t.Errorf("told %+v", told)
					}
					if w.fetched != 0 || w.store.Has(victim) {
						t.Errorf("%d fetched without a line; the bad file is there: %v", w.fetched, w.store.Has(victim))
					}
					w.setOffline(false)
					w.settle()
					w.wantServes("vad:2.0")
					w.whole(one, two)
					if p := w.last(); p.Phase != PhaseActive || p.Err != "" || p.Version != "2.0" || w.fetched != 1 {
						t.Errorf("last report %+v, %d files fetched", p, w.fetched)
					}
					after := w.inodes()
					for d, inode := range before {
						if d != victim && after[d] != inode {
							t.Errorf("sound file %s was touched", d)
						}
					}
				})
			})
		}
	}
}

// alone gives a version a file that no other has.
func (w *world) alone(m *models.Manifest) {
	content := []byte("only " + m.Version)
	w.remote[blob.Sum(content)] = content
	m.Files = append(m.Files, models.File{Path: "own.txt", Digest: blob.Sum(content), SizeBytes: int64(len(content))})
}

// TestDamageThatShowsWhileTheAgentRuns: only the runner starts again.
func TestDamageThatShowsWhileTheAgentRuns(t *testing.T) {
	inWorld(t, func(w *world) {
		one, two := w.publish("1.0", nil), w.publish("2.0", nil)
		w.want(1, one)
		w.want(2, two)
		flip(t, w.weights("2.0"))
		w.rmu.Lock()
		w.spoils, w.loaded = true, map[blob.Digest]*runnerapi.ModelStatus{}
		w.rmu.Unlock()
		w.settle()
		w.wantServes("vad:2.0")
		w.whole(one, two)
	})
}

func TestWhatTwoModelsShareIsFetchedOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		vad, ocr := w.publish("1.0", nil), w.publish("9.0", func(m *models.Manifest) { m.Name = "ocr" })
		w.want(1, vad, ocr)
		w.fetched = 0
		w.restart(func() { flip(t, w.store.Path(blob.Sum([]byte("shared by all versions")))) })
		w.wantServes("ocr:9.0 vad:1.0")
		w.whole(vad, ocr)
		if w.fetched != 1 {
			t.Errorf("%d files fetched", w.fetched)
		}
	})
}

func TestWithBothVersionsDamagedNothingServesUntilOneIsWhole(t *testing.T) {
	inWorld(t, func(w *world) {
		one, two := w.publish("1.0", nil), w.publish("2.0", nil)
		w.want(1, one)
		w.want(2, two)
		w.setOffline(true)
		w.restart(func() {
			flip(t, w.weights("1.0"))
			flip(t, w.weights("2.0"))
		})
		w.wantServes("")
		if p := w.last(); p.Version != "2.0" || !strings.Contains(p.Err, "it is fetched again; nothing serves meanwhile; 1.0 served, but of its files, model.onnx") {
			t.Errorf("without a line it says %+v", p)
		}
		w.setOffline(false)
		w.settle()
		w.wantServes("vad:2.0")
		w.whole(two)
		if p := w.last(); p.Phase != PhaseActive || p.Err != "" {
			t.Errorf("last report %+v", p)
		}
	})
}

// TestADamagedVersionIsFetchedAgainOnTheWayBackToIt: nobody looks at the files of a
// version that only lies there, pinned or as the one before, until it is wanted.
func TestADamagedVersionIsFetchedAgainOnTheWayBackToIt(t *testing.T) {
	inWorld(t, func(w *world) {
		one, two, three := w.publish("1.0", nil), w.publish("2.0", nil), w.publish("3.0", nil)
		pinned := func(gen uint64, want Want) {
			w.act.SetDesired(Desired{Generation: gen, Models: []Want{want}, Keep: []models.Ref{one.Ref}})
			w.settle()
		}
		pinned(1, one)
		pinned(2, two)
		pinned(3, three)
		w.fetched = 0
		w.restart(func() {
			flip(t, w.weights("1.0"))
			flip(t, w.weights("2.0"))
		})
		w.wantServes("vad:3.0")
		pinned(4, two)
		w.wantServes("vad:2.0")
		pinned(5, one)
		w.wantServes("vad:1.0")
		w.whole(one, two)
		if w.fetched != 2 {
			t.Errorf("%d files fetched, want the two damaged ones", w.fetched)
		}
	})
}

// TestWhatServedIsMendedThoughAnotherVersionIsWanted: the wanted one failed here.
func TestWhatServedIsMendedThoughAnotherVersionIsWanted(t *testing.T) {
	inWorld(t, func(w *world) {
		one, two, three := w.publish("1.0", nil), w.publish("2.0", nil), w.publish("3.0", nil)
		w.want(1, one)
		w.want(2, two)
		w.faults[three.Digest] = fault{probe: "wrong"}
		w.want(3, three)
		w.wantServes("vad:2.0")
		w.setOffline(true)
		w.restart(func() { flip(t, w.weights("2.0")) })
		w.wantServes("vad:1.0")
		w.setOffline(false)
		w.settle()
		w.wantServes("vad:2.0")
		w.whole(two)
	})
}

func TestAWithdrawnVersionDoesNotServeInPlaceOfADamagedOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var withdrawn blob.Digest
		w.opts.Allow = func(_ context.Context, ref models.Ref) error {
			if ref.Digest == withdrawn {
				return trust.ErrUntrusted
			}
			return nil
		}
		w.start()
		one, two := w.publish("1.0", nil), w.publish("2.0", nil)
		w.want(1, one)
		w.want(2, two)
		w.stop()
		withdrawn = one.Digest
		w.start()
		w.setOffline(true)
		w.restart(func() { flip(t, w.weights("2.0")) })
		w.wantServes("")
		w.setOffline(false)
		w.settle()
		w.wantServes("vad:2.0")
		w.stop()
	})
}

// TestAMendedVersionProvesNothingAnew: no request comes that it could be compared on,
// and its manifest asks for many.
func TestAMendedVersionProvesNothingAnew(t *testing.T) {
	inWorld(t, func(w *world) {
		one, two := w.publish("1.0", nil), w.publish("2.0", func(m *models.Manifest) { m.Shadow = &models.Shadow{MinCompared: 50} })
		w.want(1, one)
		w.want(2, two)
		w.rmu.Lock()
		w.quiet = true
		w.rmu.Unlock()
		w.restart(func() { flip(t, w.weights("2.0")) })
		w.wantServes("vad:2.0")
	})
}

// TestADiskThatSpoilsAllIsNotWornOut: what is fetched is spoiled again at once.
func TestADiskThatSpoilsAllIsNotWornOut(t *testing.T) {
	for _, how := range []string{"when it is read back", "afterwards"} {
		t.Run(how, func(t *testing.T) {
			inWorld(t, func(w *world) {
				one, two := w.publish("1.0", nil), w.publish("2.0", nil)
				w.want(1, one)
				w.want(2, two)
				w.fetched = 0
				w.mu.Lock()
				w.spoil = func(d blob.Digest) error {
					switch {
					case d != blob.Sum([]byte("weights 2.0")):
						return nil
					case how == "afterwards":
						flip(t, w.store.Path(d))
						return nil
					}
					if err := w.store.Delete(d); err != nil {
						return err
					}
					return fmt.Errorf("not asked again before noon: %w", blob.ErrMismatch)
				}
				w.mu.Unlock()
				w.restart(func() { flip(t, w.weights("2.0")) })
				time.Sleep(24 * time.Hour)
				w.wantServes("vad:1.0")
				if n := w.fetched; how == "afterwards" && n > 12 || n == 0 {
					t.Errorf("fetched %d times in a day", n)
				}
				if p := w.last(); p.Version != "2.0" || p.Err == "" || p.Phase == PhaseFailed {
					t.Errorf("last report %+v, want that it waits and why", p)
				}
				w.mu.Lock()
				w.spoil = nil // another disk
				w.mu.Unlock()
				time.Sleep(12 * time.Hour)
				w.wantServes("vad:2.0")
				w.whole(one, two)
			})
		})
	}
}

// TestANewVersionThatTheDiskSpoilsFails: its rollout waits for an answer.
func TestANewVersionThatTheDiskSpoilsFails(t *testing.T) {
	inWorld(t, func(w *world) {
		one, two := w.publish("1.0", nil), w.publish("2.0", nil)
		w.want(1, one)
		w.mu.Lock()
		w.spoil = func(d blob.Digest) error {
			if d == blob.Sum([]byte("weights 2.0")) {
				flip(t, w.store.Path(d))
			}
			return nil
		}
		w.mu.Unlock()
		w.rmu.Lock()
		w.spoils = true
		w.rmu.Unlock()
		w.want(2, two)
		w.wantServes("vad:1.0")
		if p := w.last(); p.Phase != PhaseFailed || !p.Disk || !strings.Contains(p.Err, "the disk of this box spoils") {
			t.Errorf("last report %+v", p)
		}
	})
}

// TestAFileThatIsFineIsNeverDeleted: the runner cannot read what the agent can.
func TestAFileThatIsFineIsNeverDeleted(t *testing.T) {
	inWorld(t, func(w *world) {
		one := w.publish("1.0", nil)
		w.want(1, one)
		before := w.inodes()
		w.fetched = 0
		w.rmu.Lock()
		w.faults[one.Digest] = fault{unreadable: true}
		w.loaded = map[blob.Digest]*runnerapi.ModelStatus{}
		w.rmu.Unlock()
		time.Sleep(48 * time.Hour)
		if got := w.serves(); got != "vad:1.0" || fmt.Sprint(w.inodes()) != fmt.Sprint(before) || w.fetched != 0 {
			t.Errorf("active.json names %q, files %v were %v, %d fetched", got, w.inodes(), before, w.fetched)
		}
	})
}

// TestAFileThatTheAgentMayNotReadIsNotDeleted: too many open files, say, pass.
func TestAFileThatTheAgentMayNotReadIsNotDeleted(t *testing.T) {
	inWorld(t, func(w *world) {
		one := w.publish("1.0", nil)
		w.want(1, one)
		path := w.weights("1.0")
		if err := errors.Join(os.Rename(path, path+".away"), os.Symlink(path, path)); err != nil { // ELOOP
			t.Fatal(err)
		}
		w.rmu.Lock()
		w.spoils, w.loaded = true, map[blob.Digest]*runnerapi.ModelStatus{}
		w.rmu.Unlock()
		time.Sleep(48 * time.Hour)
		if _, err := os.Lstat(path); err != nil || w.serves() != "vad:1.0" {
			t.Errorf("%v, active.json names %q", err, w.serves())
		}
		if err := errors.Join(os.Remove(path), os.Rename(path+".away", path)); err != nil {
			t.Fatal(err)
		}
		w.settle()
		w.wantServes("vad:1.0")
	})
}

// TestABoxThatDiesWhileItMendsMends: at every point in turn.
func TestABoxThatDiesWhileItMendsMends(t *testing.T) {
	for point := 0; ; point++ {
		died := false
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			one, two := w.publish("1.0", nil), w.publish("2.0", nil)
			w.start()
			w.want(1, one)
			w.want(2, two)
			w.stop()
			flip(t, w.weights("2.0"))
			w.spoils, w.loaded, w.crash = true, map[blob.Digest]*runnerapi.ModelStatus{}, point
			w.start()
			w.settle()
			w.stop()
			died = w.dead
			w.mu.Lock()
			w.crash, w.dead = -1, false
			w.mu.Unlock()
			w.start()
			w.settle()
			w.wantServes("vad:2.0")
			w.whole(one, two)
			if p := w.last(); p.Version != "2.0" || p.Phase != PhaseActive || p.Err != "" {
				t.Errorf("when the box dies at point %d: last report %+v; all: %s", point, p, w.trace())
			}
			w.stop()
		})
		if !died {
			if point < 10 {
				t.Errorf("only %d points were met", point)
			}
			return
		}
	}
}

// TestADownloadGoesOnWithWhatIsSoundOfADamagedFile: of a file in frames.
func TestADownloadGoesOnWithWhatIsSoundOfADamagedFile(t *testing.T) {
	inWorld(t, func(w *world) {
		content := bytes.Repeat([]byte("weights"), blob.FrameBytes/6)
		digest := blob.Sum(content)
		w.remote[digest] = content
		one := w.publish("1.0", func(m *models.Manifest) {
			m.Files[0] = models.File{Path: models.ModelFile, Digest: digest, SizeBytes: int64(len(content)), Frames: blob.Sum([]byte("list"))}
		})
		w.want(1, one)
		var staged []byte
		w.mu.Lock()
		w.begins = func(d blob.Digest) {
			if staged == nil {
				staged, _ = os.ReadFile(w.store.StagePath(d))
			}
		}
		w.mu.Unlock()
		w.restart(func() { flip(t, w.store.Path(digest)) })
		w.wantServes("vad:1.0")
		if len(staged) != len(content) || bytes.Equal(staged, content) {
			t.Errorf("the download began with %d bytes of %d on the stage", len(staged), len(content))
		}
	})
}
