package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/edgeherd/edgeherd/agent/inputs"
	"github.com/edgeherd/edgeherd/agent/results"
	"github.com/edgeherd/edgeherd/agent/secrets"
)

const defaultConfig = "/etc/edgeherd/runner.yaml"

// config is runner.yaml. Keys are flags (with - for _) and variables
// EDGEHERD_RUNNER_<KEY> as well, except inputs and results.
type config struct {
	// HTTP is host:port of the protocol, "off" for none.
	HTTP string `yaml:"http"`
	// GRPC is host:port of the protocol over gRPC, usually port 8001; "off", the
	// default, is the unix socket only.
	GRPC string `yaml:"grpc"`
	// Socket is the path of the unix socket for both forms of the protocol and the agent,
	// "off" for none.
	Socket string `yaml:"socket"`
	// State is the directory of the runner's own files.
	State string `yaml:"state"`
	// Active is the agent's list of versions to serve.
	Active string `yaml:"active"`
	// Identity is the directory of box.json with the trusted keys.
	Identity string `yaml:"identity"`
	// Serving is how models run and who may load them.
	Serving `yaml:",inline"`
	// Secrets is where the agent puts what `secret:NAME` means in place of a file.
	Secrets string `yaml:"secrets"`
	// Library is ONNX Runtime.
	Library string `yaml:"library"`
	// Threads is how many threads one inference may use.
	Threads int `yaml:"threads"`
	// ModelMemoryBytes bounds the private memory of one worker, 0: no bound.
	ModelMemoryBytes int64 `yaml:"model_memory_bytes"`
	// Inputs are cameras and microphones with their pipelines.
	Inputs []inputs.Source `yaml:"inputs"`
	// Results is where programs on the box get them; off unless set.
	Results results.Config `yaml:"results"`
}

func defaults() config {
	return config{
		HTTP:     "127.0.0.1:8000",
		GRPC:     "off",
		Socket:   "/run/edgeherd/runner.sock",
		State:    "/var/lib/edgeherd/runner",
		Active:   "/var/lib/edgeherd/agent/models/active.json",
		Identity: "/var/lib/edgeherd/agent/identity",
		Secrets:  secrets.DefaultDir,
		Library:  "/usr/lib/edgeherd/libonnxruntime.so.1",
		Threads:  1,
	}
}

// setting is one key with where its value goes.
type setting struct {
	key, help string
	text      *string
	number    *int
	bytes     *int64
}

func (c *config) settings() []setting {
	return []setting{
		{key: "http", help: "serve the protocol on this `host:port`; off: not at all", text: &c.HTTP},
		{key: "grpc", help: "serve the protocol over gRPC on this `host:port`; off: not at all", text: &c.GRPC},
		{key: "socket", help: "`path` of the unix socket for protocol and agent; off: none", text: &c.Socket},
		{key: "state", help: "`directory` of the runner's own files", text: &c.State},
		{key: "active", help: "`file` that lists the versions to serve", text: &c.Active},
		{key: "identity", help: "`directory` of box.json with the trusted keys", text: &c.Identity},
		{key: "secrets", help: "`directory` where the agent puts opened secrets", text: &c.Secrets},
		{key: "library", help: "`path` of libonnxruntime.so.1", text: &c.Library},
		{key: "threads", help: "`threads` of one inference", number: &c.Threads},
		{key: "model_memory_bytes", help: "private memory of one model in `bytes`; 0: no bound", bytes: &c.ModelMemoryBytes},
	}
}

func (s setting) set(value string) (err error) {
	switch {
	case s.text != nil:
		*s.text = value
	case s.number != nil:
		*s.number, err = strconv.Atoi(value)
	default:
		*s.bytes, err = strconv.ParseInt(value, 10, 64)
	}
	if err != nil {
		return fmt.Errorf("%q is not a whole number", value)
	}
	return nil
}

// readConfig merges defaults, file, environment and flags, later ones win.
func readConfig(args []string, getenv func(string) string, stdout io.Writer) (config, error) {
	c := defaults()
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	file := flags.String("config", "", "read settings from this `file` (default "+defaultConfig+", if it is there)")
	given := map[string]string{}
	for _, s := range c.settings() {
		flags.Func(strings.ReplaceAll(s.key, "_", "-"), s.help, func(v string) error {
			given[s.key] = v
			return nil
		})
	}
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		flags.SetOutput(stdout)
		flags.PrintDefaults()
		return c, err
	} else if err != nil {
		return c, fmt.Errorf("%w: %w", errUsage, err)
	}
	if flags.NArg() > 0 {
		return c, fmt.Errorf("%w: unexpected argument %q", errUsage, flags.Arg(0))
	}
	if err := c.readFile(*file); err != nil {
		return c, err
	}
	for _, s := range c.settings() {
		variable := "EDGEHERD_RUNNER_" + strings.ToUpper(s.key)
		if v := getenv(variable); v != "" {
			if err := s.set(v); err != nil {
				return c, fmt.Errorf("%w: %s: %w", errUsage, variable, err)
			}
		}
		if v, ok := given[s.key]; ok {
			if err := s.set(v); err != nil {
				return c, fmt.Errorf("%w: --%s: %w", errUsage, strings.ReplaceAll(s.key, "_", "-"), err)
			}
		}
	}
	return c, c.check()
}

// readFile reads path, or the default file where there is one.
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
		text = strings.ReplaceAll(text, " not found in type main.config", " is not a key of runner.yaml")
		text = strings.ReplaceAll(text, " not found in type inputs.Source", " is not a key of an input")
		text = strings.ReplaceAll(text, " not found in type results.Config", " is not a key of results")
		text = strings.ReplaceAll(text, " not found in type backend.Config", " is not a key of a backend")
		text = strings.ReplaceAll(text, " not found in type backend.Container", " is not a key of a container")
		text = strings.ReplaceAll(text, " not found in type serve.Route", " is not a key of a route")
		text = strings.ReplaceAll(text, " not found in type serve.Overflow", " is not a key of a server of a route")
		text = strings.ReplaceAll(text, " not found in type results.Target", " is not a key of a target of results")
		text = strings.ReplaceAll(text, "into time.Duration", "into a time such as 10s")
		return fmt.Errorf("read configuration %s: %s", path, strings.ReplaceAll(text, "\n  ", "; "))
	}
	return nil
}

func (c *config) check() error {
	switch {
	case c.HTTP == "off" && c.GRPC == "off" && c.Socket == "off":
		return errors.New("http, grpc and socket are all off: nobody could reach the runner")
	case c.Threads < 1:
		return fmt.Errorf("threads is %d, want 1 or more", c.Threads)
	case c.ModelMemoryBytes < 0:
		return fmt.Errorf("model_memory_bytes is %d, want 0 or more", c.ModelMemoryBytes)
	}
	return c.Serving.check(c.Secrets)
}

// orNone maps "off" to the empty string that package serve expects.
func orNone(addr string) string {
	if addr == "off" {
		return ""
	}
	return addr
}
