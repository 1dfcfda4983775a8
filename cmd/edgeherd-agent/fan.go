package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"github.com/edgeherd/edgeherd/agent"
	"github.com/edgeherd/edgeherd/agent/fan"
)

// guardFan is the guard's process when its standard input is an agent; with
// --restore it gives back at once what an agent had raised: ExecStopPost of a
// unit runs that, since a stop of last resort kills agent and guard together.
func guardFan(ctx context.Context, args []string) error {
	if !slices.Contains(args, "--restore") {
		if len(args) > 0 {
			return fmt.Errorf("%w: fan-guard is started by the agent; by hand only with --restore", errUsage)
		}
		return fan.Guard(ctx, os.Stdin)
	}
	c, err := loadConfig(slices.DeleteFunc(slices.Clone(args), func(a string) bool { return a == "--restore" }), os.Getenv)
	if err != nil {
		return err
	}
	return agent.RestoreFan(c.State, c.Root)
}

// pipe ends the guard when it is closed.
type pipe struct {
	io.WriteCloser
	ended chan struct{}
}

// guardExit is how long the end of a guard is waited for; a driver may hang it.
const guardExit = 3 * time.Second

// guardReads is how long a guard may take to read a line.
const guardReads = time.Second

// Write does not wait for a guard that reads no more: in a week it would fill
// the pipe, and the agent would stand still.
func (p pipe) Write(b []byte) (int, error) {
	if f, ok := p.WriteCloser.(*os.File); ok {
		if err := f.SetWriteDeadline(time.Now().Add(guardReads)); err != nil {
			return 0, err
		}
	}
	return p.WriteCloser.Write(b)
}

func (p pipe) Close() error {
	err := p.WriteCloser.Close()
	timer := time.NewTimer(guardExit)
	defer timer.Stop()
	select {
	case <-p.ended: // what it restores is restored
	case <-timer.C:
	}
	return err
}

// startFanGuard starts the guard in a session of its own, so that what ends the
// agent's group does not end it.
func startFanGuard(order []byte) (io.WriteCloser, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.Command(self, "fan-guard")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	w, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := pipe{w, make(chan struct{})}
	go func() {
		defer close(p.ended)
		_ = cmd.Wait() // what went wrong it has said on stderr
	}()
	if _, err := p.Write(order); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}
