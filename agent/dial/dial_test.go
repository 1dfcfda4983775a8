package dial_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeherd/edgeherd/agent/dial"
	"github.com/edgeherd/edgeherd/internal/identity"
)

func TestTheBestWayThatIsOpenIsTaken(t *testing.T) {
	w := newWorld(t)
	p := w.newProxy(nil, w.id.Pages, w.id.HTTPS)
	viaProxy := func(o *dial.Options) { o.Proxy, o.ProxyAuth = "http://"+p.address, w.authFile("edge:"+secret+"\n") }
	if way := connects(t, w.dialer(viaProxy)); way != "mqtts://"+w.id.MQTT {
		t.Errorf("all open: %s", way)
	}
	w.set(w.closed, w.id.MQTT)
	if way := connects(t, w.dialer(viaProxy)); way != "wss://"+w.id.Pages+"/mqtt" {
		t.Errorf("MQTT closed: %s", way)
	}
	w.set(w.closed, w.id.Pages)
	if way := connects(t, w.dialer(viaProxy)); way != "wss://"+w.id.Pages+"/mqtt through http://"+p.address {
		t.Errorf("only the proxy open: %s", way)
	}
	if got := p.tunnels(); !slices.Equal(got, []string{w.id.Pages}) {
		t.Errorf("tunnels to %v", got)
	}
}

func TestAServerThatIsNamedIsTheOnlyOne(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct{ server, want string }{
		{"wss://" + w.id.Pages + "/mqtt", "wss://" + w.id.Pages + "/mqtt"},
		{"mqtts://" + w.id.MQTT, "mqtts://" + w.id.MQTT},
	} {
		if way := connects(t, w.dialer(func(o *dial.Options) { o.Server = c.server })); way != c.want {
			t.Errorf("%s: %s", c.server, way)
		}
	}
	// Named alone, MQTT goes through a proxy as well.
	p := w.newProxy(nil, w.id.MQTT)
	w.set(w.closed, w.id.MQTT)
	d := w.dialer(func(o *dial.Options) {
		o.Server, o.Proxy, o.ProxyAuth = "mqtts://"+w.id.MQTT, "http://"+p.address, w.authFile("edge:"+secret)
	})
	if way := connects(t, d); way != "mqtts://"+w.id.MQTT+" through http://"+p.address {
		t.Errorf("MQTT through the proxy: %s", way)
	}
}

func TestTheWayThatWorkedIsTheFirstAfterARestart(t *testing.T) {
	w := newWorld(t)
	memory := filepath.Join(t.TempDir(), "way.json")
	remember := func(o *dial.Options) { o.Memory = memory }
	connects(t, w.dialer(remember))
	if _, err := os.Stat(memory); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the first of all ways is written down, which wears flash: %v", err)
	}
	w.set(w.closed, w.id.MQTT)
	pages := connects(t, w.dialer(remember))
	clear(w.closed)
	if way := connects(t, w.dialer(remember)); way != pages {
		t.Errorf("after a restart: %s, want %s", way, pages)
	}
	check(t, os.WriteFile(memory, []byte("{"), 0o600))
	if way := connects(t, w.dialer(remember)); way != "mqtts://"+w.id.MQTT {
		t.Errorf("with a broken memory: %s", way)
	}
}

// TestAWayOnWhichTheControllerSaysNothingComesLast: a gateway that takes TLS
// and then drops the conversation must not be tried for ever.
func TestAWayOnWhichTheControllerSaysNothingComesLast(t *testing.T) {
	w := newWorld(t)
	d := w.dialer(nil)
	for _, want := range []string{"mqtts://", "wss://", "mqtts://"} {
		conn, err := d.Broker(t.Context())
		check(t, err)
		conn.Close()
		if way := d.Report().Way; !strings.HasPrefix(way, want) {
			t.Errorf("tried %s, want %s", way, want)
		}
	}
}

func TestABetterWayIsLookedForAfterADay(t *testing.T) {
	w := newWorld(t) // outside of the bubble: a network that is never reached
	synctest.Test(t, func(t *testing.T) {
		var asked []string
		d, err := dial.New(dial.Options{Identity: w.id, Net: func(_ context.Context, _, address string) (net.Conn, error) {
			asked = append(asked, address)
			return nil, errors.New("cut")
		}, Memory: keep(t, "wss://"+w.id.Pages+"/mqtt")}, quiet)
		check(t, err)
		for _, want := range [][]string{{w.id.Pages, w.id.MQTT}, {w.id.MQTT, w.id.Pages}} {
			asked = nil
			if _, err := d.Broker(t.Context()); err == nil {
				t.Fatal("connected to nothing")
			}
			if !slices.Equal(asked, want) {
				t.Errorf("tried %v, want %v", asked, want)
			}
			time.Sleep(24 * time.Hour)
		}
	})
}

func keep(t *testing.T, way string) string {
	path := filepath.Join(t.TempDir(), "way.json")
	check(t, os.WriteFile(path, []byte(`{"version":1,"state":{"way":"`+way+`"}}`), 0o600))
	return path
}

// TestASwallowedWayLeavesTimeForTheOthers: a firewall that drops packets must
// not use up the whole time of a connection.
func TestASwallowedWayLeavesTimeForTheOthers(t *testing.T) {
	w := newWorld(t)
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		d, err := dial.New(dial.Options{Identity: w.id, Net: func(ctx context.Context, _, address string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}, quiet)
		check(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		_, err = d.Broker(ctx)
		if err == nil || strings.Count(err.Error(), "failed at TCP: nothing answers at") != 2 {
			t.Errorf("%v", err)
		}
		if took := time.Since(began); took != 20*time.Second {
			t.Errorf("took %s", took)
		}
	})
}

// TestAProxyThatSaysNothingIsLeft, also for a bucket: the bubble waits for what is open.
func TestAProxyThatSaysNothingIsLeft(t *testing.T) {
	w := newWorld(t)
	synctest.Test(t, func(t *testing.T) {
		d, err := dial.New(dial.Options{Identity: w.id, Proxy: "http://proxy:3128", Net: func(context.Context, string, string) (net.Conn, error) {
			near, far := net.Pipe()
			go func() { _, _ = io.Copy(io.Discard, far) }()
			return near, nil
		}}, quiet)
		check(t, err)
		client := &http.Client{Transport: &http.Transport{DialContext: d.Through}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://s3.example/x", nil)
		check(t, err)
		if res, err := client.Do(req); err == nil {
			res.Body.Close()
			t.Error("a proxy that says nothing gave an answer")
		}
		time.Sleep(time.Minute)
	})
}

func TestDownloadsTakeTheWaysThatAreOpen(t *testing.T) {
	w := newWorld(t)
	p := w.newProxy(nil, w.id.Pages, w.id.HTTPS)
	d := w.dialer(func(o *dial.Options) { o.Proxy, o.ProxyAuth = "http://"+p.address, w.authFile("edge:"+secret) })
	client := &http.Client{Transport: &http.Transport{DialTLSContext: d.Files, DisableKeepAlives: true}}
	get := func() {
		t.Helper()
		res, err := client.Get("https://" + w.id.HTTPS + "/device/v1/blobs/x")
		check(t, err)
		defer res.Body.Close()
		if body, err := io.ReadAll(res.Body); err != nil || string(body) != "a file" {
			t.Errorf("%q, %v", body, err)
		}
	}
	get()
	w.set(w.closed, w.id.HTTPS)
	get() // by the port of the pages
	w.set(w.closed, w.id.Pages)
	get() // through the proxy
	get() // which is remembered
	if got := p.tunnels(); !slices.Equal(got, []string{w.id.HTTPS, w.id.HTTPS}) {
		t.Errorf("tunnels to %v", got)
	}
	// A bucket is beyond the proxy as well, if that lets it pass.
	conn, err := d.Through(t.Context(), "tcp", w.id.HTTPS)
	check(t, err)
	conn.Close()
	if _, err := d.Through(t.Context(), "tcp", "elsewhere:443"); err == nil || !strings.Contains(err.Error(), "proxy") {
		t.Errorf("a host that the proxy does not let pass: %v", err)
	}
	if _, err := w.dialer(func(*dial.Options) {}).Through(t.Context(), "tcp", w.id.HTTPS); err == nil {
		t.Error("through no proxy")
	}
}

// TestFaultsNameTheStageAndTheWayOut lets each stage fail in turn.
func TestFaultsNameTheStageAndTheWayOut(t *testing.T) {
	type site struct {
		name  string
		lay   func(*world)
		stage dial.Stage
		want  string
	}
	for _, c := range []site{
		{"refused", func(w *world) { w.set(w.closed, w.id.Pages) }, dial.StageTCP, "no connection to"},
		{"another CA", func(w *world) { w.moved[w.id.Pages] = stranger(w, nil) }, dial.StageTLS, "TLS is intercepted: the certificate is not of this controller's CA, its issuer is \"CN=edgeherd server CA\"; nothing was sent; exempt"},
		{"no TLS", func(w *world) {
			w.moved[w.id.Pages] = w.serve(w.listen(), func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 302 Found\r\n\r\n") })
		}, dial.StageTLS, "does not speak TLS: a captive portal"},
		{"closed in the handshake", func(w *world) { w.moved[w.id.Pages] = w.serve(w.listen(), func(net.Conn) {}) }, dial.StageTLS, "a firewall that looks into connections"},
		{"another name", func(w *world) { w.id.Server = "other.example" }, dial.StageTLS, "key hosts of server.yaml"},
		{"box refused", func(w *world) { w.admit = func(identity.ID) error { return errors.New("retired") } }, dial.StageTLS, "is the box enrolled there?"},
		{"redirect", func(w *world) {
			w.pageAnswer = func(rw http.ResponseWriter, r *http.Request) {
				http.Redirect(rw, r, "https://portal/login", http.StatusFound)
			}
		}, dial.StageUpgrade, `302 Found, a redirect to "https://portal/login"`},
		{"an older controller", func(w *world) {
			w.pageAnswer = func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "<html>") }
		}, dial.StageUpgrade, "WebSocket is refused; is this an edgeherd controller, new enough for it? (the answer to the WebSocket upgrade is 200 OK)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			c.lay(w)
			_, err := w.dialer(func(o *dial.Options) { o.Server = "wss://" + w.id.Pages }).Broker(t.Context())
			var f *dial.Fault
			if !errors.As(err, &f) || f.Stage != c.stage || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), w.id.Pages) {
				t.Errorf("%v, want stage %s and %q", err, c.stage, c.want)
			}
		})
	}
}

func TestANameThatIsNotFoundIsToldApart(t *testing.T) {
	w := newWorld(t)
	d := w.dialer(func(o *dial.Options) {
		o.Server = "mqtts://ctl.invalid"
		o.Net = func(_ context.Context, _, address string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "ctl.invalid", IsNotFound: true}}
		}
	})
	_, err := d.Broker(t.Context())
	var f *dial.Fault
	if !errors.As(err, &f) || f.Stage != dial.StageDNS || !strings.Contains(err.Error(), "ctl.invalid:8883") {
		t.Errorf("%v", err)
	}
}

// TestARefusalAfterTLSIsAFaultOfMQTT: on the MQTT port the box learns only
// from its first read that the controller does not want it.
func TestARefusalAfterTLSIsAFaultOfMQTT(t *testing.T) {
	w := newWorld(t)
	w.admit = func(identity.ID) error { return errors.New("retired") }
	conn, err := w.dialer(func(o *dial.Options) { o.Server = "mqtts://" + w.id.MQTT }).Broker(t.Context())
	if err == nil {
		err = talk(conn)
	}
	var f *dial.Fault
	if !errors.As(err, &f) || !strings.Contains(err.Error(), "is the box enrolled there?") {
		t.Errorf("%v", err)
	}
}

// stranger serves TLS with a certificate of another CA, asks for a client
// certificate as an interceptor may, and tells what it got.
func stranger(w *world, got func(tls.ConnectionState, []byte)) string {
	return w.serve(w.listen(), func(conn net.Conn) { intercept(w, conn, got) })
}

func intercept(w *world, conn net.Conn, got func(tls.ConnectionState, []byte)) {
	ca, err := identity.OpenCA(w.t.TempDir(), nil)
	if err != nil {
		return
	}
	cert, err := ca.IssueServer([]string{"ctl.example", "127.0.0.1"})
	if err != nil {
		return
	}
	tc := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequestClientCert, NextProtos: []string{"http/1.1"}})
	_ = tc.Handshake()
	data, _ := io.ReadAll(tc)
	if got != nil {
		got(tc.ConnectionState(), data)
	}
}

// TestAnInterceptorLearnsNothing: neither the box's certificate nor a byte of
// MQTT, whether it sits in the direct way or behind the proxy.
func TestAnInterceptorLearnsNothing(t *testing.T) {
	w := newWorld(t)
	var seen, learnt atomic.Int64
	got := func(cs tls.ConnectionState, data []byte) {
		seen.Add(1)
		learnt.Add(int64(len(cs.PeerCertificates) + len(data)))
	}
	done := make(chan struct{}, 8)
	p := w.newProxy(func(client net.Conn) {
		intercept(w, client, got)
		done <- struct{}{}
	}, w.id.Pages, w.id.HTTPS)
	w.set(w.closed, w.id.MQTT, w.id.HTTPS, w.id.Pages)
	d := w.dialer(func(o *dial.Options) { o.Proxy, o.ProxyAuth = "http://"+p.address, w.authFile("edge:"+secret) })
	_, err := d.Broker(t.Context())
	if err == nil || !strings.Contains(err.Error(), "through http://"+p.address+" failed at TLS: TLS is intercepted") {
		t.Errorf("broker: %v", err)
	}
	if _, err = d.Files(t.Context(), "tcp", ""); err == nil || strings.Count(err.Error(), "TLS is intercepted") != 2 {
		t.Errorf("files: %v", err)
	}
	for range 3 {
		<-done
	}
	if seen.Load() != 3 || learnt.Load() != 0 {
		t.Errorf("%d interceptions learnt %d things", seen.Load(), learnt.Load())
	}
}

func TestEachTellsOfEveryWay(t *testing.T) {
	w := newWorld(t)
	d := w.dialer(nil)
	w.set(w.closed, w.id.MQTT)
	all := d.Each(t.Context(), time.Minute, func(_ context.Context, conn net.Conn) error { return talk(conn) })
	if len(all) != 2 || !strings.Contains(all[0].Err, "failed at TCP") || all[1].Err != "" || !strings.HasPrefix(all[1].Way, "wss://") {
		t.Fatalf("with mqtts closed and wss open: %+v", all)
	}
}
