package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// Remote says where a broker of others is and how it knows this controller.
type Remote struct {
	// URL is mqtts://host:port, or mqtt://host:port on loopback; of a cluster,
	// those of several servers, separated by commas: one that answers is used.
	URL string
	// TLS has the certificate of this controller and the roots to trust.
	TLS *tls.Config
	// Username and Password are sent when Username is not empty.
	Username, Password string
	// Dial opens TCP connections; nil means net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

func (r Remote) check() error {
	for _, one := range r.servers() {
		if err := r.checkServer(one); err != nil {
			return err
		}
	}
	return nil
}

// servers are the addresses in URL.
func (r Remote) servers() []string { return strings.Split(r.URL, ",") }

func (r Remote) checkServer(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil: // it may hold a password
		return errors.New("broker url: not an address; want mqtts://host:port")
	case u.User != nil:
		return errors.New("broker url: a user or password is in the address; use the keys username and password_file below broker")
	case u.Hostname() == "" || u.Port() == "" || u.Path != "" && u.Path != "/" || u.RawQuery+u.Fragment != "":
		return fmt.Errorf("broker url %q: want mqtts://host:port and nothing more", address)
	case u.Scheme == "mqtts" && r.TLS != nil:
		return nil
	case u.Scheme == "mqtt" && net.ParseIP(u.Hostname()).IsLoopback():
		return nil
	case u.Scheme == "mqtt":
		return fmt.Errorf("broker url %q: without TLS it must be an address of this machine, such as mqtt://127.0.0.1:1883", address)
	}
	return fmt.Errorf("broker url %q: want mqtts://host:port", address)
}

// connection is one paho client with its loss.
type connection struct {
	mqtt.Client
	lost chan error // buffer 1: paho reports the loss once
}

// connect opens a connection to the first server that lets us in. All are tried
// each time: which one is well is known no better than by asking.
func (r Remote) connect(ctx context.Context, client string, receive mqtt.MessageHandler) (*connection, error) {
	var errs []error
	for _, address := range r.servers() {
		c, err := r.connectTo(ctx, address, client, receive)
		if err == nil {
			return c, nil
		}
		if errs = append(errs, err); ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// connectTo opens one connection. The options are those of agent/link and for
// the same reasons, but two: messages are acknowledged by hand, and in order,
// which is safe since the handler never waits.
func (r Remote) connectTo(ctx context.Context, address, client string, receive mqtt.MessageHandler) (*connection, error) {
	c := &connection{lost: make(chan error, 1)}
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	o := mqtt.NewClientOptions().
		AddBroker("tcp://" + u.Host). // dialled below
		SetClientID(client).
		SetProtocolVersion(4).
		SetAutoReconnect(false).
		SetConnectRetry(false).
		SetCleanSession(true).
		SetOrderMatters(true).
		SetAutoAckDisabled(true).
		SetStore(mqtt.NewMemoryStore()).
		SetKeepAlive(keepAlive).
		SetPingTimeout(pingTimeout).
		SetWriteTimeout(writeTimeout).
		SetConnectTimeout(dialTimeout).
		SetDefaultPublishHandler(receive).
		SetConnectionLostHandler(func(_ mqtt.Client, err error) { c.lost <- err }).
		SetCustomOpenConnectionFn(func(*url.URL, mqtt.ClientOptions) (net.Conn, error) { return r.dial(ctx, u) })
	if r.Username != "" {
		o.SetUsername(r.Username).SetPassword(r.Password)
	}
	c.Client = mqtt.NewClient(o)
	token := c.Connect()
	select {
	case <-token.Done():
	case <-ctx.Done():
		c.Disconnect(0)
		return nil, ctx.Err()
	}
	if err := token.Error(); err != nil {
		return nil, fmt.Errorf("connect to broker %s: %w", address, err)
	}
	return c, nil
}

func (r Remote) dial(ctx context.Context, u *url.URL) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	dial := r.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	conn, err := dial(ctx, "tcp", u.Host)
	if err != nil || u.Scheme != "mqtts" {
		return conn, err
	}
	cfg := r.TLS.Clone()
	if cfg.ServerName == "" {
		cfg.ServerName = u.Hostname()
	}
	tc := tls.Client(conn, cfg)
	if err := tc.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return tc, nil
}

func (c *connection) close() { c.Disconnect(quiesce) }

// wait waits for a token, not for ever.
func (c *connection) wait(ctx context.Context, token mqtt.Token, what string) error {
	select {
	case <-token.Done():
		if err := token.Error(); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		return nil
	case err := <-c.lost:
		c.lost <- err // for whoever waits next
		return fmt.Errorf("%s: %w", what, err)
	case <-time.After(answerWithin):
		return fmt.Errorf("%s: the broker did not answer within %s", what, answerWithin)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *connection) subscribe(ctx context.Context, topics map[string]byte) error {
	token := c.SubscribeMultiple(topics, nil)
	if err := c.wait(ctx, token, "subscribe"); err != nil {
		return err
	}
	if st, ok := token.(*mqtt.SubscribeToken); ok {
		for topic, code := range st.Result() {
			if code > 2 {
				return fmt.Errorf("subscribe: the broker refused %s", topic)
			}
		}
	}
	return nil
}
