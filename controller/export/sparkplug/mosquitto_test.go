package sparkplug

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/edgeherd/edgeherd/controller/export"
	"github.com/edgeherd/edgeherd/controller/export/exporttest"
	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/freeport"
)

// mosquitto is the broker of Debian's package, without memory.
type mosquitto struct {
	addr, config string
	cmd          *exec.Cmd
}

func startMosquitto(t *testing.T) *mosquitto {
	t.Helper()
	address, err := freeport.Address()
	must(t, err)
	_, port, err := net.SplitHostPort(address)
	must(t, err)
	m := &mosquitto{addr: address, config: filepath.Join(t.TempDir(), "mosquitto.conf")}
	must(t, os.WriteFile(m.config, fmt.Appendf(nil, "listener %s 127.0.0.1\nallow_anonymous true\npersistence false\nlog_type none\n", port), 0o644))
	must(t, os.Chmod(filepath.Dir(m.config), 0o755)) // it gives root up before it reads
	m.start(t)
	t.Cleanup(m.kill)
	return m
}

func (m *mosquitto) start(t *testing.T) {
	t.Helper()
	m.cmd = exec.Command(assets.Program(t, "mosquitto"), "-c", m.config)
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(t, m.cmd.Start())
	until(t, "mosquitto answers", func() bool {
		conn, err := net.Dial("tcp", m.addr)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

func (m *mosquitto) kill() {
	_ = m.cmd.Process.Kill()
	_ = m.cmd.Wait() // killed
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(5 * time.Minute); !ok(); {
		select {
		case <-deadline:
			t.Fatalf("not within five minutes: %s", what)
		case <-tick.C:
		}
	}
}

// scada is a host application at the broker. It keeps all it hears.
type scada struct {
	opts   Options
	client mqtt.Client

	mu    sync.Mutex // guards heard
	heard [][]heard  // by connection: of one that was lost, the rest may come late
}

func (s *scada) connect(t *testing.T, addr string) {
	t.Helper()
	s.mu.Lock()
	n := len(s.heard)
	s.heard = append(s.heard, nil)
	s.mu.Unlock()
	s.client = mqtt.NewClient(mqtt.NewClientOptions().AddBroker("tcp://" + addr).SetClientID("scada").
		SetAutoReconnect(false).SetCleanSession(true).
		SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.heard[n] = append(s.heard[n], heard{m.Topic(), base64.StdEncoding.EncodeToString(m.Payload()), m.Qos(), m.Retained()})
		}))
	s.do(t, s.client.Connect())
	s.do(t, s.client.Subscribe("spBv1.0/"+s.opts.Group+"/+/"+s.opts.Node+"/#", 1, nil))
	s.state(t, true)
}

// all is what was heard, with a mark where the connection was lost.
func (s *scada) all() (out []heard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, h := range s.heard {
		if i > 0 {
			out = append(out, heard{Topic: lost})
		}
		out = append(out, h...)
	}
	return out
}

func (s *scada) do(t *testing.T, token mqtt.Token) {
	t.Helper()
	if !token.WaitTimeout(5 * time.Minute) {
		t.Fatal("broker does not answer")
	}
	must(t, token.Error())
}

func (s *scada) state(t *testing.T, online bool) {
	t.Helper()
	body := fmt.Sprintf(`{"online":%v,"timestamp":%d}`, online, time.Now().UnixMilli())
	s.do(t, s.client.Publish("spBv1.0/STATE/"+s.opts.PrimaryHost, 1, true, body))
}

func (s *scada) command(t *testing.T) {
	t.Helper()
	payload := encodePayload(time.Now().UnixMilli(), noSeq, []metric{{name: rebirth, ms: 1, datatype: typeBoolean, boolean: true}})
	s.do(t, s.client.Publish("spBv1.0/"+s.opts.Group+"/NCMD/"+s.opts.Node, 0, false, payload))
}

// count tells how many messages of one kind were heard.
func (s *scada) count(kind string) (n int) {
	for _, h := range s.all() {
		if strings.HasPrefix(h.Topic, "spBv1.0/"+s.opts.Group+"/"+kind+"/") {
			n++
		}
	}
	return n
}

// world is one fleet, its store and the ways to run a bridge on it.
type world struct {
	store *exporttest.Store
	opts  Options

	mu    sync.Mutex // guards boxes
	boxes []export.Box
}

func (w *world) list(context.Context) ([]export.Box, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]export.Box(nil), w.boxes...), nil
}

func (w *world) bridge(t *testing.T) (stop func()) {
	t.Helper()
	b, err := New(w.opts, slog.New(slog.NewTextHandler(t.Output(), nil)))
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func newWorld(t *testing.T, opts Options) (*world, *mosquitto, *scada) {
	t.Helper()
	m := startMosquitto(t)
	w := &world{store: exporttest.New()}
	for i := range 4 {
		w.boxes = append(w.boxes, export.Box{ID: exporttest.Box(i), Name: fmt.Sprint("box-", i), Site: "berlin", Connected: true})
	}
	opts.Broker, opts.PrimaryHost, opts.Version = "mqtt://"+m.addr, "scada", "1"
	opts.Source, opts.Cursors, opts.Boxes = w.store, w.store, w.list
	opts.Poll, opts.Presence = 20*time.Millisecond, 100*time.Millisecond
	w.opts = opts
	s := &scada{opts: opts.withDefaults()}
	s.connect(t, m.addr)
	return w, m, s
}

// feed stores blocks until stop is called; the last ones are backlog.
func (w *world) feed() (stop func()) {
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(4 * time.Millisecond)
		defer tick.Stop()
		start := time.Now().UnixMilli() // and the boxes' time runs ahead
		for nth := 0; ; nth++ {
			at := start
			if nth%7 == 6 {
				at -= 240 * 3600_000
			}
			w.store.Commit(exporttest.Rows(nth%4, nth, at))
			select {
			case <-end:
				return
			case <-tick.C:
			}
		}
	}()
	return func() { close(end); <-done }
}

func (w *world) drained(t *testing.T) {
	t.Helper()
	all := w.store.All()
	o := w.opts.withDefaults()
	until(t, "all was published", func() bool {
		at, err := w.store.Cursor(t.Context(), "sparkplug samples "+o.Broker+" "+o.Group+"/"+o.Node)
		return err == nil && at == all[len(all)-1].LSN
	})
}

// TestEveryValueReachesTheHostThroughMosquitto publishes to a real broker that
// is killed, with a bridge that is started again, a host that goes away and
// asks for rebirths; npm's decoder reads what was heard.
func TestEveryValueReachesTheHostThroughMosquitto(t *testing.T) {
	for _, c := range []struct {
		name string
		opts Options
	}{
		{"alias and type", Options{IncludeDatatype: true}},
		{"alias alone", Options{}},
		{"names", Options{Names: true, IncludeDatatype: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, m, s := newWorld(t, c.opts)
			stopFeed, stop := w.feed(), w.bridge(t)
			until(t, "data flows", func() bool { return s.count("DDATA") > 50 })

			births := s.count("NBIRTH")
			s.command(t)
			until(t, "the node is born again", func() bool { return s.count("NBIRTH") > births })

			m.kill()
			m.start(t)
			s.connect(t, m.addr)
			births = s.count("NBIRTH")
			until(t, "the node is back", func() bool { return s.count("NBIRTH") > births })

			w.mu.Lock()
			w.boxes[2].Connected = false
			w.mu.Unlock()
			until(t, "a box is dead", func() bool { return s.count("DDEATH") > 0 })

			deaths := s.count("NDEATH")
			s.state(t, false)
			until(t, "the node leaves with its host", func() bool { return s.count("NDEATH") > deaths })
			births = s.count("NBIRTH")
			s.state(t, true)
			until(t, "the node comes back with its host", func() bool { return s.count("NBIRTH") > births })

			stop()
			stop = w.bridge(t)
			data := s.count("DDATA")
			until(t, "data flows again", func() bool { return s.count("DDATA") > data+20 })
			stopFeed()
			w.drained(t)
			deaths = s.count("NDEATH")
			stop()
			until(t, "the node has left", func() bool { return s.count("NDEATH") > deaths }) // and all before was heard

			h, said := newHost(w.opts), s.all()
			for i, d := range decodeAll(t, said) {
				h.hear(d)
				raw := said[i]
				if want := map[bool]byte{true: 1}[strings.Contains(d.Topic, "/NDEATH/")]; raw.qos != want || raw.retain {
					t.Errorf("%s: QoS %d, retained %v", d.Topic, raw.qos, raw.retain)
				}
			}
			h.check(t, w.store.All())
			t.Logf("%d messages, %d samples, %d historical, %d came again: %v", len(said), len(h.have), h.history, h.twice, h.counts)
			if h.alive {
				t.Error("the node left without NDEATH")
			}
		})
	}
}

// TestTheNodeDiesByItsWill: a controller that is cut off says nothing; the
// broker does, and the controller comes back.
func TestTheNodeDiesByItsWill(t *testing.T) {
	w, m, s := newWorld(t, Options{IncludeDatatype: true})
	stop := w.bridge(t)
	defer stop()
	until(t, "the node is born", func() bool { return s.count("NBIRTH") == 1 })
	// Another session with its client id: the broker ends the first one, as when
	// another controller takes over before this one has noticed.
	thief := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("tcp://" + m.addr).SetClientID("edgeherd-edgeherd-edgeherd").SetAutoReconnect(false))
	s.do(t, thief.Connect())
	until(t, "the node is dead", func() bool { return s.count("NDEATH") > 0 })
	until(t, "the node is born again", func() bool { return s.count("NBIRTH") > 1 })
	thief.Disconnect(0)
}
