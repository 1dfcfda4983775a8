package sense

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// plan says which files to read and what to make of them.
type plan struct {
	probes   []*probe
	outputs  []*output
	dieLimit float64 // °C, 0 when the die's sensor names none
	maxHertz float64 // mean of what the cpufreq policies allow, 0 when unknown
	sources  []*source
	packages int // CPU packages with a counter of throttled time
}

// output is one metric.
type output struct {
	sensor Sensor
	name   string // sensor.Metric, with the label in braces if any
	from   []int  // indexes into plan.probes
	// partial outputs make do with the probes that answered, at least one;
	// all others are left out as soon as one probe is missing.
	partial bool
	eval    func(o *output, in []sample) (float64, bool)
	misses  int      // Reads without a value, in a row; guarded by Sampler.mu
	prev    []sample // inputs of the previous Read, for rates; guarded by Sampler.mu
}

func (o *output) value(results []result) (float64, bool) {
	in := make([]sample, 0, len(o.from))
	for _, i := range o.from {
		if results[i].err == nil {
			in = append(in, results[i].sample)
		} else if !o.partial {
			o.prev = nil // a rate over a gap would be a rate of something else
			return 0, false
		}
	}
	if len(in) == 0 {
		return 0, false
	}
	return o.eval(o, in)
}

// keepRates lets rates go on across a discovery.
func (p *plan) keepRates(old *plan) {
	if old == nil {
		return
	}
	before := map[string]*output{}
	for _, o := range old.outputs {
		before[o.sensor.Key+"\x00"+o.name] = o
	}
	for _, o := range p.outputs {
		if last := before[o.sensor.Key+"\x00"+o.name]; last != nil {
			o.misses = last.misses
			if len(last.prev) == len(o.from) {
				o.prev = last.prev
			}
		}
	}
}

func last(_ *output, in []sample) (float64, bool) { return in[0].a, true }

func sum(_ *output, in []sample) (float64, bool) {
	total := 0.0
	for _, s := range in {
		total += s.a
	}
	return total, true
}

func mean(o *output, in []sample) (float64, bool) {
	total, _ := sum(o, in)
	return total / float64(len(in)), true
}

func highest(_ *output, in []sample) (float64, bool) {
	return slices.MaxFunc(in, func(x, y sample) int { return cmp.Compare(x.a, y.a) }).a, true
}

// unlessFault is for the value of a sensor and, if it has one, its fault file.
func unlessFault(_ *output, in []sample) (float64, bool) {
	return in[0].a, len(in) < 2 || in[1].a == 0
}

// positive is for what is never zero while it works.
func positive(_ *output, in []sample) (float64, bool) { return in[0].a, in[0].a > 0 }

// product multiplies pairs (V, A) and adds them up: the power of rails.
func product(_ *output, in []sample) (float64, bool) {
	total := 0.0
	for i := 0; i+1 < len(in); i += 2 {
		total += in[i].a * in[i+1].a
	}
	return total, total > 0
}

// usedRatio is for samples of (available, total).
func usedRatio(_ *output, in []sample) (float64, bool) { return 1 - in[0].a/in[0].b, true }

// busyRatio is for samples of (busy, total) that only grow.
func busyRatio(o *output, in []sample) (float64, bool) {
	prev := o.prev
	o.prev = slices.Clone(in)
	if prev == nil {
		return 0, false
	}
	busy, total := in[0].a-prev[0].a, in[0].b-prev[0].b
	if total <= 0 || busy < 0 {
		return 0, false
	}
	return min(busy/total, 1), true
}

// maxWatts is above anything a box can draw; a larger value is a counter that
// was reset, not power.
const maxWatts = 5000

// energyRate makes watts of energy counters in joules. ranges holds what each
// counter wraps at, 0 for never. After minutes without a read a counter may
// have wrapped more than once (262 kJ at 500 W: 9 minutes), so the rate starts
// afresh. A step back that would mean more than most watts was no wrap but a
// reset.
func energyRate(ranges []float64, most float64) func(o *output, in []sample) (float64, bool) {
	const longest = 300 // s
	return func(o *output, in []sample) (float64, bool) {
		prev := o.prev
		o.prev = slices.Clone(in)
		if prev == nil {
			return 0, false
		}
		watts := 0.0
		for i := range in {
			seconds := in[i].at.Sub(prev[i].at).Seconds()
			if seconds <= 0 || seconds > longest {
				return 0, false
			}
			joules := in[i].a - prev[i].a
			if joules < 0 {
				if ranges[i] == 0 {
					return 0, false // a counter of 64 bits does not wrap: it was reset
				}
				joules += ranges[i]
			}
			watts += joules / seconds
		}
		return watts, watts > 0 && watts <= most
	}
}

// builder collects a plan.
type builder struct {
	root   string
	tracks *trackSet
	plan   plan
	byPath map[string]int
	labels map[string]int // how often a metric name was given out
	read   func(path string, buf []byte) (int, error)
	// patience is how long a discovery waits for one file.
	patience time.Duration
	roles    map[string]string
	// throttleMs are the probes of the packages' throttled time.
	throttleMs []int
	turned     []string // keys of fans that have turned, in the order of the figures
}

// probe adds a file once and returns its index.
func (b *builder) probe(path string, parse func([]byte) (sample, error)) int {
	tr := b.tracks.get(path)
	return b.probeFunc(path, func(buf []byte) (sample, error) {
		n, err := b.read(path, buf)
		if err != nil {
			return sample{}, err
		}
		// A file that used to end its line and now does not was read half.
		if ends := n > 0 && buf[n-1] == '\n'; ends {
			tr.ends.Store(true)
		} else if n < len(buf) && tr.ends.Load() {
			return sample{}, errHalf
		}
		s, err := parse(buf[:n])
		if err == errNoValue {
			err = fmt.Errorf("%w: %.20q", errNoValue, strings.TrimSpace(string(buf[:n])))
		}
		return s, err
	})
}

func (b *builder) probeFunc(path string, get func([]byte) (sample, error)) int {
	if i, ok := b.byPath[path]; ok {
		return i
	}
	b.plan.probes = append(b.plan.probes, &probe{path: path, get: get, track: b.tracks.get(path)})
	b.byPath[path] = len(b.plan.probes) - 1
	return b.byPath[path]
}

// output adds a metric. Sensors of one label are told apart by #2, #3, in the
// order of their keys, which is the order in which they are added.
func (b *builder) output(s Sensor, partial bool, eval func(*output, []sample) (float64, bool), from ...int) *output {
	name := s.Name()
	b.labels[name]++
	if n := b.labels[name]; n > 1 {
		if s.Label == "" { // a plain name belongs to one sensor only
			return nil
		}
		s.Label = fmt.Sprintf("%s#%d", s.Label, n)
		name = s.Name()
	}
	o := &output{sensor: s, name: name, from: from, partial: partial, eval: finite(eval)}
	b.plan.outputs = append(b.plan.outputs, o)
	return o
}

func finite(eval func(*output, []sample) (float64, bool)) func(*output, []sample) (float64, bool) {
	return func(o *output, in []sample) (float64, bool) {
		v, ok := eval(o, in)
		return v, ok && !math.IsNaN(v) && !math.IsInf(v, 0)
	}
}
