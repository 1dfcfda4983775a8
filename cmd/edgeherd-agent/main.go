// Command edgeherd-agent is the control plane of a box: it senses, buffers
// telemetry, syncs with the controller, activates models and updates itself.
//
// It is started by edgeherd-launcher, and runs without it as well (then it
// cannot update itself). Exit codes: 0 stopped by a signal, 1 failure, 2 wrong
// use, 3 an acceptance test that failed, 4 one that was ended early, 75 restart
// into another version.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"github.com/edgeherd/edgeherd/agent"
	"github.com/edgeherd/edgeherd/agent/spool"
	"github.com/edgeherd/edgeherd/agent/update"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
)

// version is set at link time.
var version = "dev"

const usage = `usage:
  edgeherd-agent enroll [TOKEN | -] [--file FILE] [--name NAME] [--tpm auto|off|DEVICE] [--re-enroll]
                 [--offline DIR] [--import ANSWER] [--config FILE] [--state DIR] [--root DIR]
  edgeherd-agent run [--config FILE] [--state DIR] [--root DIR] [--runner SOCKET] [--log LEVEL]
  edgeherd-agent status [--config FILE] [--state DIR] [--json]
  edgeherd-agent health [--config FILE] [--state DIR] [-o json]
  edgeherd-agent doctor [--config FILE] [--state DIR] [-o json]
  edgeherd-agent accept [--level LEVEL,…] [--delivery FILE] [--load-for 10m] [--model NAME[:VERSION]] [--by WHO]
                 [-o live|plain|json|jsonl] [--config FILE] [--state DIR] [--root DIR] [--runner SOCKET]
  edgeherd-agent import BUNDLE [-o=json] [--config FILE] [--state DIR]
  edgeherd-agent sensors [--config FILE] [--root DIR]
  edgeherd-agent fan-guard --restore [--config FILE] [--state DIR]
  edgeherd-agent version

Settings come from flags, then EDGEHERD_STATE, EDGEHERD_ROOT, EDGEHERD_RUNNER,
then the file (default /etc/edgeherd/agent.yaml, which may be absent).
`

const (
	exitUsage   = 2
	exitFailed  = 3  // the box failed its acceptance test
	exitAborted = 4  // the acceptance test was ended early
	exitRestart = 75 // EX_TEMPFAIL: the launcher picks the agent that is due
)

var errUsage = errors.New("wrong use")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case err == nil:
	case errors.Is(err, errUsage):
		fmt.Fprintf(os.Stderr, "edgeherd-agent: %v\n%s", err, usage)
		os.Exit(exitUsage)
	case errors.Is(err, update.ErrRestart):
		os.Exit(exitRestart)
	default:
		fmt.Fprintf(os.Stderr, "edgeherd-agent: %v\n", err)
		switch {
		case errors.Is(err, errNotAccepted):
			os.Exit(exitFailed)
		case errors.Is(err, errTestAborted):
			os.Exit(exitAborted)
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		return fmt.Errorf("%w: no command", errUsage)
	}
	if slices.ContainsFunc(args[1:], func(a string) bool { return a == "-h" || a == "-help" || a == "--help" }) {
		args = []string{"help"}
	}
	switch args[0] {
	case "enroll":
		return enroll(ctx, args[1:], os.Stdin, stdout)
	case "run":
		return runAgent(ctx, args[1:], stderr)
	case "status":
		return printStatus(args[1:], stdout)
	case "health":
		return printHealth(args[1:], stdout)
	case "doctor":
		return printDoctor(ctx, args[1:], stdout)
	case "accept":
		return runAccept(ctx, args[1:], stdout, stderr)
	case "import":
		return importBundle(ctx, args[1:], stdout)
	case "sensors":
		return printSensors(ctx, args[1:], stdout)
	case "fan-guard":
		return guardFan(ctx, args[1:])
	case "check-spool": // run by the agent itself, see checkSpool
		if len(args) != 2 {
			return fmt.Errorf("%w: check-spool takes a file", errUsage)
		}
		return spool.CheckFile(args[1])
	case "version", "--version":
		_, err := fmt.Fprintln(stdout, "edgeherd-agent", version)
		return err
	case "help", "-h", "--help":
		_, err := io.WriteString(stdout, usage)
		return err
	}
	return fmt.Errorf("%w: unknown command %q", errUsage, args[0])
}

func runAgent(ctx context.Context, args []string, stderr io.Writer) error {
	c, err := loadConfig(args, os.Getenv)
	if err != nil {
		return err
	}
	// The agent shares a small box with inference: give memory back early.
	debug.SetGCPercent(50)
	debug.SetMemoryLimit(32 << 20)
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: c.Log}))
	opts := agent.Options{
		State: c.State, Root: c.Root, Runner: runnerapi.Dial(c.Runner), Version: version,
		SensePeriod: c.SensePeriod, SealPeriod: c.SealPeriod, Trial: c.Trial, HeatWindow: heatWindow(c.MeasureHeat), Probation: c.Probation,
		FirstDelay: c.FirstDelay, SpoolBytes: c.SpoolBytes, CheckSpool: checkSpool, MinFreeBytes: c.MinFreeBytes,
		DownloadRate: c.DownloadRate, MonthBytes: c.MonthBytes, BucketAllow: c.BucketAllow, BucketHosts: c.BucketHosts, SettingsAllow: c.allow, PeerListen: c.PeerListen, PeerAddress: c.PeerAddress,
		Server: c.Server, Proxy: c.Proxy, ProxyAuth: c.ProxyAuthFile, Secrets: c.Secrets, Sensors: c.Sensors, Outside: c.Outside,
		Fans: c.Fan, FanGuard: startFanGuard, Accept: acceptFor(args), NoBlackbox: !c.Blackbox, BlackboxPeriod: c.BlackboxPeriod,
	}
	if err := agent.Retire(ctx, opts, log); err != nil {
		return err
	}
	if err := waitForEnrolment(ctx, c.State, log); err != nil {
		return nil // stopped
	}
	a, err := whenTheDiskPermits(ctx, log, func() (*agent.Agent, error) { return agent.Open(opts, log) })
	if a == nil {
		return err
	}
	log.Info("agent started", "version", version)
	return a.Run(ctx)
}

// whenTheDiskPermits opens an agent, and waits for a disk that takes no writes
// until ctx is done: then it returns nothing. To end would not help, since the
// launcher would start another agent on the same disk. The runner goes on serving
// meanwhile.
func whenTheDiskPermits(ctx context.Context, log *slog.Logger, open func() (*agent.Agent, error)) (*agent.Agent, error) {
	level := slog.LevelError // once; the way out is in the error
	for wait := 5 * time.Second; ; wait = min(2*wait, time.Minute) {
		a, err := open()
		if !errors.Is(err, spool.ErrNoWrites) && !errors.Is(err, spool.ErrNotChecked) {
			return a, err
		}
		log.Log(ctx, level, "agent waits for its disk or memory, inference goes on", "err", err)
		level = slog.LevelDebug
		select {
		case <-ctx.Done():
			return nil, nil
		case <-time.After(wait):
		}
	}
}

// checkSpool looks at a spool in a child process: a damaged page makes bbolt
// end the process that reads it, and recover does not help.
func checkSpool(path string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("%w: find this program: %w", spool.ErrNotChecked, err)
	}
	out, err := exec.Command(self, "check-spool", path).CombinedOutput()
	var ended *exec.ExitError
	switch {
	case errors.As(err, &ended):
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(out[:min(len(out), 300)]))
	case err != nil: // a sound file must not be set aside for that
		return fmt.Errorf("%w: %w", spool.ErrNotChecked, err)
	}
	return nil
}

// heatWindow is long against the period of the sensors, and short against the
// load of a model.
func heatWindow(measure bool) time.Duration {
	if !measure {
		return 0
	}
	return 6 * time.Second
}
