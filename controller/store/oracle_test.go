package store_test

import (
	"encoding/json"
	"maps"
	"math"
	"reflect"
	"time"

	"pgregory.net/rapid"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// An oracle keeps in plain maps what the store must hold.
type oracle struct {
	keys    map[identity.ID]map[wire.Key]int
	latest  map[identity.ID]map[string]store.Latest
	rollups map[rollupKey]rollup
	events  map[identity.ID]int
	reads   map[identity.ID]store.Reads
	rows    map[identity.ID]int
	newest  map[identity.ID]wire.Event // by monotonic clock, then number
	number  map[identity.ID]uint64
}

type rollupKey struct {
	Box    string
	Metric string
	HourMs int64
}

type rollup struct {
	Min, Max, Sum float64
	N             int
}

func newOracle() *oracle {
	o := &oracle{keys: map[identity.ID]map[wire.Key]int{}, latest: map[identity.ID]map[string]store.Latest{}, rollups: map[rollupKey]rollup{},
		events: map[identity.ID]int{}, reads: map[identity.ID]store.Reads{}, rows: map[identity.ID]int{}, newest: map[identity.ID]wire.Event{}, number: map[identity.ID]uint64{}}
	for _, id := range []identity.ID{boxA, boxB} {
		o.keys[id], o.latest[id] = map[wire.Key]int{}, map[string]store.Latest{}
	}
	return o
}

func (o *oracle) take(d store.Delivery) {
	if o.keys[d.Box][d.Block.Key] > 0 {
		return
	}
	o.keys[d.Box][d.Block.Key] = 1
	for _, r := range d.Results {
		n := o.reads[d.Box]
		n.Total++
		n.Checked++
		if r.Text == r.Want {
			n.Right++
		}
		o.reads[d.Box] = n
	}
	for _, ev := range d.Events {
		o.events[d.Box]++
		was, seen := o.newest[d.Box]
		if !seen || ev.MonoMs > was.MonoMs || ev.MonoMs == was.MonoMs && d.Block.Key.Seq >= o.number[d.Box] {
			o.newest[d.Box], o.number[d.Box] = ev, d.Block.Key.Seq
		}
	}
	if d.Samples == nil {
		return
	}
	o.rows[d.Box] += len(d.Samples.TimesMs)
	for row, rel := range d.Samples.TimesMs {
		for m, metric := range d.Samples.Schema.Metrics {
			o.value(d.Box, metric.Name, d.StartMs+rel, d.Samples.Values[m][row])
		}
	}
}

func (o *oracle) value(id identity.ID, metric string, at int64, v float64) {
	if math.IsNaN(v) {
		return
	}
	if was, seen := o.latest[id][metric]; !seen || at >= was.TimeMs {
		o.latest[id][metric] = store.Latest{TimeMs: at, Value: v}
	}
	key := rollupKey{string(id), metric, int64(math.Floor(float64(at)/3_600_000)) * 3_600_000}
	r, seen := o.rollups[key]
	if !seen {
		r = rollup{Min: v, Max: v}
	}
	o.rollups[key] = rollup{min(r.Min, v), max(r.Max, v), r.Sum + v, r.N + 1}
}

// compare reports where the store differs from the oracle.
func (o *oracle) compare(t *rapid.T, s *store.Store) {
	for id, want := range o.keys {
		got := map[wire.Key]int{}
		if err := s.Keys(ctx, id, func(k wire.Key) { got[k]++ }); err != nil {
			t.Fatal(err)
		}
		same(t, "keys", got, want)
		b, err := s.Box(ctx, id, -1<<50)
		if err != nil {
			t.Fatal(err)
		}
		same(t, "newest values", maps.Collect(b.Latest.All()), o.latest[id])
		same(t, "reads", b.Reads, o.reads[id])
		rows := 0
		if err := s.Samples(ctx, id, time.UnixMilli(-1<<50), time.UnixMilli(1<<50), func(_ int64, p wire.Samples) error { rows += len(p.TimesMs); return nil }); err != nil {
			t.Fatal(err)
		}
		same(t, "rows of samples", rows, o.rows[id])
		evs, err := s.Events(ctx, id, time.UnixMilli(-1<<50), time.UnixMilli(1<<50), 1000)
		if err != nil {
			t.Fatal(err)
		}
		same(t, "events", len(evs), o.events[id])
		var phase wire.PhaseBody
		if ev, any := o.newest[id]; any {
			if err := json.Unmarshal(ev.Body, &phase); err != nil {
				t.Fatal(err)
			}
			same(t, "phase", b.Phases[0].Phase, phase.Phase)
		}
	}
	got := map[rollupKey]rollup{}
	for id := range o.keys {
		err := s.Rollups(ctx, store.Question{Box: id, From: time.UnixMilli(-1 << 42), To: time.UnixMilli(1 << 42), Metrics: []string{"temp_die_celsius", "fan_rpm"}}, func(hourMs int64, values []store.Rollup) {
			for i, v := range values {
				if v.N == 0 {
					continue
				}
				k := rollupKey{string(id), []string{"temp_die_celsius", "fan_rpm"}[i], hourMs}
				r, seen := got[k]
				if !seen {
					r = rollup{Min: v.Min, Max: v.Max}
				}
				got[k] = rollup{min(r.Min, v.Min), max(r.Max, v.Max), r.Sum + v.Sum, r.N + v.N}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	same(t, "hourly rollups", got, o.rollups)
}

func same(t *rapid.T, what string, got, want any) {
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %v\nwant %v", what, got, want)
	}
}

// drawBlocks makes the blocks of one box: whole numbers, so that their sums do
// not depend on the order.
func drawBlocks(t *rapid.T, id identity.ID) []store.Delivery {
	var out []store.Delivery
	for seq := range uint64(rapid.IntRange(1, 8).Draw(t, "blocks")) {
		at := epoch + rapid.Int64Range(-3_700_000, 3_700_000).Draw(t, "at")
		if rapid.IntRange(0, 9).Draw(t, "1970") == 0 {
			at -= epoch
		}
		life := rapid.ByteRange(1, 3).Draw(t, "life")
		switch rapid.IntRange(0, 3).Draw(t, "kind") {
		case 0:
			at = epoch + rapid.Int64Range(0, 3).Draw(t, "tie") // several in one millisecond
			out = append(out, event(id, 1, seq+1, at, wire.EventModelPhase, phase(rapid.StringMatching(`[a-z]{4}`).Draw(t, "phase"))))
		case 1:
			out = append(out, results(id, life, seq+1, at, rapid.SliceOfN(rapid.SampledFrom([]string{"good", "bad"}), 1, 4).Draw(t, "texts")...))
		default:
			values := rapid.SliceOfN(rapid.Map(rapid.IntRange(-5, 90), func(n int) float64 {
				if n < 0 {
					return math.NaN()
				}
				return float64(n)
			}), 1, 8).Draw(t, "values")
			out = append(out, samples(id, life, seq+1, at, values...))
		}
	}
	return out
}

// equalsTheOracle delivers blocks late, doubled, reordered and in
// batches of any size, with the database closed and opened again in between.
func equalsTheOracle(t *rapid.T, opts store.Options) {
	opts = later(opts)
	s, err := store.Open(ctx, opts)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { s.Close() }()
	for i, id := range []identity.ID{boxA, boxB} {
		if err := s.AddBox(ctx, id, string(rune('a'+i)), "x"); err != nil {
			t.Fatal(err)
		}
	}
	all := append(drawBlocks(t, boxA), drawBlocks(t, boxB)...)
	order := rapid.SliceOfN(rapid.IntRange(0, len(all)-1), 1, 3*len(all)).Draw(t, "order")
	o := newOracle()
	for len(order) > 0 {
		size := rapid.IntRange(1, len(order)).Draw(t, "batch")
		var batch []store.Delivery
		for _, i := range order[:size] {
			batch = append(batch, all[i])
			o.take(all[i])
		}
		order = order[size:]
		if _, err := s.Ingest(ctx, batch, effects); err != nil {
			t.Fatal(err)
		}
		if rapid.IntRange(0, 3).Draw(t, "compact") == 0 {
			if _, err := s.Compact(ctx, 5); err != nil {
				t.Fatal(err)
			}
		}
		if rapid.IntRange(0, 4).Draw(t, "reopen") == 0 {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if s, err = store.Open(ctx, opts); err != nil {
				t.Fatal(err)
			}
		}
	}
	o.compare(t, s)
}
