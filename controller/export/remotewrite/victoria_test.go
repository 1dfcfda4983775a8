package remotewrite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/export"
	"github.com/edgeherd/edgeherd/controller/export/exporttest"
	"github.com/edgeherd/edgeherd/internal/assets"
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

// TestKillsOfVictoriaMetricsAndExporterLoseNothing kills both with SIGKILL in
// the middle, and compares each sample in the end.
func TestKillsOfVictoriaMetricsAndExporterLoseNothing(t *testing.T) {
	seed := assets.Seed(t)
	t.Logf("seed %d", seed)
	chance := rand.New(rand.NewPCG(seed, 1))
	v, dir := exporttest.StartVictoria(t), t.TempDir()
	startMs := time.Now().Add(-24 * time.Hour).Truncate(time.Hour).UnixMilli()
	log := &safeLog{}
	exporter := func() *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "EDGEHERD_TEST_EXPORT_TO="+v.URL()+"/api/v1/write",
			"EDGEHERD_TEST_DIR="+dir, fmt.Sprintf("EDGEHERD_TEST_START=%d", startMs))
		cmd.Stderr = log
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
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
			v.Kill()
			v.Start(t)
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
	exporttest.Until(t, "the cursor is at the end", func() bool {
		at, err := cursorFile(filepath.Join(dir, "cursor")).Cursor(t.Context(), "")
		return err == nil && at == victoriaBoxes*victoriaBlocks
	})
	all := want(fleet(startMs).All(), &Options{})
	// What came last becomes visible within seconds.
	exporttest.Until(t, "everything can be queried", func() bool { return len(v.Stored(t, "edgeherd_.*")) >= len(all) })
	have := v.Stored(t, "edgeherd_.*")
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
