// Package series cuts measured values into buckets for charts. It is pure.
//
// A bucket keeps the least, the middle and the greatest value of its span, so
// that a peak of seconds stays visible in a chart of a month. Buckets start at
// whole multiples of their span since 1970: a chart that is asked for again a
// little later shows the same buckets, not slightly other ones.
//
// Where only a summary of n values is left, since a box had no more room for
// them or since the span is long, its least and greatest values and its number
// count as they are, and its middle value stands for all n in the median.
//
// The one rule a caller can break: feed a Buckets only values that were
// measured; a gap in the data must stay a gap in the chart.
package series

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/internal/rank"
)

// Window is the time that a chart shows, cut into spans of StepMs.
type Window struct{ FromMs, ToMs, StepMs int64 }

// NewWindow cuts [from, to) into at most points buckets, and one more where
// the window does not start on a whole span. A span is at least unit, and a
// whole number of units.
func NewWindow(from, to time.Time, points int, unit time.Duration) Window {
	w := Window{FromMs: from.UnixMilli(), ToMs: to.UnixMilli()}
	n, u := int64(max(points, 1)), unit.Milliseconds()
	step := (w.ToMs - w.FromMs + n - 1) / n
	w.StepMs = max((step+u-1)/u, 1) * u
	return w
}

// Whole is w without its partial buckets: it begins and ends with whole ones.
func (w Window) Whole() Window {
	w.FromMs = floorDiv(w.FromMs, w.StepMs) * w.StepMs
	w.ToMs = floorDiv(w.ToMs+w.StepMs-1, w.StepMs) * w.StepMs
	return w
}

// Split cuts w at ends of buckets into about n windows of equal length.
func (w Window) Split(n int) []Window {
	first, last := floorDiv(w.FromMs, w.StepMs), floorDiv(w.ToMs-1, w.StepMs)+1
	per := max((last-first+int64(n)-1)/int64(max(n, 1)), 1)
	var out []Window
	for at := first; at < last; at += per {
		out = append(out, Window{max(w.FromMs, at*w.StepMs), min(w.ToMs, (at+per)*w.StepMs), w.StepMs})
	}
	return out
}

// Point is one bucket. Start is its first millisecond.
type Point struct {
	StartMs          int64
	Min, Median, Max float64
	N                int
}

// Buckets collects the values of one metric.
type Buckets struct {
	w     Window
	first int64 // number of the first bucket since 1970
	all   []Bucket
}

// Buckets returns an empty collection for the window.
func (w Window) Buckets() *Buckets {
	return &Buckets{w: w, first: floorDiv(w.FromMs, w.StepMs), all: make([]Bucket, 0, 16)}
}

// at returns the bucket of a time within the window.
func (b *Buckets) at(unixMs int64) *Bucket {
	i := int(floorDiv(unixMs, b.w.StepMs) - b.first)
	for len(b.all) <= i {
		b.all = append(b.all, Bucket{})
	}
	return &b.all[i]
}

// Add takes values and their times. What lies outside of the window or is not
// a finite number is left out.
func (b *Buckets) Add(unixMs []int64, values []float64) {
	var (
		in       *Bucket
		from, to int64 // of in
	)
	for i, v := range values {
		t := unixMs[i]
		if t < b.w.FromMs || t >= b.w.ToMs || v-v != 0 { // NaN and infinities differ from themselves
			continue
		}
		if t < from || t >= to || in == nil {
			from = floorDiv(t, b.w.StepMs) * b.w.StepMs
			to, in = from+b.w.StepMs, b.at(t)
			in.values = slices.Grow(in.values, min(len(values)-i, int(b.w.StepMs/1000)+1))
		}
		in.values = append(in.values, v)
	}
}

// AddSummary takes what is left of s.N values made about unixMs.
func (b *Buckets) AddSummary(unixMs int64, s Point) {
	if unixMs >= b.w.FromMs && unixMs < b.w.ToMs {
		b.at(unixMs).AddSummary(s)
	}
}

// Points returns the buckets that hold something, oldest first. It may reorder
// what was added.
func (b *Buckets) Points() []Point {
	out := make([]Point, 0, len(b.all))
	for i := range b.all {
		if p, any := b.all[i].Point(); any {
			p.StartMs = (b.first + int64(i)) * b.w.StepMs
			out = append(out, p)
		}
	}
	return out
}

// Bucket is the values of one span of time.
type Bucket struct {
	values []float64
	rest   []Point // of values that are gone
}

// Reset empties the bucket and keeps its room.
func (b *Bucket) Reset() { b.values, b.rest = b.values[:0], b.rest[:0] }

// Add takes a value, which must be a finite number.
func (b *Bucket) Add(v float64) { b.values = append(b.values, v) }

// AddSummary takes what is left of s.N values.
func (b *Bucket) AddSummary(s Point) {
	if s.N > 0 {
		b.rest = append(b.rest, s)
	}
}

// Point returns the least, middle and greatest value and their number, and
// false when there is none. It may reorder what was added.
func (b *Bucket) Point() (Point, bool) {
	n := len(b.values)
	if n == 0 && len(b.rest) == 0 {
		return Point{}, false
	}
	p := Point{Min: math.Inf(1), Max: math.Inf(-1), N: n}
	for _, v := range b.values { // min and max look for NaN, which costs twice the time
		if v < p.Min {
			p.Min = v
		}
		if v > p.Max {
			p.Max = v
		}
	}
	for _, r := range b.rest {
		p.Min, p.Max, p.N = min(p.Min, r.Min), max(p.Max, r.Max), p.N+r.N
	}
	if len(b.rest) > 0 {
		p.Median = b.weighted(p.N)
		return p, true
	}
	rank.Place(b.values, n/2)
	upper := b.values[n/2]
	p.Median = upper
	if n%2 == 0 { // all before the upper middle are no greater
		lower := b.values[0]
		for _, v := range b.values[1 : n/2] {
			if v > lower {
				lower = v
			}
		}
		p.Median = lower/2 + upper/2
	}
	return p, true
}

// weighted is the median of n values, of which rest stand for several.
func (b *Bucket) weighted(n int) float64 {
	type step struct {
		v float64
		n int
	}
	steps := make([]step, 0, len(b.values)+len(b.rest))
	for _, v := range b.values {
		steps = append(steps, step{v, 1})
	}
	for _, r := range b.rest {
		steps = append(steps, step{r.Median, r.N})
	}
	slices.SortFunc(steps, func(a, b step) int { return cmp.Compare(a.v, b.v) })
	find := func(rank int) float64 {
		for _, s := range steps {
			if rank < s.n {
				return s.v
			}
			rank -= s.n
		}
		return steps[len(steps)-1].v
	}
	return find((n-1)/2)/2 + find(n/2)/2
}

// floorDiv rounds down also before 1970, where a box without a clock may be.
func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}
