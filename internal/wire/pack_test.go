package wire_test

import (
	"bytes"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"

	"github.com/edgeherd/edgeherd/internal/wire"
)

// run makes n blocks of one life as a box does, one after another.
func run(t rapid.TB, rng *rand.Rand, schema wire.Schema, n int) []wire.Block {
	t.Helper()
	var blocks []wire.Block
	b := wire.Block{Key: wire.Key{SID: sid, Lane: 1, Seq: 41}, Kind: wire.KindSamples, Boot: boot, MonoMs: 360_000, WallMs: 1700000000000, Schema: wire.SchemaIDOf(schema)}
	for range n {
		rows := 1 + rng.IntN(7)
		s := wire.Samples{Schema: schema}
		for i := range rows {
			s.TimesMs = append(s.TimesMs, int64(i)*10_000+rng.Int64N(5))
		}
		for _, m := range schema.Metrics {
			column, kind := make([]float64, rows), rng.IntN(5)
			for i := range column {
				switch {
				case kind == 0 || kind == 1 && rng.IntN(2) == 0:
					column[i] = math.NaN()
				case kind == 2:
					column[i] = 3 * math.Pow10(max(0, -int(m.Scale)))
				default:
					p := math.Pow10(int(m.Scale))
					column[i] = math.Round(rng.NormFloat64()*900*p) / p
				}
			}
			s.Values = append(s.Values, column)
		}
		payload, err := wire.EncodeSamples(s)
		if err != nil {
			t.Fatal(err)
		}
		b.Payload, b.Count, b.SpanMs, b.Quality = payload, uint32(rows), s.TimesMs[rows-1]-s.TimesMs[0], wire.TimeQuality(rng.IntN(3))
		if err := wire.Seal(&b); err != nil {
			t.Fatal(err)
		}
		blocks = append(blocks, b)
		b.Key.Seq += 1 + uint64(rng.IntN(2))
		step := 60_000 + rng.Int64N(9)
		b.MonoMs, b.WallMs = b.MonoMs+step, b.WallMs+step+rng.Int64N(2)*(rng.Int64N(7)-3)
	}
	return blocks
}

func pack(t rapid.TB, schema wire.Schema, blocks []wire.Block) wire.Pack {
	t.Helper()
	p, err := wire.PackBlocks(schema, blocks)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func coarsen(t rapid.TB, schema wire.Schema, g wire.Grain, packs ...wire.Pack) wire.Pack {
	t.Helper()
	p, err := wire.Coarsen(schema, packs, g)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// overTheWire encodes and decodes.
func overTheWire(t rapid.TB, p wire.Pack) wire.Pack {
	t.Helper()
	data, err := wire.Encode(p)
	if err != nil {
		t.Fatal(err)
	}
	got, err := wire.Decode[wire.Pack](data)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, p) {
		t.Fatalf("got %+v, want %+v", got, p)
	}
	return got
}

// TestAnExactPackGivesBackTheVeryBlocks draws runs of blocks.
func TestAnExactPackGivesBackTheVeryBlocks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		blocks := run(t, rng, schema, rapid.IntRange(1, 30).Draw(t, "blocks"))
		p := overTheWire(t, pack(t, schema, blocks))
		got, err := p.Blocks(schema)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, blocks) {
			t.Fatalf("got %+v, want %+v", got, blocks)
		}
		keys := p.Keys()
		all, err := p.Samples(schema)
		if err != nil || len(keys) != len(blocks) {
			t.Fatalf("%d keys, %v", len(keys), err)
		}
		row := 0
		for i, b := range blocks {
			if keys[i] != b.Key {
				t.Fatalf("key %d is %s, want %s", i, keys[i], b.Key)
			}
			s, err := wire.DecodeSamples(schema, b.Payload, int(b.Count))
			if err != nil {
				t.Fatal(err)
			}
			for j, at := range s.TimesMs {
				if got := all.TimesMs[row]; got != b.MonoMs-blocks[0].MonoMs+at {
					t.Fatalf("row %d at %d", row, got)
				}
				if v, want := all.Values[0][row], s.Values[0][j]; v != want && !(math.IsNaN(v) && math.IsNaN(want)) {
					t.Fatalf("row %d: %v, want %v", row, v, want)
				}
				row++
			}
		}
	})
}

// TestCoarsePacksTellMinMeanMaxAndN compares coarse rows with the samples that
// they stand for, and two steps of coarsening with one.
func TestCoarsePacksTellMinMeanMaxAndN(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 2))
		blocks := run(t, rng, schema, rapid.IntRange(2, 33).Draw(t, "blocks"))
		cut := rapid.IntRange(1, len(blocks)-1).Draw(t, "cut")
		a, b := pack(t, schema, blocks[:cut]), pack(t, schema, blocks[cut:])
		byMember := overTheWire(t, coarsen(t, schema, wire.GrainMember, a, b))
		byTen := overTheWire(t, coarsen(t, schema, wire.GrainTen, coarsen(t, schema, wire.GrainMember, a), b))
		if again := coarsen(t, schema, wire.GrainTen, byMember); !reflect.DeepEqual(again, byTen) {
			t.Fatal("coarsening twice gives something else than once")
		}
		for _, p := range []wire.Pack{byMember, byTen} {
			compareCoarse(t, blocks, p)
		}
	})
}

func compareCoarse(t *rapid.T, blocks []wire.Block, p wire.Pack) {
	rows, err := p.Rows(schema)
	if err != nil {
		t.Fatal(err)
	}
	next := 0
	for _, r := range rows {
		if r.From != next {
			t.Fatalf("row from %d, want %d", r.From, next)
		}
		next = r.To
		for i := range schema.Metrics {
			low, high, total, n := math.Inf(1), math.Inf(-1), 0.0, uint32(0)
			for j := r.From; j < r.To; j++ {
				s, err := wire.DecodeSamples(schema, blocks[j].Payload, int(blocks[j].Count))
				if err != nil {
					t.Fatal(err)
				}
				had := n
				for _, v := range s.Values[i] {
					if !math.IsNaN(v) {
						low, high, total, n = min(low, v), max(high, v), total+v, n+1
					}
				}
				if got := r.N[i][j-r.From]; got != n-had {
					t.Fatalf("member %d metric %d counts %d samples, want %d", j, i, got, n-had)
				}
			}
			switch {
			case n == 0:
				if !math.IsNaN(r.Min[i]) || !math.IsNaN(r.Mean[i]) || !math.IsNaN(r.Max[i]) {
					t.Fatalf("metric %d has values of no samples", i)
				}
			case r.Min[i] != low || r.Max[i] != high || math.Abs(r.Mean[i]-total/float64(n)) > 1e-9*max(1, math.Abs(total)):
				t.Fatalf("metric %d: %v %v %v, want %v %v %v", i, r.Min[i], r.Mean[i], r.Max[i], low, total/float64(n), high)
			}
		}
	}
	if next != len(p.Members) {
		t.Fatalf("rows end at member %d of %d", next, len(p.Members))
	}
}

// TestExtremeValuesDoNotOverflowSums has as many rows as a pack may, of the
// greatest values that travel.
func TestExtremeValuesDoNotOverflowSums(t *testing.T) {
	one := wire.Schema{Metrics: []wire.Metric{{Name: "x"}}}
	const top = float64(1<<51 - 1)
	s := wire.Samples{Schema: one, Values: [][]float64{nil}}
	for i := range 512 {
		s.TimesMs = append(s.TimesMs, int64(i))
		s.Values[0] = append(s.Values[0], top)
	}
	s.Values[0][0] = -top
	payload, err := wire.EncodeSamples(s)
	if err != nil {
		t.Fatal(err)
	}
	var blocks []wire.Block
	for i := range 8 {
		b := wire.Block{Key: wire.Key{Lane: 1, Seq: uint64(i + 1)}, Kind: wire.KindSamples, Schema: wire.SchemaIDOf(one), Count: 512, Payload: payload}
		if err := wire.Seal(&b); err != nil {
			t.Fatal(err)
		}
		blocks = append(blocks, b)
	}
	rows, err := coarsen(t, one, wire.GrainTen, pack(t, one, blocks)).Rows(one)
	if err != nil {
		t.Fatal(err)
	}
	if r := rows[0]; r.Min[0] != -top || r.Max[0] != top || math.Abs(r.Mean[0]/top-(4088.0-8)/4096) > 1e-12 {
		t.Errorf("got %+v", r)
	}
}

// TestWhatDoesNotBelongTogetherIsNotPacked: a pack names the life, lane, boot
// and schema of its members once.
func TestWhatDoesNotBelongTogetherIsNotPacked(t *testing.T) {
	good := run(t, rand.New(rand.NewPCG(1, 1)), schema, 3)
	for name, change := range map[string]func(b *wire.Block){
		"life":      func(b *wire.Block) { b.Key.SID[0]++ },
		"lane":      func(b *wire.Block) { b.Key.Lane = 2 },
		"boot":      func(b *wire.Block) { b.Boot[0]++ },
		"schema":    func(b *wire.Block) { b.Schema[0]++ },
		"kind":      func(b *wire.Block) { b.Kind = wire.KindResults },
		"same seq":  func(b *wire.Block) { b.Key.Seq = good[0].Key.Seq },
		"order":     func(b *wire.Block) { b.Key.Seq = 1 },
		"a payload": func(b *wire.Block) { b.Payload = []byte{1, 2, 3} },
	} {
		blocks := append([]wire.Block{}, good...)
		change(&blocks[1])
		if err := wire.Seal(&blocks[1]); err != nil {
			t.Fatal(err)
		}
		if _, err := wire.PackBlocks(schema, blocks); err == nil {
			t.Errorf("blocks of another %s were packed", name)
		}
	}
	blocks := append([]wire.Block{}, good...)
	blocks[2].Key.H64[0]++
	if _, err := wire.PackBlocks(schema, blocks); err == nil {
		t.Error("a block with a wrong seal was packed")
	}
}

// TestEveryChangeOfAPackIsSeen: bbolt has no checksums, and a coarse pack no
// seal of its members' content.
func TestEveryChangeOfAPackIsSeen(t *testing.T) {
	exact := pack(t, schema, run(t, rand.New(rand.NewPCG(1, 1)), schema, 3))
	for _, p := range []wire.Pack{exact, coarsen(t, schema, wire.GrainTen, exact)} {
		data, err := wire.Encode(p)
		if err != nil {
			t.Fatal(err)
		}
		for i := range data {
			for bit := range 8 {
				bad := bytes.Clone(data)
				bad[i] ^= 1 << bit
				if got, err := wire.Decode[wire.Pack](bad); err == nil && got.Verify() == nil && !reflect.DeepEqual(got, p) {
					t.Fatalf("grain %d: bit %d of byte %d makes no difference", p.Grain, bit, i)
				}
			}
		}
	}
	// The wrong samples under a right CRC are seen by the keys.
	other := pack(t, schema, run(t, rand.New(rand.NewPCG(2, 2)), schema, 3))
	forged := exact
	forged.Payload, forged.Members = other.Payload, append(wire.Members{}, other.Members...)
	for i := range forged.Members {
		forged.Members[i].H64 = exact.Members[i].H64
	}
	if _, err := wire.Reseal(forged).Blocks(schema); err == nil {
		t.Error("forged samples were unpacked")
	}
}

// TestZipBombsAreRefused: what a frame expands to is known before it is
// expanded.
func TestZipBombsAreRefused(t *testing.T) {
	zip := func(raw []byte, opts ...zstd.EOption) []byte {
		enc, err := zstd.NewWriter(nil, append(opts, zstd.WithEncoderConcurrency(1))...)
		if err != nil {
			t.Fatal(err)
		}
		defer enc.Close()
		return enc.EncodeAll(raw, nil)
	}
	p := pack(t, schema, run(t, rand.New(rand.NewPCG(1, 1)), schema, 3))
	lies := zip(make([]byte, 300), zstd.WithSingleSegment(true), zstd.WithEncoderCRC(false))
	lies[5]++ // the size of the content
	for name, payload := range map[string][]byte{
		"2 GB":           zip(make([]byte, 64<<20), zstd.WithSingleSegment(true), zstd.WithEncoderCRC(false)),
		"checksum":       zip(make([]byte, 600), zstd.WithSingleSegment(true), zstd.WithEncoderCRC(true)),
		"two frames":     append(bytes.Clone(p.Payload), p.Payload...),
		"trailing byte":  append(bytes.Clone(p.Payload), 0),
		"no frame":       []byte("no frame at all"),
		"skippable":      {0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0},
		"half a frame":   p.Payload[:len(p.Payload)/2],
		"size that lies": lies,
	} {
		forged := p
		forged.Payload = payload
		if _, err := wire.Reseal(forged).Samples(schema); err == nil {
			t.Errorf("%s: was unpacked", name)
		}
	}
}

// FuzzMembers: what decodes encodes to the very same bytes.
func FuzzMembers(f *testing.F) {
	for n := range 4 {
		p := pack(f, schema, run(f, rand.New(rand.NewPCG(uint64(n), 1)), schema, 1+5*n))
		data, err := p.Members.MarshalCBOR()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var ms wire.Members
		if err := ms.UnmarshalCBOR(data); err != nil {
			if ms != nil {
				t.Fatal("a value came with the error")
			}
			return
		}
		again, err := ms.MarshalCBOR()
		var once, twice []byte
		if err == nil {
			once, twice = wire.ByteString(t, data), wire.ByteString(t, again)
		}
		if err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("decodes, and encodes to %x, %v", again, err)
		}
	})
}

// FuzzPack: payloads that decode encode to the very same bytes. The frame is
// made here, so that the fuzzer need not find zstd.
func FuzzPack(f *testing.F) {
	var packs []wire.Pack
	for n := range 3 {
		p := pack(f, schema, run(f, rand.New(rand.NewPCG(uint64(n), 3)), schema, 1+9*n))
		packs = append(packs, p, coarsen(f, schema, wire.GrainMember, p), coarsen(f, schema, wire.GrainTen, p))
	}
	for i, p := range packs {
		f.Add(byte(i), wire.RawOf(f, p))
	}
	f.Fuzz(func(t *testing.T, which byte, raw []byte) {
		p := packs[int(which)%len(packs)]
		p, ok := wire.WithRaw(p, raw)
		if !ok {
			return
		}
		again, err := wire.EncodeRaw(p, schema)
		if err != nil {
			return
		}
		if !bytes.Equal(again, raw) {
			t.Fatalf("decodes, and encodes to %x", again)
		}
	})
}

func BenchmarkPackSamples(b *testing.B) {
	s := minute()
	payload, err := wire.EncodeSamples(s)
	if err != nil {
		b.Fatal(err)
	}
	var blocks []wire.Block
	for i := range 10 {
		blk := wire.Block{Key: wire.Key{SID: sid, Lane: 1, Seq: uint64(i + 1)}, Kind: wire.KindSamples, Boot: boot, MonoMs: int64(i) * 60000, Schema: wire.SchemaIDOf(s.Schema), Count: 6, Payload: payload}
		if err := wire.Seal(&blk); err != nil {
			b.Fatal(err)
		}
		blocks = append(blocks, blk)
	}
	p := pack(b, s.Schema, blocks)
	for name, fn := range map[string]func() error{
		"samples": func() error { _, err := p.Samples(s.Schema); return err },
		"blocks":  func() error { _, err := p.Blocks(s.Schema); return err },
		"pack":    func() error { _, err := wire.PackBlocks(s.Schema, blocks); return err },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := fn(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(60*len(s.Schema.Metrics)), "ns/sample")
		})
	}
}

// minute is six rows of thirty sensors.
func minute() wire.Samples {
	rng := rand.New(rand.NewPCG(3, 3))
	var s wire.Samples
	for i := range 6 {
		s.TimesMs = append(s.TimesMs, int64(i)*10_000+rng.Int64N(7))
	}
	for i := range 30 {
		s.Schema.Metrics = append(s.Schema.Metrics, wire.Metric{Name: "metric" + string(rune('a'+i)), Scale: 2})
		column, v := make([]float64, 6), 61.0
		for j := range column {
			v += rng.NormFloat64() * 0.25
			column[j] = math.Round(v*100) / 100
		}
		s.Values = append(s.Values, column)
	}
	return s
}
