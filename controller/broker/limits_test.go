package broker_test

import (
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
	"github.com/edgeherd/edgeherd/controller/fault"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/memnet"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// A box that sends too much is read more slowly: it loses nothing, and its
// session stays.
func TestT17AFloodIsSlowedDownAndNotLost(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := start(t, broker.Options{MessageRate: 10})
		c := b.join(boxA, sid1)
		began := time.Now()
		for range 100 {
			c.write(publishPacket(wire.TopicData.For(boxA), "x", 1))
			if _, ok := c.read().(*packets.PubackPacket); !ok {
				t.Fatal("no PUBACK")
			}
		}
		if took := time.Since(began); took < 5*time.Second || took > 12*time.Second {
			t.Errorf("100 messages at 10/s took %v", took)
		}
		if n := len(b.sink.all()); n != 100 {
			t.Errorf("sink got %d", n)
		}
	})
}

func TestABoxMayNotConnectWithoutEnd(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := start(t, broker.Options{})
		refused := 0
		for range 200 {
			c := b.dial(broker.Peer{ID: boxA})
			c.Close()
			if err := <-c.end; err != nil && errors.Is(err, broker.ErrOffence) {
				refused++
			}
		}
		if refused < 150 {
			t.Errorf("%d of 200 connections at once were refused", refused)
		}
		if other := b.join(boxB, sid1); !other.isOpen() {
			t.Error("another box cannot connect")
		}
		time.Sleep(time.Minute)
		b.join(boxA, sid1)
	})
}

// A box that does not read holds up neither who publishes to it nor anybody
// else, and its session ends.
func TestABoxThatDoesNotReadHoldsUpNobody(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := start(t, broker.Options{})
		deaf, other := b.join(boxA, sid1), b.join(boxB, sid1)
		began := time.Now()
		for range 200 { // memnet takes some of it, as a kernel does
			if b.Publish(boxA, wire.TopicWant, make([]byte, 60_000), 1) != nil {
				break
			}
		}
		if err := b.Publish(boxB, wire.TopicWant, []byte("hi"), 1); err != nil {
			t.Fatal(err)
		}
		if _, ok := other.read().(*packets.PublishPacket); !ok || time.Since(began) > time.Second {
			t.Errorf("another box waited %v", time.Since(began))
		}
		select {
		case <-deaf.end:
		case <-time.After(time.Minute):
			t.Error("the session stays")
		}
	})
}

// from gives the connections of a listener addresses, as a balancer does.
type from struct {
	net.Listener
	addr netip.Addr
}

type fromConn struct {
	net.Conn
	addr net.Addr
}

func (l *from) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return fromConn{c, net.TCPAddrFromAddrPort(netip.AddrPortFrom(l.addr, 4711))}, err
}

func (c fromConn) RemoteAddr() net.Addr { return c.addr }

// What is done wrong at one address is held against that one. An IPv6 address
// is its network of 64 bits.
func TestOneAddressSlowsDownNoOther(t *testing.T) {
	for _, tc := range []struct {
		hostile, other string
		slow           bool
	}{
		{"192.0.2.7", "192.0.2.8", false},
		{"192.0.2.7", "192.0.2.7", true},
		{"2001:db8::7", "2001:db8:0:1::7", false},
		{"2001:db8::7", "2001:db8::8", true},
	} {
		inBubble(t, func(t *testing.T) {
			ca, err := identity.OpenCA(t.TempDir(), nil)
			if err != nil {
				t.Fatal(err)
			}
			cert, err := ca.IssueServer([]string{"ctl"})
			if err != nil {
				t.Fatal(err)
			}
			network := memnet.New()
			l, err := network.Listen("ctl:2")
			if err != nil {
				t.Fatal(err)
			}
			entry := &from{Listener: l, addr: netip.MustParseAddr(tc.hostile)}
			start(t, broker.Options{Listeners: []net.Listener{tls.NewListener(entry, ca.ServerTLS(cert, func(identity.ID) error { return nil }))}})
			knock := func() time.Duration { // until the controller refuses what is no TLS
				began := time.Now()
				c, err := network.Dial(t.Context(), "box", "ctl:2")
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				fmt.Fprint(c, "GET / HTTP/1.1\r\n\r\n")
				io.Copy(io.Discard, c)
				return time.Since(began)
			}
			for range 20 {
				knock()
			}
			synctest.Wait()
			entry.addr = netip.MustParseAddr(tc.other)
			if took := knock(); took > 0 != tc.slow {
				t.Errorf("after 20 attacks from %s, %s waits %v", tc.hostile, tc.other, took)
			}
		})
	}
}

// departures blocks in OnDisconnect until it is let go.
type departures struct {
	mu   sync.Mutex
	told []wire.SID
	hold chan struct{}
}

func (d *departures) note(_ context.Context, _ identity.ID, sid wire.SID) {
	<-d.hold
	d.mu.Lock()
	defer d.mu.Unlock()
	d.told = append(d.told, sid)
}

// Thousands that come back at once must not wait until it is stored that
// thousands went.
func TestComingBackDoesNotWaitForTheEndToBeStored(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		d := &departures{hold: make(chan struct{})}
		b := start(t, broker.Options{OnDisconnect: d.note})
		first := b.join(boxB, sid2)
		first.Close() // the one whose end is being stored
		synctest.Wait()
		b.join(boxA, sid1).Close()
		synctest.Wait()
		began := time.Now()
		b.join(boxA, sid1)
		if took := time.Since(began); took > 0 {
			t.Errorf("it waited %v", took)
		}
		close(d.hold)
		synctest.Wait()
		d.mu.Lock()
		if len(d.told) != 1 || d.told[0] != sid2 {
			t.Errorf("told of %v; the other one is back", d.told)
		}
		d.mu.Unlock()
	})
}

// The end of a process that is being told is told before the same process says
// anything again: else its HELLO would be undone.
func TestAProcessComesBackAfterItsEndWasTold(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		d := &departures{hold: make(chan struct{})}
		b := start(t, broker.Options{OnDisconnect: d.note})
		b.join(boxA, sid1).Close()
		synctest.Wait()
		back := b.dial(broker.Peer{ID: boxA})
		back.write(connectPacket(wire.ClientID(boxA, sid1)))
		synctest.Wait()
		if got := b.Sessions(boxA); len(got) != 0 {
			t.Errorf("sessions %v before the end was told", got)
		}
		close(d.hold)
		if ack, ok := back.read().(*packets.ConnackPacket); !ok || ack.ReturnCode != 0 {
			t.Errorf("afterwards: %v", ack)
		}
	})
}

// ACK and PUBACK leave together, ACK first.
func TestWhatTheSinkPublishesComesBeforeThePuback(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var b *bench
		answer := answering(func(id identity.ID) { _ = b.Publish(id, wire.TopicAck, []byte("ack"), 1) })
		b = startWith(t, broker.Options{}, answer)
		c := b.join(boxA, sid1)
		for _, qos := range []byte{1, 0} {
			c.write(publishPacket(wire.TopicData.For(boxA), "x", qos))
			if p, ok := c.read().(*packets.PublishPacket); !ok || string(p.Payload) != "ack" {
				t.Fatalf("QoS %d: first %v", qos, p)
			}
			if qos == 0 {
				continue
			}
			if _, ok := c.read().(*packets.PubackPacket); !ok {
				t.Error("no PUBACK")
			}
		}
	})
}

// answering is a sink that answers.
type answering func(identity.ID)

func (a answering) Deliver(_ context.Context, id identity.ID, _ wire.Topic, _ []byte) error {
	a(id)
	return nil
}

// TestOnlyAFloodWithoutEndIsTrouble: a box that sends what it kept is slowed
// down as well, and has done nothing wrong.
func TestOnlyAFloodWithoutEndIsTrouble(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		book := fault.New(fault.Options{}, slog.New(slog.DiscardHandler))
		b := start(t, broker.Options{MessageRate: 10, Faults: book})
		send := func(c *client, id identity.ID, most time.Duration) {
			for began := time.Now(); time.Since(began) < most; {
				c.write(publishPacket(wire.TopicData.For(id), "x", 1))
				if _, ok := c.read().(*packets.PubackPacket); !ok {
					t.Fatal("no PUBACK")
				}
			}
		}
		backlog := b.join(boxA, sid1)
		send(backlog, boxA, 100*time.Second)
		time.Sleep(10 * time.Second)
		send(backlog, boxA, 100*time.Second)
		send(b.join(boxB, sid1), boxB, 5*time.Minute)
		if got := book.Pending(boxA); len(got) != 0 {
			t.Errorf("a backlog: %+v", got)
		}
		if got := book.Pending(boxB); len(got) != 1 || got[0].Cause != fault.Flood || got[0].Count != 2 {
			t.Errorf("a flood: %+v", got)
		}
	})
}
