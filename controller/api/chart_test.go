package api

import (
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// TestOldWeeksAreChartedByTheHour: where samples are too old to be kept, their
// hourly values are, and no chart may show a gap there.
func TestOldWeeksAreChartedByTheHour(t *testing.T) {
	w := newWorld(t)
	id := w.box("old", "x", "")
	for i, at := range []time.Time{testStart.AddDate(0, 0, -100), testStart.AddDate(0, 0, -10)} {
		w.samples(id, uint64(i+1), at, map[string][]float64{"temp_die_celsius": {40, 50, 60}})
	}
	_, err := w.store.Compact(t.Context(), 100)
	must(t, err)
	_, _, err = w.store.Retain(t.Context(), keptInTests, 100)
	must(t, err)
	for days, hourly := range map[int]bool{103: true, 13: false} {
		from := testStart.AddDate(0, 0, -days)
		got, err := w.client("viewer").Series(t.Context(), id, fleetapi.SeriesQuery{Metrics: []string{"temp_die_celsius"}, From: from, To: from.AddDate(0, 0, 7)})
		must(t, err)
		s := got.Series[0]
		if len(s.Points) != 1 || s.Points[0].N != 3 || s.Points[0].Min != 40 || s.Points[0].Max != 60 || s.Hourly != hourly {
			t.Errorf("the week from %d days ago on: hourly %v, points %+v", days, s.Hourly, s.Points)
		}
	}
}
