package link

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"net/url"
	"sync"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/edgeherd/edgeherd/internal/wire"
)

// Waits of a session.
const (
	connectTimeout = 30 * time.Second // dial, TLS, CONNACK
	pubackTimeout  = 30 * time.Second // also SUBACK
	welcomeTimeout = 30 * time.Second
	pingTimeout    = 10 * time.Second
	writeTimeout   = 15 * time.Second
	quiesce        = 250 * time.Millisecond // for DISCONNECT to leave
	// A link that does not take the farewell must not hold up the process.
	farewellTimeout = 500 * time.Millisecond
	helloPause      = 5 * time.Second // at least, between two HELLOs
)

// The most that a controller may ask for at once, so that no number in a
// message stops the backlog or keeps live samples flowing for good.
const (
	maxDrainWait = time.Hour
	maxLive      = 10 * time.Minute // who watches longer says so again
)

// upTo is a time of a message, bounded: as many milliseconds may be more than
// a Duration holds.
func upTo(ms int64, most time.Duration) time.Duration {
	return time.Duration(min(ms, most.Milliseconds())) * time.Millisecond
}

// inboxSize bounds what the controller may send ahead of the session; the rest
// is dropped, and asked for again by the protocol.
const inboxSize = 64

type message struct {
	topic   string
	payload []byte
}

// session is one connection; all fields but in and lost belong to the
// goroutine in run.
type session struct {
	link *Link
	in   chan message
	lost chan error // cap 1: paho reports the loss once

	client mqtt.Client
	tokens []pending // PUBACKs that are due, oldest first

	conn      uint64
	will      []byte // what the broker tells when the connection is lost
	nonce     wire.Nonce
	helloAt   time.Time // of the last HELLO
	waiting   bool      // for the WELCOME to it
	welcomed  bool      // at least one WELCOME came
	confirmed bool      // the present run is the one of the last WELCOME
	run0      wire.RunID
	question  uint64 // the last of the controller
	answered  uint64 // the last that a HELLO answered
	helloNext time.Time
	held      []wire.Ack // of run0, came while waiting

	pump
}

type pending struct {
	token mqtt.Token
	until time.Time
	what  wire.Topic
}

func newSession(l *Link) *session {
	return &session{
		link: l, in: make(chan message, inboxSize), lost: make(chan error, 1), conn: l.nextConn(),
		pump: newPump(l.opts.Spool.Now()),
	}
}

// run returns when the session has ended, nil if ctx ended it.
func (s *session) run(ctx context.Context) error {
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	// Tell paho even when the connection is gone: it ends its goroutines.
	defer s.client.Disconnect(uint(quiesce.Milliseconds()))
	stop := context.AfterFunc(ctx, func() { s.report(ctx.Err()) })
	defer stop()
	if err := s.subscribe(ctx); err != nil {
		return err
	}
	defer s.countHeld()
	if err := s.hello(); err != nil {
		return err
	}
	if err := s.loop(ctx); ctx.Err() == nil {
		conn.Close() // at once, without DISCONNECT: the Will tells the controller
		return err
	}
	s.farewell()
	return nil
}

// farewell publishes the Will: DISCONNECT makes the broker forget it, and a
// broker that is not the controller's own tells nobody that a session has ended.
func (s *session) farewell() {
	if s.client.IsConnectionOpen() {
		s.client.Publish(wire.TopicWill.For(s.link.opts.ID), 1, false, s.will).WaitTimeout(farewellTimeout)
	}
}

// connect opens the connection through paho. Its options are the lesson of its
// issue tracker; see the package comment.
func (s *session) connect(ctx context.Context) (net.Conn, error) {
	var mu sync.Mutex
	var conn net.Conn
	var err error
	if s.will, err = wire.Encode(wire.Will{SID: s.link.opts.Spool.SID(), Conn: s.conn}); err != nil {
		return nil, err
	}
	id := s.link.opts.ID
	o := mqtt.NewClientOptions().
		AddBroker("tcp://controller"). // not dialled: see SetCustomOpenConnectionFn
		SetClientID(wire.ClientID(id, s.link.opts.Spool.SID())).
		SetProtocolVersion(4).
		SetAutoReconnect(false).
		SetConnectRetry(false).
		SetCleanSession(true).
		SetOrderMatters(false).
		SetStore(mqtt.NewMemoryStore()).
		SetKeepAlive(s.link.opts.KeepAlive).
		SetPingTimeout(pingTimeout).
		SetWriteTimeout(writeTimeout).
		SetConnectTimeout(connectTimeout).
		SetBinaryWill(wire.TopicWill.For(id), s.will, 1, false).
		SetDefaultPublishHandler(s.receive).
		SetConnectionLostHandler(func(_ mqtt.Client, err error) { s.report(err) }).
		SetCustomOpenConnectionFn(func(*url.URL, mqtt.ClientOptions) (net.Conn, error) {
			dialCtx, cancel := context.WithTimeout(ctx, connectTimeout)
			defer cancel()
			c, err := s.link.opts.Dial(dialCtx)
			mu.Lock()
			defer mu.Unlock()
			conn = c
			return c, err
		})
	s.client = mqtt.NewClient(o)
	closeConn := func() {
		mu.Lock()
		defer mu.Unlock()
		if conn != nil {
			conn.Close()
		}
	}
	stop := context.AfterFunc(ctx, closeConn) // ends a CONNECT that gets no answer
	defer stop()
	token := s.client.Connect()
	<-token.Done()
	if err := token.Error(); err != nil {
		closeConn()
		return nil, fmt.Errorf("connect to controller: %w", err)
	}
	mu.Lock()
	defer mu.Unlock()
	return conn, nil
}

// receive runs on a goroutine of paho: copy, and return.
func (s *session) receive(_ mqtt.Client, m mqtt.Message) {
	select {
	case s.in <- message{m.Topic(), bytes.Clone(m.Payload())}:
	default:
	}
}

func (s *session) report(err error) {
	select {
	case s.lost <- err:
	default:
	}
}

func (s *session) subscribe(ctx context.Context) error {
	topic := wire.TopicDown.For(s.link.opts.ID)
	token := s.client.Subscribe(topic, 1, nil)
	select {
	case <-token.Done():
	case err := <-s.lost:
		return lost(err)
	case <-time.After(pubackTimeout):
		return errors.New("subscribe: no SUBACK")
	}
	if err := token.Error(); err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	if st, ok := token.(*mqtt.SubscribeToken); ok && st.Result()[topic] > 1 {
		return fmt.Errorf("subscribe: the broker refused %s", topic)
	}
	return ctx.Err()
}

// hello opens a conversation, or opens it anew.
func (s *session) hello() error {
	sp := s.link.opts.Spool
	h := s.link.opts.Hello()
	rand.Read(s.nonce[:])
	h.V, h.Nonce, h.SID, h.Conn, h.Answers = wire.Version, s.nonce, sp.SID(), s.conn, s.question
	s.answered = s.question
	h.Inventory = h.Inventory.Clean()
	h.Buffer, h.Streams, h.Runs = sp.Buffer(), sp.Streams(), sp.Runs()
	s.helloAt, s.waiting = time.Now(), true
	s.helloNext = s.helloAt.Add(s.link.opts.HelloEvery - mathrand.N(s.link.opts.HelloEvery/5+1))
	return s.publish(wire.TopicHello, h)
}

// publish sends a message of QoS 1 and notes the PUBACK that is due.
func (s *session) publish(topic wire.Topic, v any) error {
	payload, err := wire.Encode(v)
	if err != nil {
		return err
	}
	if !s.client.IsConnectionOpen() {
		return lost(mqtt.ErrNotConnected)
	}
	token := s.client.Publish(topic.For(s.link.opts.ID), 1, false, payload)
	s.tokens = append(s.tokens, pending{token, time.Now().Add(pubackTimeout), topic})
	return nil
}

// loop is the life of the session after the first HELLO.
func (s *session) loop(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		now := time.Now()
		if err := s.overdue(now); err != nil {
			return err
		}
		if err := s.send(now); err != nil {
			return err
		}
		s.link.note(func(st *Status) { st.InFlight = len(s.byKey) })
		timer.Reset(time.Until(s.nextDeadline()))
		select {
		case m := <-s.in:
			if err := s.handle(m); err != nil {
				return err
			}
		case <-s.link.opts.Spool.Changed():
		case live := <-s.link.live:
			s.publishLive(live)
		case <-s.link.again:
			s.helloNext = time.Now()
		case err := <-s.lost:
			return lost(err)
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *session) publishLive(live wire.Live) {
	if s.isQuiet(time.Now()) {
		return
	}
	payload, err := wire.Encode(live)
	if err != nil {
		s.link.log.Warn("live state not sent", "err", err)
		return
	}
	s.client.Publish(wire.TopicLive.For(s.link.opts.ID), 0, false, payload)
}

// overdue ends the session when an answer did not come, and repeats HELLO.
func (s *session) overdue(now time.Time) error {
	for len(s.tokens) > 0 {
		t := s.tokens[0]
		select {
		case <-t.token.Done():
			if err := t.token.Error(); err != nil {
				return lost(fmt.Errorf("publish %s: %w", t.what, err))
			}
			s.tokens = s.tokens[1:]
			continue
		default:
		}
		if !now.Before(t.until) {
			return fmt.Errorf("publish %s: no PUBACK within %s", t.what, pubackTimeout)
		}
		break
	}
	if s.waiting && now.Sub(s.helloAt) >= welcomeTimeout {
		return fmt.Errorf("no WELCOME within %s", welcomeTimeout)
	}
	if !s.waiting && (s.question != s.answered || !now.Before(s.helloNext)) {
		return s.hello()
	}
	return nil
}

func (s *session) nextDeadline() time.Time {
	next := s.helloNext
	if s.waiting {
		next = s.helloAt.Add(welcomeTimeout)
	}
	if len(s.tokens) > 0 && s.tokens[0].until.Before(next) {
		next = s.tokens[0].until
	}
	return s.pump.nextDeadline(next)
}

func (s *session) handle(m message) error {
	id, topic, err := wire.ParseTopic(m.topic)
	if err != nil || id != s.link.opts.ID {
		return nil // not ours: the broker is mistaken
	}
	switch topic {
	case wire.TopicWelcome:
		return decoded(s, m, s.onWelcome)
	case wire.TopicAck:
		return decoded(s, m, s.onAck)
	case wire.TopicWant:
		return decoded(s, m, func(w wire.Want) error {
			s.link.opts.OnDesired(w.Desired)
			return nil
		})
	case wire.TopicCmd:
		return decoded(s, m, s.onCmd)
	case wire.TopicCare:
		return decoded(s, m, func(c wire.Care) error {
			s.link.opts.OnCare(c)
			return nil
		})
	}
	return nil
}

// decoded calls fn with the message, or logs why it cannot be read.
func decoded[T any](s *session, m message, fn func(T) error) error {
	v, err := wire.Decode[T](m.payload)
	if err != nil {
		s.link.log.Warn("message from the controller not understood", "topic", m.topic, "err", err)
		return nil
	}
	return fn(v)
}

func (s *session) onCmd(c wire.Cmd) error {
	if c.LiveMs > 0 {
		s.link.opts.OnLive(upTo(c.LiveMs, maxLive))
	}
	if c.Question != 0 {
		s.question = c.Question
	}
	if c.Hello {
		return s.helloAgain()
	}
	return nil
}

func (s *session) helloAgain() error {
	if s.waiting || time.Since(s.helloAt) < helloPause {
		s.helloNext = s.helloAt.Add(helloPause)
		return nil
	}
	return s.hello()
}

func (s *session) onWelcome(w wire.Welcome) error {
	// An answer to an earlier HELLO or to another process; or the second one to
	// a HELLO that was doubled on its way: it may be older than the first, and
	// name a run that a restored database no longer has.
	if w.Nonce != s.nonce || !s.waiting {
		return nil
	}
	n, err := s.link.opts.Spool.Validate(w.Valid)
	if err != nil {
		return err
	}
	if n > 0 {
		s.link.log.Warn("controller has lost blocks it had acknowledged; sending them again", "blocks", n)
	}
	if w.Run != s.run0 { // what is in flight went to a run that is gone
		s.forgetAll()
		s.held = nil
	}
	s.run0, s.waiting, s.confirmed = w.Run, false, true
	s.countHeld()
	s.window(w, time.Now())
	if !s.welcomed {
		s.welcomed = true
		s.drainAt = time.Now().Add(upTo(w.DrainMs, maxDrainWait))
		s.link.log.Info("link up", "run", w.Run)
	}
	s.link.note(func(st *Status) {
		if !st.Connected {
			st.Connected, st.Since = true, time.Now()
		}
		st.Run = w.Run
	})
	s.link.opts.OnWelcome(w)
	if len(w.Desired) > 0 {
		s.link.opts.OnDesired(w.Desired)
	}
	if w.LiveMs > 0 {
		s.link.opts.OnLive(upTo(w.LiveMs, maxLive))
	}
	return nil
}

// send fills the window.
func (s *session) send(now time.Time) error {
	for s.confirmed {
		parcels, err := s.pick(s.link.opts.Spool, s.link.suspects, now)
		if err != nil {
			return err
		}
		if len(parcels) == 0 {
			return nil
		}
		data, err := s.data(s.link.opts.Spool, parcels)
		if err != nil {
			return err
		}
		if err := s.publish(wire.TopicData, data); err != nil {
			return err
		}
		blocks, repeats := s.depart(parcels, now)
		s.link.note(func(st *Status) {
			st.Sent += uint64(blocks)
			st.Repeated += uint64(repeats)
		})
	}
	return nil
}
