package bench

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/assets"
)

// nodePackages are the peer's, as npm packs them, with their SHA-256. The first
// is in the cache of `make assets`; the second, its only dependency at run time,
// is fetched when it is missing.
var nodePackages = [][2]string{
	{"onnxruntime-node@1.24.3", "aa1bb5fa261ea68de05dd53efbba210cd7adf2d2850f4c3a201054c74cc78040"},
	{"onnxruntime-common@1.24.3", "e9575aff207975a78d8b4c0ceff2a2d0767468b9d2a20d33fe6d74e43f67e193"},
}

// nodeModules lays the packages out for Node.
func nodeModules(t *testing.T) string {
	t.Helper()
	cache := os.Getenv("EDGEHERD_CACHE")
	if cache == "" {
		home, err := os.UserHomeDir()
		check(t, err)
		cache = filepath.Join(home, ".cache", "edgeherd")
	}
	dir := t.TempDir()
	for _, p := range nodePackages {
		name, _, _ := strings.Cut(p[0], "@")
		archive := filepath.Join(cache, strings.ReplaceAll(p[0], "@", "-")+".tgz")
		if _, err := os.Stat(archive); errors.Is(err, os.ErrNotExist) {
			out, err := exec.CommandContext(t.Context(), "npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", cache, p[0]).CombinedOutput()
			if err != nil {
				t.Fatalf("fetch %s: %v\n%s", p[0], err, out)
			}
		}
		data, err := os.ReadFile(archive)
		check(t, err)
		if got := fmt.Sprintf("%x", sha256.Sum256(data)); got != p[1] {
			t.Fatalf("%s has SHA-256 %s, want %s; remove it", archive, got, p[1])
		}
		check(t, os.MkdirAll(filepath.Join(dir, name), 0o755))
		tar := exec.CommandContext(t.Context(), "tar", "-xzf", archive, "-C", filepath.Join(dir, name), "--strip-components=1")
		if out, err := tar.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	return dir
}

// startNode runs the peer with the same models and returns its process id.
func startNode(t *testing.T, address string, demos map[string]string) int {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	check(t, err)
	args := []string{"testdata/node-server.cjs", port}
	for name, demo := range demos {
		args = append(args, name+"="+filepath.Join(assets.Model(t, demo), "model.onnx"))
	}
	cmd := exec.Command("node", args...)
	cmd.Env = append(os.Environ(), "NODE_PATH="+nodeModules(t))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("the Node server says %q, %v", line, err)
	}
	return cmd.Process.Pid
}

// cpuOf is the CPU time of a process in seconds, with ticks of 10 ms.
func cpuOf(t *testing.T, pid int) float64 {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	check(t, err)
	var sum float64
	// utime and stime are the 14th and 15th field, after a name in parentheses.
	for _, field := range strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))[11:13] {
		ticks, err := strconv.ParseFloat(field, 64)
		check(t, err)
		sum += ticks / 100 // USER_HZ
	}
	return sum
}

// pssOf is the proportional set size of processes in MiB: memory that several
// share counts for each in part.
func pssOf(t *testing.T, pids ...int) float64 {
	t.Helper()
	var sum float64
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		check(t, err)
		for line := range strings.Lines(string(text)) {
			if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
				kb, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
				check(t, err)
				sum += kb / 1024
			}
		}
	}
	return sum
}

// serveNode sets the runner beside a server on Node with onnxruntime-node: the
// same models, requests and client, in turn. What counts is answers per second
// of CPU time, of each in its best round.
func serveNode(t *testing.T) []Figure {
	demos := map[string]string{"ocr-cls": "ocr-cls-2.0.0", "ocr-det": "ocr-det-4.0.0", "ocr-rec": "ocr-rec-4.0.0", "silero-vad": "silero-vad-5.0.0"}
	b := startRunner(t, []string{"ocr-cls-2.0.0", "ocr-det-4.0.0", "ocr-rec-4.0.0", "silero-vad-5.0.0"}, "")
	address := freeAddress(t)
	node := startNode(t, address, demos)
	const beside = "Node with onnxruntime-node"
	forms := []struct {
		name    string
		request []byte
		goal    Goal
	}{
		{"json", classify().text(), Goal{AtLeast: 1.5}},
		{"binary", classify().raw(), Goal{AtLeast: 1.1}},
		{"binary-80us", listen(1).raw(), Goal{}},
	}
	ours, theirs := make([][]float64, len(forms)), make([][]float64, len(forms))
	for range shareRounds {
		for i, f := range forms {
			s := b.spend(func() (int64, int64) { return drive(t, b.http, 4, f.request, runnerSpan/4) })
			before := cpuOf(t, node)
			n, _ := drive(t, address, 4, f.request, runnerSpan/4)
			ours[i] = append(ours[i], float64(s.answers)/s.total)
			theirs[i] = append(theirs[i], float64(n)/(cpuOf(t, node)-before))
		}
	}
	var figures []Figure
	for i, f := range forms {
		t.Logf("%s: %.0f us of CPU an answer in the median round, Node %.0f", f.name, 1e6/median(ours[i]), 1e6/median(theirs[i]))
		figures = append(figures, Figure{Name: f.name, Value: quantile(ours[i], 1), Unit: "1/cpu-s", Goal: f.goal}.Against(beside, quantile(theirs[i], 1)))
	}
	for _, w := range []workload{detect(), {"ocr-rec", []tensor{{"x", "FP32", []int64{1, 3, 48, 320}, ramp(3 * 48 * 320)}}}} {
		for _, addr := range []string{b.http, address} {
			drive(t, addr, 1, w.raw(), 100*time.Millisecond) // each model has worked once
		}
	}
	st, err := b.edge.Status(t.Context())
	check(t, err)
	pids := []int{st.PID}
	for _, m := range st.Models {
		pids = append(pids, m.WorkerPID)
	}
	return append(figures, Figure{Name: "pss", Value: pssOf(t, pids...), Unit: "MiB", Goal: Goal{AtMost: 1}}.Against(beside, pssOf(t, node)))
}

// text is the request in JSON, as bytes of HTTP/1.1: values of 0 to 1 with the
// digits that FP32 needs, as clients write them.
func (w workload) text() []byte {
	random := rand.New(rand.NewPCG(1, 2))
	var inputs []string
	for _, in := range w.in {
		var values []string
		for range len(in.data) / 4 {
			values = append(values, strconv.FormatFloat(float64(random.Float32()), 'f', -1, 32))
		}
		data := strings.Join(values, ",")
		inputs = append(inputs, fmt.Sprintf(`{"name":%q,"datatype":%q,"shape":%s,"data":[%s]}`, in.name, in.dtype, dims(in.shape), data))
	}
	body := `{"inputs":[` + strings.Join(inputs, ",") + `]}`
	return fmt.Appendf(nil, "POST /v2/models/%s/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", w.model, len(body), body)
}
