package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/edgeherd/edgeherd/controller/fault"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// Keep-alive that a box may ask for, in seconds. 0 would let a dead
// connection stay for ever, and mochi's own sum overflows above 43690.
const (
	minKeepAlive = 5
	maxKeepAlive = 1200
)

// takeoverWait bounds how long a new connection waits for the end of the one
// it replaces.
const takeoverWait = 10 * time.Second

// hook is what mochi asks. mochi passes the client before it knows a session;
// the session hangs on the connection.
type hook struct {
	mqtt.HookBase
	broker *Broker
}

func (*hook) ID() string { return "edgeherd" }

func (*hook) Provides(b byte) bool {
	switch b {
	case mqtt.OnConnect, mqtt.OnConnectAuthenticate, mqtt.OnACLCheck, mqtt.OnPacketRead,
		mqtt.OnPublish, mqtt.OnSessionEstablished, mqtt.OnDisconnect:
		return true
	}
	return false
}

func (*hook) Init(any) error { return nil }

func sessionOf(cl *mqtt.Client) *session { return cl.Net.Conn.(boundConn).session }

// OnConnect checks everything that CONNECT claims. An error closes the
// connection without CONNACK.
func (h *hook) OnConnect(cl *mqtt.Client, pk packets.Packet) error {
	s := sessionOf(cl)
	sid, err := checkConnect(s.peer.ID, pk)
	if err == nil {
		err = h.broker.enter(s, cl, sid)
	}
	if err == nil {
		if err = s.greet(); err != nil {
			return err // told there, and no fault of a message
		}
	}
	if err != nil {
		h.broker.opts.Faults.Note(s.peer.ID, causeOf(err), 1, fmt.Errorf("connection refused: %w", err))
		return fmt.Errorf("%w: %w", ErrOffence, err)
	}
	s.greeted()
	return nil
}

// greet asks whether the box may be here. It comes after enter: whoever ends the
// sessions of a box meanwhile ends this one, too.
func (b *Broker) greet(ctx context.Context, s *session) error {
	short, cancel := context.WithTimeout(ctx, b.opts.HandshakeTimeout)
	defer cancel()
	err := b.opts.Greet(short, s.peer, addressOf(s.conn))
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return errEnding
	case errors.Is(err, ErrUnsure):
		return err
	}
	b.log.Info("box refused", "device", s.peer.ID, "remote", addressOf(s.conn), "err", err)
	return fmt.Errorf("%w: %w", ErrOffence, err)
}

var (
	errForeign = errors.New("not the box's own")
	errTooMany = errors.New("too many")
)

// causeOf says what kind of fault a refused CONNECT is.
func causeOf(err error) fault.Cause {
	switch {
	case errors.Is(err, errForeign):
		return fault.WrongTopic
	case errors.Is(err, errTooMany):
		return fault.Flood
	}
	return fault.Malformed
}

// causeOfEnd tells ends that mochi brought about from those that happen.
func causeOfEnd(err error) (cause fault.Cause, known bool) {
	var code packets.Code
	if !errors.As(err, &code) {
		return "", false
	}
	switch code.Code {
	case packets.ErrPacketTooLarge.Code:
		return fault.Oversized, true
	case packets.ErrMalformedPacket.Code, packets.ErrProtocolViolation.Code:
		return fault.Malformed, true
	}
	return "", false // what the hooks refuse they have told
}

// checkConnect compares a CONNECT with the certificate.
func checkConnect(id identity.ID, pk packets.Packet) (wire.SID, error) {
	var none wire.SID
	c := pk.Connect
	if pk.ProtocolVersion != 4 {
		return none, fmt.Errorf("MQTT version %d, this broker speaks 3.1.1 (4)", pk.ProtocolVersion)
	}
	sid, err := wire.ParseClientID(id, c.ClientIdentifier)
	if err != nil {
		return none, fmt.Errorf("%w: %w", errForeign, err)
	}
	if !c.Clean {
		return none, errors.New("session is not clean: this broker keeps nothing")
	}
	if c.Keepalive < minKeepAlive || c.Keepalive > maxKeepAlive {
		return none, fmt.Errorf("keep-alive of %d s is not between %d and %d", c.Keepalive, minKeepAlive, maxKeepAlive)
	}
	if c.WillFlag {
		return sid, checkWill(id, sid, c)
	}
	return sid, nil
}

// checkWill matters because mochi publishes a Will without asking OnACLCheck
// (mochi issue 503).
func checkWill(id identity.ID, sid wire.SID, c packets.ConnectParams) error {
	if c.WillTopic != wire.TopicWill.For(id) {
		return fmt.Errorf("%w: will topic %q", errForeign, c.WillTopic)
	}
	if c.WillRetain || c.WillQos > 1 {
		return errors.New("will is retained or of QoS 2")
	}
	will, err := wire.Decode[wire.Will](c.WillPayload)
	if err != nil {
		return err
	}
	if will.SID != sid {
		return fmt.Errorf("%w: will of process %s on a connection of %s", errForeign, will.SID, sid)
	}
	return nil
}

// OnConnectAuthenticate has nothing left to ask: OnConnect has compared the
// CONNECT with the certificate.
func (h *hook) OnConnectAuthenticate(*mqtt.Client, packets.Packet) bool { return true }

// enter makes s the session of its client id. A session it replaces is ended
// first and waited for: mochi would let the old one remove the subscriptions
// and the entry of the new one when they overlap (mochi issue 483).
func (b *Broker) enter(s *session, cl *mqtt.Client, sid wire.SID) error {
	deadline := time.NewTimer(takeoverWait)
	defer deadline.Stop()
	for {
		b.mu.Lock()
		old, ended := b.sessions[cl.ID], (<-chan struct{})(nil)
		if told := b.telling[cl.ID]; told != nil {
			ended = told
		}
		if old == nil && ended == nil {
			defer b.mu.Unlock()
			if n := len(b.boxes[s.peer.ID]); n >= b.opts.MaxSessions {
				return fmt.Errorf("%w: box has %d sessions already", errTooMany, n)
			}
			s.client, s.sid = cl, sid
			_, s.resumed = b.untold[cl.ID]
			delete(b.untold, cl.ID)
			b.sessions[cl.ID] = s
			b.boxes[s.peer.ID] = append(b.boxes[s.peer.ID], s)
			return nil
		}
		b.mu.Unlock()
		if old != nil {
			old.conn.Close()
			ended = old.done
		}
		select {
		case <-ended:
		case <-deadline.C:
			return errors.New("the session it replaces does not end")
		}
	}
}

// forget is the last that happens to a session.
func (b *Broker) forget(s *session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.conns, s.conn)
	if s.client != nil {
		delete(b.sessions, s.client.ID)
		left := slices.DeleteFunc(b.boxes[s.peer.ID], func(o *session) bool { return o == s })
		if b.boxes[s.peer.ID] = left; len(left) == 0 {
			delete(b.boxes, s.peer.ID)
		}
		if s.established || s.resumed {
			b.departs(s)
		}
	}
	close(s.done)
}

func (h *hook) OnSessionEstablished(cl *mqtt.Client, _ packets.Packet) {
	s := sessionOf(cl)
	s.established = true
	h.broker.log.Info("box connected", "device", s.peer.ID, "sid", s.sid)
	if !s.resumed {
		h.broker.opts.OnConnect(s.peer.ID, s.sid)
	}
}

// OnDisconnect only logs: the session is still known to mochi, and forget comes
// after it.
func (h *hook) OnDisconnect(cl *mqtt.Client, err error, _ bool) {
	s := sessionOf(cl)
	h.broker.log.Info("box disconnected", "device", s.peer.ID, "sid", s.sid, "err", err)
}

// OnACLCheck is the whole table: a box publishes its own up/… topics and, when
// it takes leave, its will; it subscribes to its own dn/#. The Will that the
// broker would publish is checked at CONNECT.
func (h *hook) OnACLCheck(cl *mqtt.Client, topic string, write bool) bool {
	id := sessionOf(cl).peer.ID
	may, what := mayReceive(id, topic), "subscribe to"
	if write {
		may, what = mayPublish(id, topic), "publish"
	}
	if !may {
		h.broker.opts.Faults.Note(id, fault.WrongTopic, 1, fmt.Errorf("%w: %s %q", errForeign, what, topic))
	}
	return may
}

func mayPublish(id identity.ID, topic string) bool {
	switch topic {
	case wire.TopicHello.For(id), wire.TopicData.For(id), wire.TopicLive.For(id), wire.TopicWill.For(id):
		return true
	}
	return false
}

// mayReceive is asked for the filter of a subscription and for the topic of
// each message; the filter dn/# is the only one with a wildcard.
func mayReceive(id identity.ID, topic string) bool {
	if topic == wire.TopicDown.For(id) {
		return true
	}
	prefix := strings.TrimSuffix(wire.TopicDown.For(id), "#")
	return strings.HasPrefix(topic, prefix) && !strings.ContainsAny(topic, "+#$")
}

// OnPacketRead refuses what the protocol has no use for before mochi acts on
// it. ErrRejectPacket from here ends the connection.
func (h *hook) OnPacketRead(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	s := sessionOf(cl)
	if err := s.pace(pk.FixedHeader.Remaining); err != nil {
		return pk, packets.ErrRejectPacket
	}
	switch pk.FixedHeader.Type {
	case packets.Publish:
		if pk.FixedHeader.Retain || pk.FixedHeader.Qos > 1 {
			h.broker.opts.Faults.Note(s.peer.ID, fault.Malformed, 1,
				fmt.Errorf("publish on %q of QoS %d, retained %t", pk.TopicName, pk.FixedHeader.Qos, pk.FixedHeader.Retain))
			return pk, packets.ErrRejectPacket
		}
	case packets.Pubrec, packets.Pubrel, packets.Pubcomp, packets.Auth:
		h.broker.opts.Faults.Note(s.peer.ID, fault.Malformed, 1, fmt.Errorf("packet of type %d", pk.FixedHeader.Type))
		return pk, packets.ErrRejectPacket
	case packets.Subscribe:
		if len(pk.Filters) > 4 {
			h.broker.opts.Faults.Note(s.peer.ID, fault.WrongTopic, 1, fmt.Errorf("%d filters at once", len(pk.Filters)))
			return pk, packets.ErrRejectPacket
		}
	}
	return pk, nil
}

// OnPublish hands a message to the sink. mochi sends the PUBACK after it
// returns, unless it returns ErrRejectPacket.
func (h *hook) OnPublish(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	s := sessionOf(cl)
	id, topic, err := wire.ParseTopic(pk.TopicName)
	if err != nil || id != s.peer.ID { // OnACLCheck has seen to it
		return pk, packets.ErrRejectPacket
	}
	s.cork()
	err = s.deliver(topic, pk.Payload)
	s.uncork(err == nil && pk.FixedHeader.Qos > 0)
	if err == nil {
		return pk, packets.CodeSuccessIgnore
	}
	h.broker.log.Debug("message not taken", "device", id, "topic", string(topic), "err", err)
	if errors.Is(err, ErrMalformed) {
		s.conn.Close()
	}
	return pk, packets.ErrRejectPacket
}
