package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// operatorContext is a context file: which controller, and as whom.
type operatorContext struct {
	URL   string `json:"url"`
	Token string `json:"token"`
	// SigningKey is the file of the key that signs what this operator pushes,
	// and CAFile that of the controller's certificate authority; both may be
	// relative to the context file.
	SigningKey string `json:"signing_key,omitempty"`
	CAFile     string `json:"ca_file,omitempty"`
	// CA is the same certificate itself, for a context that travels.
	CA string `json:"ca,omitempty"`
	// Expires is when the token does; zero is not known.
	Expires time.Time `json:"expires,omitzero"`

	path string // of the file; empty when the environment said all
}

// contextPaths are where a context is looked for, in this order.
func (c *cli) contextPaths() []string {
	var paths []string
	if c.contextFile != "" {
		paths = append(paths, c.contextFile)
	}
	if p := c.env("EDGEHERD_CONTEXT"); p != "" {
		paths = append(paths, p)
	}
	paths = append(paths, filepath.Join("edgeherd-data", "context.json"))
	if p := c.ownContext(); p != "" {
		paths = append(paths, p)
	}
	return paths
}

// ownContext is the operator's own context file, or "".
func (c *cli) ownContext() string {
	if dir := c.env("XDG_CONFIG_HOME"); dir != "" {
		return filepath.Join(dir, "edgeherd", "context.json")
	}
	if home := c.env("HOME"); home != "" {
		return filepath.Join(home, ".config", "edgeherd", "context.json")
	}
	return ""
}

// errNoContext says that no context file exists.
var errNoContext = errors.New("not signed in: no context file found; start a fleet here with `edgeherd up`, or name the file with --context or EDGEHERD_CONTEXT")

// context finds out which controller to speak to. A file that was named must
// exist; the usual places may be empty.
func (c *cli) context() (operatorContext, error) {
	oc, err := c.readFirstContext()
	if err != nil && !errors.Is(err, errNoContext) {
		return oc, err
	}
	if v := c.env("EDGEHERD_URL"); v != "" {
		oc.URL = v
	}
	if v := c.env("EDGEHERD_TOKEN"); v != "" {
		oc.Token = v
	}
	if oc.URL == "" {
		return oc, failure{exitNotAllowed, errNoContext}
	}
	return oc, nil
}

func (c *cli) readFirstContext() (operatorContext, error) {
	named := 0
	for _, s := range []string{c.contextFile, c.env("EDGEHERD_CONTEXT")} {
		if s != "" {
			named++
		}
	}
	for i, p := range c.contextPaths() {
		oc, err := readContext(p)
		if errors.Is(err, fs.ErrNotExist) && i >= named {
			continue
		}
		return oc, err
	}
	return operatorContext{}, errNoContext
}

func readContext(path string) (operatorContext, error) {
	var oc operatorContext
	data, err := os.ReadFile(path)
	if err != nil {
		return oc, fmt.Errorf("read context: %w", err)
	}
	// A context that `token create -o json` printed names its schema.
	var file struct {
		operatorContext
		Schema string `json:"schema"`
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&file); err != nil {
		return oc, fmt.Errorf("read context %s: %w", path, err)
	}
	oc = file.operatorContext
	if oc.URL == "" {
		return oc, fmt.Errorf("context %s has no url", path)
	}
	oc.path = path
	for _, f := range []*string{&oc.SigningKey, &oc.CAFile} {
		if *f != "" && !filepath.IsAbs(*f) {
			*f = filepath.Join(filepath.Dir(path), *f)
		}
	}
	return oc, nil
}

// write puts the context into a file that only its owner can read.
func (oc operatorContext) write(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write context: %w", err)
	}
	data, err := json.MarshalIndent(oc, "", "  ")
	if err != nil {
		return fmt.Errorf("write context: %w", err)
	}
	return durable.WriteFile(path, append(data, '\n'), 0o600)
}

// authority is the certificate of the controller's CA, or "" for a public one.
func (oc operatorContext) authority() (string, error) {
	if oc.CAFile == "" {
		return oc.CA, nil
	}
	pem, err := os.ReadFile(oc.CAFile)
	if err != nil {
		return "", fmt.Errorf("read ca_file of context %s: %w", oc.path, err)
	}
	return string(pem), nil
}

// transport trusts the controller's own CA where the context names one.
func (oc operatorContext) transport() (http.RoundTripper, error) {
	pem, err := oc.authority()
	if err != nil || pem == "" {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(pem)) {
		return nil, fmt.Errorf("the CA of context %s holds no certificate", oc.path)
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	return t, nil
}

// client speaks to the controller of the context.
func (c *cli) client() (*fleetapi.Client, operatorContext, error) {
	oc, err := c.context()
	if err != nil {
		return nil, oc, err
	}
	rt, err := oc.transport()
	if err != nil {
		return nil, oc, err
	}
	return fleetapi.New(oc.URL, oc.Token, rt), oc, nil
}

func contextCommand(c *cli) *cobra.Command {
	return c.group("context", "Which controller the commands speak to",
		c.verb("list", "Context files that are there; the first one counts", c.contextList),
		c.verb("use FILE", "Make a context file the operator's own", c.contextUse),
	)
}

type contextRow struct {
	Current bool   `json:"current"`
	Path    string `json:"path"`
	URL     string `json:"url"`
}

func (c *cli) contextList(context.Context, []string) error {
	list := struct {
		Items []contextRow `json:"items"`
	}{[]contextRow{}}
	s := sheet{kind: "context-list", item: "context", head: []string{"CURRENT", "URL", "FILE"}}
	for _, p := range c.contextPaths() {
		oc, err := readContext(p)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		row := contextRow{Current: len(list.Items) == 0, Path: p, URL: oc.URL}
		list.Items = append(list.Items, row)
		mark := ""
		if row.Current {
			mark = "*"
		}
		s.rows, s.names = append(s.rows, []string{mark, oc.URL, p}), append(s.names, p)
	}
	s.value, s.items = list, items(list.Items)
	return c.print(s)
}

func (c *cli) contextUse(_ context.Context, args []string) error {
	oc, err := readContext(args[0])
	if errors.Is(err, fs.ErrNotExist) {
		return failure{exitNotFound, err}
	}
	if err != nil {
		return err
	}
	for _, f := range []*string{&oc.SigningKey, &oc.CAFile} {
		if *f == "" {
			continue
		}
		if *f, err = filepath.Abs(*f); err != nil {
			return fmt.Errorf("find %s: %w", *f, err)
		}
	}
	own := c.ownContext()
	if own == "" {
		return errors.New("neither HOME nor XDG_CONFIG_HOME is set, so there is no place for an own context")
	}
	if err := oc.write(own); err != nil {
		return err
	}
	c.say("Commands speak to %s (%s).", oc.URL, own)
	if first, err := c.readFirstContext(); err == nil && first.path != own {
		c.say("Here %s comes first.", first.path)
	}
	return nil
}

func loginCommand(c *cli) *cobra.Command {
	var asURL bool
	cmd := c.call("login", "Log a browser in", func(ctx context.Context, client *fleetapi.Client, _ []string) error {
		u, err := client.LoginURL(ctx)
		if err != nil {
			return err
		}
		v := struct {
			URL string `json:"url"`
		}{u}
		c.say("Open it within 15 minutes; it works once.")
		return c.print(sheet{kind: "login", value: v, head: []string{"URL"}, rows: [][]string{{u}}, names: []string{u}, bare: true})
	})
	cmd.Flags().BoolVar(&asURL, "url", false, "print a one-time login URL")
	if err := cmd.MarkFlagRequired("url"); err != nil {
		panic("cli: " + err.Error())
	}
	return cmd
}
