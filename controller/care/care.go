// Package care decides what is done about the heat of boxes: which findings
// become tickets, how a ticket moves, what a visit takes along, and whether the
// work helped. It is pure: tickets, findings and the time in, tickets out.
//
// Vocabulary: a finding is what a box, or the site, says is wrong. A ticket is
// one thing to do; of one cause a box has one ticket at a time, however many of
// its findings say so, and a hot room is one ticket of the site. Boxes of a site,
// or of a SKU, that do worse than their like together have one ticket of the
// site or SKU, though none of them need be sure by itself. A visit is one
// way to a site for all that is due there. A check is the proof of work: the
// resistance of the box must lose half of its excess within one to two days. A
// notice is what somebody should be told of a change of a ticket.
//
// Lines to fire and to clear are those of internal/health: a finding opens at
// its line and closes at half of it, so that a ticket does not flap.
//
// The one rule a caller can break: keep the tickets and the notices that a call
// returns in one transaction, or a crash tells people twice or never.
package care

import (
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/phrase"
)

// Causes that are no finding's own.
const (
	CauseHVAC = "hvac"
)

// job is what a cause asks for.
type job struct {
	do   string
	part string // to take along; "" nothing
	// cooling says that the work must show in the resistance.
	cooling bool
}

var jobs = map[string]job{
	"airflow":      {"clean or change the filter, blow out the fins", "filter", true},
	"paste":        {"renew the thermal paste", "paste", true},
	"undetermined": {"clean the filter first; if it does not help, renew the paste", "filter", true},
	"blocked-vent": {"clear what stands before the vents", "", true},
	"fan-wear":     {"change the fan", "fan", false},
	"fan-stop":     {"change the fan", "fan", false},
	"sensor":       {"look at the sensor and its driver", "", false},
	"ambient":      {"find out what warms the air at the inlet", "", false},
	CauseHVAC:      {"see to the cooling of the room", "", false},
	"drive-wear":   {"change the drive", "ssd", false},
	"power-supply": {"change the power supply", "psu", false},
	CauseDustySite: {"clean the filters of all boxes here, look for what makes the dust, and change filters more often", "filter", false},
	CauseHotSKU:    {"look for what these boxes have in common: BIOS, firmware, power mode, fan curve, the paste of one batch", "", false},
}

// Do says what a cause asks for, in English.
func Do(cause string) string {
	if j, ok := jobs[cause]; ok {
		return j.do
	}
	return "look at the box"
}

// PartOf is the part that a cause asks for, or "".
func PartOf(cause string) string { return jobs[cause].part }

// Place is what a ticket tells of where its box stands.
type Place struct {
	BoxName, Site, Region, Place, SKU string
	Simulated                         bool
}

// urgency orders levels.
func urgency(h fleetapi.Health) int {
	return slices.Index([]fleetapi.Health{fleetapi.HealthUnknown, fleetapi.HealthHealthy, fleetapi.HealthWatch, fleetapi.HealthTicket, fleetapi.HealthUrgent}, h)
}

// Worse is the more urgent of two levels.
func Worse(a, b fleetapi.Health) fleetapi.Health {
	if urgency(b) > urgency(a) {
		return b
	}
	return a
}

// AtLeast reports whether a level is as urgent as least.
func AtLeast(h, least fleetapi.Health) bool { return urgency(h) >= urgency(least) }

// maxTimeline bounds the history of a ticket: its oldest lines but the first go.
const maxTimeline = 200

// step adds a line to the history of t.
func step(t *fleetapi.Ticket, now time.Time, by, what string, p phrase.Phrase) {
	t.Changed = now
	t.Timeline = append(slices.Clone(t.Timeline), fleetapi.TicketStep{Time: now, By: by, What: what, State: t.State, Text: p.Text, Code: p.Code, Args: p.Args})
	if n := len(t.Timeline); n > maxTimeline {
		t.Timeline = slices.Delete(t.Timeline, 1, 1+n-maxTimeline)
	}
}

// plain is what a person wrote, and what all languages write alike.
func plain(text string) phrase.Phrase { return phrase.Phrase{Text: text} }

// why is the strongest evidence of a ticket.
func why(t *fleetapi.Ticket) phrase.Phrase {
	if len(t.Evidence) == 0 {
		return plain(t.Why)
	}
	e := t.Evidence[0]
	return phrase.Phrase{Code: e.Code, Args: e.Args, Text: e.Text}
}
