package outbound

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
)

// T33: an address that people configure leads into the controller's network.
func TestT33OnlyPublicAddressesAreDialled(t *testing.T) {
	for addr, want := range map[string]bool{
		"93.184.216.34:443": true, "[2606:2800:220:1::1]:443": true,
		"127.0.0.1:80": false, "[::1]:80": false, "0.0.0.0:80": false, "[::]:80": false,
		"10.0.0.1:80": false, "172.16.3.4:80": false, "192.168.1.1:80": false, "[fd00::1]:80": false,
		"169.254.169.254:80": false, "[fe80::1%eth0]:80": false, "[fd00:ec2::254]:80": false, "100.100.100.200:80": false,
		"[::ffff:127.0.0.1]:80": false, "[::ffff:169.254.169.254]:80": false, "[64:ff9b::7f00:1]:80": false, "[2002:7f00:1::]:80": false,
		"[64:ff9b:1::7f00:1]:80": false, "[::7f00:1]:80": false, "[::ffff:0:7f00:1]:80": false, "[fec0::1]:80": false, "[100::1]:80": false, "[5f00::1]:80": false,
		"224.0.0.1:80": false, "[ff02::1]:80": false, "255.255.255.255:80": false, "nonsense": false,
	} {
		d := &dialer{meant: meant("hook.example.com")}
		if err := d.check("hook.example.com:443", addr); (err == nil) != want {
			t.Errorf("%s: %v", addr, err)
		} else if err != nil && !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

func TestWhatWasMeantOrAllowedIsDialled(t *testing.T) {
	allow := []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}
	for _, c := range []struct {
		host, addr string
		want       bool
	}{
		{"localhost", "127.0.0.1:80", true},
		{"localhost", "10.2.0.1:80", false},
		{"127.0.0.1", "127.0.0.1:80", true},
		{"127.0.0.1", "127.0.0.2:80", false},
		{"192.168.1.7", "192.168.1.7:80", true},
		{"169.254.169.254", "169.254.169.254:80", false},
		{"::1", "[::1]:80", true},
		{"alertmanager", "10.1.2.3:9093", true},
		{"alertmanager", "10.2.2.3:9093", false},
	} {
		d := &dialer{guard: Guard{Allow: allow}, meant: meant(c.host)}
		if err := d.check(c.host, c.addr); (err == nil) != c.want {
			t.Errorf("%s at %s: %v", c.host, c.addr, err)
		}
	}
}

// rebinding answers every question for a name with 127.0.0.1.
func rebinding(t *testing.T) *net.Resolver {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			q := buf[12:n]
			end := strings.IndexByte(string(q), 0) + 5 // name, type, class
			out := append(append([]byte{}, buf[:12]...), q[:end]...)
			binary.BigEndian.PutUint16(out[2:], 0x8180)
			binary.BigEndian.PutUint16(out[8:], 0)
			binary.BigEndian.PutUint16(out[10:], 0)
			if q[end-3] == 1 { // A
				binary.BigEndian.PutUint16(out[6:], 1)
				out = append(out, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1)
			}
			conn.WriteTo(out, from)
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

func TestT33NamesAndRedirectsDoNotGetRoundTheGuard(t *testing.T) {
	asked := 0
	inside := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	defer inside.Close()
	_, port, _ := net.SplitHostPort(inside.Listener.Addr().String())

	name := "http://rebind.example.com:" + port + "/"
	c, err := Guard{Resolver: rebinding(t)}.Client(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(name); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "outbound_allow") {
		t.Errorf("a name that leads inside: %v", err)
	}
	allowed, err := Guard{Resolver: rebinding(t), Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}.Client(name)
	if err != nil {
		t.Fatal(err)
	}
	if res, err := allowed.Get(name); err != nil || asked != 1 {
		t.Errorf("an allowed network: %v", err)
	} else {
		res.Body.Close()
	}

	u, _ := url.Parse(inside.URL)
	for _, to := range []string{"http://169.254.169.254/latest", "http://localhost:" + u.Port() + "/"} {
		outside := httptest.NewServer(http.RedirectHandler(to, http.StatusFound))
		defer outside.Close()
		if c, err = (Guard{}).Client(outside.URL); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Get(outside.URL); !errors.Is(err, ErrRefused) {
			t.Errorf("a redirect to %s: %v", to, err)
		}
	}
	if asked != 1 {
		t.Errorf("the inside was asked %d times", asked)
	}
}
