package remotewrite

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/klauspost/compress/snappy"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/edgeherd/edgeherd/controller/export"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// The wire format is prometheus.WriteRequest of remote write 1.0:
//
//	WriteRequest { repeated TimeSeries timeseries = 1 }
//	TimeSeries   { repeated Label labels = 1; repeated Sample samples = 2 }
//	Label        { string name = 1; string value = 2 }
//	Sample       { double value = 1; int64 timestamp = 2 }
//
// in snappy's block format. Four messages of six fields are written here by
// protowire, which the module needs anyway; the generated code for them
// (prompb) lives in the module of the whole Prometheus server and would bring
// some hundred modules into ours.

// label is one name and value.
type label struct{ name, value string }

// sample is one value at a time in Unix milliseconds.
type sample struct {
	ms    int64
	value float64
}

// series is a set of labels, encoded and in the order of their names, with its
// samples.
type series struct {
	labels  []byte
	samples []sample
}

// encodeLabels sorts labels by name, as the protocol wants them, and leaves out
// those without a value: in Prometheus both mean the same.
func encodeLabels(labels []label) []byte {
	slices.SortFunc(labels, func(a, b label) int { return cmp.Compare(a.name, b.name) })
	var out []byte
	for _, l := range labels {
		if l.value == "" {
			continue
		}
		var one []byte
		one = protowire.AppendTag(one, 1, protowire.BytesType)
		one = protowire.AppendString(one, l.name)
		one = protowire.AppendTag(one, 2, protowire.BytesType)
		one = protowire.AppendString(one, l.value)
		out = protowire.AppendTag(out, 1, protowire.BytesType)
		out = protowire.AppendBytes(out, one)
	}
	return out
}

// encode returns the compressed body of a request.
func encode(all []series) []byte {
	var out, one, s []byte
	for _, ts := range all {
		one = append(one[:0], ts.labels...)
		for _, v := range ts.samples {
			s = protowire.AppendTag(s[:0], 1, protowire.Fixed64Type)
			s = protowire.AppendFixed64(s, math.Float64bits(v.value))
			s = protowire.AppendTag(s, 2, protowire.VarintType)
			s = protowire.AppendVarint(s, uint64(v.ms))
			one = protowire.AppendTag(one, 2, protowire.BytesType)
			one = protowire.AppendBytes(one, s)
		}
		out = protowire.AppendTag(out, 1, protowire.BytesType)
		out = protowire.AppendBytes(out, one)
	}
	return snappy.Encode(nil, out)
}

func count(all []series) (n int) {
	for _, s := range all {
		n += len(s.samples)
	}
	return n
}

// key names a series within one page.
type key struct {
	box    identity.ID
	metric string
}

// pageOf gathers the samples of a page by series: within a request a series
// comes once, in the order of time. Boxes send live samples and backlog in
// turns, so a page holds both.
type pageOf struct {
	opts   *Options
	at     map[key]int
	all    []series
	tooOld int
}

func newPage(opts *Options) *pageOf { return &pageOf{opts: opts, at: map[key]int{}} }

// add takes the chosen metrics of t that are not older than oldestMs. Of two
// samples of a series at one time, the one committed last is kept.
func (p *pageOf) add(t export.Tailed, box export.Box, oldestMs int64) {
	for m, metric := range t.Samples.Schema.Metrics {
		if !p.opts.Series.Match(metric.Name) {
			continue
		}
		s := p.series(key{t.Box, metric.Name}, func() []label { return p.opts.labelsOf(t.Box, metric.Name) })
		for row, rel := range t.Samples.TimesMs {
			v, ms := t.Samples.Values[m][row], t.StartMs+rel
			switch {
			case math.IsNaN(v): // missing
			case ms < oldestMs:
				p.tooOld++
			default:
				s.samples = append(s.samples, sample{ms, v})
			}
		}
	}
	if box.ID != "" && t.StartMs >= oldestMs {
		s := p.series(key{box: t.Box}, func() []label { return p.opts.infoOf(box) })
		s.samples = append(s.samples, sample{t.StartMs, 1})
	}
}

func (p *pageOf) series(k key, labels func() []label) *series {
	i, seen := p.at[k]
	if !seen {
		i = len(p.all)
		p.at[k] = i
		p.all = append(p.all, series{labels: encodeLabels(labels())})
	}
	return &p.all[i]
}

// requests cuts the page into requests of at most limit samples. The parts of a
// series that is cut follow one another in time.
func (p *pageOf) requests(limit int) (out [][]series) {
	var now []series
	room := limit
	for _, s := range p.all {
		rest := inOrder(s.samples)
		for len(rest) > 0 {
			n := min(room, len(rest))
			now = append(now, series{s.labels, rest[:n]})
			rest, room = rest[n:], room-n
			if room == 0 {
				out, now, room = append(out, now), nil, limit
			}
		}
	}
	if len(now) > 0 {
		out = append(out, now)
	}
	return out
}

// inOrder sorts by time and keeps the last of those with one time.
func inOrder(samples []sample) []sample {
	slices.SortStableFunc(samples, func(a, b sample) int { return cmp.Compare(a.ms, b.ms) })
	out := samples[:0]
	for i, s := range samples {
		if i+1 < len(samples) && samples[i+1].ms == s.ms {
			continue
		}
		out = append(out, s)
	}
	return out
}

// labelsOf names the series of one metric of a box. Names of sensors follow the
// rules of Prometheus already; of a driver's odd name what does not fit becomes
// _, and the whole name goes into the label metric so that two never meet.
func (o *Options) labelsOf(id identity.ID, metric string) []label {
	base, sensor := export.SplitMetric(metric)
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' {
			return r
		}
		return '_'
	}, base)
	labels := []label{{"__name__", "edgeherd_" + name}, {"box", string(id)}, {"sensor", sensor}}
	if name != base {
		labels = append(labels, label{"metric", base})
	}
	return o.external(labels)
}

func (o *Options) infoOf(b export.Box) []label {
	return o.external([]label{{"__name__", "edgeherd_box_info"}, {"box", string(b.ID)}, {"name", b.Name}, {"site", b.Site}})
}

func (o *Options) external(labels []label) []label {
	for name, value := range o.Labels {
		labels = append(labels, label{name, value})
	}
	return labels
}
