package care

import (
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// measuredEvery is how old the figures of an open ticket may become.
const measuredEvery = 20 * time.Hour

func stale(t fleetapi.Ticket, now time.Time) bool {
	return t.Measured == nil || now.Sub(*t.Measured) >= measuredEvery
}

// Refresh brings the figures of a ticket up to date with its finding of today.
// Its level and cause are for the box to change, and no step of its history is
// made of it: it is the same thing to do.
func Refresh(t *fleetapi.Ticket, f fleetapi.Finding, now time.Time) {
	t.Measured = new(now)
	if len(f.Evidence) > 0 {
		t.Evidence, t.Why = f.Evidence, f.Evidence[0].Text
	}
	if f.Forecast != nil {
		t.Forecast = f.Forecast
	}
}

// Refreshed are the tickets of a box whose figures are older than those of its
// open findings.
func Refreshed(have []fleetapi.Ticket, open []fleetapi.Finding, now time.Time) []fleetapi.Ticket {
	var changed []fleetapi.Ticket
	for _, t := range have {
		if t.State.Ended() || !stale(t, now) {
			continue
		}
		i := slices.IndexFunc(open, func(f fleetapi.Finding) bool { return f.Cause == t.Cause && slices.Contains(t.Families, f.Family) })
		if i >= 0 {
			Refresh(&t, open[i], now)
			changed = append(changed, t)
		}
	}
	return changed
}

// opening keeps what a ticket rested on when it was opened.
func opening(t *fleetapi.Ticket) {
	t.Opening = &fleetapi.TicketOpening{Time: t.Opened, Level: t.Level, Confidence: t.Confidence, Evidence: t.Evidence, Forecast: t.Forecast}
}
