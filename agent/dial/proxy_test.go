package dial_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/agent/dial"
)

var quiet = slog.New(slog.DiscardHandler)

// TestWhatAProxyMayAnswer: all but a tunnel is a fault of its own, and the
// password is in none of them.
func TestWhatAProxyMayAnswer(t *testing.T) {
	for _, c := range []struct{ name, auth, answer, want string }{
		{"no password", "", "407 x\r\nProxy-Authenticate: Basic realm=\"a, b\"", "wants a user and password (407): name a file that holds USER:PASSWORD with the key proxy_auth_file"},
		{"wrong password", "edge:" + secret, "407 x\r\nProxy-Authenticate: Negotiate, Basic realm=x", "refuses the user or password (407): correct "},
		{"another login", "edge:" + secret, "407 x\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM", "a login that is not Basic (407, \"Negotiate\")"},
		{"forbidden", "edge:" + secret, "403 Forbidden", "forbids a tunnel to "},
		{"unreachable", "edge:" + secret, "502 Bad Gateway", "cannot reach "},
		{"portal redirects", "edge:" + secret, "302 Found\r\nLocation: http://portal/login", `a redirect to "http://portal/login" came in place of a tunnel (302): a captive portal`},
		{"portal with a page", "edge:" + secret, "200 OK\r\nContent-Type: text/html\r\nContent-Length: 13\r\n\r\n<html></html>", "a page came in place of a tunnel (200): a captive portal"},
		{"teapot", "edge:" + secret, "418 x", "418 I'm a teapot in place of a tunnel"},
		{"no proxy", "edge:" + secret, "SSH-2.0-x", "is no HTTP proxy"},
		{"endless", "edge:" + secret, "200 OK\r\nX: " + strings.Repeat("x", 100<<10), "is no HTTP proxy"},
		{"hangs up", "edge:" + secret, "", "is no HTTP proxy"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.set(w.closed, w.id.Pages)
			asked := make(chan string, 1)
			address := w.serve(w.listen(), func(conn net.Conn) {
				buf := make([]byte, 4096)
				n, _ := conn.Read(buf)
				asked <- string(buf[:n])
				switch {
				case c.answer == "":
				case strings.HasPrefix(c.answer, "SSH"):
					_, _ = io.WriteString(conn, c.answer+"\r\n")
				default:
					_, _ = io.WriteString(conn, "HTTP/1.1 "+c.answer+"\r\n\r\n")
				}
			})
			d := w.dialer(func(o *dial.Options) {
				o.Server, o.Proxy = "wss://"+w.id.Pages, "http://"+address
				if c.auth != "" {
					o.ProxyAuth = w.authFile(c.auth)
				}
			})
			_, err := d.Broker(t.Context())
			if err == nil || !strings.Contains(err.Error(), "failed at proxy: ") || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if text := fmt.Sprintf("%v %+v", err, d.Report()); strings.Contains(text, secret) {
				t.Errorf("the password is told: %s", text)
			}
			request := <-asked
			if !strings.HasPrefix(request, "CONNECT "+w.id.Pages+" HTTP/1.1\r\n") || (c.auth != "") != strings.Contains(request, "Proxy-Authorization: Basic ") {
				t.Errorf("asked %q", request)
			}
		})
	}
}

// TestANewPasswordNeedsNoRestart, and a file that is in the way is named.
func TestANewPasswordNeedsNoRestart(t *testing.T) {
	w := newWorld(t)
	w.set(w.closed, w.id.MQTT, w.id.Pages)
	p := w.newProxy(nil, w.id.Pages)
	auth := w.authFile("edge:old")
	d := w.dialer(func(o *dial.Options) { o.Proxy, o.ProxyAuth = "http://"+p.address, auth })
	if _, err := d.Broker(t.Context()); err == nil || !strings.Contains(err.Error(), "(407): correct "+auth) {
		t.Errorf("old password: %v", err)
	}
	check(t, os.WriteFile(auth, []byte("edge:"+secret), 0o600))
	connects(t, d)
	check(t, os.Chmod(auth, 0o640))
	if _, err := d.Broker(t.Context()); err == nil || !strings.Contains(err.Error(), "chmod 600 "+auth) {
		t.Errorf("readable by others: %v", err)
	}
}

func TestProxyPasswordFiles(t *testing.T) {
	w := newWorld(t)
	for text, ok := range map[string]bool{
		"u:p": true, "u:p\n": true, "u:p:q\r\n": true, "u:": true,
		"": false, "u": false, ":p": false, "u:p\nmore": false, "u:" + strings.Repeat("x", 2000): false,
	} {
		user, _, err := dial.ReadAuth(w.authFile(text))
		if (err == nil) != ok || ok && user != "u" || err != nil && !strings.Contains(err.Error(), "proxy_auth_file") {
			t.Errorf("%.20q: %q, %v", text, user, err)
		}
	}
	if _, _, err := dial.ReadAuth("/nonexistent"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}

func TestAddresses(t *testing.T) {
	for _, c := range []struct {
		text string
		want dial.Server
		err  string
	}{
		{"", dial.Server{}, ""},
		{"auto", dial.Server{}, ""},
		{"mqtts://ctl", dial.Server{Address: "ctl:8883"}, ""},
		{"mqtts://[::1]:99", dial.Server{Address: "[::1]:99"}, ""},
		{"wss://ctl", dial.Server{Address: "ctl:443", Pages: true}, ""},
		{"wss://ctl:8443/mqtt", dial.Server{Address: "ctl:8443", Pages: true}, ""},
		{"wss://ctl/other", dial.Server{}, `the path is "/other"`},
		{"wss://u:p@ctl/mqtt", dial.Server{}, "proves itself by its certificate"},
		{"mqtts://ctl?x=1", dial.Server{}, "nothing may follow"},
		{"mqtt://ctl", dial.Server{}, `the scheme is "mqtt"`},
		{"ctl:8883", dial.Server{}, "want auto, mqtts://"},
		{"wss://", dial.Server{}, "not an address"},
	} {
		got, err := dial.ParseServer(c.text)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("server %q: %+v, %v", c.text, got, err)
		}
	}
	for _, c := range []struct{ text, want, err string }{
		{"", "", ""},
		{"http://p", "p:3128", ""},
		{"http://10.0.0.1:8080/", "10.0.0.1:8080", ""},
		{"http://u:" + secret + "@p:1", "", "mode 0600"},
		{"http://u:" + secret + "@p:port%zz", "", "not an address"},
		{"https://p", "", `the scheme is "https"`},
		{"p:3128", "", "want http://"},
		{"http://p/x", "", "nothing may follow"},
	} {
		got, err := dial.ParseProxy(c.text)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && (!strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), secret)) {
			t.Errorf("proxy %q: %q, %v", c.text, got, err)
		}
	}
}
