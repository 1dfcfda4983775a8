package bench

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/simboard"
)

var shortFlag = flag.Bool("bench.short", false, "watch the agent for one minute instead of five")

// sensors is what a box has at least; the simulated board itself shows
// boardSensors, and one more when its CPU counter has moved between two reads.
const (
	sensors      = 30
	boardSensors = 14
)

// agentRSS is the memory of a real agent process after idle minutes: enrolled,
// connected over TLS to a real controller, sensing 30 metrics at 10 s, and with
// nothing left to send.
func agentRSS(t *testing.T) []Figure {
	idle := 5 * time.Minute
	if *shortFlag {
		idle = time.Minute
	}
	dir, err := os.MkdirTemp("", "eh") // t.TempDir has a name too long for a socket
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	state, board := filepath.Join(dir, "agent"), filepath.Join(dir, "root")
	api, id := runController(t, dir, filepath.Join(state, "identity"))
	runBoard(t, board)
	agent := start(t, "edgeherd-agent", "run", "--state", state, "--root", board, "--runner", filepath.Join(dir, "runner.sock"))
	var seen fleetapi.Box
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the controller saw %s link, %d sensors, %+v", seen.Link, len(seen.Latest), slices.Sorted(maps.Keys(seen.Latest)))
		}
	})
	eventually(t, "the controller stores telemetry of 30 sensors", 3*time.Minute, func() bool {
		var err error
		seen, err = api.Box(t.Context(), id)
		return err == nil && seen.Link == fleetapi.LinkLive && len(seen.Latest) >= sensors
	})
	<-time.After(idle)
	pid := agent.Process.Pid
	rss, anonymous, peak := statusKB(t, pid, "VmRSS"), statusKB(t, pid, "RssAnon"), statusKB(t, pid, "VmHWM")
	check(t, agent.Process.Kill()) // as it stands: a clean stop seals one more block
	eventually(t, "the agent is gone", 20*time.Second, func() bool { return agent.Process.Signal(syscall.Signal(0)) != nil })
	seen, err = api.Box(t.Context(), id)
	check(t, err)
	if len(seen.Latest) < sensors || seen.Link != fleetapi.LinkLive {
		t.Errorf("%d sensors, want %d or more; link %s at the end", len(seen.Latest), sensors, seen.Link)
	}
	spoolIsEmpty(t, filepath.Join(state, "spool.db"))
	return []Figure{
		Figure{Value: rss / 1024, Unit: "MiB", Goal: Goal{AtMost: 1}}.Against("budget of 20 MiB", 20),
		{Name: "anonymous", Value: anonymous / 1024, Unit: "MiB"},
		{Name: "peak", Value: peak / 1024, Unit: "MiB"},
	}
}

// runController runs a controller in this process and enrols one box.
func runController(t *testing.T, dir, identityDir string) (*fleetapi.Client, identity.ID) {
	t.Helper()
	const free = "127.0.0.1:0"
	c, err := controller.Open(t.Context(), controller.Options{
		Dir: filepath.Join(dir, "server"), HTTP: free, Device: free, MQTT: free, HTTPPlain: true, Version: "bench",
	}, slog.New(slog.DiscardHandler))
	check(t, err)
	id, err := c.EnrolBox(t.Context(), identityDir, "box-1", "site-1")
	check(t, err)
	token, err := c.NewAPIToken(t.Context(), "bench", "owner", time.Hour)
	check(t, err)
	background(t, c.Run)
	return fleetapi.New(c.URL(), token, nil), id
}

// runBoard simulates a wall-mounted box with enough further sensors for 30.
func runBoard(t *testing.T, dir string) {
	t.Helper()
	chip := filepath.Join(dir, "sys", "class", "hwmon", "hwmon9")
	check(t, os.MkdirAll(chip, 0o755))
	check(t, os.WriteFile(filepath.Join(chip, "name"), []byte("max31790\n"), 0o644))
	for i := range sensors - boardSensors {
		check(t, os.WriteFile(filepath.Join(chip, fmt.Sprintf("temp%d_input", i+1)), fmt.Appendf(nil, "%d\n", 31000+i*500), 0o644))
	}
	background(t, simboard.New(simboard.Options{Root: dir, Name: "box-1", Seed: 1}, slog.New(slog.DiscardHandler)).Run)
	eventually(t, "the board is there", 10*time.Second, func() bool {
		_, err := os.Stat(filepath.Join(dir, "sys/devices/system/cpu/online")) // is written last
		return err == nil
	})
}

// background runs a component until the test ends.
func background(t *testing.T, run func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
