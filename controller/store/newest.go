package store

import (
	"cmp"
	"encoding/binary"
	"iter"
	"maps"
	"math"
	"slices"

	"github.com/edgeherd/edgeherd/internal/wire"
)

// Latest is the newest value of one metric.
type Latest struct {
	TimeMs int64
	Value  float64
}

// Newest is the newest values of one box. The zero Newest has none.
type Newest struct {
	groups []newestGroup
	places map[string][]*Latest // in groups, by metric; nil until asked for
}

// newestGroup is the metrics of one schema; a box has one, and more for a
// while after it began to measure other things.
type newestGroup struct {
	id     wire.SchemaID
	schema *wire.Schema
	values []Latest // by number of the metric; TimeMs is never: none
}

// never is the time of a value that there is not.
const never = math.MinInt64

// maxGroups bounds what is kept of metrics that are sent no more.
const maxGroups = 16

// newestForm is the first byte of a stored row.
const newestForm = 1

// NewestOf returns the newest values of metrics.
func NewestOf(values map[string]Latest) Newest {
	g := newestGroup{schema: &wire.Schema{}}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		g.schema.Metrics = append(g.schema.Metrics, wire.Metric{Name: name})
		g.values = append(g.values, values[name])
	}
	return Newest{groups: []newestGroup{g}}
}

// Get returns the newest value of a metric.
func (n Newest) Get(metric string) (Latest, bool) {
	for _, g := range n.groups {
		for i, m := range g.schema.Metrics {
			if m.Name == metric && g.values[i].TimeMs != never {
				return g.values[i], true
			}
		}
	}
	return Latest{}, false
}

// All returns the metrics and their newest values, in the order of the schemas.
func (n Newest) All() iter.Seq2[string, Latest] {
	return func(yield func(string, Latest) bool) {
		for _, g := range n.groups {
			for i, l := range g.values {
				if l.TimeMs != never && !yield(g.schema.Metrics[i].Name, l) {
					return
				}
			}
		}
	}
}

// Len is how many metrics there are.
func (n Newest) Len() (count int) {
	for range n.All() {
		count++
	}
	return count
}

// group returns the place of a schema, with no values yet if it is new.
func (n *Newest) group(id wire.SchemaID, schema *wire.Schema) *newestGroup {
	i := slices.IndexFunc(n.groups, func(g newestGroup) bool { return g.id == id })
	if i < 0 {
		g := newestGroup{id: id, schema: schema, values: make([]Latest, len(schema.Metrics))}
		for i := range g.values {
			g.values[i].TimeMs = never
		}
		i, n.groups = len(n.groups), append(n.groups, g)
		if n.places != nil {
			n.placed(g)
		}
	}
	return &n.groups[i]
}

// take sets metric m of a group unless a later value is known.
func (n *Newest) take(g *newestGroup, m int, l Latest) {
	if l.TimeMs < g.values[m].TimeMs {
		return
	}
	if len(n.groups) > 1 { // not so nearly always
		for _, other := range n.placesOf(g.schema.Metrics[m].Name) {
			if other == &g.values[m] || other.TimeMs == never {
				continue
			}
			if l.TimeMs < other.TimeMs {
				return
			}
			other.TimeMs = never
		}
	}
	g.values[m] = l
}

// placesOf is where the groups have a metric.
func (n *Newest) placesOf(metric string) []*Latest {
	if n.places == nil {
		n.places = map[string][]*Latest{}
		for _, g := range n.groups {
			n.placed(g)
		}
	}
	return n.places[metric]
}

func (n *Newest) placed(g newestGroup) {
	for i, m := range g.schema.Metrics {
		n.places[m.Name] = append(n.places[m.Name], &g.values[i])
	}
}

// takeSamples takes the last value of each metric of samples that begin at
// startMs.
func (n *Newest) takeSamples(g *newestGroup, s *wire.Samples, startMs int64) {
	ordered := slices.IsSorted(s.TimesMs)
	for m, column := range s.Values {
		last := Latest{TimeMs: never}
		for row := len(column) - 1; row >= 0; row-- {
			if math.IsNaN(column[row]) {
				continue
			}
			if t := startMs + s.TimesMs[row]; t > last.TimeMs {
				last = Latest{t, column[row]}
			}
			if ordered {
				break
			}
		}
		if last.TimeMs != never {
			n.take(g, m, last)
		}
	}
}

// encode returns the stored form: groups of a schema id, a time, and for each
// metric how much older it is (0: none) and its value.
func (n *Newest) encode() []byte {
	groups := slices.DeleteFunc(n.groups, func(g newestGroup) bool { return g.newest() == never })
	if len(groups) > maxGroups {
		slices.SortStableFunc(groups, func(a, b newestGroup) int { return cmp.Compare(b.newest(), a.newest()) })
		groups = groups[:maxGroups]
	}
	n.groups, n.places = groups, nil
	out := append(make([]byte, 0, 32+5*len(groups)*32), newestForm)
	for _, g := range groups {
		base := g.newest()
		out = append(out, g.id[:]...)
		out = binary.AppendVarint(out, base)
		for i, l := range g.values {
			if l.TimeMs == never {
				out = append(out, 0)
				continue
			}
			age := uint64(base-l.TimeMs)<<1 + 2
			if k, ok := scaleOf(g.schema.Metrics[i].Scale).integer(l.Value); ok {
				out = binary.AppendVarint(binary.AppendUvarint(out, age), k)
			} else {
				out = appendFloat(binary.AppendUvarint(out, age|1), l.Value)
			}
		}
	}
	return out
}

func (g newestGroup) newest() int64 {
	t := int64(never)
	for _, l := range g.values {
		t = max(t, l.TimeMs)
	}
	return t
}

// decodeNewest reads a stored row; schema finds the schemas by their ids.
func decodeNewest(row []byte, schema func(wire.SchemaID) (*wire.Schema, error)) (Newest, error) {
	var n Newest
	if len(row) == 0 {
		return n, nil
	}
	r := input{rest: row}
	if r.octet() != newestForm {
		return n, errDamaged
	}
	for len(r.rest) > 0 {
		id := wire.SchemaID(r.eight())
		sc, err := schema(id)
		if err != nil {
			return Newest{}, err
		}
		g := newestGroup{id: id, schema: sc, values: make([]Latest, len(sc.Metrics))}
		base := r.varint()
		for i := range g.values {
			age := r.uvarint()
			switch {
			case age == 0:
				g.values[i].TimeMs = never
				continue
			case age&1 == 1:
				g.values[i].Value = r.float()
			default:
				g.values[i].Value = scaleOf(sc.Metrics[i].Scale).value(r.varint())
			}
			g.values[i].TimeMs = base - int64((age-2)>>1)
		}
		n.groups = append(n.groups, g)
	}
	if err := r.end(); err != nil {
		return Newest{}, err
	}
	return n, nil
}

// updateNewest takes what is new in d into n.
func (d *Delivery) updateNewest(n *Newest) {
	g := n.group(d.schemaID(), d.Schema)
	switch {
	case d.Samples != nil && d.Pack == nil:
		n.takeSamples(g, d.Samples, d.StartMs)
	case d.Samples != nil:
		var one part
		if len(d.whole) == 1 && d.whole[0].exact != nil && !slices.Contains(d.fresh, false) {
			one = *d.whole[0].exact
		} else {
			one = d.opened(d.fresh).exact(*d.Samples)
		}
		n.takeSamples(g, &wire.Samples{TimesMs: one.timesMs, Values: one.values}, 0)
	default: // a mean is the best that is known of its time
		opened := openedPack{d.Pack, d.Schema, d.Starts, d.fresh, everyColumn(d.Schema)}
		for _, row := range opened.coarse(d.Rows) {
			for m, count := range row.n {
				if count > 0 {
					n.take(g, m, Latest{row.middle(), row.mean[m]})
				}
			}
		}
	}
}
