// Package broker is the embedded MQTT broker that boxes talk to: mochi-mqtt
// with the rules it lacks.
//
// Vocabulary: a peer is the box that a verified certificate names; a session
// is one MQTT connection of one agent process, its client id is
// "<box>:<sid>". A sink takes what boxes publish. The broker keeps no state: no
// retained message, no queue for boxes that are away, no persistent session.
// It routes nothing between clients either: what goes up goes to the sink, what
// goes down comes from Publish.
//
// The sink runs before the PUBACK leaves. An error of the sink withholds the
// PUBACK; mochi would send it for every error but packets.ErrRejectPacket.
// Three holes of mochi are closed here: a certificate may not take over the
// client id of another box, a Will must be the box's own, and no session
// outlives its certificate.
//
// The one rule a caller can break: a PUBACK tells the box nothing. Acknowledge
// blocks by wire.Ack after the commit, by Publish.
package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"

	"github.com/edgeherd/edgeherd/controller/fault"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// A Sink takes what boxes publish, in order per session. It must not return
// before the message is safe: returning nil sends the PUBACK. The id is the one
// of the certificate. An error that wraps ErrMalformed ends the session, for
// sending such a message again cannot help; any other error withholds the
// PUBACK, and the box will send again.
type Sink interface {
	Deliver(ctx context.Context, id identity.ID, topic wire.Topic, payload []byte) error
}

// ErrMalformed is what a Sink wraps to refuse a message for good.
var ErrMalformed = errors.New("malformed message")

// ErrNotConnected is wrapped by Publish when the box has no session that
// listens.
var ErrNotConnected = errors.New("box is not connected")

// Options configure a Broker. Sink is required.
type Options struct {
	Sink Sink
	// Listeners are accepted from by Run, which closes them. They are TLS
	// listeners with identity.CA.ServerTLS, or give *tls.Conn in another way.
	Listeners []net.Listener
	// OnConnect tells of a session, on its own goroutine, and must return soon.
	// OnDisconnect tells, one call after the other, that no session of a process
	// is left; it may take its time until Run is ended, which ends ctx. A process that comes back before it was told
	// to have gone is told of by neither.
	OnConnect    func(identity.ID, wire.SID)
	OnDisconnect func(context.Context, identity.ID, wire.SID)
	// Greet judges a box whose CONNECT is in order, when its session is known to
	// Disconnect already; an error ends it. nil lets all in.
	Greet func(ctx context.Context, peer Peer, from netip.Addr) error
	// SessionAge is how long a session may last before it must show its
	// certificate again; the end of the certificate may shorten it, chance
	// shortens it by up to a tenth. Default 24 h.
	SessionAge time.Duration
	// HandshakeTimeout bounds TLS handshake and CONNECT together. Default 20 s.
	HandshakeTimeout time.Duration
	// MaxSessions bounds the sessions of one box. Default 2: one that is being
	// replaced by a process that restarted, and one more.
	MaxSessions int
	// MaxConns bounds all connections, shaking hands included. Default 20000.
	MaxConns int
	// MaxPending bounds the connections that shake hands and whose CONNECT was
	// not accepted yet. More wait; one address may have a quarter. Default 1024.
	MaxPending int
	// MessageRate and ByteRate are what a box may send per second; a message
	// takes its share of both. What is beyond is read later. Defaults 200 and
	// 131072, at which a month of samples drains in a minute.
	MessageRate, ByteRate float64
	// Faults counts and logs what is wrong with boxes, but for what the sink
	// refuses, which is its own to tell. Default: it is only logged.
	Faults *fault.Book
	// WallClock tells when certificates end. Default time.Now.
	WallClock func() time.Time
}

func (o Options) withDefaults() Options {
	if o.SessionAge == 0 {
		o.SessionAge = 24 * time.Hour
	}
	if o.HandshakeTimeout == 0 {
		o.HandshakeTimeout = 20 * time.Second
	}
	if o.MaxSessions == 0 {
		o.MaxSessions = 2
	}
	if o.MaxConns == 0 {
		o.MaxConns = 20000
	}
	if o.MaxPending == 0 {
		o.MaxPending = 1024
	}
	if o.MessageRate == 0 {
		o.MessageRate = 200
	}
	if o.ByteRate == 0 {
		o.ByteRate = 128 << 10
	}
	if o.WallClock == nil {
		o.WallClock = time.Now
	}
	if o.Greet == nil {
		o.Greet = func(context.Context, Peer, netip.Addr) error { return nil }
	}
	if o.OnConnect == nil {
		o.OnConnect = func(identity.ID, wire.SID) {}
	}
	if o.OnDisconnect == nil {
		o.OnDisconnect = func(context.Context, identity.ID, wire.SID) {}
	}
	return o
}

// Broker accepts boxes.
type Broker struct {
	opts   Options
	log    *slog.Logger
	server *mqtt.Server

	crew *crew
	news chan struct{} // buffer 1: toTell has something

	mu       sync.Mutex // guards the fields below
	ending   bool
	conns    map[net.Conn]*session // all that are served
	sessions map[string]*session   // by client id, once CONNECT was accepted
	boxes    map[identity.ID][]*session
	gates    map[identity.ID]*gates
	sources  map[netip.Addr]*source
	line     []netip.Addr // addresses with parked connections, each once
	pending  int          // of all sources
	parked   int          // of all sources
	pruned   time.Time
	untold   map[string]departure     // by client id
	toTell   []string                 // client ids, in the order of their ends
	telling  map[string]chan struct{} // closed when it was told
	serving  sync.WaitGroup
}

// New prepares a broker.
func New(opts Options, log *slog.Logger) (*Broker, error) {
	if opts.Sink == nil {
		return nil, errors.New("make broker: no sink")
	}
	b := &Broker{
		opts:     opts.withDefaults(),
		log:      log,
		conns:    map[net.Conn]*session{},
		sessions: map[string]*session{},
		boxes:    map[identity.ID][]*session{},
		gates:    map[identity.ID]*gates{},
		sources:  map[netip.Addr]*source{},
		untold:   map[string]departure{},
		telling:  map[string]chan struct{}{},
		crew:     newCrew(),
		news:     make(chan struct{}, 1),
	}
	if b.opts.Faults == nil {
		b.opts.Faults = fault.New(fault.Options{WallClock: b.opts.WallClock}, log)
	}
	// Serve is never called on the server: its event loop publishes $SYS topics
	// and looks after retained messages and persistent sessions, of which there
	// are none, and stops the world every second to measure memory.
	b.server = mqtt.New(&mqtt.Options{
		Capabilities: capabilities(b.opts),
		// A header is read through it; bodies are longer and go past it.
		ClientNetReadBufferSize: 128,
		Logger:                  slog.New(slog.DiscardHandler), // it logs payloads; what matters is logged here
	})
	if err := b.server.AddHook(&hook{broker: b}, nil); err != nil {
		return nil, fmt.Errorf("make broker: %w", err)
	}
	return b, nil
}

func capabilities(opts Options) *mqtt.Capabilities {
	c := mqtt.NewDefaultServerCapabilities()
	c.MaximumClients = int64(opts.MaxConns)
	c.MaximumPacketSize = wire.MaxMessageBytes + 512 // topic and header
	c.MinimumProtocolVersion = 4
	c.MaximumQos = 1
	c.RetainAvailable = 0
	c.SharedSubAvailable = 0
	// What goes down does not pass mochi.
	c.MaximumClientWritesPending = 1
	c.MaximumInflight = 1
	c.MaximumSessionExpiryInterval = 0
	c.TopicAliasMaximum = 0
	return c
}

// Run accepts connections until ctx ends, then ends all sessions. It returns
// after the last one is gone. A listener that fails ends it with an error.
func (b *Broker) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	allEnded := make(chan struct{})
	var telling sync.WaitGroup
	telling.Go(func() { b.tell(ctx, allEnded) })
	var accepting sync.WaitGroup
	for _, l := range b.opts.Listeners {
		accepting.Go(func() {
			if err := b.accept(ctx, l); err != nil {
				cancel(err)
			}
		})
	}
	<-ctx.Done()
	for _, l := range b.opts.Listeners {
		l.Close()
	}
	accepting.Wait()
	b.endAll()
	b.serving.Wait()
	close(b.crew.quit)
	close(allEnded)
	telling.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

func (b *Broker) accept(ctx context.Context, l net.Listener) error {
	wait := 5 * time.Millisecond
	for {
		conn, err := l.Accept()
		if err == nil {
			wait = 5 * time.Millisecond
			if !b.park(conn) {
				conn.Close()
				b.log.Debug("too many connections", "remote", addressOf(conn))
			}
			b.welcome(ctx)
			continue
		}
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accept boxes on %s: %w", l.Addr(), err)
		}
		// Most likely out of file descriptors: boxes that leave will free some.
		b.log.Warn("accept failed", "addr", l.Addr().String(), "err", err)
		select {
		case <-time.After(wait):
			wait = min(2*wait, time.Second)
		case <-ctx.Done():
		}
	}
}

// welcome serves the connections that may shake hands.
func (b *Broker) welcome(ctx context.Context) {
	for {
		conn, wait := b.next()
		if conn == nil {
			return
		}
		b.serving.Go(func() { b.shake(ctx, conn, wait) })
	}
}

// shake shakes hands and has the session served on a goroutine of its own: this
// one's stack has grown.
func (b *Broker) shake(ctx context.Context, conn net.Conn, wait time.Duration) {
	from, offence := addressOf(conn), false
	entered := sync.OnceFunc(func() {
		b.enters(from, offence)
		b.welcome(ctx)
	})
	peer, err := b.handshake(ctx, conn, wait)
	if err != nil {
		var silent net.Error
		offence = !errors.As(err, &silent) && !errors.Is(err, io.EOF) && !errors.Is(err, ErrUnsure) && ctx.Err() == nil
		entered()
		conn.Close()
		b.log.Debug("handshake refused", "remote", from, "err", err)
		return
	}
	b.serving.Go(func() {
		defer entered()
		err := b.serve(ctx, conn, &session{peer: peer, greeted: entered})
		if err != nil {
			offence = errors.Is(err, ErrOffence)
			b.log.Debug("session ended", "device", peer.ID, "remote", from, "err", err)
		}
	})
}

func (b *Broker) handshake(ctx context.Context, conn net.Conn, wait time.Duration) (Peer, error) {
	tc, ok := conn.(*tls.Conn)
	if !ok {
		return Peer{}, fmt.Errorf("listener gives %T, not TLS", conn)
	}
	if wait > 0 {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return Peer{}, ctx.Err()
		}
	}
	ctx, cancel := context.WithTimeout(ctx, b.opts.HandshakeTimeout)
	defer cancel()
	if err := tc.HandshakeContext(ctx); err != nil {
		return Peer{}, err
	}
	return PeerOf(tc.ConnectionState())
}

// Peer is the box at the other end of a connection.
type Peer struct {
	ID       identity.ID
	Serial   string    // of its certificate, hexadecimal
	NotAfter time.Time // when its certificate ends; zero: never
}

// PeerOf reads the peer from its verified certificate.
func PeerOf(cs tls.ConnectionState) (Peer, error) {
	id, _, err := identity.PeerID(cs)
	if err != nil {
		return Peer{}, err
	}
	leaf := cs.VerifiedChains[0][0]
	return Peer{ID: id, Serial: leaf.SerialNumber.Text(16), NotAfter: leaf.NotAfter}, nil
}

// ServeConn serves one connection whose peer has been proved, such as a
// WebSocket. It blocks until the connection has ended and closes it.
func (b *Broker) ServeConn(ctx context.Context, conn net.Conn, peer Peer) error {
	return b.serve(ctx, conn, &session{peer: peer, greeted: func() {}})
}

func (b *Broker) serve(ctx context.Context, conn net.Conn, s *session) error {
	peer := s.peer
	s.conn, s.done = conn, make(chan struct{})
	s.deliver = func(topic wire.Topic, payload []byte) error {
		return b.crew.run(func() error { return b.opts.Sink.Deliver(ctx, peer.ID, topic, payload) })
	}
	s.greet = func() error { return b.greet(ctx, s) }
	s.pace = func(bytes int) error { return b.pace(ctx, peer.ID, bytes) }
	if err := b.mayConnect(peer.ID); err != nil {
		b.opts.Faults.Note(peer.ID, fault.Flood, 1, err)
		conn.Close()
		return err
	}
	if err := b.admit(s); err != nil {
		conn.Close()
		return err
	}
	defer b.forget(s)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	age := b.age(peer)
	if age <= 0 {
		conn.Close()
		return fmt.Errorf("certificate of %s has ended", peer.ID)
	}
	end := time.AfterFunc(age, func() {
		b.log.Debug("session is old", "device", peer.ID)
		conn.Close()
	})
	defer end.Stop()
	// mochi sets a deadline only once CONNECT was read.
	if err := conn.SetDeadline(time.Now().Add(b.opts.HandshakeTimeout)); err != nil {
		conn.Close()
		return fmt.Errorf("bound CONNECT of %s: %w", peer.ID, err)
	}
	err := b.server.EstablishConnection("box", boundConn{conn, s})
	if cause, known := causeOfEnd(err); known {
		b.opts.Faults.Note(peer.ID, cause, 1, fmt.Errorf("connection ended: %w", err))
	}
	return err
}

// age is how long a session of the peer may last.
func (b *Broker) age(peer Peer) time.Duration {
	age := b.opts.SessionAge - rand.N(b.opts.SessionAge/10+1)
	if peer.NotAfter.IsZero() {
		return age
	}
	return min(age, peer.NotAfter.Sub(b.opts.WallClock()))
}

func (b *Broker) admit(s *session) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ending {
		return errors.New("broker is ending")
	}
	if len(b.conns) >= b.opts.MaxConns {
		return fmt.Errorf("%d connections are open, the limit", len(b.conns))
	}
	b.conns[s.conn] = s
	return nil
}

func (b *Broker) endAll() {
	b.mu.Lock()
	b.ending = true
	var open []net.Conn
	for conn := range b.conns {
		open = append(open, conn)
	}
	for _, s := range b.sources {
		open = append(open, s.parked...)
		s.parked = nil
	}
	b.line, b.parked = nil, 0
	b.mu.Unlock()
	for _, conn := range open {
		conn.Close()
	}
}

// Publish sends a message to every session of a box that subscribes to it, and
// does not wait until it has left. Delivery is as certain as the connection,
// whatever the QoS: a message that matters is repeated by its protocol.
func (b *Broker) Publish(id identity.ID, topic wire.Topic, payload []byte, _ byte) error {
	if len(payload) > wire.MaxMessageBytes {
		return fmt.Errorf("publish %s to %s: %d bytes, the limit is %d", topic, id, len(payload), wire.MaxMessageBytes)
	}
	err := fmt.Errorf("%w", ErrNotConnected)
	packet := publishPacket(topic.For(id), payload)
	for _, s := range b.of(id) {
		if !s.listens(topic) {
			continue
		}
		if posted := s.post(packet); posted == nil || errors.Is(err, ErrNotConnected) {
			err = posted
		}
	}
	if err != nil {
		return fmt.Errorf("publish %s to %s: %w", topic, id, err)
	}
	return nil
}

// listens says whether the box has subscribed to a topic.
func (s *session) listens(topic wire.Topic) bool {
	subs := s.client.State.Subscriptions
	if _, ok := subs.Get(wire.TopicDown.For(s.peer.ID)); ok {
		return true
	}
	_, ok := subs.Get(topic.For(s.peer.ID))
	return ok
}

func (b *Broker) of(id identity.ID) []*session {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]*session(nil), b.boxes[id]...)
}

// Sessions returns the process lives of a box that are connected.
func (b *Broker) Sessions(id identity.ID) []wire.SID {
	var sids []wire.SID
	for _, s := range b.of(id) {
		sids = append(sids, s.sid)
	}
	return sids
}

// Disconnect ends every session of a box.
func (b *Broker) Disconnect(id identity.ID) {
	for _, s := range b.of(id) {
		s.conn.Close()
	}
}
