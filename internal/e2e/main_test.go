package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/assets"
)

var programs = []string{"edgeherd", "edgeherd-agent", "edgeherd-runner", "edgeherd-launcher"}

// builtIn is where TestMain lets programs be built.
var builtIn string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "eh")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	builtIn = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// build makes the four programs, once.
var build = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv("EDGEHERD_BIN"); dir != "" {
		return filepath.Abs(dir)
	}
	for _, p := range programs {
		if err := goBuild(filepath.Join(builtIn, p), p, "1.0.0"); err != nil {
			return "", err
		}
	}
	return builtIn, nil
})

// goBuild builds one program with a version.
func goBuild(out, program, version string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w -X main.version="+version, "-o", out, "./cmd/"+program)
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w: %s", program, err, text)
	}
	return nil
}

// bin is the folder of the programs.
func bin(t *testing.T) string {
	t.Helper()
	dir, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// checkout is a folder laid out like the top of a checkout after make build
// and make assets: where the commands of the documents work as written.
func checkout(t *testing.T) string {
	t.Helper()
	from, library := assets.Dir(t), assets.Library(t)
	_ = library // its absence skips as well
	from, err := filepath.Abs(from)
	must(t, err)
	dir, err := os.MkdirTemp("", "eh") // short: sockets lie below it
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.MkdirAll(filepath.Join(dir, "build"), 0o755))
	must(t, os.Symlink(bin(t), filepath.Join(dir, "build", "bin")))
	must(t, os.Symlink(from, filepath.Join(dir, "build", "assets")))
	return dir
}

// environ is ours, with the programs first in the PATH and nothing that would
// lead a command to another fleet.
func environ(dir string) []string {
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "EDGEHERD_") && !strings.HasPrefix(kv, "PATH=") && !strings.HasPrefix(kv, "XDG_CONFIG_HOME=") && !strings.HasPrefix(kv, "HOME=") {
			env = append(env, kv)
		}
	}
	return append(env, "PATH="+filepath.Join(dir, "build", "bin")+":"+os.Getenv("PATH"), "HOME="+dir,
		"EDGEHERD_ASSETS="+filepath.Join(dir, "build", "assets"))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually asks five times a second until ask returns nil. Within is what a
// quiet machine needs at most; one that others use as well gets five times that.
func eventually(t *testing.T, within time.Duration, what string, ask func() error) {
	t.Helper()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	deadline := time.NewTimer(5 * within)
	defer deadline.Stop()
	for {
		err := ask()
		if err == nil {
			return
		}
		select {
		case <-deadline.C:
			t.Fatalf("%s: not within %s: %v", what, 5*within, err)
		case <-tick.C:
		}
	}
}

// runs executes a command line in dir as the documents mean it.
func runs(t *testing.T, dir, line string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", line)
	cmd.Dir, cmd.Env = dir, environ(dir)
	out, err := cmd.CombinedOutput()
	return string(out), errors.Join(err, ctx.Err())
}

// command is runs for one that must succeed.
func command(t *testing.T, dir, line string) string {
	t.Helper()
	out, err := runs(t, dir, line)
	if err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return out
}
