package broker_test

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/edgeherd/edgeherd/controller/broker"
)

// counted is a connection that is missed until it was closed.
type counted struct {
	net.Conn
	close func()
}

func (c counted) Close() error {
	c.close()
	return c.Conn.Close()
}

// TestAProbeLeavesNoConnectionBehind: Mosquitto ends the connection that tries
// to have something retained, and the probe goes on over another one.
func TestAProbeLeavesNoConnectionBehind(t *testing.T) {
	m := startMosquitto(t, nil)
	p := m.probe()
	var open, all atomic.Int64
	p.Remote.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		open.Add(1)
		all.Add(1)
		return counted{conn, sync.OnceFunc(func() { open.Add(-1) })}, nil
	}
	if err := p.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, "all connections are closed", func() bool { return open.Load() == 0 })
	if all.Load() < 5 {
		t.Errorf("the probe made %d connections, so this test shows nothing", all.Load())
	}
}

// deadly is a connection in the middle of which the broker dies.
type deadly struct {
	net.Conn
	left int
	kill func()
}

func (c *deadly) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.left -= n; c.left <= 0 {
		c.kill()
	}
	return n, err
}

// A controller that starts while the broker is restarted must not take what is
// lost by that for wrong settings, for it ends with those.
func TestABrokerThatDiesWhileItIsProbedIsNotCalledUnfit(t *testing.T) {
	m := startMosquitto(t, nil)
	p := m.probe()
	dials := 0
	p.Remote.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if dials++; err == nil && dials == 5 { // the one for which 3000 messages wait
			conn = &deadly{conn, 90_000, sync.OnceFunc(m.kill)} // more than the window lets through
		}
		return conn, err
	}
	if err := p.Run(t.Context()); err == nil || errors.Is(err, broker.ErrUnfit) {
		t.Errorf("got %v, want an error to try again after", err)
	}
	if dials < 6 {
		t.Errorf("%d connections only: nothing died", dials)
	}
}

func TestAnAddressOfABrokerHoldsNoSecretsAndErrorsRepeatNone(t *testing.T) {
	for _, tc := range []struct{ url, want string }{
		{"mqtts://fleet:hunter2@mqtt.example.com:8883", "username and password_file"},
		{"mqtts://fleet:hunter2 @mqtt.example.com:8883", "not an address"},
		{"mqtts://mqtt.example.com", "want mqtts://host:port"},
		{"mqtts://nats-1.example.com:8883,nats-2.example.com:8883", "want mqtts://host:port"},
		{"mqtts://mqtt.example.com:8883/mqtt", "nothing more"},
		{"mqtt://mqtt.example.com:1883", "without TLS"},
	} {
		_, err := broker.NewExternal(broker.ExternalOptions{Remote: broker.Remote{URL: tc.url, TLS: &tls.Config{}}, Sink: &heard{}}, slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v, want %q and no password", tc.url, err, tc.want)
		}
	}
}
