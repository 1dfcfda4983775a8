package sparkplug

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/edgeherd/edgeherd/controller/export"
)

// The client of a session is used as agent/link uses it: a new one for each
// connection, no reconnecting and no store of its own. Handlers only pass on.

// Deadlines towards the broker.
const (
	connectTimeout = 20 * time.Second
	answerTimeout  = 30 * time.Second
	writeTimeout   = 15 * time.Second
)

// session is one MQTT connection.
type session struct {
	b      *Bridge
	client mqtt.Client
	bdSeq  uint8
	born   bool
	lost   chan error    // buffer 1: why the connection ended
	again  chan struct{} // buffer 1: a host wants a rebirth
	state  chan []byte   // buffer 1: the newest STATE of the primary host
}

// session connects, publishes until the connection or ctx ends or another
// controller leads, and takes leave.
func (b *Bridge) session(ctx context.Context) error {
	s := &session{b: b, lost: make(chan error, 1), again: make(chan struct{}, 1), state: make(chan []byte, 1)}
	if err := s.connect(ctx); err != nil {
		return err
	}
	err := s.run(ctx)
	s.leave()
	flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	// What is not saved is sent again, as historical.
	return errors.Join(err, b.reader.Flush(flush))
}

func tlsOf(o *Options) (*tls.Config, error) {
	u, err := url.Parse(o.Broker)
	if err != nil || u.Scheme != "mqtts" {
		return nil, err
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: u.Hostname()}
	if o.CAFile == "" {
		return c, nil
	}
	c.RootCAs, err = export.Roots(o.CAFile)
	return c, err
}

func (b *Bridge) dial(ctx context.Context) (net.Conn, error) {
	u, err := url.Parse(b.opts.Broker)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if b.tls != nil {
		return (&tls.Dialer{Config: b.tls}).DialContext(ctx, "tcp", u.Host)
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", u.Host)
}

// nextBdSeq takes the next number. It is drawn for each CONNECT that leaves,
// after the dial and before the packet: hosts expect steps of one.
func (s *session) nextBdSeq(ctx context.Context) error {
	name := s.b.cursor("bdSeq")
	at, err := s.b.opts.Cursors.Cursor(ctx, name)
	if err != nil {
		return fmt.Errorf("read bdSeq: %w", err)
	}
	if err := s.b.opts.Cursors.SetCursor(ctx, name, at+1); err != nil {
		return fmt.Errorf("save bdSeq: %w", err)
	}
	s.bdSeq = uint8(at % 256)
	return nil
}

func (s *session) connect(ctx context.Context) error {
	conn, err := s.b.dial(ctx)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", s.b.opts.Broker, err)
	}
	if err := s.nextBdSeq(ctx); err != nil {
		conn.Close()
		return err
	}
	o, n := &s.b.opts, s.b.node
	opts := mqtt.NewClientOptions().
		AddBroker("tcp://broker"). // not dialled: see SetCustomOpenConnectionFn
		SetClientID("edgeherd-"+o.Group+"-"+o.Node).
		SetProtocolVersion(4).
		SetAutoReconnect(false).SetConnectRetry(false).
		SetCleanSession(true).SetOrderMatters(false).
		SetStore(mqtt.NewMemoryStore()).
		SetKeepAlive(o.KeepAlive).SetPingTimeout(10*time.Second).
		SetWriteTimeout(writeTimeout).SetConnectTimeout(connectTimeout).
		SetBinaryWill(n.topic("NDEATH", ""), death(o.WallClock().UnixMilli(), s.bdSeq), 1, false).
		SetDefaultPublishHandler(s.receive).
		SetConnectionLostHandler(func(_ mqtt.Client, err error) { s.end(err) }).
		SetCustomOpenConnectionFn(func(*url.URL, mqtt.ClientOptions) (net.Conn, error) { return conn, nil })
	if o.User != "" {
		secret, err := os.ReadFile(o.PasswordFile)
		if err != nil {
			conn.Close()
			return fmt.Errorf("read password for the broker: %w", err)
		}
		opts.SetUsername(o.User).SetPassword(strings.TrimSpace(string(secret)))
	}
	s.client = mqtt.NewClient(opts)
	if err := wait(ctx, s.client.Connect(), "CONNECT"); err != nil {
		conn.Close()
		s.client.Disconnect(0)
		return err
	}
	return nil
}

// wait waits for an answer of the broker.
func wait(ctx context.Context, t mqtt.Token, what string) error {
	select {
	case <-t.Done():
		if err := t.Error(); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		return nil
	case <-time.After(answerTimeout):
		return fmt.Errorf("%s: no answer within %s", what, answerTimeout)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *session) end(err error) {
	select {
	case s.lost <- err:
	default:
	}
}

// receive runs on goroutines of the client and must not wait.
func (s *session) receive(_ mqtt.Client, m mqtt.Message) {
	if m.Topic() == s.stateTopic() {
		// The newest one counts; two at once would be a host that flaps.
		select {
		case <-s.state:
		default:
		}
		select {
		case s.state <- m.Payload():
		default:
		}
		return
	}
	cmds, err := decodeCommand(m.Payload())
	if err != nil {
		s.b.log.Debug("command not understood", "err", err)
		return
	}
	for _, c := range cmds {
		if c.name == rebirth && c.on {
			select {
			case s.again <- struct{}{}:
			default:
			}
		}
	}
}

func (s *session) stateTopic() string { return "spBv1.0/STATE/" + s.b.opts.PrimaryHost }

// run subscribes, waits for the primary host, and publishes.
func (s *session) run(ctx context.Context) error {
	filters := map[string]byte{s.b.node.topic("NCMD", ""): 1}
	if s.b.opts.PrimaryHost != "" {
		filters[s.stateTopic()] = 1
	}
	if err := wait(ctx, s.client.SubscribeMultiple(filters, nil), "SUBSCRIBE"); err != nil {
		return err
	}
	if err := s.awaitHost(ctx); err != nil {
		return err
	}
	if ctx.Err() != nil || !s.b.opts.Leader() {
		return nil
	}
	boxes, err := s.b.opts.Boxes(ctx)
	if err != nil {
		return fmt.Errorf("list boxes: %w", err)
	}
	s.b.node.enlist(boxes)
	s.born = true
	if err := s.publish(ctx, s.b.node.birth(s.nowMs(), s.bdSeq)); err != nil {
		return err
	}
	s.b.opts.Metrics.Up(true)
	if s.b.down {
		s.b.down = false
		s.b.log.Info("sparkplug goes on")
	}
	return s.pump(ctx)
}

func (s *session) nowMs() int64 { return s.b.opts.WallClock().UnixMilli() }

// pump publishes samples and changes of boxes.
func (s *session) pump(ctx context.Context) error {
	presence := time.NewTicker(s.b.opts.Presence)
	defer presence.Stop()
	poll := time.NewTimer(0)
	defer poll.Stop()
	for s.b.opts.Leader() {
		select {
		case <-ctx.Done():
			return nil
		case err := <-s.lost:
			return fmt.Errorf("connection lost: %w", err)
		case <-s.again:
			if err := s.publish(ctx, s.b.node.birth(s.nowMs(), s.bdSeq)); err != nil {
				return err
			}
		case body := <-s.state:
			if online, news := s.b.host.hear(body); news && !online {
				return errHostAway
			}
		case <-presence.C:
			boxes, err := s.b.opts.Boxes(ctx)
			if err != nil {
				return fmt.Errorf("list boxes: %w", err)
			}
			if err := s.publish(ctx, s.b.node.presence(boxes, s.nowMs())); err != nil {
				return err
			}
		case <-poll.C:
			more, err := s.page(ctx)
			if err != nil {
				return err
			}
			if poll.Reset(s.b.opts.Poll); more {
				poll.Reset(0)
			}
		}
	}
	return nil
}

// page publishes one page of the store and reports whether there was one.
func (s *session) page(ctx context.Context) (bool, error) {
	page, last, err := s.b.reader.Next(ctx)
	if err != nil {
		return false, err
	}
	samples := 0
	for _, t := range page {
		messages := s.b.node.data(t, s.nowMs())
		if err := s.publish(ctx, messages); err != nil {
			return false, err
		}
		for _, m := range messages {
			samples += m.samples
		}
	}
	if samples > 0 {
		// A broker answers in the order in which it was asked: when it has
		// answered this, it has taken the messages before, which are QoS 0.
		if err := wait(ctx, s.client.Unsubscribe(s.b.node.topic("NCMD", "")+"/none"), "UNSUBSCRIBE"); err != nil {
			return false, err
		}
		s.b.opts.Metrics.Samples(samples)
	}
	err = s.b.reader.Done(ctx, last)
	s.b.opts.Metrics.At(s.b.reader.Position(), len(page) == 0)
	return len(page) > 0, err
}

// publish sends messages in their order, at QoS 0 and not retained.
func (s *session) publish(ctx context.Context, messages []message) error {
	var last mqtt.Token
	for _, m := range messages {
		if !s.client.IsConnectionOpen() {
			return fmt.Errorf("publish %s: connection is not open", m.topic)
		}
		last = s.client.Publish(m.topic, 0, false, m.payload)
		s.b.opts.Metrics.Sent("ok")
	}
	if last == nil {
		return nil
	}
	return wait(ctx, last, "publish")
}

// leave says NDEATH before DISCONNECT, which makes the broker forget the Will.
func (s *session) leave() {
	if s.born && s.client.IsConnectionOpen() {
		t := s.client.Publish(s.b.node.topic("NDEATH", ""), 1, false, death(s.nowMs(), s.bdSeq))
		t.WaitTimeout(2 * time.Second)
	}
	s.client.Disconnect(250)
}

// hostState is what the primary host last said of itself.
type hostState struct {
	last int64 // timestamp of the newest STATE
}

// hear reads a STATE. One that is older than another heard before says nothing:
// a broker may hold what a host said in an earlier life.
func (h *hostState) hear(body []byte) (online, news bool) {
	var state struct {
		Online    bool  `json:"online"`
		Timestamp int64 `json:"timestamp"`
	}
	if json.Unmarshal(body, &state) != nil || state.Timestamp < h.last {
		return false, false
	}
	h.last = state.Timestamp
	return state.Online, true
}

// awaitHost waits until the primary host is online. Births before that would be
// heard by nobody.
func (s *session) awaitHost(ctx context.Context) error {
	if s.b.opts.PrimaryHost == "" {
		return nil
	}
	poll := time.NewTicker(s.b.opts.Poll)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-s.lost:
			return fmt.Errorf("connection lost: %w", err)
		case body := <-s.state:
			if online, _ := s.b.host.hear(body); online {
				return nil
			}
		case <-poll.C:
			if !s.b.opts.Leader() {
				return nil
			}
		}
	}
}
