package health

import (
	"cmp"
	"math"
	"slices"

	"github.com/edgeherd/edgeherd/internal/rank"
)

// ReplayOptions of Replay. The zero value is of use.
type ReplayOptions struct {
	// TripC is the die temperature at which boxes throttle, °C. Default: the
	// hottest hour that was throttled, else 95.
	TripC float64
	// Each runs do for 0..n-1, in any order and at once if it likes. Default:
	// one after the other.
	Each func(n int, do func(i int))
	// Day is told of each box after each day that it was judged by, of several
	// boxes at once where Each does so; nil: nobody.
	Day func(b *Box)
}

// Report is all that a replay found.
type Report struct {
	Boxes     []BoxReport
	Findings  []Finding // by the time they opened
	Incidents []Incident
	Cleanings []Cleaning
	Visits    []SiteVisit
	Priors    []Prior // the last one of each SKU
	Dust      []SiteDust
}

// BoxReport is how a box stood at the end.
type BoxReport struct {
	Box        string    `json:"box"`
	Site       string    `json:"site,omitempty"`
	SKU        string    `json:"sku,omitempty"`
	Health     Level     `json:"health"`
	Hours      int       `json:"hours"`
	Reference  string    `json:"reference"`
	Load       string    `json:"load"`
	Airflow    string    `json:"airflow"`
	Judged     bool      `json:"judged"` // false: no baseline came about
	Resistance Value     `json:"resistance_percent"`
	Sigma      Value     `json:"sigma_percent"`
	Slopes     *Slopes   `json:"slopes,omitempty"`
	PriorBoxes int       `json:"prior_boxes"`
	Forecast   *Forecast `json:"forecast,omitempty"`
}

// SiteVisit bundles the tickets of a site that fall due within 21 days.
type SiteVisit struct {
	Site  string      `json:"site,omitempty"`
	Due   Unix        `json:"due"` // when its first ticket was made
	Level Level       `json:"level"`
	Items []VisitItem `json:"items"`
}

// VisitItem is what to do with one box.
type VisitItem struct {
	Box        string  `json:"box"`
	Cause      Cause   `json:"cause"`
	Confidence float64 `json:"confidence"`
	Ticketed   Unix    `json:"ticketed"`
	Do         string  `json:"do"`
}

const bundleDays = 21

var actions = map[Cause]string{
	CauseAirflow:      "clean or change the filter, blow out the fins",
	CausePaste:        "renew the thermal paste",
	CauseUndetermined: "clean the filter first; if it does not help, renew the paste",
	CauseVent:         "clear what stands before the vents",
	CauseFanWear:      "change the fan",
	CauseFanStop:      "change the fan",
	CauseSensor:       "look at the sensor and its driver",
	CauseAmbient:      "find out what warms the air at the inlet",
	CauseDrive:        "save what is on the drive, then change it",
	CauseSupply:       "change the power supply",
}

// fitted is a prior and the moment from which it was known.
type fitted struct {
	at    int64
	prior *Prior
}

// Replay runs hours and changes through boxes as they would have come: nothing
// is judged by what was only known later.
func Replay(t *Table, changes []Change, o ReplayOptions) *Report {
	if o.Each == nil {
		o.Each = func(n int, do func(int)) {
			for i := range n {
				do(i)
			}
		}
	}
	sites := groupBy(t.Series, func(s *Series) string { return s.Site })
	o.Each(len(sites), func(i int) { shareAir(sites[i]) })
	learnt := make([][]Hour, len(t.Series))
	o.Each(len(t.Series), func(i int) { learnt[i] = learnOf(t.Series[i]) })
	priors := fitPriors(t.Series, learnt, o)
	clear(learnt)
	trips := learnTrips(t.Series)
	boxes := make([]*Box, len(t.Series))
	found := make([][]Finding, len(t.Series))
	stands := make([]standing, len(t.Series))
	o.Each(len(t.Series), func(i int) {
		s := t.Series[i]
		boxes[i], found[i] = replayBox(s, changes, known{priors: priors[s.SKU], trips: tripOf(o.TripC, trips[s.SKU]), day: func(b *Box) {
			stands[i] = stands[i].take(b)
			if o.Day != nil {
				o.Day(b)
			}
		}})
	})
	// What mates say changes no figure, only what is made of some.
	again, bySeries := besideMates(t.Series, boxes, found, stands)
	o.Each(len(again), func(k int) {
		i := again[k]
		s := t.Series[i]
		boxes[i], found[i] = replayBox(s, changes, known{priors: priors[s.SKU], trips: tripOf(o.TripC, trips[s.SKU]), mates: bySeries[k]})
	})
	reports := make([]BoxReport, len(t.Series))
	for i, b := range boxes {
		reports[i] = reportOf(b, t.Series[i].Len())
	}
	out := &Report{Boxes: reports}
	var dust []BoxDust
	for i, b := range boxes {
		if rate, sigma, ok := b.DustRate(); ok {
			dust = append(dust, BoxDust{b.Site, rate, sigma})
		}
		out.Findings = append(out.Findings, found[i]...)
		out.Cleanings = append(out.Cleanings, b.Cleanings...)
	}
	out.Dust = Dust(dust)
	slices.SortStableFunc(out.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Opened, b.Opened), cmp.Compare(a.Box, b.Box), cmp.Compare(a.Family, b.Family))
	})
	slices.SortStableFunc(out.Cleanings, func(a, b Cleaning) int { return cmp.Compare(a.At, b.At) })
	bySite := map[string][]Finding{}
	for _, f := range out.Findings {
		bySite[f.Site] = append(bySite[f.Site], f)
	}
	for _, g := range sites {
		site := g[0].Site
		if site != "" { // boxes of no site share no air
			out.Incidents = append(out.Incidents, Agree(site, bySite[site])...)
		}
		out.Visits = append(out.Visits, Visits(site, bySite[site])...)
	}
	for _, g := range groupBy(t.Series, func(s *Series) string { return s.SKU }) {
		if p := priors[g[0].SKU]; len(p) > 0 {
			out.Priors = append(out.Priors, *p[len(p)-1].prior)
		}
	}
	return out
}

// groupBy keeps the order of first appearance.
func groupBy(all []*Series, key func(*Series) string) [][]*Series {
	at := map[string]int{}
	var out [][]*Series
	for _, s := range all {
		i, ok := at[key(s)]
		if !ok {
			i = len(out)
			at[key(s)], out = i, append(out, nil)
		}
		out[i] = append(out[i], s)
	}
	return out
}

func learnOf(s *Series) []Hour {
	var hours []Hour
	s.Each(func(h *Hour) bool {
		hours = append(hours, *h)
		return h.Start < hours[0].Start+fourWeeks*daySeconds
	})
	if len(hours) == 0 || hours[len(hours)-1].Start < hours[0].Start+fourWeeks*daySeconds {
		return nil // it never was learnt to the end
	}
	return LearnWindow(hours)
}

// shareAir gives boxes the inlet of their neighbours and the room sensor of
// their site, where they have none of their own.
func shareAir(boxes []*Series) {
	if len(boxes) < 2 || boxes[0].Site == "" {
		return
	}
	lacks := make([]bool, len(boxes))
	any := false
	for i, s := range boxes {
		with, n := 0, 0
		s.Each(func(h *Hour) bool {
			if n++; h.V[Inlet].OK() {
				with++
			}
			return true
		})
		lacks[i] = float64(with) < enough*float64(n)
		any = any || lacks[i]
	}
	if !any {
		return
	}
	type air struct{ inlet, room, inlets, rooms float64 }
	byHour := map[int64]air{}
	for _, s := range boxes {
		s.Each(func(h *Hour) bool {
			a := byHour[h.Start]
			if v := float64(h.V[Inlet]); v == v {
				a.inlet, a.inlets = a.inlet+v, a.inlets+1
			}
			if v := float64(h.V[Room]); v == v {
				a.room, a.rooms = a.room+v, a.rooms+1
			}
			byHour[h.Start] = a
			return true
		})
	}
	for i, s := range boxes {
		if !lacks[i] {
			continue
		}
		s.Each(func(h *Hour) bool {
			a := byHour[h.Start]
			if a.inlets > 0 && !h.V[Inlet].OK() {
				h.V[Neighbour] = Value(a.inlet / a.inlets)
			}
			if a.rooms > 0 && !h.V[Room].OK() {
				h.V[Room] = Value(a.room / a.rooms)
			}
			return true
		})
	}
}

// fitPriors fits each SKU when its first box has been learnt and again each
// time their number grew by half.
func fitPriors(all []*Series, learnt [][]Hour, o ReplayOptions) map[string][]fitted {
	type member struct {
		at    int64
		hours []Hour
	}
	bySKU := map[string][]member{}
	var skus []string
	for i, s := range all {
		if len(learnt[i]) == 0 {
			continue
		}
		if bySKU[s.SKU] == nil {
			skus = append(skus, s.SKU)
		}
		first := s.pages[0][0].Start
		bySKU[s.SKU] = append(bySKU[s.SKU], member{first + fourWeeks*daySeconds, learnt[i]})
	}
	fits := make([][]fitted, len(skus))
	o.Each(len(skus), func(k int) {
		m := bySKU[skus[k]]
		slices.SortStableFunc(m, func(a, b member) int { return cmp.Compare(a.at, b.at) })
		var hours [][]Hour
		next := 1
		for i := range m {
			hours = append(hours, m[i].hours)
			if i+1 < len(m) && m[i+1].at == m[i].at || len(hours) < next && i+1 < len(m) {
				continue
			}
			p := FitPrior(skus[k], hours)
			fits[k] = append(fits[k], fitted{m[i].at, &p})
			next = len(hours) + (len(hours)+1)/2
		}
	})
	out := map[string][]fitted{}
	for k, sku := range skus {
		out[sku] = fits[k]
	}
	return out
}

// tripFrom is a trip point and the moment from which it was known.
type tripFrom struct {
	at int64
	c  float64
}

func tripOf(told float64, learnt []tripFrom) []tripFrom {
	if told > 0 {
		return []tripFrom{{0, told}}
	}
	return learnt
}

// learnTrips pools the throttled hours of each SKU: what one box has shown
// holds for its brothers from then on.
func learnTrips(all []*Series) map[string][]tripFrom {
	type hot struct {
		at  int64
		die float64
	}
	bySKU := map[string][]hot{}
	for _, s := range all {
		s.Each(func(h *Hour) bool {
			if h.V[Throttled] > tripTouched && h.V[Die] > 60 {
				bySKU[s.SKU] = append(bySKU[s.SKU], hot{h.Start + hourSeconds, float64(h.V[Die])})
			}
			return true
		})
	}
	out := map[string][]tripFrom{}
	for sku, hours := range bySKU {
		slices.SortStableFunc(hours, func(a, b hot) int { return cmp.Compare(a.at, b.at) })
		for n := 2 * tripLeast; n <= len(hours); n *= 2 {
			dies := make([]float64, n)
			for i := range dies {
				dies[i] = hours[i].die
			}
			out[sku] = append(out[sku], tripFrom{hours[n-1].at, rank.Quantile(dies, tripShare)})
		}
	}
	return out
}

// known is what a box is told while it is replayed. day, if set, is told of each
// day that it was judged by.
type known struct {
	priors []fitted
	trips  []tripFrom
	mates  func(day int32) Mates
	day    func(b *Box)
}

// besideMates picks the boxes that have to be judged again beside the others of
// their site, and says how those stand.
func besideMates(all []*Series, boxes []*Box, found [][]Finding, stands []standing) (again []int, mates []func(day int32) Mates) {
	sites := map[string][]int{}
	for i, s := range all {
		sites[s.Site] = append(sites[s.Site], i)
	}
	for i, b := range boxes {
		rose := slices.ContainsFunc(found[i], func(f Finding) bool { return f.Family == "resistance" })
		at := sites[b.Site]
		if !rose || !b.BlindFans() || b.Site == "" || len(at) <= matesLeast {
			continue
		}
		var others []standing
		for _, k := range at {
			if k != i {
				others = append(others, stands[k])
			}
		}
		again, mates = append(again, i), append(mates, func(day int32) Mates { return matesOn(others, day) })
	}
	return again, mates
}

func replayBox(s *Series, changes []Change, k known) (*Box, []Finding) {
	b := New(s.Box, s.Site, s.SKU)
	var own []Change
	for _, c := range changes {
		if c.Box == s.Box || c.Box == "" && c.Site == s.Site {
			own = append(own, c)
		}
	}
	var found []Finding
	keep := func(news []Finding) {
		for _, f := range news {
			if f.Closed != 0 {
				found = append(found, f)
			}
		}
	}
	var env Env
	last := int32(0)
	s.Each(func(h *Hour) bool {
		for len(k.priors) > 0 && k.priors[0].at <= h.Start {
			env.Prior, k.priors = k.priors[0].prior, k.priors[1:]
		}
		for len(k.trips) > 0 && k.trips[0].at <= h.Start {
			env.TripC, k.trips = k.trips[0].c, k.trips[1:]
		}
		if k.mates != nil && h.day() != b.Last.day() {
			env.Mates = k.mates(h.day() - 2) // of the day before the one that ends now: theirs are known by then
		}
		for len(own) > 0 && own[0].At <= h.Start {
			b.out = b.out[:0]
			Log(b, own[0])
			keep(b.out)
			own = own[1:]
		}
		keep(Advance(b, h, env))
		if n := lastOf(b); k.day != nil && n > last {
			last = n
			k.day(b)
		}
		return true
	})
	return b, append(found, b.Open...)
}

func reportOf(b *Box, hours int) BoxReport {
	r := BoxReport{
		Box: b.Name, Site: b.Site, SKU: b.SKU, Health: b.Health(), Hours: hours,
		Reference: b.Basis.Ref, Load: b.Basis.Load, Airflow: b.Basis.Air,
		Judged: b.Base != nil, Resistance: Missing(), Sigma: Missing(), Forecast: b.Trend,
	}
	if b.Base == nil {
		return r
	}
	r.Slopes, r.PriorBoxes = &b.Base.Slopes, b.Base.PriorBoxes
	r.Sigma = Value(100 * b.Base.Sigma)
	if n := len(b.Days); n > 0 {
		r.Resistance = Value(math.Round(10*Percent(float64(b.Days[n-1].S7))) / 10)
	}
	return r
}

// Visits bundles the tickets of a site.
func Visits(site string, findings []Finding) []SiteVisit {
	var due []Finding
	for _, f := range findings {
		if f.Ticketed != 0 {
			due = append(due, f)
		}
	}
	slices.SortStableFunc(due, func(a, b Finding) int { return cmp.Compare(a.Ticketed, b.Ticketed) })
	var out []SiteVisit
	for _, f := range due {
		if n := len(out); n == 0 || f.Ticketed-out[n-1].Due > bundleDays*daySeconds || site == "" && out[n-1].Items[0].Box != f.Box {
			out = append(out, SiteVisit{Site: site, Due: f.Ticketed})
		}
		v := &out[len(out)-1]
		v.Level = max(v.Level, f.Level)
		v.Items = append(v.Items, VisitItem{f.Box, f.Cause, math.Round(100*f.Confidence) / 100, f.Ticketed, actions[f.Cause]})
	}
	return out
}
