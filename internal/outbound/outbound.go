// Package outbound makes HTTP clients for addresses that people configure:
// webhooks and providers of OpenID Connect. A client connects to the public
// internet, and beyond it only where it was told to, so that an address which
// leads elsewhere than it seems opens no door into the network of the
// controller.
//
// Vocabulary: the guard looks at the IP address that is about to be connected
// to, after names were resolved; a name that resolves to something else the
// second time gains nothing. Allowed beyond the public internet are the networks
// in Guard.Allow, and the host of the address itself where it is written as an
// IP address or as localhost: who wrote that, meant it. Link-local addresses,
// where clouds hand out credentials, need Guard.Allow in any case.
//
// The one rule a caller can break: one client for one configured address;
// redirects to other hosts are refused, so a client needs no other.
package outbound

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"syscall"
	"time"
)

// Guard says what may be connected to.
type Guard struct {
	// Allow lists networks beyond the public internet; default none.
	Allow []netip.Prefix
	// Roots are the authorities of servers; nil means those of the system.
	Roots *x509.CertPool
	// Timeout of a whole request; default 30 s.
	Timeout time.Duration
	// Resolver of names; nil means the system's.
	Resolver *net.Resolver
	// Key is where people write Allow, for the words of a refusal; default the key of
	// server.yaml.
	Key string
}

// ErrRefused says that the guard let a connection not be made.
var ErrRefused = errors.New("address refused")

// Client makes a client for one configured address.
func (g Guard) Client(address string) (*http.Client, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("%q is not an address such as https://example.com/", address)
	}
	d := &dialer{guard: g, meant: meant(u.Hostname())}
	timeout := g.Timeout
	if timeout <= 0 {
		timeout = 30 * time.Second
	}
	return &http.Client{
		Timeout: timeout,
		Transport: &http.Transport{
			Proxy: d.proxy, DialContext: d.dial, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 10 * time.Second,
			IdleConnTimeout: time.Minute, MaxIdleConns: 4, TLSClientConfig: &tls.Config{RootCAs: g.Roots, MinVersion: tls.VersionTLS12},
		},
		CheckRedirect: func(next *http.Request, via []*http.Request) error {
			if next.URL.Host != u.Host || next.URL.Scheme != u.Scheme || len(via) >= 5 {
				return fmt.Errorf("%w: a redirect from %s to %s", ErrRefused, u.Host, next.URL.Host)
			}
			return nil
		},
	}, nil
}

// Dial connects to what a program was told rather than a person: also an IP address
// must be public or in Allow.
func (g Guard) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return (&dialer{guard: g}).dial(ctx, network, address)
}

// meant are the networks that an address names by itself.
func meant(host string) []netip.Prefix {
	if host == "localhost" {
		return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || ip.Unmap().IsLinkLocalUnicast() {
		return nil
	}
	ip = ip.Unmap()
	return []netip.Prefix{netip.PrefixFrom(ip, ip.BitLen())}
}

// dialer connects for one client.
type dialer struct {
	guard   Guard
	meant   []netip.Prefix
	proxies sync.Map // host:port of proxies that the environment names
}

// proxy is that of the environment. Whoever set it answers for where it leads.
func (d *dialer) proxy(r *http.Request) (*url.URL, error) {
	u, err := http.ProxyFromEnvironment(r)
	if u != nil {
		port := u.Port()
		if port == "" {
			port = map[string]string{"https": "443", "socks5": "1080"}[u.Scheme]
		}
		if port == "" {
			port = "80"
		}
		d.proxies.Store(net.JoinHostPort(u.Hostname(), port), true)
	}
	return u, err
}

func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	plain := &net.Dialer{Timeout: 10 * time.Second, Resolver: d.guard.Resolver}
	if _, ok := d.proxies.Load(address); !ok {
		plain.Control = func(_, resolved string, _ syscall.RawConn) error { return d.check(address, resolved) }
	}
	return plain.DialContext(ctx, network, address)
}

// check sees the address at the last moment before it is connected to.
func (d *dialer) check(name, resolved string) error {
	at, err := netip.ParseAddrPort(resolved)
	if err != nil {
		return fmt.Errorf("%w: %s", ErrRefused, resolved)
	}
	ip := at.Addr().Unmap().WithZone("")
	if public(ip) {
		return nil
	}
	for _, list := range [][]netip.Prefix{d.guard.Allow, d.meant} {
		for _, p := range list {
			if p.Contains(ip) {
				return nil
			}
		}
	}
	return fmt.Errorf("%w: %s leads to %s, which is no public address; if that is right, list its network under the key %s", ErrRefused, name, ip, cmp.Or(d.guard.Key, "outbound_allow of server.yaml"))
}

// special are networks that are not the public internet and that netip has no
// word for (IANA special-purpose address registries).
var special = func() (all []netip.Prefix) {
	for _, text := range []string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
		"2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
	} {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}()

// unicast is all of IPv6 that is given out to the public (IANA). Beyond it are
// the many forms that hide an IPv4 address, such as ::a.b.c.d and NAT64, and
// fec0::/10, which old networks use as private.
var unicast = netip.MustParsePrefix("2000::/3")

func public(ip netip.Addr) bool {
	if !ip.IsGlobalUnicast() || ip.IsPrivate() || ip.Is6() && !unicast.Contains(ip) {
		return false
	}
	for _, p := range special {
		if p.Contains(ip) {
			return false
		}
	}
	return true
}
