package care

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/phrase"
)

// Causes of groups of boxes, which no box can find by itself.
const (
	CauseDustySite = "dusty-site" // the boxes of a site clog faster than their like elsewhere
	CauseHotSKU    = "sku-heat"   // the boxes of a SKU do worse than others, at most of their sites
)

// The lines of groups, percent of resistance: between those of a box to be
// watched and of its ticket. What no box is sure of by itself, several are
// together. How often that is right in the field is not known.
const (
	groupFire  = 4.0
	groupClear = groupFire / 2
	groupShare = 2.0 / 3 // of its boxes or sites must stand above groupClear
	leastBoxes = 3       // at a site
	leastSites = 3       // of a SKU: one dusty site must not decide
	leastLike  = 3       // boxes of one SKU elsewhere to be compared with
	leastOther = 5       // boxes of any kind, where there are not
)

// Member is one box among others.
type Member struct {
	Box             identity.ID
	Name, Site, SKU string
	Percent         float64 // of resistance above the clean box, of a week
}

// Standing is how a site, or a SKU, stands against its like.
type Standing struct {
	Place // Site or SKU is set
	Cause string
	// Value is the middle of its boxes, Against that of their like; of N boxes
	// or sites Above stand high.
	Value, Against float64
	N, Above       int
	Boxes          []Member // those that stand high, by name
	Evidence       []fleetapi.Evidence
}

// fires and clear are apart, so that a ticket does not flap.
func (s Standing) fires() bool {
	return s.Value >= groupFire && s.Value-s.Against >= groupFire && float64(s.Above) >= groupShare*float64(s.N)
}

func (s Standing) clear() bool { return s.Value < groupClear || s.Value-s.Against < groupClear }

// fact is evidence with its sentence.
func fact(name string, v float64, code, format string, args ...any) fleetapi.Evidence {
	p := phrase.Of(code, format, args...)
	return fleetapi.Evidence{Name: name, Value: Number(v), Text: p.Text, Code: p.Code, Args: p.Args}
}

// Standings compares sites and SKUs. A SKU counts by sites, so that one dusty
// site is none; the boxes of a site are each compared with their own SKU
// elsewhere, so that a poor SKU makes no dusty site.
func Standings(all []Member) []Standing {
	all = slices.SortedStableFunc(slices.Values(all), func(a, b Member) int { return cmp.Compare(a.Percent, b.Percent) })
	bySKU := group(all, func(m Member) string { return m.SKU })
	bySite := group(all, func(m Member) string { return m.Site })
	var out []Standing
	for _, site := range slices.Sorted(maps.Keys(bySite)) {
		if s, ok := siteStanding(site, bySite[site], usually(site, bySKU, all)); ok && site != "" {
			out = append(out, s)
		}
	}
	for _, sku := range slices.Sorted(maps.Keys(bySKU)) {
		if s, ok := skuStanding(sku, bySKU[sku], all); ok && sku != "" {
			out = append(out, s)
		}
	}
	return out
}

// usually tells where boxes of a SKU stand that are not at a site; where there
// are too few, all boxes elsewhere. NaN: there are too few of all.
func usually(site string, bySKU map[string][]Member, all []Member) func(sku string) float64 {
	known := map[string]float64{}
	elsewhere := func(of []Member, least int) float64 {
		var v []float64
		for _, m := range of {
			if m.Site != site {
				v = append(v, m.Percent) // in order already
			}
		}
		if len(v) < least {
			return math.NaN()
		}
		return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
	}
	return func(sku string) float64 {
		if v, ok := known[sku]; ok {
			return v
		}
		v := elsewhere(bySKU[sku], leastLike)
		if math.IsNaN(v) || sku == "" {
			v = elsewhere(all, leastOther)
		}
		known[sku] = v
		return v
	}
}

func siteStanding(site string, boxes []Member, usually func(sku string) float64) (Standing, bool) {
	s := Standing{Place: Place{Site: site}, Cause: CauseDustySite}
	var values, against, over []float64
	for _, b := range boxes {
		usual := usually(b.SKU)
		if math.IsNaN(usual) {
			continue // nothing to be compared with
		}
		values, against, over = append(values, b.Percent), append(against, usual), append(over, b.Percent-usual)
		if b.Percent-usual >= groupClear {
			s.Boxes = append(s.Boxes, b)
		}
	}
	if len(over) < leastBoxes {
		return s, false
	}
	s.Value, s.N, s.Above = median(values), len(over), len(s.Boxes)
	s.Against = s.Value - median(over)
	s.Evidence = []fleetapi.Evidence{fact("site_percent", s.Value, "site-rise",
		"%d of %d boxes here have risen together, by %.1f %% in the middle; boxes of their kind elsewhere by %.1f %%", s.Above, s.N, s.Value, median(against))}
	sortMembers(s.Boxes)
	return s, true
}

func skuStanding(sku string, boxes, all []Member) (Standing, bool) {
	s := Standing{Place: Place{SKU: sku}, Cause: CauseHotSKU}
	var votes, other []float64
	bySite := group(boxes, func(m Member) string { return m.Site })
	for _, at := range bySite {
		vote := median(percents(at))
		votes = append(votes, vote)
		if vote >= groupClear {
			s.Above, s.Boxes = s.Above+1, append(s.Boxes, at...)
		}
	}
	for _, o := range all {
		if o.SKU != sku {
			other = append(other, o.Percent)
		}
	}
	if len(votes) < leastSites || len(other) < leastOther {
		return s, false
	}
	s.Value, s.Against, s.N = median(votes), median(other), len(votes)
	s.Boxes = slices.DeleteFunc(s.Boxes, func(m Member) bool { return m.Percent < groupClear })
	s.Evidence = []fleetapi.Evidence{fact("sku_percent", s.Value, "sku-rise",
		"boxes of %s have risen at %d of %d sites, by %.1f %% in the middle; boxes of other products by %.1f %%", sku, s.Above, s.N, s.Value, s.Against)}
	sortMembers(s.Boxes)
	return s, true
}

func group(all []Member, by func(Member) string) map[string][]Member {
	out := map[string][]Member{}
	for _, m := range all {
		out[by(m)] = append(out[by(m)], m)
	}
	return out
}

func percents(all []Member) (out []float64) {
	for _, m := range all {
		out = append(out, m.Percent)
	}
	return out
}

func sortMembers(all []Member) {
	slices.SortFunc(all, func(a, b Member) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Box, b.Box)) })
}

// Agreed takes what a group of boxes says together into the group's tickets.
// own are the open tickets of its boxes. A site whose boxes have tickets of
// their own for the same work needs none; a SKU has one beside them, since it
// asks for something else, and names them.
func Agreed(have []fleetapi.Ticket, s Standing, own []fleetapi.Ticket, now time.Time) []fleetapi.Ticket {
	have = slices.DeleteFunc(slices.Clone(have), func(t fleetapi.Ticket) bool {
		return t.Box != "" || t.Site != s.Site || t.Site == "" && t.SKU != s.SKU
	})
	names, sites, covering := cooling(s, own)
	covered := s.Cause == CauseDustySite && len(covering) >= visitBoxes
	f := fleetapi.Finding{Family: s.Cause, Cause: s.Cause, Level: fleetapi.HealthTicket, Since: now, Opened: now, Evidence: s.Evidence, Site: s.Site}
	i := slices.IndexFunc(have, func(t fleetapi.Ticket) bool { return !t.State.Ended() && slices.Contains(t.Families, s.Cause) })
	if i < 0 {
		if !s.fires() || covered || quiet(have, s.Cause, now) {
			return nil
		}
		changed := Find(have, f, s.Place, now)
		for i := range changed {
			changed[i].Boxes, changed[i].Sites, changed[i].Tickets = names, sites, covering
		}
		return changed
	}
	t := have[i]
	switch {
	case s.clear():
		return leave(t, s.Cause, now, phrase.Of("like-others", "its boxes are like others again"))
	case covered && Due(t):
		t.Tickets = covering
		return leave(t, s.Cause, now, phrase.Of("own-tickets", "boxes have tickets of their own for it: %s", strings.Join(covering, ", ")))
	}
	if !slices.Equal(t.Boxes, names) || !slices.Equal(t.Tickets, covering) || stale(t, now) {
		t.Boxes, t.Sites, t.Tickets = names, sites, covering
		Refresh(&t, f, now)
		return []fleetapi.Ticket{t}
	}
	return nil
}

// lostAfter: a group that cannot be compared for so long, since boxes went away,
// says nothing any more.
const lostAfter = 14 * 24 * time.Hour

// Lost ends the tickets of groups that can be compared no longer.
func Lost(have []fleetapi.Ticket, now time.Time) []fleetapi.Ticket {
	var changed []fleetapi.Ticket
	for _, t := range have {
		of := slices.ContainsFunc(t.Families, func(f string) bool { return f == CauseDustySite || f == CauseHotSKU })
		if of && !t.State.Ended() && t.Measured != nil && now.Sub(*t.Measured) >= lostAfter {
			changed = append(changed, leave(t, t.Families[0], now, phrase.Of("too-few", "too few boxes are left to compare"))...)
		}
	}
	return changed
}

// cooling names the boxes of a group, the sites of a SKU's, and their open
// tickets that ask for what the group's would.
func cooling(s Standing, own []fleetapi.Ticket) (names, sites, tickets []string) {
	for _, b := range s.Boxes {
		names = append(names, b.Name)
		if s.Site == "" && b.Site != "" {
			sites = append(sites, b.Site)
		}
	}
	slices.Sort(sites)
	for _, t := range own {
		if jobs[t.Cause].cooling && !t.State.Ended() && slices.ContainsFunc(s.Boxes, func(m Member) bool { return m.Box == t.Box }) {
			tickets = append(tickets, t.ID)
		}
	}
	slices.Sort(tickets)
	return names, slices.Compact(sites), tickets
}

// Within is the open ticket of a site or SKU that a box's new ticket is part
// of; empty: none. People are told of that one alone, unless the box's is urgent
// or a person made it.
func Within(t fleetapi.Ticket, groups []fleetapi.Ticket) string {
	if t.Box == "" || t.Manual || t.Level == fleetapi.HealthUrgent || t.State.Ended() {
		return ""
	}
	for _, g := range groups {
		dust := g.Cause == CauseDustySite && g.Site == t.Site && (t.Cause == "airflow" || t.Cause == "undetermined")
		common := g.Cause == CauseHotSKU && g.SKU == t.SKU && jobs[t.Cause].cooling
		if !g.State.Ended() && g.Box == "" && (dust || common) {
			return g.ID
		}
	}
	return ""
}

// Apart takes a box's ticket out of one that ended. What that one gave way to
// its end has named, so nobody needs to be told again.
func Apart(t, of fleetapi.Ticket) (is fleetapi.Ticket, tell bool) {
	t.Within = ""
	n := len(of.Timeline)
	named := n > 0 && of.Timeline[n-1].Code == gaveWay && slices.Contains(of.Tickets, t.ID)
	return t, !named && !t.State.Ended()
}

// gaveWay is the code of the end of a ticket that gave way to those it names.
const gaveWay = "own-tickets"

// quiet: a person ended the last ticket of a cause, and does not want it again
// so soon.
func quiet(have []fleetapi.Ticket, cause string, now time.Time) bool {
	return slices.ContainsFunc(have, func(t fleetapi.Ticket) bool {
		return t.Cause == cause && t.MutedUntil != nil && t.MutedUntil.After(now)
	})
}
