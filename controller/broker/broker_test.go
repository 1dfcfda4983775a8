package broker_test

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/edgeherd/edgeherd/controller/broker"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/memnet"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// sink takes messages and answers with err.
type sink struct {
	mu  sync.Mutex
	err error
	got []string
}

func (s *sink) Deliver(_ context.Context, id identity.ID, topic wire.Topic, payload []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	s.got = append(s.got, fmt.Sprintf("%s %s %s", id, topic, payload))
	return nil
}

func (s *sink) set(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *sink) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.got...)
}

// bench is a broker on a network in memory; peers are given, not proved.
type bench struct {
	*broker.Broker
	t     *testing.T
	net   *memnet.Network
	sink  *sink
	list  net.Listener
	serve func(net.Conn, broker.Peer) error
}

func start(t *testing.T, opts broker.Options) *bench {
	t.Helper()
	return startWith(t, opts, nil)
}

// startWith uses a sink of the test's own; nil means one that keeps everything.
func startWith(t *testing.T, opts broker.Options, own broker.Sink) *bench {
	t.Helper()
	b := &bench{t: t, net: memnet.New(), sink: &sink{}}
	if opts.Sink = own; own == nil {
		opts.Sink = b.sink
	}
	var err error
	if b.Broker, err = broker.New(opts, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	b.serve = func(conn net.Conn, peer broker.Peer) error { return b.ServeConn(ctx, conn, peer) }
	if b.list, err = b.net.Listen("ctl:1"); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		b.list.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return b
}

// client is a raw MQTT 3.1.1 client.
type client struct {
	net.Conn
	t        *testing.T
	end      chan error    // of ServeConn
	patience time.Duration // for a packet; 5 s if 0, which is long in a bubble
}

func (b *bench) dial(peer broker.Peer) *client {
	b.t.Helper()
	c := &client{t: b.t, end: make(chan error, 1)}
	go func() {
		conn, err := b.list.Accept()
		if err != nil {
			c.end <- err
			return
		}
		c.end <- b.serve(conn, peer)
	}()
	conn, err := b.net.Dial(b.t.Context(), "box", "ctl:1")
	if err != nil {
		b.t.Fatal(err)
	}
	c.Conn = conn
	b.t.Cleanup(func() { conn.Close() })
	return c
}

func connectPacket(client string) *packets.ConnectPacket {
	p := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	p.ProtocolName, p.ProtocolVersion = "MQTT", 4
	p.ClientIdentifier, p.CleanSession, p.Keepalive = client, true, 60
	return p
}

func withWill(p *packets.ConnectPacket, topic string, payload []byte) *packets.ConnectPacket {
	p.WillFlag, p.WillTopic, p.WillMessage, p.WillQos = true, topic, payload, 1
	return p
}

// join connects a session that works and subscribes to dn/#.
func (b *bench) join(id identity.ID, sid wire.SID) *client {
	b.t.Helper()
	c := b.dial(broker.Peer{ID: id})
	c.write(connectPacket(wire.ClientID(id, sid)))
	if ack, ok := c.read().(*packets.ConnackPacket); !ok || ack.ReturnCode != 0 {
		b.t.Fatalf("CONNACK %v", ack)
	}
	if code := c.subscribe(wire.TopicDown.For(id)); code != 1 {
		b.t.Fatalf("SUBACK %d", code)
	}
	return c
}

func (c *client) write(p packets.ControlPacket) {
	c.t.Helper()
	if err := p.Write(c.Conn); err != nil {
		c.t.Fatal(err)
	}
}

// read returns the next packet, nil if none comes or the connection ends.
func (c *client) read() packets.ControlPacket {
	c.t.Helper()
	c.SetReadDeadline(time.Now().Add(cmp.Or(c.patience, 5*time.Second)))
	p, err := packets.ReadPacket(c.Conn)
	if err != nil {
		return nil
	}
	return p
}

// isOpen tells whether the broker still answers a ping.
func (c *client) isOpen() bool {
	c.t.Helper()
	if err := packets.NewControlPacket(packets.Pingreq).Write(c.Conn); err != nil {
		return false
	}
	for {
		switch c.read().(type) {
		case nil:
			return false
		case *packets.PingrespPacket:
			return true
		}
	}
}

func (c *client) subscribe(filter string) byte {
	c.t.Helper()
	p := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	p.MessageID, p.Topics, p.Qoss = 9, []string{filter}, []byte{1}
	c.write(p)
	ack, ok := c.read().(*packets.SubackPacket)
	if !ok {
		return 0xff
	}
	return ack.ReturnCodes[0]
}

func publishPacket(topic, payload string, qos byte) *packets.PublishPacket {
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.TopicName, p.Payload, p.Qos, p.MessageID = topic, []byte(payload), qos, 7
	return p
}

// inBubble runs a test on fake time.
func inBubble(t *testing.T, fn func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, fn)
}

var (
	boxA, boxB = identity.ID("d-aaaaaaaaaaaaa"), identity.ID("d-bbbbbbbbbbbbb")
	sid1, sid2 = wire.SID{1}, wire.SID{2}
)

func TestPubackFollowsTheSink(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := start(t, broker.Options{})
		c := b.join(boxA, sid1)
		data := publishPacket(wire.TopicData.For(boxA), "x", 1)
		c.write(data)
		if ack, ok := c.read().(*packets.PubackPacket); !ok || ack.MessageID != 7 {
			t.Fatalf("after success: %v", ack)
		}
		for _, err := range []error{errors.New("disk full"), context.Canceled, fmt.Errorf("deep: %w", io.ErrUnexpectedEOF)} {
			b.sink.set(err)
			c.write(data)
			if p := c.read(); p != nil {
				t.Errorf("after %v: %v", err, p)
			}
			if !c.isOpen() {
				t.Fatalf("%v ended the session", err)
			}
		}
		b.sink.set(nil)
		c.write(data)
		if _, ok := c.read().(*packets.PubackPacket); !ok {
			t.Error("no PUBACK after the sink came back")
		}
		b.sink.set(fmt.Errorf("bad bytes: %w", broker.ErrMalformed))
		c.write(data)
		if c.isOpen() {
			t.Error("a malformed message left the session open")
		}
		if got := b.sink.all(); len(got) != 2 || got[0] != string(boxA)+" up/data x" {
			t.Errorf("sink got %v", got)
		}
	})
}

func TestT14ConnectMustFitTheCertificate(t *testing.T) {
	will := func(sid wire.SID) []byte {
		raw, err := wire.Encode(wire.Will{SID: sid, Conn: 1})
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	mine, ours := wire.ClientID(boxA, sid1), wire.TopicWill.For(boxA)
	change := func(fn func(*packets.ConnectPacket)) *packets.ConnectPacket {
		p := connectPacket(mine)
		fn(p)
		return p
	}
	for _, c := range []struct {
		name string
		p    *packets.ConnectPacket
		ok   bool
	}{
		{"own id", connectPacket(mine), true},
		{"own will", withWill(connectPacket(mine), ours, will(sid1)), true},
		{"id of another box", connectPacket(wire.ClientID(boxB, sid1)), false},
		{"id without process", connectPacket(string(boxA)), false},
		{"empty id", connectPacket(""), false},
		{"inline client of the broker", connectPacket("inline"), false},
		{"will of another box", withWill(connectPacket(mine), wire.TopicWill.For(boxB), will(sid1)), false},
		{"will to a data topic", withWill(connectPacket(mine), wire.TopicData.For(boxA), will(sid1)), false},
		{"will to dn", withWill(connectPacket(mine), wire.TopicWelcome.For(boxA), will(sid1)), false},
		{"will of another process", withWill(connectPacket(mine), ours, will(sid2)), false},
		{"will that is no will", withWill(connectPacket(mine), ours, []byte("offline")), false},
		{"retained will", func() *packets.ConnectPacket {
			p := withWill(connectPacket(mine), ours, will(sid1))
			p.WillRetain = true
			return p
		}(), false},
		{"session that stays", change(func(p *packets.ConnectPacket) { p.CleanSession = false }), false},
		{"no keep-alive", change(func(p *packets.ConnectPacket) { p.Keepalive = 0 }), false},
		{"keep-alive of 18 hours", change(func(p *packets.ConnectPacket) { p.Keepalive = 65535 }), false},
		{"MQTT 3.1", change(func(p *packets.ConnectPacket) { p.ProtocolName, p.ProtocolVersion = "MQIsdp", 3 }), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := start(t, broker.Options{})
				cl := b.dial(broker.Peer{ID: boxA})
				cl.write(c.p)
				ack, ok := cl.read().(*packets.ConnackPacket)
				if got := ok && ack.ReturnCode == 0; got != c.ok {
					t.Errorf("accepted: %v", got)
				}
				if !c.ok && cl.isOpen() {
					t.Error("the connection stays")
				}
			})
		})
	}
}

// TestT13NobodyTakesOverAnothersSession has box B use the client id of box A,
// which is connected.
func TestT13NobodyTakesOverAnothersSession(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := start(t, broker.Options{})
		victim := b.join(boxA, sid1)
		thief := b.dial(broker.Peer{ID: boxB})
		thief.write(connectPacket(wire.ClientID(boxA, sid1)))
		if p := thief.read(); p != nil {
			t.Errorf("the thief got %v", p)
		}
		if !victim.isOpen() {
			t.Error("the victim was disconnected")
		}
		if err := b.Publish(boxA, wire.TopicCmd, []byte("x"), 0); err != nil {
			t.Error(err)
		}
	})
}

func TestT12T15TopicsAreTheBoxsOwn(t *testing.T) {
	a := func(s string) string { return "eh/1/default/" + string(boxA) + "/" + s }
	other := "eh/1/default/" + string(boxB) + "/"
	for topic, ok := range map[string]bool{
		a("up/hello"): true, a("up/data"): true, a("up/live"): true,
		a("up/other"): false, a("will"): true, other + "will": false, a("dn/ack"): false, a("up/data/x"): false, a("up"): false,
		other + "up/data": false, other + "dn/ack": false, "eh/2/default/" + string(boxA) + "/up/data": false,
		"$SYS/broker/version": false, "eh/1/ctl/run": false, "x": false,
	} {
		t.Run("publish "+topic, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := start(t, broker.Options{})
				c := b.join(boxA, sid1)
				c.write(publishPacket(topic, "x", 1))
				if _, got := c.read().(*packets.PubackPacket); got != ok || (len(b.sink.all()) == 1) != ok {
					t.Errorf("taken: %v, sink %v", got, b.sink.all())
				}
			})
		})
	}
	for filter, ok := range map[string]bool{
		a("dn/#"): true, a("dn/ack"): true,
		a("#"): false, a("up/#"): false, a("dn/+"): false, a("will"): false, other + "dn/#": false, other + "dn/ack": false,
		"#": false, "+/+/+/+/dn/#": false, "$SYS/#": false, "$share/g/" + a("dn/#"): false, "eh/1/default/+/dn/#": false,
	} {
		t.Run("subscribe "+filter, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := start(t, broker.Options{})
				c := b.join(boxA, sid1)
				if got := c.subscribe(filter); (got == 1) != ok {
					t.Errorf("SUBACK %d", got)
				}
			})
		})
	}
}

func TestWhatTheProtocolHasNoUseForEndsTheSession(t *testing.T) {
	retained := publishPacket(wire.TopicData.For(boxA), "x", 1)
	retained.Retain = true
	for name, p := range map[string]packets.ControlPacket{
		"retained":       retained,
		"QoS 2":          publishPacket(wire.TopicData.For(boxA), "x", 2),
		"second CONNECT": connectPacket(wire.ClientID(boxA, sid1)),
		"too large":      publishPacket(wire.TopicData.For(boxA), string(make([]byte, wire.MaxMessageBytes+1024)), 1),
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := start(t, broker.Options{})
				c := b.join(boxA, sid1)
				p.Write(c.Conn)
				if c.isOpen() {
					t.Error("the session stays")
				}
				if got := b.sink.all(); len(got) != 0 {
					t.Errorf("sink got %d messages", len(got))
				}
			})
		})
	}
}

func TestMessagesGoDownToAllSessionsOfTheBoxAlone(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := start(t, broker.Options{})
		one, two, other := b.join(boxA, sid1), b.join(boxA, sid2), b.join(boxB, sid1)
		if err := b.Publish(boxA, wire.TopicAck, []byte("hi"), 1); err != nil {
			t.Fatal(err)
		}
		for _, c := range []*client{one, two} {
			p, ok := c.read().(*packets.PublishPacket)
			if !ok || string(p.Payload) != "hi" || p.Qos != 0 || p.Retain {
				t.Errorf("got %v", p)
			}
		}
		if p := other.read(); p != nil {
			t.Errorf("another box got %v", p)
		}
		err := b.Publish("d-ccccccccccccc", wire.TopicAck, nil, 1)
		if !errors.Is(err, broker.ErrNotConnected) {
			t.Errorf("to nobody: %v", err)
		}
	})
}

func TestAReplacedSessionLeavesNothingBehind(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var log []string
		var mu sync.Mutex
		note := func(what string) func(identity.ID, wire.SID) {
			return func(id identity.ID, sid wire.SID) {
				mu.Lock()
				defer mu.Unlock()
				log = append(log, fmt.Sprint(what, sid[0]))
			}
		}
		minus := note("-")
		b := start(t, broker.Options{OnConnect: note("+"), OnDisconnect: func(_ context.Context, id identity.ID, sid wire.SID) { minus(id, sid) }})
		for range 20 {
			b.net.SetLatency(0)
			b.join(boxA, sid1)
		}
		last := b.join(boxA, sid1)
		if err := b.Publish(boxA, wire.TopicCmd, []byte("x"), 0); err != nil {
			t.Fatal(err)
		}
		if p, ok := last.read().(*packets.PublishPacket); !ok {
			t.Errorf("got %v", p)
		}
		if got := b.Sessions(boxA); len(got) != 1 {
			t.Errorf("sessions %v", got)
		}
		last.Close()
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		for i, e := range log {
			if want := []string{"+1", "-1"}[i%2]; e != want {
				t.Fatalf("presence %v", log)
			}
		}
		// A process that was back before its end was told is told of by neither.
		if len(log) < 2 || len(log)%2 != 0 || len(b.Sessions(boxA)) != 0 {
			t.Errorf("presence %v", log)
		}
	})
}

func TestABoxHasTwoSessionsAtMost(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := start(t, broker.Options{})
		b.join(boxA, sid1)
		two := b.join(boxA, sid2)
		third := b.dial(broker.Peer{ID: boxA})
		third.write(connectPacket(wire.ClientID(boxA, wire.SID{3})))
		if p := third.read(); p != nil {
			t.Errorf("the third got %v", p)
		}
		two.Close()
		synctest.Wait()
		b.join(boxA, wire.SID{3})
	})
}

// TestTheEndOfTheBrokerWaitsForNobodyWhoIsGreeted: whoever is asked who the box
// is may be slow, as a database is that is going down as well.
func TestTheEndOfTheBrokerWaitsForNobodyWhoIsGreeted(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := start(t, broker.Options{Greet: func(ctx context.Context, _ broker.Peer, _ netip.Addr) error {
			<-ctx.Done()
			return ctx.Err()
		}})
		ctx, end := context.WithCancel(t.Context())
		b.serve = func(conn net.Conn, peer broker.Peer) error { return b.ServeConn(ctx, conn, peer) }
		c := b.dial(broker.Peer{ID: boxA})
		c.write(connectPacket(wire.ClientID(boxA, wire.SID{1})))
		synctest.Wait()
		began := time.Now()
		end()
		if err := <-c.end; time.Since(began) > 0 || errors.Is(err, broker.ErrOffence) {
			t.Errorf("it ended %s later with %v, want at once and no offence", time.Since(began), err)
		}
	})
}

func TestSessionsEndWithTheCertificate(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := start(t, broker.Options{SessionAge: 24 * time.Hour})
		for _, c := range []struct {
			left     time.Duration
			min, max time.Duration
		}{{time.Hour, time.Hour, time.Hour}, {90 * 24 * time.Hour, 21 * time.Hour, 24 * time.Hour}} {
			began := time.Now()
			cl := b.dial(broker.Peer{ID: boxA, NotAfter: began.Add(c.left)})
			cl.write(connectPacket(wire.ClientID(boxA, sid1)))
			cl.read()
			ping := time.NewTicker(30 * time.Second)
			for cl.isOpen() {
				<-ping.C
			}
			ping.Stop()
			if got := time.Since(began); got < c.min || got > c.max+time.Minute {
				t.Errorf("a certificate with %v left gave a session of %v", c.left, got)
			}
		}
		cl := b.dial(broker.Peer{ID: boxA, NotAfter: time.Now().Add(-time.Second)})
		if err := <-cl.end; err == nil {
			t.Error("served an expired certificate")
		}
	})
}

func TestSilenceEndsConnections(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := start(t, broker.Options{HandshakeTimeout: 20 * time.Second})
		mute := b.dial(broker.Peer{ID: boxA})
		began := time.Now()
		<-mute.end
		if got := time.Since(began); got != 20*time.Second {
			t.Errorf("no CONNECT: ended after %v", got)
		}
		idle := b.join(boxA, sid1)
		began = time.Now()
		<-idle.end
		if got := time.Since(began); got != 90*time.Second {
			t.Errorf("keep-alive 60 s: ended after %v", got)
		}
	})
}

func TestDisconnectEndsEverySession(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := start(t, broker.Options{})
		one, two, other := b.join(boxA, sid1), b.join(boxA, sid2), b.join(boxB, sid1)
		b.Disconnect(boxA)
		if one.isOpen() || two.isOpen() || !other.isOpen() {
			t.Error("wrong sessions ended")
		}
	})
}

// TestHostileBytesHurtNobody writes what no client should, before and after
// CONNECT. The broker must answer others afterwards.
func TestHostileBytesHurtNobody(t *testing.T) {
	for name, raw := range map[string][]byte{
		"nothing":              {},
		"TLS hello":            {0x16, 0x03, 0x01, 0x02, 0x00, 0x01},
		"HTTP":                 []byte("GET / HTTP/1.1\r\n\r\n"),
		"endless length":       {0x30, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"huge length":          {0x30, 0xff, 0xff, 0xff, 0x7f},
		"reserved type":        {0x00, 0x00},
		"auth":                 {0xf0, 0x00},
		"short publish":        {0x32, 0x02, 0x00, 0x50},
		"topic with NUL":       {0x30, 0x05, 0x00, 0x03, 'a', 0x00, 'b'},
		"subscribe to nothing": {0x82, 0x02, 0x00, 0x01},
		"pubrel":               {0x62, 0x02, 0x00, 0x01},
		"half a packet":        {0x10, 0x40, 0x00, 0x04, 'M', 'Q'},
		"zeros":                make([]byte, 4096),
	} {
		for _, connected := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " connected ", connected), func(t *testing.T) {
				inBubble(t, func(t *testing.T) {
					b := start(t, broker.Options{})
					var c *client
					if connected {
						c = b.join(boxA, sid1)
					} else {
						c = b.dial(broker.Peer{ID: boxA})
					}
					c.SetWriteDeadline(time.Now().Add(time.Minute))
					c.Write(raw)
					c.Close()
					<-c.end
					if other := b.join(boxB, sid1); !other.isOpen() {
						t.Error("the broker does not answer")
					}
				})
			})
		}
	}
}

// FuzzSession feeds one connection after CONNECT. The broker must stay up, and
// the sink must get nothing but the box's own topics.
func FuzzSession(f *testing.F) {
	f.Add([]byte{0x32, 0x02, 0x00, 0x50})
	for _, p := range []packets.ControlPacket{publishPacket(wire.TopicData.For(boxA), "x", 1), connectPacket("x"), packets.NewControlPacket(packets.Pingreq)} {
		var w writer
		if err := p.Write(&w); err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(w))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		b := start(t, broker.Options{})
		c := b.join(boxA, sid1)
		c.Write(raw)
		c.Close()
		<-c.end
		for _, got := range b.sink.all() {
			if want := string(boxA) + " up/"; len(got) < len(want) || got[:len(want)] != want {
				t.Errorf("sink got %q", got)
			}
		}
	})
}

type writer []byte

func (w *writer) Write(b []byte) (int, error) { *w = append(*w, b...); return len(b), nil }

// TestOnlyProvedBoxesGetThrough uses real TCP and mutual TLS.
func TestOnlyProvedBoxesGetThrough(t *testing.T) {
	ca, err := identity.OpenCA(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.IssueServer([]string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := identity.Enrol(dir, ca, identity.Box{ID: boxA, Server: "127.0.0.1"}); err != nil {
		t.Fatal(err)
	}
	box, err := identity.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	admitted := func(identity.ID) error { return nil }
	b := start(t, broker.Options{Listeners: []net.Listener{tls.NewListener(tcp, ca.ServerTLS(cert, admitted))}})

	conn, err := tls.Dial("tcp", tcp.Addr().String(), box.ClientTLS(nil))
	if err != nil {
		t.Fatal(err)
	}
	c := &client{Conn: conn, t: t, patience: 5 * time.Minute}
	defer conn.Close()
	c.write(connectPacket(wire.ClientID(boxA, sid1)))
	if ack, ok := c.read().(*packets.ConnackPacket); !ok || ack.ReturnCode != 0 {
		t.Fatalf("CONNACK %v", ack)
	}
	c.write(publishPacket(wire.TopicHello.For(boxA), "x", 1))
	if _, ok := c.read().(*packets.PubackPacket); !ok || len(b.sink.all()) != 1 {
		t.Error("no PUBACK")
	}

	nameless := box.ClientTLS(nil)
	nameless.Certificates = nil
	conn, err = tls.Dial("tcp", tcp.Addr().String(), nameless)
	if err == nil {
		defer conn.Close()
		c = &client{Conn: conn, t: t}
		connectPacket(wire.ClientID(boxA, sid1)).Write(conn)
		if p := c.read(); p != nil {
			t.Errorf("without a certificate: %v", p)
		}
	}
	plain, err := net.Dial("tcp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	c = &client{Conn: plain, t: t}
	c.write(connectPacket(wire.ClientID(boxA, sid1)))
	if p, ok := c.read().(*packets.ConnackPacket); ok {
		t.Errorf("without TLS: %v", p)
	}
}
