package bench

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/edgeherd/edgeherd/controller/care"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/health"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/simboard/plant"
)

// Tickets of sites and SKUs, which no box can find by itself, are made by the
// rules of the product once a day and held against the truth:
//
//   - One is right if, on that day or in the week before, the middle box of the
//     group had truly risen by 2 % more than the middle one of the others, of
//     its own SKU elsewhere for a site. All others are false.
//   - A site is dusty, and its ticket to be found, if its middle box had truly
//     risen by 6 % more than boxes elsewhere for 14 days, while at least three of
//     its boxes could be judged; two tickets of its boxes find it as well, for
//     the ticket of the site gives way to them.
//   - The static rule beside it: two thirds of at least three boxes of a site
//     have the 3 σ alarm within 14 days.
const (
	groupRise  = 0.02
	dustyRise  = 0.06
	dustyDays  = 14
	groupWeek  = 7
	groupLeast = 3
)

// groups is what was counted of tickets of groups.
type groups struct {
	site, sku, static rate  // false ones, per site-year and per SKU-year
	siteRight         int   // tickets of sites that were right
	skuRight          int   //
	dusty             share // dusty sites found
	staticRight       int
}

func (g *groups) add(o *groups) {
	for _, p := range [][2]*rate{{&g.site, &o.site}, {&g.sku, &o.sku}, {&g.static, &o.static}} {
		p[0].n, p[0].years = p[0].n+p[1].n, p[0].years+p[1].years
	}
	g.siteRight, g.skuRight, g.staticRight = g.siteRight+o.siteRight, g.skuRight+o.skuRight, g.staticRight+o.staticRight
	g.dusty.hits, g.dusty.of = g.dusty.hits+o.dusty.hits, g.dusty.of+o.dusty.of
}

func (g *groups) figures() []Figure {
	site, sku := g.site.figure("groups/dusty-site-false", Goal{}), g.sku.figure("groups/sku-false", Goal{})
	site.Unit, sku.Unit = "/site-year", "/SKU-year"
	site.Beside += fmt.Sprintf("; right %d; two thirds z>3 %.2f, right %d", g.siteRight, g.static.perYear(), g.staticRight)
	sku.Beside += fmt.Sprintf("; right %d", g.skuRight)
	return []Figure{site, g.dusty.figure("groups/dusty-site-found", Goal{}), sku}
}

// stands are the percents of each box by day, as it was judged.
type stands struct {
	mu  sync.Mutex
	day map[int32][]care.Member
}

func (s *stands) note(b *health.Box) {
	d := &b.Days[len(b.Days)-1]
	if !d.S7.OK() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.day[d.Day] = append(s.day[d.Day], care.Member{Box: identity.ID(b.Name), Name: b.Name, Site: b.Site, SKU: b.SKU, Percent: health.Percent(float64(d.S7))})
}

// grouped makes the tickets of groups of a fleet day by day.
func (f *healthFleet) grouped(s *stands, findings []health.Finding, alarms []ticket) *groups {
	g := &groups{}
	var open []fleetapi.Ticket
	dusty := map[string]int{}  // days in a row
	found := map[string]bool{} // dusty sites of now, that are counted
	for _, day := range slices.Sorted(maps.Keys(s.day)) {
		now := time.Unix(int64(day+1)*86400, 0).UTC()
		members := s.day[day]
		slices.SortFunc(members, func(a, b care.Member) int { return cmp.Compare(a.Name, b.Name) })
		own := boxTickets(findings, now)
		for _, x := range care.Standings(members) {
			for _, t := range care.Agreed(open, x, own, now) {
				open = f.putGroup(g, open, t, int(day))
			}
		}
		f.countDusty(g, members, dusty, found, func(site string) bool {
			return slices.ContainsFunc(open, func(t fleetapi.Ticket) bool { return t.Site == site && !t.State.Ended() }) ||
				2 <= tally(own, func(t fleetapi.Ticket) bool { return t.Site == site && t.Cause != string(health.CauseFanWear) })
		}, int(day))
	}
	f.staticGroups(g, alarms)
	years := float64(f.truth.Days) / 365.25
	g.site.years, g.static.years = years*float64(len(f.truth.Sites)), years*float64(len(f.truth.Sites))
	skus := map[string]bool{}
	for i := range f.truth.Boxes {
		skus[f.truth.Boxes[i].SKU] = true
	}
	g.sku.years = years * float64(len(skus))
	return g
}

func tally(all []fleetapi.Ticket, is func(fleetapi.Ticket) bool) (n int) {
	for _, t := range all {
		if is(t) {
			n++
		}
	}
	return n
}

// putGroup keeps a ticket; a new one is judged.
func (f *healthFleet) putGroup(g *groups, open []fleetapi.Ticket, t fleetapi.Ticket, day int) []fleetapi.Ticket {
	if i := slices.IndexFunc(open, func(o fleetapi.Ticket) bool { return o.ID == t.ID && t.ID != "" }); i >= 0 {
		open[i] = t
		return open
	}
	t.ID = fmt.Sprint("T-", len(open)+1)
	right := false
	for d := day - groupWeek; d <= day; d++ {
		right = right || f.apart(t.Site, t.SKU, d) >= groupRise
	}
	switch {
	case t.Site != "" && right:
		g.siteRight++
	case t.Site != "":
		g.site.n++
	case right:
		g.skuRight++
	default:
		g.sku.n++
	}
	return append(open, t)
}

// boxTickets are those of boxes that are open at a time.
func boxTickets(findings []health.Finding, now time.Time) (out []fleetapi.Ticket) {
	for i := range findings {
		x := &findings[i]
		if x.Ticketed != 0 && int64(x.Ticketed) <= now.Unix() && (x.Closed == 0 || int64(x.Closed) > now.Unix()) {
			out = append(out, fleetapi.Ticket{ID: fmt.Sprint("B-", i), State: fleetapi.TicketOpen, Box: identity.ID(x.Box), Site: x.Site, Cause: string(x.Cause)})
		}
	}
	return out
}

// apart is how much more the middle box of a site, or of a SKU, had truly risen
// on a day than the middle one of the others.
func (f *healthFleet) apart(site, sku string, day int) float64 {
	var group, others []float64
	skus := map[string]bool{}
	for i := range f.truth.Boxes {
		if f.truth.Boxes[i].Site == site {
			skus[f.truth.Boxes[i].SKU] = true
		}
	}
	for i := range f.truth.Boxes {
		b := &f.truth.Boxes[i]
		rise := riseOfDay(b, day-int(f.truth.Start.Unix()/86400))
		switch {
		case site != "" && b.Site == site, site == "" && b.SKU == sku:
			group = append(group, rise)
		case site == "" || skus[b.SKU]:
			others = append(others, rise)
		}
	}
	return middleOf(group) - middleOf(others)
}

func riseOfDay(b *plant.BoxTruth, day int) float64 {
	if day < 0 || day >= len(b.Rise) {
		return 0
	}
	return float64(b.Rise[day])
}

// countDusty counts each spell of a dusty site once, on the day on which it is
// found or ends.
func (f *healthFleet) countDusty(g *groups, members []care.Member, dusty map[string]int, found map[string]bool, has func(site string) bool, day int) {
	at := map[string]int{}
	for _, m := range members {
		at[m.Site]++
	}
	for i := range f.truth.Sites {
		site := f.truth.Sites[i].Site
		if at[site] < groupLeast || !(f.apart(site, "", day) >= dustyRise) {
			if dusty[site] >= dustyDays && !found[site] {
				g.dusty.count(false)
			}
			dusty[site], found[site] = 0, false
			continue
		}
		if dusty[site]++; dusty[site] >= dustyDays && !found[site] && has(site) {
			g.dusty.count(true)
			found[site] = true
		}
	}
	if day == int(f.truth.Start.Unix()/86400)+f.truth.Days-1 {
		for site, n := range dusty {
			if n >= dustyDays && !found[site] {
				g.dusty.count(false)
			}
		}
	}
}

// staticGroups: two thirds of the boxes of a site alarm within 14 days.
func (f *healthFleet) staticGroups(g *groups, alarms []ticket) {
	boxes := make([]int, len(f.truth.Sites))
	for _, w := range f.seen {
		boxes[w.site]++
	}
	slices.SortStableFunc(alarms, func(a, b ticket) int { return cmp.Compare(a.at, b.at) })
	rest := make([]int64, len(boxes))
	for i := range boxes {
		rest[i] = math.MinInt64
	}
	for i, a := range alarms {
		site := f.seen[a.box].site
		if boxes[site] < groupLeast || a.at < rest[site] {
			continue
		}
		lit := map[int]bool{}
		for j := i; j >= 0 && a.at-alarms[j].at <= rearm; j-- {
			if f.seen[alarms[j].box].site == site {
				lit[alarms[j].box] = true
			}
		}
		if 3*len(lit) < 2*boxes[site] {
			continue
		}
		rest[site] = a.at + rearm
		right := false
		for d := int(a.at/86400) - groupWeek; d <= int(a.at/86400); d++ {
			right = right || f.apart(f.truth.Sites[site].Site, "", d) >= groupRise
		}
		if right {
			g.staticRight++
		} else {
			g.static.n++
		}
	}
}
