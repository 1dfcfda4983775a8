// Package export brings stored samples to the databases and tools of others.
// Package remotewrite speaks to those that take Prometheus remote write,
// package sparkplug to hosts that listen to Sparkplug B; this package is what
// the two share: reading the store in the order of its commits.
//
// Vocabulary: a page is some whole commits of samples. A cursor is the LSN up
// to which everything has safely arrived elsewhere; it lives in the database
// that it counts in, so a database restored from a backup brings the cursor
// that fits it. The position is where the reader is; it runs ahead of the
// cursor and goes back to it when what was sent may have been lost.
//
// An export is a reader of the store and never in the way of ingest: while a
// receiver is away nothing waits but the cursor.
//
// The one rule a caller can break: Done only what the receiver has confirmed.
package export

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// Tailed is what one stored block or pack holds: rows of samples of one box.
type Tailed struct {
	LSN     uint64
	Box     identity.ID
	StartMs int64 // corrected time of the first row, Unix milliseconds
	Samples wire.Samples
}

// A Source walks stored samples in the order of their commits. Tail calls each
// for what was committed after the LSN after, and returns the LSN up to which
// all has been given. A commit is never cut: limit is where no further one is
// begun. An error of each ends the walk and is returned.
type Source interface {
	Tail(ctx context.Context, after uint64, limit int, each func(Tailed) error) (last uint64, err error)
}

// Cursors keeps numbers by name in the database. SetCursor never lowers one: a
// controller that has lost its lease may be late. A cursor never set is 0.
type Cursors interface {
	Cursor(ctx context.Context, name string) (uint64, error)
	SetCursor(ctx context.Context, name string, value uint64) error
}

// Box is what receivers are told of a box beside its samples.
type Box struct {
	ID        identity.ID
	Name      string
	Site      string
	Connected bool
}

// Series chooses metrics by globs as path.Match reads them, on the name without
// its {label}. The zero value chooses DefaultSeries.
type Series []string

// DefaultSeries is what people draw and alert on: heat, air, power, load and
// room. Left out are cpu_freq_hertz, load1 and uptime_seconds.
func DefaultSeries() Series {
	return Series{"temp_*", "fan_*", "power_*", "cooling_state_ratio", "throttle_count", "cpu_busy_ratio", "mem_used_ratio", "disk_free_bytes"}
}

// Check says which glob is not one.
func (s Series) Check() error {
	for _, glob := range s {
		if _, err := path.Match(glob, ""); err != nil || glob == "" {
			return fmt.Errorf("%q is not a glob: write a metric such as temp_die_celsius, or a pattern such as temp_*", glob)
		}
	}
	return nil
}

// Match reports whether a metric is chosen.
func (s Series) Match(metric string) bool {
	if len(s) == 0 {
		s = DefaultSeries()
	}
	name, _ := SplitMetric(metric)
	return slices.ContainsFunc(s, func(glob string) bool {
		ok, err := path.Match(glob, name)
		return ok && err == nil
	})
}

// SplitMetric takes the label off a metric such as fan_rpm{rear}.
func SplitMetric(metric string) (name, label string) {
	name, rest, ok := strings.Cut(metric, "{")
	label, ok2 := strings.CutSuffix(rest, "}")
	if !ok || !ok2 || label == "" {
		return metric, ""
	}
	return name, label
}

// errFull ends a walk at a border between two commits.
var errFull = errors.New("the page is full")
