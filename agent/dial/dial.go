// Package dial opens the connections of a box to its controller, by whatever
// way the site's network leaves.
//
// Vocabulary: a way is an address with what lies before it: mqtts is the MQTT
// port, wss is MQTT over WebSocket on the port of the web pages, and either may
// lead through an HTTP proxy (CONNECT, RFC 9110 section 9.3.6). TLS goes from
// the box to the controller on every way; who ends it in between is noticed and
// told nothing. A fault names the stage at which a way failed, and what to do.
//
// Ways are tried in order, mqtts first. The one on which the controller was
// last heard comes first of all, also after a restart, and for a day; then the
// order begins anew, in case a better way has opened.
//
//	FILE   the way that worked last (Options.Memory)
//
// The one rule a caller can break: call Worked only when the controller has
// answered; TLS alone proves no way, for the controller judges the box after it.
package dial

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/mqttws"
)

// Options of a Dialer. Identity is required.
type Options struct {
	Identity *identity.Identity
	// Server is where MQTT is: "auto" or empty for the addresses that enrolment
	// wrote, "mqtts://HOST:PORT" or "wss://HOST:PORT/mqtt" for that one alone.
	Server string
	// Proxy is "http://HOST:PORT", or empty for none. It is used after the
	// direct ways have failed.
	Proxy string
	// ProxyAuth is a file with USER:PASSWORD for the proxy, mode 0600; empty
	// for none. It is read at each use, so a new password needs no restart.
	ProxyAuth string
	// Net opens a TCP connection; nil means the system's network.
	Net func(ctx context.Context, network, address string) (net.Conn, error)
	// Memory is a file for the way that worked; empty forgets it at the end.
	Memory string
	// WallClock stamps faults, and judges certificates as far as it lies within
	// the life of the box's own; nil means time.Now.
	WallClock func() time.Time
}

const (
	// dialTimeout bounds all ways together when the caller's context does not.
	dialTimeout = 30 * time.Second
	// recall is how long the way that worked stays the first.
	recall = 24 * time.Hour
)

// way is one way to the controller. The fields never change.
type way struct {
	address string // host:port
	pages   bool   // of the web pages: box protocol, and WebSocket for MQTT
	proxied bool
	name    string // for people, without secrets
}

// Dialer opens connections. Safe for concurrent use.
type Dialer struct {
	opts   Options
	log    *slog.Logger
	id     atomic.Pointer[identity.Identity]
	proxy  string // host:port
	broker []way  // for MQTT, best first
	files  []way  // for downloads, best first
	memory durable.Journal

	mu     sync.Mutex // guards the fields below
	using  string     // the way of the newest broker connection
	worked bool       // the controller answered on it
	first  string     // the way to try first; empty for the order as it is
	kept   string     // the way in the memory file
	until  time.Time  // when first is forgotten
	best   int        // index in files of the one that worked last
	faults map[string]Tried
}

// Tried is how a way failed. Of those that Each returns, the ones that did not
// have no Err.
type Tried struct {
	Way string    `json:"way"`
	Err string    `json:"err"`
	At  time.Time `json:"at"`
}

// Report is what a status page shows.
type Report struct {
	// Way is the one in use, or the last that was.
	Way string `json:"way,omitempty"`
	// Failed are the ways that failed since they worked last, in order.
	Failed []Tried `json:"failed,omitempty"`
}

// remembered is the state in the memory file.
type remembered struct {
	Way string `json:"way"`
}

// New prepares a Dialer. It connects to nothing.
func New(opts Options, log *slog.Logger) (*Dialer, error) {
	if opts.Net == nil {
		opts.Net = new(net.Dialer).DialContext
	}
	if opts.WallClock == nil {
		opts.WallClock = time.Now
	}
	d := &Dialer{opts: opts, log: log, faults: map[string]Tried{}, memory: durable.Journal{Path: opts.Memory, Version: 1}}
	d.id.Store(opts.Identity)
	var err error
	if d.proxy, err = ParseProxy(opts.Proxy); err != nil {
		return nil, err
	}
	if err := d.layWays(); err != nil {
		return nil, err
	}
	if opts.Memory != "" {
		var was remembered
		if _, err := d.memory.Load(&was); err != nil {
			log.Warn("way to the controller forgotten", "err", err) // it will be found again
		}
		d.kept, d.first, d.until = was.Way, was.Way, time.Now().Add(recall)
	}
	return d, nil
}

// Open opens a TLS connection to host:port, directly or through the proxy: for a
// box that is no member yet. Of opts, only Net, Proxy and ProxyAuth play a part.
func Open(ctx context.Context, opts Options, address string, conf *tls.Config) (net.Conn, error) {
	if opts.Net == nil {
		opts.Net = new(net.Dialer).DialContext
	}
	opts.WallClock = time.Now
	d := &Dialer{opts: opts, faults: map[string]Tried{}}
	var err error
	if d.proxy, err = ParseProxy(opts.Proxy); err != nil {
		return nil, err
	}
	ways := []way{{address: address, name: "https://" + address}}
	if d.proxy != "" {
		ways = append(ways, d.throughProxy(ways)...)
	}
	return d.along(ctx, ways, func(ctx context.Context, w way) (net.Conn, error) { return d.open(ctx, w, conf) })
}

// layWays lists the ways, best first: a direct one costs the site least.
func (d *Dialer) layWays() error {
	id := d.opts.Identity
	server, err := ParseServer(d.opts.Server)
	if err != nil {
		return err
	}
	direct := []way{{address: id.MQTT}}
	pages := id.Pages
	switch {
	case server.Pages:
		pages = server.Address
		direct = []way{{address: pages, pages: true}}
	case server.Address != "":
		direct = []way{{address: server.Address}}
	case pages != "":
		direct = append(direct, way{address: pages, pages: true})
	}
	files := []way{{address: id.HTTPS}}
	if pages != "" {
		files = append(files, way{address: pages, pages: true})
	}
	for i := range direct {
		direct[i].name = brokerName(direct[i])
	}
	for i := range files {
		files[i].name = "https://" + files[i].address
	}
	d.broker, d.files = direct, files
	if d.proxy == "" {
		return nil
	}
	// A proxy lets ports of the web through and hardly any other; mqtts goes
	// through it only where nothing else was given.
	through := direct[len(direct)-1:]
	d.broker = append(d.broker, d.throughProxy(through)...)
	d.files = append(d.files, d.throughProxy(files)...)
	return nil
}

func brokerName(w way) string {
	if w.pages {
		return "wss://" + w.address + mqttws.Path
	}
	return "mqtts://" + w.address
}

func (d *Dialer) throughProxy(ways []way) []way {
	var out []way
	for _, w := range ways {
		w.proxied = true
		w.name += " through http://" + d.proxy
		out = append(out, w)
	}
	return out
}

// Broker opens a connection for an MQTT session, TLS and WebSocket done.
func (d *Dialer) Broker(ctx context.Context) (net.Conn, error) {
	return d.along(ctx, d.order(), func(ctx context.Context, w way) (net.Conn, error) {
		conn, err := d.openBroker(ctx, w)
		if err != nil {
			return nil, err
		}
		d.mu.Lock()
		d.using, d.worked = w.name, false
		d.mu.Unlock()
		return conn, nil
	})
}

func (d *Dialer) openBroker(ctx context.Context, w way) (net.Conn, error) {
	id := d.id.Load()
	conn, err := d.open(ctx, w, d.membersTLS(id, w))
	if err != nil {
		return nil, err
	}
	if w.pages {
		if conn, err = mqttws.Client(ctx, conn, w.address); err != nil {
			return nil, d.upgradeFault(w, err)
		}
	}
	return &answered{Conn: conn, way: w.name, notAfter: id.Certificate.Leaf.NotAfter}, nil
}

// Each tries every way to the broker, also after one that works: for whoever
// wants to know which are open. Each has limit for itself. look says whether the
// controller answers; the connection is closed after it.
func (d *Dialer) Each(ctx context.Context, limit time.Duration, look func(context.Context, net.Conn) error) []Tried {
	var all []Tried
	for _, w := range d.broker {
		t := Tried{Way: w.name, At: d.opts.WallClock().UTC()}
		if err := d.try(ctx, w, limit, look); err != nil {
			t.Err = err.Error()
		}
		all = append(all, t)
	}
	return all
}

func (d *Dialer) try(ctx context.Context, w way, limit time.Duration, look func(context.Context, net.Conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	conn, err := d.openBroker(ctx, w)
	if err != nil {
		return err
	}
	defer conn.Close()
	return look(ctx, conn)
}

// Files opens a TLS connection for downloads, as http.Transport.DialTLSContext.
// The address is not looked at: all ways lead to the one controller.
func (d *Dialer) Files(ctx context.Context, _, _ string) (net.Conn, error) {
	id := d.id.Load()
	return d.file(ctx, func(w way) *tls.Config { return d.membersTLS(id, w) })
}

// Renewals is Files for what a box may ask also when its certificate has ended.
func (d *Dialer) Renewals(ctx context.Context, _, _ string) (net.Conn, error) {
	id := d.id.Load()
	return d.file(ctx, func(way) *tls.Config { return id.RenewTLS(id.TLSTime(d.opts.WallClock)) })
}

// Through opens a connection to any host and port by the proxy, as
// http.Transport.DialContext.
func (d *Dialer) Through(ctx context.Context, _, address string) (net.Conn, error) {
	if d.proxy == "" {
		return nil, errors.New("no proxy is set")
	}
	// A Transport dials on when its request has ended.
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return d.connect(ctx, way{address: address, name: "https://" + address, proxied: true})
}

// Renewed has the box prove itself with another certificate from now on;
// connections that are open stay as they are. It must be of the same box.
func (d *Dialer) Renewed(id *identity.Identity) { d.id.Store(id) }

func (d *Dialer) file(ctx context.Context, conf func(way) *tls.Config) (net.Conn, error) {
	d.mu.Lock()
	ways := append(append([]way{}, d.files[d.best:]...), d.files[:d.best]...)
	d.mu.Unlock()
	return d.along(ctx, ways, func(ctx context.Context, w way) (net.Conn, error) {
		conn, err := d.open(ctx, w, conf(w))
		if err != nil {
			return nil, err
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.faults, w.name)
		for i := range d.files {
			if d.files[i] == w {
				d.best = i
			}
		}
		return conn, nil
	})
}

// order is the ways to the broker: the one that worked last comes first, and
// one on which the controller then said nothing comes last.
func (d *Dialer) order() []way {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.first != "" && !time.Now().Before(d.until) {
		d.first = ""
	}
	var head, middle, tail []way
	for _, w := range d.broker {
		switch {
		case w.name == d.using && !d.worked:
			tail = append(tail, w)
		case w.name == d.first:
			head = append(head, w)
		default:
			middle = append(middle, w)
		}
	}
	return append(append(head, middle...), tail...)
}

// along tries the ways until one opens. What time is left is shared out among
// the ways that are left, so that one that swallows packets does not use it up.
func (d *Dialer) along(ctx context.Context, ways []way, open func(context.Context, way) (net.Conn, error)) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	end, _ := ctx.Deadline()
	var faults []error
	for i, w := range ways {
		part, done := context.WithTimeout(ctx, time.Until(end)/time.Duration(len(ways)-i))
		conn, err := open(part, w)
		done()
		if err == nil {
			return conn, nil
		}
		if errors.Is(context.Cause(ctx), context.Canceled) {
			return nil, context.Canceled
		}
		faults = append(faults, err)
		d.note(w, err)
	}
	if len(faults) == 1 {
		return nil, faults[0]
	}
	return nil, noWay(faults)
}

// noWay is why every way failed, on one line.
type noWay []error

func (n noWay) Error() string {
	var texts []string
	for _, err := range n {
		texts = append(texts, err.Error())
	}
	return "no way to the controller: " + strings.Join(texts, "; ")
}

func (n noWay) Unwrap() []error { return n }

func (d *Dialer) note(w way, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults[w.name] = Tried{Way: w.name, Err: err.Error(), At: d.opts.WallClock().UTC()}
}

// membersTLS is how a box proves itself on a way.
func (d *Dialer) membersTLS(id *identity.Identity, w way) *tls.Config {
	now := id.TLSTime(d.opts.WallClock)
	if w.pages {
		return id.PagesTLS(now)
	}
	return id.ClientTLS(now)
}

// open goes a way up to the end of TLS.
func (d *Dialer) open(ctx context.Context, w way, conf *tls.Config) (net.Conn, error) {
	raw, err := d.reach(ctx, w)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, conf)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, tlsFault(w, err)
	}
	return conn, nil
}

// reach opens the connection that TLS runs over.
func (d *Dialer) reach(ctx context.Context, w way) (net.Conn, error) {
	if w.proxied {
		return d.connect(ctx, w)
	}
	conn, err := d.opts.Net(ctx, "tcp", w.address)
	if err != nil {
		return nil, tcpFault(w, w.address, err)
	}
	return conn, nil
}

// Worked notes that the controller has answered on the newest connection.
func (d *Dialer) Worked() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.worked || d.using == "" {
		return
	}
	d.worked = true
	delete(d.faults, d.using)
	if d.first == d.using {
		return // its day is not made longer: a better way may have opened
	}
	d.first, d.until = d.using, time.Now().Add(recall)
	// Without a file the best way is the first: nothing to keep.
	if d.opts.Memory == "" || d.kept == d.using || d.kept == "" && d.using == d.broker[0].name {
		return
	}
	if err := d.memory.Save(remembered{Way: d.using}); err != nil {
		d.log.Warn("way to the controller not kept", "err", err)
		return
	}
	d.kept = d.using
}

// Report tells how things stand.
func (d *Dialer) Report() Report {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := Report{Way: d.using}
	seen := map[string]bool{}
	for _, w := range append(append([]way{}, d.broker...), d.files...) {
		if t, ok := d.faults[w.name]; ok && !seen[w.name] {
			seen[w.name] = true
			r.Failed = append(r.Failed, t)
		}
	}
	return r
}
