package fleettest

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/edgeherd/edgeherd/controller/fault"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// shrink moves a folder to a disk of its own that can be filled, or skips the
// test.
func shrink(t *testing.T, dir, size string) {
	t.Helper()
	if err := os.Rename(dir, dir+".big"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("a disk that can be filled needs the right to mount one (root): %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	if err := os.CopyFS(dir, os.DirFS(dir+".big")); err != nil {
		t.Fatal(err)
	}
}

// fill takes all room in dir; what it returns gives it back.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "ballast")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size >= 512; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}

// TestAFullDiskOfTheControllerIsSaidAndPassesWithoutARestart: nothing is
// acknowledged, boxes keep what they have, pages answer and say why.
func TestAFullDiskOfTheControllerIsSaidAndPassesWithoutARestart(t *testing.T) {
	story(t, 2, func(f *Fleet) {
		settled(f)
		ref := f.MustPush(Model{Name: "vad", Version: "5.0.0"})
		f.StopController()
		shrink(f.T, f.controllerDir(), "12m")
		f.StartController()
		log := listen(f)
		settled(f)
		trouble := func() string {
			s, err := f.API.Summary(context.Background())
			if err != nil || s.Total != 2 {
				t.Fatalf("summary %+v, %v", s, err)
			}
			return s.Trouble
		}
		if got := trouble(); got != "" {
			t.Errorf("trouble before: %s", got)
		}
		f.StopController()
		f.StartController() // with a log of the database that has no room of its own
		free := fill(f.T, f.controllerDir())
		f.Until("it is noticed", time.Hour, func() bool { return strings.Contains(trouble(), "disk of the database is full") })
		pass(20 * time.Minute)
		for _, b := range f.Boxes {
			if n := b.faults()[string(fault.RefusedByStore)]; n == 0 {
				t.Errorf("%s shows nothing", b.Name)
			}
		}
		var err error
		f.Until("what little room the file had is used up", time.Hour, func() bool {
			_, err = f.API.Plan(context.Background(), fleetapi.PlanRequest{Model: ref.String()})
			return err != nil
		})
		var p *fleetapi.Error
		if !errors.As(err, &p) || p.Status != http.StatusInsufficientStorage || !strings.Contains(p.Hint, "Make room") {
			t.Errorf("a plan with a full disk: %v", err)
		}
		if n := log.count("database takes no messages"); n != 1 {
			t.Errorf("it was logged %d times", n)
		}
		free()
		f.Until("it passes", time.Hour, func() bool { return trouble() == "" })
		pass(10 * time.Minute) // boxes try again after five at most
		checkLedger(f)
		for _, b := range f.Boxes {
			if n := b.faults()[string(fault.RefusedByStore)]; n == 0 {
				t.Errorf("%s: what was counted is gone", b.Name)
			}
		}
	})
}

// TestAFullDiskOfABoxIsShown: the box goes on, and others are not concerned.
func TestAFullDiskOfABoxIsShown(t *testing.T) {
	story(t, 2, func(f *Fleet) {
		settled(f)
		box, other := f.Boxes[0], f.Boxes[1]
		dir := filepath.Join(box.dir, "agent")
		if err := box.StopAgent(); err != nil {
			t.Fatal(err)
		}
		shrink(f.T, dir, "4m")
		box.StartAgent()
		pass(5 * time.Minute)
		free := fill(f.T, dir)
		f.Until("the full disk is shown", 2*time.Hour, func() bool { return box.faults()[string(fault.DiskRefuses)] > 0 })
		pass(10 * time.Minute)
		if b, err := f.API.Box(context.Background(), box.ID); err != nil || b.Link != fleetapi.LinkLive || !strings.Contains(b.Buffer.Disk, "no space left") {
			t.Errorf("box %+v, %v", b.Buffer, err)
		}
		if got := other.faults(); len(got) != 0 {
			t.Errorf("the other box: %v", got)
		}
		free()
		f.Until("it passes", time.Hour, func() bool {
			b, err := f.API.Box(context.Background(), box.ID)
			return err == nil && b.Buffer.Disk == ""
		})
		checkLedger(f)
	})
}
