package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/internal/trust/keyfile"
	"github.com/edgeherd/edgeherd/internal/trust/pkcs11"
)

// openKeys opens key files. Passphrases come from a file, from the environment
// (EDGEHERD_PASSPHRASE), or from a person; never from an argument, which others
// on the machine can read.
type openKeys struct {
	passphraseFile string
}

func (o *openKeys) addTo(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.passphraseFile, "passphrase-file", "", "file whose first line opens the keys (default: $EDGEHERD_PASSPHRASE, or you are asked)")
}

func (o openKeys) open(c *cli, path string) (trust.Signer, error) {
	if path == "" {
		return nil, failure{exitUsage, errors.New("no signing key: name its file with --key, or as signing_key in the context")}
	}
	if pkcs11.IsAddress(path) {
		return c.hardware(path)
	}
	address, public, err := keyfile.Address(path)
	if err != nil {
		return nil, err
	}
	if address == "" {
		return keyfile.Read(path, func(path string) ([]byte, error) { return o.passphrase(c, "Passphrase of "+path+": ") })
	}
	k, err := c.hardware(address)
	if err == nil && k.Public() != public {
		return nil, fmt.Errorf("%s stands for the key %s, and %s is another, %s: is it the right token?", path, public.ID(), address, k.Public().ID())
	}
	return k, err
}

// hardware opens a key in hardware. Its PIN is no passphrase of a file: hardware
// locks itself after a few that are wrong.
func (c *cli) hardware(address string) (trust.Signer, error) {
	a, err := pkcs11.Parse(address)
	if err != nil {
		return nil, failure{exitUsage, err}
	}
	return pkcs11.Open(a, func(question string) ([]byte, error) {
		if text := c.env("EDGEHERD_PIN"); text != "" {
			return []byte(text), nil
		}
		if !c.mayAsk() {
			return nil, failure{exitUsage, errors.New("the key needs a PIN: name its file as pin-source in the address, give EDGEHERD_PIN, or run this on a terminal")}
		}
		return c.secret(question)
	})
}

// keyFolder is where what belongs to a key lies: beside its file, or here for one
// in hardware.
func keyFolder(key string) string {
	if pkcs11.IsAddress(key) {
		return "."
	}
	return filepath.Dir(key)
}

func (o openKeys) passphrase(c *cli, question string) ([]byte, error) {
	if o.passphraseFile != "" {
		data, err := os.ReadFile(o.passphraseFile)
		if err != nil {
			return nil, fmt.Errorf("read passphrase: %w", err)
		}
		line, _, _ := strings.Cut(string(data), "\n")
		return []byte(strings.TrimRight(line, "\r")), nil
	}
	if text := c.env("EDGEHERD_PASSPHRASE"); text != "" {
		return []byte(text), nil
	}
	if !c.mayAsk() {
		return nil, failure{exitUsage, errors.New("the key needs a passphrase: give --passphrase-file FILE or EDGEHERD_PASSPHRASE, or run this on a terminal")}
	}
	return c.secret(question)
}

// secret asks for a line that is not shown.
func (t terminal) secret(question string) ([]byte, error) {
	fmt.Fprint(t.words, question)
	defer fmt.Fprintln(t.words)
	f, ok := t.in.(*os.File)
	if ok {
		if was, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err == nil {
			quiet := *was
			quiet.Lflag &^= unix.ECHO
			if err := unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, &quiet); err != nil {
				return nil, fmt.Errorf("hide what is typed: %w", err)
			}
			defer unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, was)
		}
	}
	line, err := bufio.NewReader(t.in).ReadString('\n')
	if line == "" && err != nil {
		return nil, fmt.Errorf("read passphrase: %w", err)
	}
	return []byte(strings.TrimRight(line, "\r\n")), nil
}

func trustKeyCommand(c *cli) *cobra.Command {
	var o openKeys
	made := c.verb("new FILE", "Make a key that a passphrase opens, and print its public half", func(_ context.Context, args []string) error {
		k, err := o.make(c, args[0])
		if err != nil {
			return err
		}
		return c.printKey(k.Public())
	})
	o.addTo(made)
	return c.group("key", "Keys of people", made,
		c.verb("show FILE", "The public half of a key", func(_ context.Context, args []string) error {
			p, err := publicKey(args[0])
			if err != nil {
				return err
			}
			return c.printKey(p)
		}),
		c.verb("link FILE ADDRESS", "Make a file that stands for a key in hardware, such as pkcs11:token=fleet;id=%01", func(_ context.Context, args []string) error {
			a, err := pkcs11.Parse(args[1])
			if err != nil {
				return failure{exitUsage, err}
			}
			p, err := pkcs11.Public(a)
			if err == nil {
				err = keyfile.Link(args[0], p, args[1])
			}
			if err != nil {
				return err
			}
			return c.printKey(p)
		}))
}

func (c *cli) printKey(p trust.PublicKey) error {
	v := struct {
		ID     trust.KeyID     `json:"id"`
		Public trust.PublicKey `json:"public"`
	}{p.ID(), p}
	return c.print(sheet{kind: "key", value: v, head: []string{"ID", "PUBLIC"}, rows: [][]string{{string(p.ID()), p.String()}}, names: []string{p.String()}})
}

// make writes a new key.
func (o openKeys) make(c *cli, path string) (trust.PrivateKey, error) {
	k, err := trust.NewKey()
	if err != nil {
		return k, err
	}
	passphrase, err := o.passphrase(c, "New passphrase for "+path+": ")
	if err != nil {
		return k, err
	}
	if o.passphraseFile == "" && c.env("EDGEHERD_PASSPHRASE") == "" {
		again, err := c.secret("The same again: ")
		if err != nil {
			return k, err
		}
		if string(again) != string(passphrase) {
			return k, errors.New("the two passphrases differ")
		}
	}
	return k, keyfile.Write(path, k, passphrase, keyfile.Cost)
}

// publicKey reads a public key as people give it: its text, or a key's file.
func publicKey(word string) (p trust.PublicKey, err error) {
	if trust.IsPublicKey(word) {
		return p, p.UnmarshalText([]byte(word))
	}
	if pkcs11.IsAddress(word) {
		a, err := pkcs11.Parse(word)
		if err != nil {
			return p, err
		}
		return pkcs11.Public(a)
	}
	return keyfile.Public(word)
}
