package series_test

import (
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/edgeherd/edgeherd/controller/series"
)

func TestBucketsKeepPeaksAndGaps(t *testing.T) {
	from := time.UnixMilli(60_000)
	w := series.NewWindow(from, from.Add(3*time.Minute), 3, time.Second)
	if w.StepMs != 60_000 {
		t.Fatalf("step %d ms, want a minute", w.StepMs)
	}
	b := w.Buckets()
	for _, v := range []struct {
		ms int64
		v  float64
	}{{60_000, 1}, {61_000, 100}, {119_999, 3}, {200_000, 7}, {239_999, 9}, {59_999, -1}, {240_000, -1}, {70_000, math.NaN()}, {70_000, math.Inf(1)}} {
		b.Add([]int64{v.ms}, []float64{v.v})
	}
	want := []series.Point{{StartMs: 60_000, Min: 1, Median: 3, Max: 100, N: 3}, {StartMs: 180_000, Min: 7, Median: 8, Max: 9, N: 2}}
	if got := b.Points(); !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestBucketsStayWhenTheWindowMoves(t *testing.T) {
	a := series.NewWindow(time.Unix(1000, 0), time.Unix(4600, 0), 60, time.Second)
	b := series.NewWindow(time.Unix(1007, 0), time.Unix(4607, 0), 60, time.Second)
	first, second := a.Buckets(), b.Buckets()
	for s := int64(1100); s < 4500; s += 5 {
		first.Add([]int64{s * 1000}, []float64{float64(s)})
		second.Add([]int64{s * 1000}, []float64{float64(s)})
	}
	if !slices.Equal(first.Points(), second.Points()) {
		t.Error("the same values fell into other buckets seven seconds later")
	}
}

func TestBucketsAreFewAndCountEveryValue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		from := rapid.Int64Range(-1e12, 4e12).Draw(t, "from")
		span := rapid.Int64Range(1, 40*24*3600*1000).Draw(t, "span")
		points := rapid.IntRange(1, 2000).Draw(t, "points")
		w := series.NewWindow(time.UnixMilli(from), time.UnixMilli(from+span), points, time.Second)
		b := w.Buckets()
		values := rapid.SliceOfN(rapid.Int64Range(-10, span+10), 0, 200).Draw(t, "at")
		inside := 0
		for _, at := range values {
			b.Add([]int64{from + at}, []float64{float64(at)})
			if at >= 0 && at < span {
				inside++
			}
		}
		got := b.Points()
		n := 0
		for i, p := range got {
			n += p.N
			if p.Min > p.Median || p.Median > p.Max || p.StartMs%w.StepMs != 0 {
				t.Fatalf("bucket %+v of step %d", p, w.StepMs)
			}
			if i > 0 && got[i-1].StartMs >= p.StartMs {
				t.Fatalf("buckets out of order at %d", i)
			}
		}
		if n != inside || len(got) > points+1 {
			t.Fatalf("%d values in %d buckets, want %d in at most %d", n, len(got), inside, points+1)
		}
	})
}
