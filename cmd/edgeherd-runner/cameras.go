package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/edgeherd/edgeherd/agent/inputs"
	"github.com/edgeherd/edgeherd/agent/results"
	"github.com/edgeherd/edgeherd/agent/serve"
	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
)

// settingsEvery is how often the fleet's settings are looked for.
const settingsEvery = 250 * time.Millisecond

// cameras are the inputs that the box's file and the fleet name, while models
// serve on: new settings of the fleet take the place of those of before, which
// come back when the new ones cannot be opened.
type cameras struct {
	file   config // runner.yaml
	server *serve.Server
	log    *slog.Logger
	path   string // of the fleet's settings

	mu     sync.Mutex // guards all below
	config config     // that inputs were opened with
	inputs serve.Inputs
	status runnerapi.SettingsStatus
	duty   *runnerapi.Duty
	seen   fileStamp
}

// fileStamp tells one content of a file from the next: every write of
// internal/durable makes a new inode.
type fileStamp struct {
	inode   uint64
	changed time.Time
}

func stampOf(path string) (s fileStamp) {
	info, err := os.Stat(path)
	if err != nil {
		return s
	}
	s.changed = info.ModTime()
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.inode = st.Ino
	}
	return s
}

func newCameras(c config, s *serve.Server, log *slog.Logger) *cameras {
	m := &cameras{file: c, server: s, log: log, path: filepath.Join(filepath.Dir(c.Active), runnerapi.SettingsFile)}
	m.seen = stampOf(m.path)
	next, status := m.read()
	if status.Err == "" {
		var err error
		if m.inputs, err = open(next, s, log); err != nil && status.Digest != "" {
			status.Err = err.Error() // of the fleet, perhaps: go on with what the box has
			next = c
			m.inputs, err = open(c, s, log)
		}
		m.complain(err)
	} else {
		var err error
		m.inputs, err = open(c, s, log)
		m.complain(err)
		next = c
	}
	if err := s.SetRoutes(next.Routes); err != nil && status.Err == "" {
		status.Err = err.Error() // of the fleet: those of the file were checked
		next.Routes = c.Routes
	}
	m.config, m.status = next, status
	return m
}

func (m *cameras) complain(err error) {
	if err != nil {
		m.log.Error("inputs stay off, models serve without them", "err", err)
	}
}

// read returns the configuration with the fleet's settings. What runner.yaml
// has counts, by the name of an input or target.
func (m *cameras) read() (config, runnerapi.SettingsStatus) {
	c := m.file
	var file runnerapi.Settings
	found, err := durable.Journal{Path: m.path, Version: runnerapi.SettingsVersion}.Load(&file)
	status := runnerapi.SettingsStatus{Digest: file.Digest}
	var fleet struct {
		Inputs  []inputs.Source
		Results struct{ Targets []results.Target }
		Routes  []fleetRoute
	}
	if err == nil && found {
		dec := yaml.NewDecoder(bytes.NewReader(file.Content)) // JSON is YAML
		dec.KnownFields(true)
		if err = dec.Decode(&fleet); err != nil {
			err = fmt.Errorf("read settings of the fleet: %s", strings.ReplaceAll(strings.TrimPrefix(err.Error(), "yaml: "), "\n", ";"))
		}
	}
	if err != nil {
		status.Err = err.Error()
	}
	c.Inputs = slices.Clone(c.Inputs)
	for _, src := range m.file.Inputs {
		status.Local = append(status.Local, "runner.inputs["+src.Name+"]")
	}
	for _, src := range fleet.Inputs {
		if !slices.ContainsFunc(m.file.Inputs, func(o inputs.Source) bool { return o.Name == src.Name }) {
			c.Inputs = append(c.Inputs, src)
		}
	}
	c.Routes = slices.Clone(c.Routes)
	for _, r := range m.file.Routes {
		status.Local = append(status.Local, "runner.routes["+r.Model+"]")
	}
	for _, r := range fleet.Routes {
		if slices.ContainsFunc(m.file.Routes, func(o serve.Route) bool { return o.Model == r.Model }) {
			continue
		}
		if slices.ContainsFunc(c.Routes, func(o serve.Route) bool { return o.Model == r.Model }) {
			status.Err = fmt.Sprintf("two routes of the fleet are of model %s; %s is one", r.Model, r.Name)
		}
		c.Routes = append(c.Routes, r.Route)
	}
	if err := credentials(c.Routes, c.Secrets); err != nil {
		status.Err = err.Error()
	}
	c.Results.Targets = slices.Clone(c.Results.Targets)
	for _, t := range m.file.Results.Targets {
		status.Local = append(status.Local, "runner.results.targets["+t.Name+"]")
	}
	for _, t := range fleet.Results.Targets {
		if !slices.ContainsFunc(m.file.Results.Targets, func(o results.Target) bool { return o.Name == t.Name }) {
			c.Results.Targets = append(c.Results.Targets, t)
		}
	}
	return c, status
}

// fleetRoute is a route as documents have it: they meet by its name.
type fleetRoute struct {
	Name        string
	serve.Route `yaml:",inline"`
}

// Run runs the inputs, and those that follow them, until ctx is done.
func (m *cameras) Run(ctx context.Context) error {
	tick := time.NewTicker(settingsEvery)
	defer tick.Stop()
	for {
		now, stop := context.WithCancel(ctx)
		ended := make(chan error, 1)
		in := m.now()
		go func() { ended <- in.Run(now) }()
		var next config
		var status runnerapi.SettingsStatus
		for changed := false; !changed; {
			select {
			case err := <-ended:
				stop()
				return err
			case <-tick.C:
				next, status, changed = m.look()
			}
		}
		stop()
		if err := <-ended; err != nil {
			m.log.Error("inputs did not end cleanly", "err", err)
		}
		if ctx.Err() != nil {
			return nil
		}
		m.swap(next, status)
	}
}

// look reports whether the fleet's settings want other inputs. Settings that
// change nothing here are taken up at once.
func (m *cameras) look() (config, runnerapi.SettingsStatus, bool) {
	stamp := stampOf(m.path)
	m.mu.Lock()
	defer m.mu.Unlock()
	if stamp == m.seen {
		return config{}, m.status, false
	}
	m.seen = stamp
	next, status := m.read()
	if status.Err != "" || reflect.DeepEqual(next.Inputs, m.config.Inputs) && reflect.DeepEqual(next.Results, m.config.Results) {
		if status.Err == "" && !reflect.DeepEqual(next.Routes, m.config.Routes) {
			if err := m.server.SetRoutes(next.Routes); err != nil {
				status.Err = err.Error()
			} else {
				m.config.Routes = next.Routes
			}
		}
		m.status = status
		return next, status, false
	}
	return next, status, true
}

// swap opens other inputs, or those of before again.
func (m *cameras) swap(next config, status runnerapi.SettingsStatus) {
	err := m.server.SetRoutes(next.Routes)
	var in serve.Inputs
	if err == nil {
		in, err = open(next, m.server, m.log)
	}
	if err != nil {
		m.complain(m.server.SetRoutes(m.config.Routes))
		m.log.Error("settings of the fleet are not followed", "err", err)
		status.Err, next = err.Error(), m.config
		in, err = open(next, m.server, m.log)
		m.complain(err)
	} else {
		m.log.Info("settings of the fleet taken up", "digest", status.Digest)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.config, m.inputs, m.status = next, in, status
	if m.duty != nil {
		in.SetDuty(*m.duty)
	}
}

func (m *cameras) now() serve.Inputs {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.inputs
}

// Settings tells which settings of the fleet were taken up.
func (m *cameras) Settings() runnerapi.SettingsStatus {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status
}

func (m *cameras) Status() []runnerapi.InputStatus { return m.now().Status() }

func (m *cameras) Results(after uint64, max int) (runnerapi.Results, error) {
	return m.now().Results(after, max)
}

func (m *cameras) Ack(outbox string, cursor uint64) error { return m.now().Ack(outbox, cursor) }

func (m *cameras) SetDuty(d runnerapi.Duty) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.duty = &d
	m.inputs.SetDuty(d)
}

func (m *cameras) Counts() (records, dropped int64) { return m.now().Counts() }
