package mqttws

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// far is the controller's end: it echoes what comes, and tells how it ended.
type far struct {
	*httptest.Server
	ended chan error
}

func newFar(t *testing.T) *far {
	f := &far{ended: make(chan error, 8)}
	f.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := Accept(w, r)
		if err != nil {
			f.ended <- err
			return
		}
		defer conn.Close()
		_, err = io.Copy(conn, conn)
		f.ended <- err
	}))
	t.Cleanup(f.Close)
	return f
}

func timedOut(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// tlsClient trusts the certificate of f.
func tlsClient(raw net.Conn, f *far) net.Conn {
	conf := f.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	conf.ServerName = "example.com" // what httptest certifies
	return tls.Client(raw, conf)
}

// open makes the box's end over the TLS that httptest offers.
func (f *far) open(t *testing.T) net.Conn {
	t.Helper()
	raw, err := net.Dial("tcp", f.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	tc := tlsClient(raw, f)
	conn, err := Client(t.Context(), tc, f.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// TestBytesArriveAsTheyWereWritten, however they were cut into messages.
func TestBytesArriveAsTheyWereWritten(t *testing.T) {
	conn := newFar(t).open(t)
	sent := make([]byte, 300<<10)
	rand.Read(sent)
	var writers sync.WaitGroup
	writers.Go(func() {
		for at, n := 0, 1; at < len(sent); at, n = at+n, n*3 {
			n = min(n, len(sent)-at, 100<<10)
			if _, err := conn.Write(sent[at : at+n]); err != nil {
				t.Error(err)
				return
			}
		}
	})
	got := make([]byte, len(sent))
	_, err := io.ReadFull(conn, got)
	writers.Wait()
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("%d bytes differ, %v", len(sent), err)
	}
}

func TestTheEndIsAnEOF(t *testing.T) {
	f := newFar(t)
	f.open(t).Close()
	if err := <-f.ended; err != nil {
		t.Errorf("closed: %v", err)
	}
	conn := f.open(t)
	ws := conn.(*stream).ws
	if err := ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Time{}); err != nil {
		t.Fatal(err)
	}
	if err := <-f.ended; err != nil {
		t.Errorf("closed by a message: %v", err)
	}
	for range 3000 { // gorilla panics at a thousand
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Fatal("read from nothing")
		}
	}
}

func TestWhatIsNotMQTTEndsTheStream(t *testing.T) {
	for name, send := range map[string]func(*websocket.Conn) error{
		"text": func(ws *websocket.Conn) error { return ws.WriteMessage(websocket.TextMessage, []byte("hello")) },
		"too large": func(ws *websocket.Conn) error {
			return ws.WriteMessage(websocket.BinaryMessage, make([]byte, maxMessageBytes+1))
		},
		"no frame": func(ws *websocket.Conn) error {
			_, err := ws.NetConn().Write([]byte(strings.Repeat("\xff", 64)))
			return err
		},
	} {
		f := newFar(t)
		conn := f.open(t)
		if err := send(conn.(*stream).ws); err != nil {
			t.Logf("%s: %v", name, err) // the other end may be faster
		}
		go io.Copy(io.Discard, conn) // or the echo of a large message stands in the way
		if err := <-f.ended; err == nil {
			t.Errorf("%s: passed", name)
		}
	}
}

// TestDeadlinesEndBothDirections: the broker bounds slow boxes by them.
func TestDeadlinesEndBothDirections(t *testing.T) {
	stuck := make(chan struct{})
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := Accept(w, r)
		if err != nil {
			return
		}
		defer conn.Close()
		<-stuck // reads nothing, says nothing
	}))
	defer srv.Close()
	defer close(stuck)
	f := &far{Server: srv}
	conn := f.open(t)
	if err := conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); !timedOut(err) {
		t.Errorf("read: %v", err)
	}
	conn = f.open(t)
	written := make(chan error, 1)
	go func() {
		var err error
		for err == nil {
			_, err = conn.Write(make([]byte, 64<<10)) // until all buffers are full
		}
		written <- err
	}()
	// While a write waits, as the broker does it.
	if err := conn.SetDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if err := <-written; !timedOut(err) {
		t.Errorf("write: %v", err)
	}
}

func TestOnlyMQTTIsAccepted(t *testing.T) {
	f := newFar(t)
	for name, header := range map[string]http.Header{
		"no WebSocket":      {},
		"other subprotocol": {"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}, "Sec-Websocket-Protocol": {"chat"}},
		"of a web page": {"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="},
			"Sec-Websocket-Protocol": {"mqtt"}, "Origin": {"https://evil.example"}},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.URL+Path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = header
		res, err := f.Server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode < 400 || <-f.ended == nil {
			t.Errorf("%s: %s", name, res.Status)
		}
	}
}

func TestAnotherAnswerIsTold(t *testing.T) {
	for _, c := range []struct {
		answer http.HandlerFunc
		want   string
	}{
		{func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/login", http.StatusFound) }, `302 Found, a redirect to "/login"`},
		{func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }, "403 Forbidden"},
	} {
		srv := httptest.NewTLSServer(c.answer)
		defer srv.Close()
		f := &far{Server: srv}
		raw, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_, err = Client(t.Context(), tlsClient(raw, f), "ctl:1")
		var refused *Refused
		if !errors.As(err, &refused) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}

// TestAnUpgradeThatGetsNoAnswerEnds with the context.
func TestAnUpgradeThatGetsNoAnswerEnds(t *testing.T) {
	near, other := net.Pipe()
	defer other.Close()
	go io.Copy(io.Discard, other)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := Client(ctx, near, "ctl:1"); !errors.Is(err, context.DeadlineExceeded) && !timedOut(err) {
		t.Errorf("%v", err)
	}
}
