package plant

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Options say which fleet to build.
type Options struct {
	Seed   uint64    // 0 is a seed like any other
	Family string    // default "dev0"; see Families
	Boxes  int       // default 50
	Days   int       // default 365
	Start  time.Time // default 2025-01-01T00:00:00Z; cut to the hour
	// Healthy fleets have all confounders but no fault and no dust.
	Healthy bool
}

func (o Options) withDefaults() Options {
	if o.Family == "" {
		o.Family = "dev0"
	}
	if o.Boxes == 0 {
		o.Boxes = 50
	}
	if o.Days == 0 {
		o.Days = 365
	}
	if o.Start.IsZero() {
		o.Start = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	o.Start = o.Start.UTC().Truncate(time.Hour)
	return o
}

// Fleet is a drawn fleet. It does not change: every method may be called by
// several goroutines.
type Fleet struct {
	opts    Options
	family  recipe
	hours   int
	skus    []sku
	sites   []*site
	boxes   []*box
	changes []change
	rounds  map[string][]int
}

// Box is what an inventory knows of a box.
type Box struct {
	ID, SKU, Site string
	Class         string // of the site: office, retail, industrial or workshop
	Fans          int
	Filter        bool
	Commissioned  time.Time
}

// Event is one line of the operators' log: lines may be missing, misdated or
// wrong. Box or Site is empty.
type Event struct {
	Time      time.Time
	Box, Site string
	Kind      string // rollout, power-mode, bios, visit, cleaned, fan-replaced, paste-replaced, moved
	Detail    string
}

// New draws a fleet.
func New(opts Options) (*Fleet, error) {
	opts = opts.withDefaults()
	family, ok := families()[opts.Family]
	if !ok {
		return nil, fmt.Errorf("draw fleet: no family %q: choose one of %s", opts.Family, strings.Join(Families(), ", "))
	}
	if opts.Boxes < 0 || opts.Days < 2 {
		return nil, fmt.Errorf("draw fleet: %d boxes over %d days: need at least 1 box and 2 days", opts.Boxes, opts.Days)
	}
	f := &Fleet{opts: opts, family: family, hours: opts.Days * 24, rounds: map[string][]int{}}
	r := streamOf(opts.Seed, family.Name).rng()
	f.drawSKUs()
	f.changes = drawChanges(f, r)
	for len(f.boxes) < opts.Boxes {
		s := newSite(f, len(f.sites))
		f.sites = append(f.sites, s)
		f.rounds[s.id] = f.serviceRounds(s)
		for range min(opts.Boxes-len(f.boxes), 1+r.IntN(9)) {
			f.addBox(s)
		}
	}
	return f, nil
}

// drawSKUs makes the products of the fleet: two, and one more for every
// twenty boxes up to ten, so that a SKU is a cohort; or as the family has it.
func (f *Fleet) drawSKUs() {
	seed, name := f.opts.Seed, f.family.Name
	n := min(10, f.opts.Boxes/20)
	if each := f.family.extra(perProduct, streamOf(seed, perProduct).rng()); each > 0 {
		n = int(float64(f.opts.Boxes) / each)
	}
	for i := range max(2, n) {
		s := drawSKU(&f.family, streamOf(seed, fmt.Sprintf("%s/sku%d", name, i)).rng())
		s.id = fmt.Sprintf("%s-sku%d", name, i)
		lacks := func(what string) bool {
			return f.family.missing(what, float64(i)+streamOf(seed, what).uniform(0))
		}
		fitted := &s.sense.fitted
		if lacks(missInlet) && !s.chassis.ipmi { // every BMC reads its intake
			fitted[inletGauge] = false
		}
		if lacks(missPower) {
			fitted[powerGauge] = false
		}
		if lacks(missDuty) && !s.chassis.ipmi {
			s.sense.dutyKnown = false
		}
		if lacks(missRPM) && s.kind != "1u" && s.kind != "2u" { // whose BMC reads its fans
			clear(fitted[rpmGauge:roomGauge])
		}
		f.skus = append(f.skus, s)
	}
}

func (f *Fleet) addBox(s *site) {
	b := &box{id: fmt.Sprintf("b%04d", len(f.boxes)), site: s}
	b.seed = uint64(streamOf(f.opts.Seed, f.family.Name+"/"+b.id))
	r := streamOf(b.seed, "built").rng()
	k := r.IntN(len(f.skus))
	if _, ok := f.family.Spans[perProduct]; ok { // some products were bought in numbers, some once
		k = int(float64(len(f.skus)) * math.Pow(r.Float64(), 1.4))
	}
	b.sku = &f.skus[k]
	b.hw = b.sku.piece(&f.family, r)
	b.hw.lift(s.density)
	b.fit = b.sku.sense.fit(r, b.seed)
	b.load = drawLoad(&f.family, r, b.sku.chassis.bursty, b.seed)
	if r.Float64() < 0.2 {
		b.start = r.IntN(max(1, f.hours/5))
	}
	if late := streamOf(b.seed, installed).rng(); late.Float64() < f.family.extra(installed, late) {
		b.start = late.IntN(max(1, f.hours*6/10))
	}
	b.standOff = b.sku.chassis.offCool * 2 * r.Float64()
	if r.Float64() < b.sku.chassis.sun {
		b.sun = 2 + 5*r.Float64()
	}
	b.mixSD, b.airSD = f.family.Spans[mixNoise].draw(r), f.family.Spans[airNoise].draw(r)
	b.skew.seconds = f.family.Spans[skew].draw(r) * r.NormFloat64()
	b.skew.perDay = 0.2 * r.NormFloat64()
	if p := f.family.Spans[skew].Hi / 4000; r.Float64() < p {
		from := r.IntN(f.hours)
		b.skew.lost = window{from, from + 1 + r.IntN(6)}
	}
	b.reference()
	f.planBox(b, k)
	f.boxes = append(f.boxes, b)
}

// reference fixes where the truth measures resistance: the duty the clean box
// settles at under its usual load in a mild room.
func (b *box) reference() {
	m := newMachine(b, b.hw, clean())
	s := ctlState{duty: b.sku.ctl.dMin}
	p := m.settle(&s, 0.8*b.load.high*b.hw.pDyn, 24)
	p = m.settle(&s, 0.8*b.load.high*b.hw.pDyn, 24)
	b.refDuty, b.refWatts = p.duty, p.pDie
	if b.hw.fans > 0 {
		b.refDuty = max(p.duty, b.sku.ctl.dMin)
	}
}

// Boxes lists the fleet's boxes; the index is what Simulate takes.
func (f *Fleet) Boxes() []Box {
	all := make([]Box, len(f.boxes))
	for i, b := range f.boxes {
		all[i] = Box{
			ID: b.id, SKU: b.sku.id, Site: b.site.id, Class: b.site.class, Fans: b.hw.fans,
			Filter: b.hw.filtered && b.hw.fans > 0, Commissioned: f.time(float64(b.start)),
		}
	}
	return all
}

// Events is the log of the whole fleet in order of time.
func (f *Fleet) Events() []Event {
	var all []Event
	for _, b := range f.boxes {
		all = append(all, b.plan.events...)
	}
	for _, s := range f.sites {
		for _, h := range f.rounds[s.id] {
			all = append(all, Event{Time: f.time(float64(h)), Site: s.id, Kind: "visit", Detail: "service round"})
		}
	}
	slices.SortStableFunc(all, func(a, b Event) int {
		return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Box+a.Site, b.Box+b.Site))
	})
	return all
}

// time is the true time of an hour of the run, to the second.
func (f *Fleet) time(hour float64) time.Time {
	return f.opts.Start.Add(time.Duration(math.Round(hour*3600)) * time.Second)
}
