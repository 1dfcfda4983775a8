package store

import (
	"encoding/binary"
	"math"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/edgeherd/edgeherd/internal/wire"
)

// drawPack is a pack of blocks of rising numbers as its delivery, placed with
// clocks that were corrected by the way.
func drawPack(t *rapid.T, sc *wire.Schema) *Delivery {
	var blocks []wire.Block
	d := &Delivery{Schema: sc}
	at, shift := int64(1000), int64(2e12)
	for i := range rapid.IntRange(1, 12).Draw(t, "members") {
		s := wire.Samples{Schema: *sc, Values: make([][]float64, len(sc.Metrics))}
		for row := range rapid.IntRange(1, 9).Draw(t, "rows") {
			s.TimesMs = append(s.TimesMs, int64(row)*rapid.Int64Range(9_990, 10_010).Draw(t, "step"))
		}
		for j, m := range sc.Metrics {
			still := rapid.Bool().Draw(t, "still")
			for row := range s.TimesMs {
				v := drawValue(t, m.Scale)
				if still && row > 0 {
					v = s.Values[j][0]
				}
				s.Values[j] = append(s.Values[j], v)
			}
		}
		payload, err := wire.EncodeSamples(s)
		if err != nil {
			t.Fatal(err)
		}
		b := wire.Block{Key: wire.Key{SID: wire.SID{1}, Lane: 1, Seq: uint64(i + 1)}, Kind: wire.KindSamples, Boot: wire.BootID{2}, MonoMs: at, WallMs: at,
			Quality: wire.TimeSynced, Schema: wire.SchemaIDOf(*sc), Count: uint32(len(s.TimesMs)), SpanMs: s.TimesMs[len(s.TimesMs)-1] - s.TimesMs[0], Payload: payload}
		if err := wire.Seal(&b); err != nil {
			t.Fatal(err)
		}
		blocks = append(blocks, b)
		shift += rapid.SampledFrom([]int64{0, 0, -3, 500}).Draw(t, "correction")
		d.Starts = append(d.Starts, at+shift)
		at += rapid.Int64Range(60_000, 400_000).Draw(t, "pause")
	}
	p, err := wire.PackBlocks(*sc, blocks)
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.Samples(*sc)
	if err != nil {
		t.Fatal(err)
	}
	d.Pack, d.Samples, d.StartMs = &p, &s, d.Starts[0]
	return d
}

// TestASealedPackIsReadAsItsSamples: all, and some columns only.
func TestASealedPackIsReadAsItsSamples(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sc := drawSchema(t)
		d := drawPack(t, sc)
		use := make([]bool, len(d.Starts))
		for i := range use {
			use[i] = true
		}
		want := d.opened(use).exact(*d.Samples)
		piece := want.encodeSealed(d.Pack.Payload)
		if len(piece) == 0 || piece[0] != formSealed {
			t.Fatalf("the piece is %x", piece)
		}
		schema := func(wire.SchemaID) (*wire.Schema, error) { return sc, nil }
		var all, some content
		if err := (&reading{schema: schema}).read(&all, piece); err != nil {
			t.Fatal(err)
		}
		samePart(t, all.parts[0], want)
		one := rapid.IntRange(0, len(sc.Metrics)-1).Draw(t, "one")
		if err := (&reading{schema: schema, want: []string{sc.Metrics[one].Name, "none", sc.Metrics[0].Name}}).read(&some, piece); err != nil {
			t.Fatal(err)
		}
		got := some.parts[0].values
		if got[1] != nil {
			t.Fatal("values of a metric that there is not")
		}
		sameColumn(t, got[2], want.values[0])
		for j, m := range sc.Metrics { // the first of that name
			if m.Name == sc.Metrics[one].Name {
				sameColumn(t, got[0], want.values[j])
				break
			}
		}
		spoilt := append([]byte{}, piece...)
		spoilt[rapid.IntRange(1, len(spoilt)-1).Draw(t, "at")] ^= byte(rapid.IntRange(1, 255).Draw(t, "bits"))
		_ = (&reading{schema: schema}).read(&content{}, spoilt) // an error or other values
	})
}

// TestARowIsSealedOnlyWhole: of a pack of which some members are stored
// already, the others alone are written.
func TestARowIsSealedOnlyWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sc := drawSchema(t)
		d := drawPack(t, sc)
		use := make([]bool, len(d.Starts))
		for i := range use {
			use[i] = rapid.IntRange(0, 3).Draw(t, "new") > 0
		}
		use[rapid.IntRange(0, len(use)-1).Draw(t, "one")] = true
		rows, err := d.packRows(use)
		if err != nil || len(rows) != 1 {
			t.Fatalf("%d rows, %v", len(rows), err)
		}
		var got content
		if err := (&reading{schema: func(wire.SchemaID) (*wire.Schema, error) { return sc, nil }}).read(&got, rows[0].body); err != nil {
			t.Fatal(err)
		}
		samePart(t, got.parts[0], d.opened(use).exact(*d.Samples))
	})
}

func samePart(t *rapid.T, got, want part) {
	t.Helper()
	if !reflect.DeepEqual(got.members, want.members) || !reflect.DeepEqual(got.timesMs, want.timesMs) || got.sid != want.sid || got.lane != want.lane || got.boot != want.boot || got.id != want.id {
		t.Fatalf("got %+v\nwant %+v", got, want)
	}
	for j := range want.values {
		sameColumn(t, got.values[j], want.values[j])
	}
}

// TestNumbersArePassedOver compares with reading them.
func TestNumbersArePassedOver(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b []byte
		ends := []int{0}
		for range rapid.IntRange(0, 60).Draw(t, "numbers") {
			b = binary.AppendVarint(b, rapid.Int64().Draw(t, "number"))
			ends = append(ends, len(b))
		}
		for n, end := range ends {
			if got := varints(b, n); got != end {
				t.Fatalf("%d numbers in %x: %d bytes, want %d", n, b, got, end)
			}
		}
		if got := varints(b, len(ends)); got != math.MaxInt {
			t.Fatalf("one number too many: %d bytes", got)
		}
	})
}
