// Package fleettest runs a whole fleet inside one testing/synctest bubble: the
// real controller with its broker and database, real agents with their spools,
// simulated boards, and an in-memory network that can be cut, on fake time. An
// hour of outage costs a second.
//
// A test starts a Fleet inside synctest.Test and speaks in verbs: Cut, Heal,
// StopController, StartController, SetClock, Backup, Push, Roll, Until. Only the
// runner is an imitation (real ones are processes): it serves the API of the
// runner's socket, and a model tells by its name for producers how it behaves,
// see Model. Its ledger remembers every result that it handed to an agent.
//
// The one rule a caller can break: end with Close, or the bubble never ends.
package fleettest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/agent"
	"github.com/edgeherd/edgeherd/controller"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/memnet"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/internal/simboard"
)

// The hosts of the network; boxes are named by Box.Name.
const (
	ctlHost  = "ctl"
	opsHost  = "ops"
	httpAddr = "ctl:8443"
)

// Fleet is a controller and its boxes.
type Fleet struct {
	T     *testing.T
	Net   *memnet.Network
	Boxes []*Box
	// API is an operator's client.
	API *fleetapi.Client

	dir       string
	log       *slog.Logger
	transport *http.Transport
	ctl       *process
	keyPath   string
	began     time.Time // when all boards booted
	token     string
}

// Box is one box: its agent, its runner and its board.
type Box struct {
	ID     identity.ID
	Name   string
	Runner *Runner
	// OnJournal is passed to the next agent that is started.
	OnJournal func() error
	// Tune changes the options of the next agent that is started.
	Tune func(*agent.Options)

	fleet *Fleet
	dir   string
	agent *process
	skew  atomic.Int64 // of its wall clock, in nanoseconds
}

// process is one Run with the means to stop it.
type process struct {
	cancel context.CancelFunc
	done   chan struct{}
	err    error // valid when done is closed
}

func start(run func(context.Context) error) *process {
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.err = run(ctx)
	}()
	return p
}

func (p *process) stop() error {
	p.cancel()
	<-p.done
	return p.err
}

// New starts a controller and n boxes at two sites. Call it inside a bubble.
func New(t *testing.T, n int) *Fleet { return NewAt(t, n, 2) }

// NewAt is New with so many sites, which get boxes in turn.
func NewAt(t *testing.T, n, sites int) *Fleet {
	t.Helper()
	f := &Fleet{T: t, Net: memnet.New(), began: time.Now(), dir: t.TempDir(), log: slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))}
	f.transport = &http.Transport{DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) { return f.Net.Dial(ctx, opsHost, addr) }}
	f.StartController()
	for i := range n {
		b := &Box{Name: fmt.Sprintf("box-%d", i+1), fleet: f}
		b.dir = filepath.Join(f.dir, b.Name)
		f.Boxes = append(f.Boxes, b)
	}
	f.enrol(sites)
	for i, b := range f.Boxes {
		b.Runner = newRunner(f, b)
		// One step: a board that writes its files every second of a long outage
		// would cost more than all the rest.
		board := simboard.New(simboard.Options{Root: filepath.Join(b.dir, "root"), Profile: simboard.Profiles()[i%3], Name: b.Name, Seed: uint64(i)}, f.log)
		board.Step(time.Now())
		if err := errors.Join(board.Err(), board.Close()); err != nil {
			t.Fatalf("board of %s: %v", b.Name, err)
		}
		b.StartAgent()
	}
	return f
}

// testWriter sends logs to the test, so that they show only when it fails.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(string(p))
	return len(p), nil
}

func (f *Fleet) controllerDir() string { return filepath.Join(f.dir, "server") }

// open opens the controller of this fleet.
func (f *Fleet) open() *controller.Controller {
	f.T.Helper()
	c, err := controller.Open(context.Background(), controller.Options{
		Dir: f.controllerDir(), HTTP: httpAddr, Device: "ctl:8444", MQTT: "ctl:8883",
		Hosts: []string{ctlHost}, HTTPPlain: true, Version: "test",
		Listen: func(_, addr string) (net.Listener, error) { return f.Net.Listen(addr) },
	}, f.log)
	if err != nil {
		f.T.Fatalf("open controller: %v", err)
	}
	return c
}

// StartController starts the controller on the state it left.
func (f *Fleet) StartController() {
	f.T.Helper()
	c := f.open()
	f.keyPath = c.SigningKeyPath()
	if f.token == "" {
		var err error
		if f.token, err = c.NewAPIToken(context.Background(), "test", "owner", 100*365*24*time.Hour); err != nil {
			f.T.Fatal(err)
		}
		f.API = fleetapi.New("http://"+httpAddr, f.token, f.transport)
	}
	f.ctl = start(c.Run)
}

// StopController ends the controller; what it has committed stays.
func (f *Fleet) StopController() {
	f.T.Helper()
	if err := f.ctl.stop(); err != nil {
		f.T.Fatalf("controller: %v", err)
	}
	f.transport.CloseIdleConnections()
}

// enrol gives every box its identity, in a controller that is not serving.
func (f *Fleet) enrol(sites int) {
	f.T.Helper()
	f.StopController()
	c := f.open()
	for i, b := range f.Boxes {
		id, err := c.EnrolBox(context.Background(), filepath.Join(b.dir, "agent", "identity"), b.Name, fmt.Sprintf("site-%d", i%sites+1))
		if err != nil {
			f.T.Fatalf("enrol %s: %v", b.Name, err)
		}
		b.ID = id
	}
	if err := c.Close(); err != nil {
		f.T.Fatal(err)
	}
	f.StartController()
}

// StartAgent starts the agent of b on the state it left.
func (b *Box) StartAgent() {
	t := b.fleet.T
	t.Helper()
	a, err := b.openAgent()
	if err != nil {
		t.Fatalf("open agent of %s: %v", b.Name, err)
	}
	b.agent = start(a.Run)
}

func (b *Box) openAgent() (*agent.Agent, error) {
	dial := func(ctx context.Context, _, addr string) (net.Conn, error) {
		return b.fleet.Net.Dial(ctx, b.Name, addr)
	}
	opts := agent.Options{
		State: filepath.Join(b.dir, "agent"), Root: filepath.Join(b.dir, "root"), Version: "test",
		Runner: runnerapi.NewClient(&http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return b.fleet.Net.Dial(ctx, b.Name+"-local", b.runnerAddr())
		}}),
		Dial: dial, NoSync: true, OnJournal: b.OnJournal, WallClock: b.now,
		Uptime: func() time.Duration { return time.Since(b.fleet.began) },
	}
	if b.Tune != nil {
		b.Tune(&opts)
	}
	return agent.Open(opts, b.fleet.log.With("box", b.Name))
}

// Root is the folder of the box's simulated hardware, State that of its agent.
func (b *Box) Root() string  { return filepath.Join(b.dir, "root") }
func (b *Box) State() string { return filepath.Join(b.dir, "agent") }

// SetClock puts the wall clock of the box off by skew, from now on.
func (b *Box) SetClock(skew time.Duration) { b.skew.Store(int64(skew)) }

func (b *Box) now() time.Time { return time.Now().Add(time.Duration(b.skew.Load())) }

// runnerAddr is on a host of its own and dialled from another, so that cutting
// the box off its network leaves the runner's socket alone.
func (b *Box) runnerAddr() string { return b.Name + "-runner:80" }

// StopAgent ends the agent of b and returns how it ended.
func (b *Box) StopAgent() error { return b.agent.stop() }

// AgentEnded waits for the agent to end by itself and returns how.
func (b *Box) AgentEnded() error {
	<-b.agent.done
	return b.agent.err
}

// Cut takes the box off the network, Heal puts it back.
func (b *Box) Cut()  { b.fleet.Net.CutAll(b.Name) }
func (b *Box) Heal() { b.fleet.Net.HealAll(b.Name) }

// Close ends everything.
func (f *Fleet) Close() {
	f.T.Helper()
	for _, b := range f.Boxes {
		if err := b.agent.stop(); err != nil && !errors.Is(err, ErrKilled) {
			f.T.Errorf("agent of %s: %v", b.Name, err)
		}
		b.Runner.close()
	}
	f.StopController()
}

// ErrKilled is for OnJournal functions that end an agent at a certain write.
var ErrKilled = errors.New("killed by the test")

// Until lets time pass until cond holds; it fails the test after most.
func (f *Fleet) Until(what string, most time.Duration, cond func() bool) {
	f.T.Helper()
	deadline := time.Now().Add(most)
	for !cond() {
		if time.Now().After(deadline) {
			f.T.Fatalf("not within %s: %s\n%s", most, what, f.picture())
		}
		time.Sleep(time.Second)
	}
}

// picture tells how the fleet stands, for failure reports.
func (f *Fleet) picture() string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out := ""
	boxes, err := f.API.Boxes(ctx, fleetapi.ListQuery{})
	if err != nil {
		return "no picture: " + err.Error()
	}
	for _, b := range boxes.Items {
		out += fmt.Sprintf("%s link=%s update=%s models=%+v\n", b.Name, b.Link, b.Update, b.Models)
	}
	rollouts, err := f.API.AllRollouts(ctx)
	if err != nil {
		return out + err.Error()
	}
	for _, r := range rollouts.Items {
		out += fmt.Sprintf("%s %s %s: %s\n", r.ID, r.Target, r.State, r.Sentence)
	}
	return out
}

// database is the file of the controller's database.
func (f *Fleet) database() string { return filepath.Join(f.controllerDir(), "store.db") }

// Backup returns a copy of the database.
func (f *Fleet) Backup() []byte {
	f.T.Helper()
	f.StopController()
	defer f.StartController()
	data, err := os.ReadFile(f.database()) // whole: closing folds the log into it
	if err != nil {
		f.T.Fatal(err)
	}
	return data
}

// Restore puts a copy of the database back, as one that came from a backup.
func (f *Fleet) Restore(data []byte) {
	f.T.Helper()
	f.StopController()
	defer f.StartController()
	for _, file := range []string{"-wal", "-shm"} {
		if err := os.RemoveAll(f.database() + file); err != nil {
			f.T.Fatal(err)
		}
	}
	if err := os.WriteFile(f.database(), data, 0o600); err != nil {
		f.T.Fatal(err)
	}
	if err := store.MarkRestored(context.Background(), store.Options{Path: f.database()}); err != nil {
		f.T.Fatal(err)
	}
}

// Store stops the controller, hands its database to use, and starts it again.
func (f *Fleet) Store(use func(*store.Store)) {
	f.T.Helper()
	f.StopController()
	s, err := store.Open(context.Background(), store.Options{Path: f.database()})
	if err != nil {
		f.T.Fatal(err)
	}
	use(s)
	if err := s.Close(); err != nil {
		f.T.Fatal(err)
	}
	f.StartController()
}
