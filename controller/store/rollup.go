package store

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/edgeherd/edgeherd/controller/series"
	"github.com/edgeherd/edgeherd/internal/wire"
)

const hourMs = 3600_000

// hourOf returns the start of the hour, of times before 1970 as well.
func hourOf(ms int64) int64 { return ms - ((ms%hourMs)+hourMs)%hourMs }

// Rollup is one metric in one hour. Least, greatest and sum are of all its N
// values; the median is that of the values, or where only summaries of them
// are left, of their means. Packs have parts of an hour of their own.
type Rollup struct {
	HourMs                int64
	Min, Median, Max, Sum float64
	N                     int
}

// hourGroup is the metrics of one schema in one hour.
type hourGroup struct {
	hourMs int64
	id     wire.SchemaID
	schema *wire.Schema
	values []Rollup // by metric; N is 0 for none
}

type hourKey struct {
	hourMs int64
	id     wire.SchemaID
}

// hourRows is what content has of one hour and schema.
type hourRows struct {
	hourKey
	schema *wire.Schema
	exact  []rowSpan
	coarse []*coarse
}

// rowSpan is rows of a part that follow each other.
type rowSpan struct {
	of       *part
	from, to int
}

// hours sorts the rows of content by their hours and schemas.
func (c *content) hours() []*hourRows {
	var all []*hourRows
	open := func(ms int64, id wire.SchemaID, sc *wire.Schema) *hourRows {
		k := hourKey{hourOf(ms), id}
		for i := len(all) - 1; i >= 0; i-- { // nearly always the last of one or two
			if all[i].hourKey == k {
				return all[i]
			}
		}
		all = append(all, &hourRows{hourKey: k, schema: sc})
		return all[len(all)-1]
	}
	for i := range c.parts {
		p := &c.parts[i]
		for from := 0; from < len(p.timesMs); { // the rows of an hour follow each other
			hour, to := hourOf(p.timesMs[from]), from+1
			for to < len(p.timesMs) && p.timesMs[to] >= hour && p.timesMs[to] < hour+hourMs {
				to++
			}
			h := open(hour, p.id, p.schema)
			h.exact = append(h.exact, rowSpan{p, from, to})
			from = to
		}
	}
	for i := range c.coarse {
		r := &c.coarse[i]
		h := open(r.middle(), r.id, r.schema)
		h.coarse = append(h.coarse, r)
	}
	slices.SortFunc(all, func(a, b *hourRows) int {
		return cmp.Or(cmp.Compare(a.hourMs, b.hourMs), slices.Compare(a.id[:], b.id[:]))
	})
	return all
}

// rollups sums up content by the hours of its samples. The values are those of
// the whole schemas.
func (c *content) rollups() []hourGroup {
	var all series.Bucket // of one metric at a time
	hours := c.hours()
	out := make([]hourGroup, len(hours))
	for i, h := range hours {
		out[i] = hourGroup{h.hourMs, h.id, h.schema, make([]Rollup, len(h.schema.Metrics))}
		for m := range out[i].values {
			all.Reset()
			sum := 0.0
			for _, s := range h.exact {
				for _, v := range s.of.values[m][s.from:s.to] {
					if v == v { // else it is missing
						all.Add(v)
						sum += v
					}
				}
			}
			for _, r := range h.coarse {
				all.AddSummary(r.summary(m))
				if r.n[m] > 0 {
					sum += float64(r.n[m]) * r.mean[m]
				}
			}
			p, _ := all.Point()
			out[i].values[m] = Rollup{h.hourMs, p.Min, p.Median, p.Max, sum, p.N}
		}
	}
	return out
}

// middle is where a row stands in a chart.
func (r *coarse) middle() int64 { return r.fromMs + (r.toMs-r.fromMs)/2 }

func (r *coarse) summary(m int) series.Point {
	return series.Point{Min: r.min[m], Median: r.mean[m], Max: r.max[m], N: int(r.n[m])}
}

// rollupForm is the first byte of a stored row.
const rollupForm = 1

// encodeRollups returns the row of some groups. Each is its hour, its schema
// and for each metric n, with 1 in the lowest bit where five numbers of 8
// bytes follow; else min, max, twice the median and the sum follow as integers
// of the scale, above the least that they can be.
func encodeRollups(groups []hourGroup) []byte {
	out := append(make([]byte, 0, 64+16*32*len(groups)), rollupForm)
	for _, g := range groups {
		out = append(binary.AppendVarint(out, g.hourMs/hourMs), g.id[:]...)
		for m, v := range g.values {
			if v.N == 0 {
				out = append(out, 0)
				continue
			}
			out = v.append(out, g.schema.Metrics[m].Scale)
		}
	}
	return out
}

// exact bounds what sums are kept as integers: beyond, float64 is not exact.
const exact = 1 << 52

func (v Rollup) append(out []byte, n int8) []byte {
	sc := scaleOf(n)
	low, ok1 := sc.integer(v.Min)
	high, ok2 := sc.integer(v.Max)
	mid2, ok3 := sc.half(v.Median)
	sum, ok4 := sc.sum(v.Sum)
	if !(ok1 && ok2 && ok3 && ok4) {
		out = binary.AppendUvarint(out, uint64(v.N)<<1|1)
		for _, f := range []float64{v.Min, v.Max, v.Median, v.Sum} {
			out = appendFloat(out, f)
		}
		return out
	}
	out = binary.AppendUvarint(out, uint64(v.N)<<1)
	out = binary.AppendVarint(out, low)
	out = binary.AppendVarint(out, high-low)
	out = binary.AppendVarint(out, mid2-2*low)
	return binary.AppendVarint(out, sum-int64(v.N)*low)
}

// half and sum take the nearest integers: what a decimal fraction lacks in
// float64 is not information.
func (s scale) half(v float64) (int64, bool) {
	f := math.RoundToEven(2 * s.scaled(v))
	return int64(f), math.Abs(f-2*s.scaled(v)) < 1e-6 && math.Abs(f) < exact
}

func (s scale) sum(v float64) (int64, bool) {
	f := math.RoundToEven(s.scaled(v))
	return int64(f), math.Abs(f-s.scaled(v)) < 1e-6 && math.Abs(f) < exact
}

func (s scale) scaled(v float64) float64 {
	if s.mul {
		return v / s.p
	}
	return v * s.p
}

func decodeRollups(row []byte, schema func(wire.SchemaID) (*wire.Schema, error)) ([]hourGroup, error) {
	in := input{rest: row}
	if in.octet() != rollupForm {
		return nil, errDamaged
	}
	var out []hourGroup
	for len(in.rest) > 0 {
		g := hourGroup{hourMs: in.varint() * hourMs, id: in.eight()}
		var err error
		if g.schema, err = schema(g.id); err != nil {
			return nil, fmt.Errorf("hourly values: %w", err)
		}
		g.values = make([]Rollup, len(g.schema.Metrics))
		for m := range g.values {
			g.values[m] = in.rollup(g.hourMs, scaleOf(g.schema.Metrics[m].Scale))
		}
		out = append(out, g)
	}
	return out, in.end()
}

func (r *input) rollup(hour int64, sc scale) Rollup {
	n := r.uvarint()
	v := Rollup{HourMs: hour, N: int(n >> 1)}
	switch {
	case n == 0:
		return v
	case n&1 == 1:
		v.Min, v.Max, v.Median, v.Sum = r.float(), r.float(), r.float(), r.float()
	default:
		low := r.varint()
		v.Min, v.Max = sc.value(low), sc.value(low+r.varint())
		v.Median = sc.value(2*low+r.varint()) / 2
		v.Sum = sc.value(int64(v.N)*low + r.varint())
	}
	return v
}
