package controller

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/edgeherd/edgeherd/controller/broker"
	"github.com/edgeherd/edgeherd/controller/fault"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// ExternalBroker is an MQTT broker of others through which boxes are reached,
// instead of the embedded one.
type ExternalBroker struct {
	URL string // see broker.Remote; empty means the embedded broker
	// Shared: the broker has shared subscriptions for MQTT 3.1.1.
	Shared bool
	// CA, Cert and Key are PEM files. CA is what the broker's certificate is
	// judged by, default our own. Cert and Key prove this controller; by default
	// our CA certifies it as broker.ControllerName.
	CA, Cert, Key string
	// Username and PasswordFile are for brokers that ask for them as well.
	Username, PasswordFile string
	// Silence is how long nothing may be heard of a box before it counts as
	// gone, in case the broker does not tell. Default 3 min: three times the
	// keep-alive of agents.
	Silence time.Duration
}

// openBroker prepares the embedded broker, and the connection to another one
// if there is one. The embedded one serves WebSockets in either case.
func (c *Controller) openBroker() (err error) {
	opts := broker.Options{Sink: sink{c}, OnDisconnect: c.left, Greet: c.greet, Faults: c.faults, WallClock: c.opts.WallClock}
	if c.mqtt != nil {
		opts.Listeners = append(opts.Listeners, c.mqtt)
	}
	if c.broker, err = broker.New(opts, c.log); err != nil {
		return fmt.Errorf("prepare broker: %w", err)
	}
	x := c.opts.Broker
	if x.URL == "" {
		return nil
	}
	r := broker.Remote{URL: x.URL, Username: x.Username}
	if x.PasswordFile != "" {
		text, err := os.ReadFile(x.PasswordFile)
		if err != nil {
			return fmt.Errorf("read the password for the broker: %w", err)
		}
		r.Password = strings.TrimRight(string(text), "\r\n")
	}
	if r.TLS, err = c.remoteTLS(x); err != nil {
		return err
	}
	probe := broker.Probe{Remote: r, Shared: x.Shared, BoxTLS: c.probeTLS(r.TLS), Log: c.log}
	c.remote, err = broker.NewExternal(broker.ExternalOptions{
		Remote: r, Sink: remoteSink{c, &marks{at: map[identity.ID]time.Time{}}}, Known: c.mayTalk, Faults: c.faults, Shared: x.Shared,
		Lead: c.leads, Probe: probe.Run,
	}, c.log)
	return err
}

// remoteTLS is how this controller proves itself to the broker.
func (c *Controller) remoteTLS(x ExternalBroker) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.ca.Pool(), Time: c.opts.WallClock}
	if x.CA != "" {
		text, err := os.ReadFile(x.CA)
		if err != nil {
			return nil, fmt.Errorf("read the CA of the broker: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s, the CA of the broker, holds no certificate", x.CA)
		}
	}
	if (x.Cert == "") != (x.Key == "") {
		return nil, errors.New("broker: cert and key go together")
	}
	if x.Cert != "" {
		pair, err := tls.LoadX509KeyPair(x.Cert, x.Key)
		cfg.Certificates = []tls.Certificate{pair}
		if err != nil {
			return nil, fmt.Errorf("read the certificate for the broker: %w", err)
		}
		return cfg, nil
	}
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		cert, err := c.ca.IssueClient(broker.ControllerName) // fresh for each connection
		return &cert, err
	}
	return cfg, nil
}

// probeTLS makes certificates of boxes that do not exist.
func (c *Controller) probeTLS(base *tls.Config) func(identity.ID) (*tls.Config, error) {
	return func(id identity.ID) (*tls.Config, error) {
		cert, err := c.ca.IssueProbe(id)
		cfg := base.Clone()
		cfg.GetClientCertificate, cfg.Certificates = nil, []tls.Certificate{cert}
		return cfg, err
	}
}

// marks remembers when boxes were last noted as heard.
type marks struct {
	mu sync.Mutex // guards at
	at map[identity.ID]time.Time
}

// markEvery is how often the database is asked whether it knows that a box is
// there.
const markEvery = time.Minute

// due reports whether a box is to be noted now, and takes it as done.
func (m *marks) due(id identity.ID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if now.Sub(m.at[id]) < markEvery {
		return false
	}
	m.at[id] = now
	return true
}

// remoteSink is sink for a broker that does not tell who is connected: a box
// is there when it is heard, and gone with its Will or after a silence.
type remoteSink struct {
	c     *Controller
	marks *marks
}

func (s remoteSink) Deliver(ctx context.Context, id identity.ID, topic wire.Topic, payload []byte) error {
	if topic == wire.TopicWill {
		will, err := wire.Decode[wire.Will](payload)
		if err != nil {
			s.c.faults.Note(id, fault.Malformed, 1, err)
			return fmt.Errorf("%w: %w", broker.ErrMalformed, err)
		}
		// One of an earlier session says nothing of the present one.
		gone, err := s.c.store.EndSession(ctx, id, will.SID, will.Conn)
		if gone {
			s.c.boxChanged(id)
		}
		return err
	}
	if err := (sink{s.c}).Deliver(ctx, id, topic, payload); err != nil || !s.marks.due(id) {
		return err
	}
	came, err := s.c.store.Heard(ctx, id)
	if came {
		s.c.boxChanged(id)
	}
	return err
}

// tell sends a message to a box, by whichever way it is connected.
func (c *Controller) tell(id identity.ID, topic wire.Topic, payload []byte, qos byte) error {
	if topic == wire.TopicWant {
		if held, err := c.withheld(id); err != nil || held {
			return err
		}
	}
	err := c.broker.Publish(id, topic, payload, qos)
	if !errors.Is(err, broker.ErrNotConnected) {
		return err
	}
	if c.remote != nil {
		if c.node != nil && topic == wire.TopicWant {
			// It may have come in by the pages of another controller, of which the
			// broker knows nothing.
			c.node.TellAll(id, topic, nil)
		}
		return c.remote.Publish(id, topic, payload, qos)
	}
	// Answers belong to the session that asked; the rest is for the box.
	if c.node != nil && (topic == wire.TopicWant || topic == wire.TopicCmd) {
		return c.node.Tell(id, topic, payload)
	}
	return err
}
