package agent

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/agent/spool"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/outbound"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// world is an enrolled box with a runner that is a table of answers.
type world struct {
	t      *testing.T
	state  string
	ca     *identity.CA
	id     identity.ID
	key    trust.PrivateKey
	runner *outbox
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, state: t.TempDir(), id: identity.NewID(), runner: &outbox{id: "one"}}
	var err error
	if w.key, err = trust.NewKey(); err != nil {
		t.Fatal(err)
	}
	if w.ca, err = identity.OpenCA(t.TempDir(), nil); err != nil {
		t.Fatal(err)
	}
	box := identity.Box{ID: w.id, Name: "box", Server: "ctl", MQTT: "ctl:1", HTTPS: "ctl:2", Keyring: trust.DevelopmentKeyring(w.key.Public())}
	if err := identity.Enrol(filepath.Join(w.state, "identity"), w.ca, box); err != nil {
		t.Fatal(err)
	}
	return w
}

// open opens the agent on the state it left. The test must close its spool.
func (w *world) open() *Agent {
	w.t.Helper()
	a, err := w.tryOpen(Options{})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { a.spool.Close() })
	return a
}

func (w *world) tryOpen(opts Options) (*Agent, error) {
	opts.State, opts.Root, opts.NoSync, opts.Version = w.state, w.t.TempDir(), true, "1.0.0"
	opts.Runner = runnerapi.NewClient(w.runner)
	return Open(opts, slog.New(slog.DiscardHandler))
}

// blocks returns what waits in the spool of a, by kind.
func blocks(t *testing.T, a *Agent, kind wire.Kind) []wire.Block {
	t.Helper()
	var out []wire.Block
	seen := map[wire.Key]bool{}
	for {
		list, err := a.spool.Pick(spool.Query{MaxParcels: 16, MaxBytes: 1 << 20, OldFirst: true, Skip: func(k wire.Key) bool { return seen[k] }})
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 0 {
			return out
		}
		for _, p := range list {
			if seen[p.Block.Key] = true; p.Block.Kind == kind {
				out = append(out, p.Block)
			}
		}
	}
}

func eventsOf(t *testing.T, a *Agent) []wire.Event {
	t.Helper()
	var out []wire.Event
	for _, b := range blocks(t, a, wire.KindEvents) {
		list, err := wire.DecodeEvents(b.Payload)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, list...)
	}
	return out
}

// outbox imitates the runner's end of the results.
type outbox struct {
	id       string
	records  []runnerapi.Result
	acked    uint64
	down     bool
	acksFail bool
}

func (o *outbox) RoundTrip(r *http.Request) (*http.Response, error) {
	if o.down {
		return nil, errors.New("connection refused")
	}
	rec := httptest.NewRecorder()
	switch r.URL.Path {
	case "/edge/v1/results":
		var q struct{ After, Max uint64 }
		if err := json.Unmarshal([]byte(`{"After":`+r.FormValue("after")+`,"Max":`+r.FormValue("max")+`}`), &q); err != nil {
			return nil, err
		}
		out := runnerapi.Results{Outbox: o.id, Records: []runnerapi.Result{}}
		for _, v := range o.records {
			if v.Cursor > max(q.After, o.acked) && uint64(len(out.Records)) < q.Max {
				out.Records, out.Next = append(out.Records, v), v.Cursor
			}
		}
		if err := json.NewEncoder(rec).Encode(out); err != nil {
			return nil, err
		}
	case "/edge/v1/reload":
		if _, err := rec.WriteString("{}"); err != nil {
			return nil, err
		}
	case "/edge/v1/results/ack":
		var q runnerapi.AckRequest
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			return nil, err
		}
		if o.acksFail || q.Outbox != o.id {
			rec.WriteHeader(http.StatusConflict)
		} else {
			o.acked = max(o.acked, q.Cursor)
		}
	}
	return rec.Result(), nil
}

func (o *outbox) add(n int, r runnerapi.Result) {
	for range n {
		r.Cursor = uint64(len(o.records)) + 1
		if r.UnixMs == 0 {
			r.UnixMs = time.Now().UnixMilli()
		}
		o.records = append(o.records, r)
	}
}

func TestAFailedOpenLetsTheNextOneIn(t *testing.T) {
	w := newWorld(t)
	blobs := filepath.Join(w.state, "blobs")
	if err := os.WriteFile(blobs, nil, 0o600); err != nil { // a file in the way of a directory
		t.Fatal(err)
	}
	if _, err := w.tryOpen(Options{}); err == nil {
		t.Fatal("opened without a place for blobs")
	}
	if err := os.Remove(blobs); err != nil {
		t.Fatal(err)
	}
	w.open()
}

func TestASecondAgentOnOneStateIsRefused(t *testing.T) {
	w := newWorld(t)
	w.open()
	if _, err := w.tryOpen(Options{}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("second agent: %v, want a refusal that says why", err)
	}
}

func TestABoxThatIsNotEnrolledSaysSo(t *testing.T) {
	w := newWorld(t)
	w.state = t.TempDir()
	if _, err := w.tryOpen(Options{}); err == nil || !strings.Contains(err.Error(), "not enrolled") {
		t.Errorf("got %v", err)
	}
}

func TestEventsWaitForTheDisk(t *testing.T) {
	w := newWorld(t)
	a := w.open()
	full := a.spool
	if err := full.Close(); err != nil { // every write fails now
		t.Fatal(err)
	}
	for range maxWaiting + 5 {
		if err := a.event(wire.EventAlarm, "hot", nil); err == nil {
			t.Fatal("event stored on a closed spool")
		}
	}
	if a.healthy() == nil {
		t.Error("an agent that cannot write calls itself healthy")
	}
	b := w.open()
	a.spool = b.spool
	if err := a.event(wire.EventAlarm, "cool", nil); err != nil {
		t.Fatal(err)
	}
	got := eventsOf(t, a)
	if len(got) != maxWaiting || got[len(got)-1].Text != "cool" {
		t.Errorf("%d events stored, last %q; want the newest %d in order", len(got), got[len(got)-1].Text, maxWaiting)
	}
	if err := a.healthy(); err != nil {
		t.Errorf("after a write that worked: %v", err)
	}
}

func TestAPhaseWithALongReasonIsStored(t *testing.T) {
	a := newWorld(t).open()
	long := strings.Repeat("ä", 50_000)
	a.reportModel(phaseOf(long))
	got := eventsOf(t, a)
	if len(got) == 0 || got[0].Type != wire.EventModelPhase {
		t.Fatalf("events %+v, want the phase first", got)
	}
	var body wire.PhaseBody
	if err := json.Unmarshal(got[0].Body, &body); err != nil || body.Phase != "failed" || !strings.HasPrefix(long, strings.TrimSuffix(body.Err, "…")) {
		t.Errorf("body %.80s, %v", got[0].Body, err)
	}
}

func TestHelloIsSentWhateverIsWrong(t *testing.T) {
	a := newWorld(t).open()
	h := a.hello()
	h.Inventory = h.Inventory.Clean()
	if _, err := wire.Encode(h); err != nil {
		t.Error(err)
	}
	if h.Inventory.Name != "box" || h.Inventory.Agent != "1.0.0" || h.Clock.Boot != a.clock.boot {
		t.Errorf("hello %+v", h)
	}
}

func TestClockOfTLSStaysInTheLifeOfTheCertificate(t *testing.T) {
	w := newWorld(t)
	a := w.open()
	leaf := a.id.Certificate.Leaf
	now := time.Now()
	for _, c := range []struct{ wall, want time.Time }{
		{time.Unix(0, 0), leaf.NotBefore},
		{now, now},
		{now.AddDate(1, 0, 0), leaf.NotAfter},
	} {
		clock := newClock(Options{WallClock: func() time.Time { return c.wall }, Uptime: sinceBoot}, "boot")
		if got := a.id.TLSTime(clock.wall)(); !got.Equal(c.want) {
			t.Errorf("at %s: %s, want %s", c.wall, got, c.want)
		}
		if q := clock.quality(); q != wire.TimeUnknown {
			t.Errorf("a clock that is not the kernel's has quality %d", q)
		}
	}
}

// TestABoxWithoutAClockGoesOnAfterTheLastKnownTime: after each power cut its
// clock begins at 1970, and nobody tells it better. What it records has a place
// after what it recorded before, not one that a controller deletes as old.
func TestABoxWithoutAClockGoesOnAfterTheLastKnownTime(t *testing.T) {
	w := newWorld(t)
	var at []time.Time
	record := func(up time.Duration) {
		t.Helper()
		o := Options{Uptime: func() time.Duration { return up }, WallClock: func() time.Time { return time.Unix(0, 0).Add(up) }}
		a, err := w.tryOpen(o)
		if err != nil {
			t.Fatal(err)
		}
		defer a.spool.Close()
		up += time.Hour
		if err := a.event(wire.EventAlarm, "hot", nil); err != nil {
			t.Fatal(err)
		}
		events := blocks(t, a, wire.KindEvents)
		b := events[len(events)-1]
		ev, err := wire.DecodeEvents(b.Payload)
		if err != nil || b.Quality != wire.TimeFloor || ev[0].WallMs != b.WallMs {
			t.Errorf("quality %d, block at %d, event at %d, %v", b.Quality, b.WallMs, ev[0].WallMs, err)
		}
		at = append(at, time.UnixMilli(b.WallMs))
	}
	record(time.Minute)
	record(time.Minute)     // after a power cut
	record(2 * time.Minute) // after another
	leaf, err := identity.Load(filepath.Join(w.state, "identity"))
	if err != nil {
		t.Fatal(err)
	}
	last := leaf.Certificate.Leaf.NotBefore
	for i, now := range at {
		if d := now.Sub(last); d < time.Hour || d > time.Hour+time.Second {
			t.Errorf("record %d is %v after what came before, want an hour", i, d)
		}
		last = now
	}
}

func TestRunStopsCleanlyWithoutNetworkAndRunner(t *testing.T) {
	w := newWorld(t)
	w.runner.down = true
	a, err := w.tryOpen(Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if b := w.open(); len(eventsOf(t, b)) == 0 {
		t.Error("the start was not recorded")
	}
}

// TestBehindAProxyABucketIsAskedIfTheBoxSaysSo, and no host beside those it names.
func TestBehindAProxyABucketIsAskedIfTheBoxSaysSo(t *testing.T) {
	a := &Agent{opts: Options{Proxy: "http://proxy:3128"}}
	if a.direct() != nil {
		t.Error("asks what its proxy may not let pass")
	}
	a.opts.BucketHosts = []string{"s3.example"}
	if resp, err := a.direct().Get("https://nas.example/x"); !errors.Is(err, outbound.ErrRefused) || !strings.Contains(err.Error(), "bucket_hosts") {
		t.Errorf("another host: %v, %v", resp, err)
	}
}
