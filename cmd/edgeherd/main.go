// Command edgeherd is the controller of a fleet of inference boxes and the
// operator's command line.
//
// stdout carries data, stderr carries words for people. -o chooses the form of
// the data; JSON bears its schema. Without a terminal, with CI set, with
// --no-input and with -o json nothing is asked: a missing answer is an error
// that names the flag. A command finds its controller in a context file:
//
//	--context FILE, $EDGEHERD_CONTEXT, ./edgeherd-data/context.json,
//	~/.config/edgeherd/context.json; $EDGEHERD_URL and $EDGEHERD_TOKEN win
//
// Exit codes: 0 done, 1 failed, 2 wrong use, 3 not found, 4 not allowed,
// 5 conflict, 6 timeout with the work still going on, 7 stopped by a gate,
// 8 partly failed, 130 interrupted.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// version is set by the linker.
var version = "unknown"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], newTerminal())
	stop()
	os.Exit(code)
}

// run runs one command line and returns its exit code.
func run(ctx context.Context, args []string, t terminal) int {
	c := &cli{terminal: t, version: version}
	root := c.root()
	root.SetArgs(args)
	root.SetIn(t.in)
	root.SetOut(t.out)
	root.SetErr(t.words)
	return c.exit(ctx, root.ExecuteContext(ctx))
}
