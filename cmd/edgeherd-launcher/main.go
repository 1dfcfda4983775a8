// Command edgeherd-launcher starts the agent of a box from one of two slots.
//
// It is the one program of a box that is never updated with the agent, so it
// stays small: pick a slot, write down that it is about to be started, become
// the agent by execve (same process id, so the supervisor notices nothing).
// The rules are those of package slot; the files lie in the directory given by
// --state. A new agent that does not confirm itself within its tries, cannot be
// executed or is damaged gives way to the one that was good before. A good
// agent in a crash loop is slowed down to one start in five minutes.
//
// Exit codes: 0 stopped by a signal or done, 1 failure, 2 wrong use.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/slot"
)

const usage = `usage:
  edgeherd-launcher run     --state DIR -- [agent arguments]
  edgeherd-launcher once    --state DIR -- [agent arguments]
  edgeherd-launcher install --state DIR FILE
  edgeherd-launcher status  --state DIR [-o json]
`

// errUsage says that the command line makes no sense: exit code 2.
var errUsage = errors.New("wrong use")

func main() {
	err := run(os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, errUsage):
		fmt.Fprintf(os.Stderr, "edgeherd-launcher: %v\n%s", err, usage)
		os.Exit(2)
	case err != nil:
		fmt.Fprintf(os.Stderr, "edgeherd-launcher: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		return fmt.Errorf("%w: no command", errUsage)
	}
	if args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		_, err := io.WriteString(stdout, usage)
		return err
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	dir := flags.String("state", "", "")
	format := flags.String("o", "text", "")
	if err := flags.Parse(args[1:]); err != nil {
		return fmt.Errorf("%w: %v", errUsage, err)
	}
	if *dir == "" {
		return fmt.Errorf("%w: --state DIR is missing", errUsage)
	}
	store := slot.Store{Dir: *dir}
	switch {
	case args[0] == "run":
		return launch(store, flags.Args(), stderr)
	case args[0] == "once" && flags.NArg() > 0:
		return once(store, flags.Args())
	case args[0] == "install" && flags.NArg() == 1:
		return install(store, flags.Arg(0), stdout)
	case args[0] == "status" && flags.NArg() == 0 && (*format == "text" || *format == "json"):
		return status(store, *format, stdout)
	}
	return fmt.Errorf("%w: command %q with arguments %q", errUsage, args[0], flags.Args())
}

// launch returns only if nothing could be started or a signal ended the wait.
// Each turn either uses up a try of the trial or marks a slot as broken, so it
// ends after a few.
func launch(store slot.Store, args []string, stderr io.Writer) error {
	var broken slot.Pair[bool]
	for {
		c, err := store.Choose(broken, time.Now())
		if err != nil {
			fmt.Fprintf(stderr, "edgeherd-launcher: %v\n", err)
		}
		if c.Slot == "" {
			return fmt.Errorf("%s; install one with: edgeherd-launcher install --state %s FILE", c.Reason, store.Dir)
		}
		fmt.Fprintf(stderr, "edgeherd-launcher: start slot=%s reason=%q delay=%s\n", c.Slot, c.Reason, c.Delay)
		if !wait(c.Delay) {
			return nil
		}
		path := store.Path(c.Slot)
		err = syscall.Exec(path, append([]string{path}, args...), environ(store, c.Slot))
		fmt.Fprintf(stderr, "edgeherd-launcher: execute %s: %v\n", path, err)
		// A trial that is counted on disk is tried again until its tries are
		// used up; anything else is passed over for the rest of this launch.
		if c.State.Trial.Slot != c.Slot || !c.Save {
			broken = broken.With(c.Slot, true)
		}
	}
}

// once becomes the good agent for a command of its own, such as one that a unit
// runs after the agent has ended. That is no start, so nothing is counted.
func once(store slot.Store, args []string) error {
	s, err := store.Load()
	if err != nil {
		return err
	}
	if s.Good == "" {
		return fmt.Errorf("no agent in %s is good", store.Dir)
	}
	path := store.Path(s.Good)
	return fmt.Errorf("execute %s: %w", path, syscall.Exec(path, append([]string{path}, args...), environ(store, s.Good)))
}

// wait reports false if SIGTERM or SIGINT arrived. Both have their default
// action again when it returns, so that none is lost before the exec.
func wait(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// environ is ours with the two variables by which the agent knows its slot.
func environ(store slot.Store, id slot.ID) []string {
	os.Setenv(slot.EnvSlot, string(id))
	os.Setenv(slot.EnvDir, store.Dir)
	return os.Environ()
}

func install(store slot.Store, file string, stdout io.Writer) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	sum, err := store.Install(f)
	if errors.Is(err, slot.ErrOccupied) {
		return fmt.Errorf("%w; updates come from the fleet; to start over, stop the agent and remove %s/slots and %s/launcher.json", err, store.Dir, store.Dir)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "installed %s in slot a\n", sum)
	return err
}

// report is what status prints; scripts read its JSON form.
type report struct {
	State slot.State             `json:"state"`
	Found slot.Pair[blob.Digest] `json:"found"`
	// Next is the slot that would start now.
	Next   slot.ID `json:"next"`
	Reason string  `json:"reason"`
}

func status(store slot.Store, format string, stdout io.Writer) error {
	s, err := store.Load()
	if err != nil {
		return fmt.Errorf("%w; the next start makes a new state from the slots, or: edgeherd-launcher install --state %s FILE", err, store.Dir)
	}
	f := store.Find()
	c := slot.Pick(s, true, f, time.Now())
	r := report{State: s, Found: f.Found, Next: c.Slot, Reason: c.Reason}
	if format == "json" {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	return text(r, stdout)
}

func text(r report, w io.Writer) error {
	for _, id := range []slot.ID{slot.A, slot.B} {
		role := "empty"
		switch sum := r.Found.Of(id); {
		case sum != r.State.Sum.Of(id):
			role = "not what was put there"
		case id == r.State.Good && !sum.IsZero():
			role = "good"
		case id == r.State.Trial.Slot:
			role = fmt.Sprintf("on trial, started %d of %d times", r.State.Trial.Tries, r.State.Trial.Max)
		case r.State.HasFailed(sum):
			role = "failed"
		case !sum.IsZero():
			role = "previous"
		}
		if _, err := fmt.Fprintf(w, "slot %s  %-12s  %s\n", id, r.Found.Of(id).Short(), role); err != nil {
			return err
		}
	}
	if last := r.State.LastRollback; last.Slot != "" {
		if _, err := fmt.Fprintf(w, "last rollback  %s  %s  %s\n", last.At.Format(time.RFC3339), last.Digest.Short(), last.Reason); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "next start  slot %s (%s)\n", r.Next, r.Reason)
	return err
}
