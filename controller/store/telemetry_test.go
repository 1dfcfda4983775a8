package store_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/edgeherd/edgeherd/controller/series"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// later is when all hours of the tests are closed.
func later(opts store.Options) store.Options {
	opts.WallClock = func() time.Time { return time.UnixMilli(epoch + 40*24*3_600_000) }
	return opts
}

// packOf makes a pack of samples blocks of one life.
func packOf(grain wire.Grain, ds ...store.Delivery) store.Delivery {
	var blocks []wire.Block
	out := store.Delivery{Box: ds[0].Box, Schema: ds[0].Schema, StartMs: math.MaxInt64}
	for _, d := range ds {
		blocks = append(blocks, d.Block)
		out.Starts = append(out.Starts, d.StartMs)
		out.StartMs = min(out.StartMs, d.StartMs)
	}
	p := must(wire.PackBlocks(*ds[0].Schema, blocks))
	if grain == wire.GrainExact {
		s := must(p.Samples(*ds[0].Schema))
		out.Pack, out.Samples = &p, &s
		return out
	}
	p = must(wire.Coarsen(*ds[0].Schema, []wire.Pack{p}, grain))
	out.Pack, out.Rows = &p, must(p.Rows(*ds[0].Schema))
	return out
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// countOf adds up the buckets of the die within some time of epoch.
func countOf(t rapid.TB, s *store.Store, id identity.ID, aroundMs int64, hourly bool) (n int, low, high float64) {
	t.Helper()
	metric := "temp_die_celsius"
	w := series.Window{FromMs: epoch - aroundMs, ToMs: epoch + aroundMs, StepMs: 3_600_000}
	points, err := s.Chart(ctx, id, w, []store.Curve{{Metrics: []string{metric}}}, hourly)
	if err != nil {
		t.Fatal(err)
	}
	low, high = math.Inf(1), math.Inf(-1)
	for _, p := range points[0] {
		n, low, high = n+p.N, min(low, p.Min), max(high, p.Max)
	}
	return n, low, high
}

// grainsOverlap delivers blocks alone and in packs of every grain, some twice,
// in any order, with hours merged in between: each sample counts once, and the
// keys, least and greatest values are those of all.
func grainsOverlap(t *rapid.T, empty store.Options) {
	s, err := store.Open(ctx, later(empty))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.AddBox(ctx, boxA, "a", "x"); err != nil {
		t.Fatal(err)
	}
	n := rapid.IntRange(1, 30).Draw(t, "blocks")
	blocks := make([]store.Delivery, n)
	at := epoch + rapid.Int64Range(-3_600_000, 0).Draw(t, "start")
	taken, low, high := 0, math.Inf(1), math.Inf(-1)
	for i := range blocks {
		values := rapid.SliceOfN(rapid.Map(rapid.IntRange(-3, 90), func(n int) float64 {
			if n < 0 {
				return math.NaN()
			}
			return float64(n)
		}), 1, 6).Draw(t, "values")
		for _, v := range values {
			if !math.IsNaN(v) {
				taken, low, high = taken+1, min(low, v), max(high, v)
			}
		}
		blocks[i] = samples(boxA, 1, uint64(i+1), at, values...)
		at += rapid.Int64Range(120_000, 1_200_000).Draw(t, "step")
	}
	exact := map[wire.Key]bool{} // that came as they were
	seen := map[wire.Key]bool{}
	deliver := func(d store.Delivery) {
		fresh := 0
		keys := []wire.Key{d.Block.Key}
		if d.Pack != nil {
			keys = d.Pack.Keys()
		}
		for _, k := range keys {
			if !seen[k] {
				seen[k], fresh = true, fresh+1
				exact[k] = d.Pack == nil || d.Pack.Grain == wire.GrainExact
			}
		}
		if c, err := s.Ingest(ctx, []store.Delivery{d}, effects); err != nil || c.New != fresh {
			t.Fatalf("%d new keys, want %d: %v", c.New, fresh, err)
		}
		s.NextEra()
	}
	for range rapid.IntRange(0, 8).Draw(t, "deliveries") {
		from := rapid.IntRange(0, n-1).Draw(t, "from")
		to := min(n, from+rapid.IntRange(1, 15).Draw(t, "members"))
		if grain := rapid.IntRange(-1, 2).Draw(t, "grain"); grain < 0 {
			deliver(blocks[from])
		} else {
			deliver(packOf(wire.Grain(grain), blocks[from:to]...))
		}
		if rapid.IntRange(0, 2).Draw(t, "compact") == 0 {
			if _, err := s.Compact(ctx, rapid.IntRange(1, 100).Draw(t, "rows")); err != nil {
				t.Fatal(err)
			}
		}
	}
	counted, _, _ := countOf(t, s, boxA, 2*dayMs, false)
	if counted > taken {
		t.Fatalf("%d samples are counted of %d taken", counted, taken)
	}
	for _, b := range blocks { // nothing was dropped: all come at last
		deliver(b)
	}
	judge := func(when string) {
		for _, hourly := range []bool{false, true} {
			counted, least, most := countOf(t, s, boxA, 2*dayMs, hourly)
			if counted != taken || taken > 0 && (least != low || most != high) {
				t.Fatalf("%s, hourly %v: %d samples from %v to %v, want %d from %v to %v", when, hourly, counted, least, most, taken, low, high)
			}
		}
		got := map[wire.Key]int{}
		if err := s.Keys(ctx, boxA, func(k wire.Key) { got[k]++ }); err != nil || len(got) != n {
			t.Fatalf("%s: %d keys, want %d (%v)", when, len(got), n, err)
		}
		rows := map[string]int{}
		if err := s.Samples(ctx, boxA, time.UnixMilli(0), time.UnixMilli(2*epoch), func(start int64, sm wire.Samples) error {
			rows[fmt.Sprint(start, sm.TimesMs, sm.Values)]++
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		for _, b := range blocks { // what came exactly is exact
			if text := fmt.Sprint(b.StartMs, b.Samples.TimesMs, b.Samples.Values); exact[b.Block.Key] && rows[text] == 0 {
				t.Fatalf("%s: block %s is not as it was", when, b.Block.Key)
			}
		}
	}
	judge("before")
	for more := true; more; {
		c, err := s.Compact(ctx, 7)
		if err != nil {
			t.Fatal(err)
		}
		more = c.Hours > 0
	}
	judge("after compaction")
}

func compactionKeeps(t *testing.T, open func(t *testing.T) *store.Store) {
	s := open(t)
	enrolTwo(t, s)
	const hour = int64(3_600_000)
	first := samples(boxA, 1, 1, epoch-5*hour, 40, 41, 42)
	spill := samples(boxA, 1, 2, epoch-4*hour-30_000, 50, 51, 52) // its last lies in the next hour
	ingest(t, s, first, spill, samples(boxA, 1, 3, epoch-60_000, 60))
	chart := func(hourly bool) string {
		w := series.Window{FromMs: epoch - 6*hour, ToMs: epoch, StepMs: hour}
		points, err := s.Chart(ctx, boxA, w, []store.Curve{{Metrics: []string{"temp_die_celsius"}}, {Metrics: []string{"fan_rpm"}}, {Metrics: []string{"none"}}}, hourly)
		check(t, err)
		return fmt.Sprintf("%+v\n", points)
	}
	ask := func() string { return chart(false) + chart(true) }
	before := ask()
	compact := func(wantHours, wantRows int) {
		t.Helper()
		if c, err := s.Compact(ctx, 100); err != nil || c.Hours != wantHours || c.Rows != wantRows || c.More {
			t.Errorf("compacted %+v, %v; want %d hours of %d rows", c, err, wantHours, wantRows)
		}
	}
	compact(1, 2) // the hour of the third is open
	compact(0, 0)
	if got := ask(); got != before {
		t.Errorf("after compaction:\n%sbefore:\n%s", got, before)
	}
	// A copy is known, and what is late opens its hour again.
	late := samples(boxA, 2, 1, epoch-5*hour+1000, 90)
	if c := ingest(t, s, first, late, packOf(wire.GrainTen, first, spill)); c.New != 1 {
		t.Errorf("%d new blocks, want the late one", c.New)
	}
	before = chart(false)
	compact(1, 1)
	// The hourly median is right again as well.
	if got := ask(); got != before+before {
		t.Errorf("after a late block:\n%swant twice:\n%s", got, before)
	}
	if got := keysOf(t, s, boxA); len(got) != 4 {
		t.Errorf("keys %v", got)
	}
	if got := rowCount(t, s, `SELECT count(*) FROM sample_hour`); got != 1 {
		t.Errorf("%d rows of hours, want 1", got)
	}
}

func tails(t *testing.T, open func(t *testing.T) *store.Store) {
	s := open(t)
	enrolTwo(t, s)
	const hour = int64(3_600_000)
	var want []float64
	last := store.Committed{}
	for i := range 6 {
		a := samples(boxA, 1, uint64(2*i+1), epoch-5*hour+int64(i)*60_000, float64(2*i))
		b := samples(boxA, 1, uint64(2*i+2), epoch-60_000+int64(i), float64(2*i+1))
		last = ingest(t, s, a, b)
		want = append(want, float64(2*i), float64(2*i+1))
	}
	walk := func(limit int) (got []float64) {
		after := uint64(0)
		for {
			var lsns []uint64
			next, err := s.Tail(ctx, after, limit, func(x store.Tailed) error {
				lsns = append(lsns, x.LSN)
				got = append(got, x.Samples.Values[0]...)
				return nil
			})
			check(t, err)
			if len(lsns) == 0 {
				if next != after || after != last.LSN {
					t.Errorf("the end is %d after %d, want %d", next, after, last.LSN)
				}
				return got
			}
			if !slices.IsSorted(lsns) || lsns[0] <= after || lsns[len(lsns)-1] != next {
				t.Errorf("LSNs %v after %d, end at %d", lsns, after, next)
			}
			after = next
		}
	}
	for _, limit := range []int{1, 2, 3, 100} {
		if got := walk(limit); !slices.Equal(got, want) {
			t.Errorf("limit %d: %v, want %v", limit, got, want)
		}
	}
	if c, err := s.Compact(ctx, 100); err != nil || c.Hours != 1 {
		t.Fatalf("%+v, %v", c, err)
	}
	slices.Sort(want)
	got := walk(3)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("after compaction: %v, want %v", got, want)
	}
}

// monthOf is thirty days of one box, late and reordered, with holes and packs.
func monthOf(rng *rand.Rand, days int) [][]store.Delivery {
	var blocks []store.Delivery
	for i := range days * 24 * 4 { // every quarter of an hour
		var values []float64
		for range 3 {
			v := math.Round(40 + 10*rng.NormFloat64())
			if rng.IntN(20) == 0 {
				v = math.NaN()
			}
			values = append(values, v)
		}
		blocks = append(blocks, samples(boxA, 1, uint64(i+1), epoch+int64(i)*900_000, values...))
	}
	var ds []store.Delivery
	for at := 0; at < len(blocks); {
		n := min(1+rng.IntN(12), len(blocks)-at)
		if rng.IntN(3) == 0 {
			ds = append(ds, packOf(wire.Grain(rng.IntN(3)), blocks[at:at+n]...))
		} else {
			ds = append(ds, blocks[at:at+n]...)
		}
		at += n
	}
	rng.Shuffle(len(ds), func(i, j int) { ds[i], ds[j] = ds[j], ds[i] })
	return slices.Collect(slices.Chunk(append(ds, ds[:len(ds)/4]...), 200))
}

// TestAMonthChartsAlikeOnAllEngines asks for 30 days in buckets of many sizes.
func TestAMonthChartsAlikeOnAllEngines(t *testing.T) {
	seed := assets.Seed(t)
	t.Logf("seed %d", seed)
	var answers []string
	for _, e := range engines {
		s := openAt(t, later(e.place(t)))
		enrolTwo(t, s)
		for i, batch := range monthOf(rand.New(rand.NewPCG(seed, 0)), 30) {
			ingest(t, s, batch...)
			if i%3 == 0 {
				_, err := s.Compact(ctx, 150)
				check(t, err)
			}
		}
		text := ""
		for _, points := range []int{1, 30, 400, 2000} {
			for _, hourly := range []bool{false, true} {
				w := series.NewWindow(time.UnixMilli(epoch+12345), time.UnixMilli(epoch+30*24*3_600_000-777), points, time.Hour)
				if hourly {
					w = w.Whole()
				}
				got, err := s.Chart(ctx, boxA, w, []store.Curve{{Metrics: []string{"temp_die_celsius"}}, {Metrics: []string{"fan_rpm"}}}, hourly)
				check(t, err)
				text += fmt.Sprintf("%d %v %+v\n", points, hourly, got)
			}
		}
		answers = append(answers, text)
	}
	for i := range answers[1:] {
		if answers[0] != answers[i+1] {
			t.Errorf("%s and %s answer differently", engines[0].name, engines[i+1].name)
		}
	}
}

// TestSchemasDoNotFillTheMemory: a box may send each block in a new one.
func TestSchemasDoNotFillTheMemory(t *testing.T) {
	s := fresh(t)
	long := strings.Repeat("m", 120)
	for i := range 300 { // of about 31 KB each
		sc := wire.Schema{}
		for m := range 240 {
			sc.Metrics = append(sc.Metrics, wire.Metric{Name: fmt.Sprint(i, " ", m, long)})
		}
		check(t, s.AddSchemas(ctx, []wire.Schema{sc}))
		got, err := s.Schema(ctx, wire.SchemaIDOf(sc))
		check(t, err)
		if !reflect.DeepEqual(got, sc) {
			t.Fatal("a schema came back as another")
		}
	}
	if n := s.SchemasInMemory(); n > 280 {
		t.Errorf("%d schemas of 31 KB are kept in memory", n)
	}
}
