package backend

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/models"
)

// Config is one program that may serve models of this box. At most one of
// Process, Unit and Container is set; with none of them the program is watched.
type Config struct {
	// Name is what manifests call it.
	Name string `yaml:"name"`
	// API is what it speaks: oip, the default, or openai.
	API string `yaml:"api"`
	// Process is the argument vector of a program that ends with the runner.
	Process []string `yaml:"process"`
	// Environment is added to that of the runner, for a process. Values may have
	// places to fill.
	Environment map[string]string `yaml:"environment"`
	// Unit is a systemd unit. One with a place in braces in its name belongs to
	// a version and is stopped with it; another one is started and left alone.
	Unit string `yaml:"unit"`
	// Container is run by an engine's command line.
	Container *Container `yaml:"container"`
	// Endpoint is where it answers; its URL is http://127.0.0.1:{port} by default.
	Endpoint `yaml:",inline"`
	// ReadyWithin bounds the wait for a program that starts; default 2 min.
	ReadyWithin time.Duration `yaml:"ready_within"`
	// MaxConcurrent bounds the requests that it gets at once; default 16.
	MaxConcurrent int `yaml:"max_concurrent"`
}

// Container says how an image is run.
type Container struct {
	// Engine is docker, podman or k3s.
	Engine string `yaml:"engine"`
	Image  string `yaml:"image"`
	// Port is the one that the program listens on inside; for k3s, which shares
	// the host's network, there is none: the program listens on {port}.
	Port int `yaml:"port"`
	// Options stand before the image, Arguments behind it.
	Options   []string `yaml:"options"`
	Arguments []string `yaml:"arguments"`
}

// Endpoint is where somebody answers for a model.
type Endpoint struct {
	// URL is http://, https://, grpc:// or grpcs:// with host and port.
	URL string `yaml:"url"`
	// Place says whose machine that is: PlaceBox, the default for a loopback
	// address, PlaceSite or PlaceCentral.
	Place string `yaml:"place"`
	// Health is the path that tells whether an openai server is ready; default
	// /health, and /v1/models where there is none.
	Health string `yaml:"health"`
	// CA is a file of certificates (PEM), the only ones that are trusted; default
	// those of the system.
	CA string `yaml:"ca"`
	// Credential is a file whose content is sent as bearer token; default none.
	// It is read for each request, so that it can be replaced.
	Credential string `yaml:"credential"`
	// Timeout bounds one request; default 30 s, openai 5 min.
	Timeout time.Duration `yaml:"timeout"`
}

// The places: the box itself, another machine of its site, and anything else.
const (
	PlaceBox     = "box"
	PlaceSite    = "site"
	PlaceCentral = "central"
)

// The engines that run containers.
const (
	engineDocker = "docker"
	enginePodman = "podman"
	engineK3s    = "k3s"
)

// WithDefaults fills in what is not set and names the first fault.
func (c Config) WithDefaults() (Config, error) {
	if c.API == "" {
		c.API = models.APIOIP
	}
	if c.ReadyWithin == 0 {
		c.ReadyWithin = 2 * time.Minute
	}
	if c.MaxConcurrent == 0 {
		c.MaxConcurrent = 16
	}
	if c.Timeout == 0 && c.API == models.APIOpenAI {
		c.Timeout = 5 * time.Minute
	}
	if c.URL == "" && !c.watched() {
		c.URL = "http://127.0.0.1:{port}"
	}
	e := c.Endpoint
	e.URL = strings.ReplaceAll(e.URL, "{port}", "1")
	c.Timeout, c.Place = e.withDefaults().Timeout, e.withDefaults().Place
	if err := c.check(); err != nil {
		return c, fmt.Errorf("backend %q: %w", c.Name, err)
	}
	return c, nil
}

func (e Endpoint) withDefaults() Endpoint {
	if u, err := url.Parse(e.URL); err == nil && e.Place == "" && isLoopback(u.Hostname()) {
		e.Place = PlaceBox
	}
	if e.Timeout == 0 {
		e.Timeout = 30 * time.Second
	}
	return e
}

// watched says that nothing is started.
func (c Config) watched() bool { return len(c.Process) == 0 && c.Unit == "" && c.Container == nil }

// Kind is how the program is run, for people.
func (c Config) Kind() string {
	switch {
	case len(c.Process) > 0:
		return "process"
	case c.Unit != "":
		return "unit"
	case c.Container != nil:
		return c.Container.Engine
	}
	return "watched"
}

var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

func (c Config) check() error {
	ways := 0
	for _, used := range []bool{len(c.Process) > 0, c.Unit != "", c.Container != nil} {
		if used {
			ways++
		}
	}
	switch {
	case !nameForm.MatchString(c.Name):
		return errors.New("name: use lower case letters, digits and -, at most 63")
	case c.API != models.APIOIP && c.API != models.APIOpenAI:
		return fmt.Errorf("api is %q, want %s or %s", c.API, models.APIOIP, models.APIOpenAI)
	case ways > 1:
		return errors.New("set one of process, unit and container")
	case ways == 0 && c.URL == "":
		return errors.New("set process, unit or container to start it, or url to watch one that runs")
	case ways == 0 && strings.Contains(c.URL, "{port}"):
		return errors.New("url: {port} is the port of a program that the runner starts; name the port of the one that runs")
	case c.ReadyWithin < 0 || c.Timeout < 0 || c.MaxConcurrent < 0:
		return errors.New("ready_within, timeout and max_concurrent are 0 or more")
	case len(c.Environment) > 0 && len(c.Process) == 0:
		return errors.New("environment is for a process; a container has options, a unit its own file")
	case strings.HasPrefix(c.Unit, "-"):
		return fmt.Errorf("unit %q is no unit", c.Unit)
	}
	texts := append(slices.Clone(c.Process), c.Unit, c.URL)
	texts = slices.AppendSeq(texts, maps.Values(c.Environment))
	if c.Container != nil {
		if err := c.Container.check(); err != nil {
			return err
		}
		texts = append(append(append(texts, c.Container.Options...), c.Container.Arguments...), c.Container.Image)
	}
	told := c.Container != nil && c.Container.Port != 0 || !strings.Contains(c.URL, "{port}")
	for _, text := range texts {
		if err := checkPlaces(text); err != nil {
			return err
		}
		told = told || text != c.URL && strings.Contains(text, "{port}")
	}
	if !told {
		return errors.New("nothing tells the program its port: put {port} among its arguments, into its environment or the unit's name, or name the port it has anyway in url")
	}
	e := c.Endpoint
	e.URL = strings.ReplaceAll(e.URL, "{port}", "1")
	if c.API == models.APIOpenAI && strings.HasPrefix(e.URL, "grpc") {
		return fmt.Errorf("url %s: an openai server speaks http or https", c.URL)
	}
	return e.Check()
}

func (c *Container) check() error {
	switch {
	case c.Engine != engineDocker && c.Engine != enginePodman && c.Engine != engineK3s:
		return fmt.Errorf("container: engine is %q, want %s, %s or %s", c.Engine, engineDocker, enginePodman, engineK3s)
	case c.Image == "" || strings.HasPrefix(c.Image, "-"):
		return fmt.Errorf("container: image %q is no image", c.Image)
	case c.Engine == engineK3s && c.Port != 0:
		return errors.New("container: k3s shares the host's network: leave out port, and let the program listen on {port}")
	case c.Engine != engineK3s && (c.Port < 1 || c.Port > 65535):
		return errors.New("container: port is the one that the program listens on inside, from 1 to 65535")
	}
	return nil
}

// Check names the first fault.
func (e Endpoint) Check() error {
	u, err := url.Parse(e.URL)
	if err != nil {
		return fmt.Errorf("url %q is none", e.URL)
	}
	switch u.Scheme {
	case "http", "https", "grpc", "grpcs":
	default:
		return fmt.Errorf("url %q: want http, https, grpc or grpcs", e.URL)
	}
	secret := u.Scheme == "https" || u.Scheme == "grpcs"
	switch {
	case u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/":
		// What is beside them may be a token: it is not repeated.
		return fmt.Errorf("url %s://%s: want scheme, host and port and nothing else; a token goes into the file that credential names", u.Scheme, u.Host)
	case e.Place != PlaceBox && e.Place != PlaceSite && e.Place != PlaceCentral:
		return fmt.Errorf("url %q: place is %q, want %s, %s or %s: it decides whose inputs may go there", e.URL, e.Place, PlaceBox, PlaceSite, PlaceCentral)
	case e.Place == PlaceBox && !isLoopback(u.Hostname()):
		return fmt.Errorf("url %q: place is %s, and %s is another machine", e.URL, PlaceBox, u.Hostname())
	case e.Place == PlaceCentral && !secret:
		return fmt.Errorf("url %q: what leaves the site is encrypted: use https or grpcs", e.URL)
	case e.CA != "" && !secret:
		return fmt.Errorf("ca is given and url %q is not encrypted", e.URL)
	case e.Credential != "" && !secret && !isLoopback(u.Hostname()):
		return fmt.Errorf("credential would be sent in the clear to %s: use https or grpcs", u.Host)
	case e.Health != "" && !strings.HasPrefix(e.Health, "/"):
		return fmt.Errorf("health %q: want a path", e.Health)
	}
	for _, f := range []string{e.CA, e.Credential} {
		if f != "" && !filepath.IsAbs(f) {
			return fmt.Errorf("file %q: want an absolute path", f)
		}
	}
	return nil
}

// At is the endpoint of a program on this port.
func (c Config) At(port int) Endpoint {
	e := c.Endpoint
	e.URL = strings.ReplaceAll(e.URL, "{port}", strconv.Itoa(port))
	return e
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

var (
	placeForm = regexp.MustCompile(`\{(port|dir|model|version|file:[^{}]+|param:[a-z0-9][a-z0-9-]*)\}`)
	braceForm = regexp.MustCompile(`\{[a-z]+(:[^{}]*)?\}`)
)

// checkPlaces refuses a place that nothing fills, which is most likely misspelt.
func checkPlaces(text string) error {
	if rest := placeForm.ReplaceAllString(text, ""); braceForm.MatchString(rest) {
		return fmt.Errorf("%q: the places to fill are {port}, {dir}, {file:PATH}, {model}, {version} and {param:KEY}", text)
	}
	return nil
}
