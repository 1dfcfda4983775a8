package plant

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
)

// deed is what people do to a box.
type deed int

const (
	wipe deed = iota
	replaceFan
	replacePaste
	move
	flashBIOS
	setPower
	rollOut
	shed // nobody did it: a part of the lint fell off
)

// action is a deed at an hour with its effects; the unused ones are zero.
type action struct {
	hour   int
	do     deed
	logged bool
	keeps  float64 // share of the dust that cleaning leaves
	gain   float64 // factor on dynamic power, or on the speed of a new fan
	spread float64 // factor on Rjc: another model works elsewhere on the die
	shift  float64 // K at the new place; K of the fan curve
	recirc float64
	fan    int
}

// plan is all that will happen to a box, apart from dust and weather.
type plan struct {
	faults   []*fault
	actions  []action
	events   []Event
	strength float64 // of dust at loading 1
	dustRise float64 // it reaches then
	luck     float64 // dust of this box relative to its site
	x0       float64 // loading at the start
	gone     []window
}

// change is a rollout or a firmware release that reaches many boxes in a wave.
type change struct {
	hour, wave   int // start, length in hours
	kind, detail string
	do           deed
	sku          int // -1 all
	gain, spread float64
	shift        float64
}

func drawChanges(f *Fleet, r *rand.Rand) []change {
	fam := &f.family
	years := float64(f.opts.Days) / 365
	var all []change
	either := func(s span) float64 {
		if r.IntN(2) == 0 {
			return 1 / (1 + s.draw(r))
		}
		return 1 + s.draw(r)
	}
	for i := range poisson(r, fam.Spans[rollouts].draw(r)*years) {
		all = append(all, change{
			hour: r.IntN(f.hours), wave: 24 * (1 + r.IntN(10)), kind: "rollout", detail: fmt.Sprintf("model v%d", i+2),
			do: rollOut, sku: r.IntN(len(f.skus)+1) - 1, gain: either(fam.Spans[rollGain]), spread: either(fam.Spans[rollSpread]),
		})
	}
	for range poisson(r, fam.Rates[biosFlash]*years) {
		all = append(all, change{
			hour: r.IntN(f.hours), wave: 24 * (2 + r.IntN(20)), kind: "bios", detail: "fan curve", do: flashBIOS,
			sku: r.IntN(len(f.skus)), shift: 8*r.Float64() - 4,
		})
	}
	return all
}

// planner draws the plan of one box.
type planner struct {
	f *Fleet
	b *box
	r *rand.Rand
	p plan
}

func (f *Fleet) planBox(b *box, skuIndex int) {
	w := &planner{f: f, b: b, r: streamOf(b.seed, "plan").rng()}
	years := float64(f.hours-b.start) / (365 * 24)
	w.dust()
	w.changes(skuIndex)
	w.single(years)
	w.sheds(years)
	if !f.opts.Healthy {
		w.faults(years)
	}
	w.visits()
	for range poisson(w.r, 0.3*years) {
		from := w.hour()
		w.p.gone = append(w.p.gone, window{from, from + 1 + w.r.IntN(60)}) // switched off
	}
	slices.SortFunc(w.p.actions, func(a, b action) int { return cmp.Compare(a.hour, b.hour) })
	slices.SortFunc(w.p.faults, func(a, b *fault) int { return cmp.Compare(a.on, b.on) })
	b.plan = w.p
}

func (w *planner) hour() int { return w.b.start + w.r.IntN(w.f.hours-w.b.start) }

// dust fixes how this box takes the dust of its site.
func (w *planner) dust() {
	b := w.b
	w.p.strength, w.p.dustRise = b.calibrate(b.sku.clogRise.draw(w.r), func(c *condition, k float64) { b.hw.dustOn(c, 1, k) })
	w.p.luck = math.Exp(w.f.family.Spans[boxDust].draw(w.r) * w.r.NormFloat64())
	if !w.f.opts.Healthy && w.r.Float64() < 0.15 {
		w.p.x0 = 0.25 * w.r.Float64() // taken over after some service
	}
}

// changes takes this box' place in each wave.
func (w *planner) changes(sku int) {
	for _, c := range w.f.changes {
		h := c.hour + w.r.IntN(c.wave)
		if c.sku >= 0 && c.sku != sku || h <= w.b.start || h >= w.f.hours {
			continue
		}
		w.act(action{hour: h, do: c.do, gain: c.gain, spread: c.spread, shift: c.shift}, c.kind, c.detail)
	}
}

// single are changes and false entries of one box alone.
func (w *planner) single(years float64) {
	r := w.r
	for range poisson(r, w.f.family.Rates[powerMode]*years) {
		w.act(action{hour: w.hour(), do: setPower, gain: 0.7 + 0.5*r.Float64()}, "power-mode", "set by hand")
	}
	for range poisson(r, 0.08*years) {
		w.act(action{hour: w.hour(), do: move, shift: 4*r.Float64() - 2, recirc: 0.03 * r.Float64()}, "moved", "")
	}
	for range poisson(r, 0.12*years) { // a ticket closed without work
		w.log(w.hour(), "cleaned", "ticket closed")
	}
	for range poisson(r, 0.3*years) {
		w.log(w.hour(), "visit", "shelf inspection")
	}
	for range poisson(r, 0.08*years) { // the shop's own vacuum cleaner
		w.p.actions = append(w.p.actions, action{hour: w.hour(), do: wipe, keeps: 0.1 + 0.3*r.Float64()})
	}
}

// sheds are the moments when a mat of lint has grown too heavy to hold on.
func (w *planner) sheds(years float64) {
	if w.b.sku.law != "steps" || w.b.hw.fans == 0 {
		return
	}
	r := streamOf(w.b.seed, "sheds").rng()
	for range poisson(r, w.f.family.extra(shedding, r)*years) {
		w.p.actions = append(w.p.actions, action{hour: w.b.start + r.IntN(w.f.hours-w.b.start), do: shed, keeps: 0.6 + 0.3*r.Float64()})
	}
}

// act adds a deed and its line in the log, which may be lost or misdated.
func (w *planner) act(a action, kind, detail string) {
	a.logged = w.log(a.hour, kind, detail)
	w.p.actions = append(w.p.actions, a)
}

func (w *planner) log(h int, kind, detail string) bool {
	spans := w.f.family.Spans
	if w.r.Float64() < spans[lossRate].draw(w.r) {
		return false
	}
	late := spans[logJitter].draw(w.r) * w.r.NormFloat64()
	w.p.events = append(w.p.events, Event{Time: w.f.time(float64(h) + late + w.r.Float64()), Box: w.b.id, Kind: kind, Detail: detail})
	return true
}

// visits are the site's service rounds: the same hours for all its boxes.
func (w *planner) visits() {
	for _, h := range w.f.rounds[w.b.site.id] {
		if h <= w.b.start || w.r.Float64() < 0.15 {
			continue
		}
		a := action{hour: h, do: wipe, keeps: 0.03 + 0.12*w.r.Float64()}
		if w.r.Float64() < 0.7 {
			w.act(a, "cleaned", "service round")
		} else {
			w.p.actions = append(w.p.actions, a)
		}
	}
	for _, a := range w.p.actions { // who cleans also clears the vent
		for _, f := range w.p.faults {
			if a.do == wipe && (f.cause == Lint || f.cause == Vent) && f.on < a.hour && a.hour < f.off {
				f.off = a.hour
			}
		}
	}
}
