package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/edgeherd/edgeherd/agent/backend"
	"github.com/edgeherd/edgeherd/agent/secrets"
	"github.com/edgeherd/edgeherd/agent/serve"
	"github.com/edgeherd/edgeherd/agent/worker"
)

// Serving are the keys of runner.yaml that say how models run; they are no
// flags.
type Serving struct {
	// Providers are execution providers of ONNX Runtime, the first that works
	// is used; default CPU alone.
	Providers []worker.Provider `yaml:"providers"`
	// CPUs are the processors that models may run on; default all.
	CPUs []int `yaml:"cpus"`
	// Nice is the niceness of the processes that run models, 0 to 19.
	Nice int `yaml:"nice"`
	// Repository lets clients on TCP load and unload models.
	Repository bool `yaml:"repository"`
	// MaxInFlight bounds the requests under way, MaxQueue those that wait for
	// one model; 0: as package serve says.
	MaxInFlight int `yaml:"max_in_flight"`
	MaxQueue    int `yaml:"max_queue"`
	// MaxConnections bounds the connections open on TCP; 0: 16,384.
	MaxConnections int `yaml:"max_connections"`
	// Hosts are names of this box beside its addresses and its host name.
	Hosts []string `yaml:"hosts"`
	// Backends are programs that may serve models in place of ONNX Runtime.
	Backends []backend.Config `yaml:"backends"`
	// Routes let requests for a model overflow to other servers.
	Routes []serve.Route `yaml:"routes"`
}

// credentials puts the files of secrets in place of `secret:NAME`.
func (s *Serving) credentials(dir string) error {
	for i := range s.Backends {
		if err := credential(&s.Backends[i].Endpoint, dir); err != nil {
			return err
		}
	}
	return credentials(s.Routes, dir)
}

func credentials(routes []serve.Route, dir string) error {
	for _, r := range routes {
		for i := range r.Overflow {
			if err := credential(&r.Overflow[i].Endpoint, dir); err != nil {
				return err
			}
		}
	}
	return nil
}

func credential(e *backend.Endpoint, dir string) (err error) {
	if e.Credential, _, err = secrets.Path(dir, e.Credential); err != nil {
		return fmt.Errorf("credential of %s: %w", e.URL, err)
	}
	return nil
}

// check completes the settings and names the first fault; secretsDir is where
// the agent opens secrets.
func (s *Serving) check(secretsDir string) error {
	if err := s.credentials(secretsDir); err != nil {
		return err
	}
	for _, p := range s.Providers {
		if p.Name == "" {
			return errors.New("a provider has no name; write for instance `providers: [{name: CUDA}, {name: CPU}]`")
		}
	}
	for _, n := range s.CPUs {
		if n < 0 || n > 1023 { // CPU_SETSIZE
			return fmt.Errorf("cpus names %d, want numbers of processors from 0", n)
		}
	}
	for i, b := range s.Backends {
		var err error
		if s.Backends[i], err = b.WithDefaults(); err != nil {
			return err
		}
		if slices.ContainsFunc(s.Backends[:i], func(o backend.Config) bool { return o.Name == b.Name }) {
			return fmt.Errorf("two backends are called %q", b.Name)
		}
	}
	for _, r := range s.Routes {
		if err := r.Check(); err != nil {
			return err
		}
	}
	switch {
	case s.Nice < 0 || s.Nice > 19:
		return fmt.Errorf("nice is %d, want 0 to 19", s.Nice)
	case s.MaxInFlight < 0 || s.MaxQueue < 0 || s.MaxConnections < 0:
		return errors.New("max_in_flight, max_queue and max_connections are 0 or more")
	}
	return nil
}

// options of the server, but for what main alone knows.
func (c *config) options() serve.Options {
	return serve.Options{
		Active: c.Active, Library: c.Library, HTTP: orNone(c.HTTP), GRPC: orNone(c.GRPC), Socket: orNone(c.Socket),
		State: c.State, Repository: c.Repository, MaxInFlight: c.MaxInFlight, MaxQueue: c.MaxQueue, MaxConnections: c.MaxConnections, Hosts: c.Hosts, Backends: c.Backends, Routes: c.Routes,
		Keyring: serve.KeyringIn(c.Identity),
		Worker: worker.Options{
			Threads: c.Threads, MaxDataBytes: uint64(c.ModelMemoryBytes), Nice: c.Nice, CPUs: c.CPUs, Providers: c.Providers,
		},
	}
}
