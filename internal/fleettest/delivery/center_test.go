package delivery

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing/synctest"
	"time"

	"github.com/edgeherd/edgeherd/controller/broker"
	"github.com/edgeherd/edgeherd/controller/ingest"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// center is the controller's side: the real broker, ingest and store. What is
// between them misbehaves as an outside broker may.
type center struct {
	w     *world
	disk  *disk
	vault string // where backups are
	gen   int    // of the file in use

	life  sync.RWMutex // held to use the fields below while they are there
	store *store.Store
	in    *ingest.Ingest
	up    bool

	broker     *broker.Broker
	stopBroker func()
	stopIngest func()

	mu      sync.Mutex // guards the fields below
	moods   moods
	crash   chan struct{} // closed instead of the next ACK
	seen    map[boxKey]bool
	traffic traffic
	mixed   map[identity.ID]bool // boxes of which a row of ten blocks counts in part
	delayed sync.WaitGroup
}

// traffic counts what has come: a schedule without packs shows nothing about
// them.
type traffic struct {
	Blocks       int
	Packs        [3]int // by grain
	PartlyStored [3]int // of those, packs of which only some members were stored already
}

func (t *traffic) add(o traffic) {
	t.Blocks += o.Blocks
	for g := range t.Packs {
		t.Packs[g] += o.Packs[g]
		t.PartlyStored[g] += o.PartlyStored[g]
	}
}

// moods are shares of messages that meet a fault.
type moods struct {
	refuse  float64 // DATA fails before its commit, as with a full disk
	swallow float64 // DATA is taken and forgotten
	again   float64 // DATA comes again, up to half an hour later
	loseAck float64
	lateAck float64 // up to half an hour
	twice   float64 // what goes to a box comes twice
}

func (c *center) path() string { return filepath.Join(c.disk.dir, fmt.Sprintf("store-%d.db", c.gen)) }

// start opens the database as it is.
func (c *center) start() {
	c.disk.free()
	s, err := store.Open(context.Background(), store.Options{Path: c.path()})
	if err != nil {
		c.w.t.Fatal(err)
	}
	in := ingest.New(ingest.Options{Store: s, Publish: c.publish}, c.w.log)
	c.stopIngest = c.run(in.Run)
	c.life.Lock()
	c.store, c.in, c.up = s, in, true
	c.life.Unlock()
	c.startBroker()
}

func (c *center) startBroker() {
	l, err := c.w.listen()
	if err != nil {
		c.w.t.Fatal(err)
	}
	admit := func(identity.ID) error { return nil }
	b, err := broker.New(broker.Options{Sink: c, Listeners: []net.Listener{tls.NewListener(l, c.w.ca.ServerTLS(c.w.cert, admit))}}, c.w.log)
	if err != nil {
		c.w.t.Fatal(err)
	}
	c.mu.Lock()
	c.broker = b
	c.mu.Unlock()
	c.stopBroker = c.run(b.Run)
}

// run starts a component and returns what stops it.
func (c *center) run(run func(context.Context) error) func() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			c.w.t.Error(err)
		}
	}
}

func (c *center) stop() {
	c.stopBroker()
	c.stopIngest()
	c.life.Lock()
	defer c.life.Unlock()
	c.up = false
	if err := c.store.Close(); err != nil {
		c.w.t.Error(err)
	}
}

func (c *center) restart() {
	c.stop()
	c.start()
}

// image copies the database as it is on disk: what a process that dies leaves.
// Nothing is under way while it does.
func (c *center) image(to string) {
	synctest.Wait()
	for _, tail := range []string{"", "-wal"} {
		copyFile(c.w.t, c.path()+tail, to+tail)
	}
}

// die ends the controller without the goodness of a shutdown.
func (c *center) die() {
	c.disk.free()
	next := filepath.Join(c.disk.dir, fmt.Sprintf("store-%d.db", c.gen+1))
	c.image(next)
	c.stop()
	c.gen++
	c.start()
}

// restore puts an image in place of the database.
func (c *center) restore(from string) {
	before := c.keys()
	toldBefore, _ := c.w.gaps()
	c.disk.free()
	c.stop()
	c.gen++
	for _, tail := range []string{"", "-wal"} {
		copyFile(c.w.t, from+tail, c.path()+tail)
	}
	c.start()
	after := c.keys()
	c.set(func(c *center) { c.seen = maps.Clone(after) })
	toldAfter, _ := c.w.gaps()
	for k, r := range c.w.ledger {
		if before[k] && !after[k] || told(toldBefore[k.stream()], k.key.Seq) && !told(toldAfter[k.stream()], k.key.Seq) {
			r.away = true
		}
	}
}

// keys are all that the database has.
func (c *center) keys() map[boxKey]bool {
	keys := map[boxKey]bool{}
	for _, id := range c.w.ids {
		if err := c.store.Keys(context.Background(), id, func(k wire.Key) { keys[boxKey{id, k}] = true }); err != nil {
			c.w.t.Fatal(err)
		}
	}
	return keys
}

// draw says whether one of many messages meets a fault.
func (c *center) draw(share func(moods) float64) bool {
	c.mu.Lock()
	p := share(c.moods)
	c.mu.Unlock()
	return p > 0 && c.w.rng.Float64() < p
}

// later runs do after up to half an hour.
func (c *center) later(do func()) {
	pause := time.Duration(c.w.rng.Float64() * float64(30*time.Minute))
	c.delayed.Go(func() {
		time.Sleep(pause)
		do()
	})
}

func (c *center) Deliver(ctx context.Context, id identity.ID, topic wire.Topic, payload []byte) error {
	if topic == wire.TopicData || topic == wire.TopicHello {
		if c.draw(func(m moods) float64 { return m.again }) {
			copied := bytes.Clone(payload)
			c.later(func() { _ = c.deliver(context.Background(), id, topic, copied) })
		}
		if c.draw(func(m moods) float64 { return m.swallow }) {
			return nil
		}
		if c.draw(func(m moods) float64 { return m.refuse }) {
			return errors.New("no space left on device")
		}
	}
	return c.deliver(ctx, id, topic, payload)
}

func (c *center) deliver(ctx context.Context, id identity.ID, topic wire.Topic, payload []byte) error {
	c.life.RLock()
	defer c.life.RUnlock()
	if !c.up {
		return errors.New("controller is down")
	}
	err := c.in.Deliver(ctx, id, topic, payload)
	if err == nil && topic == wire.TopicData {
		c.note(id, payload)
	}
	return err
}

// note counts what was stored.
func (c *center) note(id identity.ID, payload []byte) {
	d, err := wire.Decode[wire.Data](payload)
	if err != nil {
		c.w.t.Error(err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range d.Blocks {
		c.traffic.Blocks++
		c.seen[boxKey{id, b.Key}] = true
	}
	for _, p := range d.Packs {
		c.traffic.Packs[p.Grain]++
		known := 0
		for _, k := range p.Keys() {
			if c.seen[boxKey{id, k}] {
				known++
			}
			c.seen[boxKey{id, k}] = true
		}
		if known > 0 && known < len(p.Members) {
			c.traffic.PartlyStored[p.Grain]++
			c.mixed[id] = c.mixed[id] || p.Grain == wire.GrainTen
		}
	}
}

func (c *center) publish(id identity.ID, topic wire.Topic, payload []byte, qos byte) error {
	if topic == wire.TopicAck {
		c.mu.Lock()
		crash := c.crash
		c.crash = nil
		c.mu.Unlock()
		if crash != nil {
			close(crash)
			c.set(func(c *center) { c.moods.loseAck = 1 })
			return nil
		}
		if c.draw(func(m moods) float64 { return m.loseAck }) {
			return nil
		}
		if c.draw(func(m moods) float64 { return m.lateAck }) {
			c.later(func() { _ = c.send(id, topic, payload, qos) })
			return nil
		}
	}
	if c.draw(func(m moods) float64 { return m.twice }) {
		c.later(func() { _ = c.send(id, topic, payload, qos) })
	}
	return c.send(id, topic, payload, qos)
}

// send uses the broker that is there now: an answer may be older than it.
func (c *center) send(id identity.ID, topic wire.Topic, payload []byte, qos byte) error {
	c.mu.Lock()
	b := c.broker
	c.mu.Unlock()
	return b.Publish(id, topic, payload, qos)
}

func (c *center) set(fn func(*center)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fn(c)
}

// dieBeforeAck kills the controller between its next commit and the ACK, if a
// commit comes.
func (c *center) dieBeforeAck() bool {
	crash := make(chan struct{})
	var before moods
	c.set(func(c *center) { c.crash, before = crash, c.moods })
	hit := false
	select {
	case <-crash:
		hit = true
	case <-time.After(2 * time.Minute):
	}
	c.die()
	c.set(func(c *center) { c.crash, c.moods = nil, before })
	return hit
}

// copyFile copies a file; one that is not there is none afterwards.
func copyFile(t fataler, from, to string) {
	data, err := os.ReadFile(from)
	if errors.Is(err, os.ErrNotExist) {
		if err := os.RemoveAll(to); err != nil {
			t.Fatal(err)
		}
		return
	}
	if err == nil {
		err = os.WriteFile(to, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

type fataler interface{ Fatal(...any) }
