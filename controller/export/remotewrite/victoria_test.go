package remotewrite

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/export"
	"github.com/edgeherd/edgeherd/controller/export/exporttest"
	"github.com/edgeherd/edgeherd/internal/durable"
)

// The fleet of these tests: every process makes the same rows from startMs.
const (
	victoriaBoxes  = 5
	victoriaBlocks = 600
)

// TestMain lets the test binary be the exporter that is killed.
func TestMain(m *testing.M) {
	if address := os.Getenv("EDGEHERD_TEST_EXPORT_TO"); address != "" {
		if err := exportUntilKilled(address, os.Getenv("EDGEHERD_TEST_DIR"), os.Getenv("EDGEHERD_TEST_START")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func exportUntilKilled(address, dir, start string) error {
	startMs, err := strconv.ParseInt(start, 10, 64)
	if err != nil {
		return err
	}
	e, err := New(Options{
		URL: address, Source: paced{fleet(startMs)}, Cursors: cursorFile(filepath.Join(dir, "cursor")),
		Settle: victoriaSettle, Poll: 100 * time.Millisecond,
	}, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	return e.Run(context.Background())
}

// victoriaSettle is how long VictoriaMetrics may take to write to disk: it
// flushes every second.
const victoriaSettle = 6 * time.Second

func fleet(startMs int64) *exporttest.Store {
	s := exporttest.New()
	for nth := range victoriaBlocks {
		for box := range victoriaBoxes {
			// Some come late: a box drains its backlog from both ends.
			n := nth
			if box == 3 {
				n = victoriaBlocks - 1 - nth
			}
			s.Commit(exporttest.Rows(box, n, startMs))
		}
	}
	return s
}

// paced gives small pages slowly, so that there is a middle to be killed in.
type paced struct{ *exporttest.Store }

func (p paced) Tail(ctx context.Context, after uint64, _ int, each func(export.Tailed) error) (uint64, error) {
	select {
	case <-time.After(25 * time.Millisecond):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	return p.Store.Tail(ctx, after, 25, each)
}

// cursorFile keeps one cursor in a file.
type cursorFile string

func (f cursorFile) Cursor(context.Context, string) (uint64, error) {
	text, err := os.ReadFile(string(f))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(string(text), 10, 64)
}

func (f cursorFile) SetCursor(_ context.Context, _ string, v uint64) error {
	return durable.WriteFile(string(f), strconv.AppendUint(nil, v, 10), 0o600)
}

// victoria is a VictoriaMetrics of Debian's package on a folder and a port.
type victoria struct {
	dir, addr string
	cmd       *exec.Cmd
}

func newVictoria(t *testing.T) *victoria {
	t.Helper()
	if _, err := exec.LookPath("victoria-metrics"); err != nil {
		if os.Getenv("EDGEHERD_REQUIRE_ASSETS") != "" {
			t.Fatal("victoria-metrics is not installed: make deps")
		}
		t.Skip("victoria-metrics is not installed (package victoria-metrics)")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, l.Close())
	v := &victoria{dir: t.TempDir(), addr: l.Addr().String()}
	t.Cleanup(v.kill)
	v.start(t)
	return v
}

func (v *victoria) start(t *testing.T) {
	t.Helper()
	v.cmd = exec.Command("victoria-metrics", "-storageDataPath="+v.dir, "-httpListenAddr="+v.addr,
		"-retentionPeriod=100y", "-dedup.minScrapeInterval=1ms", "-loggerLevel=ERROR", "-memory.allowedBytes=128MiB")
	must(t, v.cmd.Start())
	until(t, "VictoriaMetrics answers", func() bool {
		resp, err := http.Get("http://" + v.addr + "/health")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

func (v *victoria) kill() {
	_ = v.cmd.Process.Kill()
	_ = v.cmd.Wait() // killed
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(time.Minute); ; {
		if ok() {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("not within a minute: %s", what)
		case <-tick.C:
		}
	}
}

// stored reads all samples that VictoriaMetrics has.
func (v *victoria) stored(t *testing.T) map[point]float64 {
	t.Helper()
	resp, err := http.PostForm("http://"+v.addr+"/api/v1/export", url.Values{"match[]": {`{__name__=~"edgeherd_.*"}`}, "start": {"0"}})
	must(t, err)
	defer resp.Body.Close()
	out := map[point]float64{}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var s struct {
			Metric     map[string]string
			Values     []float64
			Timestamps []int64
		}
		must(t, json.Unmarshal(lines.Bytes(), &s))
		var labels []string
		for k, v := range s.Metric {
			labels = append(labels, k+"="+v)
		}
		slices.Sort(labels)
		name := strings.Join(labels, ",")
		for i, ms := range s.Timestamps {
			if _, twice := out[point{name, ms}]; twice {
				t.Errorf("%s at %d is there twice", name, ms)
			}
			out[point{name, ms}] = s.Values[i]
		}
	}
	must(t, lines.Err())
	return out
}

// TestKillsOfVictoriaMetricsAndExporterLoseNothing kills both with SIGKILL in
// the middle, and compares each sample in the end.
func TestKillsOfVictoriaMetricsAndExporterLoseNothing(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	chance := rand.New(rand.NewPCG(seed, 1))
	v, dir := newVictoria(t), t.TempDir()
	startMs := time.Now().Add(-24 * time.Hour).Truncate(time.Hour).UnixMilli()
	log := &safeLog{}
	exporter := func() *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "EDGEHERD_TEST_EXPORT_TO=http://"+v.addr+"/api/v1/write",
			"EDGEHERD_TEST_DIR="+dir, fmt.Sprintf("EDGEHERD_TEST_START=%d", startMs))
		cmd.Stderr = log
		must(t, cmd.Start())
		return cmd
	}
	e := exporter()
	defer func() { _ = e.Process.Kill(); _ = e.Wait() }()
	middle := 0
	for kill := range 6 {
		wait := time.Duration(300+chance.IntN(900)) * time.Millisecond
		select {
		case <-time.After(wait):
		case <-t.Context().Done():
		}
		if kill%3 != 2 {
			v.kill()
			v.start(t)
		} else {
			must(t, e.Process.Kill())
			_ = e.Wait() // killed
			e = exporter()
		}
		if at, err := cursorFile(filepath.Join(dir, "cursor")).Cursor(t.Context(), ""); err == nil && at < victoriaBoxes*victoriaBlocks {
			middle++
		}
	}
	if middle == 0 {
		t.Error("no kill came in the middle")
	}
	until(t, "the cursor is at the end", func() bool {
		at, err := cursorFile(filepath.Join(dir, "cursor")).Cursor(t.Context(), "")
		return err == nil && at == victoriaBoxes*victoriaBlocks
	})
	all := want(fleet(startMs).All(), &Options{})
	// What came last becomes visible within seconds.
	until(t, "everything can be queried", func() bool { return len(v.stored(t)) >= len(all) })
	have := v.stored(t)
	differ := 0
	for p, value := range all {
		if have[p] != value {
			differ++
		}
	}
	if differ > 0 || len(have) != len(all) {
		t.Errorf("%d of %d samples differ, %d are there\n%s", differ, len(all), len(have), log)
	}
	t.Logf("%d samples, all equal, after 4 kills of VictoriaMetrics and 2 of the exporter", len(all))
}

// safeLog collects the words of a process.
type safeLog struct {
	mu   sync.Mutex // guards text
	text strings.Builder
}

func (l *safeLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *safeLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
