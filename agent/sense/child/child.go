// Package child reads hardware that only a vendor's program can read: it runs
// nvidia-smi and smartctl for a bounded time and decodes what they print.
//
// Vocabulary: a card is one NVIDIA GPU, a drive is one NVMe, SATA or SAS disk.
// A figure that the program does not know ("N/A") is nil, never zero.
//
// The agent stays free of cgo and of the libraries of drivers this way, and a
// driver that hangs takes a child with it and not the agent.
//
// The one rule a caller can break: a program that prints for people is not read
// here; use its XML or JSON, whose names stay from version to version.
package child

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// maxOutput bounds what a program may print. nvidia-smi prints 120 KB a card.
const maxOutput = 8 << 20

// ErrTooMuch says that a program printed more than anyone wants to read.
var ErrTooMuch = errors.New("more than 8 MiB of output")

// Output runs a program until it ends or ctx is done and returns what it
// printed. A program that ends with a code other than zero gives output and an
// error, an *exec.ExitError within: some say their findings that way.
func Output(ctx context.Context, name string, args ...string) ([]byte, error) {
	var out, told bounded
	out.room, told.room = maxOutput, 512
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &out, &told
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	// Its own group, so that what it started ends with it; a grandchild that
	// keeps the pipe open is waited for no longer than this.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("run %s: %w", name, ctx.Err())
	case out.cut:
		return nil, fmt.Errorf("run %s: %w", name, ErrTooMuch)
	case err != nil:
		said, _, _ := strings.Cut(strings.TrimSpace(told.kept.String()), "\n")
		return out.kept.Bytes(), fmt.Errorf("run %s: %w %s", name, err, said)
	}
	return out.kept.Bytes(), nil
}

// bounded is a buffer that forgets what does not fit, so that the program does
// not see a broken pipe.
type bounded struct {
	kept bytes.Buffer // not embedded: its ReadFrom would go past Write
	room int
	cut  bool
}

func (b *bounded) Write(p []byte) (int, error) {
	keep := p[:min(len(p), b.room-b.kept.Len())]
	b.cut = b.cut || len(keep) < len(p)
	b.kept.Write(keep)
	return len(p), nil
}
