package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/edgeherd/edgeherd/agent"
	"github.com/edgeherd/edgeherd/agent/enrol"
	wireenrol "github.com/edgeherd/edgeherd/internal/enrol"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/qrtext"
)

// enrollFlags are those of enroll beside the ones of every command.
type enrollFlags struct {
	file, offline, answer, tpm, name string
	again                            bool
	config                           []string // arguments for loadConfig
	token                            string
}

func readEnrollFlags(args []string) (enrollFlags, error) {
	var f enrollFlags
	var config, state, root string
	flags := flag.NewFlagSet("enroll", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&f.file, "file", "", "")
	flags.StringVar(&f.offline, "offline", "", "")
	flags.StringVar(&f.answer, "import", "", "")
	flags.StringVar(&f.tpm, "tpm", "auto", "")
	flags.StringVar(&f.name, "name", "", "")
	flags.BoolVar(&f.again, "re-enroll", false, "")
	flags.StringVar(&config, "config", "", "")
	flags.StringVar(&state, "state", "", "")
	flags.StringVar(&root, "root", "", "")
	if err := flags.Parse(args); err != nil {
		return f, fmt.Errorf("%w: %v", errUsage, err)
	}
	if flags.NArg() > 0 { // flags may stand behind the token as well
		f.token = flags.Arg(0)
		if err := flags.Parse(flags.Args()[1:]); err != nil {
			return f, fmt.Errorf("%w: %v", errUsage, err)
		}
		if flags.NArg() > 0 {
			return f, fmt.Errorf("%w: unexpected argument %q", errUsage, flags.Arg(0))
		}
	}
	for name, v := range map[string]string{"--config": config, "--state": state, "--root": root} {
		if v != "" {
			f.config = append(f.config, name, v)
		}
	}
	return f, nil
}

// sticks are where Debian and its kin mount one.
var sticks = []string{"media/*", "media/*/*", "run/media/*/*", "mnt", "mnt/*"}

// findToken is the token of the command line, of a file, or of the one stick
// that has one. It returns the file it came from, to be destroyed.
func findToken(f enrollFlags, stdin io.Reader, root string) (token wireenrol.Token, from string, err error) {
	text := f.token
	if text == "-" {
		line, err := io.ReadAll(io.LimitReader(stdin, 2*wireenrol.MaxTokenLength))
		if err != nil {
			return token, "", fmt.Errorf("read token: %w", err)
		}
		text = string(line)
	}
	if text == "" {
		if from, err = tokenFile(f.file, root); err != nil {
			return token, "", err
		}
		data, err := os.ReadFile(from)
		if err != nil {
			return token, "", fmt.Errorf("read token: %w", err)
		}
		text = wireenrol.KitTokenText(data)
	}
	token, err = wireenrol.ParseToken(text)
	return token, from, err
}

func tokenFile(named, root string) (string, error) {
	if named != "" {
		return named, nil
	}
	var found []string
	for _, place := range sticks {
		hits, err := filepath.Glob(filepath.Join(root, place, wireenrol.KitDir, wireenrol.KitToken))
		if err != nil {
			return "", fmt.Errorf("look for a stick: %w", err)
		}
		found = append(found, hits...)
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", fmt.Errorf("%w: no token given, and no stick with %s/%s is mounted", errUsage, wireenrol.KitDir, wireenrol.KitToken)
	}
	return "", fmt.Errorf("%w: there are %d sticks with a token: name one with --file", errUsage, len(found))
}

// enroll makes this machine a member of the fleet.
func enroll(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) (err error) {
	f, err := readEnrollFlags(args)
	if err != nil {
		return err
	}
	c, err := loadConfig(f.config, os.Getenv)
	if err != nil {
		return err
	}
	token, from, err := findToken(f, stdin, c.Root)
	if err != nil {
		return err
	}
	opts := enrol.Options{
		Dir: agent.IdentityDir(c.State), Root: c.Root, TPM: f.tpm, Version: version, Name: f.name, Again: f.again,
		Proxy: c.Proxy, ProxyAuth: c.ProxyAuthFile, Say: func(text string) { fmt.Fprintln(stdout, text) },
	}
	if isTerminal(stdout) {
		opts.Draw = qrtext.Of
	}
	if err := os.MkdirAll(c.State, 0o750); err != nil {
		return asRoot(fmt.Errorf("make state directory: %w", err))
	}
	// Also of an enrolment that was refused: the agent would stumble over root's files.
	defer func() { err = asRoot(errors.Join(err, giveToAgent(c.State))) }()
	if f.offline != "" {
		path, err := enrol.Offline(opts, token, f.offline)
		if err != nil {
			return err
		}
		fmt.Fprintf(stdout, "Wrote %s. Have ops sign it: edgeherd enroll sign FILE\nThen, on this box: edgeherd-agent enroll --import ANSWER with the same token.\n", path)
		return nil
	}
	box, err := exchange(ctx, f, opts, token)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "Enrolled as %s, %q (site %s). The dashboard should show it within 60 s.\n", box.ID, box.Name, box.Site)
	if from != "" {
		destroy(from, stdout)
	}
	return nil
}

// asRoot adds the way out where the user may not write what is the agent's.
func asRoot(err error) error {
	if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
		return fmt.Errorf("%w\nrun it as root: sudo edgeherd-agent enroll TOKEN", err)
	}
	return err
}

// isTerminal says whether a person looks: a log has no use for pictures.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func exchange(ctx context.Context, f enrollFlags, opts enrol.Options, token wireenrol.Token) (identity.Box, error) {
	if f.answer == "" {
		return enrol.Enrol(ctx, opts, token)
	}
	file, err := os.ReadFile(f.answer)
	if err != nil {
		return identity.Box{}, fmt.Errorf("read answer: %w", err)
	}
	return enrol.Import(opts, token, file)
}

// destroy overwrites a token that has been used and removes its file. It helps
// little on flash, and the token is dead when it was good for one box.
func destroy(path string, stdout io.Writer) {
	if err := errors.Join(overwrite(path), os.Remove(path)); err != nil {
		fmt.Fprintf(stdout, "The token is still in %s: %v. Remove it.\n", path, err)
	}
}

func overwrite(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, wireenrol.MaxTokenLength)); err != nil {
		return err
	}
	return f.Sync()
}

// waitForEnrolment is for an agent that runs on a machine which is no member
// yet: it must be there when somebody has enrolled it.
func waitForEnrolment(ctx context.Context, state string, log *slog.Logger) error {
	if enrol.Enrolled(agent.IdentityDir(state)) {
		return nil
	}
	if _, err := enrol.Load(agent.IdentityDir(state)); err == nil { // a power cut came in between
		return nil
	}
	log.Warn("this box is not enrolled: ask ops for a token, then run edgeherd-agent enroll TOKEN")
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for !enrol.Enrolled(agent.IdentityDir(state)) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}
