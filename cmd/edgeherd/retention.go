package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/edgeherd/edgeherd/controller"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// retentionConfig is the key retention of server.yaml: how long what is kept.
type retentionConfig struct {
	Samples *span `yaml:"samples"` // exact values; default 90d
	Rollups *span `yaml:"rollups"` // by the hour; default 800d
	Results *span `yaml:"results"` // of models; default 90d
	Events  *span `yaml:"events"`  // default 400d
}

// span is a length of time in days (90d) or as Go writes it (36h); never is 0.
type span time.Duration

// UnmarshalYAML reads a length of time.
func (s *span) UnmarshalYAML(n *yaml.Node) error {
	var d time.Duration
	var err error
	if days, ok := strings.CutSuffix(n.Value, "d"); ok {
		var count int
		count, err = strconv.Atoi(days)
		d = time.Duration(count) * 24 * time.Hour
		if err == nil && (count <= 0 || count > 36500) {
			err = fmt.Errorf("%d days", count)
		}
	} else if n.Value != "never" {
		if d, err = time.ParseDuration(n.Value); err == nil && d < 24*time.Hour {
			err = fmt.Errorf("less than a day")
		}
	}
	if err != nil {
		return fmt.Errorf("line %d: %q is not how long to keep: want 90d, 36h or never, and a day at least", n.Line, n.Value)
	}
	*s = span(d)
	return nil
}

// lifetime is how long certificates of boxes last; 0: not said.
type lifetime time.Duration

// UnmarshalYAML reads it as a span, within the bounds of the authority.
func (l *lifetime) UnmarshalYAML(n *yaml.Node) error {
	var s span
	if err := s.UnmarshalYAML(n); err != nil || time.Duration(s) < identity.MinDeviceLife || time.Duration(s) > identity.MaxDeviceLife {
		return fmt.Errorf("line %d: device_certificates: %q is not how long certificates of boxes last: want 1d to 60d; they renew themselves at half of that, also after they ended", n.Line, n.Value)
	}
	*l = lifetime(s)
	return nil
}

func (r retentionConfig) values() controller.Retention {
	keep := controller.DefaultRetention
	for _, v := range []struct {
		from *span
		to   *time.Duration
	}{{r.Samples, &keep.Samples}, {r.Rollups, &keep.Rollups}, {r.Results, &keep.Results}, {r.Events, &keep.Events}} {
		if v.from != nil {
			*v.to = time.Duration(*v.from)
		}
	}
	return keep
}
