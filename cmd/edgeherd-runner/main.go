// Command edgeherd-runner serves the models of a box: Open Inference Protocol
// version 2 over HTTP and a unix socket, cameras and pipelines, and one worker
// process per loaded model version.
//
// It starts from what is on disk, without agent and without network: which
// models serve is in active.json, which the agent writes; the files are in the
// blob store beside it. Settings come from flags, then from EDGEHERD_RUNNER_*
// variables, then from /etc/edgeherd/runner.yaml, then from defaults.
//
// Exit codes: 0 stopped by a signal or done, 1 failure, 2 wrong use.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/internal/timerslack"
)

// version is set by the linker.
var version = "dev"

const usage = `usage:
  edgeherd-runner run [--config FILE] [--http ADDR] [--socket PATH] ...   serve models; run --help lists the flags
  edgeherd-runner try --library FILE --model FILE --inputs FILE           run one request on a model file
  edgeherd-runner golden --library FILE --model FILE --samples FILE       what a model file answers to golden samples, in their form
  edgeherd-runner version
`

// errUsage says that the command line makes no sense: exit code 2.
var errUsage = errors.New("wrong use")

func main() {
	if len(os.Args) > 1 && os.Args[1] == "run" {
		timerslack.Restart(timerslack.Server)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, errUsage):
		fmt.Fprintf(os.Stderr, "edgeherd-runner: %v\n%s", err, usage)
		os.Exit(2)
	case err != nil:
		fmt.Fprintf(os.Stderr, "edgeherd-runner: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		return fmt.Errorf("%w: no command", errUsage)
	}
	switch verb, rest := args[0], args[1:]; verb {
	case "run":
		return runServer(ctx, rest, stdout, stderr)
	case "try":
		return try(ctx, rest, stdout)
	case "golden":
		return answerGolden(ctx, rest, stdout)
	case "worker": // not in usage: the runner starts it
		return worker.Main(ctx, rest, stderr)
	case "version", "--version":
		_, err := fmt.Fprintf(stdout, "edgeherd-runner %s\n", version)
		return err
	case "help", "-h", "--help":
		_, err := io.WriteString(stdout, usage)
		return err
	default:
		return fmt.Errorf("%w: unknown command %q", errUsage, verb)
	}
}
