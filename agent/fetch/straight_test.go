package fetch_test

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/edgeherd/edgeherd/agent/fetch"
	"github.com/edgeherd/edgeherd/internal/outbound"
)

// A controller in other hands names what a site hides: a router's page, a metadata
// service, a neighbour. None of them hears of the box.
func TestARequestForgedByTheControllerStaysOutOfTheSite(t *testing.T) {
	var asked atomic.Int32
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer inside.Close()
	at, err := url.Parse(inside.URL)
	if err != nil {
		t.Fatal(err)
	}
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	for _, c := range []struct {
		address string
		allow   []netip.Prefix
		refused bool
	}{
		{inside.URL, nil, true},
		{"https://" + at.Host, nil, true},
		{"https://localhost:" + at.Port(), nil, true},
		{"http://localhost:" + at.Port(), loopback, true}, // a name may lead anywhere next time
		{"https://169.254.169.254/latest/meta-data", nil, true},
		{"https://192.168.1.1/", nil, true},
		{"https://[fd00::1]/", nil, true},
		{"https://[::ffff:10.0.0.1]/", nil, true},
		{"http://203.0.114.1/", loopback, true},
		{inside.URL, loopback, false},
	} {
		before := asked.Load()
		resp, err := fetch.Straight(c.allow).Get(c.address)
		if err == nil {
			resp.Body.Close()
		}
		if refused := errors.Is(err, outbound.ErrRefused); refused != c.refused || (asked.Load() > before) == c.refused {
			t.Errorf("%s with %v allowed: %v", c.address, c.allow, err)
		}
		if c.refused && !strings.Contains(err.Error(), "bucket_allow of agent.yaml") {
			t.Errorf("no way out in %v", err)
		}
	}
}

// Behind a proxy, which looks at no address for the box, hosts count that the box's own
// configuration names.
func TestThroughAProxyOnlyNamedHostsAreAsked(t *testing.T) {
	bucket := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	bucket.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that end early
	bucket.StartTLS()
	defer bucket.Close()
	var asked atomic.Int32
	client := fetch.Through([]string{"S3.example.com", "example.com:9000", "store.example.com:443"}, func(ctx context.Context, network, _ string) (net.Conn, error) {
		asked.Add(1)
		return new(net.Dialer).DialContext(ctx, network, bucket.Listener.Addr().String())
	})
	for _, c := range []struct {
		address string
		refused bool
	}{
		{"https://s3.example.com/fleet/x?X-Amz-Signature=1", false},
		{"https://example.com:9000/fleet/x", false},
		{"https://store.example.com/fleet/x", false},
		{"https://store.example.com:443/fleet/x", false},
		{"https://store.example.com:444/fleet/x", true},
		{"https://example.com/fleet/x", true},
		{"http://s3.example.com/fleet/x", true},
		{"https://s3.example.com.evil.test/", true},
		{"https://169.254.169.254/", true},
	} {
		before := asked.Load()
		resp, err := client.Get(c.address)
		if err == nil {
			resp.Body.Close()
		}
		// The test's certificate is a stranger's: that TLS was begun is enough.
		if refused := errors.Is(err, outbound.ErrRefused); refused != c.refused || (asked.Load() > before) == c.refused {
			t.Errorf("%s: %v", c.address, err)
		}
		if c.refused && !strings.Contains(err.Error(), "bucket_hosts of agent.yaml") {
			t.Errorf("no way out in %v", err)
		}
	}
}
