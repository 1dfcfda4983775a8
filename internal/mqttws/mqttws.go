// Package mqttws carries MQTT in WebSocket frames (MQTT 3.1.1 section 6, RFC
// 6455), so that a box gets through where only the port of the web pages is
// open. Both ends are here: Accept is the controller's, Client the box's.
//
// What either returns is a stream like any net.Conn: binary messages only,
// bounded in size, no compression, deadlines as usual. Identity is not its
// business: TLS has proved it before.
//
// The one rule a caller can break: Accept answers the request itself when it
// refuses; write nothing after its error.
package mqttws

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

const (
	// Path is where the controller serves it.
	Path = "/mqtt"
	// subprotocol is the registered name (MQTT 3.1.1 section 6.0).
	subprotocol = "mqtt"
	// maxMessageBytes bounds one message; it is read piece by piece, and the
	// broker has a bound of its own for what is inside.
	maxMessageBytes = 256 << 10
	// pingEvery keeps the path open: gateways forget connections that are
	// silent for a minute (nginx proxy_read_timeout and many balancers), which
	// is the keep-alive of our MQTT.
	pingEvery = 25 * time.Second
	pingWait  = 10 * time.Second
)

// Refused is an answer to the upgrade that is not 101 Switching Protocols.
type Refused struct {
	Status      int
	Location    string // of a redirect
	ContentType string
}

func (r *Refused) Error() string {
	text := fmt.Sprintf("the answer to the WebSocket upgrade is %d %s", r.Status, http.StatusText(r.Status))
	if r.Location != "" {
		text += fmt.Sprintf(", a redirect to %.200q", r.Location)
	}
	return text
}

// Accept turns a request into a stream. It answers with an error itself when
// the request is not for MQTT.
func Accept(w http.ResponseWriter, r *http.Request) (net.Conn, error) {
	if !slices.Contains(websocket.Subprotocols(r), subprotocol) {
		http.Error(w, "this address speaks MQTT over WebSocket: ask for the subprotocol mqtt", http.StatusBadRequest)
		return nil, errors.New("accept WebSocket: the subprotocol mqtt was not asked for")
	}
	// CheckOrigin is left as it is: a page of another site may not come in.
	up := websocket.Upgrader{HandshakeTimeout: 10 * time.Second, Subprotocols: []string{subprotocol}}
	ws, err := up.Upgrade(w, r, nil)
	if err != nil {
		return nil, fmt.Errorf("accept WebSocket: %w", err)
	}
	return newStream(ws), nil
}

// Client upgrades conn, whose TLS is done, and owns it: an error closes it.
// host is host:port for the request. An answer of another kind is *Refused.
func Client(ctx context.Context, conn net.Conn, host string) (net.Conn, error) {
	given := func(context.Context, string, string) (net.Conn, error) { return conn, nil }
	d := websocket.Dialer{NetDialTLSContext: given, Subprotocols: []string{subprotocol}}
	// gorilla looks at ctx only while it dials.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	ws, answer, err := d.DialContext(ctx, (&url.URL{Scheme: "wss", Host: host, Path: Path}).String(), nil)
	if !stop() || err != nil {
		conn.Close()
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("upgrade to WebSocket: %w", ctx.Err())
	}
	if errors.Is(err, websocket.ErrBadHandshake) && answer != nil {
		return nil, &Refused{answer.StatusCode, answer.Header.Get("Location"), answer.Header.Get("Content-Type")}
	}
	if err != nil {
		return nil, fmt.Errorf("upgrade to WebSocket: %w", err)
	}
	if ws.Subprotocol() != subprotocol {
		ws.Close()
		return nil, fmt.Errorf("upgrade to WebSocket: %s does not speak MQTT", host)
	}
	c := newStream(ws)
	c.mu.Lock()
	c.pings = time.AfterFunc(pingEvery, c.ping)
	c.mu.Unlock()
	return c, nil
}

// stream is a WebSocket as a net.Conn. One reader, any number of writers.
type stream struct {
	ws *websocket.Conn

	// Of the reader.
	message io.Reader // that is being read; nil between two
	failed  error     // gorilla panics when it is read on after an error

	writing sync.Mutex // held while a message is written

	mu     sync.Mutex // guards the fields below
	until  time.Time  // write deadline
	pings  *time.Timer
	closed bool
}

func newStream(ws *websocket.Conn) *stream {
	ws.SetReadLimit(maxMessageBytes)
	return &stream{ws: ws}
}

func (c *stream) ping() {
	err := c.ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(pingWait))
	c.mu.Lock()
	defer c.mu.Unlock()
	// A link that takes no ping ends by the keep-alive of MQTT.
	if err == nil && !c.closed {
		c.pings.Reset(pingEvery)
	}
}

func (c *stream) Read(p []byte) (int, error) {
	for c.failed == nil {
		if c.message == nil {
			if c.failed = c.next(); c.failed != nil {
				break
			}
		}
		n, err := c.message.Read(p)
		if errors.Is(err, io.EOF) {
			c.message, err = nil, nil
		}
		c.failed = err
		if n > 0 || len(p) == 0 {
			return n, nil
		}
	}
	return 0, c.failed
}

// next begins with the next message.
func (c *stream) next() error {
	kind, message, err := c.ws.NextReader()
	var end *websocket.CloseError
	switch {
	case errors.As(err, &end) && (end.Code == websocket.CloseNormalClosure || end.Code == websocket.CloseGoingAway || end.Code == websocket.CloseAbnormalClosure):
		return io.EOF // the last of the three is a connection that just ended
	case err != nil:
		return err
	case kind != websocket.BinaryMessage:
		return errors.New("read WebSocket: a text message; MQTT is binary")
	}
	c.message = message
	return nil
}

func (c *stream) Write(p []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.mu.Lock()
	until := c.until
	c.mu.Unlock()
	_ = c.ws.SetWriteDeadline(until) // only keeps it
	if err := c.ws.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close ends the connection at once; MQTT has a goodbye of its own.
func (c *stream) Close() error {
	c.mu.Lock()
	c.closed = true
	if c.pings != nil {
		c.pings.Stop()
	}
	c.mu.Unlock()
	return c.ws.Close()
}

func (c *stream) LocalAddr() net.Addr  { return c.ws.LocalAddr() }
func (c *stream) RemoteAddr() net.Addr { return c.ws.RemoteAddr() }

func (c *stream) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *stream) SetReadDeadline(t time.Time) error { return c.ws.SetReadDeadline(t) }

// SetWriteDeadline holds for a write that is under way as well.
func (c *stream) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	c.until = t
	c.mu.Unlock()
	return c.ws.NetConn().SetWriteDeadline(t)
}
