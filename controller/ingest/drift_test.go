package ingest_test

import (
	"math"
	"testing"

	"github.com/edgeherd/edgeherd/controller/ingest"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/drift"
	"github.com/edgeherd/edgeherd/internal/wire"
)

const hourMs = int64(3_600_000)

// nowHour is the hour of now, as its item says it.
const nowHour = "2027-01-15T08"

func sketch(items int) drift.Sketch {
	var s drift.Sketch
	for i := range items {
		s.Item(1)
		s.Answer(0.9, math.NaN(), 0)
		s.Frame(float64(i%200), 300)
	}
	return s
}

func driftResult(item, text string, models ...string) wire.Result {
	return wire.Result{WallMs: now - 60_000, Input: "door", Pipeline: drift.Pipeline, Item: item, Text: text, Models: models}
}

func resultBlock(seq uint64, rs ...wire.Result) wire.Block {
	payload, err := wire.EncodeResults(rs)
	if err != nil {
		panic(err)
	}
	return block(seq, func(b *wire.Block) {
		b.Kind, b.Count, b.SpanMs, b.Payload = wire.KindResults, uint32(len(rs)), 1000, payload
	})
}

// streams are the sketches of version 1 of ocr; those of an hour are told from
// the reference by a first hour that is a week older.
func streams(t *testing.T, w *world) []store.DriftStream {
	t.Helper()
	out, err := w.store.Drift(ctx, store.DriftQuery{Model: "ocr", Version: "1"})
	check(t, err)
	return out
}

// TestSketchesAreNoResults: they have a table of their own, count once, and are
// not among what people look at.
func TestSketchesAreNoResults(t *testing.T) {
	w := running(t)
	b := resultBlock(1,
		driftResult(nowHour, sketch(20).Text(), "ocr:1"), driftResult(nowHour, sketch(10).Text(), "ocr:1"),
		wire.Result{WallMs: now - 60_000, Input: "door", Pipeline: "faces", Item: "i", Text: "face", Models: []string{"ocr:1"}})
	for range 2 {
		check(t, w.deliver(boxA, wire.TopicData, wire.Data{Blocks: []wire.Block{b}}))
	}
	rs, err := w.store.Results(ctx, boxA, 10)
	if err != nil || len(rs) != 1 || rs[0].Pipeline != "faces" {
		t.Errorf("results %+v, %v", rs, err)
	}
	got, err := w.store.Box(ctx, boxA, 0)
	if err != nil || got.Reads.Total != 1 {
		t.Errorf("counted %+v, %v", got.Reads, err)
	}
	all := streams(t, w)
	if len(all) != 1 || all[0].Reference.Items != 30 || all[0].Box != boxA || all[0].Name != "a" || all[0].Input != "door" || all[0].FirstMs != now/hourMs*hourMs {
		t.Errorf("streams %+v", all)
	}
}

// TestHostileSketchesAreRefusedAndCounted, and keep no other result away.
func TestHostileSketchesAreRefusedAndCounted(t *testing.T) {
	huge := sketch(20)
	huge.Score[3] = math.MaxUint64
	odd := sketch(20)
	odd.Found[5] = 7
	good := sketch(5).Text()
	nameless := driftResult(nowHour, good, "ocr:1")
	nameless.Input = ""
	bad := []wire.Result{
		driftResult(nowHour, "", "ocr:1"), driftResult(nowHour, "AAAA", "ocr:1"), driftResult(nowHour, good+"AAAA", "ocr:1"),
		driftResult(nowHour, "not base64", "ocr:1"), driftResult(nowHour, huge.Text(), "ocr:1"), driftResult(nowHour, odd.Text(), "ocr:1"),
		driftResult("yesterday", good, "ocr:1"), driftResult(nowHour, good, "ocr:1", "ocr:2"), driftResult(nowHour, good),
		driftResult(nowHour, good, "ocr"), driftResult(nowHour, good, ":1"),
		driftResult(nowHour, good, "ocr:\x00"), nameless,
	}
	w := running(t)
	check(t, w.deliver(boxA, wire.TopicData, wire.Data{Blocks: []wire.Block{resultBlock(1, append(bad,
		driftResult(nowHour, good, "ocr:1"), wire.Result{WallMs: now - 60_000, Input: "door", Item: "i", Models: []string{}})...)}}))
	rs, err := w.store.Results(ctx, boxA, 100)
	if all := streams(t, w); err != nil || len(rs) != 1 || len(all) != 1 || all[0].Reference.Items != 5 {
		t.Errorf("results %+v, streams %+v, %v", rs, all, err)
	}
	for i, r := range bad {
		if row, err := ingest.SketchOf(r, 0, now); err == nil {
			t.Errorf("%d: accepted %+v", i, row)
		}
	}
	if n := w.in.Malformed(boxA); n != int64(len(bad)) {
		t.Errorf("%d counted as malformed, want %d", n, len(bad))
	}
}

// TestTheLargestSketchFitsAResult: the wire cuts long texts.
func TestTheLargestSketchFitsAResult(t *testing.T) {
	s := largest()
	w := running(t)
	check(t, w.deliver(boxA, wire.TopicData, wire.Data{Blocks: []wire.Block{resultBlock(1, driftResult(nowHour, s.Text(), "ocr:1"))}}))
	if all := streams(t, w); len(all) != 1 || all[0].Reference != s {
		t.Errorf("streams %+v, %d malformed", all, w.in.Malformed(boxA))
	}
}

// largest has every count as large as Check lets it be.
func largest() drift.Sketch {
	s := drift.Sketch{Items: drift.MaxItems}
	for i := range s.Score {
		s.Score[i] = 64 * drift.MaxItems / 20
	}
	for i := range s.Class {
		s.Class[i] = 60 * drift.MaxItems / 32
	}
	for i := range s.Entropy {
		s.Entropy[i] = 60 * drift.MaxItems / 10
	}
	for i := range s.Found {
		s.Found[i] = drift.MaxItems / 8
	}
	for i := range s.Brightness {
		s.Brightness[i], s.Sharpness[i] = drift.MaxItems/16, drift.MaxItems/16
	}
	return s
}

// TestSketchesLieInHoursOfOurCalendar: an hour that cannot be that of its result
// is that of the result.
func TestSketchesLieInHoursOfOurCalendar(t *testing.T) {
	whole := now / hourMs * hourMs
	for _, c := range []struct {
		item        string
		made, shift int64
		want        int64
	}{
		{nowHour, now, 0, whole},
		{"2027-01-15T07", now, 0, whole - hourMs},
		{"2027-01-14T09", now, 0, whole - 23*hourMs},
		{"1970-01-01T00", now, 0, whole},
		{"2099-01-01T00", now, 0, whole},
		{"2027-01-15T07", now, hourMs, whole},
		{"2027-01-15T08", now, -2000, whole},
	} {
		row, err := ingest.SketchOf(wire.Result{WallMs: c.made, Input: "i", Item: c.item, Text: sketch(1).Text(), Models: []string{"m:1"}}, c.shift, now+300_000)
		if err != nil || row.HourMs != c.want {
			t.Errorf("%s, %d ms ahead: hour %d, want %d, %v", c.item, c.shift, row.HourMs, c.want, err)
		}
	}
}

// FuzzSketchOf: whatever a box says, what is kept has names that fit a key, a
// whole hour that has begun, and counts that can be.
func FuzzSketchOf(f *testing.F) {
	f.Add("ocr:1", "door", nowHour, sketch(3).Text(), now, int64(0))
	f.Add("a:b:c", "\xff", "2027-01-15T24", "AQ", int64(0), int64(-1)<<40)
	f.Fuzz(func(t *testing.T, model, input, item, text string, made, shift int64) {
		made, shift = max(0, min(made, now)), max(-now, min(shift, now))
		row, err := ingest.SketchOf(wire.Result{WallMs: made, Input: input, Item: item, Text: text, Models: []string{model}}, shift, now)
		if err != nil {
			if row != (store.DriftRow{}) {
				t.Fatal("a row with an error")
			}
			return
		}
		if row.HourMs%hourMs != 0 || row.HourMs < 0 || row.HourMs > now || row.Model+":"+row.Version != model || len(row.Input) > 256 || row.Sketch.Check() != nil {
			t.Fatalf("%+v", row)
		}
	})
}
