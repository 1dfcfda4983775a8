package main

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller"
	"github.com/edgeherd/edgeherd/internal/loadgen"
	"github.com/edgeherd/edgeherd/internal/loadgen/fleet"
)

// asController has TestMain be a controller: the child of these tests is this
// binary, built with the same race detector.
const asController = "EDGEHERD_LOAD_TEST_CONTROLLER"

func TestMain(m *testing.M) {
	if os.Getenv(asController) == "" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, os.Args[1:]); err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
}

// serve is `edgeherd server run`, as far as the flags of fleet.Start go.
func serve(ctx context.Context, args []string) error {
	at := map[string]string{}
	for i, a := range args {
		if strings.HasPrefix(a, "--") && i+1 < len(args) {
			at[a] = args[i+1]
		}
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	c, err := controller.Open(ctx, controller.Options{
		Dir: at["--state"], HTTP: at["--http"], Device: at["--device"], MQTT: at["--mqtt"], HTTPPlain: true, Version: "test",
	}, log)
	if err != nil {
		return err
	}
	return c.Run(ctx)
}

// testRun is one command line.
func testRun(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, words bytes.Buffer
	code = run(t.Context(), args, &out, &words)
	return code, out.String(), words.String()
}

// Every fault at once, on few devices, against a controller in a process of its
// own: each block is in the database once.
func TestNothingIsLostOrDoubledUnderAllFaults(t *testing.T) {
	t.Setenv(asController, "1")
	state := filepath.Join(t.TempDir(), "server")
	code, out, words := testRun(t, "run", "--self", "--state", state, "--edgeherd", os.Args[0], "-n", "20", "--twins", "6",
		"--every", "200ms", "--for", "6s", "--resend", "500ms", "--max-pause", "2s", "--faults", "all", "--storms", "2", "--storm-spread", "1s",
		"--seed", "20261122", "-o", "json")
	if code != 0 {
		t.Fatalf("exit %d\n%s%s", code, out, words)
	}
	var r loadgen.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	v := r.Verdict
	if v == nil || v.Made < 400 || v.Stored != v.Made || v.Acked != v.Made || v.Lost+v.Doubled+v.Missing+v.Foreign != 0 {
		t.Errorf("database %+v of %s", v, out)
	}
	f := r.Fired
	if f.Drops == 0 || f.Dups == 0 || f.Cuts == 0 || f.Restarts == 0 || f.Clocks == 0 || len(r.Storms) != 2 || r.Resent == 0 {
		t.Errorf("a fault did not fire: %+v, %+v", f, r.Storms)
	}
	// The ledger is as good afterwards, and a database that lacks a block shows.
	if code, out, words := testRun(t, "check", "--state", state); code != 0 || !strings.Contains(out, "lost 0, doubled 0") {
		t.Errorf("check: exit %d\n%s%s", code, out, words)
	}
	if code, out, _ := testRun(t, "check", "--state", filepath.Join(t.TempDir(), "empty"), "--ledger", filepath.Join(state, "load.ledger")); code != 1 {
		t.Errorf("an empty database passes: %s", out)
	}
}

func TestAControllerThatRunsIsLeftAlone(t *testing.T) {
	t.Setenv(asController, "1")
	state := t.TempDir()
	if _, err := fleet.Enrol(t.Context(), state, 3); err != nil {
		t.Fatal(err)
	}
	c, err := fleet.Start(t.Context(), state, os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"enrol", "--state", state, "-n", "4"}, {"check", "--state", state, "--ledger", emptyLedger(t)}, {"run", "--self", "--state", state, "--edgeherd", os.Args[0]}} {
		if code, _, words := testRun(t, args...); code != 1 || !strings.Contains(words, "a controller runs on it") {
			t.Errorf("%v: exit %d, %s", args, code, words)
		}
	}
	if err := c.Stop(); err != nil {
		t.Error(err)
	}
}

func emptyLedger(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ledger")
	if err := os.WriteFile(path, []byte(`{"version":1,"boxes":[]}`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestWrongUseSaysWhatIsRight(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"no controller":  {[]string{"run"}, 2, "--self"},
		"no devices":     {[]string{"run", "--self", "-n", "0"}, 2, "one device or more"},
		"unknown fault":  {[]string{"run", "--self", "--faults", "fire"}, 2, "drop, dup, cut"},
		"unknown form":   {[]string{"run", "--self", "-o", "xml"}, 2, "table or json"},
		"too many twins": {[]string{"run", "--self", "-n", "2", "--twins", "3"}, 2, "--twins"},
		"no such flag":   {[]string{"run", "--selff"}, 2, "unknown flag"},
		"no program":     {[]string{"run", "--self", "--edgeherd", "/nowhere/edgeherd", "-n", "1"}, 1, "make build"},
		"no such state":  {[]string{"run", "--state", "/nowhere"}, 1, "--self"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("TMPDIR", t.TempDir())
			if code, _, words := testRun(t, c.args...); code != c.code || !strings.Contains(words, c.want) {
				t.Errorf("exit %d, %s", code, words)
			}
		})
	}
}

func TestAnInterruptEndsTheController(t *testing.T) {
	t.Setenv(asController, "1")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	var out, words bytes.Buffer
	state := t.TempDir()
	code := run(ctx, []string{"run", "--self", "--state", state, "--edgeherd", os.Args[0], "-n", "2", "--for", "1h"}, &out, &words)
	if code != 130 {
		t.Errorf("exit %d, %s", code, words.String())
	}
	if _, err := fleet.Enrol(t.Context(), state, 2); err != nil {
		t.Errorf("the controller is still there: %v", err)
	}
}
