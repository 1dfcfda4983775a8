package fleettest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/agent"
	"github.com/edgeherd/edgeherd/controller"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
)

const proxyPassword = "s3cret-of-the-site"

// safeBuffer is a log that may be read while it is written.
type safeBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// site is a box behind an HTTP proxy: real sockets, a controller with TLS on
// all ports, and a network that lets nothing out but what proxy and open say.
type site struct {
	t     *testing.T
	ctl   *controller.Controller
	id    *identity.Identity
	state string
	log   *safeBuffer
	proxy string

	mu    sync.Mutex // guards the fields below
	open  map[string]bool
	asked []string
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, state: t.TempDir(), log: &safeBuffer{}, open: map[string]bool{}}
	var err error
	s.ctl, err = controller.Open(t.Context(), controller.Options{Dir: t.TempDir(), HTTP: "127.0.0.1:0", Device: "127.0.0.1:0", MQTT: "127.0.0.1:0", Version: "test"}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(s.state, "identity")
	if _, err := s.ctl.EnrolBox(t.Context(), dir, "box-1", "site-1"); err != nil {
		t.Fatal(err)
	}
	if s.id, err = identity.Load(dir); err != nil {
		t.Fatal(err)
	}
	ctl := start(s.ctl.Run)
	t.Cleanup(func() {
		if err := ctl.stop(); err != nil {
			t.Errorf("controller: %v", err)
		}
	})
	s.proxy = s.serveProxy()
	return s
}

func (s *site) serveProxy() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { s.tunnel(client) })
		}
	})
	s.t.Cleanup(func() { l.Close(); all.Wait() })
	return l.Addr().String()
}

// tunnel is CONNECT with Basic authentication, to the pages' port alone: what
// proxies let through by default is 443 and little else.
func (s *site) tunnel(client net.Conn) {
	defer client.Close()
	req, err := http.ReadRequest(bufio.NewReader(client))
	if err != nil {
		return
	}
	answer := "HTTP/1.1 200 Connection established\r\n\r\n"
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte("edge:"+proxyPassword))
	switch {
	case req.Header.Get("Proxy-Authorization") != want:
		answer = "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"site\"\r\nContent-Length: 0\r\n\r\n"
	case req.Method != http.MethodConnect || req.Host != s.id.Pages:
		answer = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
	}
	s.mu.Lock()
	s.asked = append(s.asked, answer[9:12]+" "+req.Host)
	s.mu.Unlock()
	if _, err := io.WriteString(client, answer); err != nil || answer[9:12] != "200" {
		return
	}
	far, err := net.Dial("tcp", req.Host)
	if err != nil {
		return
	}
	defer far.Close()
	ended := make(chan struct{}, 2)
	for _, pair := range [][2]net.Conn{{client, far}, {far, client}} {
		go func() {
			_, _ = io.Copy(pair[0], pair[1])
			ended <- struct{}{}
		}()
	}
	<-ended
	client.Close()
	far.Close()
	<-ended
}

// dial is the site's network.
func (s *site) dial(ctx context.Context, network, address string) (net.Conn, error) {
	s.mu.Lock()
	open := s.open[address]
	s.mu.Unlock()
	if !open && address != s.proxy {
		return nil, &net.OpError{Op: "dial", Net: network, Err: os.NewSyscallError("connect", syscall.ENETUNREACH)}
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}

// run starts the box's agent with a password for the proxy.
func (s *site) run(password string) *process {
	s.t.Helper()
	auth := filepath.Join(s.t.TempDir(), "auth")
	if err := os.WriteFile(auth, []byte("edge:"+password+"\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	a, err := agent.Open(agent.Options{
		State: s.state, Root: s.t.TempDir(), Version: "test", NoSync: true, Dial: s.dial,
		Runner: runnerapi.Dial(filepath.Join(s.t.TempDir(), "none.sock")), Proxy: "http://" + s.proxy, ProxyAuth: auth,
		SensePeriod: time.Second, SealPeriod: time.Second,
	}, slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		s.t.Fatal(err)
	}
	return start(a.Run)
}

// until polls: real sockets know no fake time.
func (s *site) until(what string, cond func() bool) {
	s.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); <-tick.C {
		if cond() {
			return
		}
	}
	s.t.Fatalf("not within five minutes: %s\n%s", what, s.log)
}

func (s *site) status() agent.Status {
	st, _ := agent.ReadStatus(s.state) // none yet is not connected
	return st
}

// TestABoxBehindAProxyIsServed: nothing goes out but CONNECT with a password to
// the pages' port. MQTT gets through, a restart goes there at once, a wrong
// password is named, and it stands nowhere.
func TestABoxBehindAProxyIsServed(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	box := s.run("wrong")
	s.until("the wrong password is told", func() bool { return strings.Contains(s.log.String(), "refuses the user or password (407)") })
	if err := box.stop(); err != nil {
		t.Fatal(err)
	}
	through := "wss://" + s.id.Pages + "/mqtt through http://" + s.proxy
	box = s.run(proxyPassword)
	s.until("connected through the proxy", func() bool { st := s.status(); return st.Connected && st.Ways.Way == through })
	if st := s.status(); len(st.Ways.Failed) < 2 || !strings.Contains(st.Ways.Failed[0].Err, "failed at TCP") {
		t.Errorf("what was tried: %+v", st.Ways)
	}
	s.until("events are stored", func() bool { return strings.Contains(s.log.String(), "link up") })
	if err := box.stop(); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.open[s.id.MQTT], s.open[s.id.HTTPS], s.open[s.id.Pages] = true, true, true
	s.mu.Unlock()
	box = s.run(proxyPassword)
	s.until("connected again", func() bool { return s.status().Connected })
	if st := s.status(); st.Ways.Way != through || len(st.Ways.Failed) > 0 {
		t.Errorf("after a restart: %+v, want the way that worked first", st.Ways)
	}
	if err := box.stop(); err != nil {
		t.Fatal(err)
	}
	s.nothingTold()
}

// nothingTold looks for the password in the log and in every file of the box.
func (s *site) nothingTold() {
	s.t.Helper()
	secrets := []string{proxyPassword, base64.StdEncoding.EncodeToString([]byte("edge:" + proxyPassword))}
	look := func(where, text string) {
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				s.t.Errorf("the password of the proxy is in %s", where)
			}
		}
	}
	look("the log", s.log.String())
	err := filepath.WalkDir(s.state, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		look(path, string(data))
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// TestABoxComesInByThePagesPort: a site that closes 8883 and 8444 needs no
// proxy, and no setting either.
func TestABoxComesInByThePagesPort(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.open[s.id.Pages] = true // before anything runs
	box := s.run(proxyPassword)
	s.until("connected", func() bool { st := s.status(); return st.Connected && st.Ways.Way == "wss://"+s.id.Pages+"/mqtt" })
	s.mu.Lock()
	asked := len(s.asked)
	s.mu.Unlock()
	if asked != 0 {
		t.Errorf("the proxy was asked %d times with a direct way open", asked)
	}
	if err := box.stop(); err != nil {
		t.Fatal(err)
	}
}
