package balancer_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"

	"github.com/edgeherd/edgeherd/controller/balancer"
	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/freeport"
)

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// said is a log.
type said struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// listen runs a listener until the test ends.
func listen(t *testing.T, opts balancer.Options) (*balancer.Listener, *said) {
	t.Helper()
	base, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	log := &said{}
	l := balancer.New(base, opts, slog.New(slog.NewTextHandler(log, nil)))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		must(t, <-done)
	})
	return l, log
}

// dial connects from an address of this machine and sends something.
func dial(t *testing.T, to, from, text string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := d.DialContext(t.Context(), "tcp4", to)
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	_, err = io.WriteString(conn, text)
	must(t, err)
	return conn
}

func v2(t *testing.T, source string, command proxyproto.ProtocolVersionAndCommand) string {
	t.Helper()
	from := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(source))
	h := proxyproto.HeaderProxyFromAddrs(2, from, from)
	h.Command = command
	text, err := h.Format()
	must(t, err)
	return string(text)
}

func TestTheAddressIsThatOfTheClient(t *testing.T) {
	for _, tc := range []struct {
		name, sends string
		optional    bool
		trusted     []netip.Prefix
		from        string // "" is refused
		reads       string
	}{
		{"version 1", "PROXY TCP4 192.0.2.7 192.0.2.1 4711 8883\r\nhello", false, loopback, "192.0.2.7:4711", "hello"},
		{"version 1, IPv6", "PROXY TCP6 2001:db8::7 2001:db8::1 4711 8883\r\nhello", false, loopback, "[2001:db8::7]:4711", "hello"},
		{"version 1, unknown", "PROXY UNKNOWN\r\nhello", false, loopback, "127.0.0.9", "hello"},
		{"version 2", v2(t, "192.0.2.7:4711", proxyproto.PROXY) + "hello", false, loopback, "192.0.2.7:4711", "hello"},
		{"version 2, IPv6", v2(t, "[2001:db8::7]:4711", proxyproto.PROXY) + "hello", false, loopback, "[2001:db8::7]:4711", "hello"},
		{"version 2 of the balancer itself", v2(t, "192.0.2.7:4711", proxyproto.LOCAL) + "hello", false, loopback, "127.0.0.9", "hello"},
		{"more than is buffered", "PROXY TCP4 192.0.2.7 192.0.2.1 4711 8883\r\n" + strings.Repeat("hello", 1000), false, loopback, "192.0.2.7:4711", strings.Repeat("hello", 1000)},
		{"no header", "hello", false, loopback, "", ""},
		{"no header where it need not be", "hello", true, loopback, "127.0.0.9", "hello"},
		{"a header where it need not be", "PROXY TCP4 192.0.2.7 192.0.2.1 4711 8883\r\nhello", true, loopback, "192.0.2.7:4711", "hello"},
		{"half a header", "PROXY TCP4 192.0.2.7 ", false, loopback, "", ""},
		{"a header that is none", "PROXY TCP4 somebody else 1 2\r\nhello", true, loopback, "", ""},
		{"a header of somebody not trusted", "PROXY TCP4 192.0.2.7 192.0.2.1 4711 8883\r\n", false,
			[]netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, "127.0.0.9", "PROXY TCP4 192.0.2.7 192.0.2.1 4711 8883\r\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l, log := listen(t, balancer.Options{Trusted: tc.trusted, Optional: tc.optional})
			client := dial(t, l.Addr().String(), "127.0.0.9", tc.sends)
			if tc.from == "" {
				if _, err := client.Read(make([]byte, 1)); err == nil {
					t.Error("the connection stays")
				}
				if !strings.Contains(log.String(), "proxy_protocol") {
					t.Errorf("the log does not say how to mend it: %q", log)
				}
				return
			}
			conn, err := l.Accept()
			must(t, err)
			defer conn.Close()
			if got := conn.RemoteAddr().String(); got != tc.from && !strings.HasPrefix(got, tc.from+":") {
				t.Errorf("from %s, want %s", got, tc.from)
			}
			must(t, client.(*net.TCPConn).CloseWrite())
			if got, err := io.ReadAll(conn); string(got) != tc.reads || err != nil {
				t.Errorf("read %q, %v, want %q", got, err, tc.reads)
			}
		})
	}
}

// TestASilentConnectionHoldsUpNobody: who connects from a trusted address and
// says nothing is alone in waiting.
func TestASilentConnectionHoldsUpNobody(t *testing.T) {
	l, log := listen(t, balancer.Options{Trusted: loopback})
	silent := dial(t, l.Addr().String(), "127.0.0.8", "")
	dial(t, l.Addr().String(), "127.0.0.9", "PROXY TCP4 192.0.2.7 192.0.2.1 4711 8883\r\n")
	conn, err := l.Accept()
	must(t, err)
	defer conn.Close()
	if got := conn.RemoteAddr().String(); got != "192.0.2.7:4711" {
		t.Errorf("from %s", got)
	}
	must(t, silent.Close()) // as a balancer does that looks whether we are there
	must(t, l.Close())
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
	if log.String() != "" {
		t.Errorf("it complains: %s", log)
	}
}

// free is an address on which nobody listens.
func free(t *testing.T) string {
	t.Helper()
	address, err := freeport.Address()
	must(t, err)
	return address
}

// TestHAProxyTellsWhoIsBehindIt runs HAProxy on the configuration that we ship.
func TestHAProxyTellsWhoIsBehindIt(t *testing.T) {
	if testing.Short() {
		t.Skip("real processes")
	}
	program := assets.Program(t, "haproxy")
	l, _ := listen(t, balancer.Options{Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}})
	entry := free(t)
	conf, err := os.ReadFile(filepath.Join("..", "..", "deploy", "haproxy.cfg"))
	must(t, err)
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	text := string(conf)
	for _, change := range [][2]string{
		{"maxconn 50000", "maxconn 100"}, // it takes as many file descriptors
		{"bind :8443\n", "bind " + free(t) + "\n"}, {"bind :8444\n", "bind " + free(t) + "\n"}, {"bind :8883\n", "bind " + entry + "\n"},
		{"192.0.2.11:8883", l.Addr().String()}, {"192.0.2.12:8883", l.Addr().String()}, {"192.0.2.13:8883", l.Addr().String()},
	} {
		if !strings.Contains(text, change[0]) {
			t.Fatalf("deploy/haproxy.cfg has no %q", change[0])
		}
		text = strings.ReplaceAll(text, change[0], change[1])
	}
	must(t, os.WriteFile(file, []byte(text), 0o600))
	cmd := exec.Command(program, "-db", "-f", file)
	var words bytes.Buffer
	cmd.Stdout, cmd.Stderr = &words, &words
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(t, cmd.Start())
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("HAProxy: %s", &words)
		}
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for late := time.Now().Add(5 * time.Minute); ; <-tick.C {
		probe, err := net.Dial("tcp4", entry)
		if err == nil {
			probe.Close()
			break
		}
		if time.Now().After(late) {
			t.Fatal(err)
		}
	}
	for _, from := range []string{"127.0.0.7", "127.0.0.8"} {
		dial(t, entry, from, "hello "+from)
		for { // past the probe above
			conn, err := l.Accept()
			must(t, err)
			got := make([]byte, len("hello ")+len(from))
			n, err := io.ReadFull(conn, got)
			addr := conn.RemoteAddr().String()
			conn.Close()
			if n == 0 && err != nil {
				continue
			}
			if string(got) != "hello "+from || !strings.HasPrefix(addr, from+":") {
				t.Errorf("%q from %s, want it from %s", got, addr, from)
			}
			break
		}
	}
}
