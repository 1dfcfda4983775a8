package api

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/drift"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// frames are sketches of an hour of frames that are about so sharp.
func frames(hour time.Time, input string, sharp float64) store.DriftRow {
	rng := rand.New(rand.NewPCG(uint64(hour.Unix()), 1))
	var s drift.Sketch
	for range 300 {
		s.Item(rng.IntN(3))
		s.Answer(0.8+rng.NormFloat64()*0.05, rng.Float64()*0.2, rng.IntN(3))
		s.Frame(120+rng.NormFloat64()*10, sharp*(0.8+0.4*rng.Float64()))
	}
	return store.DriftRow{Model: "ocr", Version: "3", Input: input, HourMs: hour.UnixMilli(), Sketch: s}
}

func (w *world) sketches(id identity.ID, seq uint64, rows ...store.DriftRow) {
	w.t.Helper()
	d := store.Delivery{Box: id, StartMs: testStart.UnixMilli(), Drift: rows,
		Block: wire.Block{Kind: wire.KindResults, Count: 1, Payload: []byte{1}, Key: wire.Key{SID: wire.SID{1}, Lane: wire.LaneTelemetry, Seq: seq}}}
	must(w.t, wire.Seal(&d.Block))
	_, err := w.store.Ingest(w.t.Context(), []store.Delivery{d}, func(store.Delivery) (store.Effects, error) { return store.Effects{}, nil })
	must(w.t, err)
}

// TestASoiledLensIsSeenOnTheModel, on the box and input that has it, and not on
// those that have not.
func TestASoiledLensIsSeenOnTheModel(t *testing.T) {
	w := newWorld(t)
	for id, name := range map[identity.ID]string{"d-aaaaaaaaaaaaa": "box-a", "d-bbbbbbbbbbbbb": "box-b"} {
		must(t, w.store.AddBox(t.Context(), id, name, "site-of-"+name))
	}
	a, b := identity.ID("d-aaaaaaaaaaaaa"), identity.ID("d-bbbbbbbbbbbbb")
	began := testStart.Add(-10 * 24 * time.Hour)
	var clean, soiled []store.DriftRow
	for h := range 9 * 8 { // every third hour
		at := began.Add(time.Duration(h) * 3 * time.Hour)
		sharp := 800.0
		if h >= 7*8 {
			sharp = 20
		}
		clean = append(clean, frames(at, "gate", 800))
		soiled = append(soiled, frames(at, "door", sharp), frames(at, "gate", 800))
	}
	w.sketches(a, 1, soiled...)
	w.sketches(b, 1, clean...)
	w.sketches(b, 2, frames(testStart.Add(-time.Hour), "new", 10))

	c := w.client("viewer")
	got, err := c.Drift(t.Context(), "ocr", fleetapi.DriftQuery{Version: "3"})
	must(t, err)
	if got.Inputs != 3 || got.Boxes != 2 || got.Waiting != 1 || len(got.Moved) != 1 || got.Days != 7 || len(got.Shifts) != 6 {
		t.Fatalf("drift %+v", got)
	}
	if m := got.Moved[0]; m.Name != "box-a" || m.Site != "site-of-box-a" || m.Input != "door" || !strings.HasPrefix(m.Line, "sharpness (PSI ") || !strings.Contains(m.Line, "look at the lens") {
		t.Errorf("moved %+v", m)
	}
	if !strings.Contains(got.Line, "1 of 3 inputs moved") {
		t.Errorf("line %q", got.Line)
	}
	for _, q := range []fleetapi.DriftQuery{{Version: "3", Box: b}, {Version: "3", Site: "site-of-box-b", Days: 30}} {
		if got, err := c.Drift(t.Context(), "ocr", q); err != nil || got.Inputs != 1 || got.Line != "" || len(got.Moved) != 0 {
			t.Errorf("%+v: %+v, %v", q, got, err)
		}
	}
	// Two days after the newest sketch nothing is compared with a day.
	w.clock.add(48 * time.Hour)
	if got, err := c.Drift(t.Context(), "ocr", fleetapi.DriftQuery{Version: "3", Days: 1}); err != nil || got.Inputs != 0 || got.Waiting != 4 {
		t.Errorf("nothing lately: %+v, %v", got, err)
	}
	for path, status := range map[string]int{
		"/ocr/drift": 404, "/ocr/drift?version=9": 404, "/ocr/drift?version=3&box=d-zzzzzzzzzzzzz": 404, "/ocr/drift?version=3&days=0": 422, "/ocr/drift?version=3&days=91": 422,
	} {
		if got := w.ask("viewer", "GET", "/api/v1/models"+path, ""); got.status != status {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
	}
}

// TestLineOfAModelIsThatOfItsDrift for versions that run.
func TestLineOfAModelIsThatOfItsDrift(t *testing.T) {
	w := newWorld(t)
	must(t, w.store.AddBox(t.Context(), "d-aaaaaaaaaaaaa", "box-a", "x"))
	var rows []store.DriftRow
	for h := range 9 * 4 {
		sharp := 800.0
		if h >= 7*4 {
			sharp = 20
		}
		rows = append(rows, frames(testStart.Add(time.Duration(h*6-9*24)*time.Hour), "door", sharp))
	}
	w.sketches("d-aaaaaaaaaaaaa", 1, rows...)
	m := fleetapi.Model{Name: "ocr", Versions: []fleetapi.ModelVersion{{}, {}}}
	for i, v := range []string{"3", "4"} {
		m.Versions[i].Name, m.Versions[i].Version, m.Versions[i].Running = "ocr", v, 1
	}
	for range 2 { // the second time it is kept
		must(t, w.api.addDrift(t.Context(), &m))
		if !strings.Contains(m.Versions[0].Drift, "sharpness") || m.Versions[1].Drift != "" {
			t.Errorf("lines %q, %q", m.Versions[0].Drift, m.Versions[1].Drift)
		}
	}
	w.clock.add(30 * 24 * time.Hour)
	if must(t, w.api.addDrift(t.Context(), &m)); m.Versions[0].Drift != "" {
		t.Errorf("a month later: %q", m.Versions[0].Drift)
	}
}
