package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeherd/edgeherd/controller"
	"github.com/edgeherd/edgeherd/controller/api"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// localTokenLife is how long the token of a controller's own context is good.
const localTokenLife = 365 * 24 * time.Hour

func serverCommand(c *cli) *cobra.Command {
	return c.group("server", "The controller",
		serverRunCommand(c),
		c.verb("openapi", "The specification of the API", func(context.Context, []string) error {
			data, err := api.OpenAPI()
			if err != nil {
				return err
			}
			_, err = c.out.Write(data)
			return err
		}),
		serverBackupCommand(c),
		serverRestoreCommand(c),
		serverDoctorCommand(c),
		serverBrokerConfigCommand(c),
		serverCertCommand(c),
		c.group("token", "Tokens of command lines", tokenCreateCommand(c)),
	)
}

func serverRunCommand(c *cli) *cobra.Command {
	var s *serverFlags
	cmd := c.verb("run", "Run the controller until it is told to stop", func(ctx context.Context, _ []string) error {
		cfg, err := s.load(c.env)
		if err != nil {
			return failure{exitUsage, err}
		}
		log := slog.New(slog.NewTextHandler(c.words, nil))
		frugal(c.env)
		ctl, err := controller.Open(ctx, c.controllerOptions(cfg), log)
		if err != nil {
			return err
		}
		file := filepath.Join(cfg.State, "context.json")
		if err := localContext(ctx, ctl, cfg, file); err != nil {
			return errors.Join(err, ctl.Close())
		}
		at := ctl.Addrs()
		log.Info("controller is up", "http", at.HTTP, "device", at.Device, "mqtt", at.MQTT, "context", file)
		return ctl.Run(ctx)
	})
	s = addServerFlags(cmd)
	return cmd
}

// frugal has garbage collected at half of the live memory instead of all of it:
// 73 KB a connection instead of 95 with 10,000 boxes, for 2 % of a core. GOGC
// wins.
func frugal(env func(string) string) {
	if env("GOGC") == "" {
		debug.SetGCPercent(50)
	}
}

func (c *cli) controllerOptions(cfg serverConfig) controller.Options {
	balancers, _ := cfg.balancers() // load has checked them
	return controller.Options{
		Balancers: balancers,
		Dir:       cfg.State, HTTP: cfg.HTTP, Device: cfg.Device, MQTT: cfg.MQTT,
		Hosts: cfg.Hosts, HTTPPlain: cfg.HTTPPlain, Advertise: controller.Advertise(cfg.Advertise),
		Database: cfg.Database, PasswordFile: cfg.PasswordFile, Blobs: cfg.Blobs, Retention: cfg.Retention.values(), Broker: cfg.Broker.options(),
		Exports: cfg.exports(), Notify: cfg.notify(), Version: c.version,
	}
}

// localContext keeps a context file in the state directory, which only the
// controller's user can read: the first door for the person at the machine.
func localContext(ctx context.Context, ctl *controller.Controller, cfg serverConfig, file string) error {
	oc, err := readContext(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if time.Until(oc.Expires) < localTokenLife/12 {
		oc.Expires = time.Now().Add(localTokenLife).UTC().Truncate(time.Second)
		if oc.Token, err = ctl.NewAPIToken(ctx, "local", "owner", localTokenLife); err != nil {
			return err
		}
	}
	at := ctl.Addrs().HTTP
	oc.URL, oc.CAFile = "https://"+reachable(at, cfg.Hosts), filepath.Join("ca", "ca.pem")
	if onLoopback(at) {
		oc.URL = "https://" + at // the names lead to where nobody listens
	}
	if cfg.HTTPPlain {
		oc.URL, oc.CAFile = "http://"+at, ""
	}
	oc.SigningKey = filepath.Join("keys", "signing.key")
	return oc.write(file)
}

func onLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	return err == nil && net.ParseIP(host).IsLoopback()
}

// reachable is the address to dial for one that is listened on.
func reachable(addr string, hosts []string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	if len(hosts) > 0 {
		host = hosts[0] // the certificate bears it
	}
	return net.JoinHostPort(host, port)
}

func tokenCreateCommand(c *cli) *cobra.Command {
	var role string
	var ttl time.Duration
	cmd := c.verb("create NAME", "Make a token for a command line; it is shown once", func(ctx context.Context, args []string) error {
		client, oc, err := c.client()
		if err != nil {
			return err
		}
		t, err := client.NewToken(ctx, fleetapi.NewToken{Name: args[0], Role: role, TTLSeconds: ttl.Seconds()})
		if err != nil {
			return err
		}
		c.say("Token for %s, role %s, until %s. It is shown this once; with -o json this is a context file for `edgeherd context use`.", t.Name, t.Role, t.Expires.Format(time.DateOnly))
		ca, err := oc.authority()
		if err != nil {
			return err
		}
		return c.print(sheet{kind: "context", value: operatorContext{URL: oc.URL, Token: t.Secret, CA: ca, Expires: t.Expires}, head: []string{"TOKEN"}, rows: [][]string{{t.Secret}}, names: []string{t.Secret}, bare: true})
	})
	cmd.Flags().StringVar(&role, "role", "viewer", "viewer, tech, ops or admin")
	cmd.Flags().DurationVar(&ttl, "ttl", 90*24*time.Hour, "how long it is good")
	return cmd
}
