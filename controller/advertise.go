package controller

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// Advertise says where boxes dial when something stands before the controller,
// such as a balancer: host:port each. What is empty is where the controller
// listens, or for Broker the address of a broker of others.
type Advertise struct{ Broker, Files, Pages string }

// each calls f for every address with its key in server.yaml.
func (a Advertise) each(f func(key, address string) error) error {
	var errs []error
	for _, v := range [][2]string{{"broker", a.Broker}, {"files", a.Files}, {"pages", a.Pages}} {
		if v[1] != "" {
			errs = append(errs, f(v[0], v[1]))
		}
	}
	return errors.Join(errs...)
}

// Check says which key is wrong.
func (a Advertise) Check() error {
	return a.each(func(key, address string) error {
		host, port, err := net.SplitHostPort(address)
		n, portErr := strconv.ParseUint(port, 10, 16)
		ip := net.ParseIP(host)
		if err != nil || portErr != nil || n == 0 || host == "" || ip != nil && ip.IsUnspecified() {
			return fmt.Errorf("advertise.%s: %q is not where a box can dial; want host:port, such as fleet.example.com:8883", key, address)
		}
		return nil
	})
}

// Hosts adds what is advertised to the names of a certificate: a box, or a
// person, that dials an address must find it there.
func (a Advertise) Hosts(own []string) []string {
	hosts := slices.Clone(own)
	_ = a.each(func(_, address string) error {
		if host, _, err := net.SplitHostPort(address); err == nil && !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
		return nil
	})
	return hosts
}

// boxFile is what enrolment tells a box.
func (c *Controller) boxFile(id identity.ID, name, site string) identity.Box {
	box := identity.Box{
		ID: id, Name: name, Site: site, Tenant: wire.Tenant, Server: c.opts.Hosts[0],
		MQTT: c.opts.Advertise.Broker, HTTPS: c.opts.Advertise.Files, Pages: c.opts.Advertise.Pages,
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookTimeout)
	defer cancel()
	var err error
	if box.Keyring, box.TrustRoot, err = c.trust.Keyring(ctx); err != nil {
		// Whoever trusts nothing can be told better; the other way there is none.
		box.Keyring = trust.Keyring{}
		c.log.Error("a box is told to trust nobody: what it shall trust cannot be looked up", "device", id, "err", err)
	}
	if box.MQTT == "" {
		box.MQTT = c.brokerAddress()
	}
	if box.HTTPS == "" {
		box.HTTPS = c.reachable(c.device)
	}
	if box.Pages == "" && !c.opts.HTTPPlain && !c.pagesAreHereOnly() {
		box.Pages = c.reachable(c.http)
	}
	return box
}

// brokerAddress is where the broker is, for whom nothing else was advertised.
func (c *Controller) brokerAddress() string {
	if c.opts.Broker.URL == "" {
		return c.reachable(c.mqtt)
	}
	first, _, _ := strings.Cut(c.opts.Broker.URL, ",")
	u, err := url.Parse(first)
	if err != nil {
		return "" // Open has refused it
	}
	return u.Host
}

// pagesAreHereOnly reports whether boxes elsewhere reach this controller, but not
// its pages.
func (c *Controller) pagesAreHereOnly() bool {
	return isLoopback(c.http.Addr()) && !isLoopback(c.device.Addr())
}
