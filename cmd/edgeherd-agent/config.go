package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/edgeherd/edgeherd/agent/dial"
	"github.com/edgeherd/edgeherd/agent/fan"
	"github.com/edgeherd/edgeherd/agent/secrets"
	"github.com/edgeherd/edgeherd/agent/sense"
	"github.com/edgeherd/edgeherd/internal/boxconfig"
)

// config is agent.yaml. A key that is missing or zero has its default.
type config struct {
	State       string        `yaml:"state"`        // default /var/lib/edgeherd/agent
	Root        string        `yaml:"root"`         // of sysfs and procfs; default /
	Runner      string        `yaml:"runner"`       // socket; default /run/edgeherd/runner.sock
	Log         slog.Level    `yaml:"log"`          // debug, info, warn or error; default info
	SensePeriod time.Duration `yaml:"sense_period"` // default 10s
	SealPeriod  time.Duration `yaml:"seal_period"`  // default 1m
	Trial       time.Duration `yaml:"trial"`        // of a new model; default 30s
	Probation   time.Duration `yaml:"probation"`    // of a new agent; default 3m
	// MeasureHeat of the variants of a new model, where a sensor of power is;
	// default true.
	MeasureHeat bool          `yaml:"measure_heat"`
	FirstDelay  time.Duration `yaml:"first_delay"` // spread of the first connection; default 0s
	SpoolBytes  int64         `yaml:"spool_bytes"` // default 64 MiB
	// MinFreeBytes of the disk are left free by downloads; default 1 GiB.
	MinFreeBytes int64 `yaml:"min_free_bytes"`
	// PeerListen is the port for other boxes of the site, PeerAddress what they
	// dial; default: the box does not share, see agent.Options.
	PeerListen  string `yaml:"peer_listen"`
	PeerAddress string `yaml:"peer_address"`
	// Downloads: bytes a second and a calendar month; default no bounds.
	DownloadRate int64 `yaml:"download_bytes_per_second"`
	MonthBytes   int64 `yaml:"download_bytes_per_month"`
	// BucketAllow are networks beyond the public internet where the box may read what
	// the controller keeps in a bucket; default none.
	BucketAllow []netip.Prefix `yaml:"bucket_allow"`
	// BucketHosts are hosts of that bucket which may be asked through the proxy;
	// default none.
	BucketHosts []string `yaml:"bucket_hosts"`
	// SettingsAllow are hosts beyond the site's own network to which settings of the
	// fleet may make the box send results, inputs and credentials; default none.
	SettingsAllow []string `yaml:"settings_allow"`
	allow         boxconfig.Allow
	// How to reach the controller; see dial.Options.
	Server        string `yaml:"server"`          // default auto
	Proxy         string `yaml:"proxy"`           // default none
	ProxyAuthFile string `yaml:"proxy_auth_file"` // or secret:NAME; default none
	// Secrets is the directory where secrets lie opened, which must not outlive
	// the boot; default /run/edgeherd-agent/secrets.
	Secrets string `yaml:"secrets"`
	// Sensors gives sensors another role than agent/sense does: by key, one of
	// roles; default none.
	Sensors map[string]string `yaml:"sensors"`
	// Outside names sensors that Linux does not show; default: programs that
	// are there.
	Outside sense.Outside `yaml:"outside"`
	// Fan policies; the one for this kind of box is followed. Default none.
	Fan []fan.Policy `yaml:"fan"`
	// Blackbox keeps the last hour for the case of a reset; default true.
	Blackbox       bool          `yaml:"blackbox"`
	BlackboxPeriod time.Duration `yaml:"blackbox_period"` // default 1m
}

// roles are those of sense.Options.Roles.
var roles = []string{"die", "inlet", "board", "ssd", "exhaust", "room", "power", "fan", "none"}

// fanSensePeriod is the longest with a fan policy: its guard waits 30 s for a
// sign of life.
const fanSensePeriod = 10 * time.Second

const defaultConfig = "/etc/edgeherd/agent.yaml"

// loadConfig reads the file, then the environment, then the flags.
func loadConfig(args []string, getenv func(string) string) (config, error) {
	c := config{State: "/var/lib/edgeherd/agent", Root: "/", Runner: "/run/edgeherd/runner.sock", Secrets: secrets.DefaultDir, Blackbox: true, MeasureHeat: true}
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	path := flags.String("config", "", "")
	state, root, runner, level := flags.String("state", "", ""), flags.String("root", "", ""), flags.String("runner", "", ""), flags.String("log", "", "")
	if err := flags.Parse(args); err != nil {
		return c, fmt.Errorf("%w: %v", errUsage, err)
	}
	if flags.NArg() > 0 {
		return c, fmt.Errorf("%w: unexpected argument %q", errUsage, flags.Arg(0))
	}
	if err := c.readFile(*path); err != nil {
		return c, err
	}
	for _, o := range []struct {
		into      *string
		env, flag string
	}{{&c.State, "EDGEHERD_STATE", *state}, {&c.Root, "EDGEHERD_ROOT", *root}, {&c.Runner, "EDGEHERD_RUNNER", *runner}} {
		if v := getenv(o.env); v != "" {
			*o.into = v
		}
		if o.flag != "" {
			*o.into = o.flag
		}
	}
	if *level != "" {
		if err := c.Log.UnmarshalText([]byte(*level)); err != nil {
			return c, fmt.Errorf("%w: --log %s: use debug, info, warn or error", errUsage, *level)
		}
	}
	return c, nil
}

// readFile fills c from a file; the default one may be absent.
func (c *config) readFile(path string) error {
	optional := path == ""
	if optional {
		path = defaultConfig
	}
	data, err := os.ReadFile(path)
	if optional && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		// yaml names lines; what it says of our types helps nobody.
		text := strings.TrimPrefix(err.Error(), "yaml: ")
		text = strings.TrimPrefix(text, "unmarshal errors:\n  ")
		for kind, name := range map[string]string{
			"main.config": "agent.yaml", "fan.Policy": "a fan policy", "fan.Point": "a point: celsius, duty",
			"sense.Outside": "outside", "bmc.Redfish": "redfish", "air.Serial": "dust", "air.I2C": "pressure",
		} {
			text = strings.ReplaceAll(text, " not found in type "+kind, " is not a key of "+name)
		}
		text = strings.ReplaceAll(text, " into time.Duration", ": want a time with its unit, as in 30s or 5m")
		return fmt.Errorf("read configuration %s: %s", path, strings.ReplaceAll(text, "\n  ", "; "))
	}
	if err := c.check(); err != nil {
		return fmt.Errorf("configuration %s: %w", path, err)
	}
	return nil
}

// check refuses what would make the agent spin, or forget what it is for.
func (c *config) check() error {
	for _, d := range []struct {
		key       string
		v         time.Duration
		low, high time.Duration
	}{
		{"sense_period", c.SensePeriod, time.Second, 5 * time.Minute},
		{"seal_period", c.SealPeriod, time.Second, time.Hour},
		{"trial", c.Trial, time.Second, 24 * time.Hour},
		{"probation", c.Probation, time.Second, 10 * time.Minute}, // agent/update goes back after 10 minutes
		{"first_delay", c.FirstDelay, time.Second, time.Hour},
		{"blackbox_period", c.BlackboxPeriod, 10 * time.Second, time.Minute}, // a record holds no more
	} {
		if d.v != 0 && (d.v < d.low || d.v > d.high) {
			return fmt.Errorf("%s is %s: want %s to %s", d.key, d.v, d.low, d.high)
		}
	}
	if err := c.checkHardware(); err != nil {
		return err
	}
	var err error
	if c.allow, err = boxconfig.ParseAllow(c.SettingsAllow); err != nil {
		return fmt.Errorf("settings_allow: %w", err)
	}
	if _, err := dial.ParseServer(c.Server); err != nil {
		return err
	}
	if _, err := dial.ParseProxy(c.Proxy); err != nil {
		return err
	}
	if len(c.BucketHosts) > 0 && c.Proxy == "" {
		return errors.New("bucket_hosts is set without proxy: name the proxy, or remove it; without one networks count, bucket_allow")
	}
	for _, h := range c.BucketHosts {
		if u, err := url.Parse("https://" + h); err != nil || u.Host != h || u.Hostname() == "" {
			return fmt.Errorf("bucket_hosts: %q is not a host such as s3.example.net, or host:port", h)
		}
	}
	if c.ProxyAuthFile != "" {
		if c.Proxy == "" {
			return errors.New("proxy_auth_file is set without proxy: name the proxy, or remove it")
		}
		path, reference, err := secrets.Path(c.Secrets, c.ProxyAuthFile)
		if err != nil {
			return fmt.Errorf("proxy_auth_file: %w", err)
		}
		if c.ProxyAuthFile = path; !reference { // a secret may come later
			if _, _, err := dial.ReadAuth(path); err != nil {
				return err
			}
		}
	}
	for _, n := range []struct {
		key string
		v   int64
	}{{"spool_bytes", c.SpoolBytes}, {"min_free_bytes", c.MinFreeBytes}, {"download_bytes_per_second", c.DownloadRate}, {"download_bytes_per_month", c.MonthBytes}} {
		if n.v < 0 {
			return fmt.Errorf("%s is %d: want 0 for the default, or more", n.key, n.v)
		}
	}
	return nil
}

func (c *config) checkHardware() error {
	for key, role := range c.Sensors {
		if !slices.Contains(roles, role) {
			return fmt.Errorf("sensors: %s is %q: want one of %s", key, role, strings.Join(roles, ", "))
		}
	}
	if err := c.Outside.Check(); err != nil {
		return fmt.Errorf("outside: %w", err)
	}
	seen := map[string]bool{}
	for _, p := range c.Fan {
		if err := p.Check(); err != nil {
			return fmt.Errorf("fan: %s: %w", p.SKU, err)
		}
		if seen[p.SKU] {
			return fmt.Errorf("fan: %s has two policies: one fan of a box can be raised", p.SKU)
		}
		seen[p.SKU] = true
	}
	if len(c.Fan) > 0 && c.SensePeriod > fanSensePeriod {
		return fmt.Errorf("sense_period is %s: with a fan policy at most %s", c.SensePeriod, fanSensePeriod)
	}
	return nil
}
