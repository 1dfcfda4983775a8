package up

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// How long a process may take to end by itself, and the pauses before a
// process that ended is started again.
const (
	endGrace   = 10 * time.Second
	firstPause = 300 * time.Millisecond
	mostPause  = 10 * time.Second
	longLife   = 30 * time.Second // a process that lived this long starts at firstPause again
)

// supervisor keeps programs alive.
type supervisor struct {
	log *slog.Logger
	dir string // log files
}

// keep runs p, again and again, until ctx is done and p has ended.
func (s supervisor) keep(ctx context.Context, p program) error {
	// The kernel kills a child when the thread that started it ends, so this
	// goroutine stays on its thread for as long as it has children.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	out, err := os.OpenFile(filepath.Join(s.dir, p.name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("open log of %s: %w", p.name, err)
	}
	defer out.Close()
	pause := firstPause
	for ctx.Err() == nil {
		began := time.Now()
		err := runOnce(ctx, p, out)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > longLife {
			pause = firstPause
		}
		s.log.Warn("process ended, starting it again", "program", p.name, "err", err, "took", time.Since(began).Round(time.Millisecond))
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, mostPause)
	}
	return nil
}

func runOnce(ctx context.Context, p program, out *os.File) error {
	cmd := exec.CommandContext(ctx, p.path, p.args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append(os.Environ(), p.env...)
	// A group of its own keeps the terminal's Ctrl-C away from it: the end
	// comes from us, in order. If we are killed, the kernel ends it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = endGrace
	return cmd.Run()
}
