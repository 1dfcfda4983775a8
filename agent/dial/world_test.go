package dial_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/agent/dial"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/mqttws"
	"github.com/edgeherd/edgeherd/internal/trust"
)

const secret = "s3cret-of-the-proxy"

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// world is a site with a controller behind it: MQTT and files on ports of
// their own, pages on a third, all echoing what a box says.
type world struct {
	t          *testing.T
	ca         *identity.CA
	id         *identity.Identity
	admit      func(identity.ID) error
	pageAnswer http.HandlerFunc // for a box on the pages' port in place of WebSocket

	mu     sync.Mutex
	closed map[string]bool   // addresses that refuse
	silent map[string]bool   // addresses that swallow
	moved  map[string]string // addresses that lead elsewhere
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, admit: func(identity.ID) error { return nil }, closed: map[string]bool{}, silent: map[string]bool{}, moved: map[string]string{}}
	var err error
	w.ca, err = identity.OpenCA(t.TempDir(), nil)
	check(t, err)
	cert, err := w.ca.IssueServer([]string{"ctl.example", "127.0.0.1"})
	check(t, err)
	admit := func(id identity.ID) error { return w.admit(id) }
	mqtt := w.serve(tls.NewListener(w.listen(), w.ca.ServerTLS(cert, admit)), echo)
	https := w.serveHTTP(tls.NewListener(w.listen(), w.ca.ServerTLS(cert, admit)))
	pages := w.serveHTTP(tls.NewListener(w.listen(), w.ca.PagesTLS(cert, admit)))
	key, err := trust.NewKey()
	check(t, err)
	dir := t.TempDir()
	check(t, identity.Enrol(dir, w.ca, identity.Box{ID: identity.NewID(), Name: "till-3", Site: "berlin-1", Tenant: "default", Server: "ctl.example",
		MQTT: mqtt, HTTPS: https, Pages: pages, Keyring: trust.DevelopmentKeyring(key.Public())}))
	w.id, err = identity.Load(dir)
	check(t, err)
	return w
}

func (w *world) listen() net.Listener {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(w.t, err)
	w.t.Cleanup(func() { l.Close() })
	return l
}

// serve runs handle for each connection, and waits for all at the end.
func (w *world) serve(l net.Listener, handle func(net.Conn)) string {
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer conn.Close()
				handle(conn)
			})
		}
	})
	w.t.Cleanup(func() { l.Close(); all.Wait() })
	return l.Addr().String()
}

func echo(conn net.Conn) { _, _ = io.Copy(conn, conn) }

func (w *world) serveHTTP(l net.Listener) string {
	srv := &http.Server{ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug), Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch {
		case r.TLS == nil || len(r.TLS.VerifiedChains) == 0:
			http.Error(rw, "no box", http.StatusForbidden)
		case r.URL.Path != mqttws.Path:
			_, _ = io.WriteString(rw, "a file")
		case w.pageAnswer != nil:
			w.pageAnswer(rw, r)
		default:
			if conn, err := mqttws.Accept(rw, r); err == nil {
				echo(conn)
				conn.Close()
			}
		}
	})}
	go srv.Serve(l)
	w.t.Cleanup(func() { srv.Close() })
	return l.Addr().String()
}

// net is the site's network.
func (w *world) net(ctx context.Context, network, address string) (net.Conn, error) {
	w.mu.Lock()
	closed, silent, moved := w.closed[address], w.silent[address], w.moved[address]
	w.mu.Unlock()
	switch {
	case closed:
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
	case silent:
		<-ctx.Done()
		return nil, ctx.Err()
	case moved != "":
		address = moved
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}

func (w *world) set(m map[string]bool, addresses ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range addresses {
		m[a] = true
	}
}

func (w *world) dialer(change func(*dial.Options)) *dial.Dialer {
	w.t.Helper()
	opts := dial.Options{Identity: w.id, Net: w.net}
	if change != nil {
		change(&opts)
	}
	d, err := dial.New(opts, slog.New(slog.DiscardHandler))
	check(w.t, err)
	return d
}

// authFile holds the user and password of the proxy.
func (w *world) authFile(text string) string {
	path := filepath.Join(w.t.TempDir(), "auth")
	check(w.t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// proxy is an HTTP proxy with CONNECT and Basic authentication.
type proxy struct {
	address string
	mu      sync.Mutex
	asked   []string // targets of CONNECT that were let through
}

func (p *proxy) tunnels() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string{}, p.asked...)
}

// newProxy opens tunnels for user edge with the secret to the allowed
// addresses; through, if set, handles the tunnel in place of copying.
func (w *world) newProxy(through func(client net.Conn), allowed ...string) *proxy {
	p := &proxy{}
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte("edge:"+secret))
	p.address = w.serve(w.listen(), func(client net.Conn) {
		in := bufio.NewReader(client)
		req, err := http.ReadRequest(in)
		answer := ""
		switch {
		case err != nil || req.Method != http.MethodConnect:
			answer = "400 Bad Request"
		case req.Header.Get("Proxy-Authorization") != want:
			answer = "407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"site\""
		case !strings.Contains(strings.Join(allowed, " "), req.Host):
			answer = "403 Forbidden"
		}
		if answer != "" {
			_, _ = io.WriteString(client, "HTTP/1.1 "+answer+"\r\nContent-Length: 0\r\n\r\n")
			return
		}
		p.mu.Lock()
		p.asked = append(p.asked, req.Host)
		p.mu.Unlock()
		_, _ = io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n")
		if through != nil {
			through(client)
			return
		}
		far, err := net.Dial("tcp", req.Host)
		if err != nil {
			return
		}
		tie(client, far)
	})
	return p
}

// tie copies both ways until either ends.
func tie(a, b net.Conn) {
	defer a.Close()
	defer b.Close()
	ended := make(chan struct{}, 2)
	for _, pair := range [][2]net.Conn{{a, b}, {b, a}} {
		go func() {
			_, _ = io.Copy(pair[0], pair[1])
			ended <- struct{}{}
		}()
	}
	<-ended
}

// talk sends a word over conn and wants it back.
func talk(conn net.Conn) error {
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("hello")); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, make([]byte, 5))
	return err
}

// connects opens a broker connection that works, and returns its way.
func connects(t *testing.T, d *dial.Dialer) string {
	t.Helper()
	conn, err := d.Broker(t.Context())
	check(t, err)
	check(t, talk(conn))
	d.Worked()
	return d.Report().Way
}
