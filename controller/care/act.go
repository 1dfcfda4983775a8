package care

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/phrase"
)

// Refusal is why an action cannot be done now, with the way out.
type Refusal struct{ Why, Hint string }

func (r Refusal) Error() string { return r.Why }

// nexts are the states in which an action is of use.
var nexts = map[string][]fleetapi.TicketState{
	"acknowledge": {fleetapi.TicketOpen, fleetapi.TicketReopened},
	"assign":      {fleetapi.TicketOpen, fleetapi.TicketReopened, fleetapi.TicketAcknowledged, fleetapi.TicketDispatched},
	"arrive":      {fleetapi.TicketOpen, fleetapi.TicketReopened, fleetapi.TicketAcknowledged, fleetapi.TicketDispatched},
	"done":        {fleetapi.TicketOpen, fleetapi.TicketReopened, fleetapi.TicketAcknowledged, fleetapi.TicketDispatched, fleetapi.TicketOnSite},
	"reopen":      {fleetapi.TicketDone, fleetapi.TicketVerified, fleetapi.TicketClosed},
	"close":       {fleetapi.TicketOpen, fleetapi.TicketReopened, fleetapi.TicketAcknowledged, fleetapi.TicketDispatched, fleetapi.TicketOnSite, fleetapi.TicketDone},
	"note":        fleetapi.TicketStates(),
}

// CanGo reports whether somebody can be sent for a ticket.
func CanGo(t fleetapi.Ticket) bool { return slices.Contains(nexts["assign"], t.State) }

// again are the actions that change nothing where they led before: a request
// that comes twice is no error.
var again = map[string]fleetapi.TicketState{"acknowledge": fleetapi.TicketAcknowledged, "arrive": fleetapi.TicketOnSite, "done": fleetapi.TicketDone}

// Act does what a person asks for. excess is by how much the resistance of the
// box stands above the clean box now, in percent; NaN when it is not known.
// Work is checked and recorded by the caller.
func Act(t fleetapi.Ticket, a fleetapi.TicketAction, by string, excess float64, now time.Time) (fleetapi.Ticket, error) {
	if again[a.Action] == t.State && a.Action != "" {
		return t, nil
	}
	states, known := nexts[a.Action]
	if !known {
		return t, Refusal{fmt.Sprintf("action %q is not known", a.Action), "Actions are acknowledge, assign, arrive, done, reopen, close and note."}
	}
	if !slices.Contains(states, t.State) {
		return t, Refusal{fmt.Sprintf("ticket %s is %s: it cannot be told %q", t.ID, t.State, a.Action), hintOf(t)}
	}
	switch a.Action {
	case "acknowledge":
		t.State = fleetapi.TicketAcknowledged
		first(&t.Acknowledged, now)
		step(&t, now, by, "acknowledged", plain(a.Note))
	case "assign":
		if strings.TrimSpace(a.Assignee) == "" {
			return t, Refusal{"assign names nobody", "Give the assignee."}
		}
		Dispatch(&t, Order{a.Assignee, t.Visit, by, a.Note}, now)
	case "arrive":
		t.State = fleetapi.TicketOnSite
		first(&t.Acknowledged, now)
		t.OnSite = new(now)
		step(&t, now, by, "on site", plain(a.Note))
	case "done":
		done(&t, a, by, excess, now)
	case "reopen":
		reopen(&t, now, by, plain(a.Note))
	case "close":
		if a.Resolution == "" {
			return t, Refusal{"close does not say why", "Give a resolution: false-alarm, accepted, duplicate or retired."}
		}
		t.State, t.Closed, t.Resolution = fleetapi.TicketClosed, new(now), a.Resolution
		t.NoFault = t.NoFault || a.Resolution == "false-alarm"
		if t.Cause == CauseDustySite || t.Cause == CauseHotSKU { // those of boxes are muted by family
			t.MutedUntil = new(now.AddDate(0, 0, MuteDays(a)))
		}
		step(&t, now, by, "closed", plain(strings.TrimSuffix(a.Resolution+": "+a.Note, ": ")))
	case "note":
		if a.Note == "" {
			return t, Refusal{"the note is empty", "Give a note."}
		}
		step(&t, now, by, "note", plain(a.Note))
	}
	return t, nil
}

// MuteDays is for how long what a person closed is not told again. A duplicate
// and what is retired are quiet until the ticket could come back to life.
func MuteDays(a fleetapi.TicketAction) int {
	switch {
	case a.Resolution != "false-alarm" && a.Resolution != "accepted":
		return int(RecentlyEnded.Hours() / 24)
	case a.MuteDays != 0:
		return a.MuteDays
	}
	return 90
}

func hintOf(t fleetapi.Ticket) string {
	if t.State.Ended() {
		return "It has ended; `reopen` takes it up again."
	}
	return "GET /api/v1/tickets/" + t.ID + " tells how it stands."
}

func first(p **time.Time, now time.Time) {
	if *p == nil {
		*p = new(now)
	}
}

// Order sends somebody, perhaps with a visit.
type Order struct{ Assignee, Visit, By, Note string }

// Dispatch gives a ticket to somebody.
func Dispatch(t *fleetapi.Ticket, o Order, now time.Time) {
	t.State, t.Assignee, t.Visit = fleetapi.TicketDispatched, o.Assignee, o.Visit
	first(&t.Acknowledged, now)
	t.Dispatched = new(now)
	text := "to " + o.Assignee
	if o.Assignee == "" {
		text = "to a visit"
	}
	if o.Visit != "" {
		text += " with " + o.Visit
	}
	if o.Note != "" {
		text += ": " + o.Note
	}
	step(t, now, o.By, "dispatched", plain(text))
}

// Undispatch takes a ticket out of a visit that did not help it.
func Undispatch(t *fleetapi.Ticket, why, by string, now time.Time) {
	t.State, t.Visit, t.Assignee = fleetapi.TicketAcknowledged, "", ""
	step(t, now, by, "due again", plain(why))
}

func reopen(t *fleetapi.Ticket, now time.Time, by string, why phrase.Phrase) {
	t.State, t.Reopened, t.Closed, t.Verified, t.Resolution, t.MutedUntil = fleetapi.TicketReopened, new(now), nil, nil, "", nil
	t.Reopens++
	t.Visit, t.NoFault, t.Done, t.Cleared = "", false, nil, nil
	step(t, now, by, "reopened", why)
}

func done(t *fleetapi.Ticket, a fleetapi.TicketAction, by string, excess float64, now time.Time) {
	t.State, t.NoFault = fleetapi.TicketDone, a.NoFault
	first(&t.Acknowledged, now)
	t.Done = new(now)
	var did []string
	for _, w := range a.Work {
		did = append(did, strings.TrimSpace(w.Kind+" "+w.Part))
	}
	if a.NoFault {
		did = append(did, "no fault found")
	}
	if a.Note != "" {
		did = append(did, a.Note)
	}
	step(t, now, by, "done", plain(strings.Join(did, "; ")))
	begin(t, excess, now)
	if len(t.Families) == 0 && t.Cleared != nil { // it closed while somebody was under way
		verified(t, now, phrase.Of("closed-already", "the finding had closed already"))
	}
}
