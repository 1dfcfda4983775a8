package ingest_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/edgeherd/edgeherd/controller/care"
	"github.com/edgeherd/edgeherd/controller/ingest"
	"github.com/edgeherd/edgeherd/controller/upkeep"
	"github.com/edgeherd/edgeherd/internal/health"
	"github.com/edgeherd/edgeherd/internal/phrase"
	"github.com/edgeherd/edgeherd/internal/wire"
)

func hourText(t *testing.T, start int64) string {
	t.Helper()
	h := health.Hour{Start: start, V: health.Blank(), Samples: 60, Period: 60}
	h.V[health.Die] = 61
	text, err := h.MarshalText()
	check(t, err)
	return string(text)
}

// TestHeatOfABoxIsStoredOnce: a block that comes again changes nothing, what
// cannot be is left out, and a box speaks for itself only.
func TestHeatOfABoxIsStoredOnce(t *testing.T) {
	w := running(t)
	body := func(v any) []byte { raw, err := json.Marshal(v); check(t, err); return raw }
	whole := now / 1000 / 3600 * 3600
	b := events(1,
		wire.Event{MonoMs: bootMs + 1, Type: wire.EventHours, Body: body(wire.HoursBody{Hours: []string{hourText(t, whole-7200), "not an hour", hourText(t, whole-3600), hourText(t, whole+7200)}})},
		wire.Event{MonoMs: bootMs + 2, Type: wire.EventFinding, Text: "a clog", Body: body(health.Finding{Box: string(boxB), Family: "resistance", Cause: health.CauseAirflow, Level: health.Ticket, Opened: health.Unix(whole)})},
		wire.Event{MonoMs: bootMs + 3, Type: wire.EventFinding, Body: body(health.Finding{Family: strings.Repeat("f", 300), Opened: 1})},
		wire.Event{MonoMs: bootMs + 4, Type: wire.EventReset, Body: body(wire.ResetBody{Cause: wire.ResetPowerCut, Confidence: 0.9, Evidence: []phrase.Phrase{{Text: "the ring ends in the middle"}}})},
		wire.Event{MonoMs: bootMs + 5, Type: wire.EventReset, Body: []byte("{")},
		wire.Event{MonoMs: bootMs + 6, Type: wire.EventModelPhase, Body: body(wire.PhaseBody{Name: "ocr", Version: "2", Digest: "d", Phase: "active"})},
	)
	for range 2 {
		check(t, w.deliver(boxA, wire.TopicData, wire.Data{Blocks: []wire.Block{b}}))
	}
	hours, err := w.store.Hours(ctx, boxA, time.UnixMilli(0), 10)
	if err != nil || len(hours) != 2 || hours[0].HourMs != (whole-7200)*1000 {
		t.Errorf("hours %+v, %v", hours, err)
	}
	var h health.Hour
	check(t, h.UnmarshalBinary(hours[0].Body))
	todo, err := w.store.Unjudged(ctx, 10)
	if err != nil || len(todo) != 1 || todo[0].Hours != 2 || h.V[health.Die] != 61 {
		t.Errorf("to judge %+v, %v; die %v", todo, err, h.V[health.Die])
	}
	got, err := w.store.Box(ctx, boxA, 0)
	if err != nil || len(got.Findings) != 1 || !strings.Contains(string(got.Findings[0].Body), string(boxA)) {
		t.Errorf("findings %+v, %v", got.Findings, err)
	}
	if other, err := w.store.Box(ctx, boxB, 0); err != nil || len(other.Findings) != 0 {
		t.Errorf("findings of the other box %+v, %v", other.Findings, err)
	}
	resets, err := w.store.Resets(ctx, boxA, time.UnixMilli(0), 10)
	if err != nil || len(resets) != 1 || resets[0].Cause != wire.ResetPowerCut {
		t.Errorf("resets %+v, %v", resets, err)
	}
	changes, err := w.store.Changes(ctx, boxA, time.UnixMilli(0))
	if err != nil || len(changes) != 1 || changes[0].Kind != health.Rollout || changes[0].Detail != "ocr:2" {
		t.Errorf("changes %+v, %v", changes, err)
	}
	evs, err := w.store.Events(ctx, boxA, time.UnixMilli(0), time.UnixMilli(now), 10)
	if err != nil || len(evs) != 5 {
		t.Errorf("%d events, want all but the hours: %v", len(evs), err)
	}
}

// TestWhatABoxMakesUpOfItsHeatCanBeShown: names are words, texts one line, and
// times such that JSON has them; one row that cannot be told would keep all
// tickets of all boxes from being told.
func TestWhatABoxMakesUpOfItsHeatCanBeShown(t *testing.T) {
	for _, c := range []struct{ kind, body string }{
		{wire.EventFinding, `{"family":"a\u0000b","cause":"airflow","opened":"2026-03-01T00:00:00Z"}`},
		{wire.EventFinding, `{"family":"resistance","cause":"=cmd()","opened":"2026-03-01T00:00:00Z"}`},
		{wire.EventFinding, `{"family":"resistance","cause":"","opened":"2026-03-01T00:00:00Z"}`},
		{wire.EventReset, `{"cause":"<b>"}`},
	} {
		if e, err := ingest.CareEffect(c.kind, []byte(c.body), now); err == nil || len(e.Findings)+len(e.Resets) != 0 {
			t.Errorf("%s was taken: %+v", c.body, e)
		}
	}
	e, err := ingest.CareEffect(wire.EventFinding, []byte(`{"family":"resistance","cause":"airflow","level":"urgent","confidence":1e300,"opened":"2026-03-01T00:00:00Z",
		"forecast":{"day":2000000000,"low":1,"mid":2,"high":3},"evidence":[{"name":"a","value":1,"code":"no code","args":["x"],"text":"red\u001b[31m\nline`+strings.Repeat("ü", 400)+`"}]}`), now)
	check(t, err)
	var f health.Finding
	check(t, json.Unmarshal(e.Findings[0].Body, &f))
	told := care.FindingOf(f)
	if _, err := json.Marshal(told); err != nil || f.Forecast != nil || f.Confidence != 1 {
		t.Errorf("finding %+v, %v", f, err)
	}
	if e := told.Evidence[0]; e.Code != "" || e.Args != nil {
		t.Errorf("code %q, arguments %q", e.Code, e.Args)
	}
	if text := told.Evidence[0].Text; strings.ContainsAny(text, "\x1b\n") || !utf8.ValidString(text) || len(text) > 510 {
		t.Errorf("evidence %q", text)
	}
	e, err = ingest.CareEffect(wire.EventReset, []byte(`{"cause":"power-cut","at_ms":9000000000000000000}`), now)
	check(t, err)
	if _, err := json.Marshal(upkeep.ResetOf(e.Resets[0])); err != nil {
		t.Errorf("reset: %v", err)
	}
}

// FuzzCareEffect: whatever a box says of its heat, what is kept is bounded and
// can be read again.
func FuzzCareEffect(f *testing.F) {
	h := health.Hour{Start: 3600, V: health.Blank(), Samples: 9}
	text, err := h.MarshalText()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(wire.EventHours, []byte(`{"hours":["`+string(text)+`"]}`))
	f.Add(wire.EventFinding, []byte(`{"family":"resistance","cause":"airflow","level":"ticket","opened":"2026-03-01T00:00:00Z","evidence":[{"name":"a","value":null,"text":"b"}]}`))
	f.Add(wire.EventFinding, []byte(`{"family":"fan1","opened":"2026-03-01T00:00:00Z","closed":"2025-03-01T00:00:00Z"}`))
	f.Add(wire.EventReset, []byte(`{"cause":"power-cut","confidence":2,"evidence":["x"]}`))
	f.Fuzz(func(t *testing.T, kind string, body []byte) {
		e, err := ingest.CareEffect(kind, body, now)
		for _, row := range e.Hours {
			var h health.Hour
			if err := h.UnmarshalBinary(row.Body); err != nil || h.Start*1000 != row.HourMs || len(row.Body) > 200 || row.HourMs > now+time.Hour.Milliseconds() {
				t.Errorf("hour %+v: %v", row, err)
			}
		}
		for _, row := range e.Findings {
			var f health.Finding
			if err := json.Unmarshal(row.Body, &f); err != nil || f.Box != "d-aaaaaaaaaaaaa" || f.Family != row.Family || row.ClosedMs != 0 && row.ClosedMs < row.OpenedMs || len(f.Family) > 256 {
				t.Errorf("finding %s: %v", row.Body, err)
			}
			if _, err := json.Marshal(care.FindingOf(f)); err != nil {
				t.Errorf("finding %s cannot be told: %v", row.Body, err)
			}
		}
		if n := len(e.Findings) + len(e.Resets) + len(e.Changes); n > 1 || err != nil && n > 0 {
			t.Errorf("%d rows of one event, with %v", n, err)
		}
	})
}
