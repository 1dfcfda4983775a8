// Package sparkplug shows the fleet to hosts that listen to Sparkplug B 3.0
// (Ignition, HiveMQ, Telegraf, Node-RED) at an MQTT broker of others. It is an
// output: nothing comes back but the request for a rebirth.
//
// Vocabulary, as the specification has it: one edge node stands for the whole
// fleet, since an edge node is one MQTT session with one Will and one sequence,
// and a session for each site would be thousands of them; every box is a device
// of it, named by its id, which never changes. A birth names metrics with type,
// value and alias; data follows; a death says that nothing is current any more.
//
// Sparkplug sends births and data at QoS 0 and knows no acknowledgement. What
// the broker has not taken for certain is sent again, marked historical: the
// broker's answer to a request that follows the data says that it took the
// data. Whether a host was listening, only Options.PrimaryHost can tell.
//
// The one rule a caller can break: one edge node of a name at a time; Leader
// says which controller it is.
package sparkplug

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/controller/export"
	"github.com/edgeherd/edgeherd/controller/metrics"
)

// Options of a Bridge. Broker, Source, Cursors and Boxes are required.
type Options struct {
	// Broker is mqtts://host:port, or mqtt://host:port without TLS.
	Broker string
	// Group and Node name the edge node; both default to edgeherd.
	Group, Node string
	// Series chooses metrics; none means export.DefaultSeries.
	Series export.Series
	// Names sends names in data instead of aliases.
	Names bool
	// IncludeDatatype repeats the type in data. The specification says that one
	// should not; consumers that keep no birth cannot read a value without it.
	IncludeDatatype bool
	// PrimaryHost is the host application to wait for: while it is not online
	// nothing is published. Default: nobody.
	PrimaryHost string
	// User and PasswordFile prove who we are; the file is read at each connect.
	User, PasswordFile string
	// CAFile holds the authority of the broker; default: those of the system.
	CAFile string

	Source  export.Source
	Cursors export.Cursors
	// Boxes lists all boxes, for names, sites and who is connected.
	Boxes func(context.Context) ([]export.Box, error)
	// Leader reports whether this controller is the one to publish; nil: yes.
	Leader func() bool
	// Metrics counts; nil counts nothing.
	Metrics *metrics.Export
	Version string

	// HistoricalAfter is the age from which a sample is historical; default 5 min.
	HistoricalAfter time.Duration
	// Poll is how often the store is asked for more; default 1 s.
	Poll time.Duration
	// Presence is how often boxes are looked at; default 10 s.
	Presence time.Duration
	// KeepAlive of the MQTT session; default 30 s.
	KeepAlive time.Duration
	// WallClock stamps messages; nil means time.Now.
	WallClock func() time.Time
}

func (o Options) withDefaults() Options {
	if o.Group == "" {
		o.Group = "edgeherd"
	}
	if o.Node == "" {
		o.Node = "edgeherd"
	}
	if o.HistoricalAfter <= 0 {
		o.HistoricalAfter = 5 * time.Minute
	}
	if o.Poll <= 0 {
		o.Poll = time.Second
	}
	if o.Presence <= 0 {
		o.Presence = 10 * time.Second
	}
	if o.KeepAlive <= 0 {
		o.KeepAlive = 30 * time.Second
	}
	if o.Leader == nil {
		o.Leader = func() bool { return true }
	}
	if o.WallClock == nil {
		o.WallClock = time.Now
	}
	return o
}

// Check reports the first option that cannot work as an *export.FieldError.
func (o *Options) Check() error {
	const want = "mqtts://host:8883, or mqtt://host:1883 without TLS"
	u, err := export.ParseAddress("broker", o.Broker, want)
	if err != nil {
		return err
	}
	if u.Port() == "" || u.Path != "" || u.Scheme != "mqtt" && u.Scheme != "mqtts" {
		return export.Fault("broker", "%q is not an address: write %s", o.Broker, want)
	}
	for _, id := range []struct{ key, text string }{{"group", o.Group}, {"node", o.Node}, {"primary_host", o.PrimaryHost}} {
		if strings.ContainsAny(id.text, "+#/\x00") {
			return export.Fault(id.key, "%q holds one of + # /, which topics give a meaning", id.text)
		}
	}
	if err := o.Series.Check(); err != nil {
		return &export.FieldError{Key: "series", Err: err}
	}
	switch {
	case (o.User == "") != (o.PasswordFile == ""):
		return export.Fault("user", "user and password_file belong together")
	case u.Scheme == "mqtt" && o.PasswordFile != "" && !export.Loopback(u.Hostname()):
		return export.Fault("broker", "a password would travel in the clear: use mqtts")
	case u.Scheme == "mqtt" && o.CAFile != "":
		return export.Fault("ca_file", "an authority has no use without mqtts")
	}
	return nil
}

// Bridge publishes. Run it once.
type Bridge struct {
	opts   Options
	log    *slog.Logger
	tls    *tls.Config // nil: plain
	reader *export.Reader
	node   *node
	down   bool
	host   hostState
}

// New prepares a Bridge.
func New(opts Options, log *slog.Logger) (*Bridge, error) {
	if err := opts.Check(); err != nil {
		return nil, fmt.Errorf("sparkplug.%w", err)
	}
	b := &Bridge{opts: opts.withDefaults(), log: log}
	var err error
	if b.tls, err = tlsOf(&b.opts); err != nil {
		return nil, err
	}
	b.node = newNode(&b.opts)
	b.reader = export.NewReader(export.ReaderOptions{Source: opts.Source, Cursors: opts.Cursors, Name: b.cursor("samples")})
	return b, nil
}

// cursor names what is kept for one edge node at one broker.
func (b *Bridge) cursor(what string) string {
	return "sparkplug " + what + " " + b.opts.Broker + " " + b.opts.Group + "/" + b.opts.Node
}

// Bounds of the waits between connections.
const (
	minWait = time.Second
	maxWait = time.Minute
	// wellAfter is how long a session lasts that was a success.
	wellAfter = time.Minute
)

// errHostAway ends a session whose primary host has gone.
var errHostAway = errors.New("primary host is not online")

// Run publishes until ctx is done, over one connection after the other.
func (b *Bridge) Run(ctx context.Context) error {
	b.opts.Metrics.On()
	limit := minWait
	for ctx.Err() == nil {
		wait := b.opts.Poll
		leads := b.opts.Leader()
		b.opts.Metrics.At(b.reader.Position(), !leads)
		if leads {
			began := time.Now()
			b.reader.Forget() // another controller may have led meanwhile
			err := b.session(ctx)
			b.opts.Metrics.Up(false)
			if err != nil && ctx.Err() == nil {
				b.failed(err)
			}
			if time.Since(began) > wellAfter || err == nil || errors.Is(err, errHostAway) {
				limit = minWait
			}
			wait = limit/2 + rand.N(limit/2+1)
			limit = min(2*limit, maxWait)
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
	return nil
}

func (b *Bridge) failed(err error) {
	b.opts.Metrics.Sent("failed")
	if !b.down {
		b.down = true
		b.log.Warn("sparkplug waits; what comes meanwhile is sent later, as historical", "err", err)
	}
}
