package broker

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	mathrand "math/rand/v2"
	"slices"
	"sync"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/edgeherd/edgeherd/controller/fault"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// Waits of the connection to a broker of others.
const (
	dialTimeout  = 20 * time.Second // dial, TLS, CONNACK
	answerWithin = 30 * time.Second // SUBACK, PUBACK
	keepAlive    = 30 * time.Second
	pingTimeout  = 10 * time.Second
	writeTimeout = 15 * time.Second
	quiesce      = 250 // milliseconds for DISCONNECT to leave
	minWait      = time.Second
	maxWait      = time.Minute
	leadEvery    = 200 * time.Millisecond
)

// ControllerName is the common name of the certificate that controllers show
// to a broker of others. No box can have it: it is not an identity.ID.
const ControllerName = "edgeherd-controller"

// ExternalOptions configure an External. Remote and Sink are required.
type ExternalOptions struct {
	Remote Remote
	Sink   Sink
	// Known says whether a box may talk at all; after an error it sends again.
	// nil knows all. The topic names the box: that only the box itself can
	// publish there is up to the broker, and proved by Probe.
	Known func(context.Context, identity.ID) (bool, error)
	// Faults counts and logs what is wrong with boxes; nil means that nobody does.
	Faults *fault.Book
	// Shared: the broker has shared subscriptions for MQTT 3.1.1, and all
	// controllers subscribe. Else the one for which Lead holds subscribes alone.
	Shared bool
	// Lead reports whether this controller subscribes when the broker has no
	// shared subscriptions. It is asked five times a second. nil means always.
	Lead func() bool
	// Probe is called once, before the first subscription, and ends Run with its
	// error. nil means none.
	Probe func(context.Context) error
}

// External talks to boxes through a broker of others by one connection. Boxes
// connect to that broker as they do to the embedded one.
//
// The broker is trusted with nothing but the right topic: messages reach the
// sink as they do from the embedded broker, and are acknowledged to the broker
// when the sink has returned, so that what a broker has under way to us is
// bounded by its own window. What the sink refuses, or what finds no room, is
// acknowledged as well, for the box repeats what was not acknowledged to it.
type External struct {
	opts  ExternalOptions
	log   *slog.Logger
	queue *queue

	mu      sync.Mutex // guards the fields below
	client  mqtt.Client
	shed    int                  // arrivals without room since the last was told
	told    time.Time            // when
	strange map[identity.ID]bool // boxes that were refused and named, few
}

// NewExternal prepares the connection; Run opens it.
func NewExternal(opts ExternalOptions, log *slog.Logger) (*External, error) {
	if opts.Sink == nil {
		return nil, errors.New("make external broker: no sink")
	}
	if err := opts.Remote.check(); err != nil {
		return nil, err
	}
	if opts.Lead == nil {
		opts.Lead = func() bool { return true }
	}
	if opts.Known == nil {
		opts.Known = func(context.Context, identity.ID) (bool, error) { return true, nil }
	}
	return &External{opts: opts, log: log, queue: newQueue(), strange: map[identity.ID]bool{}}, nil
}

// Run keeps the connection until ctx ends.
func (x *External) Run(ctx context.Context) error {
	var working sync.WaitGroup
	defer working.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for range workers {
		working.Go(func() { x.queue.work(ctx, func(a arrival) { x.deliver(ctx, a) }) })
	}
	probed, fails := x.opts.Probe == nil, 0
	for ctx.Err() == nil {
		began := time.Now()
		var err error
		if !probed {
			if err = x.opts.Probe(ctx); errors.Is(err, ErrUnfit) {
				return err
			}
			probed = err == nil
		}
		if probed {
			err = x.session(ctx)
		}
		if ctx.Err() != nil {
			break
		}
		if fails++; time.Since(began) > maxWait {
			fails = 0
		}
		wait := minWait + mathrand.N(min(maxWait, minWait<<min(fails, 10)))
		x.log.Warn("no connection to the broker", "broker", x.opts.Remote.URL, "err", err, "wait", wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
	return nil
}

// session is one connection: subscribe as long as this controller leads.
func (x *External) session(ctx context.Context) error {
	c, err := x.opts.Remote.connect(ctx, ControllerName+"-"+nonce(), x.receive)
	if err != nil {
		return err
	}
	defer c.close()
	x.set(c.Client)
	defer x.set(nil)
	x.log.Info("connected to the broker", "broker", x.opts.Remote.URL)
	subscribed := false
	tick := time.NewTicker(leadEvery)
	defer tick.Stop()
	for {
		if lead := x.opts.Shared || x.opts.Lead(); lead != subscribed {
			if err := x.subscribe(ctx, c, lead); err != nil {
				return err
			}
			subscribed = lead
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-c.lost:
			return err
		case <-tick.C:
		}
	}
}

// filters are what a controller listens to.
func filters(shared bool) map[string]byte {
	prefix := ""
	if shared {
		prefix = "$share/ctl/"
	}
	base := fmt.Sprintf("%seh/%d/%s/+/", prefix, wire.Version, wire.Tenant)
	return map[string]byte{base + "up/#": 1, base + string(wire.TopicWill): 1}
}

func (x *External) subscribe(ctx context.Context, c *connection, on bool) error {
	topics := filters(x.opts.Shared)
	if !on {
		x.log.Info("another controller listens to the broker now")
		return c.wait(ctx, c.Unsubscribe(slices.Collect(maps.Keys(topics))...), "unsubscribe")
	}
	if err := c.subscribe(ctx, topics); err != nil {
		return err
	}
	x.log.Info("listening to boxes at the broker", "shared", x.opts.Shared)
	return nil
}

func (x *External) set(c mqtt.Client) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.client = c
}

// receive runs on the one goroutine of paho that reads: it must not wait.
func (x *External) receive(_ mqtt.Client, m mqtt.Message) {
	id, topic, err := wire.ParseTopic(m.Topic())
	if err != nil || topic == topicProbe {
		m.Ack()
		return
	}
	a := arrival{id: id, topic: topic, done: m.Ack}
	switch size := len(m.Payload()); {
	case m.Retained():
		a.bad, a.err = fault.Malformed, errors.New("a retained message")
	case size > wire.MaxMessageBytes:
		a.bad, a.err = fault.Oversized, fmt.Errorf("%d bytes, the limit is %d", size, wire.MaxMessageBytes)
	default:
		a.payload = bytes.Clone(m.Payload())
	}
	if !x.queue.put(a) {
		m.Ack()
		x.tellShed()
	}
}

func (x *External) tellShed() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.shed++; time.Since(x.told) > time.Minute {
		x.log.Warn("messages of boxes had no room; the boxes send them again", "count", x.shed)
		x.shed, x.told = 0, time.Now()
	}
}

func (x *External) deliver(ctx context.Context, a arrival) {
	defer a.done()
	known, err := x.opts.Known(ctx, a.id)
	switch {
	case err == nil && known && a.err != nil:
		x.opts.Faults.Note(a.id, a.bad, 1, a.err)
		return
	case err == nil && known:
		err = x.opts.Sink.Deliver(ctx, a.id, a.topic, a.payload)
	case err == nil:
		x.refuse(a.id)
		return
	}
	if err != nil && ctx.Err() == nil {
		x.log.Debug("message not taken", "device", a.id, "topic", string(a.topic), "err", err)
	}
}

// maxStrange bounds how many boxes are named that nobody enrolled.
const maxStrange = 1024

func (x *External) refuse(id identity.ID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.strange[id] || len(x.strange) >= maxStrange {
		return
	}
	x.strange[id] = true
	x.log.Warn("messages refused: this box is not enrolled here; take its rights at the broker away", "device", id)
}

// Publish sends a message to a box, if it listens: nobody here knows.
func (x *External) Publish(id identity.ID, topic wire.Topic, payload []byte, qos byte) error {
	if len(payload) > wire.MaxMessageBytes {
		return fmt.Errorf("publish %s to %s: %d bytes, the limit is %d", topic, id, len(payload), wire.MaxMessageBytes)
	}
	x.mu.Lock()
	c := x.client
	x.mu.Unlock()
	if c == nil || !c.IsConnectionOpen() {
		return fmt.Errorf("publish %s to %s: the broker is away: %w", topic, id, ErrNotConnected)
	}
	// Its token tells nothing: what matters is repeated by the protocol.
	c.Publish(topic.For(id), qos, false, payload)
	return nil
}

func nonce() string {
	var raw [8]byte
	rand.Read(raw[:])
	return hex.EncodeToString(raw[:])
}
