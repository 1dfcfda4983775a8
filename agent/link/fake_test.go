package link_test

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/edgeherd/edgeherd/agent/link"
	"github.com/edgeherd/edgeherd/agent/spool"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/memnet"
	"github.com/edgeherd/edgeherd/internal/wire"
)

const box = identity.ID("d-aaaaaaaaaaaaa")

var run1, run2 = wire.RunID{1}, wire.RunID{2}

// fake is a broker and controller in one, told step by step what to do. Its
// fields are set before start, or under mu.
type fake struct {
	t   *testing.T
	net *memnet.Network

	mu       sync.Mutex
	run      wire.RunID
	lsn      uint64
	welcome  wire.Welcome                   // what WELCOMEs say beyond nonce and run
	noPuback bool                           // for DATA
	silent   bool                           // no WELCOME
	noAck    func(wire.Key) bool            // blocks that are not acknowledged
	hangUp   func(wire.Data) bool           // DATA that ends the connection
	onHello  func(c *session, h wire.Hello) // instead of WELCOME

	conns    []time.Time
	hellos   []wire.Hello
	datas    []wire.Data
	dataAt   []time.Time
	pubacks  int // from the box
	lives    int
	clean    int         // DISCONNECTs
	wills    []wire.Will // that boxes published themselves
	sessions []*session
}

// session is the fake's end of one connection.
type session struct {
	*fake
	conn net.Conn
	wmu  sync.Mutex
	id   uint16
}

func startFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{t: t, net: memnet.New(), run: run1}
	l, err := f.net.Listen("ctl:1")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { f.serve(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		f.net.CutAll("ctl")
		serving.Wait()
	})
	return f
}

func (f *fake) serve(conn net.Conn) {
	defer conn.Close()
	s := &session{fake: f, conn: conn}
	f.mu.Lock()
	f.conns = append(f.conns, time.Now())
	f.sessions = append(f.sessions, s)
	f.mu.Unlock()
	for {
		p, err := packets.ReadPacket(conn)
		if err != nil {
			return
		}
		if !s.answer(p) {
			return
		}
	}
}

func (s *session) answer(p packets.ControlPacket) bool {
	switch p := p.(type) {
	case *packets.ConnectPacket:
		s.write(packets.NewControlPacket(packets.Connack))
	case *packets.SubscribePacket:
		ack := packets.NewControlPacket(packets.Suback).(*packets.SubackPacket)
		ack.MessageID, ack.ReturnCodes = p.MessageID, []byte{1}
		s.write(ack)
	case *packets.PingreqPacket:
		s.write(packets.NewControlPacket(packets.Pingresp))
	case *packets.PubackPacket:
		s.mu.Lock()
		s.pubacks++
		s.mu.Unlock()
	case *packets.DisconnectPacket:
		s.mu.Lock()
		s.clean++
		s.mu.Unlock()
		return false
	case *packets.PublishPacket:
		return s.published(p)
	}
	return true
}

func (s *session) published(p *packets.PublishPacket) bool {
	_, topic, err := wire.ParseTopic(p.TopicName)
	if err != nil {
		s.t.Error(err)
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.Qos == 1 && !(s.noPuback && topic == wire.TopicData) {
		ack := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
		ack.MessageID = p.MessageID
		s.write(ack)
	}
	switch topic {
	case wire.TopicHello:
		h := decode[wire.Hello](s.t, p.Payload)
		s.hellos = append(s.hellos, h)
		if s.onHello != nil {
			s.onHello(s, h)
		} else if !s.silent {
			s.greet(h)
		}
	case wire.TopicData:
		d := decode[wire.Data](s.t, p.Payload)
		s.datas, s.dataAt = append(s.datas, d), append(s.dataAt, time.Now())
		if s.hangUp != nil && s.hangUp(d) {
			return false
		}
		s.ack(d)
	case wire.TopicLive:
		s.lives++
	case wire.TopicWill:
		s.wills = append(s.wills, decode[wire.Will](s.t, p.Payload))
	}
	return true
}

// greet answers a HELLO; mu is held.
func (s *session) greet(h wire.Hello) {
	w := s.welcome
	w.V, w.Nonce, w.Run = wire.Version, h.Nonce, s.run
	for _, id := range h.Runs { // this database has all that was ever acked
		w.Valid = append(w.Valid, wire.RunLSN{Run: id, LSN: 1 << 60})
	}
	s.send(wire.TopicWelcome, w)
}

func (s *session) ack(d wire.Data) {
	s.lsn++
	a := wire.Ack{Run: s.run, LSN: s.lsn}
	for _, b := range d.Blocks {
		if s.noAck == nil || !s.noAck(b.Key) {
			a.Keys = append(a.Keys, b.Key)
		}
	}
	for _, p := range d.Packs {
		for _, k := range p.Keys() {
			if s.noAck == nil || !s.noAck(k) {
				a.Keys = append(a.Keys, k)
			}
		}
	}
	if len(a.Keys) > 0 {
		s.send(wire.TopicAck, a)
	}
}

func (s *session) send(topic wire.Topic, v any) {
	payload, err := wire.Encode(v)
	if err != nil {
		s.t.Error(err)
	}
	s.wmu.Lock()
	s.id++
	id := s.id
	s.wmu.Unlock()
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.TopicName, p.Payload, p.Qos, p.MessageID = topic.For(box), payload, 1, id
	s.write(p)
}

func (s *session) write(p packets.ControlPacket) {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	p.Write(s.conn) // an error means the box has gone
}

func decode[T any](t *testing.T, data []byte) T {
	t.Helper()
	v, err := wire.Decode[T](data)
	if err != nil {
		t.Error(err)
	}
	return v
}

// with runs fn while nothing happens in the fake.
func (f *fake) with(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fn()
}

// last is the present connection.
func (f *fake) last() (s *session) {
	f.with(func() { s = f.sessions[len(f.sessions)-1] })
	return s
}

// rig is a link on a spool on the fake's network.
type rig struct {
	*fake
	*link.Link
	spool *spool.Spool
	began time.Time // of the spool
	stop  func()
}

func start(t *testing.T, f *fake, opts link.Options) *rig {
	t.Helper()
	log, began := slog.New(slog.DiscardHandler), time.Now()
	sp, err := spool.Open(spool.Options{Path: filepath.Join(t.TempDir(), "spool.db"), NoSync: true}, log)
	if err != nil {
		t.Fatal(err)
	}
	opts.ID, opts.Spool = box, sp
	opts.Dial = func(ctx context.Context) (net.Conn, error) { return f.net.Dial(ctx, "box", "ctl:1") }
	opts.Hello = func() wire.Hello { return wire.Hello{Inventory: wire.Inventory{Name: "till", Serial: "\xff"}} }
	l := link.New(opts, log)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(func() {
		stop()
		sp.Close()
	})
	return &rig{fake: f, Link: l, spool: sp, began: began, stop: stop}
}

// add appends n blocks of telemetry.
func (r *rig) add(n int) (keys []wire.Key) {
	r.t.Helper()
	for range n {
		k, err := r.spool.Append(spool.Draft{Lane: wire.LaneTelemetry, Kind: wire.KindResults, Count: 1, Payload: []byte("result")})
		if err != nil {
			r.t.Fatal(err)
		}
		keys = append(keys, k...)
	}
	return keys
}

// addSample appends a block of samples.
func (r *rig) addSample() wire.Key {
	r.t.Helper()
	schema := wire.Schema{Metrics: []wire.Metric{{Name: "m"}}}
	payload, err := wire.EncodeSamples(wire.Samples{Schema: schema, TimesMs: []int64{0}, Values: [][]float64{{1}}})
	if err != nil {
		r.t.Fatal(err)
	}
	keys, err := r.spool.Append(spool.Draft{Lane: wire.LaneTelemetry, Kind: wire.KindSamples, Count: 1, Schema: &schema, Payload: payload})
	if err != nil {
		r.t.Fatal(err)
	}
	return keys[0]
}

func (r *rig) delivered() bool { return r.spool.Buffer().Blocks == 0 }
