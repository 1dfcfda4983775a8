package store

import (
	"math"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/edgeherd/edgeherd/internal/wire"
)

// drawSchema has metrics of all scales.
func drawSchema(t *rapid.T) *wire.Schema {
	var sc wire.Schema
	for range rapid.IntRange(1, 6).Draw(t, "metrics") {
		sc.Metrics = append(sc.Metrics, wire.Metric{
			Name: rapid.StringMatching(`[a-z]{8}`).Draw(t, "name"), Scale: int8(rapid.IntRange(-9, 9).Draw(t, "scale")),
		})
	}
	return &sc
}

// drawValue is what wire delivers of a metric, a mean, or nothing.
func drawValue(t *rapid.T, n int8) float64 {
	switch rapid.IntRange(0, 9).Draw(t, "kind") {
	case 0:
		return math.NaN()
	case 1:
		return rapid.Float64Range(-1e9, 1e9).Draw(t, "mean")
	case 2:
		return scaleOf(n).value(rapid.Int64Range(-1<<51+1, 1<<51-1).Draw(t, "any"))
	}
	return scaleOf(n).value(rapid.Int64Range(-100, 100).Draw(t, "small"))
}

// TestRowsComeBackAsTheyWere covers members, times and columns, and reading
// some columns only.
func TestRowsComeBackAsTheyWere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sc := drawSchema(t)
		p := part{sid: wire.SID{1}, lane: 1, boot: wire.BootID{2}, id: wire.SchemaIDOf(*sc), schema: sc, values: make([][]float64, len(sc.Metrics))}
		for i := range rapid.IntRange(1, 5).Draw(t, "members") {
			m := member{wire.Member{Seq: uint64(i+1) * rapid.Uint64Range(1, 1<<60).Draw(t, "seq"), H64: wire.H64{byte(i), 9}, MonoMs: rapid.Int64().Draw(t, "mono"),
				WallMs: rapid.Int64().Draw(t, "wall"), Quality: wire.TimeSynced, Count: uint32(rapid.IntRange(1, 9).Draw(t, "count")), SpanMs: rapid.Int64Range(0, 1e8).Draw(t, "span")},
				rapid.Int64Range(0, 2e12).Draw(t, "start")}
			p.members = append(p.members, m)
			for row := range m.Count {
				p.timesMs = append(p.timesMs, m.StartMs+int64(row)*rapid.Int64Range(0, 20_000).Draw(t, "step"))
				for j, metric := range sc.Metrics {
					p.values[j] = append(p.values[j], drawValue(t, metric.Scale))
				}
			}
		}
		schema := func(wire.SchemaID) (*wire.Schema, error) { return sc, nil }
		var got content
		if err := (&reading{schema: schema}).read(&got, append([]byte{formHour}, appendSection(nil, p.encode())...)); err != nil {
			t.Fatal(err)
		}
		if len(got.parts) != 1 || !reflect.DeepEqual(got.parts[0].members, p.members) || !reflect.DeepEqual(got.parts[0].timesMs, p.timesMs) {
			t.Fatalf("got %+v\nwant %+v", got.parts, p)
		}
		for j := range p.values {
			sameColumn(t, got.parts[0].values[j], p.values[j])
		}
		one := rapid.IntRange(0, len(sc.Metrics)-1).Draw(t, "one")
		var some content
		if err := (&reading{schema: schema, want: []string{"none", sc.Metrics[one].Name}}).read(&some, p.encode()); err != nil {
			t.Fatal(err)
		}
		if some.parts[0].values[0] != nil {
			t.Fatal("values of a metric that there is not")
		}
		for j, m := range sc.Metrics { // the first of that name
			if m.Name == sc.Metrics[one].Name {
				sameColumn(t, some.parts[0].values[1], p.values[j])
				break
			}
		}
	})
}

func sameColumn(t *rapid.T, got, want []float64) {
	t.Helper()
	for i := range want {
		if math.Float64bits(got[i]) != math.Float64bits(want[i]) && !(math.IsNaN(got[i]) && math.IsNaN(want[i])) {
			t.Fatalf("row %d: %v, want %v", i, got[i], want[i])
		}
	}
}

// TestDamagedRowsAreErrors: a byte that flipped on the disk must not panic.
func TestDamagedRowsAreErrors(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sc := drawSchema(t)
		p := part{id: wire.SchemaIDOf(*sc), schema: sc, members: []member{{Member: wire.Member{Seq: 1, Count: 3}}}, timesMs: []int64{1, 2, 3}, values: make([][]float64, len(sc.Metrics))}
		for j, m := range sc.Metrics {
			p.values[j] = []float64{drawValue(t, m.Scale), drawValue(t, m.Scale), drawValue(t, m.Scale)}
		}
		schema := func(wire.SchemaID) (*wire.Schema, error) { return sc, nil }
		var c content
		c.parts = []part{p}
		var n Newest
		n.takeSamples(n.group(p.id, sc), &wire.Samples{Schema: *sc, TimesMs: p.timesMs, Values: p.values}, 0)
		for i, row := range [][]byte{p.encode(), encodeRollups(c.rollups()), n.encode()} {
			row = append([]byte{}, row...)
			if rapid.Bool().Draw(t, "cut") {
				row = row[:rapid.IntRange(0, len(row)-1).Draw(t, "length")]
			} else {
				row[rapid.IntRange(0, len(row)-1).Draw(t, "at")] ^= byte(rapid.IntRange(1, 255).Draw(t, "bits"))
			}
			switch i { // an error or other values: CRCs of the disk are not ours
			case 0:
				_ = (&reading{schema: schema}).read(&content{}, row)
			case 1:
				_, _ = decodeRollups(row, schema)
			case 2:
				_, _ = decodeNewest(row, schema)
			}
		}
	})
}

// TestTheNewestValueOfAMetricIsInOneSchema whatever the order in which samples
// of many schemas come.
func TestTheNewestValueOfAMetricIsInOneSchema(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var n Newest
		want := map[string]Latest{}
		for range rapid.IntRange(1, 40).Draw(t, "samples") {
			sc := &wire.Schema{}
			first := rapid.IntRange(0, 5).Draw(t, "first")
			for m := range rapid.IntRange(1, 4).Draw(t, "metrics") {
				sc.Metrics = append(sc.Metrics, wire.Metric{Name: string(rune('a' + first + m))})
			}
			l := Latest{rapid.Int64Range(0, 20).Draw(t, "at"), rapid.Float64Range(0, 1).Draw(t, "value")}
			m := rapid.IntRange(0, len(sc.Metrics)-1).Draw(t, "metric")
			g := n.group(wire.SchemaIDOf(*sc), sc)
			n.take(g, m, l)
			if name := sc.Metrics[m].Name; l.TimeMs >= want[name].TimeMs {
				want[name] = l
			}
		}
		got := map[string]Latest{}
		for name, l := range n.All() {
			if _, twice := got[name]; twice {
				t.Fatalf("%s has two newest values", name)
			}
			got[name] = l
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	})
}

func TestNewestValuesComeBackAsTheyWere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sc := drawSchema(t)
		id := wire.SchemaIDOf(*sc)
		var n Newest
		g := n.group(id, sc)
		for m := range sc.Metrics {
			if v := drawValue(t, sc.Metrics[m].Scale); !math.IsNaN(v) {
				n.take(g, m, Latest{rapid.Int64Range(-1e12, 2e12).Draw(t, "at"), v})
			}
		}
		var want []Latest
		for _, l := range n.All() {
			want = append(want, l)
		}
		back, err := decodeNewest(n.encode(), func(wire.SchemaID) (*wire.Schema, error) { return sc, nil })
		if err != nil {
			t.Fatal(err)
		}
		var got []Latest
		for _, l := range back.All() {
			got = append(got, l)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	})
}

func TestHourlyValuesComeBackAsTheyWere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sc := drawSchema(t)
		id := wire.SchemaIDOf(*sc)
		p := part{id: id, schema: sc, values: make([][]float64, len(sc.Metrics))}
		at := rapid.Int64Range(-1e12, 2e12).Draw(t, "at")
		for range rapid.IntRange(1, 12).Draw(t, "rows") {
			at += rapid.Int64Range(0, 2_000_000).Draw(t, "step")
			p.timesMs = append(p.timesMs, at)
			for j, m := range sc.Metrics {
				p.values[j] = append(p.values[j], drawValue(t, m.Scale))
			}
		}
		c := content{parts: []part{p}}
		want := c.rollups()
		got, err := decodeRollups(encodeRollups(want), func(wire.SchemaID) (*wire.Schema, error) { return sc, nil })
		if err != nil || len(got) != len(want) {
			t.Fatalf("%d hours of %d, %v", len(got), len(want), err)
		}
		for i := range want {
			for m, w := range want[i].values {
				g, unit := got[i].values[m], scaleOf(sc.Metrics[m].Scale).value(1)
				near := func(a, b float64) bool { return math.Abs(a-b) <= 1e-5*unit+1e-12*math.Abs(b) }
				if w.N != g.N || w.N > 0 && (g.HourMs != w.HourMs || g.Min != w.Min || g.Max != w.Max || !near(g.Median, w.Median) || !near(g.Sum, w.Sum)) {
					t.Fatalf("hour %d metric %d scale %d: got %+v, want %+v", i, m, sc.Metrics[m].Scale, g, w)
				}
			}
		}
	})
}
