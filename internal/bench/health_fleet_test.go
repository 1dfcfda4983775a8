package bench

import (
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/edgeherd/edgeherd/internal/health"
	"github.com/edgeherd/edgeherd/internal/simboard/plant"
)

// healthFleet is a simulated fleet as the product gets it.
type healthFleet struct {
	truth   plant.Truth
	table   *health.Table
	changes []health.Change
	seen    []watched
	index   map[string]int // of a box in the truth
}

// each spreads work over the processors.
func each(n int, do func(i int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), n) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				do(i)
			}
		})
	}
	wg.Wait()
}

func simulate(t testing.TB, o plant.Options) *healthFleet {
	fleet, err := plant.New(o)
	if err != nil {
		t.Fatal(err)
	}
	boxes := fleet.Boxes()
	truths := make([]plant.BoxTruth, len(boxes))
	tables := make([]*health.Table, len(boxes))
	each(len(boxes), func(i int) {
		var l health.Loader
		truths[i] = fleet.Simulate(i, func(x *plant.Row) {
			s := sampleOf(x)
			l.Take(x.Box, x.SKU, x.Site, &s)
		})
		tables[i] = l.Done()
	})
	f := &healthFleet{truth: fleet.Join(truths), table: &health.Table{}, index: map[string]int{}}
	for i := range f.truth.Boxes {
		f.index[f.truth.Boxes[i].Box] = i
	}
	for _, one := range tables {
		f.table.Series = append(f.table.Series, one.Series...)
	}
	for _, e := range fleet.Events() {
		f.changes = append(f.changes, health.Change{At: e.Time.Unix(), Box: e.Box, Site: e.Site, Kind: e.Kind, Detail: e.Detail})
	}
	f.look()
	return f
}

// sampleOf is what the CSV reader would make of a row.
func sampleOf(x *plant.Row) health.Sample {
	s := health.Sample{Time: x.Time, Count: x.Samples, V: health.Blank()}
	for f, v := range map[health.Field]float64{
		health.Die: x.DieC, health.Inlet: x.InletC, health.Board: x.BoardC, health.NVMe: x.NVMeC, health.Exhaust: x.ExhaustC,
		health.Room: x.RoomC, health.Power: x.PowerW, health.PWM: x.PWMRatio, health.RPM1: x.RPM[0], health.RPM2: x.RPM[1],
		health.RPM3: x.RPM[2], health.RPM4: x.RPM[3], health.Throttled: x.Throttled, health.Clock: x.ClockHz, health.Busy: x.BusyRatio,
		health.PowerSD: x.PowerSD, health.PWMSD: x.PWMSD, health.RPMSD: x.RPMSD, health.NVMeUsed: 100 * x.SSDUsed, health.PSUIn: x.InputW,
	} {
		if v == v {
			s.V[f], _ = health.Check(f, v)
		}
	}
	return s
}

// blind takes all references for the air away.
func (f *healthFleet) blind() {
	for _, s := range f.table.Series {
		s.Each(func(h *health.Hour) bool {
			h.V[health.Inlet], h.V[health.Room] = health.Missing(), health.Missing()
			return true
		})
	}
	f.look()
}

// look notes how long each box was seen and whether its air was known.
func (f *healthFleet) look() {
	f.seen = make([]watched, len(f.truth.Boxes))
	sites := map[string]int{}
	for i := range f.truth.Sites {
		sites[f.truth.Sites[i].Site] = i
	}
	lends := make([]bool, len(f.truth.Sites))
	own := make([]bool, len(f.seen))
	for _, s := range f.table.Series {
		i := f.index[s.Box]
		w := &f.seen[i]
		w.site, w.years = sites[s.Site], float64(s.Len())/(24*365.25)
		with, told := 0, 0
		start := f.truth.Start.Unix()
		w.hours = make([]uint64, (f.truth.Days*24+63)/64)
		s.Each(func(h *health.Hour) bool {
			if w.from == 0 {
				w.from = h.Start
			}
			if at := (h.Start - start) / 3600; at >= 0 && at < int64(len(w.hours))*64 {
				w.hours[at/64] |= 1 << (at % 64)
			}
			if h.V[health.Inlet].OK() || h.V[health.Room].OK() {
				with++
			}
			if slices.ContainsFunc(h.V[health.RPM1:health.RPM1+health.Fans], health.Value.OK) {
				told++
			}
			w.drive = w.drive || h.V[health.NVMeUsed].OK()
			w.supply = w.supply || h.V[health.PSUIn].OK()
			return true
		})
		w.told = float64(told) > 0.6*float64(s.Len())
		own[i] = float64(with) > 0.6*float64(s.Len())
		lends[w.site] = lends[w.site] || own[i]
	}
	for i := range f.seen {
		f.seen[i].reference = own[i] || lends[f.seen[i].site]
	}
}

// detect is the product's own judgement.
func (f *healthFleet) detect() ([]ticket, *health.Report) {
	return f.detectBy(nil)
}

// detectBy tells day of each box that was judged.
func (f *healthFleet) detectBy(day func(*health.Box)) ([]ticket, *health.Report) {
	r := health.Replay(f.table, f.changes, health.ReplayOptions{Each: each, Day: day})
	var out []ticket
	for i := range r.Findings {
		x := &r.Findings[i]
		if x.Ticketed == 0 {
			continue
		}
		t := ticket{box: f.index[x.Box], cause: x.Cause, at: int64(x.Ticketed), until: math.MaxInt64, forecast: x.AtTicket}
		if x.Closed != 0 {
			t.until = int64(x.Closed)
		}
		switch {
		case strings.HasPrefix(x.Family, "fan"):
			t.fan = true
		case x.Cause == health.CauseSensor:
			t.kind = aboutSensor
		case x.Cause == health.CauseDrive:
			t.kind = aboutDrive
		case x.Cause == health.CauseSupply:
			t.kind = aboutSupply
		}
		out = append(out, t)
	}
	return out, r
}

// static is a rule that looks at one day of a box and says whether it alarms.
// Alarms rest for 14 days.
const rearm = 14 * day

type staticRule struct {
	name string
	// alarms returns the ends of the hours or days in which the rule fires.
	alarms func(s *health.Series, trip float64) []int64
}

// zRule is the place of z>3 among the static rules.
const zRule = 2

var staticRules = []staticRule{
	{"die>=85", func(s *health.Series, _ float64) []int64 { return hotHours(s, 85) }},
	{"die>=trip-4", func(s *health.Series, trip float64) []int64 { return hotHours(s, trip-4) }},
	{"z>3", highDays},
	{"throttle", func(s *health.Series, _ float64) []int64 { return throttledDays(s) }},
}

func (f *healthFleet) static(rule staticRule) []ticket {
	trips := f.trips()
	var out []ticket
	for _, s := range f.table.Series {
		box := f.index[s.Box]
		n := len(out)
		for _, at := range rule.alarms(s, trips[s.SKU]) {
			if len(out) > n && at < out[len(out)-1].at+rearm {
				out[len(out)-1].until = at
				continue
			}
			out = append(out, ticket{box: box, at: at, until: at})
		}
	}
	return out
}

// trips are the die temperatures at which the boxes of each SKU were seen to
// throttle for most of an hour, else 95 °C.
func (f *healthFleet) trips() map[string]float64 {
	seen := map[string][]float64{}
	for _, s := range f.table.Series {
		seen[s.SKU] = append(seen[s.SKU], []float64{}...)
		s.Each(func(h *health.Hour) bool {
			if h.V[health.Throttled] > 0.5 && h.V[health.Die].OK() {
				seen[s.SKU] = append(seen[s.SKU], float64(h.V[health.Die]))
			}
			return true
		})
	}
	out := map[string]float64{}
	for sku, v := range seen {
		out[sku] = 95
		if len(v) > 0 {
			slices.Sort(v)
			out[sku] = v[len(v)/2]
		}
	}
	return out
}

// hotHours: a quarter of an hour cannot be told from hourly means; the mean of
// the hour stands for it.
func hotHours(s *health.Series, limit float64) []int64 {
	var out []int64
	s.Each(func(h *health.Hour) bool {
		if float64(h.V[health.Die]) >= limit {
			out = append(out, h.Start+3600)
		}
		return true
	})
	return out
}

// perDay calls do with the sum of each day.
func perDay(s *health.Series, value func(h *health.Hour) float64, do func(d int64, sum float64, n int)) {
	var last int64
	sum, n := 0.0, 0
	s.Each(func(h *health.Hour) bool {
		if d := h.Start / day; d != last {
			if n > 0 {
				do(last, sum, n)
			}
			last, sum, n = d, 0, 0
		}
		if v := value(h); v == v {
			sum, n = sum+v, n+1
		}
		return true
	})
	if n > 0 {
		do(last, sum, n)
	}
}

// highDays: the daily mean lies 3 σ above that of the days 2 to 28, on three
// days in a row.
func highDays(s *health.Series, _ float64) []int64 {
	var base []float64
	var mean, sd float64
	var out []int64
	first, row := int64(0), 0
	perDay(s, func(h *health.Hour) float64 { return float64(h.V[health.Die]) }, func(d int64, sum float64, n int) {
		if first == 0 {
			first = d
		}
		m := sum / float64(n)
		switch {
		case d < first+28:
			if d > first {
				base = append(base, m)
			}
			return
		case sd == 0:
			for _, v := range base {
				mean += v / float64(len(base))
			}
			for _, v := range base {
				sd += (v - mean) * (v - mean) / float64(len(base))
			}
			sd = max(math.Sqrt(sd), 0.1)
		}
		if row++; m <= mean+3*sd {
			row = 0
		}
		if row >= 3 {
			out = append(out, (d+1)*day)
		}
	})
	return out
}

// throttledDays: more than six minutes of a day.
func throttledDays(s *health.Series) []int64 {
	var out []int64
	perDay(s, func(h *health.Hour) float64 { return float64(h.V[health.Throttled]) }, func(d int64, sum float64, _ int) {
		if sum > 0.1 {
			out = append(out, (d+1)*day)
		}
	})
	return out
}
