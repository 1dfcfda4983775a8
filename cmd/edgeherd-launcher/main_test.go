package main

import (
	"bufio"
	"context"
	"debug/elf"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/firmware"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/slot"
	"github.com/edgeherd/edgeherd/internal/trust"
)

// The test binary plays the launcher when this variable is set.
const playLauncher = "EDGEHERD_TEST_PLAY_LAUNCHER"

func TestMain(m *testing.M) {
	if os.Getenv(playLauncher) != "" {
		os.Unsetenv(playLauncher)
		main()
		return
	}
	os.Exit(m.Run())
}

func launcher(ctx context.Context, t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, self, args...)
	// A program built with -race otherwise sleeps a second at its end.
	cmd.Env = append(os.Environ(), playLauncher+"=1", "GORACE=atexit_sleep_ms=0")
	return cmd
}

func call(t *testing.T, args ...string) (out string, code int) {
	t.Helper()
	cmd := launcher(t.Context(), t, args...)
	data, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(data), cmd.ProcessState.ExitCode()
}

// agents builds each test agent once.
var agents = sync.OnceValues(func() (map[string][]byte, error) {
	dir, err := os.MkdirTemp("", "eh")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := map[string][]byte{}
	for name, flags := range map[string]string{
		"1.0.0": "", "1.1.0": "-X main.version=1.1.0",
		"crash": "-X main.version=6.6.6 -X main.fault=crash", "sick": "-X main.version=7.7.7 -X main.fault=sick",
	} {
		path := filepath.Join(dir, name)
		cmd := exec.Command("go", "build", "-trimpath", "-o", path, "-ldflags=-s -w "+flags, "./testdata/agent")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if msg, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build agent %s: %w\n%s", name, err, msg)
		}
		if out[name], err = os.ReadFile(path); err != nil {
			return nil, err
		}
	}
	// An ELF file for a machine that no kernel runs.
	out["wrong machine"] = append([]byte(nil), out["1.1.0"]...)
	out["wrong machine"][18], out["wrong machine"][19] = byte(elf.EM_AVR), 0
	out["garbage"] = []byte("this is no program")
	return out, nil
})

// box is a directory as testdata/agent wants it.
type box struct {
	t       *testing.T
	dir     string
	state   string // of the launcher
	key     trust.PrivateKey
	counter uint64
	cred    *syscall.Credential
}

func newBox(t *testing.T) *box {
	t.Helper()
	built, err := agents()
	if err != nil {
		t.Fatal(err)
	}
	key, err := trust.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "eh")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b := &box{t: t, dir: dir, state: filepath.Join(dir, "launcher"), key: key}
	b.check(os.Chmod(dir, 0o777), os.Mkdir(filepath.Join(dir, "blobs"), 0o755), os.Mkdir(filepath.Join(dir, "state"), 0o755))
	ring, err := json.Marshal(trust.DevelopmentKeyring(key.Public()))
	b.check(err)
	b.write("keyring.json", ring)
	b.write("first", built["1.0.0"])
	if out, code := call(t, "install", "--state", b.state, filepath.Join(dir, "first")); code != 0 {
		t.Fatalf("install: exit %d: %s", code, out)
	}
	return b
}

func (b *box) check(errs ...error) {
	b.t.Helper()
	for _, err := range errs {
		if err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *box) write(name string, data []byte) {
	b.t.Helper()
	b.check(os.WriteFile(filepath.Join(b.dir, name), data, 0o644))
}

// publish makes the box want a release of the named agent.
func (b *box) publish(name string) {
	b.t.Helper()
	built, err := agents()
	b.check(err)
	program := built[name]
	b.counter++
	r := firmware.Release{V: 1, Kind: firmware.KindAgent, Version: fmt.Sprintf("1.%d.0", b.counter), Counter: b.counter,
		Builds: []firmware.Build{{OS: runtime.GOOS, Arch: runtime.GOARCH, Digest: blob.Sum(program), SizeBytes: int64(len(program))}}}
	envelope, digest, err := firmware.Sign(r, b.key)
	b.check(err)
	b.write("blobs/"+digest.Hex(), envelope)
	b.write("blobs/"+blob.Sum(program).Hex(), program)
	b.write("desired", []byte(digest.String()))
}

// until plays systemd: it starts the launcher whenever it ended, until the last
// note is want by the agent (a version and its slot); then it sends SIGTERM and
// returns all notes since.
func (b *box) until(agent, want string) []string {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 5*time.Minute)
	defer cancel()
	b.check(os.WriteFile(filepath.Join(b.dir, "notes"), nil, 0o666), os.Chmod(filepath.Join(b.dir, "notes"), 0o666))
	for ctx.Err() == nil {
		cmd := launcher(ctx, b.t, "run", "--state", b.state, "--", "--config", "agent.yaml")
		if b.cred != nil {
			cmd.Path = b.copyOf(cmd.Path)
		}
		cmd.Env = append(cmd.Env, "EDGEHERD_TEST_BOX="+b.dir)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: b.cred}
		var log strings.Builder
		cmd.Stderr = &log
		b.check(cmd.Start())
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		if b.watch(ctx, done, agent, want) {
			b.check(cmd.Process.Signal(syscall.SIGTERM))
			if err := <-done; err != nil {
				b.t.Fatalf("SIGTERM: %v\n%s", err, log.String())
			}
			notes := b.notes()
			if pid := fmt.Sprintf("pid=%d ", cmd.Process.Pid); !strings.Contains(notes[len(notes)-1], pid) {
				b.t.Errorf("the agent is not process %s of the launcher: %q", pid, notes[len(notes)-1])
			}
			return notes
		}
		b.t.Logf("process ended\n%s", log.String())
	}
	b.t.Fatalf("no note %q in time: %q", want, b.notes())
	return nil
}

// copyOf puts a program where every user can execute it.
func (b *box) copyOf(program string) string {
	b.t.Helper()
	data, err := os.ReadFile(program)
	path := filepath.Join(b.dir, "launcher-program")
	b.check(err, os.WriteFile(path, data, 0o755))
	return path
}

// watch reports whether the note came before the process ended.
func (b *box) watch(ctx context.Context, done chan error, agent, want string) bool {
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-done:
			return false
		case <-ctx.Done():
			<-done
			return false
		case <-ticker.C:
			notes := b.notes()
			if len(notes) == 0 {
				continue
			}
			if last := notes[len(notes)-1]; strings.HasPrefix(last, agent+" ") && strings.HasSuffix(last, " "+want) {
				return true
			}
		}
	}
}

func (b *box) notes() []string {
	b.t.Helper()
	data, err := os.ReadFile(filepath.Join(b.dir, "notes"))
	b.check(err)
	return strings.FieldsFunc(string(data), func(r rune) bool { return r == '\n' })
}

func (b *box) status() report {
	b.t.Helper()
	out, code := call(b.t, "status", "--state", b.state, "-o", "json")
	var r report
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 {
		b.t.Fatalf("status: exit %d, %v: %s", code, err, out)
	}
	return r
}

func TestRealAgentUpdatesItself(t *testing.T) {
	b := newBox(t)
	b.publish("1.1.0")
	notes := b.until("1.1.0 slot=b", "active")
	if last := notes[len(notes)-1]; !strings.Contains(last, `args=["--config" "agent.yaml"]`) {
		t.Errorf("last note %q", last)
	}
	r := b.status()
	if r.State.Good != slot.B || r.Next != slot.B || r.State.Trial.Slot != "" {
		t.Errorf("status %+v", r)
	}
	// And once more, into the slot that became free; the program is known there.
	b.publish("1.0.0")
	b.until("1.0.0 slot=a", "active")
	if r := b.status(); r.State.Good != slot.A {
		t.Errorf("status after the second update %+v", r)
	}
}

func TestRealBadAgentGivesWay(t *testing.T) {
	for name, starts := range map[string]int{"garbage": 0, "wrong machine": 0, "crash": slot.DefaultTries, "sick": 1} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			b.publish(name)
			notes := b.until("1.0.0 slot=a", "failed")
			got := 0
			for _, n := range notes {
				if strings.HasSuffix(n, " start") && strings.Contains(n, "slot=b") {
					got++
				}
			}
			if got != starts {
				t.Errorf("the bad agent started %d times, want %d", got, starts)
			}
			if r := b.status(); r.State.Good != slot.A || r.Next != slot.A || len(r.State.Failed) != 1 {
				t.Errorf("status %+v", r)
			}
			// The same program in a newer release is refused without a start.
			b.publish(name)
			notes = b.until("1.0.0 slot=a", "refused")
			for _, n := range notes {
				if strings.Contains(n, "slot=b") {
					t.Errorf("the bad agent started again: %q", n)
				}
			}
			// A good one is taken.
			b.publish("1.1.0")
			b.until("1.1.0 slot=b", "active")
		})
	}
}

func TestReadOnlyStateStartsTheGoodAgent(t *testing.T) {
	b := newBox(t)
	// A trial is due, but its start cannot be written down.
	store, s := b.trial("1.1.0")
	b.check(store.Save(s))
	if os.Geteuid() == 0 {
		b.check(os.Chmod(filepath.Join(b.dir, "state"), 0o777))
		b.cred = &syscall.Credential{Uid: 65534, Gid: 65534} // root may write everywhere
	}
	b.check(os.Chmod(b.state, 0o555))
	defer os.Chmod(b.state, 0o755)
	notes := b.until("1.0.0 slot=a", "waiting")
	for _, n := range notes {
		if !strings.HasPrefix(n, "1.0.0 slot=a ") {
			t.Errorf("started %q", n)
		}
	}
	b.check(os.Chmod(b.state, 0o755))
	b.cred = nil
	b.until("1.1.0 slot=b", "active")
	if r := b.status(); r.State.Good != slot.B {
		t.Errorf("writable again: %+v", r)
	}
}

// trial puts an agent into slot b and returns the state with its trial.
func (b *box) trial(name string) (slot.Store, slot.State) {
	b.t.Helper()
	built, err := agents()
	b.check(err)
	store, sum := slot.Store{Dir: b.state}, blob.Sum(built[name])
	s, err := store.Load()
	b.check(err, store.Prepare(slot.B))
	b.check(os.WriteFile(store.StagePath(slot.B), built[name], 0o755))
	b.check(store.Seal(slot.B, sum))
	return store, s.Arm(slot.B, sum)
}

func TestGoodAgentThatDoesNotExecuteIsPassedOver(t *testing.T) {
	b := newBox(t)
	store, s := b.trial("wrong machine")
	b.check(store.Save(s.Confirm()))
	b.until("1.0.0 slot=a", "start")
	if r := b.status(); r.State.Good != slot.A {
		t.Errorf("status %+v", r)
	}
	// And when nothing executes, the launcher says so and ends.
	b.check(os.WriteFile(store.Path(slot.A), []byte("garbage"), 0o755))
	if out, code := call(t, "run", "--state", b.state); code != 1 || !strings.Contains(out, "no slot holds a program") {
		t.Errorf("exit %d: %s", code, out)
	}
}

func TestDamagedSlotFallsBackAndIsRepaired(t *testing.T) {
	b := newBox(t)
	b.publish("1.1.0")
	b.until("1.1.0 slot=b", "active")
	b.check(os.WriteFile(slot.Store{Dir: b.state}.Path(slot.B), []byte("\x00\x00\x00"), 0o755))
	if r := b.status(); r.Next != slot.A {
		t.Errorf("status %+v", r)
	}
	notes := b.until("1.1.0 slot=b", "active")
	if !strings.HasPrefix(notes[0], "1.0.0 slot=a ") {
		t.Errorf("started %q: want the old agent, which repairs the slot", notes[0])
	}
}

// TestOnceCountsNothing: a command of the agent beside its starts.
func TestOnceCountsNothing(t *testing.T) {
	dir := t.TempDir()
	if out, code := call(t, "once", "--state", dir, "--", "version"); code != 1 || !strings.Contains(out, "launcher.json") {
		t.Errorf("with no agent: %d %s", code, out)
	}
	file := filepath.Join(t.TempDir(), "agent")
	if err := os.WriteFile(file, []byte("#!/bin/sh\necho \"$@ in $"+slot.EnvSlot+"\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, code := call(t, "install", "--state", dir, file); code != 0 {
		t.Fatal(out)
	}
	before, _ := call(t, "status", "--state", dir, "-o", "json")
	if out, code := call(t, "once", "--state", dir, "--", "fan-guard", "--restore"); code != 0 || out != "fan-guard --restore in a\n" {
		t.Errorf("%d %q", code, out)
	}
	if after, _ := call(t, "status", "--state", dir, "-o", "json"); after != before {
		t.Errorf("before %s after %s", before, after)
	}
}

func TestSignalEndsTheWait(t *testing.T) {
	b := newBox(t)
	store := slot.Store{Dir: b.state}
	s, err := store.Load()
	b.check(err)
	s.Backoff = slot.Backoff{Level: 8, Starts: []time.Time{time.Now()}}
	b.check(store.Save(s))
	cmd := launcher(t.Context(), t, "run", "--state", b.state)
	stderr, err := cmd.StderrPipe()
	b.check(err, cmd.Start())
	said := ""
	for lines := bufio.NewScanner(stderr); !strings.Contains(said, "delay=5m0s") && lines.Scan(); {
		said += lines.Text() + "\n"
	}
	if !strings.Contains(said, "delay=5m0s") {
		t.Errorf("the launcher says %q", said)
	}
	// Should the signal arrive before its handler, its default action ends the wait too.
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	b.check(cmd.Process.Signal(syscall.SIGTERM))
	select {
	case <-done:
	case <-time.After(5 * time.Minute):
		cmd.Process.Kill()
		t.Error("SIGTERM does not end the wait")
	}
}

func TestCommandLine(t *testing.T) {
	dir := t.TempDir()
	for _, tc := range []struct {
		args []string
		code int
		says string
	}{
		{nil, 2, "usage:"},
		{[]string{"help"}, 0, "usage:"},
		{[]string{"fly", "--state", dir}, 2, "fly"},
		{[]string{"run"}, 2, "--state"},
		{[]string{"run", "--bogus"}, 2, "bogus"},
		{[]string{"status", "--state", dir, "-o", "xml"}, 2, "status"},
		{[]string{"install", "--state", dir}, 2, "install"},
		{[]string{"install", "--state", dir, filepath.Join(dir, "absent")}, 1, "no such file"},
		{[]string{"status", "--state", dir}, 1, "edgeherd-launcher install"},
		{[]string{"run", "--state", dir}, 1, "edgeherd-launcher install"},
		{[]string{"install", "--state", dir, os.Args[0]}, 0, "in slot a"},
		{[]string{"install", "--state", dir, "main.go"}, 1, "to start over"},
		{[]string{"status", "--state", dir}, 0, "next start  slot a (good)"},
	} {
		if out, code := call(t, tc.args...); code != tc.code || !strings.Contains(out, tc.says) {
			t.Errorf("%q: exit %d, want %d with %q:\n%s", tc.args, code, tc.code, tc.says, out)
		}
	}
}

// The launcher is on every box for ever: 3 MB stripped.
func TestLauncherStaysSmall(t *testing.T) {
	path := filepath.Join(t.TempDir(), "launcher")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if fi.Size() > 3_000_000 {
		t.Errorf("%d bytes, at most 3000000 are allowed", fi.Size())
	}
	source, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(source), "\n"); n >= 300 {
		t.Errorf("main.go has %d lines, fewer than 300 are allowed", n)
	}
}
