package care

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/health"
)

// classDays is how long a filter lasts at most in sites of a class: what
// people plan with before a site has told better.
var classDays = map[string]float64{"office": 365, "retail": 182, "industrial": 91, "wood": 30, "flour": 30}

// classes are the classes of sites, for messages.
func classes() []string { return []string{"office", "retail", "industrial", "wood", "flour"} }

const unknownClassDays = 182

// Advise suggests how often the filters of a site are changed: before the
// typical box there reaches the line of a ticket, and never later than boxes of
// its class. dust is nil while nothing is known of the site's.
func Advise(class string, dust *health.SiteDust) fleetapi.FilterAdvice {
	most, known := classDays[class]
	if !known {
		most = unknownClassDays
	}
	a := fleetapi.FilterAdvice{IntervalDays: most, ClassDays: most}
	switch {
	case dust != nil:
		a.IntervalDays = min(float64(dust.FilterDays), most)
		a.Learnt = true
		a.Text = fmt.Sprintf("every %.0f days, by the dust of this site", a.IntervalDays)
	case known:
		a.Text = fmt.Sprintf("every %.0f days, as is usual for %s; the dust of this site is not known yet", most, class)
	default:
		a.Text = fmt.Sprintf("every %.0f days; set `class` of the site for a better start: %s", most, strings.Join(classes(), ", "))
	}
	return a
}

// DueAt is when a filter that was put in or cleaned at a time is due.
func DueAt(a fleetapi.FilterAdvice, installed *time.Time) *time.Time {
	if installed == nil {
		return nil
	}
	return new(installed.Add(time.Duration(a.IntervalDays*24) * time.Hour))
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
