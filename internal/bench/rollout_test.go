package bench

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/rollout"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/models"
)

// rolloutFigures are what one rollout of 100,000 boxes costs, and how many
// boxes a bad version reaches, and how soon a box is known to have been told.
func rolloutFigures(t *testing.T) []Figure {
	return slices.Concat(rolloutScale(t), rolloutAck(t), rolloutHarm(t))
}

// rolloutScale runs the conductor of a real controller on its database.
func rolloutScale(t *testing.T) []Figure {
	binary := filepath.Join(t.TempDir(), "controller")
	goTest(t, "-c", "-o", binary, "./controller")
	cmd := exec.Command(binary, "-test.v", "-test.run", "^TestALargeRolloutMovesInShortSteps$", "-test.timeout", "15m")
	cmd.Env = append(os.Environ(), "EDGEHERD_PROVE=1")
	cmd.Dir = filepath.Join(root(t), "controller")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	goals := map[string]Goal{"planning": {AtMost: 10}, "tick-max": {AtMost: 1}, "decision-p99": {AtMost: 2}, "memory": {AtMost: 1536}}
	var figures []Figure
	for _, m := range regexp.MustCompile(`figure (\S+) ([0-9.]+) (\S+)`).FindAllStringSubmatch(string(out), -1) {
		v, err := strconv.ParseFloat(m[2], 64)
		check(t, err)
		figures = append(figures, Figure{Name: m[1], Value: v, Unit: m[3], Goal: goals[m[1]]})
	}
	if len(figures) < 5 {
		t.Fatalf("the test printed %d figures:\n%s", len(figures), out)
	}
	return figures
}

// A fault is what is wrong with a version, and on which boxes.
type fault struct {
	name  string
	trait string // what a halt must say
	hits  func(fleetapi.Box) bool
	// harm is what a box that is hit reports; nil: such boxes go dark for good,
	// outageAfter the start, whatever they run.
	harm func(*rollout.Fact)
}

var faults = []fault{
	{"slow-on-a-class", "class jetson", func(b fleetapi.Box) bool { return b.Inventory.Class == "jetson" },
		func(f *rollout.Fact) { f.Probe.SecondsPerItem *= 2.5 }},
	{"wrong-at-a-site", "site site-3", func(b fleetapi.Box) bool { return b.Site == "site-3" },
		func(f *rollout.Fact) { f.Phase, f.Err = "failed", "golden sample differs"; f.Running = f.Was.Digest }},
	{"hot-when-dusty", "dust dusty", func(b fleetapi.Box) bool { return b.Thermal.Percent >= 15 },
		func(f *rollout.Fact) { f.Heat = &fleetapi.Heat{RiseKelvin: f.Heat.RiseKelvin + 12, Busy: f.Heat.Busy} }},
	{"dark-on-a-class", "class jetson", func(b fleetapi.Box) bool { return b.Inventory.Class == "jetson" },
		func(f *rollout.Fact) { f.Phase, f.Running, f.Link = "trial", f.Was.Digest, fleetapi.LinkSilent }},
}

// The policies that are compared. Each has the same limits for one box; the
// fixed one judges a wave by its share of bad boxes alone.
const (
	limits       = "latency: {ratio: 1.5, floor: 20ms}, temperature: {rise: 6}"
	fixedPolicy  = "waves: [5%, 25%, rest]\nsoak: 10m\nat_once: 100\ngates: {error_limit: 20%, min_sample: 50, " + limits + "}\n"
	judgedPolicy = "waves: [20, 2%, 10%, 30%, rest]\nsoak: 10m\nat_once: 20\ngates: {error_limit: 20%, evidence: {bad: 8%, halt: 0.95}, " + limits + "}\n"
)

const herdSize, herdRuns = 5000, 20

// rolloutHarm is the median number of affected boxes over several fleets.
func rolloutHarm(t *testing.T) []Figure {
	var figures []Figure
	for _, f := range faults {
		var ours, theirs []float64
		halted, named := 0.0, 0.0
		for seed := range herdRuns {
			a := expose(t, f, judgedPolicy, uint64(seed))
			b := expose(t, f, fixedPolicy, uint64(seed))
			ours, theirs = append(ours, a.affected), append(theirs, b.affected)
			if a.state == fleetapi.RolloutHalted {
				halted++
			}
			if strings.Contains(a.said, f.trait) {
				named++
			}
		}
		figures = append(figures,
			Figure{Name: f.name + "-affected", Value: median(ours), Unit: "boxes", Goal: Goal{AtMost: 0.5}}.Against("fixed percentages", median(theirs)),
			Figure{Name: f.name + "-halted", Value: halted / herdRuns, Unit: "share", Goal: Goal{AtLeast: 1}},
			Figure{Name: f.name + "-named", Value: named / herdRuns, Unit: "share", Goal: Goal{AtLeast: 0.8}})
	}
	passed, blackout := 0.0, 0.0
	for seed := range herdRuns {
		none := fault{hits: func(fleetapi.Box) bool { return false }}
		if expose(t, none, judgedPolicy, uint64(seed)).state == fleetapi.RolloutDone {
			passed++
		}
		// Of which nobody is to be blamed: three sites lose their power for good.
		dark := fault{hits: func(b fleetapi.Box) bool { return slices.Contains([]string{"site-5", "site-6", "site-7"}, b.Site) }}
		if expose(t, dark, judgedPolicy, uint64(seed)).state == fleetapi.RolloutDone {
			blackout++
		}
	}
	return append(figures, Figure{Name: "good-version-passes", Value: passed / herdRuns, Unit: "share", Goal: Goal{AtLeast: 0.95}},
		Figure{Name: "good-version-passes-in-an-outage", Value: blackout / herdRuns, Unit: "share", Goal: Goal{AtLeast: 0.95}})
}

type exposure struct {
	affected float64
	state    fleetapi.RolloutState
	said     string
}

// herd makes a fleet: a tenth of it jetsons, 40 sites, a fifth dusty.
func herd(r *rand.Rand) []fleetapi.Box {
	var out []fleetapi.Box
	for i := range herdSize {
		b := fleetapi.Box{ID: identity.ID(fmt.Sprintf("d-%013d", i)), Name: fmt.Sprintf("box-%05d", i), Site: fmt.Sprintf("site-%d", r.IntN(40)), Link: fleetapi.LinkLive}
		b.Inventory.Class, b.Inventory.Arch = "itx", "amd64"
		if r.IntN(10) == 0 {
			b.Inventory.Class = "jetson"
		}
		b.Thermal = fleetapi.Thermal{Known: true, Percent: 12 * r.Float64()}
		if r.IntN(5) == 0 {
			b.Thermal.Percent = 15 + 30*r.Float64()
		}
		b.Latest = map[string]fleetapi.Value{"temp_inlet_celsius": {Value: 18 + 20*r.Float64()}, "temp_die_celsius": {Value: 60}}
		out = append(out, b)
	}
	return out
}

// mostMinutes is what a box takes to answer an offer: after a halt some still do.
const mostMinutes = 3 * time.Minute

// outageAfter is when boxes of an outage go dark; powerBack is how long a box
// that lost its power for itself stays away.
const outageAfter, powerBack = 20 * time.Minute, 25 * time.Minute

// expose rolls a version with a fault out over a fleet. Two in a hundred boxes
// fail whatever the version, two lose their power during the trial and go on when
// it is back, three are silent for good, and measures scatter.
func expose(t *testing.T, bad fault, policy string, seed uint64) exposure {
	r := rand.New(rand.NewPCG(seed, 7))
	boxes := herd(r)
	now := time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	target := models.Ref{Name: "vad", Version: "2", Digest: blob.Sum([]byte("2"))}
	old := models.Ref{Name: "vad", Version: "1", Digest: blob.Sum([]byte("1"))}
	plan, err := rollout.Plan(rollout.Order{ID: "r-1", Kind: fleetapi.KindModel, Request: fleetapi.PlanRequest{Policy: policy}, Target: target, Boxes: boxes, Now: now})
	check(t, err)
	facts, at := map[identity.ID]rollout.Fact{}, map[identity.ID]fleetapi.Box{}
	for _, b := range boxes {
		facts[b.ID], at[b.ID] = before(r, old), b
	}
	c, err := rollout.NewCourse(plan, nil)
	check(t, err)
	c.Step([]rollout.Input{{Act: &rollout.Act{Action: rollout.ActStart}}}, now)
	w := &herdWorld{r: r, bad: bad, target: target, plan: plan.ID, facts: facts, boxes: at, told: map[identity.ID]bool{}, due: map[identity.ID]time.Time{}, cut: map[identity.ID]bool{}}
	began, changed := now, boxes
	for range 20_000 {
		now = now.Add(5 * time.Second)
		var in []rollout.Input
		for _, b := range changed {
			if i, ok := c.Observe(b.ID, facts[b.ID]); ok {
				in = append(in, i)
			}
		}
		_, actions := c.Step(in, now)
		if r := c.Rollout(); r.State != fleetapi.RolloutRunning && now.Sub(*r.Ended) > mostMinutes {
			break
		}
		changed = w.pass(actions, now)
		if bad.harm == nil && now.Sub(began) == outageAfter {
			changed = append(changed, w.blackout()...)
		}
	}
	n := 0.0
	for id := range w.told {
		if bad.hits(at[id]) {
			n++
		}
	}
	end := c.Rollout()
	return exposure{n, end.State, end.Sentence + " " + end.Affected}
}

// herdWorld is what boxes do between two steps.
type herdWorld struct {
	r      *rand.Rand
	bad    fault
	target models.Ref
	plan   string
	facts  map[identity.ID]rollout.Fact
	boxes  map[identity.ID]fleetapi.Box
	told   map[identity.ID]bool
	due    map[identity.ID]time.Time // when a box that is at work answers
	cut    map[identity.ID]bool      // lost its power once
	out    map[identity.ID]bool      // dark for good
	// waiting are those at work, in the order in which they were told.
	waiting []identity.ID
}

// pass carries offers out and lets boxes answer whose time has come.
func (w *herdWorld) pass(actions []rollout.Action, now time.Time) (changed []fleetapi.Box) {
	for _, a := range actions {
		f := w.facts[a.Offer]
		f.Desired, f.DesiredRollout = w.target.Digest, w.plan
		w.facts[a.Offer] = f
		changed = append(changed, w.boxes[a.Offer])
		if !w.told[a.Offer] {
			w.told[a.Offer] = true
			w.waiting = append(w.waiting, a.Offer)
			w.due[a.Offer] = now.Add(time.Minute + time.Duration(w.r.Int64N(int64(mostMinutes-time.Minute))))
		}
	}
	waiting := w.waiting
	w.waiting = nil
	for _, id := range waiting { // in the order of offers, so that a seed gives the same again
		if w.due[id].After(now) || w.out[id] {
			w.waiting = append(w.waiting, id)
			continue
		}
		changed = append(changed, w.boxes[id])
		if !w.cut[id] && w.r.Float64() < 0.02 {
			f := w.facts[id]
			f.Phase, f.Link = "trial", fleetapi.LinkSilent
			w.facts[id], w.cut[id], w.due[id] = f, true, now.Add(powerBack)
			w.waiting = append(w.waiting, id)
			continue
		}
		delete(w.due, id)
		w.facts[id] = afterwards(w.r, w.facts[id], w.target, func(f *rollout.Fact) {
			if w.bad.hits(w.boxes[id]) && w.bad.harm != nil {
				w.bad.harm(f)
			}
		})
	}
	return changed
}

// blackout takes the power from all boxes that the fault hits. Those at work got
// as far as the trial.
func (w *herdWorld) blackout() (changed []fleetapi.Box) {
	w.out = map[identity.ID]bool{}
	for id, b := range w.boxes {
		if !w.bad.hits(b) {
			continue
		}
		f := w.facts[id]
		if _, working := w.due[id]; working {
			f.Phase = "trial"
		}
		f.Link, w.out[id] = fleetapi.LinkSilent, true
		w.facts[id] = f
		changed = append(changed, b)
	}
	return changed
}

// before is what is known of a box that runs the old version.
func before(r *rand.Rand, old models.Ref) rollout.Fact {
	return rollout.Fact{
		Link: fleetapi.LinkLive, Running: old.Digest, Version: old.Version,
		Was:  &runnerapi.Probe{Ref: old, OK: true, SecondsPerItem: 0.04 + 0.02*r.Float64()},
		Heat: &fleetapi.Heat{RiseKelvin: 25 + 10*r.Float64(), Busy: 0.5},
	}
}

// afterwards is what a box reports of the new version.
func afterwards(r *rand.Rand, f rollout.Fact, target models.Ref, harm func(*rollout.Fact)) rollout.Fact {
	switch p := r.Float64(); {
	case p < 0.03:
		f.Link = fleetapi.LinkSilent
		return f
	case p < 0.05:
		f.Link, f.Phase, f.Err = fleetapi.LinkLive, "failed", "its disk is worn out"
		return f
	}
	f.Link, f.Phase, f.Running, f.Version = fleetapi.LinkLive, "active", target.Digest, target.Version
	f.Probe = &runnerapi.Probe{Ref: target, OK: true, SecondsPerItem: f.Was.SecondsPerItem * (0.9 + 0.2*r.Float64())}
	f.Heat = &fleetapi.Heat{RiseKelvin: f.Heat.RiseKelvin + 2*r.NormFloat64(), Busy: 0.5}
	harm(&f)
	return f
}
