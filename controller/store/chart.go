package store

import (
	"context"
	"math"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/edgeherd/edgeherd/controller/series"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// A Curve is what a chart shows: a metric, or what Of makes of several.
type Curve struct {
	Metrics []string
	// Of gets a column for each of Metrics, nil where a metric was not measured,
	// and returns one, or nil. A nil Of means the first metric as it is.
	Of func(columns [][]float64) []float64
}

// chart is how curves are read.
type chart struct {
	id      identity.ID
	curves  []Curve
	metrics []string // of all curves, each once
	at      [][]int  // of the metrics of each curve in metrics
}

// Chart returns the points of curves: from every sample that is stored, or, if
// hourly, from the rollups of hours, for a window whose spans are whole hours.
// Both give the same least and greatest values and the same numbers of a
// metric. The median of rollups is that of hourly medians, and what Of makes of
// them is made of the medians alone, as it is of samples of which only
// summaries are left.
func (s *Store) Chart(ctx context.Context, id identity.ID, w series.Window, curves []Curve, hourly bool) ([][]series.Point, error) {
	c := chart{id: id, curves: curves}
	for _, curve := range curves {
		var at []int
		for _, m := range curve.Metrics {
			i := slices.Index(c.metrics, m)
			if i < 0 {
				i, c.metrics = len(c.metrics), append(c.metrics, m)
			}
			at = append(at, i)
		}
		c.at = append(c.at, at)
	}
	slabs := w.Split(4 * runtime.GOMAXPROCS(0)) // bounds what is in memory at once
	parts := make([][]*series.Buckets, len(slabs))
	points := make([][][]series.Point, len(slabs))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, slab := range slabs {
		g.Go(func() error {
			for range curves {
				parts[i] = append(parts[i], slab.Buckets())
			}
			read := s.chartSamples
			if hourly {
				read = s.chartHours
			}
			if err := read(ctx, &c, slab, parts[i]); err != nil {
				return err
			}
			for _, b := range parts[i] {
				points[i] = append(points[i], b.Points())
			}
			parts[i] = nil
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	out := make([][]series.Point, len(curves))
	for i := range out {
		out[i] = []series.Point{}
		for _, p := range points {
			out[i] = append(out[i], p[i]...)
		}
	}
	return out, nil
}

func (c *chart) question(w series.Window) Question {
	return Question{c.id, time.UnixMilli(w.FromMs), time.UnixMilli(w.ToMs), c.metrics}
}

func (s *Store) chartSamples(ctx context.Context, c *chart, w series.Window, into []*series.Buckets) error {
	return s.Columns(ctx, c.question(w), func(cols Columns) error {
		for i, b := range into {
			if cols.Values != nil {
				b.Add(cols.UnixMs, c.column(i, cols.Values))
			}
			for _, sum := range cols.Summaries {
				b.AddSummary(sum.UnixMs, c.summary(i, sum.Values))
			}
		}
		return ctx.Err()
	})
}

func (s *Store) chartHours(ctx context.Context, c *chart, w series.Window, into []*series.Buckets) error {
	points := make([]series.Point, len(c.metrics))
	return s.Rollups(ctx, c.question(w), func(hourMs int64, values []Rollup) {
		for i, v := range values {
			points[i] = series.Point{Min: v.Min, Median: v.Median, Max: v.Max, N: v.N}
		}
		for i, b := range into {
			b.AddSummary(hourMs, c.summary(i, points))
		}
	})
}

// column is curve i of the columns of all metrics.
func (c *chart) column(i int, all [][]float64) []float64 {
	if c.curves[i].Of == nil {
		return all[c.at[i][0]]
	}
	return c.curves[i].Of(pick(all, c.at[i]))
}

// summary is curve i of the summaries of all metrics.
func (c *chart) summary(i int, all []series.Point) series.Point {
	if c.curves[i].Of == nil {
		return all[c.at[i][0]]
	}
	n := math.MaxInt
	columns := make([][]float64, len(c.at[i]))
	for j, m := range c.at[i] {
		columns[j] = []float64{all[m].Median}
		n = min(n, all[m].N)
	}
	if n == 0 {
		return series.Point{}
	}
	made := c.curves[i].Of(columns)
	if len(made) == 0 || math.IsNaN(made[0]) || math.IsInf(made[0], 0) {
		return series.Point{}
	}
	return series.Point{Min: made[0], Median: made[0], Max: made[0], N: n}
}
