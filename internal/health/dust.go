package health

import (
	"cmp"
	"math"
	"slices"

	"github.com/edgeherd/edgeherd/internal/rank"
)

// How dusty a site is, learnt from its boxes, and how long a filter lasts
// there. The root of a box's rise grows about evenly with the dust that it has
// breathed: filters load as x^2.4, seen through the fans as about x².
const (
	dustyRise  = 0.06 // where boxes ask for a visit: filters are due before they do
	dustyLeast = 30   // days since it was clean that say anything
	dustyKeep  = 8    // periods between cleanings
	filterMin  = 14   // days
	filterMax  = 365
)

// dusty is a time between two cleanings.
type dusty struct {
	Days float64
	Root float64 // of the relative rise at its end
}

// DustRate is how fast a box clogs: root of the relative rise, a year, and how
// unsure that is. False: it was not seen for long enough, or what rises is not
// dust.
func (b *Box) DustRate() (rate, sigma float64, ok bool) {
	if b.Base == nil || b.Basis.Ref == RefNone {
		return 0, 0, false
	}
	var days, root float64
	for _, p := range b.Dusted {
		days, root = days+p.Days, root+p.Root
	}
	if p, ok := b.sinceClean(); ok {
		days, root = days+p.Days, root+p.Root
	}
	if days < dustyLeast {
		return 0, 0, false
	}
	// An error of the rise is one of the root by 1/2√e; below it, by its root.
	mean := max(root/float64(len(b.Dusted)+1), math.Sqrt(b.Base.Sigma))
	return 365 * root / days, 365 * b.Base.Sigma / (2 * mean) / days * math.Sqrt(float64(len(b.Dusted)+1)), true
}

// sinceClean is the time since the last cleaning, or since it was new.
func (b *Box) sinceClean() (dusty, bool) {
	if b.Base == nil || len(b.Days) == 0 {
		return dusty{}, false
	}
	d := &b.Days[len(b.Days)-1]
	from := max(b.CleanDay, int32(b.First/daySeconds))
	if i := b.index("resistance"); i >= 0 && b.Open[i].Cause == CausePaste || !d.S7.OK() || b.has("step") {
		return dusty{}, false
	}
	return dusty{Days: float64(d.Day - from), Root: math.Sqrt(max(math.Exp(float64(d.S7))-1, 0))}, d.Day > from
}

// keepDusty notes a period that a cleaning ends; before is the rise it ended.
func (b *Box) keepDusty(day int32, before float64) {
	from := max(b.CleanDay, int32(b.First/daySeconds))
	if i := b.index("resistance"); i >= 0 && b.Open[i].Cause == CausePaste || b.has("step") || day <= from {
		return
	}
	b.Dusted = append(b.Dusted, dusty{float64(day - from), math.Sqrt(max(math.Exp(before)-1, 0))})
	if len(b.Dusted) > dustyKeep {
		b.Dusted = b.Dusted[1:]
	}
}

// BoxDust is the rate of one box.
type BoxDust struct {
	Site        string
	Rate, Sigma float64
}

// SiteDust is how dusty a site is, from all its boxes.
type SiteDust struct {
	Site  string  `json:"site"`
	Boxes int     `json:"boxes"`
	Rate  float64 `json:"rate"` // root of the relative rise, a year
	Sigma float64 `json:"sigma"`
	// FilterDays is after how long its filters should be cleaned: when the rise
	// of an average box reaches the line of a ticket, between two weeks and a year.
	FilterDays int `json:"filter_days"`
}

// PercentPerMonth is what an average box of the site rises by in the first 30
// days after it was cleaned.
func (s SiteDust) PercentPerMonth() float64 {
	root := s.Rate * 30 / 365
	return 100 * root * root
}

// Dust pools boxes by site. What few boxes say is pulled towards the fleet, the
// more the less sites differ (random effects, DerSimonian and Laird 1986).
func Dust(boxes []BoxDust) []SiteDust {
	bySite := map[string][]BoxDust{}
	for _, b := range boxes {
		if b.Site != "" {
			bySite[b.Site] = append(bySite[b.Site], b)
		}
	}
	var out []SiteDust
	for site, group := range bySite {
		var rates []float64
		for _, b := range group {
			rates = append(rates, b.Rate)
		}
		s := SiteDust{Site: site, Boxes: len(group)}
		var sum, weight float64
		// Boxes of a site differ by half: one stands in the draught, one does not.
		spread := 0.5 * rank.Median(slices.Clone(rates))
		for _, b := range group {
			w := 1 / (b.Sigma*b.Sigma + spread*spread + 1e-6)
			sum, weight = sum+w*b.Rate, weight+w
		}
		s.Rate, s.Sigma = sum/weight, math.Sqrt(1/weight)
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b SiteDust) int { return cmp.Compare(a.Site, b.Site) })
	shrink(out)
	for i := range out {
		days := 365 * math.Sqrt(dustyRise) / max(out[i].Rate, 1e-3)
		out[i].FilterDays = int(min(max(days, filterMin), filterMax))
	}
	return out
}

// shrink pulls each site towards the mean of all, on the log: sites differ by
// factors.
func shrink(sites []SiteDust) {
	const none = 0.05 // a year: less is no dust
	y, v := make([]float64, len(sites)), make([]float64, len(sites))
	var w, w2, wy float64
	for i, s := range sites {
		at := max(s.Rate, 0) + none
		y[i], v[i] = math.Log(at), s.Sigma*s.Sigma/(at*at)
		w, w2, wy = w+1/v[i], w2+1/(v[i]*v[i]), wy+y[i]/v[i]
	}
	if len(sites) < 3 {
		return
	}
	q := 0.0
	for i := range sites {
		q += (y[i] - wy/w) * (y[i] - wy/w) / v[i]
	}
	between := max(0.01, (q-float64(len(sites)-1))/(w-w2/w))
	var sum, weight float64
	for i := range sites {
		sum, weight = sum+y[i]/(v[i]+between), weight+1/(v[i]+between)
	}
	for i := range sites {
		own, all := 1/v[i], 1/between
		ln := (own*y[i] + all*sum/weight) / (own + all)
		sites[i].Rate = max(math.Exp(ln)-none, 0)
		sites[i].Sigma = (sites[i].Rate + none) * math.Sqrt(1/(own+all))
	}
}
