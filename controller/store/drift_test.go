package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/drift"
	"github.com/edgeherd/edgeherd/internal/identity"
)

func seen(items int) (s drift.Sketch) {
	for range items {
		s.Item(0)
	}
	return s
}

// sketches is a block of results of which only sketches are left.
func sketches(box identity.ID, seq uint64, rows ...store.DriftRow) store.Delivery {
	d := results(box, 3, seq, epoch, fmt.Sprint(seq))
	d.Results, d.Drift = nil, rows
	return d
}

func streamsOf(t *testing.T, s *store.Store, q store.DriftQuery) string {
	t.Helper()
	q.Model, q.Version = "ocr", "1"
	all, err := s.Drift(ctx, q)
	check(t, err)
	text := ""
	for _, d := range all {
		text += fmt.Sprintf("%s at %s, %s: %d, now %d\n", d.Name, d.Site, d.Input, d.Reference.Items, d.Now.Items)
	}
	return text
}

func sketchesAddUp(t *testing.T, open func(t *testing.T) *store.Store) {
	s := open(t)
	enrolTwo(t, s)
	const hourMs, week = int64(3_600_000), int64(store.DriftWeek)
	row := func(input string, at int64, items int) store.DriftRow {
		return store.DriftRow{Model: "ocr", Version: "1", Input: input, HourMs: at, Sketch: seen(items)}
	}
	first := sketches(boxA, 1, row("door", epoch, 5), row("door", epoch, 5), row("gate", epoch+hourMs, 7))
	late := row("door", epoch-hourMs, 3)
	next := sketches(boxA, 2, row("door", epoch+week-hourMs, 10), row("door", epoch+week, 100), row("door", epoch+week, 1), late,
		store.DriftRow{Model: "ocr", Version: "2", Input: "door", HourMs: epoch + week, Sketch: seen(1000)})
	for range 2 { // both come again
		ingest(t, s, first, sketches(boxB, 1, row("door", epoch, 50)))
		ingest(t, s, next, first)
	}
	ingest(t, s, sketches(boxA, 3, row("door", epoch+2*week, 2000)), sketches(boxA, 4, row("door", epoch+week, 30)))
	for _, c := range []struct {
		q    store.DriftQuery
		want string
	}{
		{store.DriftQuery{}, "box-a at berlin, door: 23, now 2131\nbox-a at berlin, gate: 7, now 0\nbox-b at krakow, door: 50, now 0\n"},
		{store.DriftQuery{FromMs: epoch + 2*week}, "box-a at berlin, door: 23, now 2000\nbox-a at berlin, gate: 7, now 0\nbox-b at krakow, door: 50, now 0\n"},
		{store.DriftQuery{Box: boxB}, "box-b at krakow, door: 50, now 0\n"},
		{store.DriftQuery{Site: "krakow"}, "box-b at krakow, door: 50, now 0\n"},
		{store.DriftQuery{Site: "nowhere"}, ""},
	} {
		if got := streamsOf(t, s, c.q); got != c.want {
			t.Errorf("%+v:\n%swant\n%s", c.q, got, c.want)
		}
	}
	if n := rowCount(t, s, `SELECT count(*) FROM result`); n != 0 {
		t.Errorf("%d results", n)
	}
	// Hours go when they are old; what the version began with stays.
	_, _, err := s.Retain(ctx, store.Retention{Rollups: 1e5 * time.Hour}, 1000)
	check(t, err)
	if got := streamsOf(t, s, store.DriftQuery{Box: boxA}); got != "box-a at berlin, door: 23, now 2131\nbox-a at berlin, gate: 7, now 0\n" {
		t.Errorf("after deleting what is old:\n%s", got)
	}
	if n := rowCount(t, s, `SELECT count(*) FROM drift_hour WHERE hour_ms < ?`, epoch); n != 1 {
		t.Errorf("%d hours before the epoch: too young to go", n)
	}
}

func sketchesAreBounded(t *testing.T, open func(t *testing.T) *store.Store) {
	s := open(t)
	enrolTwo(t, s)
	for block := range uint64(4) {
		var rows []store.DriftRow
		for i := range 50 {
			rows = append(rows, store.DriftRow{Model: "ocr", Version: "1", Input: fmt.Sprintf("%d-%d", block, i), HourMs: epoch, Sketch: seen(1)})
		}
		c := ingest(t, s, sketches(boxA, block+1, rows...))
		if want := max(0, int(block)*50-78); c.NoRoom[boxA] != min(want, 50) {
			t.Errorf("block %d: %v had no room, want %d", block, c.NoRoom, want)
		}
	}
	// What is there already goes on, up to what an hour can have.
	half := drift.Sketch{Items: drift.MaxItems/2 + 1, Found: [8]uint64{drift.MaxItems/2 + 1}}
	row := store.DriftRow{Model: "ocr", Version: "1", Input: "0-0", HourMs: epoch, Sketch: half}
	if c := ingest(t, s, sketches(boxA, 10, row, row)); c.NoRoom[boxA] != 1 {
		t.Errorf("two large halves: %v had no room", c.NoRoom)
	}
	ingest(t, s, sketches(boxB, 1, row))
	if n := rowCount(t, s, `SELECT count(*) FROM drift_hour`); n != 129 {
		t.Errorf("%d hours of sketches, want 128 and one of the other box", n)
	}
}
