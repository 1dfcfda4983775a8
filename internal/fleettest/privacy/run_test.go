package privacy

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/agent"
	"github.com/edgeherd/edgeherd/agent/inputs"
	"github.com/edgeherd/edgeherd/agent/inputs/pipelinetest"
	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/controller/broker"
	"github.com/edgeherd/edgeherd/controller/ingest"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/labels"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// TestMain is also the worker process of a model.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "worker" {
		if err := worker.Main(context.Background(), nil, os.Stderr); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var quiet = slog.New(slog.DiscardHandler)

// tap is the way into the controller; it keeps all that comes by.
type tap struct {
	in *ingest.Ingest

	mu  sync.Mutex // guards got
	got map[wire.Topic][][]byte
}

func (p *tap) Deliver(ctx context.Context, id identity.ID, topic wire.Topic, payload []byte) error {
	p.mu.Lock()
	p.got[topic] = append(p.got[topic], bytes.Clone(payload))
	p.mu.Unlock()
	return p.in.Deliver(ctx, id, topic, payload)
}

func (p *tap) all() map[wire.Topic][][]byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := map[wire.Topic][][]byte{}
	for topic, messages := range p.got {
		out[topic] = append([][]byte(nil), messages...)
	}
	return out
}

// runs starts f and stops it with the test.
func runs(t *testing.T, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// reader is the real pipeline over a folder of frames, on real models.
func reader(t *testing.T, frames string) *inputs.Inputs {
	t.Helper()
	bench := pipelinetest.Start(t, "ocr-det-4.0.0", "ocr-cls-2.0.0", "ocr-rec-4.0.0")
	in, err := inputs.New(inputs.Options{
		Sources: []inputs.Source{{Name: "camera-1", Kind: "folder", Pipeline: "label-reader", Path: frames, Interval: 50 * time.Millisecond}},
		Infer:   bench.Infer,
		Catalog: bench,
		Outbox:  filepath.Join(t.TempDir(), "outbox.db"),
	}, quiet)
	must(t, err)
	runs(t, in.Run)
	return in
}

// socket serves what an agent asks a runner for.
func socket(t *testing.T, in *inputs.Inputs) *runnerapi.Client {
	t.Helper()
	mux := http.NewServeMux()
	say := func(w http.ResponseWriter, v any, err error) {
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v) // the agent went away
	}
	mux.HandleFunc("GET /edge/v1/status", func(w http.ResponseWriter, _ *http.Request) {
		say(w, runnerapi.Status{Version: "test", Inputs: in.Status()}, nil)
	})
	mux.HandleFunc("GET /edge/v1/results", func(w http.ResponseWriter, r *http.Request) {
		after, _ := strconv.ParseUint(r.URL.Query().Get("after"), 10, 64)
		res, err := in.Results(after, 100)
		say(w, res, err)
	})
	mux.HandleFunc("POST /edge/v1/", func(w http.ResponseWriter, _ *http.Request) { say(w, struct{}{}, nil) })
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return runnerapi.NewClient(&http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", s.Listener.Addr().String())
	}})
}

// center is broker, ingest and store, with a tap between them; boxState is
// where the identity of a box that may talk to it lies.
func center(t *testing.T) (p *tap, boxState string) {
	t.Helper()
	s, err := store.Open(t.Context(), store.Options{Path: filepath.Join(t.TempDir(), "store.db")})
	must(t, err)
	t.Cleanup(func() { s.Close() })
	ca, err := identity.OpenCA(filepath.Join(t.TempDir(), "ca"), time.Now)
	must(t, err)
	cert, err := ca.IssueServer([]string{"127.0.0.1"})
	must(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	address := l.Addr().String()
	p = &tap{got: map[wire.Topic][][]byte{}}
	b, err := broker.New(broker.Options{Sink: p, Listeners: []net.Listener{tls.NewListener(l, ca.ServerTLS(cert, func(identity.ID) error { return nil }))}}, quiet)
	must(t, err)
	p.in = ingest.New(ingest.Options{Store: s, Publish: b.Publish, LiveFor: func() time.Duration { return time.Hour }}, quiet)
	runs(t, p.in.Run)
	runs(t, b.Run)
	key, err := trust.NewKey()
	must(t, err)
	id := identity.NewID()
	boxState = t.TempDir()
	must(t, s.AddBox(t.Context(), id, "box-1", "site-1"))
	must(t, identity.Enrol(filepath.Join(boxState, "identity"), ca, identity.Box{
		ID: id, Name: "box-1", Site: "site-1", MQTT: address, HTTPS: address, Server: "127.0.0.1", Keyring: trust.DevelopmentKeyring(key.Public()),
	}))
	return p, boxState
}

// pieces are runs of bytes that occur in the frames, every 64 bytes.
func pieces(t *testing.T, frames string) map[string]string {
	t.Helper()
	out := map[string]string{}
	files, err := filepath.Glob(filepath.Join(frames, "*.jpg"))
	must(t, err)
	for _, path := range files {
		data, err := os.ReadFile(path)
		must(t, err)
		for at := 640; at+16 <= len(data); at += 64 { // behind the tables that all JPEGs share
			out[string(data[at:at+16])] = filepath.Base(path)
		}
	}
	return out
}

// magic begins pictures: JPEG, PNG, GIF, WebP.
var magic = []string{"\xff\xd8\xff", "\x89PNG\r\n", "GIF8", "WEBP"}

// picture says what of a picture is in a message, "" when nothing is.
func picture(payload []byte, pieces map[string]string) string {
	for _, m := range magic {
		if bytes.Contains(payload, []byte(m)) {
			return fmt.Sprintf("the beginning of a picture, %q", m)
		}
	}
	for at := 0; at+16 <= len(payload); at++ {
		if name, ok := pieces[string(payload[at:at+16])]; ok {
			return "bytes of " + name
		}
	}
	return ""
}

// TestT43NoFrameLeavesTheSite reads labels from a camera by the real pipeline,
// has the real agent send what it gives, and looks at every message.
func TestT43NoFrameLeavesTheSite(t *testing.T) {
	frames := filepath.Join(t.TempDir(), "camera")
	must(t, labels.WriteFolder(frames, 3, 7))
	parts := pieces(t, frames)
	if len(parts) < 100 {
		t.Fatalf("%d pieces of frames: nothing to look for", len(parts))
	}
	p, state := center(t)
	in := reader(t, frames)
	a, err := agent.Open(agent.Options{
		State: state, Root: t.TempDir(), Version: "test", Runner: socket(t, in), NoSync: true,
		SensePeriod: 100 * time.Millisecond, SealPeriod: 300 * time.Millisecond, ResultPeriod: 100 * time.Millisecond,
	}, quiet)
	must(t, err)
	runs(t, a.Run)

	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Minute)
	results := 0
	for results < 10 || len(p.all()[wire.TopicHello]) == 0 {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%d results after ten minutes; messages %d, inputs %+v", results, len(p.all()), in.Status())
		}
		results = 0
		for _, payload := range p.all()[wire.TopicData] {
			d, err := wire.Decode[wire.Data](payload)
			must(t, err)
			for _, b := range d.Blocks {
				if b.Kind == wire.KindResults {
					results += int(b.Count)
				}
			}
		}
	}
	messages, bytes := 0, 0
	for topic, payloads := range p.all() {
		for _, payload := range payloads {
			messages, bytes = messages+1, bytes+len(payload)
			if what := picture(payload, parts); what != "" {
				t.Errorf("a message on %s has %s", topic, what)
			}
		}
	}
	t.Logf("%d results in %d messages of %d bytes", results, messages, bytes)
	// The search itself finds what it is to find.
	frame, err := os.ReadFile(filepath.Join(frames, "000-clean.jpg"))
	must(t, err)
	for what, payload := range map[string][]byte{"beginning": frame[:100], "bytes of": frame[2000:3000]} {
		if got := picture(payload, parts); !strings.Contains(got, what) {
			t.Errorf("a piece of a frame is not found: %q", got)
		}
	}
}
