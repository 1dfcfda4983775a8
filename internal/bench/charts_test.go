package bench

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/series"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/identity"
)

const (
	chartDays  = 30
	chartBoxes = 10_000
	chartRuns  = 5
)

// chartTimes measures what pages ask for most: the newest values of a fleet of
// 10,000 boxes with 30 sensors, and charts of all 30 sensors of one box over 30
// days at 10 s, 7.8 million samples.
func chartTimes(t *testing.T) []Figure {
	now := ingestStart + chartDays*24*3_600_000 + 3*3_600_000
	s, err := store.Open(t.Context(), store.Options{Path: filepath.Join(t.TempDir(), "store.db"), WallClock: func() time.Time { return time.UnixMilli(now) }})
	check(t, err)
	t.Cleanup(func() { s.Close() })
	month := newBlockWriterOf(t, s, 1)
	for range chartDays * 24 * 60 / packMinutes / 60 {
		var ds []store.Delivery
		for range 60 {
			ds = append(ds, month.nextPacks()...)
		}
		commitTime(t, s, ds, packMinutes)
	}
	hours := 0
	for {
		c, err := s.Compact(t.Context(), 2000)
		check(t, err)
		if hours += c.Hours; c.Hours == 0 {
			break
		}
	}
	var curves []store.Curve
	for _, m := range month.samples[0].Schema.Metrics {
		curves = append(curves, store.Curve{Metrics: []string{m.Name}})
	}
	from, to := time.UnixMilli(ingestStart), time.UnixMilli(ingestStart+chartDays*24*3_600_000)
	ask := func(w series.Window, curves []store.Curve, hourly bool) float64 {
		return median(times(t, func() {
			points, err := s.Chart(t.Context(), month.boxes[0], w, curves, hourly)
			check(t, err)
			n := 0
			for _, c := range points {
				for _, p := range c {
					n += p.N
				}
			}
			if n != len(curves)*chartDays*8640 {
				t.Fatalf("%d of %d samples are charted", n, len(curves)*chartDays*8640)
			}
		}))
	}
	exact := series.NewWindow(from, to, 721, time.Second)
	figures := []Figure{
		{Value: ask(exact, curves, false), Unit: "ms", Goal: Goal{AtMost: 250}},
		{Name: "one-sensor", Value: ask(exact, curves[:1], false), Unit: "ms"},
		{Name: "hourly", Value: ask(series.NewWindow(from, to, 721, time.Hour), curves, true), Unit: "ms"},
	}
	return append(figures, Figure{Name: "latest", Value: latestTime(t, s, month), Unit: "ms", Goal: Goal{AtMost: 30}})
}

// latestTime adds a fleet and asks for its newest values.
func latestTime(t *testing.T, s *store.Store, month *blockWriter) float64 {
	t.Helper()
	fleet := &blockWriter{t: t, samples: month.samples, boxes: []identity.ID{}}
	for range chartBoxes {
		fleet.boxes = append(fleet.boxes, identity.NewID())
	}
	for ds := range slices.Chunk(fleet.next(), 500) {
		commitTime(t, s, ds, 1)
	}
	return median(times(t, func() {
		all, err := s.Latest(t.Context())
		check(t, err)
		if n := all[fleet.boxes[0]].Len(); len(all) != chartBoxes+1 || n != sensors {
			t.Fatalf("%d boxes, the first with %d sensors", len(all), n)
		}
	}))
}

// times runs f and returns how many milliseconds each took.
func times(t *testing.T, f func()) (ms []float64) {
	t.Helper()
	for range chartRuns {
		began := time.Now()
		f()
		ms = append(ms, float64(time.Since(began).Microseconds())/1000)
	}
	return ms
}
