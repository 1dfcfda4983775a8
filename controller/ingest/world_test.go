package ingest_test

import (
	"bytes"
	"context"
	"database/sql"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/ingest"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

const (
	boxA = identity.ID("d-aaaaaaaaaaaaa")
	boxB = identity.ID("d-bbbbbbbbbbbbb")
	// now is the controller's time in all tests, bootMs that of the boxes since
	// their boot.
	now    = int64(1_800_000_000_000)
	bootMs = int64(5_000_000)
)

var (
	ctx    = context.Background()
	schema = wire.Schema{Metrics: []wire.Metric{{Name: "temp_die_celsius", Scale: 1}}}
	boot   = wire.BootID{1}
)

// world is an Ingest with a real store, and what it said to boxes.
type world struct {
	t     testing.TB
	store *store.Store
	in    *ingest.Ingest
	log   *lockedBuffer
	path  string

	mu      sync.Mutex // guards the fields below
	said    []message
	changed []identity.ID
	live    []wire.Live
}

type message struct {
	box     identity.ID
	topic   wire.Topic
	payload []byte
}

type lockedBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

// idle has no running commit loop.
func idle(t testing.TB) *world {
	t.Helper()
	clock := func() time.Time { return time.UnixMilli(now) }
	path := filepath.Join(t.TempDir(), "store.db")
	s, err := store.Open(ctx, store.Options{Path: path, WallClock: clock})
	check(t, err)
	t.Cleanup(func() { s.Close() })
	check(t, s.AddBox(ctx, boxA, "a", "x"))
	check(t, s.AddBox(ctx, boxB, "b", "x"))
	w := &world{t: t, store: s, log: &lockedBuffer{}, path: path}
	w.in = ingest.New(ingest.Options{
		Store: s, WallClock: clock,
		Publish: func(id identity.ID, topic wire.Topic, payload []byte, _ byte) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.said = append(w.said, message{id, topic, slices.Clone(payload)})
			return nil
		},
		Changed: func(id identity.ID) { w.mu.Lock(); defer w.mu.Unlock(); w.changed = append(w.changed, id) },
		Live:    func(_ identity.ID, l wire.Live) { w.mu.Lock(); defer w.mu.Unlock(); w.live = append(w.live, l) },
		LiveFor: func() time.Duration { return 7 * time.Second },
	}, slog.New(slog.NewTextHandler(w.log, nil)))
	return w
}

// running commits until the test ends.
func running(t testing.TB) *world {
	t.Helper()
	w := idle(t)
	t.Cleanup(w.run())
	return w
}

// present is the run of the database.
func (w *world) present() wire.RunID {
	w.t.Helper()
	l, err := w.store.Lineage(ctx, nil)
	check(w.t, err)
	return l.Run
}

// run starts the commit loop and returns what stops it and waits for its end.
func (w *world) run() (stop func()) {
	c, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- w.in.Run(c) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("Run: %v", err)
		}
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) deliver(id identity.ID, topic wire.Topic, msg any) error {
	w.t.Helper()
	payload, err := wire.Encode(msg)
	check(w.t, err)
	return w.in.Deliver(ctx, id, topic, payload)
}

// take returns what was said to a box on a topic since it was last asked.
func (w *world) take(id identity.ID, topic wire.Topic) [][]byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out [][]byte
	w.said = slices.DeleteFunc(w.said, func(m message) bool {
		if m.box == id && m.topic == topic {
			out = append(out, m.payload)
			return true
		}
		return false
	})
	return out
}

// one returns the only message said to a box on a topic.
func one[T any](w *world, id identity.ID, topic wire.Topic) T {
	w.t.Helper()
	got := w.take(id, topic)
	if len(got) != 1 {
		w.t.Fatalf("%d messages on %s, want 1", len(got), topic)
	}
	msg, err := wire.Decode[T](got[0])
	check(w.t, err)
	return msg
}

func keys(blocks ...wire.Block) []wire.Key {
	var out []wire.Key
	for _, b := range blocks {
		out = append(out, b.Key)
	}
	return out
}

// block seals a block that begins now by clocks that are right.
func block(seq uint64, change func(*wire.Block)) wire.Block {
	b := wire.Block{Key: wire.Key{SID: wire.SID{9}, Lane: wire.LaneTelemetry, Seq: seq}, Boot: boot, MonoMs: bootMs, WallMs: now - 60_000, Quality: wire.TimeSynced}
	change(&b)
	if err := wire.Seal(&b); err != nil {
		panic(err)
	}
	return b
}

func samples(seq uint64, values ...float64) wire.Block {
	s := wire.Samples{Schema: schema, Values: [][]float64{values}}
	for i := range values {
		s.TimesMs = append(s.TimesMs, int64(i)*10_000)
	}
	payload, err := wire.EncodeSamples(s)
	if err != nil {
		panic(err)
	}
	return block(seq, func(b *wire.Block) {
		b.Kind, b.Schema, b.Count, b.SpanMs, b.Payload = wire.KindSamples, wire.SchemaIDOf(schema), uint32(len(values)), s.TimesMs[len(values)-1], payload
	})
}

func events(seq uint64, evs ...wire.Event) wire.Block {
	payload, err := wire.EncodeEvents(evs)
	if err != nil {
		panic(err)
	}
	return block(seq, func(b *wire.Block) {
		b.Key.Lane, b.Kind, b.Count, b.SpanMs, b.Payload = wire.LaneEvents, wire.KindEvents, uint32(len(evs)), 1000, payload
	})
}

func (w *world) stored(id identity.ID) []wire.Key {
	w.t.Helper()
	var out []wire.Key
	check(w.t, w.store.Keys(ctx, id, func(k wire.Key) { out = append(out, k) }))
	return out
}

// sql opens the database beside the store, to damage it.
func (w *world) sql() *sql.DB {
	w.t.Helper()
	db, err := sql.Open("sqlite", w.path)
	check(w.t, err)
	w.t.Cleanup(func() { db.Close() })
	return db
}
