package bench

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/care"
	"github.com/edgeherd/edgeherd/internal/health"
	"github.com/edgeherd/edgeherd/internal/simboard/plant"
)

// The fleets that healthScores judges: a year of each family that nothing was
// tuned on, as it is and with all references for the air taken away.
const (
	heldBoxes  = 200
	blindBoxes = 80
	heldSeed   = 20260
)

// judgedFamilies are held0 to held5, or those that EDGEHERD_BENCH_FAMILIES
// names (held3,held4 or dev0,dev1). The later ones are judged only when named:
// a family is unseen but once.
func judgedFamilies() []string {
	if names := os.Getenv("EDGEHERD_BENCH_FAMILIES"); names != "" {
		return strings.Split(names, ",")
	}
	return slices.DeleteFunc(plant.Families(), func(name string) bool {
		return !strings.HasPrefix(name, "held") || len(name) > len("held5") || name > "held5"
	})
}

// rivals are results of the static rules, in their order.
type rivals []*result

// healthScores holds the detectors and the static rules against simulated
// fleets. The detectors were tuned on dev0 to dev2 only.
func healthScores(t *testing.T) []Figure {
	total, others := newResult(), make(rivals, len(staticRules))
	for i := range others {
		others[i] = newResult()
	}
	blind, together := newResult(), &groups{}
	var each []Figure
	for _, family := range judgedFamilies() {
		f := simulate(t, plant.Options{Seed: heldSeed, Family: family, Boxes: heldBoxes})
		days := &stands{day: map[int32][]care.Member{}}
		tickets, report := f.detectBy(days.note)
		r := judge(&f.truth, f.seen, tickets, report.Incidents)
		total.add(r)
		together.add(f.grouped(days, report.Findings, f.static(staticRules[zRule])))
		for i, rule := range staticRules {
			others[i].add(judge(&f.truth, f.seen, f.static(rule), nil))
		}
		f = simulate(t, plant.Options{Seed: heldSeed + 1, Family: family, Boxes: blindBoxes})
		f.blind()
		tickets, report = f.detect()
		without := judge(&f.truth, f.seen, tickets, report.Incidents)
		blind.add(without)
		each = append(each,
			r.badWith.figure(family+"/false-tickets", Goal{}), without.bad.figure(family+"/false-tickets-without", Goal{}),
			r.recallWith.figure(family+"/recall", Goal{}), without.recallWithout.figure(family+"/recall-without", Goal{}),
			r.slowLead.figure(family+"/slow-clog", Goal{}), r.interval.figure(family+"/interval", Goal{}))
	}
	return slices.Concat(total.figures(others, blind), together.figures(), each)
}

func (s share) figure(name string, goal Goal) Figure {
	low, high := s.wilson()
	return Figure{Name: name, Value: s.ratio(), Unit: "share", Goal: goal, Beside: fmt.Sprintf("95 %%: %.2f-%.2f of %d", low, high, s.of)}
}

func (r rate) figure(name string, goal Goal) Figure {
	low, high := poisson(r.n)
	return Figure{Name: name, Value: r.perYear(), Unit: "/box-year", Goal: goal, Beside: fmt.Sprintf("95 %%: %.3f-%.3f of %d", low/r.years, high/r.years, r.n)}
}

// beside adds what each static rule reached.
func (f Figure) beside(all rivals, value func(r *result) float64) Figure {
	for i, r := range all {
		f.Beside += fmt.Sprintf("; %s %.2f", staticRules[i].name, value(r))
	}
	return f
}

func (r *result) figures(others rivals, blind *result) []Figure {
	out := []Figure{
		r.bad.figure("false-tickets", Goal{AtMost: 0.2}).beside(others, func(o *result) float64 { return o.bad.perYear() }),
		r.badWith.figure("false-tickets/with-reference", Goal{AtMost: 0.1}),
		rate{r.badOf[aboutHeat], r.bad.years}.figure("false-tickets/heat", Goal{}),
		rate{r.badOf[aboutSensor], r.bad.years}.figure("false-tickets/sensors", Goal{}),
		rate{r.badOf[aboutDrive], r.bad.years}.figure("false-tickets/drives", Goal{}),
		rate{r.badOf[aboutSupply], r.bad.years}.figure("false-tickets/supplies", Goal{}),
		blind.bad.figure("false-tickets/without", Goal{AtMost: 0.2}),
		r.recallWith.figure("recall/with-reference", Goal{AtLeast: 0.95}).beside(others, func(o *result) float64 { return o.recallWith.ratio() }),
		blind.recallWithout.figure("recall/without", Goal{AtLeast: 0.8}),
		r.slowLead.figure("slow-clog/14-days", Goal{AtLeast: 0.7}).beside(others, func(o *result) float64 { return o.slowLead.ratio() }),
		r.slowPossible.figure("slow-clog/14-days-visible", Goal{}),
		r.wearLead.figure("fan-wear/7-days", Goal{AtLeast: 0.9}).beside(others, func(o *result) float64 { return o.wearLead.ratio() }),
		r.wearTold.figure("fan-wear/7-days/told", Goal{}),
		r.wearSilent.figure("fan-wear/7-days/silent", Goal{}),
		r.silentDue.figure("fan-wear/7-days/silent-any-ticket", Goal{}),
		r.silentShown.figure("fan-wear/7-days/silent-shown", Goal{}),
		r.silentFound.figure("fan-wear/7-days/silent-shown-found", Goal{}),
		r.vent.figure("vent/found", Goal{}).beside(others, func(o *result) float64 { return o.vent.ratio() }),
		hoursFigure("vent/hours", r.ventHours).beside(others, func(o *result) float64 { return middleOf(o.ventHours) }),
		r.hvac.figure("room/found", Goal{}),
		hoursFigure("room/hours", r.hvacHours),
		{Name: "room/false", Value: r.hvacBad.perYear(), Unit: "/site-year"},
	}
	for _, c := range []struct {
		truth plant.Cause
		named health.Cause
		goal  float64
	}{{plant.Clog, health.CauseAirflow, 0.85}, {plant.FanWear, health.CauseFanWear, 0.95}, {plant.Vent, health.CauseVent, 0.8}, {plant.Paste, health.CausePaste, 0.7}} {
		s, wrong := r.named(c.truth, c.named)
		f := s.figure("cause/"+string(c.truth), Goal{AtLeast: c.goal})
		f.Beside += fmt.Sprintf("; wrong %.2f, the rest undetermined", wrong.ratio())
		out = append(out, f)
	}
	out = append(out, r.calledTold.figure("cause/fan-wear/told", Goal{}), r.calledSilent.figure("cause/fan-wear/silent", Goal{}))
	inside := r.interval.figure("interval", Goal{AtLeast: 0.75})
	inside.Beside += fmt.Sprintf(" (75-85 %% wanted); before it %d, after it %d; mid - truth %.0f days", r.early, r.late, middleOf(r.middle))
	return append(out, inside, r.stuck.figure("sensor/found", Goal{}), r.drive.figure("drive/found", Goal{}), r.supply.figure("supply/found", Goal{}))
}

func hoursFigure(name string, hours []float64) Figure {
	hours = slices.Sorted(slices.Values(hours))
	f := Figure{Name: name, Value: middleOf(hours), Unit: "h", Goal: Goal{AtMost: 12}}
	if n := len(hours); n > 0 {
		f.Beside = fmt.Sprintf("median; 9 of 10 within %.0f h", hours[(n-1)*9/10])
	}
	return f
}

func middleOf(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// named is how many of a cause were called so, and how many something else;
// undetermined is neither.
func (r *result) named(truth plant.Cause, want health.Cause) (right, wrong share) {
	for c, n := range r.causes[truth] {
		right.of, wrong.of = right.of+n, wrong.of+n
		switch c {
		case want:
			right.hits += n
		case health.CauseUndetermined:
		default:
			wrong.hits += n
		}
	}
	return right, wrong
}

// replayBoxes boxes of hourly rows of a year are read and judged.
const replayBoxes = 1000

// healthReplay is what `edgeherd health replay` does with them: the CSV files
// are written first and not counted.
func healthReplay(t *testing.T) []Figure {
	fleet, err := plant.New(plant.Options{Seed: heldSeed, Boxes: replayBoxes})
	check(t, err)
	dir := t.TempDir()
	var paths []string
	const parts = 8
	for k := range parts {
		paths = append(paths, filepath.Join(dir, fmt.Sprint(k, ".csv")))
	}
	each(parts, func(k int) {
		file, err := os.Create(paths[k])
		check(t, err)
		w, err := plant.NewRowWriter(file, false)
		check(t, err)
		for i := k * replayBoxes / parts; i < (k+1)*replayBoxes/parts; i++ {
			fleet.Simulate(i, func(x *plant.Row) { check(t, w.Write(x)) })
		}
		check(t, w.Flush())
		check(t, file.Close())
	})
	began, busy := time.Now(), cpuSeconds(t)
	var l health.Loader
	bytes := 0.0
	for _, p := range paths {
		file, err := os.Open(p)
		check(t, err)
		info, err := file.Stat()
		check(t, err)
		bytes += float64(info.Size())
		check(t, l.Read(p, file))
		check(t, file.Close())
	}
	read := time.Since(began)
	table := l.Done()
	report := health.Replay(table, nil, health.ReplayOptions{Each: each})
	took, busy := time.Since(began), cpuSeconds(t)-busy
	if len(report.Boxes) != replayBoxes {
		t.Errorf("%d boxes were judged, want %d", len(report.Boxes), replayBoxes)
	}
	return []Figure{
		{Value: took.Seconds(), Unit: "s", Goal: Goal{AtMost: 60}, Beside: fmt.Sprintf("%d boxes, %d rows, %.0f MB", replayBoxes, table.Rows, bytes/1e6)},
		{Name: "read", Value: read.Seconds(), Unit: "s"},
		{Name: "processor", Value: busy, Unit: "s", Beside: "user and system, of all processors: what a loaded machine does not change"},
	}
}

// TestDetectorsFindWhatIsWrongWithATinyFleet keeps the road from simulator to
// score open; the figures are the bench's.
func TestDetectorsFindWhatIsWrongWithATinyFleet(t *testing.T) {
	f := simulate(t, plant.Options{Seed: 4, Family: "dev1", Boxes: 16, Days: 200})
	tickets, report := f.detect()
	r := judge(&f.truth, f.seen, tickets, report.Incidents)
	all := share{r.recallWith.hits + r.recallWithout.hits, r.recallWith.of + r.recallWithout.of}
	if all.of < 3 || all.ratio() < 0.7 {
		t.Errorf("%d of %d faults found", all.hits, all.of)
	}
	if r.bad.perYear() > 0.5 {
		t.Errorf("%d false tickets in %.1f box-years", r.bad.n, r.bad.years)
	}
	for _, f := range r.figures(rivals{newResult(), newResult(), newResult(), newResult()}, newResult()) {
		if strings.Contains(f.Name, " ") {
			t.Errorf("figure %q", f.Name)
		}
	}
}
