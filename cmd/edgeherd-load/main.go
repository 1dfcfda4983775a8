// Command edgeherd-load is a load generator for a controller: thousands of
// devices that speak the real protocol with real blocks, faults from a seed, and
// a count of every block against the database.
//
//	edgeherd-load run --self                 against a controller of its own
//	edgeherd-load enrol --state DIR -n 500   boxes for a controller that is stopped
//	edgeherd-load run --state DIR            against the one that runs on DIR
//	edgeherd-load check --state DIR          its database, when it is stopped again
//
// stdout carries the result (a table, or JSON with -o json), stderr progress.
// Exit codes: 0 done, 1 failed or something was lost, doubled or not
// acknowledged, 2 wrong use, 130 interrupted.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// errUsage is wrapped by the errors of a wrong command line.
var errUsage = errors.New("wrong use")

// run runs one command line and returns its exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use: "edgeherd-load", Short: "Load generator for a controller of edgeherd",
		SilenceErrors: true, SilenceUsage: true,
	}
	root.CompletionOptions.DisableDefaultCmd = true
	t := &terminal{stdout, stderr}
	root.AddCommand(runCommand(t), enrolCommand(t), checkCommand(t))
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w: %w", errUsage, err) })
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return 0
	case ctx.Err() != nil:
		fmt.Fprintln(stderr, "interrupted")
		return 130
	}
	fmt.Fprintf(stderr, "edgeherd-load: %v\n", err)
	if errors.Is(err, errUsage) {
		return 2
	}
	return 1
}

// terminal is where results and words go.
type terminal struct{ out, words io.Writer }

func (t *terminal) say(format string, args ...any) { fmt.Fprintf(t.words, format+"\n", args...) }
