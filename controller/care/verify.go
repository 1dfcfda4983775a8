package care

import (
	"math"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/phrase"
	"github.com/edgeherd/edgeherd/internal/rank"
)

// How work is proved.
const (
	// needFell of the excess must be gone.
	needFell = 0.5
	// checkAfter is the first, checkUntil the last moment of the decision: a
	// day has all loads, and two days of a box that runs have steady hours.
	checkAfter = 24 * time.Hour
	checkUntil = 48 * time.Hour
	// giveUp: a box that was off, or away, proves nothing. A fan's finding
	// needs three days of its own to close.
	giveUp = 7 * 24 * time.Hour
	// leastHours of steady load decide.
	leastHours = 4
	// leastExcess, in percent: below it there is nothing to fall.
	leastExcess = 2.0
)

// begin sets the check of work that is done now.
func begin(t *fleetapi.Ticket, excess float64, now time.Time) {
	c := &fleetapi.TicketCheck{Need: needFell, From: now, Until: now.Add(checkUntil)}
	if math.IsNaN(excess) || excess < leastExcess || !jobs[t.Cause].cooling {
		c.Unmeasured, c.Until = true, now.Add(giveUp)
		says(c, phrase.Of("must-close", "the finding itself must close"))
	} else {
		c.Before = math.Round(10*excess) / 10
		says(c, phrase.Of("must-fall", "%.1f %% above the clean box must become %.1f %% or less", c.Before, c.Before*(1-needFell)))
	}
	t.Check = c
}

func says(c *fleetapi.TicketCheck, p phrase.Phrase) { c.Text, c.Code, c.Args = p.Text, p.Code, p.Args }

// Reading is what a box measured since its work was done.
type Reading struct {
	Percent float64 // median resistance above the clean box; NaN: none
	Hours   int     // steady hours that it is made from
}

// Verify decides about a ticket whose work is done, or returns false while it
// is too early. A ticket that changed has to be kept.
func Verify(t fleetapi.Ticket, r Reading, now time.Time) (fleetapi.Ticket, bool) {
	if t.State != fleetapi.TicketDone || t.Check == nil || t.Check.Decided != nil {
		return t, false
	}
	c := *t.Check
	t.Check = &c
	age := now.Sub(c.From)
	if c.Unmeasured {
		return unmeasured(t, now, age)
	}
	measured := r.Hours >= leastHours && !math.IsNaN(r.Percent)
	if measured {
		after, fell := math.Round(10*r.Percent)/10, math.Round(100*(c.Before-r.Percent)/c.Before)/100
		c.After, c.FellRatio, c.Hours = &after, &fell, r.Hours
	}
	switch {
	case measured && age >= checkAfter && *c.FellRatio >= c.Need:
		verified(&t, now, phrase.Of("excess-gone", "%.1f %% became %.1f %%: %.0f %% of the excess is gone", c.Before, *c.After, 100**c.FellRatio))
	case measured && age >= checkUntil:
		c.Decided = new(now)
		p := phrase.Of("not-enough", "%.1f %% is %.1f %% after %s: the work did not help enough", c.Before, *c.After, days(age))
		says(&c, p)
		reopen(&t, now, "", p)
	case age >= giveUp:
		unproved(&t, now, phrase.Of("no-steady-hours", "the box had no steady hours for a week after the work"))
	default:
		return t, false
	}
	return t, true
}

func unmeasured(t fleetapi.Ticket, now time.Time, age time.Duration) (fleetapi.Ticket, bool) {
	switch {
	case age < checkUntil:
		return t, false
	case len(t.Families) == 0:
		unproved(&t, now, phrase.Of("by-hand", "it was made by a person, and no measurement tells"))
	case age < giveUp:
		return t, false
	default:
		p := phrase.Of("still-found", "%s is still found %s after the work", t.Cause, days(age))
		t.Check.Decided = new(now)
		says(t.Check, p)
		reopen(&t, now, "", p)
	}
	return t, true
}

func verified(t *fleetapi.Ticket, now time.Time, why phrase.Phrase) {
	t.State, t.Verified = fleetapi.TicketVerified, new(now)
	if t.Check != nil {
		c := *t.Check
		c.Decided, c.Helped = new(now), true
		says(&c, why)
		t.Check = &c
	}
	step(t, now, "", "verified", why)
}

// unproved ends a ticket whose work nothing proves or disproves.
func unproved(t *fleetapi.Ticket, now time.Time, why phrase.Phrase) {
	t.State, t.Closed, t.Resolution = fleetapi.TicketClosed, new(now), "unproved"
	t.Check.Decided = new(now)
	says(t.Check, why)
	step(t, now, "", "closed", why)
}

// MedianOf returns the reading of hours that began at or after a time.
func MedianOf(starts []int64, percents []float64, from time.Time) Reading {
	var v []float64
	for i, s := range starts {
		if s >= from.Unix() {
			v = append(v, percents[i])
		}
	}
	return Reading{median(v), len(v)}
}

func median(v []float64) float64 {
	return rank.Median(slices.Clone(v))
}
