package store_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

func TestMain(m *testing.M) {
	if path := os.Getenv("EDGEHERD_STORE_CRASHER"); path != "" {
		crasher(path)
		return
	}
	if os.Getenv("EDGEHERD_PROVE") == "" {
		// Every case opens databases, which is slow under -race.
		if err := flag.Set("rapid.checks", "20"); err != nil {
			panic(err)
		}
	}
	code := m.Run()
	if c, err := shared(); err == nil {
		c.Remove()
	}
	os.Exit(code)
}

var ctx = context.Background()

// epoch is when the tests' controller clock starts: on the hour.
const epoch = int64(1_800_000_000_000)

func open(t testing.TB, path string) *store.Store {
	t.Helper()
	s, err := store.Open(ctx, store.Options{Path: path, WallClock: func() time.Time { return time.UnixMilli(epoch) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func fresh(t testing.TB) *store.Store {
	t.Helper()
	return open(t, filepath.Join(t.TempDir(), "store.db"))
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// boxA and boxB are enrolled by enrolTwo.
const (
	boxA = identity.ID("d-aaaaaaaaaaaaa")
	boxB = identity.ID("d-bbbbbbbbbbbbb")
)

func enrolTwo(t testing.TB, s *store.Store) {
	t.Helper()
	check(t, s.AddBox(ctx, boxA, "box-a", "berlin"))
	check(t, s.AddBox(ctx, boxB, "box-b", "krakow"))
}

var schema = wire.Schema{Metrics: []wire.Metric{{Name: "temp_die_celsius"}, {Name: "fan_rpm"}}}

func sid(n byte) wire.SID { return wire.SID{7: n} }

// seal completes the block of a delivery.
func seal(d store.Delivery, life byte, lane wire.Lane, seq uint64) store.Delivery {
	d.Block.Key = wire.Key{SID: sid(life), Lane: lane, Seq: seq}
	d.Block.Boot = wire.BootID{1}
	d.Block.Quality = wire.TimeSynced
	d.Block.WallMs = d.StartMs
	d.Block.MonoMs = d.StartMs - epoch + int64(365*24*time.Hour/time.Millisecond)
	if err := wire.Seal(&d.Block); err != nil {
		panic(err)
	}
	return d
}

// samples makes a block of die temperatures (and twice that as fan speed), one
// value every 20 seconds.
func samples(box identity.ID, life byte, seq uint64, startMs int64, values ...float64) store.Delivery {
	s := wire.Samples{Schema: schema, Values: make([][]float64, 2)}
	for i, v := range values {
		s.TimesMs = append(s.TimesMs, int64(i)*20_000)
		s.Values[0] = append(s.Values[0], v)
		s.Values[1] = append(s.Values[1], 2*v)
	}
	payload, err := wire.EncodeSamples(s)
	if err != nil {
		panic(err)
	}
	sc := schema
	return seal(store.Delivery{Box: box, StartMs: startMs, Samples: &s, Schema: &sc, Block: wire.Block{
		Kind: wire.KindSamples, Schema: wire.SchemaIDOf(schema), Count: uint32(len(values)),
		SpanMs: s.TimesMs[len(values)-1], Payload: payload,
	}}, life, wire.LaneTelemetry, seq)
}

func event(box identity.ID, life byte, seq uint64, atMs int64, kind string, body any) store.Delivery {
	var raw []byte
	if body != nil {
		raw, _ = json.Marshal(body)
	}
	d := store.Delivery{Box: box, StartMs: atMs, Events: []wire.Event{{WallMs: atMs, Type: kind, Text: kind, Body: raw}}}
	d.Events[0].MonoMs = atMs - epoch + int64(365*24*time.Hour/time.Millisecond)
	payload, err := wire.EncodeEvents(d.Events)
	if err != nil {
		panic(err)
	}
	d.Block = wire.Block{Kind: wire.KindEvents, Count: 1, Payload: payload}
	return seal(d, life, wire.LaneEvents, seq)
}

func results(box identity.ID, life byte, seq uint64, atMs int64, texts ...string) store.Delivery {
	d := store.Delivery{Box: box, StartMs: atMs}
	for i, text := range texts {
		d.Results = append(d.Results, wire.Result{WallMs: atMs + int64(i), Input: "cam", Item: text, Text: text, Want: "good", Models: []string{}})
	}
	payload, err := wire.EncodeResults(d.Results)
	if err != nil {
		panic(err)
	}
	d.Block = wire.Block{Kind: wire.KindResults, Count: uint32(len(texts)), SpanMs: int64(len(texts) - 1), Payload: payload}
	return seal(d, life, wire.LaneTelemetry, seq)
}

// effects judges events as the ingest layer does.
func effects(d store.Delivery) (store.Effects, error) {
	var e store.Effects
	for _, ev := range d.Events {
		switch ev.Type {
		case wire.EventModelPhase:
			var p wire.PhaseBody
			if err := json.Unmarshal(ev.Body, &p); err != nil {
				return e, err
			}
			e.Phases = append(e.Phases, store.Phase{Box: d.Box, Kind: "model", Name: p.Name, Version: p.Version, Digest: p.Digest,
				Rollout: p.Rollout, Phase: p.Phase, TimeMs: d.StartMs + ev.MonoMs - d.Block.MonoMs, MonoMs: ev.MonoMs})
		case wire.EventServing:
			var s wire.Serving
			if err := json.Unmarshal(ev.Body, &s); err != nil {
				return e, err
			}
			e.Serving = append(e.Serving, store.ServingRow{Serving: s, TimeMs: d.StartMs + ev.MonoMs - d.Block.MonoMs, MonoMs: ev.MonoMs})
		case wire.EventRunning:
			e.Running, e.RunningMonoMs = new(wire.Running), ev.MonoMs
			if err := json.Unmarshal(ev.Body, e.Running); err != nil {
				return e, err
			}
		}
	}
	return e, nil
}

func ingest(t testing.TB, s *store.Store, ds ...store.Delivery) store.Committed {
	t.Helper()
	c, err := s.Ingest(ctx, ds, effects)
	check(t, err)
	return c
}

func keysOf(t testing.TB, s *store.Store, id identity.ID) map[wire.Key]int {
	t.Helper()
	keys := map[wire.Key]int{}
	check(t, s.Keys(ctx, id, func(k wire.Key) { keys[k]++ }))
	return keys
}

func box(t testing.TB, s *store.Store, id identity.ID) store.Box {
	t.Helper()
	b, err := s.Box(ctx, id, 0)
	check(t, err)
	return b
}

// strangeRun is a run that nobody knows.
func strangeRun(n uint64) (r wire.RunID) {
	binary.BigEndian.PutUint64(r[:], n)
	return r
}

func rowCount(t testing.TB, s *store.Store, query string, args ...any) (n int64) {
	t.Helper()
	check(t, s.Ask(ctx, query, args, &n))
	return n
}

func runNow(t testing.TB, s *store.Store) wire.RunID {
	t.Helper()
	l, err := s.Lineage(ctx, nil)
	check(t, err)
	return l.Run
}
