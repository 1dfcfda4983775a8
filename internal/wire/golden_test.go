package wire_test

import (
	"bytes"
	"encoding/hex"
	"flag"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/internal/wire"
)

var update = flag.Bool("update", false, "write the golden files of this version")

var (
	sid   = wire.SID{1, 2, 3, 4, 5, 6, 7, 8}
	boot  = wire.BootID{0xb0, 1, 1, 1, 1, 1, 1, 1}
	runID = wire.RunID{0xaa, 1, 2, 3, 4, 5, 6, 7}
	care  = wire.Care{
		V: 1, Prior: []byte(`{"sku":"ACME X1","boxes":12}`), TripC: 95, RoomC: 21.5, NeighbourC: 24.25, AtMs: 1700000040000,
		Changes: []wire.CareChange{{At: 1699990000, Kind: "cleaned", Detail: "filter washed"}, {At: 1699995000, Kind: "visit"}},
		Mutes:   []wire.CareMute{{Family: "ambient", Until: 1701000000, Why: "accepted"}},
	}
	schema = wire.Schema{Metrics: []wire.Metric{{Name: "cpu.temp", Scale: 1}, {Name: "fan.rpm", Scale: 0}, {Name: "disk.bytes", Scale: -3}}}
)

func samplesPayload(t testing.TB) []byte {
	t.Helper()
	p, err := wire.EncodeSamples(wire.Samples{Schema: schema, TimesMs: []int64{0, 10000, 20001, 30000}, Values: [][]float64{
		{61.5, 61.7, math.NaN(), 60.9},
		{1800, 1800, 1800, 1800},
		{math.NaN(), math.NaN(), math.NaN(), math.NaN()},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func eventsPayload(t testing.TB) []byte {
	t.Helper()
	p, err := wire.EncodeEvents([]wire.Event{{MonoMs: 5, WallMs: 1700000000000, Type: wire.EventAlarm, Text: "too hot", Body: []byte(`{"kind":"hot","active":true}`)}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func resultsPayload(t testing.TB) []byte {
	t.Helper()
	p, err := wire.EncodeResults([]wire.Result{{WallMs: 1700000000000, Input: "cam1", Pipeline: "plates", Item: "f-1.jpg", Text: "B-XY 12", Want: "B-XY 12", ScorePPM: 991234, LatencyUs: 41000, Models: []string{"det:1.4.2", "rec:1.4.2"}, Cursor: 41}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func gapPayload(t testing.TB) []byte {
	t.Helper()
	p, err := wire.EncodeGap(wire.Gap{SID: sid, Lane: 1, From: 3, To: 9, Count: 7, Reason: wire.ReasonSpace, Also: []wire.GapRange{{SID: wire.SID{9}, Lane: 1, From: 1, To: 4, Count: 4}}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func block(t testing.TB, lane wire.Lane, kind wire.Kind, payload []byte) wire.Block {
	t.Helper()
	b := wire.Block{Key: wire.Key{SID: sid, Lane: lane, Seq: 42}, Kind: kind, Boot: boot, MonoMs: 360000, WallMs: 1700000000000, Quality: wire.TimeSynced, Count: 1, Payload: payload}
	if kind == wire.KindSamples {
		b.Schema, b.Count, b.SpanMs = wire.SchemaIDOf(schema), 4, 30000
	}
	if err := wire.Seal(&b); err != nil {
		t.Fatal(err)
	}
	return b
}

// golden is one message or payload with its decoder.
type golden struct {
	name   string
	value  any
	decode func([]byte) (any, error)
}

func decodeAs[T any](data []byte) (any, error) { return wire.Decode[T](data) }

func head(seq uint64, fill byte) wire.AuditHead {
	return wire.AuditHead{Seq: seq, Hash: bytes.Repeat([]byte{fill}, 32), UnixS: 1700000000, Key: bytes.Repeat([]byte{1}, 8), Sig: bytes.Repeat([]byte{fill}, 64)}
}

func goldens(t testing.TB) []golden {
	samples := block(t, wire.LaneTelemetry, wire.KindSamples, samplesPayload(t))
	events := block(t, wire.LaneEvents, wire.KindEvents, eventsPayload(t))
	results := block(t, wire.LaneTelemetry, wire.KindResults, resultsPayload(t))
	gap := block(t, wire.LaneEvents, wire.KindGap, gapPayload(t))
	exact := goldenPack(t, "pack-exact", pack(t, schema, minutes(t, 11)))
	byMember := goldenPack(t, "pack-member", coarsen(t, schema, wire.GrainMember, exact))
	byTen := goldenPack(t, "pack-ten", coarsen(t, schema, wire.GrainTen, exact))
	buffer := wire.Buffer{Blocks: 3, Bytes: 900, Window: 10, OldestMs: 1700000000000, DroppedBlocks: 1}
	return []golden{
		{"hello", wire.Hello{
			V: 1, Nonce: wire.Nonce{7}, SID: sid, Conn: 3, Clock: wire.Clock{Boot: boot, MonoMs: 400000, WallMs: 1700000040000, Quality: wire.TimeSynced},
			Inventory: wire.Inventory{Name: "till-3", Class: "itx", Vendor: "ACME", Product: "X1", Serial: "42", Arch: "arm64", CPUs: 4, MemoryBytes: 8 << 30, Agent: "0.1.0", Simulated: true, Slot: "a"},
			Running:   wire.Running{Generation: 9, Models: []wire.RunningModel{{Name: "vad", Version: "1", Digest: "sha256:00"}}},
			Buffer:    buffer, Streams: []wire.SIDRange{{SID: sid, Lane: 1, Lo: 3, Hi: 9, Count: 7}}, Runs: []wire.RunID{runID},
			Heads: []wire.AuditHead{head(12, 0xab), head(40, 0xcd)}, Starts: 12, Answers: 1 << 62,
		}, decodeAs[wire.Hello]},
		{"welcome", wire.Welcome{V: 1, Nonce: wire.Nonce{7}, Run: runID, Valid: []wire.RunLSN{{Run: runID, LSN: 77}}, WindowBytes: 65536, WindowCount: 8, DrainMs: 1500, Desired: []byte(`{"payload":""}`), Schemas: []wire.SchemaID{wire.SchemaIDOf(schema)}, WallMs: 1700000040000, LiveMs: 60000, BacklogRate: 4096, Quiet: []wire.Quiet{{InMs: 1000, ForMs: 3600000}}, Head: []byte(`{"payload":""}`)}, decodeAs[wire.Welcome]},
		{"pack-exact", exact, decodeAs[wire.Pack]},
		{"pack-member", byMember, decodeAs[wire.Pack]},
		{"pack-ten", byTen, decodeAs[wire.Pack]},
		{"data-packs", wire.Data{Packs: []wire.Pack{exact, byTen}}, decodeAs[wire.Data]},
		{"data", wire.Data{Blocks: []wire.Block{events, samples}, Schemas: []wire.Schema{schema}, Behind: buffer}, decodeAs[wire.Data]},
		{"ack", wire.Ack{Run: runID, LSN: 78, Keys: []wire.Key{events.Key, samples.Key}, Refused: []wire.Key{gap.Key}}, decodeAs[wire.Ack]},
		{"want", wire.Want{Desired: []byte(`{"payload":""}`)}, decodeAs[wire.Want]},
		{"cmd", wire.Cmd{LiveMs: 60000, Hello: true, Question: 1 << 62}, decodeAs[wire.Cmd]},
		{"care", care, decodeAs[wire.Care]},
		{"care-empty", wire.Care{V: 1}, decodeAs[wire.Care]},
		{"care-mates", wire.Care{V: 1, Mates: 4, MatesRise: 0.125}, decodeAs[wire.Care]},
		{"live", wire.Live{WallMs: 1700000040000, Samples: []wire.LiveSample{{Name: "cpu.temp", Value: 61.5}}, Buffer: buffer}, decodeAs[wire.Live]},
		{"will", wire.Will{SID: sid, Conn: 3}, decodeAs[wire.Will]},
		{"schema", schema, decodeAs[wire.Schema]},
		{"block-samples", samples, decodeAs[wire.Block]},
		{"block-events", events, decodeAs[wire.Block]},
		{"block-results", results, decodeAs[wire.Block]},
		{"block-gap", gap, decodeAs[wire.Block]},
	}
}

// minutes are n blocks, one after another.
func minutes(t testing.TB, n int) []wire.Block {
	t.Helper()
	var blocks []wire.Block
	for i := range int64(n) {
		b := block(t, wire.LaneTelemetry, wire.KindSamples, samplesPayload(t))
		b.Key.Seq, b.MonoMs, b.WallMs = b.Key.Seq+uint64(i), b.MonoMs+60_001*i, b.WallMs+60_000*i
		if err := wire.Seal(&b); err != nil {
			t.Fatal(err)
		}
		blocks = append(blocks, b)
	}
	return blocks
}

// goldenPack is the pack in the golden file. Compression may differ from
// version to version of the library; what is compressed must be that of fresh.
func goldenPack(t testing.TB, name string, fresh wire.Pack) wire.Pack {
	t.Helper()
	if *update {
		return fresh
	}
	p, err := wire.Decode[wire.Pack](readGolden(t, name))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(wire.RawOf(t, p), wire.RawOf(t, fresh)) {
		t.Errorf("%s has another payload:\n%x\nwant\n%x", name, wire.RawOf(t, fresh), wire.RawOf(t, p))
	}
	fresh.Payload = p.Payload
	return wire.Reseal(fresh)
}

func goldenPath(name string) string { return filepath.Join("testdata", "v1", name+".hex") }

// TestBytesOfVersion1NeverChange holds the encoding of every message and kind
// of block, for boxes in the field speak it for years.
func TestBytesOfVersion1NeverChange(t *testing.T) {
	for _, g := range goldens(t) {
		t.Run(g.name, func(t *testing.T) {
			got, err := wire.Encode(g.value)
			if err != nil {
				t.Fatal(err)
			}
			if *update {
				writeGolden(t, g.name, got)
			}
			want := readGolden(t, g.name)
			if !bytes.Equal(got, want) {
				t.Errorf("encodes to\n%x\nwant\n%x", got, want)
			}
			value, err := g.decode(want)
			if err != nil {
				t.Fatal(err)
			}
			again, err := wire.Encode(value)
			if err != nil || !bytes.Equal(again, want) {
				t.Errorf("decodes and encodes to\n%x, %v\nwant\n%x", again, err, want)
			}
			if v, ok := value.(interface{ Verify() error }); ok && v.Verify() != nil {
				t.Errorf("golden %s does not verify: %v", g.name, v.Verify())
			}
		})
	}
}

func writeGolden(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(goldenPath(name)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(goldenPath(name), []byte(hex.EncodeToString(data)+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

func readGolden(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(goldenPath(name))
	if err != nil {
		t.Fatal(err)
	}
	data, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestPayloadsReadBack(t *testing.T) {
	s, err := wire.DecodeSamples(schema, samplesPayload(t), 4)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(s.TimesMs, []int64{0, 10000, 20001, 30000}) || s.Values[0][1] != 61.7 || !math.IsNaN(s.Values[0][2]) || s.Values[1][3] != 1800 || !math.IsNaN(s.Values[2][0]) {
		t.Errorf("samples: %+v", s)
	}
	if e, err := wire.DecodeEvents(eventsPayload(t)); err != nil || e[0].Text != "too hot" {
		t.Errorf("events: %+v, %v", e, err)
	}
	if r, err := wire.DecodeResults(resultsPayload(t)); err != nil || r[0].Models[1] != "rec:1.4.2" {
		t.Errorf("results: %+v, %v", r, err)
	}
	g, err := wire.DecodeGap(gapPayload(t))
	if err != nil || g.Dropped() != 11 {
		t.Errorf("gap: %+v, %v", g, err)
	}
}
