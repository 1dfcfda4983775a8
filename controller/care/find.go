package care

import (
	"fmt"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/phrase"
)

// reopenWithin: a finding so soon after work of the same cause says that the
// work did not last, and takes up the same ticket.
const reopenWithin = 14 * 24 * time.Hour

// Find takes one finding into the tickets of its box. have are those that are
// open and those that ended within RecentlyEnded; it returns those that are new
// or changed. A new one has no ID yet.
func Find(have []fleetapi.Ticket, f fleetapi.Finding, p Place, now time.Time) []fleetapi.Ticket {
	if f.Closed != nil {
		return closed(have, f, now)
	}
	i := slices.IndexFunc(have, func(t fleetapi.Ticket) bool { return !t.State.Ended() && slices.Contains(t.Families, f.Family) })
	if i >= 0 {
		return retold(have, i, f, now)
	}
	if !AtLeast(f.Level, fleetapi.HealthTicket) || f.Muted {
		return nil
	}
	if slices.ContainsFunc(have, func(t fleetapi.Ticket) bool { return outlives(f, t) }) {
		return nil
	}
	i = slices.IndexFunc(have, func(t fleetapi.Ticket) bool { return !t.State.Ended() && t.Cause == f.Cause })
	if i >= 0 {
		t := have[i]
		if len(t.Families) >= mostFamilies {
			return nil
		}
		t.Families, t.Cleared = append(slices.Clone(t.Families), f.Family), nil
		take(&t, f)
		step(&t, now, "", "found again", plain(f.Family))
		return []fleetapi.Ticket{t}
	}
	for _, t := range have {
		if t.Cause == f.Cause && t.State == fleetapi.TicketVerified && t.Verified != nil && now.Sub(*t.Verified) <= reopenWithin {
			t.Families = []string{f.Family}
			take(&t, f)
			reopen(&t, now, "", phrase.Of("is-back", "%s is back %s after the work was proved", f.Cause, days(now.Sub(*t.Verified))))
			return []fleetapi.Ticket{t}
		}
	}
	open := 0
	for _, t := range have {
		if !t.State.Ended() {
			open++
		}
	}
	if open >= mostOpen || len(have) >= mostRecent {
		return nil
	}
	return []fleetapi.Ticket{opened(f, p, now)}
}

// What one box may bring about: one that makes things up must not bury the
// others, nor fill the disk.
const (
	mostOpen     = 16 // tickets at a time
	mostRecent   = 64 // of them within RecentlyEnded, with those that ended
	mostFamilies = 16 // of one ticket
)

// outlives reports whether a finding is one whose work is proved already. The
// box closes it only after days below its line, and may meanwhile name another
// cause of what it felt before the work. One that became worse is no such.
func outlives(f fleetapi.Finding, t fleetapi.Ticket) bool {
	return t.State == fleetapi.TicketVerified && t.Done != nil && slices.Contains(t.Families, f.Family) && !f.Opened.After(*t.Done) && AtLeast(t.Level, f.Level)
}

// RecentlyEnded is how long an ended ticket may come back to life.
const RecentlyEnded = reopenWithin

func opened(f fleetapi.Finding, p Place, now time.Time) fleetapi.Ticket {
	t := fleetapi.Ticket{
		State: fleetapi.TicketOpen, Cause: f.Cause, Level: fleetapi.HealthTicket, Box: f.Box, BoxName: p.BoxName, Site: p.Site,
		Region: p.Region, Place: p.Place, SKU: p.SKU, Simulated: p.Simulated,
		Families: []string{f.Family}, Since: f.Since, Opened: now, Evidence: []fleetapi.Evidence{}, Timeline: []fleetapi.TicketStep{},
	}
	take(&t, f)
	t.Measured = new(now)
	opening(&t)
	step(&t, now, "", "opened", why(&t))
	return t
}

// take brings what a ticket says up to date with a finding.
func take(t *fleetapi.Ticket, f fleetapi.Finding) {
	t.Cause, t.Confidence = f.Cause, f.Confidence
	t.Level = Worse(t.Level, f.Level)
	t.Do, t.Part = Do(f.Cause), PartOf(f.Cause)
	if len(f.Evidence) > 0 {
		t.Evidence, t.Why = f.Evidence, f.Evidence[0].Text
	}
	if f.Forecast != nil {
		t.Forecast = f.Forecast
	}
}

// retold is a finding that a ticket holds already: it may have become worse,
// or of another cause.
func retold(have []fleetapi.Ticket, i int, f fleetapi.Finding, now time.Time) []fleetapi.Ticket {
	t := have[i]
	was := t
	if f.Cause != t.Cause {
		other := slices.IndexFunc(have, func(o fleetapi.Ticket) bool { return o.ID != t.ID && o.Cause == f.Cause && !o.State.Ended() })
		if other >= 0 { // of one cause there is one ticket
			o := have[other]
			o.Families = append(slices.Clone(o.Families), f.Family)
			take(&o, f)
			step(&o, now, "", "joined", plain(t.ID))
			return append([]fleetapi.Ticket{o}, leave(t, f.Family, now, phrase.Of("joined-to", "it is the cause of %s", o.ID))...)
		}
	}
	take(&t, f)
	t.Measured = new(now)
	switch {
	case t.Level != was.Level:
		step(&t, now, "", "raised", why(&t))
	case t.Cause != was.Cause:
		step(&t, now, "", "cause changed", phrase.Of("from-to", "%s → %s", was.Cause, t.Cause))
	}
	return []fleetapi.Ticket{t}
}

func closed(have []fleetapi.Ticket, f fleetapi.Finding, now time.Time) []fleetapi.Ticket {
	for _, t := range have {
		if !t.State.Ended() && slices.Contains(t.Families, f.Family) {
			return leave(t, f.Family, now, plain(f.ClosedBy))
		}
	}
	return nil
}

// leave takes a family from a ticket. When it was the last, a ticket that
// nobody works on ends, and one whose work waits for its proof is proved; one
// that somebody is under way for stays for that person to end.
func leave(t fleetapi.Ticket, family string, now time.Time, why phrase.Phrase) []fleetapi.Ticket {
	t.Families = slices.DeleteFunc(slices.Clone(t.Families), func(f string) bool { return f == family })
	if len(t.Families) > 0 {
		step(&t, now, "", "partly cleared", phrase.Of("of-family", "%s: %s", family, why.Text))
		return []fleetapi.Ticket{t}
	}
	t.Cleared = new(now)
	switch t.State {
	case fleetapi.TicketOpen, fleetapi.TicketAcknowledged, fleetapi.TicketReopened:
		t.State, t.Closed, t.Resolution = fleetapi.TicketClosed, new(now), "cleared"
		step(&t, now, "", "cleared", why)
	case fleetapi.TicketDone:
		verified(&t, now, phrase.Of("finding-closed", "the finding closed: %s", why.Text))
	default:
		step(&t, now, "", "cleared", phrase.Of("cleared-on-the-way", "%s; the visit is under way, so the ticket stays", why.Text))
	}
	return []fleetapi.Ticket{t}
}

// Room is what the boxes of a site agree on: names of those that find its air
// hot now. None: it is not.
type Room struct {
	Place
	Boxes    []string
	Evidence []fleetapi.Evidence
	Since    time.Time
}

// HotRoom takes what the boxes of a site agree on into the site's tickets.
func HotRoom(have []fleetapi.Ticket, r Room, now time.Time) []fleetapi.Ticket {
	f := fleetapi.Finding{Family: CauseHVAC, Cause: CauseHVAC, Level: fleetapi.HealthUrgent, Confidence: 0.9, Since: r.Since, Opened: now, Evidence: r.Evidence, Site: r.Site}
	own := slices.DeleteFunc(slices.Clone(have), func(t fleetapi.Ticket) bool { return t.Box != "" || t.Site != r.Site })
	if len(r.Boxes) == 0 {
		f.Closed, f.ClosedBy = new(now), "the air is as usual again"
		return Find(own, f, r.Place, now)
	}
	for _, t := range own {
		if !t.State.Ended() && t.Cause == CauseHVAC && slices.Contains(t.Families, CauseHVAC) && slices.Equal(t.Boxes, r.Boxes) {
			return nil
		}
	}
	changed := Find(own, f, r.Place, now)
	for i := range changed {
		changed[i].Boxes = r.Boxes
	}
	return changed
}

func days(d time.Duration) string {
	if d < 48*time.Hour {
		return fmt.Sprintf("%.0f h", d.Hours())
	}
	return fmt.Sprintf("%.0f days", d.Hours()/24)
}
