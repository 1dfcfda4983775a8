package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// takenPort starts the stopped fleet again while somebody else has two of its
// ports.
func takenPort(t *testing.T, old *fleet) {
	for _, addr := range []string{strings.TrimPrefix(old.client.URL(), "http://"), strings.TrimPrefix(old.oip["box-1"], "http://")} {
		l, err := net.Listen("tcp", addr)
		must(t, err)
		defer l.Close()
	}
	f, _ := startFleet(t, old.root)
	if f.client.URL() == old.client.URL() || f.oip["box-1"] == old.oip["box-1"] {
		t.Errorf("ports %v are the taken ones", f.ports)
	}
	if f.oip["box-2"] != old.oip["box-2"] {
		t.Errorf("the free port of box-2 changed from %s to %s", old.oip["box-2"], f.oip["box-2"])
	}
	f.allWell(t, time.Minute, time.Now())
	f.stop(t)
	audit(t, f.data)
}

// complain requires that a command fails and names the fault and the way out.
func complain(t *testing.T, dir, line string, words ...string) {
	t.Helper()
	out, err := runs(t, dir, line)
	if err == nil {
		t.Errorf("%s succeeded\n%s", line, out)
	}
	for _, w := range words {
		if !strings.Contains(out, w) {
			t.Errorf("%s does not say %q:\n%s", line, w, out)
		}
	}
	if lines := strings.Count(strings.TrimSpace(out), "\n"); strings.Contains(out, "goroutine ") || lines > 25 {
		t.Errorf("%s is not a clear error:\n%s", line, out)
	}
}

func TestTakenPortOfAControllerIsNamed(t *testing.T) {
	root := checkout(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	complain(t, root, "edgeherd server run --state s --http-plain --http "+l.Addr().String(), l.Addr().String(), "--http", "in use")
}

func TestReadOnlyDataFolderIsNamed(t *testing.T) {
	root := checkout(t)
	dir := filepath.Join(root, "ro")
	must(t, os.Mkdir(dir, 0o555))
	if os.Geteuid() == 0 {
		mount(t, dir, "size=1m", syscall.MS_RDONLY)
	}
	complain(t, root, "edgeherd up --data ro/d", "ro/d", "--data")
	complain(t, root, "edgeherd server run --state ro/s --http-plain --http 127.0.0.1:0", "ro/s", "state directory")
}

func mount(t *testing.T, dir, options string, flags uintptr) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may mount a small file system")
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", flags, options); err != nil {
		t.Skipf("no mount here: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
}

func TestMissingAndDamagedAssetsAreNamed(t *testing.T) {
	root := checkout(t)
	complain(t, root, "edgeherd up --assets nowhere", "nowhere", "make assets")
	damaged := filepath.Join(root, "damaged")
	real := filepath.Join(root, "build", "assets")
	must(t, os.CopyFS(filepath.Join(damaged, "models"), os.DirFS(filepath.Join(real, "models"))))
	must(t, os.Symlink(filepath.Join(real, "onnxruntime"), filepath.Join(damaged, "onnxruntime")))
	must(t, os.Truncate(filepath.Join(damaged, "models", "ocr-det-4.0.0", "model.onnx"), 1_000_000))
	complain(t, root, "edgeherd up --boxes 1 --ephemeral --assets damaged", "ocr-det-4.0.0", "make assets")
}

func TestEphemeralFleetLeavesNothing(t *testing.T) {
	root := checkout(t)
	tmp := filepath.Join(root, "tmp")
	must(t, os.Mkdir(tmp, 0o755))
	out, err := runs(t, root, `export TMPDIR=$PWD/tmp; edgeherd up --ephemeral --boxes 1 --time-scale 60 & up=$!
for i in $(seq 100); do ls tmp/*/context.json >/dev/null 2>&1 && break; sleep 0.1; done
ls tmp/*/boxes && kill -INT $up && wait $up`)
	if err != nil || !strings.Contains(out, "box-1") || strings.Contains(out, "box-2") {
		t.Fatalf("ephemeral fleet of one box: %v\n%s", err, out)
	}
	left, err := os.ReadDir(tmp)
	must(t, err)
	if len(left) > 0 {
		t.Errorf("left in the temporary folder: %v", left)
	}
}

func TestBadNumbersAreRefused(t *testing.T) {
	root := checkout(t)
	complain(t, root, "edgeherd up --boxes 0", "--boxes 0")
	complain(t, root, "edgeherd up --time-scale 0", "--time-scale 0")
	complain(t, root, "edgeherd up --data d --ephemeral", "ephemeral")
}

// TestFullDiskOfABoxKeepsTheOldModel gives one box a disk that the next
// version does not fit on.
func TestFullDiskOfABoxKeepsTheOldModel(t *testing.T) {
	root := checkout(t)
	shortTrials(t, root)
	blobs := filepath.Join(root, "edgeherd-data", "boxes", "box-1", "agent", "blobs")
	must(t, os.MkdirAll(blobs, 0o755))
	mount(t, blobs, "size=100m", 0)
	f, _ := startFleet(t, root, "--boxes", "1")
	eventually(t, time.Minute, "the box serves", func() error {
		_, _, err := infer(t.Context(), f.oip["box-1"], jsonRequest(), 0)
		return err
	})
	settled(t, f) // each of the four models
	dir := filepath.Join(root, "fat")
	must(t, os.CopyFS(dir, os.DirFS(filepath.Join(root, "build", "assets", "models", "silero-vad-6.0.0"))))
	edit(t, filepath.Join(dir, "model.yaml"), "  - model.onnx", "  - model.onnx\n  - fat.bin")
	must(t, os.WriteFile(filepath.Join(dir, "fat.bin"), make([]byte, 110<<20), 0o644))
	command(t, root, "edgeherd model push fat")
	l := startLoad(f.oip["box-1"])
	out := command(t, root, "edgeherd rollout start --yes -o name silero-vad:6.0.0 2>/dev/null")
	id := strings.TrimSpace(out)
	eventually(t, time.Minute, "the rollout tells of the full disk", func() error {
		r, err := f.client.Rollout(t.Context(), id)
		if err != nil {
			return err
		}
		box := r.Waves[0].Targets[0]
		if r.State == fleetapi.RolloutRunning && strings.Contains(box.Waits, "waits for room") && strings.Contains(box.Waits, "make room") {
			return nil
		}
		return fmt.Errorf("rollout %s, box %s: %s%s", r.State, box.Phase, box.Err, box.Waits)
	})
	f.allWell(t, time.Minute, time.Now()) // it reads on, and what it reads arrives
	l.end(t, "5.0.0")
	all, err := f.boxes(t)
	must(t, err)
	if v := serving(all["box-1"], "silero-vad"); v != "5.0.0" || all["box-1"].Link != fleetapi.LinkLive {
		t.Errorf("the box serves %s and is %s", v, all["box-1"].Link)
	}
	f.stop(t)
	audit(t, f.data)
}
