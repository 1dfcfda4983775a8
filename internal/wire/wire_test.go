package wire_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"pgregory.net/rapid"

	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

func TestEveryChangeOfASealedBlockIsSeen(t *testing.T) {
	sealed := block(t, 1, wire.KindSamples, samplesPayload(t))
	if err := sealed.Verify(); err != nil {
		t.Fatal(err)
	}
	changes := map[string]func(*wire.Block){
		"sid":     func(b *wire.Block) { b.Key.SID[0]++ },
		"lane":    func(b *wire.Block) { b.Key.Lane = 2 },
		"seq":     func(b *wire.Block) { b.Key.Seq++ },
		"h64":     func(b *wire.Block) { b.Key.H64[7]++ },
		"kind":    func(b *wire.Block) { b.Kind = wire.KindEvents },
		"boot":    func(b *wire.Block) { b.Boot[0]++ },
		"mono":    func(b *wire.Block) { b.MonoMs++ },
		"wall":    func(b *wire.Block) { b.WallMs++ },
		"quality": func(b *wire.Block) { b.Quality = wire.TimeFloor },
		"schema":  func(b *wire.Block) { b.Schema[0]++ },
		"count":   func(b *wire.Block) { b.Count++ },
		"span":    func(b *wire.Block) { b.SpanMs++ },
		"payload": func(b *wire.Block) { b.Payload = append([]byte{}, b.Payload...); b.Payload[3] ^= 1 },
		"crc":     func(b *wire.Block) { b.CRC++ },
	}
	for name, change := range changes {
		b := sealed
		change(&b)
		if b.Verify() == nil {
			t.Errorf("a block with another %s verifies", name)
		}
	}
}

func TestWhatIsBeyondALimitIsRefusedBothWays(t *testing.T) {
	hello := wire.Hello{V: 1}
	with := func(fn func(*wire.Hello)) wire.Hello { h := hello; fn(&h); return h }
	long := strings.Repeat("x", 200)
	for name, v := range map[string]any{
		"version 2":       with(func(h *wire.Hello) { h.V = 2 }),
		"streams":         with(func(h *wire.Hello) { h.Streams = make([]wire.SIDRange, wire.MaxStreams+1) }),
		"runs":            with(func(h *wire.Hello) { h.Runs = make([]wire.RunID, wire.MaxRuns+1) }),
		"long name":       with(func(h *wire.Hello) { h.Inventory.Name = long }),
		"not UTF-8":       with(func(h *wire.Hello) { h.Inventory.Serial = "\xff" }),
		"stream backward": with(func(h *wire.Hello) { h.Streams = []wire.SIDRange{{Lo: 5, Hi: 4}} }),
		"lane":            wire.Ack{Keys: []wire.Key{{Lane: 3, Seq: 1}}},
		"seq 0":           wire.Ack{Keys: []wire.Key{{}}},
		"keys":            wire.Ack{Keys: make([]wire.Key, wire.MaxKeys+1)},
		"payload":         wire.Block{Key: wire.Key{Seq: 1}, Kind: 1, Count: 1, Payload: make([]byte, wire.MaxPayloadBytes+1)},
		"blocks":          wire.Data{Blocks: make([]wire.Block, wire.MaxBlocks+1)},
		"message":         wire.Want{Desired: make([]byte, wire.MaxMessageBytes)},
		"scale":           wire.Schema{Metrics: []wire.Metric{{Name: "a", Scale: 10}}},
		"window":          wire.Welcome{V: 1, WindowCount: -1},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := wire.Encode(v); err == nil {
				t.Error("was encoded")
			}
			raw, err := cbor.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			for _, g := range goldens(t) {
				if strings.EqualFold(strings.TrimPrefix(typeName(v), "wire."), strings.SplitN(g.name, "-", 2)[0]) {
					if _, err := g.decode(raw); err == nil {
						t.Error("was decoded")
					}
				}
			}
		})
	}
	_, err := wire.Encode(wire.Hello{V: 2})
	if !errors.Is(err, wire.ErrVersion) {
		t.Errorf("version 2: %v", err)
	}
}

func typeName(v any) string {
	switch v.(type) {
	case wire.Hello:
		return "hello"
	case wire.Ack:
		return "ack"
	case wire.Block:
		return "block"
	case wire.Data:
		return "data"
	case wire.Want:
		return "want"
	case wire.Schema:
		return "schema"
	}
	return "welcome"
}

// TestHostileBytesAreRefused lists forms of CBOR that the protocol has no use
// for.
func TestHostileBytesAreRefused(t *testing.T) {
	for name, text := range map[string]string{
		"empty":             "",
		"not a map":         "01",
		"trailing byte":     "a10140" + "00",
		"indefinite length": "bf0140ff",
		"duplicate key":     "a201400140",
		"tag":               "c1a10140",
		"short id":          "a1014700000000000000",
		"long id":           "a10149000000000000000000",
		"text for id":       "a101686162636465666768",
		"huge array":        "a1039b7fffffffffffffff",
		"deep nesting":      "a101" + strings.Repeat("81", 40) + "00",
		"half a message":    "a10148010203",
	} {
		data, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if ack, err := wire.Decode[wire.Ack](data); err == nil {
			t.Errorf("%s: decoded to %+v", name, ack)
		} else if ack.Keys != nil || ack.LSN != 0 {
			t.Errorf("%s: a value came with the error", name)
		}
	}
}

// TestAMessageOfALaterRevisionIsUnderstood is why unknown keys are ignored.
func TestAMessageOfALaterRevisionIsUnderstood(t *testing.T) {
	raw, err := cbor.Marshal(map[int]any{1: 1, 5: 4096, 99: "new"})
	if err != nil {
		t.Fatal(err)
	}
	w, err := wire.Decode[wire.Welcome](raw)
	if err != nil || w.WindowBytes != 4096 {
		t.Errorf("got %+v, %v", w, err)
	}
}

// TestRoundedSamplesSurviveExactly draws tables of values and holes.
func TestRoundedSamplesSurviveExactly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows := rapid.IntRange(1, 70).Draw(t, "rows")
		var s wire.Samples
		for i := range rows {
			s.TimesMs = append(s.TimesMs, int64(i)*10000+rapid.Int64Range(-50, 50).Draw(t, "jitter"))
		}
		for range rapid.IntRange(0, 9).Draw(t, "metrics") {
			scale := rapid.Int8Range(-9, 9).Draw(t, "scale")
			s.Schema.Metrics = append(s.Schema.Metrics, wire.Metric{Name: "m", Scale: scale})
			column := make([]float64, rows)
			limit := rapid.SampledFrom([]int64{0, 5, 1000, 1<<51 - 1}).Draw(t, "limit")
			if scale < 0 { // a float64 is exact below 2^53 only
				limit = min(limit, (1<<53-1)/int64(math.Pow10(-int(scale))))
			}
			for i := range column {
				k := rapid.Int64Range(-limit, limit).Draw(t, "k")
				column[i] = float64(k) * math.Pow10(max(0, -int(scale))) / math.Pow10(max(0, int(scale)))
				if rapid.IntRange(0, 9).Draw(t, "hole") == 0 {
					column[i] = math.NaN()
				}
			}
			s.Values = append(s.Values, column)
		}
		payload, err := wire.EncodeSamples(s)
		if err != nil {
			t.Fatal(err)
		}
		got, err := wire.DecodeSamples(s.Schema, payload, rows)
		if err != nil {
			t.Fatal(err)
		}
		for i := range s.Values {
			for j, want := range s.Values[i] {
				if v := got.Values[i][j]; v != want && !(math.IsNaN(v) && math.IsNaN(want)) {
					t.Fatalf("metric %d row %d: %v, want %v", i, j, v, want)
				}
			}
		}
		for i, want := range s.TimesMs {
			if got.TimesMs[i] != want {
				t.Fatalf("time %d: %d, want %d", i, got.TimesMs[i], want)
			}
		}
	})
}

// TestWhatEncodesDecodes draws values that nobody rounded.
func TestWhatEncodesDecodes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		scale := rapid.Int8Range(-9, 9).Draw(t, "scale")
		s := wire.Samples{Schema: wire.Schema{Metrics: []wire.Metric{{Name: "m", Scale: scale}}}, Values: [][]float64{rapid.SliceOfN(rapid.Float64(), 1, 20).Draw(t, "values")}}
		s.TimesMs = rapid.SliceOfN(rapid.Int64(), len(s.Values[0]), len(s.Values[0])).Draw(t, "times")
		payload, err := wire.EncodeSamples(s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := wire.DecodeSamples(s.Schema, payload, len(s.TimesMs)); err != nil {
			t.Fatal(err)
		}
	})
}

func TestWhatIsNotANumberTravelsAsMissing(t *testing.T) {
	s := wire.Samples{Schema: wire.Schema{Metrics: []wire.Metric{{Name: "m"}}}, TimesMs: []int64{0, 1, 2}, Values: [][]float64{{math.Inf(1), 1e300, 7}}}
	payload, err := wire.EncodeSamples(s)
	if err != nil {
		t.Fatal(err)
	}
	got, err := wire.DecodeSamples(s.Schema, payload, 3)
	if err != nil || !math.IsNaN(got.Values[0][0]) || !math.IsNaN(got.Values[0][1]) || got.Values[0][2] != 7 {
		t.Errorf("got %v, %v", got.Values, err)
	}
}

// TestAMinuteOf30SensorsFitsIn300Bytes is what flash and links are planned for.
func TestAMinuteOf30SensorsFitsIn300Bytes(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var s wire.Samples
	for i := range 6 {
		s.TimesMs = append(s.TimesMs, int64(i)*10000+int64(rng.IntN(5)))
	}
	// Eight temperatures, six loads, four fans, six powers, two byte counters,
	// four that do not change.
	for i, kind := range []struct {
		n                 int
		scale             int8
		base, noise, rise float64
	}{{8, 1, 55, 0.4, 0}, {6, 1, 30, 4, 0}, {4, 0, 1800, 12, 0}, {6, 2, 11, 0.3, 0}, {2, 0, 5e9, 2e6, 3e7}, {4, 0, 3, 0, 0}} {
		for range kind.n {
			s.Schema.Metrics = append(s.Schema.Metrics, wire.Metric{Name: string(rune('a' + i)), Scale: kind.scale})
			column := make([]float64, 6)
			for j := range column {
				column[j] = kind.base + rng.NormFloat64()*kind.noise + float64(j)*kind.rise
			}
			s.Values = append(s.Values, column)
		}
	}
	payload, err := wire.EncodeSamples(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes for 30 sensors and 6 samples", len(payload))
	if len(payload) > 300 {
		t.Errorf("%d bytes", len(payload))
	}
}

func TestTextsOfEventsAreMadeSendable(t *testing.T) {
	payload, err := wire.EncodeEvents([]wire.Event{{Type: "x", Text: "bad \xff" + strings.Repeat("ü", 2000)}})
	if err != nil {
		t.Fatal(err)
	}
	events, err := wire.DecodeEvents(payload)
	if err != nil || len(events[0].Text) > 1024 || !strings.HasPrefix(events[0].Text, "bad �ü") {
		t.Errorf("got %d bytes, %v", len(events[0].Text), err)
	}
}

func TestClientIDsNameBoxAndProcess(t *testing.T) {
	id := identity.NewID()
	got, err := wire.ParseClientID(id, wire.ClientID(id, sid))
	if err != nil || got != sid {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range []string{"", string(id), string(id) + ":", string(id) + ":0102", wire.ClientID(identity.NewID(), sid), wire.ClientID(id, sid) + "00", strings.ToUpper(wire.ClientID(id, wire.SID{0xab}))} {
		if _, err := wire.ParseClientID(id, bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

// FuzzMessage: what decodes has one encoding, and that decodes to the same.
func FuzzMessage(f *testing.F) {
	all := goldens(f)
	for i, g := range all {
		f.Add(byte(i), readGolden(f, g.name))
	}
	f.Fuzz(func(t *testing.T, which byte, data []byte) {
		g := all[int(which)%len(all)]
		v, err := g.decode(data)
		if err != nil {
			return
		}
		once, err := wire.Encode(v)
		if err != nil {
			t.Fatalf("decoded but does not encode: %v", err)
		}
		again, err := g.decode(once)
		if err != nil {
			t.Fatalf("encoded but does not decode: %v", err)
		}
		twice, err := wire.Encode(again)
		if err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("two encodings: %x and %x, %v", once, twice, err)
		}
	})
}

// FuzzPayload: sealed payloads that decode encode to the very same bytes.
func FuzzPayload(f *testing.F) {
	f.Add(byte(0), 4, samplesPayload(f))
	f.Add(byte(1), 1, eventsPayload(f))
	f.Add(byte(2), 1, resultsPayload(f))
	f.Add(byte(3), 1, gapPayload(f))
	f.Fuzz(func(t *testing.T, kind byte, n int, data []byte) {
		var again []byte
		var err error
		switch kind % 4 {
		case 0:
			var s wire.Samples
			if s, err = wire.DecodeSamples(schema, data, n); err == nil {
				again, err = wire.EncodeSamples(s)
			}
		case 1:
			var e []wire.Event
			if e, err = wire.DecodeEvents(data); err == nil {
				again, err = wire.EncodeEvents(e)
			}
		case 2:
			var r []wire.Result
			if r, err = wire.DecodeResults(data); err == nil {
				again, err = wire.EncodeResults(r)
			}
		case 3:
			var g wire.Gap
			if g, err = wire.DecodeGap(data); err == nil {
				again, err = wire.EncodeGap(g)
			}
		}
		if again == nil && err != nil {
			return
		}
		if err != nil || !bytes.Equal(again, data) {
			t.Fatalf("decodes, and encodes to %x, %v", again, err)
		}
	})
}
