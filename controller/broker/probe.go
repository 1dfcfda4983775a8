package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// ErrUnfit is wrapped by what a probe found wrong with the settings of a
// broker: waiting does not mend it.
var ErrUnfit = errors.New("the broker is not set up for edgeherd")

// topicProbe is a topic below up/ that no box uses: a controller that listens
// to all boxes ignores it.
const topicProbe wire.Topic = "up/probe"

// How much a probe sends.
const (
	probeShared = 32   // over a shared subscription
	probeQueued = 3000 // unacknowledged: beyond a window and a queue of 1000 each
	probeWindow = 100  // of them under way at once before the first acknowledgement, else a warning
)

// Probe asks a broker whether it is set up as its side of the protocol needs.
type Probe struct {
	Remote Remote
	Shared bool
	// BoxTLS makes the certificate of a box that does not exist, to try what
	// boxes may do. nil leaves that out.
	BoxTLS func(identity.ID) (*tls.Config, error)
	// Within bounds one step that succeeds by a message that arrives. Default 15 s.
	Within time.Duration
	Log    *slog.Logger
}

// Run returns nil when the broker fits, an error that wraps ErrUnfit and says
// which setting is wrong, or another one when the broker could not be asked.
func (p Probe) Run(ctx context.Context) error {
	if p.Within == 0 {
		p.Within = 15 * time.Second
	}
	pub, err := p.connect(ctx, nil)
	if err != nil {
		return err // away: nothing is known of its settings
	}
	defer func() { pub.close() }() // of the last one
	for _, step := range []func(context.Context, *prober) error{p.large, p.shared, p.queue, p.retained, p.strangers, p.boxes} {
		err := p.try(ctx, &pub, step)
		if errors.Is(err, ErrUnfit) {
			// A broker that ended amid the step looks like one that loses
			// messages; one that is unfit is so the second time too.
			err = p.try(ctx, &pub, step)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// try takes one step, on topics of its own. A step may have cost the
// connection before: brokers close it on what they refuse.
func (p Probe) try(ctx context.Context, pub **connection, step func(context.Context, *prober) error) error {
	if !(*pub).IsConnectionOpen() {
		next, err := p.connect(ctx, nil)
		if err != nil {
			return err
		}
		(*pub).close()
		*pub = next
	}
	return step(ctx, &prober{*pub, fmt.Sprintf("eh/%d/ctl/probe/%s/", wire.Version, nonce())})
}

// prober is the connection that publishes, and where.
type prober struct {
	*connection
	base string
}

func unfit(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrUnfit, fmt.Errorf(format, args...))
}

func (p Probe) connect(ctx context.Context, got *inbox) (*connection, error) {
	return p.Remote.connect(ctx, ControllerName+"-probe-"+nonce(), got.take)
}

// inbox keeps what a probe has received.
type inbox struct {
	mu       sync.Mutex // guards the fields below
	messages []mqtt.Message
	acking   bool
	news     chan struct{} // buffer 1
}

func newInbox(acking bool) *inbox { return &inbox{acking: acking, news: make(chan struct{}, 1)} }

func (in *inbox) take(_ mqtt.Client, m mqtt.Message) {
	if in == nil {
		m.Ack()
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.messages = append(in.messages, m)
	if in.acking {
		m.Ack()
	}
	select {
	case in.news <- struct{}{}:
	default:
	}
}

func (in *inbox) count(topic string) (n int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, m := range in.messages {
		if m.Topic() == topic {
			n++
		}
	}
	return n
}

// ackAll acknowledges what came, and from now on what comes.
func (in *inbox) ackAll() {
	in.mu.Lock()
	in.acking = true
	held := in.messages
	in.mu.Unlock()
	for _, m := range held {
		m.Ack()
	}
}

// await waits until done holds; false when time or connection ended before.
func (in *inbox) await(ctx context.Context, within time.Duration, lost <-chan error, done func() bool) bool {
	timer := time.NewTimer(within)
	defer timer.Stop()
	for !done() {
		select {
		case <-in.news:
		case <-lost:
			return done()
		case <-timer.C:
			return done()
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// large: a message of the greatest size of the protocol passes.
func (p Probe) large(ctx context.Context, pub *prober) error {
	in := newInbox(true)
	sub, err := p.connect(ctx, in)
	if err != nil {
		return err
	}
	defer sub.close()
	topic := pub.base + "large"
	if err := sub.subscribe(ctx, map[string]byte{topic: 1}); err != nil {
		return unfit("the controller may not subscribe to %s: %w; give the user %s of its certificate access to eh/#", topic, err, ControllerName)
	}
	pub.Publish(topic, 1, false, make([]byte, wire.MaxMessageBytes))
	if in.await(ctx, p.Within, sub.lost, func() bool { return in.count(topic) > 0 }) || ctx.Err() != nil {
		return ctx.Err()
	}
	return unfit("a message of %d bytes did not come through: raise message_size_limit (Mosquitto), max_payload (NATS) or its like, and let the user %s read and write eh/#", wire.MaxMessageBytes, ControllerName)
}

// queue: what outruns the controller waits for it at the broker.
func (p Probe) queue(ctx context.Context, pub *prober) error {
	in := newInbox(false)
	sub, err := p.connect(ctx, in)
	if err != nil {
		return err
	}
	defer sub.close()
	topic, marker := pub.base+"queue", pub.base+"end"
	if err := sub.subscribe(ctx, map[string]byte{topic: 1, marker: 1}); err != nil {
		return err
	}
	if err := pub.flood(ctx, topic, probeQueued); err != nil {
		return err
	}
	// The window fills at once, if it is as wide as that.
	if !in.await(ctx, time.Second, sub.lost, func() bool { return in.count(topic) >= probeWindow }) && ctx.Err() == nil {
		p.Log.Warn("the broker lets few messages be under way to a controller, which bounds what it can take",
			"window", in.count(topic), "setting", "max_inflight_messages (Mosquitto), max_ack_pending (NATS) or its like: 1000 or more")
	}
	in.ackAll()
	in.await(ctx, p.Within, sub.lost, func() bool { return in.count(topic) >= probeQueued })
	if n := in.count(topic); n < probeQueued && ctx.Err() == nil {
		return unfit("of %d messages that waited for the controller %d were lost: set max_queued_messages 0 and max_queued_bytes 0 (Mosquitto), or the limit of messages that wait for one subscriber of your broker", probeQueued, probeQueued-n)
	}
	return ctx.Err()
}

// flood publishes n small messages and waits for the PUBACK of each.
func (pub *prober) flood(ctx context.Context, topic string, n int) error {
	const window = 200
	tokens := make([]mqtt.Token, 0, n)
	for i := range n {
		if i >= window {
			if err := pub.wait(ctx, tokens[i-window], "publish"); err != nil {
				return err
			}
		}
		tokens = append(tokens, pub.Publish(topic, 1, false, []byte{byte(i), byte(i >> 8)}))
	}
	for _, t := range tokens {
		if err := pub.wait(ctx, t, "publish"); err != nil {
			return err
		}
	}
	return nil
}

// retained: nothing can be left at the broker that later subscribers are given.
func (p Probe) retained(ctx context.Context, pub *prober) error {
	topic, marker := pub.base+"retained", pub.base+"unretained"
	// Its PUBACK may not come: brokers close the connection instead.
	if pub.wait(ctx, pub.Publish(topic, 1, true, []byte("probe")), "publish") != nil {
		return ctx.Err()
	}
	in := newInbox(true)
	sub, err := p.connect(ctx, in)
	if err != nil {
		return err
	}
	defer sub.close()
	if err := sub.subscribe(ctx, map[string]byte{topic: 1, marker: 1}); err != nil {
		return err
	}
	pub.Publish(marker, 1, false, []byte("probe"))
	in.await(ctx, p.Within, sub.lost, func() bool { return in.count(marker) > 0 })
	if in.count(topic) == 0 {
		return ctx.Err()
	}
	pub.Publish(topic, 1, true, nil) // forget it
	if !p.Shared {
		p.Log.Warn("the broker retains messages; edgeherd does without, and a box could fill its store")
		return nil
	}
	return unfit("it retains messages, so that boxes can leave some behind: set retain_available false (Mosquitto) or its like")
}

// shared: of each message one controller gets one copy.
func (p Probe) shared(ctx context.Context, pub *prober) error {
	if !p.Shared {
		return nil
	}
	way := "use a broker that has shared subscriptions for MQTT 3.1.1 (Mosquitto, EMQX, HiveMQ), or set shared: false below broker in server.yaml, so that one controller listens at a time"
	topic, marker := pub.base+"shared", pub.base+"after"
	boxes := []*inbox{newInbox(true), newInbox(true)}
	lost := make(chan error)
	for _, in := range boxes {
		sub, err := p.connect(ctx, in)
		if err != nil {
			return err
		}
		defer sub.close()
		if err := sub.subscribe(ctx, map[string]byte{"$share/probe/" + topic: 1, marker: 1}); err != nil {
			return unfit("it refuses shared subscriptions (%w): %s", err, way)
		}
	}
	if err := pub.flood(ctx, topic, probeShared); err != nil {
		return err
	}
	if err := pub.wait(ctx, pub.Publish(marker, 1, false, []byte("probe")), "publish"); err != nil {
		return err
	}
	for _, in := range boxes { // what came before the marker has come
		in.await(ctx, p.Within, lost, func() bool { return in.count(marker) > 0 })
	}
	total := func() int { return boxes[0].count(topic) + boxes[1].count(topic) }
	boxes[0].await(ctx, p.Within/4, lost, func() bool { return total() >= probeShared })
	boxes[1].await(ctx, p.Within/4, lost, func() bool { return total() >= probeShared })
	if n := total(); n != probeShared && ctx.Err() == nil {
		return unfit("of %d messages to a shared subscription %d copies came: %s", probeShared, n, way)
	}
	return ctx.Err()
}
