package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/wire"
)

func secretCommand(c *cli) *cobra.Command {
	return c.group("secret", "Secrets of boxes: passwords of cameras, of a proxy, keys of webhooks",
		secretSetCommand(c),
		secretListCommand(c),
		secretShowCommand(c),
		secretRemoveCommand(c),
	)
}

// secretFor are the flags that say for whom a secret is.
type secretFor struct{ box, site, label string }

func (f *secretFor) flags(set *pflag.FlagSet) {
	set.StringVar(&f.box, "box", "", "for this box")
	set.StringVar(&f.site, "site", "", "for the boxes of this site")
	set.StringVar(&f.label, "label", "", "for the boxes with this label, k=v")
}

func (f *secretFor) at(ctx context.Context, client *fleetapi.Client, name string) (fleetapi.SecretAt, error) {
	at := fleetapi.SecretAt{Name: name, SecretFor: fleetapi.SecretFor{Site: f.site, Label: f.label}}
	given := 0
	for _, s := range []string{f.box, f.site, f.label} {
		if s != "" {
			given++
		}
	}
	if given != 1 {
		return at, failure{exitUsage, errors.New("say for whom it is: --box BOX, --site SITE or --label k=v")}
	}
	if f.box == "" {
		return at, nil
	}
	b, err := findBox(ctx, client, f.box)
	at.Box = b.ID
	return at, err
}

func secretSetCommand(c *cli) *cobra.Command {
	var f secretFor
	var file string
	cmd := c.call("set NAME", "Store a secret, read from the standard input or --file, and give it to its boxes", func(ctx context.Context, client *fleetapi.Client, args []string) error {
		at, err := f.at(ctx, client, args[0])
		if err != nil {
			return err
		}
		value, err := c.secretValue(args[0], file)
		if err != nil {
			return err
		}
		list, err := client.SetSecret(ctx, fleetapi.NewSecret{SecretAt: at, Value: value})
		if err != nil {
			return err
		}
		c.say("On a box, secret:%s in place of a file's path means it, as in `password_file: secret:%s`.", at.Name, at.Name)
		return c.printSecrets(list)
	})
	f.flags(cmd.Flags())
	cmd.Flags().StringVar(&file, "file", "", "read the value from this file; its last line end does not count")
	return cmd
}

// secretValue never takes a value from the command line, which every user of the
// machine can read.
func (c *cli) secretValue(name, file string) ([]byte, error) {
	var value []byte
	var err error
	switch {
	case file != "":
		if value, err = os.ReadFile(file); err != nil {
			return nil, err
		}
	case c.inTTY && c.noInput:
		return nil, failure{exitUsage, errors.New("the value is missing: give it on the standard input, or with --file")}
	case c.inTTY:
		if value, err = c.askSecret("Value of " + name + ": "); err != nil {
			return nil, err
		}
	default:
		if value, err = io.ReadAll(io.LimitReader(c.in, 2*wire.MaxSecretBytes)); err != nil {
			return nil, fmt.Errorf("read the value: %w", err)
		}
	}
	value = bytes.TrimSuffix(bytes.TrimSuffix(value, []byte("\n")), []byte("\r"))
	if len(value) == 0 || len(value) > wire.MaxSecretBytes {
		return nil, failure{exitUsage, fmt.Errorf("the value has %d bytes; 1 to %d are possible", len(value), wire.MaxSecretBytes)}
	}
	return value, nil
}

// askSecret reads a line from the terminal without showing it.
func (c *cli) askSecret(prompt string) ([]byte, error) {
	fmt.Fprint(c.words, prompt)
	was, err := unix.IoctlGetTermios(int(os.Stdin.Fd()), unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("hide what is typed: %w", err)
	}
	hidden := *was
	hidden.Lflag &^= unix.ECHO
	if err := unix.IoctlSetTermios(int(os.Stdin.Fd()), unix.TCSETS, &hidden); err != nil {
		return nil, fmt.Errorf("hide what is typed: %w", err)
	}
	defer func() {
		_ = unix.IoctlSetTermios(int(os.Stdin.Fd()), unix.TCSETS, was) // it worked a moment ago
		fmt.Fprintln(c.words)
	}()
	line := make([]byte, 2*wire.MaxSecretBytes)
	n, err := c.in.Read(line) // a terminal gives a line at a time
	return line[:n], err
}

func secretListCommand(c *cli) *cobra.Command {
	var box string
	cmd := c.call("list", "Secrets by name, never a value; with --box, whether it has them", func(ctx context.Context, client *fleetapi.Client, _ []string) error {
		if box == "" {
			list, err := client.Secrets(ctx)
			if err != nil {
				return err
			}
			return c.printSecrets(list)
		}
		b, err := findBox(ctx, client, box)
		if err != nil {
			return err
		}
		list, err := client.BoxSecrets(ctx, b.ID)
		if err != nil {
			return err
		}
		s := sheet{kind: "box-secret-list", item: "box-secret", value: list, items: items(list.Items), head: []string{"NAME", "FOR", "STATE"}}
		for _, v := range list.Items {
			whom := forWhom(v.SecretFor)
			if v.Box != "" {
				whom = "box " + b.Name
			}
			s.rows = append(s.rows, []string{v.Name, whom, v.State})
			s.names = append(s.names, v.Name)
		}
		return c.print(s)
	})
	cmd.Flags().StringVar(&box, "box", "", "those that this box is to have")
	return cmd
}

func secretShowCommand(c *cli) *cobra.Command {
	var f secretFor
	cmd := c.call("show NAME", "The boxes that are to have a secret, and whether they have it", func(ctx context.Context, client *fleetapi.Client, args []string) error {
		at, err := f.at(ctx, client, args[0])
		if err != nil {
			return err
		}
		list, err := client.SecretBoxes(ctx, at)
		if err != nil {
			return err
		}
		s := sheet{kind: "secret-box-list", item: "secret-box", value: list, items: items(list.Items), head: []string{"BOX", "SITE", "STATE", "ID"}}
		for _, b := range list.Items {
			s.rows = append(s.rows, []string{b.Name, b.Site, b.State, string(b.Box)})
			s.names = append(s.names, b.Name)
		}
		return c.print(s)
	})
	f.flags(cmd.Flags())
	return cmd
}

func (c *cli) printSecrets(list fleetapi.SecretList) error {
	s := sheet{kind: "secret-list", item: "secret", value: list, items: items(list.Items), head: []string{"NAME", "FOR", "BOXES", "CHANGED", "BY", "STATE"}}
	for _, v := range list.Items {
		state := "kept"
		if v.Lost {
			state = "key lost: set it anew"
		}
		whom := forWhom(v.SecretFor)
		if v.BoxName != "" {
			whom = "box " + v.BoxName
		}
		s.rows = append(s.rows, []string{v.Name, whom, fmt.Sprintf("%d of %d", v.Held, v.Boxes), age(&v.Changed, time.Now()), v.By, state})
		s.names = append(s.names, v.Name)
	}
	return c.print(s)
}

func forWhom(f fleetapi.SecretFor) string {
	switch {
	case f.Box != "":
		return "box " + string(f.Box)
	case f.Site != "":
		return "site " + f.Site
	}
	return "label " + f.Label
}

func secretRemoveCommand(c *cli) *cobra.Command {
	var f secretFor
	cmd := c.call("rm NAME", "Forget a secret and take it from the boxes that have it", func(ctx context.Context, client *fleetapi.Client, args []string) error {
		at, err := f.at(ctx, client, args[0])
		if err != nil {
			return err
		}
		list, err := client.RemoveSecret(ctx, at)
		if err != nil {
			return err
		}
		c.say("Boxes that are not reached now lose it when they are. Change the password itself as well where a box may have been opened.")
		return c.printSecrets(list)
	})
	f.flags(cmd.Flags())
	return cmd
}
