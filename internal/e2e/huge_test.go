package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/models"
)

// TestAModelBeyondTwoGiBReachesABox whole, by the real programs, whether a pack makes
// it small or not, and takes no more of their memory than a small one.
func TestAModelBeyondTwoGiBReachesABox(t *testing.T) {
	if os.Getenv("EDGEHERD_PROVE") == "" {
		t.Skip("EDGEHERD_PROVE=1 runs it; it writes 40 GB")
	}
	const gib = 1 << 30
	root := checkout(t)
	shortTrials(t, root)
	f, _ := startFleet(t, root, "--boxes", "1")
	eventually(t, 5*time.Minute, "the box serves", func() error {
		_, _, err := infer(t.Context(), f.oip["box-1"], jsonRequest(), 0)
		return err
	})
	dir := filepath.Join(root, "huge")
	for i, tt := range []struct {
		size  int64
		noise bool // no pack makes it small
	}{{4*gib + 1, true}, {2*gib + 1, false}, {4*gib + 1, false}, {2 * gib, false}, {2*gib - 1, false}} {
		version := fmt.Sprintf("1.%d.0", i)
		must(t, os.RemoveAll(dir))
		hugeModel(t, dir, version, tt.size, tt.noise)
		began := time.Now()
		push := exec.Command(filepath.Join(bin(t), "edgeherd"), "model", "push", "huge") // no limit: hashing alone takes its time
		push.Dir, push.Env = root, environ(root)
		if out, err := push.CombinedOutput(); err != nil {
			t.Fatalf("push of %d bytes: %v\n%s", tt.size, err, out)
		}
		pushed := time.Since(began)
		out := command(t, root, "edgeherd rollout start --yes -o name huge:"+version+" 2>/dev/null")
		if r := f.rollout(t, strings.TrimSpace(out), time.Hour); r.State != fleetapi.RolloutDone {
			t.Fatalf("rollout of %s is %s: %s", version, r.State, r.Sentence)
		}
		body := `{"inputs":[{"name":"x","datatype":"FP32","shape":[1,16],"data":[1` + strings.Repeat(",1", assets.ExternalRows-1) + `]}]}`
		resp, err := http.Post(f.oip["box-1"]+"/v2/models/huge/versions/"+version+"/infer", "application/json", strings.NewReader(body))
		must(t, err)
		answer, err := io.ReadAll(resp.Body)
		must(t, errors.Join(err, resp.Body.Close()))
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%d bytes: %s: %s", tt.size, resp.Status, answer)
		}
		t.Logf("%d bytes, noise %v: pushed in %s, rolled out in %s", tt.size, tt.noise, pushed.Round(time.Second), (time.Since(began) - pushed).Round(time.Second))
		for _, p := range tree(f.cmd.Process.Pid) {
			most := peakRSS(p.pid)
			t.Logf("  %4d MB at most: %.90s", most>>20, p.line)
			if strings.Contains(p.line, "edgeherd-agent") && most > 256<<20 {
				t.Errorf("the agent took %d MB", most>>20)
			}
		}
	}
	f.stop(t)
}

// hugeModel describes a model whose weights lie at the end of a file of size bytes.
func hugeModel(t *testing.T, dir, version string, size int64, noise bool) {
	t.Helper()
	weights := make([]float32, 2*assets.ExternalRows*1000)
	for i := range weights {
		weights[i] = 0.01
	}
	skip := (size - int64(4*len(weights))) / 4096 * 4096
	assets.ExternalModel(t, dir, "model.onnx.data", skip, weights)
	must(t, os.WriteFile(filepath.Join(dir, models.DescriptionFile), []byte("name: huge\nversion: "+version+"\n"), 0o644))
	path := filepath.Join(dir, "model.onnx.data")
	must(t, os.Truncate(path, size))
	if !noise {
		return
	}
	data, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	defer data.Close()
	w := bufio.NewWriterSize(data, 1<<20)
	_, err = io.CopyN(w, rand.NewChaCha8([32]byte{7}), skip)
	must(t, errors.Join(err, w.Flush()))
}

// peakRSS is the most memory that a process had.
func peakRSS(pid int) (bytes int64) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(text)) {
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &bytes); err == nil {
			return bytes << 10
		}
	}
	return 0
}
