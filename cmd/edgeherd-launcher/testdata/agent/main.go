// Command agent is the smallest agent that updates itself: the launcher's test
// builds it in several versions. It reads what it needs from the directory in
// EDGEHERD_TEST_BOX: blobs/, keyring.json, desired (a digest), state/. It adds a
// line to starts, prints its version and ends on SIGTERM.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/edgeherd/edgeherd/agent/update"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/slot"
	"github.com/edgeherd/edgeherd/internal/trust"
)

// Set by the linker: the version and what is wrong with it.
var (
	version = "1.0.0"
	fault   = ""
)

func main() {
	err := run(os.Getenv("EDGEHERD_TEST_BOX"))
	if err != nil && !errors.Is(err, update.ErrRestart) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(dir string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM) // which may come as soon as the note is read
	defer stop()
	note(dir, "start")
	if fault == "crash" {
		return errors.New("crashed as told")
	}
	var keys trust.Keyring
	data, err := os.ReadFile(filepath.Join(dir, "keyring.json"))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, &keys); err != nil {
		return err
	}
	var desired blob.Digest
	if data, err := os.ReadFile(filepath.Join(dir, "desired")); err == nil {
		if err := desired.UnmarshalText(data); err != nil {
			return err
		}
	}
	u, err := update.New(update.Options{
		Slot:        slot.ID(os.Getenv(slot.EnvSlot)),
		LauncherDir: os.Getenv(slot.EnvDir),
		StateDir:    filepath.Join(dir, "state"),
		Version:     version,
		Keys:        func() trust.Keyring { return keys },
		Fetch: func(_ context.Context, d blob.Digest) (string, error) {
			return filepath.Join(dir, "blobs", d.Hex()), nil
		},
		Healthy: func() error {
			if fault == "sick" {
				return errors.New("sick as told")
			}
			return nil
		},
		Report:        func(p update.Phase) { note(dir, p.Phase) },
		ProbationMin:  100 * time.Millisecond,
		ConfirmWindow: 500 * time.Millisecond,
	}, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	u.Connected()
	u.SetDesired(desired)
	if err := u.Run(ctx); err != nil {
		return err
	}
	return u.CleanStop()
}

// note adds a line that the test waits for.
func note(dir, what string) {
	f, err := os.OpenFile(filepath.Join(dir, "notes"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
	if err != nil {
		return
	}
	defer f.Close()
	fmt.Fprintf(f, "%s slot=%s pid=%d args=%q %s\n", version, os.Getenv(slot.EnvSlot), os.Getpid(), os.Args[1:], what)
}
