package backend

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/edgeherd/edgeherd/internal/timerslack"
)

const (
	// stopGrace is how long a program may take to end before it is killed.
	stopGrace = 10 * time.Second
	// toolTimeout bounds a command that only tells an engine or systemd something.
	toolTimeout = 30 * time.Second
	// tailBytes of what a program prints are kept, for the reason of its end.
	tailBytes = 8 << 10
)

// Program is one start of a Config.
type Program struct {
	log  *slog.Logger
	cmd  *exec.Cmd // nil: nothing of ours runs
	tail tail
	done chan struct{} // closed when cmd has ended; never where there is none
	err  error         // written before done is closed
	// stopping says that the end is wanted.
	stopping atomic.Bool
	// end and after are argument vectors: end asks the program to stop, where a
	// signal does not, and after removes what is left of it.
	end, after []string
}

// Start starts what the configuration says for one version. ctx bounds the
// start only. That it runs does not mean that it is ready: a Client asks.
func (c Config) Start(ctx context.Context, l Launch, log *slog.Logger) (*Program, error) {
	p := &Program{log: log, done: make(chan struct{})}
	var argv []string
	var err error
	death := syscall.SIGKILL
	switch {
	case len(c.Process) > 0:
		argv, err = l.fillAll(c.Process)
	case c.Container != nil:
		// The command of an engine hands SIGTERM on to its container.
		death = syscall.SIGTERM
		argv, err = c.Container.commands(l, p)
		if err == nil && p.after != nil {
			_ = tool(ctx, p.after) // what a killed runner left; usually there is nothing
		}
	case c.Unit != "":
		var unit string
		if unit, err = l.fill(c.Unit); err == nil {
			if unit != c.Unit {
				p.after = []string{"systemctl", "stop", unit}
			}
			err = tool(ctx, []string{"systemctl", "start", unit})
		}
	}
	env, err2 := c.environment(l)
	if err = errors.Join(err, err2); err == nil && argv != nil {
		err = p.spawn(argv, env, death)
	}
	if err != nil {
		return nil, fmt.Errorf("start backend %s: %w", c.Name, err)
	}
	return p, nil
}

// environment is that of the runner without what is the runner's own, and what
// the configuration adds.
func (c Config) environment(l Launch) ([]string, error) {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "EDGEHERD_") })
	more := make([]string, 0, len(c.Environment))
	for key, v := range c.Environment {
		more = append(more, key+"="+v)
	}
	more, err := l.fillAll(more)
	return append(env, more...), err
}

// commands returns how the container is run, and sets how it ends.
func (c *Container) commands(l Launch, p *Program) ([]string, error) {
	image, err := l.fill(c.Image)
	options, err2 := l.fillAll(c.Options)
	arguments, err3 := l.fillAll(c.Arguments)
	if err := errors.Join(err, err2, err3); err != nil {
		return nil, err
	}
	name := "edgeherd-" + l.ID
	var argv []string
	if c.Engine == engineK3s {
		argv = []string{engineK3s, "ctr", "run", "--rm", "--net-host"}
		for _, dir := range l.mounts() {
			argv = append(argv, "--mount", "type=bind,src="+dir+",dst="+dir+",options=rbind:ro")
		}
		argv = append(append(argv, options...), image, name)
		p.end = []string{engineK3s, "ctr", "task", "kill", name}
		p.after = []string{engineK3s, "ctr", "container", "rm", name}
		return append(argv, arguments...), nil
	}
	argv = []string{c.Engine, "run", "--rm", "--name", name, "-p", fmt.Sprintf("127.0.0.1:%d:%d", l.Port, c.Port)}
	for _, dir := range l.mounts() {
		argv = append(argv, "-v", dir+":"+dir+":ro")
	}
	argv = append(append(argv, options...), image)
	p.end = []string{c.Engine, "stop", name}
	p.after = []string{c.Engine, "rm", "-f", name}
	return append(argv, arguments...), nil
}

// mounts are the directories that a container sees, under the same names, so
// that links lead to the same files.
func (l Launch) mounts() []string { return []string{l.Dir, l.Blobs} }

// tool runs a short command and returns what it says when it fails.
func tool(ctx context.Context, argv []string) error {
	ctx, cancel := context.WithTimeout(ctx, toolTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var out tail
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &out, time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, out.last())
	}
	return nil
}

// spawn starts the process. The thread that forks must live as long as the
// child, or the kernel takes its end for that of the runner (PR_SET_PDEATHSIG).
func (p *Program) spawn(argv, env []string, death syscall.Signal) error {
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Env = env
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.WaitDelay = &p.tail, &p.tail, time.Second
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: death}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := timerslack.Start(p.cmd, timerslack.Usual)
		started <- err
		if err != nil {
			return
		}
		_ = p.cmd.Wait() // the state says more
		// What it started, such as Ollama's processes for models, must not outlive it.
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		if !p.stopping.Load() {
			p.err = fmt.Errorf("process %d ended: %s: %s", p.cmd.Process.Pid, p.cmd.ProcessState, p.tail.last())
		}
		close(p.done)
	}()
	return <-started
}

// Done is closed when the program has ended, as far as the runner can see: a
// unit and a watched program only stop to answer.
func (p *Program) Done() <-chan struct{} { return p.done }

// Err is why the program ended; nil while it runs and when Stop ended it.
func (p *Program) Err() error {
	select {
	case <-p.done:
		return p.err
	default:
		return nil
	}
}

// PID of the process, or of the engine's command; 0 where nothing of ours runs.
func (p *Program) PID() int {
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// Stop ends the program, waits for it and removes what is left.
func (p *Program) Stop() {
	p.stopping.Store(true)
	ctx := context.Background() // bounded by toolTimeout; also when the runner ends
	if p.cmd != nil {
		p.terminate(ctx)
	}
	if p.after != nil {
		if err := tool(ctx, p.after); err != nil && p.cmd == nil {
			p.log.Warn("backend did not stop", "err", err)
		}
	}
}

func (p *Program) terminate(ctx context.Context) {
	select {
	case <-p.done:
		return
	default:
	}
	pid := p.cmd.Process.Pid
	if p.end == nil {
		_ = syscall.Kill(-pid, syscall.SIGTERM)
	} else if err := tool(ctx, p.end); err != nil {
		p.log.Warn("container did not stop when it was told to", "err", err)
		_ = syscall.Kill(-pid, syscall.SIGTERM)
	}
	select {
	case <-p.done:
	case <-time.After(stopGrace):
		p.log.Warn("backend is killed, it did not end by itself", "took", stopGrace)
		_ = syscall.Kill(-pid, syscall.SIGKILL)
		<-p.done
	}
}

// tail keeps the end of what a program prints.
type tail struct {
	mu  sync.Mutex
	buf []byte // guarded by mu
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b[max(len(b)-tailBytes, 0):]...)
	if extra := len(t.buf) - tailBytes; extra > 0 {
		t.buf = append(t.buf[:0], t.buf[extra:]...)
	}
	return len(b), nil
}

// last is the last line that says something, or what there is of it.
func (t *tail) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := strings.Split(string(t.buf), "\n")
	for _, line := range slices.Backward(lines) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasSuffix(line, "--help' for more information") || strings.HasPrefix(line, "See 'docker run --help'") {
			continue // engines end with where to read about their options
		}
		return line[:min(len(line), 300)]
	}
	return "it printed nothing"
}
