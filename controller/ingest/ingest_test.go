package ingest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/ingest"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

func TestWelcomeAnswersHello(t *testing.T) {
	w := running(t)
	h := wire.Hello{V: wire.Version, Nonce: wire.Nonce{3}, Clock: wire.Clock{Boot: boot, MonoMs: bootMs}, Inventory: wire.Inventory{Class: "itx"}}
	check(t, w.deliver(boxA, wire.TopicHello, h))
	got := one[wire.Welcome](w, boxA, wire.TopicWelcome)
	if got.Nonce != h.Nonce || got.Run != w.present() || got.WallMs != now || got.LiveMs != 7000 || got.WindowBytes <= 0 || got.WindowCount <= 0 ||
		len(got.Valid)+len(got.Desired)+len(got.Schemas) != 0 {
		t.Errorf("first welcome %+v", got)
	}
	check(t, w.deliver(boxA, wire.TopicData, wire.Data{Blocks: []wire.Block{samples(1, 40)}, Schemas: []wire.Schema{schema}}))
	lsn := one[wire.Ack](w, boxA, wire.TopicAck).LSN
	envelope, err := w.store.SetDesired(ctx, boxA, func(d *wire.Desired) error {
		d.Agent = &wire.DesiredAgent{Version: "2"}
		return nil
	}, func(p []byte) ([]byte, error) { return p, nil })
	check(t, err)
	h.Runs = []wire.RunID{w.present(), {8}}
	check(t, w.deliver(boxA, wire.TopicHello, h))
	got = one[wire.Welcome](w, boxA, wire.TopicWelcome)
	if !slices.Equal(got.Valid, []wire.RunLSN{{Run: w.present(), LSN: lsn}}) || !bytes.Equal(got.Desired, envelope) ||
		!slices.Equal(got.Schemas, []wire.SchemaID{wire.SchemaIDOf(schema)}) {
		t.Errorf("second welcome %+v", got)
	}
	b, err := w.store.Box(ctx, boxA, 0)
	if err != nil || !b.Connected || b.Inventory.Class != "itx" || !slices.Equal(w.changed, []identity.ID{boxA, boxA, boxA}) {
		t.Errorf("box %+v, %v; changes %v", b, err, w.changed)
	}
}

func TestAckNamesWhatTheCommitStored(t *testing.T) {
	w := running(t)
	data := wire.Data{Blocks: []wire.Block{samples(1, 40), samples(2, 41), events(1, wire.Event{MonoMs: bootMs, Type: wire.EventStarted})}, Schemas: []wire.Schema{schema}}
	check(t, w.deliver(boxA, wire.TopicData, data))
	first := one[wire.Ack](w, boxA, wire.TopicAck)
	if !slices.Equal(first.Keys, keys(data.Blocks...)) || first.Run != w.present() || first.LSN == 0 || len(first.Refused) != 0 {
		t.Errorf("ack %+v", first)
	}
	// The ACK was lost: the same again is acknowledged and not stored again.
	check(t, w.deliver(boxA, wire.TopicData, data))
	again := one[wire.Ack](w, boxA, wire.TopicAck)
	if !slices.Equal(again.Keys, first.Keys) || again.LSN <= first.LSN || len(w.stored(boxA)) != 3 {
		t.Errorf("ack %+v, stored %v", again, w.stored(boxA))
	}
}

// TestBrokenSealsAreRefused while the good blocks beside them are stored.
func TestBrokenSealsAreRefused(t *testing.T) {
	w := running(t)
	good, bent, forged := samples(1, 40), samples(2, 41), samples(3, 42)
	bent.Payload = append(slices.Clone(bent.Payload), 0)
	forged.Key.H64[0]++
	check(t, w.deliver(boxA, wire.TopicData, wire.Data{Blocks: []wire.Block{bent, good, forged}, Schemas: []wire.Schema{schema}}))
	got := one[wire.Ack](w, boxA, wire.TopicAck)
	if !slices.Equal(got.Keys, keys(good)) || !slices.Equal(got.Refused, keys(bent, forged)) || !slices.Equal(w.stored(boxA), keys(good)) {
		t.Errorf("ack %+v, stored %v", got, w.stored(boxA))
	}
	check(t, w.deliver(boxA, wire.TopicData, wire.Data{Blocks: []wire.Block{forged}}))
	if got := one[wire.Ack](w, boxA, wire.TopicAck); len(got.Keys) != 0 || !slices.Equal(got.Refused, keys(forged)) || got.Run != w.present() {
		t.Errorf("ack of nothing good: %+v", got)
	}
	if n := w.log.count("block refused"); n != 1 {
		t.Errorf("one cause was logged %d times", n)
	}
}

// TestUnreadableContentIsKept: the box would send the same bytes for ever.
func TestUnreadableContentIsKept(t *testing.T) {
	w := running(t)
	raw := func(seq uint64, kind wire.Kind, payload string) wire.Block {
		return block(seq, func(b *wire.Block) {
			b.Kind, b.Count, b.Payload = kind, 1, []byte(payload)
			if kind == wire.KindSamples {
				b.Schema = wire.SchemaIDOf(schema)
			}
		})
	}
	long := samples(9, 40, 41)
	long.SpanMs = (25 * time.Hour).Milliseconds()
	check(t, wire.Seal(&long))
	short := samples(10, 40, 41)
	short.SpanMs = 9_999 // its second sample is at 10 s
	check(t, wire.Seal(&short))
	blocks := []wire.Block{raw(1, wire.KindSamples, "junk"), raw(2, wire.KindEvents, "junk"), raw(3, wire.KindResults, ""), raw(4, wire.KindGap, "junk"), raw(5, 77, "future"), long, short}
	check(t, w.deliver(boxA, wire.TopicData, wire.Data{Blocks: blocks, Schemas: []wire.Schema{schema}}))
	if got := one[wire.Ack](w, boxA, wire.TopicAck); !slices.Equal(got.Keys, keys(blocks...)) || len(w.stored(boxA)) != len(blocks) {
		t.Errorf("ack %+v", got)
	}
	for _, cause := range []string{"cause=unreadable", "cause=schema-conflict"} {
		if n := w.log.count(cause); n != 1 {
			t.Errorf("%s was logged %d times", cause, n)
		}
	}
	charted := 0
	check(t, w.store.Samples(ctx, boxA, time.UnixMilli(0), time.UnixMilli(2*now), func(int64, wire.Samples) error { charted++; return nil }))
	if charted != 0 {
		t.Errorf("%d unreadable blocks are charted", charted)
	}
}

func TestUnknownSchemaAsksForHello(t *testing.T) {
	w := running(t)
	ev := events(1, wire.Event{MonoMs: bootMs, Type: wire.EventStarted})
	check(t, w.deliver(boxA, wire.TopicData, wire.Data{Blocks: []wire.Block{samples(1, 40), ev, samples(2, 41)}}))
	if cmd := one[wire.Cmd](w, boxA, wire.TopicCmd); !cmd.Hello {
		t.Errorf("command %+v", cmd)
	}
	if got := one[wire.Ack](w, boxA, wire.TopicAck); !slices.Equal(got.Keys, keys(ev)) || len(got.Refused) != 0 {
		t.Errorf("ack %+v", got)
	}
	check(t, w.deliver(boxA, wire.TopicData, wire.Data{Blocks: []wire.Block{samples(1, 40), samples(2, 41)}, Schemas: []wire.Schema{schema}}))
	if got := one[wire.Ack](w, boxA, wire.TopicAck); len(got.Keys) != 2 {
		t.Errorf("ack with the schema: %+v", got)
	}
}

// TestT20BlocksArePlacedByTheClockThatCanBeTrusted: HELLO says that the box was up
// for bootMs at now; the block began 60 s before.
func TestT20BlocksArePlacedByTheClockThatCanBeTrusted(t *testing.T) {
	const minute, year = int64(60_000), int64(365 * 24 * 3600 * 1000)
	for _, c := range []struct {
		name    string
		hello   bool
		quality wire.TimeQuality
		wall    int64
		want    int64
	}{
		{"synchronised", true, wire.TimeSynced, now - 90*minute, now - 90*minute},
		{"synchronised and a little ahead", true, wire.TimeSynced, now + minute, now + minute},
		{"called synchronised but a year ahead", true, wire.TimeSynced, now + year, now - minute},
		{"1970", true, wire.TimeUnknown, 3, now - minute},
		{"a floor", true, wire.TimeFloor, now - year, now - minute},
		{"unknown boot in the past", false, wire.TimeUnknown, now - year, now - year},
		{"unknown boot in the future", false, wire.TimeUnknown, now + year, now - 10_000},
		{"the end of time", false, wire.TimeSynced, math.MaxInt64, now - 10_000},
		{"before 1970", false, wire.TimeSynced, math.MinInt64, now - 10_000},
		{"1970 and nothing to count from", false, wire.TimeUnknown, 3, now - 10_000},
	} {
		w := running(t)
		if c.hello {
			check(t, w.deliver(boxA, wire.TopicHello, wire.Hello{V: wire.Version, Clock: wire.Clock{Boot: boot, MonoMs: bootMs}}))
		}
		b := samples(1, 40, 41)
		b.Quality, b.WallMs, b.MonoMs = c.quality, c.wall, bootMs-minute
		check(t, wire.Seal(&b))
		res, err := wire.EncodeResults([]wire.Result{{WallMs: c.wall, Item: "i", Models: []string{}}})
		check(t, err)
		r := block(2, func(r *wire.Block) {
			r.Kind, r.Count, r.Payload, r.Quality, r.WallMs, r.MonoMs = wire.KindResults, 1, res, c.quality, c.wall, bootMs-minute
			r.SpanMs = 10_000
		})
		check(t, w.deliver(boxA, wire.TopicData, wire.Data{Blocks: []wire.Block{b, r}, Schemas: []wire.Schema{schema}}))
		got := int64(-1)
		check(t, w.store.Samples(ctx, boxA, time.UnixMilli(0), time.UnixMilli(2*now), func(start int64, _ wire.Samples) error { got = start; return nil }))
		rs, err := w.store.Results(ctx, boxA, 10)
		if got != c.want || err != nil || len(rs) != 1 || rs[0].Time.UnixMilli() != c.want {
			t.Errorf("%s: samples at %d, results at %v, want %d", c.name, got-now, rs, c.want-now)
		}
	}
}

// TestReportsOfABoxShowOnIt covers phases, what runs, and bodies that a
// newer agent might send.
func TestReportsOfABoxShowOnIt(t *testing.T) {
	w := running(t)
	body := func(v any) []byte { raw, err := json.Marshal(v); check(t, err); return raw }
	b := events(1,
		wire.Event{MonoMs: bootMs + 1, Type: wire.EventModelPhase, Body: body(wire.PhaseBody{Name: "m", Version: "1", Digest: "d1", Rollout: "r", Phase: "golden"})},
		wire.Event{MonoMs: bootMs + 2, Type: wire.EventModelPhase, Body: body(wire.PhaseBody{Name: "m", Version: "1", Digest: "d1", Rollout: "r", Phase: "active"})},
		wire.Event{MonoMs: bootMs + 3, Type: wire.EventAgentPhase, Body: body(wire.PhaseBody{Name: "agent", Digest: "d2", Phase: "trial"})},
		wire.Event{MonoMs: bootMs + 4, Type: wire.EventRunning, Body: body(wire.Running{Generation: 4})},
		wire.Event{MonoMs: bootMs + 5, Type: wire.EventRunning, Body: []byte("not JSON")},
		wire.Event{MonoMs: bootMs + 5, Type: wire.EventServing, Body: body(wire.Serving{Name: "m", Variant: "int8"})},
		wire.Event{MonoMs: bootMs + 5, Type: wire.EventServing, Body: body(wire.Serving{Name: "m", Variants: []wire.ServingVariant{{Watts: -1}}})},
		wire.Event{MonoMs: math.MaxInt64, Type: "made.up"},
		// No database can have it as a key; its event is stored all the same.
		wire.Event{MonoMs: bootMs + 6, Type: wire.EventModelPhase, Body: body(wire.PhaseBody{Name: "m", Digest: strings.Repeat("d", 3000), Phase: "active"})},
	)
	check(t, w.deliver(boxA, wire.TopicData, wire.Data{Blocks: []wire.Block{b, samples(1, 40)}, Schemas: []wire.Schema{schema}}))
	if got := one[wire.Ack](w, boxA, wire.TopicAck); len(got.Keys) != 2 {
		t.Errorf("ack %+v", got)
	}
	got, err := w.store.Box(ctx, boxA, 0)
	check(t, err)
	phases := map[string]string{}
	for _, p := range got.Phases {
		phases[p.Kind+" "+p.Digest] = p.Phase
	}
	if len(phases) != 2 || phases["model d1"] != "active" || phases["agent d2"] != "trial" || got.Running.Generation != 4 {
		t.Errorf("phases %v, running %+v", phases, got.Running)
	}
	if s, err := w.store.Serving(ctx, boxA); err != nil || s["m"].Variant != "int8" {
		t.Errorf("serving %+v, %v", s, err)
	}
	evs, err := w.store.Events(ctx, boxA, time.UnixMilli(0), time.UnixMilli(now), 10)
	if err != nil || len(evs) != 7 || evs[0].Time.UnixMilli() != now-60_000+1000 {
		t.Errorf("events %+v, %v", evs, err)
	}
}

// TestConcurrentMessagesShareCommits: every key is acknowledged.
func TestConcurrentMessagesShareCommits(t *testing.T) {
	w := idle(t)
	check(t, w.store.AddSchemas(ctx, []wire.Schema{schema}))
	const n = 40
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			id := []identity.ID{boxA, boxB}[i%2]
			if err := w.deliver(id, wire.TopicData, wire.Data{Blocks: []wire.Block{samples(uint64(i+1), float64(i))}}); err != nil {
				t.Error(err)
			}
		})
	}
	until(t, "all messages to wait", func() bool { return w.in.Waiting() == n })
	stop := w.run()
	wg.Wait()
	stop()
	lsns, acked := map[uint64]bool{}, 0
	for _, id := range []identity.ID{boxA, boxB} {
		for _, raw := range w.take(id, wire.TopicAck) {
			a, err := wire.Decode[wire.Ack](raw)
			check(t, err)
			lsns[a.LSN] = true
			acked += len(a.Keys)
		}
	}
	if len(lsns) != 1 || acked != n || len(w.stored(boxA)) != n/2 {
		t.Errorf("%d commits for %d blocks that waited together", len(lsns), acked)
	}
}

// until polls a condition that must come true.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(2 * time.Minute)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("waited 30 s for " + what)
		}
	}
}

// TestT21APoisonedBatchHoldsUpNobodyElse: the row of box B cannot be updated.
func TestT21APoisonedBatchHoldsUpNobodyElse(t *testing.T) {
	w := idle(t)
	_, err := w.sql().Exec(`CREATE TRIGGER poison BEFORE INSERT ON sample WHEN NEW.box = '` + string(boxB) + `' BEGIN SELECT RAISE(ABORT, 'poisoned'); END`)
	check(t, err)
	check(t, w.store.AddSchemas(ctx, []wire.Schema{schema}))
	errs := map[identity.ID]error{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, id := range []identity.ID{boxA, boxB} {
		wg.Go(func() {
			err := w.deliver(id, wire.TopicData, wire.Data{Blocks: []wire.Block{samples(1, 40)}})
			mu.Lock()
			errs[id] = err
			mu.Unlock()
		})
	}
	until(t, "both messages to wait", func() bool { return w.in.Waiting() == 2 })
	stop := w.run()
	wg.Wait()
	stop()
	if errs[boxA] != nil || errs[boxB] == nil || !strings.Contains(errs[boxB].Error(), "poisoned") || errors.Is(errs[boxB], ingest.ErrMalformed) {
		t.Errorf("errors %v", errs)
	}
	if len(w.take(boxA, wire.TopicAck)) != 1 || len(w.take(boxB, wire.TopicAck)) != 0 || len(w.stored(boxA)) != 1 {
		t.Error("the wrong box was acknowledged")
	}
}

func TestAFailingStoreWithholdsThePuback(t *testing.T) {
	w := running(t)
	check(t, w.store.Close())
	for topic, msg := range map[wire.Topic]any{
		wire.TopicHello: wire.Hello{V: wire.Version},
		wire.TopicData:  wire.Data{Blocks: []wire.Block{samples(1, 40)}},
	} {
		if err := w.deliver(boxA, topic, msg); err == nil || errors.Is(err, ingest.ErrMalformed) {
			t.Errorf("%s: %v", topic, err)
		}
	}
	if len(w.said) != 0 {
		t.Errorf("said %v", w.said)
	}
}

// TestStoppingFailsWhatWaits: the boxes keep their blocks.
func TestStoppingFailsWhatWaits(t *testing.T) {
	w := idle(t)
	check(t, w.store.AddSchemas(ctx, []wire.Schema{schema}))
	data := wire.Data{Blocks: []wire.Block{samples(1, 40)}}
	failed := make(chan error, 1)
	go func() { failed <- w.deliver(boxA, wire.TopicData, data) }()
	until(t, "the message to wait", func() bool { return w.in.Waiting() == 1 })
	c, cancel := context.WithCancel(ctx)
	cancel()
	check(t, w.in.Run(c))
	// Run may have chosen to commit first; then it says so.
	if err := <-failed; (err == nil) != (len(w.stored(boxA)) == 1) || (err == nil) != (len(w.take(boxA, wire.TopicAck)) == 1) {
		t.Errorf("error %v, stored %v", err, w.stored(boxA))
	}
	if err := w.deliver(boxA, wire.TopicData, data); err == nil {
		t.Error("a message after the end was accepted")
	}
	gone, leave := context.WithCancel(ctx)
	leave()
	payload, err := wire.Encode(data)
	check(t, err)
	w2 := idle(t)
	check(t, w2.store.AddSchemas(ctx, []wire.Schema{schema}))
	if err := w2.in.Deliver(gone, boxA, wire.TopicData, payload); !errors.Is(err, context.Canceled) {
		t.Errorf("a session that ended: %v", err)
	}
}

func TestMessagesThatCannotBeReadAreMalformed(t *testing.T) {
	w := running(t)
	for _, topic := range []wire.Topic{wire.TopicHello, wire.TopicData, wire.TopicLive, "up/unknown"} {
		for range 3 {
			if err := w.in.Deliver(ctx, boxA, topic, []byte("junk")); !errors.Is(err, ingest.ErrMalformed) {
				t.Errorf("%s: %v", topic, err)
			}
		}
	}
	for _, cause := range []string{"cause=malformed", "cause=wrong-topic"} {
		if n := w.log.count(cause); n != 1 {
			t.Errorf("%s was logged %d times", cause, n)
		}
	}
	if err := w.in.Deliver(ctx, boxA, wire.TopicWill, []byte("anything")); err != nil {
		t.Errorf("will: %v", err)
	}
	check(t, w.deliver(boxA, wire.TopicLive, wire.Live{WallMs: 5}))
	if len(w.live) != 1 || w.live[0].WallMs != 5 {
		t.Errorf("live %+v", w.live)
	}
}

// FuzzDeliver: no bytes of a box panic, hold up, or say anything to another.
func FuzzDeliver(f *testing.F) {
	for _, msg := range []any{
		wire.Hello{V: wire.Version, Clock: wire.Clock{Boot: boot, MonoMs: -1}},
		wire.Data{Blocks: []wire.Block{samples(1, 40), events(2, wire.Event{Type: wire.EventRunning, Body: []byte(`{"generation":1}`)})}, Schemas: []wire.Schema{schema}},
		wire.Data{Packs: []wire.Pack{packed(f, wire.GrainExact, minutes(2)...), packed(f, wire.GrainTen, minutes(3)...)}, Schemas: []wire.Schema{schema}},
		wire.Live{Samples: []wire.LiveSample{{Name: "a", Value: math.Inf(1)}}},
	} {
		payload, err := wire.Encode(msg)
		check(f, err)
		for i := range byte(4) {
			f.Add(i, payload)
		}
	}
	w := running(f)
	topics := []wire.Topic{wire.TopicHello, wire.TopicData, wire.TopicLive, wire.TopicWill}
	f.Fuzz(func(t *testing.T, which byte, payload []byte) {
		// The fuzzer cannot seal: half of the cases get a right seal.
		if d, err := wire.Decode[wire.Data](payload); err == nil && which >= 128 {
			for i := range d.Blocks {
				check(t, wire.Seal(&d.Blocks[i]))
			}
			payload, err = wire.Encode(d)
			check(t, err)
		}
		err := w.in.Deliver(ctx, boxA, topics[which%4], payload)
		if err != nil && !errors.Is(err, ingest.ErrMalformed) {
			t.Errorf("the store refused what a box sent: %v", err)
		}
		if len(w.take(boxB, wire.TopicAck))+len(w.take(boxB, wire.TopicWelcome)) != 0 {
			t.Error("another box was answered")
		}
		if _, err := w.store.Box(ctx, boxA, 0); err != nil {
			t.Errorf("the box cannot be read any more: %v", err)
		}
		if err := w.store.Samples(ctx, boxA, time.UnixMilli(0), time.UnixMilli(2*now), func(int64, wire.Samples) error { return nil }); err != nil {
			t.Errorf("its samples cannot be read any more: %v", err)
		}
	})
}
