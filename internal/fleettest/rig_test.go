package fleettest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/agent/link"
	"github.com/edgeherd/edgeherd/agent/spool"
	"github.com/edgeherd/edgeherd/controller"
	"github.com/edgeherd/edgeherd/controller/store/storetest"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/freeport"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// A rig is several controllers as users run them, processes on one PostgreSQL,
// with what stands in front of them, and boxes that are the real spool and link
// of the agent. Their ledger is the database.
type rig struct {
	t        *testing.T
	dir      string
	program  string // edgeherd
	pg       *storetest.Cluster
	database string // its name
	address  string
	hosts    []*host
	boxes    []*post
	token    string
	keyPath  string

	entry   string // where boxes dial
	logging *slog.Logger
}

// host is one controller process.
type host struct {
	rig         *rig
	state, conf string
	http        string
	mqtt        string
	cmd         *exec.Cmd
	said        *speech
}

// speech is what a process has said so far.
type speech struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (s *speech) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *speech) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// post is one box.
type post struct {
	rig      *rig
	id       *identity.Identity
	spool    *spool.Spool
	link     *link.Link
	stop     func()
	mu       sync.Mutex // guards the fields below
	accepted int        // results, numbered from 1
	follows  uint64     // generation
	conn     net.Conn
	cut      bool // it reaches nobody
}

// lose takes the box off the network without a farewell.
func (b *post) lose() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cut = true
	if b.conn != nil {
		b.conn.Close()
	}
}

func (b *post) dial(ctx context.Context) (net.Conn, error) {
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", b.rig.entry)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	b.conn = raw
	cut := b.cut
	b.mu.Unlock()
	if cut {
		raw.Close()
		return nil, errors.New("cut")
	}
	return handshake(ctx, raw, b.id)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// await asks until cond holds. Within is what a quiet machine needs at most; one
// that others use as well gets five times that.
func await(t *testing.T, within time.Duration, what string, cond func() error) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(5 * within)
	for {
		err := cond()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within %s: %s: %v", 5*within, what, err)
		}
	}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	address, err := freeport.Address()
	must(t, err)
	return address
}

// builtIn is where TestMain lets the program be built.
var builtIn string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "eh")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	builtIn = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// program builds edgeherd, once for all rigs.
var program = sync.OnceValues(func() (string, error) {
	out := filepath.Join(builtIn, "edgeherd")
	build := exec.Command("go", "build", "-trimpath", "-o", out, "./cmd/edgeherd")
	build.Dir = filepath.Join("..", "..")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as make builds it, or all is compiled anew
	if text, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, text)
	}
	return out, nil
})

// newRig prepares a database with boxes that nobody serves yet, and n state
// directories with the same keys. brokerURL is for a broker of others.
func newRig(t *testing.T, n, boxes int, brokerURL string) *rig {
	t.Helper()
	r := &rig{t: t}
	var err error
	if r.pg, err = storetest.New(); err != nil {
		storetest.Absent(t, err)
	}
	t.Cleanup(func() { r.pg.Remove() })
	must(t, r.pg.Start())
	r.address, r.database, err = r.pg.Create()
	must(t, err)
	r.prepare(n, boxes, brokerURL)
	return r
}

// prepare makes what a rig has besides PostgreSQL; without that it is one
// controller with SQLite.
func (r *rig) prepare(n, boxes int, brokerURL string) {
	t := r.t
	t.Helper()
	r.logging = slog.New(slog.DiscardHandler)
	var err error
	r.dir, err = os.MkdirTemp("", "eh")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(r.dir) })
	r.program, err = program()
	must(t, err)
	for i := range n {
		h := &host{rig: r, state: filepath.Join(r.dir, fmt.Sprint("state", i)), http: freeAddr(t), mqtt: freeAddr(t)}
		h.conf = filepath.Join(r.dir, fmt.Sprint("server", i, ".yaml"))
		text := fmt.Sprintf("state: %s\nhttp: %s\nhttp_plain: true\ndevice: %s\nmqtt: %s\nhosts: [127.0.0.1]\ndatabase: %q\nblobs: %s\n",
			h.state, h.http, freeAddr(t), h.mqtt, r.address, filepath.Join(r.dir, "blobs"))
		if r.pg != nil && brokerURL == "" { // boxes come through HAProxy
			text += "proxy_protocol: [127.0.0.1]\n"
		}
		if brokerURL != "" {
			text += "broker:\n  url: " + brokerURL + "\n"
		}
		must(t, os.WriteFile(h.conf, []byte(text), 0o600))
		r.hosts = append(r.hosts, h)
	}
	r.enrol(boxes)
	for _, h := range r.hosts[1:] {
		for _, sub := range []string{"ca", "keys"} {
			must(t, os.CopyFS(filepath.Join(h.state, sub), os.DirFS(filepath.Join(r.hosts[0].state, sub))))
		}
	}
}

func (r *rig) enrol(boxes int) {
	ctx := r.t.Context()
	c, err := controller.Open(ctx, controller.Options{
		Dir: r.hosts[0].state, Database: r.address, Blobs: filepath.Join(r.dir, "blobs"),
		HTTP: "127.0.0.1:0", Device: "127.0.0.1:0", MQTT: "127.0.0.1:0", HTTPPlain: true,
	}, r.logging)
	must(r.t, err)
	r.token, err = c.NewAPIToken(ctx, "test", "owner", time.Hour)
	must(r.t, err)
	r.keyPath = c.SigningKeyPath()
	for i := range boxes {
		b := &post{rig: r}
		dir := filepath.Join(r.dir, fmt.Sprint("box", i))
		_, err := c.EnrolBox(ctx, dir, fmt.Sprint("box-", i), fmt.Sprint("site-", i%2))
		must(r.t, err)
		b.id, err = identity.Load(dir)
		must(r.t, err)
		r.boxes = append(r.boxes, b)
	}
	must(r.t, c.Close())
}

// start runs a controller and waits until its API answers.
func (h *host) start() {
	t := h.rig.t
	t.Helper()
	h.said = &speech{}
	h.cmd = exec.Command(h.rig.program, "server", "run", "--config", h.conf)
	h.cmd.Stdout, h.cmd.Stderr = h.said, h.said
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	must(t, h.cmd.Start())
	await(t, time.Minute, "the controller answers", func() error {
		_, err := h.api().Summary(t.Context())
		return err
	})
}

func (h *host) api() *fleetapi.Client { return fleetapi.New("http://"+h.http, h.rig.token, nil) }

// kill is kill -9.
func (h *host) kill() {
	h.cmd.Process.Kill()
	h.cmd.Wait()
}

func (r *rig) startAll() {
	r.t.Cleanup(func() {
		for i, h := range r.hosts {
			if h.cmd == nil {
				continue
			}
			h.kill()
			if r.t.Failed() {
				lines := strings.Split(h.said.String(), "\n")
				r.t.Logf("--- controller %d\n%s", i, strings.Join(lines[max(0, len(lines)-20):], "\n"))
			}
		}
	})
	for _, h := range r.hosts {
		h.start()
	}
}

// startBoxes lets all boxes connect at entry.
func (r *rig) startBoxes(entry string) {
	r.entry = entry
	for i, b := range r.boxes {
		var err error
		b.spool, err = spool.Open(spool.Options{Path: filepath.Join(r.dir, fmt.Sprint("spool", i)), NoSync: true}, r.logging)
		must(r.t, err)
		b.link = link.New(link.Options{
			ID: b.id.ID, Spool: b.spool, MinBackoff: 200 * time.Millisecond, MaxBackoff: 2 * time.Second, KeepAlive: 5 * time.Second,
			Hello:     func() wire.Hello { return wire.Hello{Clock: wire.Clock{WallMs: time.Now().UnixMilli()}} },
			OnDesired: b.follow,
			Dial:      b.dial,
		}, r.logging)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- b.link.Run(ctx) }()
		b.stop = sync.OnceFunc(func() {
			cancel()
			if err := errors.Join(<-done, b.spool.Close()); err != nil {
				r.t.Error(err)
			}
		})
		r.t.Cleanup(b.stop)
	}
}

// work appends results at every box until the returned function is called.
func (r *rig) work() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for _, b := range r.boxes {
		all.Go(func() {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for {
				b.append(5)
				select {
				case <-tick.C:
				case <-ctx.Done():
					return
				}
			}
		})
	}
	return func() { cancel(); all.Wait() }
}

func (b *post) append(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now().UnixMilli()
	var results []wire.Result
	for i := range n {
		number := b.accepted + i + 1
		results = append(results, wire.Result{WallMs: now, Input: "in", Pipeline: "p", Item: strconv.Itoa(number), Models: []string{}, Cursor: uint64(number)})
	}
	payload, err := wire.EncodeResults(results)
	if err == nil {
		_, err = b.spool.Append(spool.Draft{Lane: wire.LaneTelemetry, Kind: wire.KindResults, WallMs: now, Quality: wire.TimeSynced, Count: uint32(n), Payload: payload})
	}
	if err != nil {
		b.rig.t.Error(err)
		return
	}
	b.accepted += n
}

// follow does what a desired state says, at once: it reports every model as
// active.
func (b *post) follow(envelope []byte) {
	// Not on the goroutine of the link, which must not wait.
	go func() {
		payload, err := b.id.Keyring.Open(trust.TypeDesired, envelope)
		if err != nil {
			b.rig.t.Error(err)
			return
		}
		d, err := wire.DecodeDesired(payload)
		if err != nil {
			b.rig.t.Error(err)
			return
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if d.Generation <= b.follows {
			return
		}
		b.follows = d.Generation
		running := wire.Running{Generation: d.Generation}
		now := time.Now().UnixMilli()
		var events []wire.Event
		add := func(kind string, body any) {
			text, _ := json.Marshal(body)
			events = append(events, wire.Event{WallMs: now, Type: kind, Text: kind, Body: text})
		}
		for _, m := range d.Models {
			running.Models = append(running.Models, wire.RunningModel{Name: m.Name, Version: m.Version, Digest: m.Digest.String()})
			add(wire.EventModelPhase, wire.PhaseBody{Name: m.Name, Version: m.Version, Digest: m.Digest.String(), Rollout: m.Rollout, Attempt: m.Attempt, Generation: d.Generation, Phase: "active"})
		}
		add(wire.EventRunning, running)
		text, err := wire.EncodeEvents(events)
		if err == nil {
			_, err = b.spool.Append(spool.Draft{Lane: wire.LaneEvents, Kind: wire.KindEvents, WallMs: now, Quality: wire.TimeSynced, Count: uint32(len(events)), Payload: text})
		}
		if err != nil {
			b.rig.t.Logf("box does not report: %v", err) // the test has ended
		}
	}()
}

// settle waits until every box has delivered everything, then holds the
// database to the ledger: each result is there once.
func (r *rig) settle() {
	r.t.Helper()
	await(r.t, 3*time.Minute, "everything is delivered", func() error {
		for _, b := range r.boxes {
			if left := b.spool.Buffer().Blocks; left > 0 {
				return fmt.Errorf("%s still has %d blocks", b.id.ID, left)
			}
		}
		return nil
	})
	for _, b := range r.boxes {
		got := r.ask(`SELECT count(*), count(DISTINCT item), coalesce(max(item::int), 0) FROM result WHERE box = '` + string(b.id.ID) + `'`)
		b.mu.Lock()
		want := fmt.Sprintf("%d|%d|%d", b.accepted, b.accepted, b.accepted)
		b.mu.Unlock()
		if got != want {
			r.t.Errorf("%s: rows, different ones and the highest number of results: %s, want %s", b.id.ID, got, want)
		}
	}
}

// ask asks the database.
func (r *rig) ask(query string) string {
	r.t.Helper()
	out, err := r.pg.Tool("psql", "-d", r.database, "-Atc", query)
	must(r.t, err)
	return strings.TrimSpace(out)
}

// allConnected waits until the database knows every box as connected.
func (r *rig) allConnected(within time.Duration) {
	r.t.Helper()
	await(r.t, within, "every box is connected", func() error {
		if n := r.ask(`SELECT count(*) FROM box JOIN session ON session.box = box.id WHERE box.connected`); n != strconv.Itoa(len(r.boxes)) {
			return fmt.Errorf("%s of %d", n, len(r.boxes))
		}
		return nil
	})
}
