package care

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// classDays is how long a filter lasts at most in sites of a class: what
// people plan with before a site has told better.
var classDays = map[string]float64{"office": 365, "retail": 182, "industrial": 91, "wood": 30, "flour": 30}

// Classes are the classes of sites, for messages.
func Classes() []string { return []string{"office", "retail", "industrial", "wood", "flour"} }

const (
	unknownClassDays = 182
	leastFilterDays  = 14
	// ticketRise is where a box asks for a visit: e = 6 %.
	ticketRise = 0.06
	// pull: a site with few boxes stands between itself and the fleet.
	pull = 3.0
)

// Dust is how fast the resistance of one box grows.
type Dust struct {
	Box, Site string
	// Root is the growth of the square root of the excess (e = 0.06 is 6 %) in
	// a day: dust is convex, its root is nearly straight.
	Root float64
	Days int // that it is measured over
}

// SiteDust pools boxes: the logarithm of the growth at a site, drawn towards
// that of the fleet while the site has few boxes.
func SiteDust(all []Dust) (sites map[string]float64, fleet float64) {
	bySite := map[string][]float64{}
	var logs []float64
	for _, d := range all {
		if d.Days < 14 || !(d.Root > 0) {
			continue
		}
		l := math.Log(d.Root)
		bySite[d.Site] = append(bySite[d.Site], l)
		logs = append(logs, l)
	}
	sites = map[string]float64{}
	middle := median(logs)
	for site, v := range bySite {
		n := float64(len(v))
		sites[site] = math.Exp((n*median(v) + pull*middle) / (n + pull))
	}
	return sites, math.Exp(middle)
}

// PerMonth is a growth as percent of resistance in the first 30 days.
func PerMonth(root float64) float64 {
	e := 30 * root
	return math.Round(1000*e*e) / 10
}

// RootOf measures the growth over the days of one box: S7 as residuals, oldest
// first, since the last cleaning. The slope is the median of the slopes of all
// pairs that are a week apart or more (Theil–Sen).
func RootOf(days []int32, s7 []float64) (root float64, span int) {
	var x, y []float64
	for i, v := range s7 {
		if !math.IsNaN(v) {
			x, y = append(x, float64(days[i])), append(y, math.Sqrt(max(math.Exp(v)-1, 0)))
		}
	}
	if len(x) < 10 {
		return math.NaN(), 0
	}
	var slopes []float64
	for i := range x {
		for j := i + 1; j < len(x); j++ {
			if x[j]-x[i] >= 7 {
				slopes = append(slopes, (y[j]-y[i])/(x[j]-x[i]))
			}
		}
	}
	return median(slopes), int(x[len(x)-1] - x[0])
}

// Advise suggests how often the filters of a site are changed: before the
// typical box there reaches the line of a ticket, and never later than boxes of
// its class.
func Advise(class string, root float64, learnt bool) fleetapi.FilterAdvice {
	most, known := classDays[class]
	if !known {
		most = unknownClassDays
	}
	a := fleetapi.FilterAdvice{IntervalDays: most, ClassDays: most}
	switch {
	case learnt && root > 0:
		if d := math.Sqrt(ticketRise) / root; d < most {
			a.IntervalDays = math.Round(max(d, leastFilterDays))
		}
		a.Learnt = true
		a.Text = fmt.Sprintf("every %.0f days, by the dust of this site", a.IntervalDays)
	case known:
		a.Text = fmt.Sprintf("every %.0f days, as is usual for %s; the dust of this site is not known yet", most, class)
	default:
		a.Text = fmt.Sprintf("every %.0f days; set `class` of the site for a better start: %s", most, strings.Join(Classes(), ", "))
	}
	return a
}

// DueAt is when a filter that was put in or cleaned at a time is due.
func DueAt(a fleetapi.FilterAdvice, installed *time.Time) *time.Time {
	if installed == nil {
		return nil
	}
	return at(installed.Add(time.Duration(a.IntervalDays*24) * time.Hour))
}

// Cohort is the middle and the spread of boxes that are alike, in percent.
func Cohort(kind, name string, percents []float64) fleetapi.Cohort {
	c := fleetapi.Cohort{Kind: kind, Name: name, Boxes: len(percents)}
	if len(percents) == 0 {
		return c
	}
	m := median(percents)
	off := slices.Clone(percents)
	for i := range off {
		off[i] = math.Abs(off[i] - m)
	}
	c.Median = math.Round(10*m) / 10
	c.Spread = math.Round(10*max(1.4826*median(off), 0.8)) / 10 // no box is known better than 0.8 %
	return c
}

// Score places a box among its like.
func Score(c fleetapi.Cohort, percent float64) fleetapi.Cohort {
	c.Percent = math.Round(10*percent) / 10
	c.Score = math.Round(10*(percent-c.Median)/c.Spread) / 10
	return c
}
