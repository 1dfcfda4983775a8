package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/edgeherd/edgeherd/controller"
	"github.com/edgeherd/edgeherd/controller/s3"
)

// defaultServerConfig may be missing; a file that --config names may not.
const defaultServerConfig = "/etc/edgeherd/server.yaml"

// serverConfig is server.yaml. Flags win over EDGEHERD_* over the file.
type serverConfig struct {
	State     string   `yaml:"state"`      // default /var/lib/edgeherd/server
	HTTP      string   `yaml:"http"`       // pages and API; default 127.0.0.1:8443
	Device    string   `yaml:"device"`     // files for boxes; default 127.0.0.1:8444
	MQTT      string   `yaml:"mqtt"`       // default 127.0.0.1:8883
	Hosts     []string `yaml:"hosts"`      // names in the certificate; default 127.0.0.1
	HTTPPlain bool     `yaml:"http_plain"` // pages and API without TLS, on loopback only
	// Where boxes dial a balancer; default: the addresses above.
	Advertise advertiseConfig `yaml:"advertise"`
	// Addresses and networks of balancers that speak the PROXY protocol.
	ProxyProtocol []string `yaml:"proxy_protocol"` // default none
	// Several controllers: a PostgreSQL they share, and a folder of blobs.
	Database     string `yaml:"database"`               // postgres://user@host/name; default SQLite in state
	PasswordFile string `yaml:"database_password_file"` // default: PGPASSWORD or the passfile
	Blobs        string `yaml:"blobs"`                  // default STATE/blobs
	// A passphrase under which private keys lie sealed on the disk.
	KeysPassphraseFile string `yaml:"keys_passphrase_file"` // default: the systemd credential edgeherd-keys, else none
	// How long certificates of boxes last: 1d to 60d, renewed at half of it.
	DeviceCertificates lifetime        `yaml:"device_certificates"` // default 30d
	S3                 s3Config        `yaml:"s3"`                  // a bucket behind that folder; default none
	CacheBytes         int64           `yaml:"cache_bytes"`         // of the folder before a bucket; default 50 GB
	PackBytes          int64           `yaml:"pack_bytes"`          // of packs and deltas; default 100 GB
	Uplink             uplinkConfig    `yaml:"uplink"`              // what boxes download at once
	Retention          retentionConfig `yaml:"retention"`           // how long telemetry is kept
	Broker             brokerConfig    `yaml:"broker"`              // default: the one built in
	Metrics            string          `yaml:"metrics"`             // loopback address for scrapers; default none

	RemoteWrite remoteWriteConfig `yaml:"remote_write"`
	Sparkplug   sparkplugConfig   `yaml:"sparkplug"`
	Notify      []notifyConfig    `yaml:"notify"` // who hears of tickets and rollouts
	OIDC        oidcConfig        `yaml:"oidc"`   // who vouches for people; default nobody
	// Networks that webhooks and oidc may lead to, beside the public internet.
	OutboundAllow []string `yaml:"outbound_allow"`
}

// advertiseConfig is the key advertise of server.yaml: host:port each.
type advertiseConfig struct {
	Broker string `yaml:"broker"` // MQTT; default mqtt, or that of broker.url
	Files  string `yaml:"files"`  // default device
	Pages  string `yaml:"pages"`  // default http, unless it is for this machine alone
}

// s3Config is the key s3 of server.yaml.
type s3Config struct {
	Endpoint   string `yaml:"endpoint"` // https://host:port
	Bucket     string `yaml:"bucket"`
	Prefix     string `yaml:"prefix"`          // of the names of objects; default none
	Region     string `yaml:"region"`          // default what the store says
	AccessKey  string `yaml:"access_key"`      // default AWS_ACCESS_KEY_ID, else the role of the machine
	SecretFile string `yaml:"secret_key_file"` // file with the secret; default AWS_SECRET_ACCESS_KEY
	CA         string `yaml:"ca"`              // who vouches for the store; default the system's
	Boxes      string `yaml:"boxes"`           // endpoint for boxes; default endpoint
}

// place names the bucket; "" without one.
func (c s3Config) place() string {
	if c == (s3Config{}) {
		return ""
	}
	return strings.TrimSuffix(c.Endpoint, "/") + "/" + c.Bucket + strings.TrimSuffix("/"+c.Prefix, "/")
}

// options are nil without a bucket.
func (c s3Config) options() *s3.Options {
	if c == (s3Config{}) {
		return nil
	}
	return &s3.Options{Endpoint: c.Endpoint, Bucket: c.Bucket, Prefix: c.Prefix, Region: c.Region, AccessKey: c.AccessKey, SecretFile: c.SecretFile, CA: c.CA, Boxes: c.Boxes}
}

// uplinkConfig is the key uplink of server.yaml.
type uplinkConfig struct {
	Transfers      int   `yaml:"transfers"`        // requests for contents at once; default 100
	BytesPerSecond int64 `yaml:"bytes_per_second"` // of all together; default no bound
}

// check finds what YAML cannot.
func (c serverConfig) check() error {
	if c.HTTPPlain && c.Advertise.Pages != "" {
		return errors.New("advertise.pages: http_plain serves pages to this machine alone; leave one of them out")
	}
	_, err := c.balancers()
	_, wrong := c.guard()
	return errors.Join(wrong, err, c.Broker.check(), controller.Advertise(c.Advertise).Check())
}

func (c serverConfig) balancers() (nets []netip.Prefix, err error) {
	for _, text := range c.ProxyProtocol {
		p, err := netip.ParsePrefix(text)
		if a, single := netip.ParseAddr(text); single == nil {
			p, err = a.Prefix(a.BitLen())
		}
		if err != nil || p.Bits() == 0 {
			return nil, fmt.Errorf("proxy_protocol: %q is no address of a balancer and no network of such, as 192.0.2.10 or 192.0.2.0/28 is", text)
		}
		nets = append(nets, p)
	}
	return nets, nil
}

// serverFlags are the flags that say where a controller is and listens.
type serverFlags struct {
	config string
	flags  serverConfig
	cmd    *cobra.Command
}

func addServerFlags(cmd *cobra.Command) *serverFlags {
	s := &serverFlags{cmd: cmd}
	f := cmd.Flags()
	f.StringVar(&s.config, "config", defaultServerConfig, "configuration file")
	f.StringVar(&s.flags.State, "state", "", "state directory (default /var/lib/edgeherd/server)")
	f.StringVar(&s.flags.HTTP, "http", "", "address of pages and API (default 127.0.0.1:8443)")
	f.StringVar(&s.flags.Device, "device", "", "address of the files for boxes (default 127.0.0.1:8444)")
	f.StringVar(&s.flags.MQTT, "mqtt", "", "address of the broker (default 127.0.0.1:8883)")
	f.StringVar(&s.flags.Metrics, "metrics", "", "loopback address that serves metrics without a token (default none)")
	f.StringVar(&s.flags.Database, "database", "", "PostgreSQL database that controllers share (default SQLite in the state directory)")
	f.StringVar(&s.flags.Blobs, "blobs", "", "folder of models and releases (default blobs in the state directory)")
	f.StringSliceVar(&s.flags.Hosts, "host", nil, "name or address in the certificate; the first is what boxes expect")
	f.BoolVar(&s.flags.HTTPPlain, "http-plain", false, "pages and API without TLS, on loopback only")
	return s
}

// load joins file, environment and flags.
func (s *serverFlags) load(env func(string) string) (serverConfig, error) {
	cfg, err := readServerConfig(s.config, s.cmd.Flags().Changed("config"))
	if err != nil {
		return cfg, err
	}
	for _, v := range []struct {
		key        string
		into, flag *string
	}{
		{"STATE", &cfg.State, &s.flags.State}, {"HTTP", &cfg.HTTP, &s.flags.HTTP},
		{"DEVICE", &cfg.Device, &s.flags.Device}, {"MQTT", &cfg.MQTT, &s.flags.MQTT},
		{"DATABASE", &cfg.Database, &s.flags.Database}, {"BLOBS", &cfg.Blobs, &s.flags.Blobs},
		{"METRICS", &cfg.Metrics, &s.flags.Metrics},
	} {
		for _, text := range []string{env("EDGEHERD_" + v.key), *v.flag} {
			if text != "" {
				*v.into = text
			}
		}
	}
	if text := env("EDGEHERD_HOSTS"); text != "" {
		cfg.Hosts = strings.Split(text, ",")
	}
	if len(s.flags.Hosts) > 0 {
		cfg.Hosts = s.flags.Hosts
	}
	if text := env("EDGEHERD_HTTP_PLAIN"); text != "" {
		if cfg.HTTPPlain, err = strconv.ParseBool(text); err != nil {
			return cfg, fmt.Errorf("EDGEHERD_HTTP_PLAIN=%s: want true or false", text)
		}
	}
	if s.cmd.Flags().Changed("http-plain") {
		cfg.HTTPPlain = s.flags.HTTPPlain
	}
	if cfg.State == "" {
		cfg.State = "/var/lib/edgeherd/server"
	}
	cfg.Hosts = controller.Advertise(cfg.Advertise).Hosts(cfg.Hosts)
	return cfg, cfg.check()
}

func readServerConfig(path string, mustExist bool) (serverConfig, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !mustExist {
		return serverConfig{}, nil
	}
	if err != nil {
		return serverConfig{}, fmt.Errorf("read configuration: %w", err)
	}
	cfg, err := decodeServerConfig(data)
	if err != nil {
		return serverConfig{}, fmt.Errorf("configuration %s: %w", path, err)
	}
	return cfg, nil
}

// unknownKey is how the YAML library tells of a key that the struct lacks.
var unknownKey = regexp.MustCompile(`field (\S+) not found in type (?:\S+\.)?(\S+)`)

func decodeServerConfig(data []byte) (serverConfig, error) {
	var cfg serverConfig
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&cfg); err != nil && !errors.Is(err, io.EOF) {
		text := strings.TrimPrefix(err.Error(), "yaml: ")
		text = strings.TrimPrefix(text, "unmarshal errors:\n")
		text = unknownKey.ReplaceAllStringFunc(text, func(m string) string {
			part := unknownKey.FindStringSubmatch(m)
			return fmt.Sprintf("unknown key %q; the keys are %s", part[1], keysOf(part[2]))
		})
		return serverConfig{}, errors.New(strings.TrimSpace(text))
	}
	return cfg, errors.Join(cfg.checkExports(data), cfg.checkNotify(data))
}
