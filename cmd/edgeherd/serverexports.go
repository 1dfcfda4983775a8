package main

import (
	"errors"
	"fmt"
	"net"
	"reflect"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/edgeherd/edgeherd/controller"
	"github.com/edgeherd/edgeherd/controller/export"
	"github.com/edgeherd/edgeherd/controller/export/remotewrite"
	"github.com/edgeherd/edgeherd/controller/export/sparkplug"
)

// remoteWriteConfig is the key remote_write of server.yaml.
type remoteWriteConfig struct {
	URL          string            `yaml:"url"`           // empty: off
	Series       []string          `yaml:"series"`        // globs; default export.DefaultSeries
	Labels       map[string]string `yaml:"labels"`        // added to every series
	TokenFile    string            `yaml:"token_file"`    // bearer token
	User         string            `yaml:"user"`          // or basic authentication
	PasswordFile string            `yaml:"password_file"` // of user
	CAFile       string            `yaml:"ca_file"`       // authority of the receiver
	MaxAge       time.Duration     `yaml:"max_age"`       // older samples are left out; 0: none
}

func (c remoteWriteConfig) options() remotewrite.Options {
	return remotewrite.Options{
		URL: c.URL, Series: export.Series(c.Series), Labels: c.Labels, MaxAge: c.MaxAge,
		TokenFile: c.TokenFile, User: c.User, PasswordFile: c.PasswordFile, CAFile: c.CAFile,
	}
}

// sparkplugConfig is the key sparkplug of server.yaml.
type sparkplugConfig struct {
	Broker          string   `yaml:"broker"`           // empty: off
	Group           string   `yaml:"group"`            // default edgeherd
	Node            string   `yaml:"node"`             // default edgeherd
	Series          []string `yaml:"series"`           // globs; default export.DefaultSeries
	Names           bool     `yaml:"names"`            // names in data instead of aliases
	IncludeDatatype bool     `yaml:"include_datatype"` // types in data as well
	PrimaryHost     string   `yaml:"primary_host"`     // host application to wait for
	User            string   `yaml:"user"`
	PasswordFile    string   `yaml:"password_file"`
	CAFile          string   `yaml:"ca_file"` // authority of the broker
}

func (c sparkplugConfig) options() sparkplug.Options {
	return sparkplug.Options{
		Broker: c.Broker, Group: c.Group, Node: c.Node, Series: export.Series(c.Series),
		Names: c.Names, IncludeDatatype: c.IncludeDatatype, PrimaryHost: c.PrimaryHost,
		User: c.User, PasswordFile: c.PasswordFile, CAFile: c.CAFile,
	}
}

// exports is what server.yaml says of what programs of others are told.
func (c serverConfig) exports() controller.Exports {
	return controller.Exports{Metrics: c.Metrics, RemoteWrite: c.RemoteWrite.options(), Sparkplug: c.Sparkplug.options()}
}

// checkExports names the line and the key of the first setting that cannot
// work.
func (c serverConfig) checkExports(file []byte) error {
	at := func(err error, path ...string) error {
		return fmt.Errorf("line %d: %s: %w", lineOf(file, path...), strings.Join(path, "."), err)
	}
	if host, _, err := net.SplitHostPort(c.Metrics); c.Metrics != "" && (err != nil || !net.ParseIP(host).IsLoopback() && host != "localhost") {
		return at(fmt.Errorf("%q is not a loopback address with a port, such as 127.0.0.1:9464: it asks for no token; scrape the pages' /metrics with one instead", c.Metrics), "metrics")
	}
	var wrong *export.FieldError
	if o := c.RemoteWrite.options(); o.URL != "" {
		if errors.As(o.Check(), &wrong) {
			return at(wrong.Err, "remote_write", wrong.Key)
		}
	}
	if o := c.Sparkplug.options(); o.Broker != "" {
		if errors.As(o.Check(), &wrong) {
			return at(wrong.Err, "sparkplug", wrong.Key)
		}
	}
	return nil
}

// lineOf finds the line of a key, or of the nearest one above it that is there.
func lineOf(file []byte, path ...string) int {
	var doc yaml.Node
	if yaml.Unmarshal(file, &doc) != nil || len(doc.Content) == 0 {
		return 1
	}
	node, line := doc.Content[0], 1
	for _, key := range path {
		found := false
		for i := 0; i+1 < len(node.Content) && !found; i += 2 {
			if node.Content[i].Value == key {
				line, node, found = node.Content[i].Line, node.Content[i+1], true
			}
		}
		if !found {
			break
		}
	}
	return line
}

// keysOf lists the keys of the part of server.yaml that is read into a type.
func keysOf(typeName string) string {
	t := reflect.TypeFor[serverConfig]()
	for i := range t.NumField() {
		part := t.Field(i).Type
		if part.Kind() == reflect.Slice {
			part = part.Elem()
		}
		if part.Name() == typeName {
			t = part
			break
		}
	}
	if typeName == "grantConfig" { // a list within oidc
		t = reflect.TypeFor[grantConfig]()
	}
	var keys []string
	for i := range t.NumField() {
		keys = append(keys, t.Field(i).Tag.Get("yaml"))
	}
	return strings.Join(keys, ", ")
}
