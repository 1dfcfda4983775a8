package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// chapters are the top-level commands in the order in which a newcomer needs
// them. A new verb is a file of its own and a word here.
var chapters = []struct {
	title string
	verbs []func(*cli) *cobra.Command
}{
	{"Start:", []func(*cli) *cobra.Command{upCommand, serverCommand, loginCommand, contextCommand}},
	{"Boxes and sites:", []func(*cli) *cobra.Command{fleetCommand, boxCommand, siteCommand, enrollCommand, secretCommand}},
	{"Models, releases and who signs them:", []func(*cli) *cobra.Command{modelCommand, releaseCommand, rolloutCommand, bundleCommand, trustCommand}},
	{"Settings of boxes:", []func(*cli) *cobra.Command{applyCommand, diffCommand, explainCommand, configCommand}},
	{"Dust, wear and visits:", []func(*cli) *cobra.Command{healthCommand, ticketCommand, visitCommand, rmaCommand, notifyCommand}},
	{"People and programs:", []func(*cli) *cobra.Command{userCommand, tokenCommand, auditCommand}},
	{"This program:", []func(*cli) *cobra.Command{completionCommand, versionCommand}},
}

// cli is one run of the command line.
type cli struct {
	terminal
	version string
	// The flags that every verb has.
	output, color, contextFile string
	noHeaders, noInput         bool
}

// The exit codes.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitNotAllowed  = 4
	exitConflict    = 5
	exitTimeout     = 6
	exitHalted      = 7
	exitPartly      = 8
	exitInterrupted = 130
)

// failure is the error of a verb that ran. Errors that are none come from
// reading the command line: wrong use.
type failure struct {
	code int // 0: find it out from err
	err  error
}

func (f failure) Error() string { return f.err.Error() }
func (f failure) Unwrap() error { return f.err }

// ended is a failure with its own exit code.
func ended(code int, format string, args ...any) error {
	return failure{code, fmt.Errorf(format, args...)}
}

var outputs = []string{"table", "wide", "json", "jsonl", "yaml", "csv", "name"}

func (c *cli) root() *cobra.Command {
	root := c.group("edgeherd", "Fleet manager for inference boxes at branch sites")
	root.SilenceErrors, root.SilenceUsage = true, true
	root.CompletionOptions.DisableDefaultCmd = true // ours tells a wrong shell from a right one
	f := root.PersistentFlags()
	f.StringVarP(&c.output, "output", "o", "table", "form of the data: "+strings.Join(outputs, ", "))
	f.BoolVar(&c.noHeaders, "no-headers", false, "tables and CSV without their first line")
	f.StringVar(&c.color, "color", "auto", "auto, always or never")
	f.StringVar(&c.contextFile, "context", "", "context file with address and token of the controller")
	f.BoolVar(&c.noInput, "no-input", false, "never ask")
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		if !slices.Contains(outputs, c.output) {
			return fmt.Errorf("-o %s: want one of %s", c.output, strings.Join(outputs, ", "))
		}
		if !slices.Contains([]string{"auto", "always", "never"}, c.color) {
			return fmt.Errorf("--color %s: want auto, always or never", c.color)
		}
		return nil
	}
	for _, ch := range chapters {
		root.AddGroup(&cobra.Group{ID: ch.title, Title: ch.title})
		for _, v := range ch.verbs {
			cmd := v(c)
			cmd.GroupID = ch.title
			root.AddCommand(cmd)
		}
	}
	root.SetHelpCommandGroupID(chapters[len(chapters)-1].title)
	// A command that only has others is not used by itself, whatever RunE says.
	root.SetUsageTemplate(strings.Replace(root.UsageTemplate(), "{{if .Runnable}}", "{{if and .Runnable (not .HasAvailableSubCommands)}}", 1))
	return root
}

// group is a command that only has sub-commands. cobra by itself answers a
// mistyped one with help and success.
func (c *cli) group(use, short string, subs ...*cobra.Command) *cobra.Command {
	g := &cobra.Command{Use: use, Short: short, SuggestionsMinimumDistance: 2}
	g.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		msg := fmt.Sprintf("unknown command %q for %q", args[0], cmd.CommandPath())
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			msg += fmt.Sprintf("; did you mean %s?", strings.Join(near, " or "))
		}
		return errors.New(msg)
	}
	g.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	g.AddCommand(subs...)
	return g
}

// verb is a command that does something with the arguments that use names.
func (c *cli) verb(use, short string, do func(ctx context.Context, args []string) error) *cobra.Command {
	words := strings.Fields(use)[1:]
	least := len(slices.DeleteFunc(slices.Clone(words), func(w string) bool { return strings.HasPrefix(w, "[") }))
	return &cobra.Command{
		Use: use, Short: short, DisableFlagsInUseLine: true,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) < least:
				return fmt.Errorf("%s is missing: %s", words[len(args)], cmd.UseLine())
			case len(args) > len(words):
				return fmt.Errorf("%q is too much: %s", args[len(words)], cmd.UseLine())
			}
			if i := slices.IndexFunc(args, func(a string) bool { return strings.TrimSpace(a) == "" }); i >= 0 {
				return fmt.Errorf("%s is empty: %s", words[i], cmd.UseLine())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := do(cmd.Context(), args); err != nil {
				var f failure
				if errors.As(err, &f) {
					return err
				}
				return failure{0, err}
			}
			return nil
		},
	}
}

// call is a verb that speaks to the controller.
func (c *cli) call(use, short string, do func(ctx context.Context, client *fleetapi.Client, args []string) error) *cobra.Command {
	return c.verb(use, short, func(ctx context.Context, args []string) error {
		client, _, err := c.client()
		if err != nil {
			return err
		}
		return do(ctx, client, args)
	})
}

// exit prints an error and says with which code to end.
func (c *cli) exit(ctx context.Context, err error) int {
	if err == nil {
		return 0
	}
	var f failure
	if !errors.As(err, &f) {
		c.say("edgeherd: %v\nRun `edgeherd --help` or the command with --help.", err)
		return exitUsage
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		c.say("edgeherd: interrupted")
		return exitInterrupted
	}
	c.say("edgeherd: %v", err)
	if f.code != 0 {
		return f.code
	}
	return codeOf(err)
}

// codeOf finds the exit code that an error stands for.
func codeOf(err error) int {
	var p *fleetapi.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return exitTimeout
	case !errors.As(err, &p):
		return exitFailed
	}
	switch p.Status {
	case http.StatusBadRequest:
		return exitUsage
	case http.StatusUnprocessableEntity:
		if len(p.Errors) > 0 { // of a form that the API does not have
			return exitUsage
		}
	case http.StatusNotFound:
		return exitNotFound
	case http.StatusUnauthorized, http.StatusForbidden:
		return exitNotAllowed
	case http.StatusConflict:
		return exitConflict
	}
	return exitFailed
}

// mayAsk reports whether a person can answer a question.
func (c *cli) mayAsk() bool {
	return c.inTTY && !c.noInput && c.env("CI") == "" && (c.output == "table" || c.output == "wide")
}

func versionCommand(c *cli) *cobra.Command {
	return c.verb("version", "Version of this program", func(context.Context, []string) error {
		v := struct {
			Version string `json:"version"`
		}{c.version}
		return c.print(sheet{kind: "version", value: v, head: []string{"VERSION"}, rows: [][]string{{c.version}}, names: []string{c.version}, bare: true})
	})
}

func completionCommand(c *cli) *cobra.Command {
	var cmd *cobra.Command
	cmd = c.verb("completion SHELL", "Completion script for bash, zsh, fish or powershell", func(_ context.Context, args []string) error {
		root := cmd.Root()
		switch args[0] {
		case "bash":
			return root.GenBashCompletionV2(c.out, true)
		case "zsh":
			return root.GenZshCompletion(c.out)
		case "fish":
			return root.GenFishCompletion(c.out, true)
		case "powershell":
			return root.GenPowerShellCompletionWithDesc(c.out)
		}
		return ended(exitUsage, "shell %q: want bash, zsh, fish or powershell", args[0])
	})
	cmd.ValidArgs = []string{"bash", "zsh", "fish", "powershell"}
	return cmd
}
