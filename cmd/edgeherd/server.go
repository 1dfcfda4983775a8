package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeherd/edgeherd/controller"
	"github.com/edgeherd/edgeherd/controller/api"
	"github.com/edgeherd/edgeherd/controller/deliver"
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
		serverRestoreCommand(c), serverRestoredCommand(c),
		serverDoctorCommand(c),
		serverBrokerConfigCommand(c),
		serverCertCommand(c), serverCACommand(c), serverKeysCommand(c),
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
		defer runtime.KeepAlive(frugal(c.env))
		opts := c.controllerOptions(cfg)
		if opts.OIDC, err = cfg.provider(); err != nil {
			return failure{exitUsage, err}
		}
		if opts.Keys, err = cfg.keys(c.env); err != nil {
			return failure{exitUsage, err}
		}
		ctl, err := controller.Open(ctx, opts, log)
		if err != nil {
			return keysFault(err)
		}
		if err := c.sayHowToBegin(ctx, ctl); err != nil {
			return errors.Join(err, ctl.Close())
		}
		file := filepath.Join(cfg.State, "context.json") // last: who waits for it takes the controller to be up
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

// sayHowToBegin prints where the first admin sets a password, while there is
// none.
func (c *cli) sayHowToBegin(ctx context.Context, ctl *controller.Controller) error {
	address, err := ctl.SetupURL(ctx)
	if err == nil && address != "" {
		c.say("Nobody can sign in yet. Make the first admin here, within three days; the address works once:\n%s", address)
	}
	return err
}

// frugal has garbage collected at two fifths of the live memory instead of all
// of it: with 10,000 boxes a quarter less memory, for 2 % of a core. What it
// returns is never touched and takes no memory, but counts as live: two fifths of it
// are garbage that a small controller may have in any case, which else collects
// several times a second under load, for a tenth of its CPU. GOGC wins.
func frugal(env func(string) string) []byte {
	if env("GOGC") != "" {
		return nil
	}
	debug.SetGCPercent(40)
	return make([]byte, 96<<20)
}

func (c *cli) controllerOptions(cfg serverConfig) controller.Options {
	balancers, _ := cfg.balancers() // load has checked them
	return controller.Options{
		Balancers: balancers,
		Dir:       cfg.State, HTTP: cfg.HTTP, Device: cfg.Device, MQTT: cfg.MQTT,
		Hosts: cfg.Hosts, HTTPPlain: cfg.HTTPPlain, Advertise: controller.Advertise(cfg.Advertise),
		DeviceLife: time.Duration(cfg.DeviceCertificates),
		Database:   cfg.Database, PasswordFile: cfg.PasswordFile, Blobs: cfg.Blobs, S3: cfg.S3.options(), CacheBytes: cfg.CacheBytes, PackBytes: cfg.PackBytes,
		Uplink: deliver.GateOptions(cfg.Uplink), Retention: cfg.Retention.values(), Broker: cfg.Broker.options(),
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
