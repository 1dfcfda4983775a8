package controller

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/edgeherd/edgeherd/controller/balancer"
)

// Addrs are the addresses that are listened on.
type Addrs struct{ HTTP, Device, MQTT string }

// Addrs tells where the controller listens, with the real ports.
func (c *Controller) Addrs() Addrs {
	a := Addrs{HTTP: c.http.Addr().String(), Device: c.device.Addr().String(), MQTT: c.brokerAddress()}
	if c.mqtt != nil {
		a.MQTT = c.mqtt.Addr().String()
	}
	return a
}

// URL is the base of pages and API.
func (c *Controller) URL() string {
	scheme := "https"
	if c.opts.HTTPPlain {
		scheme = "http"
	}
	return scheme + "://" + c.reachable(c.http)
}

// reachable is the address to dial for one that is listened on: what listens
// everywhere is reached by the name in the certificate.
func (c *Controller) reachable(l net.Listener) string {
	if tcp, ok := l.Addr().(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		return net.JoinHostPort(c.opts.Hosts[0], strconv.Itoa(tcp.Port))
	}
	return l.Addr().String()
}

func (c *Controller) listen(ctx context.Context) error {
	hosts := c.opts.Advertise.Hosts(c.opts.Hosts)
	// The operator at this machine needs no name for it.
	for _, self := range []string{"127.0.0.1", "::1", "localhost"} {
		if !slices.Contains(hosts, self) {
			hosts = append(hosts, self)
		}
	}
	cert, err := c.ca.IssueServer(hosts)
	if err != nil {
		return err
	}
	if c.http, err = c.listenOn("http", c.opts.HTTP); err != nil {
		return err
	}
	if c.opts.HTTPPlain {
		if err := mustBeLoopback(c.http.Addr()); err != nil {
			return err
		}
	} else {
		if err := c.mustBeSettled(ctx, c.http.Addr()); err != nil {
			return err
		}
		c.http = tls.NewListener(c.http, c.ca.PagesTLS(cert, c.admit))
	}
	if c.device, err = c.listenOn("device", c.opts.Device); err != nil {
		return err
	}
	c.device = tls.NewListener(c.device, c.ca.DeviceTLS(cert, c.admit))
	if c.opts.Broker.URL != "" {
		return nil // boxes go to the broker of others
	}
	if c.mqtt, err = c.listenOn("mqtt", c.opts.MQTT); err != nil {
		return err
	}
	c.mqtt = tls.NewListener(c.mqtt, c.ca.ServerTLS(cert, c.admit))
	return nil
}

func (c *Controller) listenOn(key, address string) (net.Listener, error) {
	l, err := c.opts.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for %s on %s: %w; choose another address with --%s or the key %q of server.yaml", key, address, err, key, key)
	}
	if len(c.opts.Balancers) == 0 {
		return l, nil
	}
	// The pages are open to programs on the machine of the balancer as well.
	b := balancer.New(l, balancer.Options{Trusted: c.opts.Balancers, Optional: key == "http"}, c.log)
	c.behind = append(c.behind, b)
	return b, nil
}

// mustBeLoopback refuses plain HTTP beyond this machine: the session cookie
// would travel in the clear.
func mustBeLoopback(a net.Addr) error {
	if _, ok := a.(*net.TCPAddr); !ok || isLoopback(a) {
		return nil // what is not TCP is the in-memory network of a test
	}
	return fmt.Errorf("plain HTTP on %s is refused: it is not a loopback address", a)
}

func isLoopback(a net.Addr) bool {
	host, _, err := net.SplitHostPort(a.String())
	ip := net.ParseIP(host)
	return err == nil && ip != nil && ip.IsLoopback()
}

// Run serves until ctx is done or a part fails, then releases everything.
//
// The order of the end matters: operators' requests first, so that they learn
// of it; the broker next, so that no new message begins; ingest after it, since
// a message in the broker waits for its commit; the store last.
func (c *Controller) Run(ctx context.Context) error {
	defer c.Close()
	bookCtx, stopBook := context.WithCancel(context.WithoutCancel(ctx))
	bookDone := make(chan error, 1)
	go func() { bookDone <- c.faults.Run(bookCtx) }()
	ingestCtx, stopIngest := context.WithCancel(context.WithoutCancel(ctx))
	ingestDone := make(chan error, 1)
	go func() { ingestDone <- c.ingest.Run(ingestCtx) }()
	g, ctx := errgroup.WithContext(ctx)
	for _, l := range c.behind {
		g.Go(func() error { return l.Run(ctx) })
	}
	// Streams of events last; each of their writes has a deadline of its own.
	g.Go(func() error { return c.serveHTTP(ctx, c.http, c.entrance(c.api.Operator()), 0) })
	g.Go(func() error { return c.serveHTTP(ctx, c.device, c.deviceEntrance(c.api.Device()), time.Hour) })
	g.Go(func() error { return c.broker.Run(ctx) })
	if c.remote != nil {
		g.Go(func() error { return c.remote.Run(ctx) })
		g.Go(func() error { return c.endSilent(ctx) })
	}
	if c.node != nil {
		g.Go(func() error { return c.node.Run(ctx) })
		g.Go(func() error { return c.catchUp(ctx) })
		g.Go(func() error { return c.sweep(ctx) })
	}
	g.Go(func() error { return c.conduct(ctx) })
	g.Go(func() error { return c.packs.Run(ctx) })
	g.Go(func() error { return c.retain(ctx) })
	g.Go(func() error { return c.compact(ctx) })
	g.Go(func() error { return c.checkpoint(ctx) })
	g.Go(func() error { return c.seal(ctx) })
	g.Go(func() error { return c.listRevoked(ctx) })
	g.Go(func() error { return c.trust.Run(ctx) })
	g.Go(func() error { return c.desk.Run(ctx) })
	g.Go(func() error { return c.notify.Run(ctx) })
	g.Go(func() error { return c.secrets.Run(ctx) })
	c.runExports(ctx, g)
	g.Go(func() error { return c.paceBoxes(ctx) })
	err := g.Wait()
	c.websockets.Wait() // the broker has ended them
	stopIngest()
	err = errors.Join(err, <-ingestDone)
	stopBook() // it has counted all by now
	return errors.Join(err, <-bookDone)
}

func (c *Controller) serveHTTP(ctx context.Context, l net.Listener, h http.Handler, writeTimeout time.Duration) error {
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		WriteTimeout: writeTimeout, MaxHeaderBytes: 32 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx },
		// Port scans and boxes that went away in the middle: nobody must act.
		ErrorLog: slog.NewLogLogger(c.log.Handler(), slog.LevelDebug),
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := srv.Shutdown(grace); err != nil {
		srv.Close()
	}
	<-ended
	return nil
}
