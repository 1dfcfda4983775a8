package main

import (
	"context"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeherd/edgeherd/controller"
	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// brokerConfig is the key broker of server.yaml: an MQTT broker of others.
type brokerConfig struct {
	URL          string        `yaml:"url"`           // mqtts://host:port, of a cluster several with commas
	Shared       *bool         `yaml:"shared"`        // default true; false for NATS
	CA           string        `yaml:"ca"`            // of the broker; default our own
	Cert         string        `yaml:"cert"`          // of this controller; default made by our CA
	Key          string        `yaml:"key"`           //
	Username     string        `yaml:"username"`      // if the broker asks for it as well
	PasswordFile string        `yaml:"password_file"` //
	Silence      time.Duration `yaml:"silence"`       // default 3m
}

func (b brokerConfig) options() controller.ExternalBroker {
	return controller.ExternalBroker{
		URL: b.URL, Shared: b.Shared == nil || *b.Shared, CA: b.CA, Cert: b.Cert, Key: b.Key,
		Username: b.Username, PasswordFile: b.PasswordFile, Silence: b.Silence,
	}
}

// authority opens the CA of a controller that has run once.
func (c *cli) authority(cfg serverConfig) (*identity.CA, error) {
	dir := filepath.Join(cfg.State, "ca")
	if _, err := os.Stat(filepath.Join(dir, "ca.pem")); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no certificate authority in %s: name the state directory of the controller with --state, after its first start", dir)
	}
	keys, err := cfg.keys(c.env)
	if err != nil {
		return nil, err
	}
	ca, err := identity.OpenSealedCA(dir, nil, keys)
	return ca, keysFault(err)
}

func serverCertCommand(c *cli) *cobra.Command {
	var s *serverFlags
	var out string
	cmd := c.verb("cert", "Make a certificate for a broker or proxy that boxes reach first", func(context.Context, []string) error {
		cfg, err := s.load(c.env)
		if err != nil {
			return failure{exitUsage, err}
		}
		ca, err := c.authority(cfg)
		if err != nil {
			return err
		}
		if err := c.writeCert(ca, cfg.Hosts, out); err != nil {
			return err
		}
		c.say("Boxes ask for the first of these names: %s. The certificate is good for a year; make a new one with the same command.", strings.Join(cfg.Hosts, ", "))
		return nil
	})
	s = addServerFlags(cmd)
	cmd.Flags().StringVar(&out, "out", ".", "folder for ca.pem, server.pem and server-key.pem")
	return cmd
}

// writeCert makes the three files that a TLS server for boxes needs.
func (c *cli) writeCert(ca *identity.CA, hosts []string, dir string) error {
	if len(hosts) == 0 {
		return failure{exitUsage, errors.New("no name for the certificate: give --host, or the key hosts of server.yaml; the first must be the one that boxes were told")}
	}
	cert, key, err := ca.IssueServerPEM(hosts)
	if err != nil {
		return err
	}
	return c.writeFiles(dir, []outFile{
		{controller.BrokerFileCA, ca.PEM(), 0o644}, {controller.BrokerFileCert, cert, 0o644}, {controller.BrokerFileKey, key, 0o600},
	})
}

// outFile is one file that a command makes.
type outFile struct {
	name string
	data []byte
	mode fs.FileMode
}

func (c *cli) writeFiles(dir string, files []outFile) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, f := range files {
		path := filepath.Join(dir, f.name)
		if err := durable.WriteFile(path, f.data, f.mode); err != nil {
			return err
		}
		c.say("wrote %s", path)
	}
	return nil
}

func serverBrokerConfigCommand(c *cli) *cobra.Command {
	var s *serverFlags
	var dir, out string
	var port int
	cmd := c.verb("broker-config KIND", "What an MQTT broker of yours needs to know: KIND is mosquitto or nats", func(ctx context.Context, args []string) error {
		cfg, err := s.load(c.env)
		if err != nil {
			return failure{exitUsage, err}
		}
		setup := controller.BrokerSetup{Kind: args[0], Dir: dir, Port: port}
		if setup.Dir == "" {
			setup.Dir = map[string]string{"mosquitto": "/etc/mosquitto/edgeherd", "nats": "/etc/nats/edgeherd"}[args[0]]
		}
		if args[0] == "nats" {
			if setup.Users, err = c.boxSubjects(ctx); err != nil {
				return err
			}
		}
		files, err := setup.Files()
		if err != nil {
			return failure{exitUsage, err}
		}
		if out == "" {
			for _, f := range files {
				fmt.Fprintf(c.out, "### %s\n%s\n", f.Name, f.Text)
			}
			c.say("These are the files for %s. `edgeherd server broker-config %s --out DIR --host NAME` writes them with the broker's certificate; %s", setup.Dir, args[0], brokerNext(args[0]))
			return nil
		}
		ca, err := c.authority(cfg)
		if err != nil {
			return err
		}
		if err := c.writeCert(ca, cfg.Hosts, out); err != nil {
			return err
		}
		var written []outFile
		if args[0] == "mosquitto" {
			list, err := revocations(cfg, ca)
			if err != nil {
				return err
			}
			written = append(written, outFile{controller.BrokerFileCRL, list, 0o644})
		}
		for _, f := range files {
			written = append(written, outFile{f.Name, []byte(f.Text), 0o644})
		}
		if err := c.writeFiles(out, written); err != nil {
			return err
		}
		c.say("Bring these files to %s on the broker; %s", setup.Dir, brokerNext(args[0]))
		return nil
	})
	s = addServerFlags(cmd)
	cmd.Flags().StringVar(&dir, "dir", "", "folder on the broker (default /etc/mosquitto/edgeherd or /etc/nats/edgeherd)")
	cmd.Flags().StringVar(&out, "out", "", "write the files here, with a certificate; default: show them")
	cmd.Flags().IntVar(&port, "port", 8883, "port that boxes dial")
	return cmd
}

// revocations is the list that the controller keeps; before its first start
// there is nothing to revoke.
func revocations(cfg serverConfig, ca *identity.CA) ([]byte, error) {
	list, err := os.ReadFile(filepath.Join(cfg.State, "ca", controller.BrokerFileCRL))
	if errors.Is(err, fs.ErrNotExist) {
		return ca.RevocationList(nil)
	}
	return list, err
}

func brokerNext(kind string) string {
	if kind == "nats" {
		return "the server must be able to read server-key.pem. Write users.conf anew after each enrolment and let NATS read it (nats-server --signal reload). Then set broker.url and broker.shared: false in server.yaml."
	}
	return "the user mosquitto must be able to read server-key.pem (chown mosquitto). Start Mosquitto with -c mosquitto.conf alone, then set broker.url: mqtts://NAME:8883 in server.yaml; the controller tries the broker before it uses it. Bring ca/crl.pem of its state directory along whenever that changes (docs/operations.md)."
}

// boxSubjects asks the controller for its boxes: the subject of the certificate
// of each.
func (c *cli) boxSubjects(ctx context.Context) (map[string]string, error) {
	client, _, err := c.client()
	if err != nil {
		return nil, fmt.Errorf("NATS needs a user for each box, and the controller is asked for them: %w", err)
	}
	list, err := client.AllBoxes(ctx, "", "")
	if err != nil {
		return nil, err
	}
	users := map[string]string{}
	for _, b := range list.Items {
		users[string(b.ID)] = pkix.Name{CommonName: string(b.ID), OrganizationalUnit: []string{"site:" + b.Site}}.String()
	}
	return users, nil
}

// check finds what YAML cannot.
func (b brokerConfig) check() error {
	set := b.CA + b.Cert + b.Key + b.Username + b.PasswordFile
	if b.URL == "" && (set != "" || b.Shared != nil && !*b.Shared) {
		return errors.New("broker: url is missing")
	}
	if b.Silence < 0 {
		return fmt.Errorf("broker: silence: %s is less than nothing", b.Silence)
	}
	return nil
}
