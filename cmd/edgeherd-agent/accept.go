package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/edgeherd/edgeherd/agent"
	"github.com/edgeherd/edgeherd/agent/accept"
	"github.com/edgeherd/edgeherd/agent/dial"
	"github.com/edgeherd/edgeherd/agent/enrol"
	"github.com/edgeherd/edgeherd/internal/acceptance"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// How an acceptance test that came to its end is told to a script.
var (
	errNotAccepted = errors.New("the box failed its acceptance test, see above")
	errTestAborted = errors.New("the acceptance test was ended before its end; what was measured is kept, signed and marked so")
)

// acceptFlags are those of accept beside the ones of every command.
type acceptFlags struct {
	opts     accept.Options
	delivery string
	output   string   // live, plain, json, jsonl
	file     string   // of the configuration
	config   []string // arguments for loadConfig
}

func readAcceptFlags(args []string, terminal bool) (acceptFlags, error) {
	var f acceptFlags
	var levels, state, root, runner string
	flags := flag.NewFlagSet("accept", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&levels, "level", "", "")
	flags.StringVar(&f.delivery, "delivery", "", "")
	flags.DurationVar(&f.opts.LoadFor, "load-for", 0, "")
	flags.StringVar(&f.opts.Model, "model", "", "")
	flags.StringVar(&f.opts.By, "by", "", "")
	flags.StringVar(&f.opts.ID, "id", "", "") // of an order; the agent passes it on
	flags.StringVar(&f.output, "o", "", "")
	flags.StringVar(&f.file, "config", "", "")
	flags.StringVar(&state, "state", "", "")
	flags.StringVar(&root, "root", "", "")
	flags.StringVar(&runner, "runner", "", "")
	if err := flags.Parse(args); err != nil {
		return f, fmt.Errorf("%w: %v", errUsage, err)
	}
	if flags.NArg() > 0 {
		return f, fmt.Errorf("%w: unexpected argument %q", errUsage, flags.Arg(0))
	}
	for _, word := range strings.FieldsFunc(levels, func(r rune) bool { return r == ',' }) {
		level, err := acceptance.ParseLevel(word)
		if err != nil {
			return f, fmt.Errorf("%w: --level: %v", errUsage, err)
		}
		f.opts.Levels = append(f.opts.Levels, level)
	}
	if f.opts.LoadFor < 0 || f.opts.LoadFor > 24*time.Hour {
		return f, fmt.Errorf("%w: --load-for %s: want up to 24h", errUsage, f.opts.LoadFor)
	}
	switch {
	case f.output == "" && terminal:
		f.output = "live"
	case f.output == "":
		f.output = "plain"
	case !slices.Contains([]string{"live", "plain", "json", "jsonl"}, f.output):
		return f, fmt.Errorf("%w: -o takes live, plain, json or jsonl", errUsage)
	case f.output == "live" && !terminal:
		return f, fmt.Errorf("%w: -o live needs a terminal: use -o plain", errUsage)
	}
	for name, v := range map[string]string{"--config": f.file, "--state": state, "--root": root, "--runner": runner} {
		if v != "" {
			f.config = append(f.config, name, v)
		}
	}
	if f.file == "" {
		f.file = defaultConfig
	}
	return f, nil
}

// runAccept runs the acceptance test, keeps its report, and sends it if it can.
func runAccept(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f, err := readAcceptFlags(args, isTerminal(stdout))
	if err != nil {
		return err
	}
	c, err := loadConfig(f.config, os.Getenv)
	if err != nil {
		return err
	}
	opts := f.opts
	opts.State, opts.Root, opts.Config, opts.Version = c.State, c.Root, f.file, version
	opts.Sensors, opts.Outside = c.Sensors, c.Outside
	if opts.By == "" {
		opts.By = whoRuns(os.Getenv)
	}
	if f.delivery != "" {
		if opts.Delivery, err = accept.ReadDelivery(f.delivery); err != nil {
			return err
		}
	}
	if opts.Identity, err = enrol.Load(agent.IdentityDir(c.State)); errors.Is(err, os.ErrNotExist) {
		return errors.New("this box is not enrolled, so nobody would know whose report it is: ask ops for a token, then: edgeherd-agent enroll TOKEN")
	} else if err != nil {
		return err
	}
	dialer, err := dial.New(dial.Options{Identity: opts.Identity, Server: c.Server, Proxy: c.Proxy, ProxyAuth: c.ProxyAuthFile}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	opts.Dial = dialer.Files
	opts.Runner = runnerapi.Dial(c.Runner)
	defer opts.Runner.Close()
	lock, err := accept.Lock(c.State)
	if err != nil {
		return err
	}
	defer lock.Close()
	report, err := accepted(ctx, opts, f.output, stdout)
	if err != nil {
		return err
	}
	path, err := accept.Keep(c.State, opts.Identity, report)
	if err != nil {
		return err
	}
	if err := giveReports(c.State); err != nil {
		return err
	}
	// Also after Ctrl-C: what was measured shall arrive.
	late, stop := context.WithTimeout(context.WithoutCancel(ctx), sendLimit)
	defer stop()
	sendErr := accept.Send(late, c.State, opts.Identity, dialer.Files, slog.New(slog.NewTextHandler(stderr, nil)))
	if err := giveReports(c.State); err != nil {
		return err
	}
	return conclude(report, f.output, path, sendErr, stdout)
}

// acceptFor has this program run the tests that the controller asks for, in a
// process of their own: what they take is not the agent's. args are those of run.
func acceptFor(args []string) func(context.Context, wire.DesiredAccept, func(string)) error {
	return func(ctx context.Context, order wire.DesiredAccept, level func(string)) error {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find this program: %w", err)
		}
		call := append([]string{"accept", "-o", "jsonl", "--id=" + order.ID, "--by=" + order.By, "--model=" + order.Model,
			"--level=" + strings.Join(order.Levels, ","), "--load-for=" + (time.Duration(order.LoadSeconds) * time.Second).String()}, withoutLog(args)...)
		cmd := exec.CommandContext(ctx, self, call...)
		cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it keeps what it has measured
		cmd.WaitDelay = sendLimit
		var said bytes.Buffer
		cmd.Stderr = &said
		out, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		// The last line is the report, which is kept already.
		for dec := json.NewDecoder(out); ; {
			var e accept.Event
			if err := dec.Decode(&e); err != nil {
				break
			}
			if e.Check == nil && e.Step == "" && e.Level != "" {
				level(string(e.Level))
			}
		}
		_, _ = io.Copy(io.Discard, out) // Wait tells
		var exit *exec.ExitError
		err = cmd.Wait()
		if errors.As(err, &exit) && (exit.ExitCode() == exitFailed || exit.ExitCode() == exitAborted) {
			return nil // there is a report that says so
		}
		if err != nil {
			return fmt.Errorf("%w: %s", err, bytes.TrimSpace(said.Bytes()[max(0, said.Len()-300):]))
		}
		return nil
	}
}

// withoutLog leaves out the flag of run that accept does not have.
func withoutLog(args []string) []string {
	var out []string
	for i := 0; i < len(args); i++ {
		if name := strings.TrimLeft(args[i], "-"); name == "log" {
			i++
		} else if !strings.HasPrefix(name, "log=") {
			out = append(out, args[i])
		}
	}
	return out
}

// sendLimit bounds the first try to send a report; the agent tries again.
const sendLimit = 30 * time.Second

// whoRuns is the person on the console, behind sudo as well.
func whoRuns(getenv func(string) string) string {
	if name := getenv("SUDO_USER"); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return fmt.Sprintf("uid %d", os.Getuid())
}

// giveReports gives the folder of reports to the owner of the state directory:
// a tech may run the test as root, and the agent sends them as another user.
func giveReports(state string) error {
	info, err := os.Stat(state)
	if err != nil {
		return fmt.Errorf("look at state directory: %w", err)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 {
		return nil
	}
	err = os.Lchown(accept.Dir(state), int(owner.Uid), int(owner.Gid))
	names, globErr := filepath.Glob(filepath.Join(accept.Dir(state), "*"))
	err = errors.Join(err, globErr)
	for _, name := range names {
		if e := os.Lchown(name, int(owner.Uid), int(owner.Gid)); !errors.Is(e, os.ErrNotExist) { // the agent sent it meanwhile
			err = errors.Join(err, e)
		}
	}
	return err
}

// accepted runs the test with one of the forms of progress.
func accepted(ctx context.Context, opts accept.Options, output string, stdout io.Writer) (acceptance.Report, error) {
	switch output {
	case "live":
		return acceptLive(ctx, opts, stdout)
	case "plain":
		opts.Each = plainProgress(stdout, time.Now)
	case "jsonl":
		enc := json.NewEncoder(stdout)
		opts.Each = func(e accept.Event) { _ = enc.Encode(e) } // the report is kept all the same
	}
	return accept.Run(ctx, opts)
}

// plainEvery is how often a step that goes on is told in plain progress.
const plainEvery = 30 * time.Second

// plainProgress writes a line for each check, and one now and then for a long step.
func plainProgress(out io.Writer, now func() time.Time) func(accept.Event) {
	var told time.Time
	return func(e accept.Event) {
		switch {
		case e.Check != nil:
			for _, line := range checkLines(*e.Check) {
				fmt.Fprintln(out, line)
			}
		case e.Step == "":
			fmt.Fprintf(out, "%s\n", e.Level)
			told = now()
		case e.Step == "inference" && now().Sub(told) >= plainEvery:
			told = now()
			fmt.Fprintf(out, "  ...      %s\n", stepText(e))
		}
	}
}

// stepText says how far a step is.
func stepText(e accept.Event) string {
	text := fmt.Sprintf("%s %.0f %%", e.Step, 100*min(e.Done, 1))
	if e.Step == "inference" {
		text += fmt.Sprintf(", %s/s", acceptance.FormatNumber(e.Rate))
		if e.Die != nil {
			text += fmt.Sprintf(", die %s °C", acceptance.FormatNumber(*e.Die))
		}
	}
	return text
}

// checkLines are a check in words: what it is, and what to do on a line of its own.
func checkLines(c acceptance.Check) []string {
	line := fmt.Sprintf("  %-7s  %s", c.Result, c.Title())
	if v := c.Value.String(); v != "" {
		line += ": " + v
	}
	if c.Expect.Text != "" {
		line += " (" + c.Expect.Text + ")"
	}
	if c.Say.Text == "" {
		return []string{line}
	}
	return []string{line, "           → " + c.Say.Text}
}

// conclude tells how the test ended, and by its error the exit code.
func conclude(r acceptance.Report, output, path string, sendErr error, stdout io.Writer) error {
	if output == "json" || output == "jsonl" {
		enc := json.NewEncoder(stdout)
		if output == "json" {
			enc.SetIndent("", "  ")
		}
		if err := enc.Encode(r); err != nil {
			return err
		}
	} else {
		n := r.Count()
		fmt.Fprintf(stdout, "%s: %d passed, %d with a remark, %d failed, %d skipped\n",
			strings.ReplaceAll(string(r.Verdict()), "-", " "), n[acceptance.Pass], n[acceptance.Warn], n[acceptance.Fail], n[acceptance.Skipped])
		if r.Simulated {
			fmt.Fprintln(stdout, "this board is simulated: the report says so")
		}
		if sendErr != nil {
			fmt.Fprintf(stdout, "report %s, signed, kept in %s; the agent sends it when there is a way (%v)\n", r.ID, path, sendErr)
		} else {
			fmt.Fprintf(stdout, "report %s, signed, is with the controller: edgeherd box accept %s --list\n", r.ID, r.Name)
		}
	}
	switch r.Verdict() {
	case acceptance.Failed:
		return errNotAccepted
	case acceptance.Aborted:
		return errTestAborted
	}
	return nil
}
