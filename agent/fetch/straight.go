package fetch

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/internal/outbound"
)

// Straight makes connections for Options.Direct: to the public internet by HTTPS, and
// to the networks of allow, there by plain HTTP as well if the address is written as
// one. It is the controller that names these addresses. In other hands it would have
// boxes knock at whatever their sites hide behind a router.
func Straight(allow []netip.Prefix) *http.Client {
	guard := outbound.Guard{Allow: allow, Key: "bucket_allow of agent.yaml"}
	return &http.Client{Transport: straight{allow, &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return guard.Dial(ctx, network, address)
		},
		// No proxy: it would decide in the guard's place.
		ForceAttemptHTTP2: true, TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: time.Minute, IdleConnTimeout: time.Minute,
		MaxResponseHeaderBytes: 64 << 10, DisableCompression: true,
	}}}
}

type straight struct {
	allow []netip.Prefix
	*http.Transport
}

func (s straight) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" {
		ip, err := netip.ParseAddr(r.URL.Hostname())
		if err != nil || !slices.ContainsFunc(s.allow, func(p netip.Prefix) bool { return p.Contains(ip.Unmap()) }) {
			return nil, fmt.Errorf("%w: %s is asked without TLS, and is no address in a network of bucket_allow of agent.yaml", outbound.ErrRefused, r.URL.Host)
		}
	}
	return s.Transport.RoundTrip(r)
}

// Through makes connections for Options.Direct by a proxy, to hosts alone, by HTTPS. The
// proxy resolves the names, so that no address can be looked at here before it is
// connected to: the box's own configuration says which hosts are meant.
func Through(hosts []string, connect func(ctx context.Context, network, address string) (net.Conn, error)) *http.Client {
	return &http.Client{Transport: through{hosts, &http.Transport{
		DialContext: connect, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 10 * time.Second, ResponseHeaderTimeout: time.Minute, IdleConnTimeout: time.Minute,
		MaxResponseHeaderBytes: 64 << 10, DisableCompression: true,
	}}}
}

type through struct {
	hosts []string
	*http.Transport
}

func (t through) RoundTrip(r *http.Request) (*http.Response, error) {
	host := net.JoinHostPort(r.URL.Hostname(), cmp.Or(r.URL.Port(), "443"))
	if r.URL.Scheme != "https" || !slices.ContainsFunc(t.hosts, func(h string) bool { return strings.EqualFold(h, r.URL.Hostname()) || strings.EqualFold(h, host) }) {
		return nil, fmt.Errorf("%w: %s://%s is to be asked through the proxy, and only hosts of bucket_hosts of agent.yaml are, by https", outbound.ErrRefused, r.URL.Scheme, r.URL.Host)
	}
	return t.Transport.RoundTrip(r)
}
