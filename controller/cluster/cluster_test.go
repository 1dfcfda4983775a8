package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/cluster"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/controller/store/storetest"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// server is one PostgreSQL for all tests; each has a database of its own.
var server struct {
	*storetest.Cluster
	err error
}

func TestMain(m *testing.M) {
	if server.Cluster, server.err = storetest.New(); server.err == nil {
		server.err = server.Start()
	}
	code := m.Run()
	if server.Cluster != nil {
		server.Stop()
		server.Remove()
	}
	os.Exit(code)
}

func database(t *testing.T) string {
	t.Helper()
	if server.err != nil {
		storetest.Absent(t, server.err)
	}
	address, _, err := server.Create()
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// peer is a node with what it was told.
type peer struct {
	*cluster.Node
	id    string
	store *store.Store
	halt  func() // ends Run
	stop  func() // as if its machine had died: without taking leave

	mu       sync.Mutex // guards the fields below
	told     []string
	changes  []fleetapi.Change
	gone     []identity.ID
	deaf     int
	woken    int
	watching bool
}

func (p *peer) note(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

// start begins a node that dies only by kill.
func start(t *testing.T, address string) *peer { return startFor(t, address, time.Hour) }

// startFor begins a node that counts as alive for so long after a beat; 0: as
// usual.
func startFor(t *testing.T, address string, life time.Duration) *peer {
	t.Helper()
	p := &peer{id: cluster.NewID()}
	var err error
	if p.store, err = store.Open(t.Context(), store.Options{Database: address, Node: p.id}); err != nil {
		t.Fatal(err)
	}
	p.Node = cluster.New(cluster.Options{
		ID: p.id, Name: "test", Store: p.store,
		Tell: func(id identity.ID, topic wire.Topic, payload []byte) {
			p.note(func() { p.told = append(p.told, fmt.Sprintf("%s %s %s", id, topic, payload)) })
		},
		Deaf:     func() { p.note(func() { p.deaf++ }) },
		Change:   func(c fleetapi.Change) { p.note(func() { p.changes = append(p.changes, c) }) },
		Wake:     func() { p.note(func() { p.woken++ }) },
		Gone:     func(ids []identity.ID) { p.note(func() { p.gone = append(p.gone, ids...) }) },
		Watching: func() (yes bool) { p.note(func() { yes = p.watching }); return yes },
	}, slog.New(slog.DiscardHandler))
	if life != 0 {
		p.LiveFor(life)
	}
	if err := p.Beat(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	p.halt = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	p.stop = sync.OnceFunc(func() {
		p.halt()
		if err := p.store.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(p.stop)
	// Whoever sends before it listens is not heard.
	until(t, "the node listens", func() (yes bool) { p.note(func() { yes = p.deaf >= 2 }); return yes })
	return p
}

func psql(t *testing.T, address, text string) string {
	t.Helper()
	out, err := server.Tool("psql", "-d", address, "-Atc", text)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// kill stops a node without leave, and lets the time pass after which it counts
// as dead.
func (p *peer) kill(t *testing.T, address string) {
	t.Helper()
	p.stop()
	psql(t, address, "UPDATE node SET until_ms = 0 WHERE id = '"+p.id+"'; UPDATE lease SET until_ms = 0 WHERE node = '"+p.id+"'")
}

func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(5 * time.Minute)
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within five minutes: %s", what)
		}
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func hello(t *testing.T, p *peer, id identity.ID, conn uint64) {
	t.Helper()
	check(t, p.store.Hello(t.Context(), id, wire.Hello{SID: wire.SID{1}, Conn: conn}))
}

func connected(t *testing.T, p *peer, id identity.ID) bool {
	t.Helper()
	b, err := p.store.Box(t.Context(), id, 0)
	check(t, err)
	return b.Connected
}

const boxA, boxB = identity.ID("d-aaaaaaaaaaaaa"), identity.ID("d-bbbbbbbbbbbbb")

func TestADeadLeaderIsReplacedAndItsLateWritesFail(t *testing.T) {
	address := database(t)
	a, b := start(t, address), start(t, address)
	check(t, a.store.AddBox(t.Context(), boxA, "box-a", "site"))
	if !a.Leads() || b.Leads() {
		t.Fatalf("first leads: %v, second leads: %v", a.Leads(), b.Leads())
	}
	late, ok := a.Fence(context.Background())
	if _, second := b.Fence(t.Context()); !ok || second {
		t.Fatalf("fence of the leader %v, of the other %v", ok, second)
	}
	witness, err := store.Open(t.Context(), store.Options{Database: address})
	check(t, err)
	defer witness.Close()
	check(t, witness.AddBox(late, boxB, "box-b", "site")) // still the leader's word
	a.kill(t, address)
	until(t, "the other node leads", b.Leads)
	if err := witness.AddBox(late, "d-ccccccccccccc", "box-c", "site"); !errors.Is(err, store.ErrFenced) {
		t.Errorf("a write of the dead leader: %v, want ErrFenced", err)
	}
	now, ok := b.Fence(t.Context())
	if err := witness.AddBox(now, "d-ddddddddddddd", "box-d", "site"); err != nil || !ok {
		t.Errorf("a write of the new leader: %v", err)
	}
}

func TestALeaderStopsBeforeOthersMayTakeOver(t *testing.T) {
	address := database(t)
	a := startFor(t, address, 0)
	a.halt() // no beat comes between the two times that are compared
	ms, err := strconv.ParseInt(psql(t, address, "SELECT until_ms FROM lease"), 10, 64)
	check(t, err)
	if end := time.UnixMilli(ms); a.Good().IsZero() || a.Good().Add(cluster.BeatMargin).After(end.Add(time.Millisecond)) {
		t.Errorf("it leads until %s, others may from %s on; want %s between", a.Good(), end, cluster.BeatMargin)
	}
}

func TestANodeThatTakesLeaveIsReplacedAtOnce(t *testing.T) {
	address := database(t)
	a, b := start(t, address), start(t, address)
	check(t, a.store.AddBox(t.Context(), boxA, "box-a", "site"))
	hello(t, a, boxA, 1)
	a.halt() // else it would come back
	check(t, a.Leave(t.Context()))
	check(t, b.Beat(t.Context()))
	if !b.Leads() {
		t.Error("the other node does not lead")
	}
	if connected(t, b, boxA) {
		t.Error("a box is connected to a node that has left")
	}
}

func TestBoxesOfADeadNodeAreGoneUnlessTheyCameBackElsewhere(t *testing.T) {
	address := database(t)
	a, b := start(t, address), start(t, address)
	for id, name := range map[identity.ID]string{boxA: "box-a", boxB: "box-b"} {
		check(t, a.store.AddBox(t.Context(), id, name, "site"))
		hello(t, a, id, 1)
	}
	a.stop()
	hello(t, b, boxB, 2)
	a.kill(t, address)
	until(t, "the box that did not come back is gone", func() bool { return !connected(t, b, boxA) })
	if !connected(t, b, boxB) {
		t.Error("a box that came back elsewhere counts as gone")
	}
	b.note(func() {
		if !slices.Equal(b.gone, []identity.ID{boxA}) {
			t.Errorf("told to pages: %v", b.gone)
		}
	})
	// The late end of the old session means nothing.
	if gone, err := b.store.EndSession(t.Context(), boxB, wire.SID{1}, 1); gone || err != nil {
		t.Errorf("the end of an old connection: %v, %v", gone, err)
	}
}

func TestAMessageReachesTheNodeThatTalksWithTheBox(t *testing.T) {
	address := database(t)
	a, b, c := start(t, address), start(t, address), start(t, address)
	check(t, a.store.AddBox(t.Context(), boxA, "box-a", "site"))
	if err := a.Tell(boxA, wire.TopicCmd, []byte("x")); !errors.Is(err, cluster.ErrNowhere) {
		t.Errorf("a box without session: %v", err)
	}
	hello(t, b, boxA, 1)
	check(t, a.Tell(boxA, wire.TopicWant, []byte(strings.Repeat("large", 10_000))))
	check(t, a.Tell(boxA, wire.TopicCmd, []byte("payload")))
	want := []string{string(boxA) + " dn/want ", string(boxA) + " dn/cmd payload"}
	until(t, "the node with the session is told", func() (yes bool) {
		b.note(func() { yes = slices.Equal(b.told, want) })
		return yes
	})
	for _, other := range []*peer{a, c} {
		other.note(func() {
			if len(other.told) > 0 {
				t.Errorf("another node was told %q", other.told)
			}
		})
	}
}

func TestAMessageForABoxOfNobodyKnowsWhomReachesAllOthers(t *testing.T) {
	address := database(t)
	a, b, c := start(t, address), start(t, address), start(t, address)
	a.TellAll(boxA, wire.TopicWant, nil)
	a.TellAll(boxA, wire.TopicCmd, []byte("question"))
	for _, p := range []*peer{b, c} {
		until(t, "the other nodes are told", func() (yes bool) {
			p.note(func() {
				yes = slices.Equal(p.told, []string{string(boxA) + " dn/want ", string(boxA) + " dn/cmd question"})
			})
			return yes
		})
	}
	a.note(func() {
		if len(a.told) > 0 {
			t.Errorf("it told itself %q", a.told)
		}
	})
}

func TestChangesReachThePagesOfOtherNodes(t *testing.T) {
	address := database(t)
	a, b := start(t, address), start(t, address)
	b.note(func() { b.watching = true })
	until(t, "both know that somebody watches", func() bool { return a.Watching() && b.Watching() })
	// What happened before that is made up for.
	until(t, "the watcher reads everything again", func() (yes bool) {
		b.note(func() {
			yes = true
			for _, topic := range fleetapi.ChangeTopics() {
				yes = yes && slices.ContainsFunc(b.changes, func(c fleetapi.Change) bool { return c.Topic == topic && c.ID == "" })
			}
		})
		return yes
	})
	const boxes = 3000
	for i := range boxes {
		a.Share(fleetapi.Change{Topic: "boxes", ID: fmt.Sprintf("d-%013d", i)})
	}
	sample := &fleetapi.LiveSample{Box: boxA, Values: map[string]float64{}}
	for i := range 60 {
		sample.Values[fmt.Sprintf("metric_number_%d_celsius", i)] = 1.0 / float64(i+3)
	}
	a.Share(fleetapi.Change{Topic: "live", ID: string(boxA), Live: sample})
	until(t, "the sample and the changes come", func() bool {
		live, all, some := false, false, 0
		b.note(func() {
			for _, c := range b.changes {
				live = live || c.Live != nil && len(c.Live.Values) == 60
				if c.Topic == "boxes" && c.ID != "" {
					some++
				} else if c.Topic == "boxes" && some > 0 {
					all = true // the rest is told as a whole
				}
			}
		})
		return live && (all || some == boxes)
	})
	a.note(func() {
		if slices.ContainsFunc(a.changes, func(c fleetapi.Change) bool { return c.ID != "" }) {
			t.Error("a node heard itself")
		}
	})
	b.WakeLeader()
	until(t, "the leader is woken", func() (yes bool) { a.note(func() { yes = a.woken > 0 }); return yes })
}

// TestWhatAnOutageSwallowedIsToldAfterIt takes a table away that every notice
// needs, so that a beat and a notice fail while the listeners hear.
func TestWhatAnOutageSwallowedIsToldAfterIt(t *testing.T) {
	address := database(t)
	a, b := startFor(t, address, 0), startFor(t, address, 0)
	b.note(func() { b.watching = true })
	until(t, "both know that somebody watches", func() bool { return a.Watching() && b.Watching() })
	before := 0
	a.note(func() { before = a.deaf })
	psql(t, address, "CREATE SCHEMA away; ALTER TABLE node SET SCHEMA away; ALTER FUNCTION pg_catalog.pg_notify(text, text) RENAME TO away_notify")
	a.Share(fleetapi.Change{Topic: "rollouts", ID: "r-1"})
	until(t, "neither leads", func() bool { return !a.Leads() && !b.Leads() })
	b.note(func() { b.changes = nil })
	psql(t, address, "ALTER FUNCTION pg_catalog.away_notify(text, text) RENAME TO pg_notify; ALTER TABLE away.node SET SCHEMA public")
	until(t, "pages read again what they were not told", func() (yes bool) {
		b.note(func() {
			yes = slices.ContainsFunc(b.changes, func(c fleetapi.Change) bool { return c == fleetapi.Change{Topic: "rollouts"} })
		})
		return yes
	})
	until(t, "boxes are asked who talks with them", func() (yes bool) { a.note(func() { yes = a.deaf > before }); return yes })
	until(t, "one leads", func() bool { return a.Leads() != b.Leads() })
}

func TestANodeThatLostItsEarsCatchesUp(t *testing.T) {
	address := database(t)
	a := start(t, address)
	before := 0
	a.note(func() { before = a.deaf })
	ended := psql(t, "postgres", "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'edgeherd listener'")
	if ended == "0" {
		t.Fatal("no listener was ended")
	}
	until(t, "the node notices", func() (yes bool) { a.note(func() { yes = a.deaf > before }); return yes })
}
