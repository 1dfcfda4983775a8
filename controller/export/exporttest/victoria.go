package exporttest

import (
	"bufio"
	"encoding/json"
	"net/http"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/freeport"
)

// Victoria is a VictoriaMetrics of Debian's package, on a folder and a port of
// its own. It may be killed and started again.
type Victoria struct {
	dir, addr string
	cmd       *exec.Cmd
}

// Point is one sample of one series, whose labels are sorted and joined by ",".
type Point struct {
	Series string
	Ms     int64
}

// StartVictoria starts one that ends with the test. Where it is not installed
// the test is skipped, unless EDGEHERD_REQUIRE_ASSETS is set.
func StartVictoria(t testing.TB) *Victoria {
	t.Helper()
	assets.Program(t, "victoria-metrics")
	address, err := freeport.Address()
	if err != nil {
		t.Fatal(err)
	}
	v := &Victoria{dir: t.TempDir(), addr: address}
	v.Start(t)
	t.Cleanup(v.Kill)
	return v
}

// URL is its base address.
func (v *Victoria) URL() string { return "http://" + v.addr }

// Start starts it after a Kill.
func (v *Victoria) Start(t testing.TB) {
	t.Helper()
	v.cmd = exec.Command("victoria-metrics", "-storageDataPath="+v.dir, "-httpListenAddr="+v.addr,
		"-retentionPeriod=100y", "-dedup.minScrapeInterval=1ms", "-loggerLevel=ERROR", "-memory.allowedBytes=128MiB")
	v.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // nor does it outlive a test that is killed
	if err := v.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	Until(t, "VictoriaMetrics answers", func() bool {
		resp, err := http.Get(v.URL() + "/health")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// Kill ends it by SIGKILL.
func (v *Victoria) Kill() {
	_ = v.cmd.Process.Kill()
	_ = v.cmd.Wait() // killed
}

// Stored reads all samples whose names match a regular expression.
func (v *Victoria) Stored(t testing.TB, names string) map[Point]float64 {
	t.Helper()
	resp, err := http.PostForm(v.URL()+"/api/v1/export", url.Values{"match[]": {`{__name__=~"` + names + `"}`}, "start": {"0"}})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	out := map[Point]float64{}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var s struct {
			Metric     map[string]string
			Values     []float64
			Timestamps []int64
		}
		if err := json.Unmarshal(lines.Bytes(), &s); err != nil {
			t.Fatal(err)
		}
		var labels []string
		for k, v := range s.Metric {
			labels = append(labels, k+"="+v)
		}
		slices.Sort(labels)
		name := strings.Join(labels, ",")
		for i, ms := range s.Timestamps {
			if _, twice := out[Point{name, ms}]; twice {
				t.Errorf("%s at %d is there twice", name, ms)
			}
			out[Point{name, ms}] = s.Values[i]
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// Until waits for what another process does, for minutes.
func Until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(5 * time.Minute); !ok(); {
		select {
		case <-deadline:
			t.Fatalf("not within five minutes: %s", what)
		case <-tick.C:
		}
	}
}
