package fleettest_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	mathrand "math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeherd/edgeherd/agent/link"
	"github.com/edgeherd/edgeherd/agent/spool"
	"github.com/edgeherd/edgeherd/controller/broker"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/memnet"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// This file holds protocol v1 to its promise with the real spool, link and
// broker over TLS, and a database small enough to be copied, restored and
// looked through: whatever Append has accepted is stored once.

var (
	seeds    = flag.Int("delivery.seeds", 4, "schedules to run")
	seedFrom = flag.Uint64("delivery.seed", 1, "first seed")
)

// ledger is the database: what a backup copies.
type ledger struct {
	lsn    uint64
	run    wire.RunID            // the one that has not ended
	runs   map[wire.RunID]uint64 // past runs with their last LSN
	blocks map[boxKey]string     // payload by key
}

type boxKey struct {
	id  identity.ID
	key wire.Key
}

func (l ledger) copy() ledger {
	return ledger{l.lsn, l.run, maps.Clone(l.runs), maps.Clone(l.blocks)}
}

// center is a controller: broker, a minimal ingest and the ledger.
type center struct {
	w *world

	mu        sync.Mutex
	db        ledger
	broken    bool    // commits fail
	loseAcks  float64 // share of ACKs that are not sent
	crashNext bool    // between a commit and its ACK
	crashed   chan struct{}

	broker *broker.Broker
	stop   func()
}

func (c *center) start() {
	rand.Read(c.db.run[:])
	l, err := c.w.listen()
	if err != nil {
		c.w.t.Fatal(err)
	}
	admit := func(identity.ID) error { return nil }
	c.broker, err = broker.New(broker.Options{Sink: c, Listeners: []net.Listener{tls.NewListener(l, c.w.ca.ServerTLS(c.w.cert, admit))}}, c.w.log)
	if err != nil {
		c.w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(c.w.t.Context())
	done := make(chan error, 1)
	go func() { done <- c.broker.Run(ctx) }()
	c.stop = func() {
		cancel()
		if err := <-done; err != nil {
			c.w.t.Error(err)
		}
	}
}

// restart begins a new run, from a backup if one is given.
func (c *center) restart(backup *ledger) {
	c.stop()
	c.mu.Lock()
	if backup != nil {
		c.db = backup.copy()
	}
	c.db.runs[c.db.run] = c.db.lsn
	c.crashNext = false
	c.mu.Unlock()
	c.start()
}

func (c *center) Deliver(_ context.Context, id identity.ID, topic wire.Topic, payload []byte) error {
	switch topic {
	case wire.TopicHello:
		h, err := wire.Decode[wire.Hello](payload)
		if err != nil {
			return err
		}
		return c.welcome(id, h)
	case wire.TopicData:
		d, err := wire.Decode[wire.Data](payload)
		if err != nil {
			return err
		}
		return c.store(id, d)
	}
	return nil
}

func (c *center) welcome(id identity.ID, h wire.Hello) error {
	c.mu.Lock()
	w := wire.Welcome{V: 1, Nonce: h.Nonce, Run: c.db.run}
	for _, run := range h.Runs {
		if lsn, ok := c.db.runs[run]; ok {
			w.Valid = append(w.Valid, wire.RunLSN{Run: run, LSN: lsn})
		} else if run == c.db.run {
			w.Valid = append(w.Valid, wire.RunLSN{Run: run, LSN: c.db.lsn})
		}
	}
	c.mu.Unlock()
	return c.publish(id, wire.TopicWelcome, w)
}

func (c *center) store(id identity.ID, d wire.Data) error {
	c.mu.Lock()
	if c.broken {
		c.mu.Unlock()
		return errors.New("disk full")
	}
	a := wire.Ack{Run: c.db.run}
	for _, b := range d.Blocks {
		if err := b.Verify(); err != nil {
			c.w.t.Error(err)
			a.Refused = append(a.Refused, b.Key)
			continue
		}
		at := boxKey{id, b.Key}
		if had, ok := c.db.blocks[at]; ok && had != string(b.Payload) {
			c.w.t.Errorf("one key, two blocks: %s", b.Key)
		}
		c.db.blocks[at] = string(b.Payload)
		a.Keys = append(a.Keys, b.Key)
	}
	c.db.lsn++
	a.LSN = c.db.lsn
	lose := c.w.rng.Float64() < c.loseAcks
	crash := c.crashNext
	c.crashNext = false
	c.mu.Unlock()
	if crash {
		close(c.crashed)
		return errors.New("crashed after the commit")
	}
	if lose {
		return nil
	}
	return c.publish(id, wire.TopicAck, a)
}

func (c *center) publish(id identity.ID, topic wire.Topic, v any) error {
	payload, err := wire.Encode(v)
	if err != nil {
		return err
	}
	return c.broker.Publish(id, topic, payload, 1)
}

// world is a center and its boxes.
type world struct {
	t   *testing.T
	log *slog.Logger
	rng *lockedRand
	net *memnet.Network
	ca  *identity.CA

	listen func() (net.Listener, error)
	dial   func(ctx context.Context, host string) (net.Conn, error)

	cert tls.Certificate
	ctl  *center
	box  []*station
	uid  int
}

// lockedRand lets goroutines draw from one seed. Which draws first may differ
// between runs of one seed; the schedule of faults does not.
type lockedRand struct {
	mu  sync.Mutex
	rng *mathrand.Rand
}

func (r *lockedRand) Float64() float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rng.Float64()
}

// station is a box: spool and link on one file.
type station struct {
	w    *world
	id   *identity.Identity
	host string
	path string

	spool    *spool.Spool
	link     *link.Link
	stop     func()
	accepted map[wire.Key]string // what Append has promised
}

// newWorld makes a world on an in-memory network.
func newWorld(t *testing.T, seed uint64, boxes int) *world {
	t.Helper()
	n := memnet.New()
	n.SetLatency(40 * time.Millisecond)
	w := &world{t: t, net: n, rng: &lockedRand{rng: mathrand.New(mathrand.NewPCG(seed, 1))}}
	w.listen = func() (net.Listener, error) { return n.Listen("ctl:8883") }
	w.dial = func(ctx context.Context, host string) (net.Conn, error) { return n.Dial(ctx, host, "ctl:8883") }
	w.start(boxes)
	return w
}

func (w *world) start(boxes int) {
	t := w.t
	t.Helper()
	w.log = slog.New(slog.DiscardHandler)
	var err error
	if w.ca, err = identity.OpenCA(t.TempDir(), time.Now); err != nil {
		t.Fatal(err)
	}
	if w.cert, err = w.ca.IssueServer([]string{"ctl"}); err != nil {
		t.Fatal(err)
	}
	w.ctl = &center{w: w, db: ledger{runs: map[wire.RunID]uint64{}, blocks: map[boxKey]string{}}}
	w.ctl.start()
	for i := range boxes {
		dir := t.TempDir()
		box := identity.Box{ID: identity.NewID(), Server: "ctl"}
		if err := identity.Enrol(dir, w.ca, box); err != nil {
			t.Fatal(err)
		}
		s := &station{w: w, host: fmt.Sprint("box", i), path: filepath.Join(dir, "spool.db"), accepted: map[wire.Key]string{}}
		if s.id, err = identity.Load(dir); err != nil {
			t.Fatal(err)
		}
		s.start()
		w.box = append(w.box, s)
	}
}

func (w *world) close() {
	for _, s := range w.box {
		s.stop()
	}
	w.ctl.stop()
}

func (s *station) start() {
	var err error
	if s.spool, err = spool.Open(spool.Options{Path: s.path, NoSync: true}, s.w.log); err != nil {
		s.w.t.Fatal(err)
	}
	s.link = link.New(link.Options{
		ID: s.id.ID, Spool: s.spool, MaxBackoff: time.Minute,
		Dial:  s.dial,
		Hello: func() wire.Hello { return wire.Hello{} },
	}, s.w.log)
	ctx, cancel := context.WithCancel(s.w.t.Context())
	done := make(chan error, 1)
	go func() { done <- s.link.Run(ctx) }()
	s.stop = func() {
		cancel()
		err := errors.Join(<-done, s.spool.Close())
		if err != nil {
			s.w.t.Error(err)
		}
	}
}

func (s *station) dial(ctx context.Context) (net.Conn, error) {
	raw, err := s.w.dial(ctx, s.host)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, s.id.ClientTLS(time.Now))
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	return conn, nil
}

// append writes n blocks, each with a number of its own.
func (s *station) append(n int) {
	for range n {
		s.w.uid++
		lane := wire.Lane(s.w.rng.Float64() * wire.Lanes)
		payload := fmt.Sprintf("uid %d", s.w.uid)
		keys, err := s.spool.Append(spool.Draft{Lane: lane, Kind: wire.KindResults, Count: 1, Payload: []byte(payload)})
		if err != nil {
			s.w.t.Fatal(err)
		}
		s.accepted[keys[0]] = payload
	}
}

// check compares the ledger with what the spools have accepted.
func (w *world) check() {
	w.t.Helper()
	w.ctl.mu.Lock()
	defer w.ctl.mu.Unlock()
	stored := map[string]int{}
	for _, payload := range w.ctl.db.blocks {
		stored[payload]++
	}
	missing, twice := 0, 0
	for _, s := range w.box {
		for _, payload := range s.accepted {
			switch stored[payload] {
			case 0:
				missing++
			case 1:
			default:
				twice++
			}
		}
	}
	if missing > 0 || twice > 0 || len(stored) != w.uid {
		w.t.Errorf("of %d blocks %d are missing and %d are stored twice; the ledger has %d", w.uid, missing, twice, len(stored))
	}
}

func (w *world) settle(limit time.Duration) {
	w.t.Helper()
	end := time.Now().Add(limit)
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	for {
		left := int64(0)
		for _, s := range w.box {
			left += s.spool.Buffer().Blocks
		}
		if left == 0 {
			return
		}
		if time.Now().After(end) {
			for _, s := range w.box {
				w.t.Logf("%s: %+v, %+v", s.host, s.spool.Buffer(), s.link.Status())
			}
			w.t.Fatalf("%d blocks are not delivered %v after the last fault", left, limit)
		}
		<-look.C
	}
}

func TestBlocksAreStoredOnceOverTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 3)
		defer w.close()
		for range 10 {
			for _, s := range w.box {
				s.append(10)
			}
			time.Sleep(time.Minute)
		}
		w.settle(time.Minute)
		w.check()
	})
}

// TestBlocksAreStoredOnceOverSockets is the same over TCP, in real time.
func TestBlocksAreStoredOnceOverSockets(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, rng: &lockedRand{rng: mathrand.New(mathrand.NewPCG(1, 1))}}
	w.listen = func() (net.Listener, error) { return l, nil }
	w.dial = func(ctx context.Context, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	}
	w.start(3)
	defer w.close()
	for _, s := range w.box {
		s.append(100)
	}
	w.settle(time.Minute)
	w.check()
}

// TestNoScheduleOfFaultsLosesOrDoublesABlock runs random schedules.
func TestNoScheduleOfFaultsLosesOrDoublesABlock(t *testing.T) {
	for i := range uint64(*seeds) {
		seed := *seedFrom + i
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				t.Logf("again with -run %q -delivery.seed %d -delivery.seeds 1", "NoSchedule", seed)
				w := newWorld(t, seed, 3)
				defer w.close()
				counts := w.schedule(mathrand.New(mathrand.NewPCG(seed, 2)), 150)
				w.calm()
				w.settle(2 * time.Hour)
				w.check()
				t.Logf("%d blocks; faults %v", w.uid, counts)
			})
		})
	}
}

// schedule does random things to the world.
func (w *world) schedule(rng *mathrand.Rand, steps int) map[string]int {
	counts := map[string]int{}
	backup := w.ctl.db.copy()
	for range steps {
		s := w.box[rng.IntN(len(w.box))]
		what := "append"
		switch n := rng.IntN(100); {
		case n < 45:
			s.append(1 + rng.IntN(40))
		case n < 52:
			what = "cut"
			w.net.Cut(s.host, "ctl")
		case n < 59:
			what = "blackhole"
			w.net.Blackhole(s.host, "ctl")
		case n < 72:
			what = "heal"
			w.net.Heal(s.host, "ctl")
		case n < 77:
			what = "restart box"
			s.stop()
			s.start()
		case n < 81:
			what = "restart controller"
			w.ctl.restart(nil)
		case n < 84:
			what = "backup"
			w.ctl.mu.Lock()
			backup = w.ctl.db.copy()
			w.ctl.mu.Unlock()
		case n < 87:
			what = "restore"
			w.ctl.restart(&backup)
		case n < 90:
			what = "crash between commit and ACK"
			w.crash()
		case n < 95:
			what = "lose ACKs"
			w.ctl.set(func(c *center) { c.loseAcks = rng.Float64() })
		default:
			what = "disk of the controller"
			w.ctl.set(func(c *center) { c.broken = !c.broken })
		}
		counts[what]++
		time.Sleep(time.Duration(rng.IntN(40_000)) * time.Millisecond)
	}
	return counts
}

func (c *center) set(fn func(*center)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fn(c)
}

// crash ends the controller right after its next commit, if one comes.
func (w *world) crash() {
	crashed := make(chan struct{})
	w.ctl.set(func(c *center) { c.crashNext, c.crashed = true, crashed })
	select {
	case <-crashed:
	case <-time.After(time.Minute):
	}
	w.ctl.restart(nil)
}

func (w *world) calm() {
	for _, s := range w.box {
		w.net.Heal(s.host, "ctl")
	}
	w.ctl.set(func(c *center) { c.broken, c.loseAcks, c.crashNext = false, 0, false })
}
