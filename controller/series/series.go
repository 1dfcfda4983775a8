// Package series cuts measured values into buckets for charts. It is pure.
//
// A bucket keeps the least, the middle and the greatest value of its span, so
// that a peak of seconds stays visible in a chart of a month. Buckets start at
// whole multiples of their span since 1970: a chart that is asked for again a
// little later shows the same buckets, not slightly other ones.
//
// The one rule a caller can break: feed a Buckets only values that were
// measured; a gap in the data must stay a gap in the chart.
package series

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Window is the time that a chart shows, cut into spans of StepMs.
type Window struct{ FromMs, ToMs, StepMs int64 }

// NewWindow cuts [from, to) into at most points buckets, and one more where
// the window does not start on a whole span. A span is at least a second, in
// whole seconds.
func NewWindow(from, to time.Time, points int) Window {
	w := Window{FromMs: from.UnixMilli(), ToMs: to.UnixMilli()}
	n := int64(max(points, 1))
	step := (w.ToMs - w.FromMs + n - 1) / n
	w.StepMs = max((step+999)/1000, 1) * 1000
	return w
}

// Point is one bucket. Start is its first millisecond.
type Point struct {
	StartMs          int64
	Min, Median, Max float64
	N                int
}

// Buckets collects the values of one metric.
type Buckets struct {
	w      Window
	values map[int64][]float64 // by number of the span since 1970
}

// Buckets returns an empty collection for the window.
func (w Window) Buckets() *Buckets { return &Buckets{w: w, values: map[int64][]float64{}} }

// Add takes a value. What lies outside of the window or is not a finite number
// is left out.
func (b *Buckets) Add(unixMs int64, v float64) {
	if unixMs < b.w.FromMs || unixMs >= b.w.ToMs || math.IsNaN(v) || math.IsInf(v, 0) {
		return
	}
	at := floorDiv(unixMs, b.w.StepMs)
	b.values[at] = append(b.values[at], v)
}

// Points returns the buckets that hold something, oldest first.
func (b *Buckets) Points() []Point {
	out := make([]Point, 0, len(b.values))
	for at, values := range b.values {
		slices.Sort(values)
		n := len(values)
		out = append(out, Point{
			StartMs: at * b.w.StepMs, Min: values[0], Max: values[n-1], N: n,
			Median: values[(n-1)/2]/2 + values[n/2]/2,
		})
	}
	slices.SortFunc(out, func(a, b Point) int { return cmp.Compare(a.StartMs, b.StartMs) })
	return out
}

// floorDiv rounds down also before 1970, where a box without a clock may be.
func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}
