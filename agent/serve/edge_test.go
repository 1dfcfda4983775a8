package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeherd/edgeherd/agent/backend"
	"github.com/edgeherd/edgeherd/agent/inputs"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/internal/trust"
)

// tape is an Inputs with three results that remembers what it was told.
type tape struct {
	mu    sync.Mutex
	acked string
	duty  runnerapi.Duty
	ran   chan struct{}
}

func (p *tape) Run(ctx context.Context) error {
	close(p.ran)
	<-ctx.Done()
	return nil
}

func (p *tape) Status() []runnerapi.InputStatus {
	return []runnerapi.InputStatus{{Name: "dock", Pipeline: "label-reader"}}
}

func (p *tape) Results(after uint64, max int) (runnerapi.Results, error) {
	r := runnerapi.Results{Outbox: "o1"}
	for c := after + 1; c <= 3 && len(r.Records) < max; c++ {
		r.Records = append(r.Records, runnerapi.Result{Cursor: c, Text: fmt.Sprint("label ", c)})
		r.Next = c
	}
	return r, nil
}

func (p *tape) Ack(outbox string, cursor uint64) error {
	if outbox != "o1" {
		return errors.New("another outbox")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.acked = fmt.Sprint(outbox, " ", cursor)
	return nil
}

func (p *tape) SetDuty(d runnerapi.Duty) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.duty = d
}

func (p *tape) Counts() (records, dropped int64) { return 3, 1 }

func TestAgentSteersInputsOverTheSocket(t *testing.T) {
	in := &tape{ran: make(chan struct{})}
	b := newBox(t, func(o *Options) { o.HTTP = "" })
	second := b.sibling(in)
	<-in.ran
	r, err := second.Results(t.Context(), 1, 1)
	if err != nil || len(r.Records) != 1 || r.Records[0].Text != "label 2" || r.Next != 2 {
		t.Errorf("results: %+v, %v", r, err)
	}
	if err := second.Ack(t.Context(), "o1", 2); err != nil || in.acked != "o1 2" {
		t.Errorf("ack: %v, %q", err, in.acked)
	}
	if err := second.Ack(t.Context(), "o2", 2); err == nil || !strings.Contains(err.Error(), "another outbox") {
		t.Errorf("ack of another outbox: %v", err)
	}
	want := runnerapi.Duty{Level: "reduced", MaxRateRatio: 0.5, ValidSeconds: 60}
	if err := second.SetDuty(t.Context(), want); err != nil || in.duty != want {
		t.Errorf("duty: %v, %+v", err, in.duty)
	}
	st, err := second.Status(t.Context())
	if err != nil || len(st.Inputs) != 1 || st.OutboxRecords != 3 || st.OutboxDropped != 1 || st.PID != os.Getpid() || st.Version != "test" {
		t.Errorf("status: %+v, %v", st, err)
	}
}

// sibling runs a second server over the same files, with inputs.
func (b *box) sibling(in Inputs) *runnerapi.Client {
	b.t.Helper()
	opts := b.s.opts
	opts.Socket += "2"
	s, err := New(opts, b.s.log)
	if err != nil {
		b.t.Fatal(err)
	}
	s.Attach(in)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	edge := runnerapi.Dial(opts.Socket)
	b.t.Cleanup(func() {
		edge.Close()
		cancel()
		if err := <-ended; err != nil {
			b.t.Error(err)
		}
	})
	b.eventually("the second server listens", func() bool {
		_, err := edge.Status(b.t.Context())
		return err == nil
	})
	return edge
}

func TestAgentIsToldWhatIsWrongWithItsRequest(t *testing.T) {
	b := newBox(t, nil)
	for _, tc := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/edge/v1/candidates", `{`, 400},
		{"POST", "/edge/v1/candidates", `{"name":"x"}`, 400},
		{"POST", "/edge/v1/candidates", strings.Repeat(" ", maxEdgeBody+1), 400},
		{"DELETE", "/edge/v1/candidates/xyz", "", 400},
		{"GET", "/edge/v1/results?after=x", "", 200}, // no inputs: nothing to ask them
		{"POST", "/edge/v1/results/ack", `{"outbox":"o","cursor":1}`, 404},
		{"POST", "/edge/v1/duty", `{"level":"full"}`, 204},
		{"POST", "/edge/v1/reload", "", 200},
	} {
		req, err := http.NewRequestWithContext(t.Context(), tc.method, "http://runner"+tc.path, strings.NewReader(tc.body))
		if err != nil {
			t.Fatal(err)
		}
		client := b.overSocket()
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		client.CloseIdleConnections()
		if resp.StatusCode != tc.status {
			t.Errorf("%s %s %.20s: %d, want %d", tc.method, tc.path, tc.body, resp.StatusCode, tc.status)
		}
	}
}

// TestBrokenActiveFileChangesNothing: a half-written or newer file is not obeyed.
func TestBrokenActiveFileChangesNothing(t *testing.T) {
	b := newBox(t, nil)
	ref := b.demo("silero-vad-5.0.0", "vad", "5")
	b.ready(ref)
	for _, text := range []string{"", "{", `{"version":99,"state":{}}`} {
		if err := os.WriteFile(b.active.Path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := b.edge.Reload(t.Context()); err == nil {
			t.Errorf("reload of %q succeeded", text)
		}
		if st := b.status(ref); st.State != runnerapi.ModelReady {
			t.Errorf("after %q the model is %q", text, st.State)
		}
	}
	if err := os.Remove(b.active.Path); err != nil {
		t.Fatal(err)
	}
	if _, err := b.edge.Reload(t.Context()); err != nil || b.status(ref).State != runnerapi.ModelReady {
		t.Errorf("after its removal: %v, %s", err, b.status(ref).State)
	}
	b.activate()
	if st := b.status(ref); st.State != "" {
		t.Errorf("after a list without it the model is %s", st.State)
	}
}

// TestPipelinesCallTheVersionThatServes by the functions that inputs are given,
// and on a hot box that very version of another server.
func TestPipelinesCallTheVersionThatServes(t *testing.T) {
	far, older := newBox(t, nil), newBox(t, nil)
	far.ready(far.demo("silero-vad-5.0.0", "vad", "5"))
	older.ready(older.demo("silero-vad-5.0.0", "vad", "4"))
	at := func(name string, o *box) Overflow {
		return Overflow{Name: name, Endpoint: backend.Endpoint{URL: o.url, Place: backend.PlaceSite}}
	}
	b := newBox(t, func(o *Options) {
		o.Routes = []Route{{Model: "vad", Overflow: []Overflow{at("older", older), at("far", far)}}}
	})
	ref := b.demo("silero-vad-5.0.0", "vad", "5")
	if _, _, err := b.s.Infer(t.Context(), "vad", voice()); !errors.Is(err, inputs.ErrNoModel) {
		t.Errorf("without a model: %v", err)
	}
	b.ready(ref)
	out, by, err := b.s.Infer(t.Context(), "vad", voice())
	if err != nil || by != (inputs.By{Ref: ref}) || len(out) != 2 {
		t.Errorf("Infer: %v, %v, %v", out, by, err)
	}
	if err := b.edge.SetDuty(t.Context(), runnerapi.Duty{Level: "minimal", MaxRateRatio: 0.25, ValidSeconds: 600}); err != nil {
		t.Fatal(err)
	}
	for range 4 { // more often than a server that fails would be asked
		far, by, err := b.s.Infer(t.Context(), "vad", voice())
		if err != nil || by != (inputs.By{Ref: ref, Elsewhere: "site:far"}) || len(far) != 2 || far[0].Name != out[0].Name || !bytes.Equal(far[0].Data, out[0].Data) {
			t.Fatalf("on a hot box: %d outputs by %s at %q, %v; want what it answered itself, from afar", len(far), by, by.Elsewhere, err)
		}
	}
	if n := b.status(ref).Requests; n != 1 {
		t.Errorf("%d requests for the version here, want the first alone", n)
	}
	if b.s.routesNow()["vad"].places[0].breaker.Open() {
		t.Error("a server with another version counts as one that fails")
	}
}

func TestSocketIsTakenOverOnlyFromTheDead(t *testing.T) {
	dir, err := os.MkdirTemp("", "eh")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "sub", "r.sock")
	first, err := listenSocket(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := listenSocket(t.Context(), path); err == nil || !strings.Contains(err.Error(), "another runner") {
		t.Errorf("socket of a living server: %v", err)
	}
	first.(*net.UnixListener).SetUnlinkOnClose(false) // as kill -9 leaves it
	first.Close()
	second, err := listenSocket(t.Context(), path)
	if err != nil {
		t.Fatalf("socket of a dead server: %v", err)
	}
	second.Close()
	if err := os.WriteFile(path, []byte("notes"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenSocket(t.Context(), path); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("a file: %v", err)
	}
	if data, _ := os.ReadFile(path); string(data) != "notes" {
		t.Errorf("the file now holds %q", data)
	}
}

func TestPortInUseNamesPortAndKey(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b := newBox(t, func(o *Options) { o.HTTP = "" })
	for key, opts := range map[string]Options{"http": {HTTP: l.Addr().String()}, "grpc": {GRPC: l.Addr().String()}} {
		opts.Active, opts.Keyring, opts.Library = b.s.opts.Active, b.s.opts.Keyring, b.s.opts.Library
		s, err := New(opts, b.s.log)
		if err != nil {
			t.Fatal(err)
		}
		err = s.Run(t.Context())
		way := "stop it, or choose another with `" + key + ":` in runner.yaml or --" + key
		if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), l.Addr().String()) || !strings.Contains(err.Error(), way) {
			t.Errorf("%s: %v, want %q", key, err, way)
		}
	}
}

// TestARequestEndsOnTheRouteWhereItBegan: settings may take the route away while
// a body is still on its way, and no version is here to answer in its place.
func TestARequestEndsOnTheRouteWhereItBegan(t *testing.T) {
	away := []Route{{Model: "vad", When: []string{WhenMissing}, Overflow: []Overflow{
		{Name: "far", Endpoint: backend.Endpoint{URL: "http://127.0.0.1:1", Place: backend.PlaceSite}},
	}}}
	s, err := New(Options{
		Active: filepath.Join(t.TempDir(), "active.json"), Library: "none", Keyring: func() (trust.Keyring, error) { return trust.Keyring{}, nil }, Routes: away,
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	v, release, err := s.take("vad", "", false)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if err := s.SetRoutes(nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := s.run(ctx, v, &call{}); err == nil || !strings.Contains(err.Error(), "other server does not answer") {
		t.Errorf("%v, want what the server of that route did", err)
	}
}

// TestRoutesThatFailLeaveNothingOpen: the bubble waits for the goroutines of clients.
func TestRoutesThatFailLeaveNothingOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := New(Options{
			Active: "active.json", Library: "none", Keyring: func() (trust.Keyring, error) { return trust.Keyring{}, nil },
		}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		to := func(name, ca string) Overflow {
			return Overflow{Name: name, Endpoint: backend.Endpoint{URL: "grpcs://127.0.0.1:1", Place: backend.PlaceSite, CA: ca}}
		}
		err = s.SetRoutes([]Route{{Model: "a", Overflow: []Overflow{to("x", "")}}, {Model: "b", Overflow: []Overflow{to("y", ""), to("z", "/nowhere")}}})
		if err == nil || !strings.Contains(err.Error(), "server z") || len(s.routesNow()) > 0 {
			t.Errorf("%v, %d routes, want none and the server that is wrong", err, len(s.routesNow()))
		}
	})
}
