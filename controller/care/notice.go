package care

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/phrase"
	"github.com/edgeherd/edgeherd/web/src/i18n"
)

// Notice is what somebody should be told. Of one Key there is one notice, ever.
type Notice struct {
	Key     string          `json:"key"`
	Kind    string          `json:"kind"` // opened, raised, reopened, verified, closed, digest, test; rollouts.EVENT, trust.EVENT
	Time    time.Time       `json:"time"`
	Level   fleetapi.Health `json:"level"`
	Was     fleetapi.Health `json:"was,omitempty"` // the level before, of what became worse
	Site    string          `json:"site,omitempty"`
	Sites   []string        `json:"sites,omitempty"` // of a SKU's ticket: where its boxes stand
	Title   string          `json:"title"`
	Text    string          `json:"text"`
	Path    string          `json:"path,omitempty"` // of the page
	Ticket  *Told           `json:"ticket,omitempty"`
	Rollout *ToldRollout    `json:"rollout,omitempty"`
	Trust   *ToldRole       `json:"trust,omitempty"`
	// Active is false when what was told of is over.
	Active bool `json:"active"`
}

// Told is what a notice tells of a ticket.
type Told struct {
	ID         string                 `json:"id"`
	State      fleetapi.TicketState   `json:"state"`
	Cause      string                 `json:"cause"`
	Box        string                 `json:"box,omitempty"`
	BoxName    string                 `json:"box_name,omitempty"`
	Site       string                 `json:"site"`
	Region     string                 `json:"region,omitempty"`
	Place      string                 `json:"place,omitempty"`
	Do         string                 `json:"do"`
	Part       string                 `json:"part,omitempty"`
	Confidence float64                `json:"confidence"`
	Forecast   *fleetapi.HeatForecast `json:"forecast,omitempty"`
	Opened     time.Time              `json:"opened"`
	Simulated  bool                   `json:"simulated,omitempty"`
}

// ToldRollout is what a notice tells of a rollout. The counts are of the wave, if
// the change was of one.
type ToldRollout struct {
	ID        string                `json:"id"`
	Event     string                `json:"event"`
	State     fleetapi.RolloutState `json:"state"`
	Target    string                `json:"target"` // NAME:VERSION
	Kind      string                `json:"kind"`
	Wave      int                   `json:"wave,omitempty"` // from 1
	Waves     int                   `json:"waves"`
	Boxes     int                   `json:"boxes"`
	Succeeded int                   `json:"succeeded"`
	Failed    int                   `json:"failed"`
	Sentence  string                `json:"sentence"`
	Affected  string                `json:"affected,omitempty"`
}

// ToldRole is what a notice tells of a role of the fleet's metadata.
type ToldRole struct {
	Role    string    `json:"role"`
	Expires time.Time `json:"expires"`
	// Keys are those that may renew it, of which Need must.
	Keys []string `json:"keys"`
	Need int      `json:"need"`
	// Do is the command that renews it; "" when the controller does.
	Do string `json:"do,omitempty"`
}

// Notices says what is worth telling of a ticket that changed, in the language
// of a dictionary (nil: English). was is nil for a new one. Of one that is part
// of another's people are not told.
func Notices(was *fleetapi.Ticket, is fleetapi.Ticket, now time.Time, d *i18n.Dictionary) []Notice {
	kind, before := "", fleetapi.Health("")
	switch {
	case is.Within != "":
		return nil
	case was == nil || was.Within != "" && !is.State.Ended():
		kind = "opened"
	case was.State == is.State && was.Level != is.Level && AtLeast(is.Level, was.Level):
		kind, before = "raised", was.Level
	case was.State == is.State:
		return nil
	case is.State == fleetapi.TicketReopened:
		kind = "reopened"
	case is.State == fleetapi.TicketVerified:
		kind = "verified"
	case is.State == fleetapi.TicketClosed:
		kind = "closed"
	default:
		return nil
	}
	return []Notice{{
		// The time keeps keys apart that a database restored from a backup would
		// give anew: receivers drop what they had.
		Key: fmt.Sprintf("%s/%s/%d", is.ID, kind, now.UnixMilli()), Kind: kind, Time: now, Level: is.Level, Was: before, Site: is.Site, Sites: is.Sites,
		Path: "/tickets/" + is.ID, Ticket: told(is), Active: !is.State.Ended(),
		Title: whose(d, is) + ": " + words(d, is) + ", " + d.Word(kind), Text: lines(d, is),
	}}
}

// whose names what a ticket is about.
func whose(d *i18n.Dictionary, t fleetapi.Ticket) string {
	switch {
	case t.BoxName == "" && t.Site == "":
		return d.Put(phrase.Of("boxes-of", "boxes of %s", t.SKU))
	case t.BoxName == "":
		return d.Put(phrase.Of("a-site", "site %s", t.Site))
	case t.Site == "":
		return t.BoxName
	}
	return d.Put(phrase.Of("box-at-site", "%s at %s", t.BoxName, t.Site))
}

func told(t fleetapi.Ticket) *Told {
	return &Told{ID: t.ID, State: t.State, Cause: t.Cause, Box: string(t.Box), BoxName: t.BoxName, Site: t.Site, Region: t.Region,
		Place: t.Place, Do: t.Do, Part: t.Part, Confidence: t.Confidence, Forecast: t.Forecast, Opened: t.Opened, Simulated: t.Simulated}
}

// words hedges: a cause is likely, not certain, and says how likely.
func words(d *i18n.Dictionary, t fleetapi.Ticket) string {
	cause := causeIn(d, t.Cause)
	if t.Confidence > 0 && t.Cause != "undetermined" {
		return d.Put(phrase.Of("likely", "%s likely (%.0f %%)", cause, 100*t.Confidence))
	}
	return cause
}

func causeIn(d *i18n.Dictionary, cause string) string {
	if w := d.Word(cause); w != cause {
		return w
	}
	return strings.ReplaceAll(cause, "-", " ")
}

func lines(d *i18n.Dictionary, t fleetapi.Ticket) string {
	var out []string
	if t.State.Ended() || t.State == fleetapi.TicketReopened {
		if n := len(t.Timeline); n > 0 && t.Timeline[n-1].Text != "" {
			last := t.Timeline[n-1]
			out = append(out, d.Say(phrase.Phrase{Code: last.Code, Args: last.Args, Text: last.Text}))
		}
	}
	if t.Why != "" {
		out = append(out, d.Say(why(&t)))
	}
	if !t.State.Ended() {
		out = append(out, d.Put(phrase.Of("to-do", "To do: %s", d.Word(t.Do))))
		if t.Place != "" {
			out = append(out, d.Put(phrase.Of("at-place", "Place: %s", t.Place)))
		}
		if f := t.Forecast; f != nil && f.LowDays < 365 {
			out = append(out, d.Put(phrase.Of("may-throttle", "May throttle in %.0f to %.0f days", f.LowDays, f.HighDays)))
		}
		if len(t.Boxes) > 0 {
			out = append(out, d.Put(phrase.Of("its-boxes", "Boxes: %s", short(t.Boxes))))
		}
		if len(t.Tickets) > 0 {
			out = append(out, d.Put(phrase.Of("its-tickets", "Their own tickets: %s", short(t.Tickets))))
		}
	}
	if t.Simulated {
		out = append(out, d.Put(phrase.Of("is-simulated", "This box is simulated.")))
	}
	out = append(out, d.Put(phrase.Of("ticket-id", "Ticket %s", t.ID)))
	return strings.Join(out, "\n")
}

// short is a list that a chat can show.
func short(names []string) string {
	if n := len(names) - digestLines; n > 0 {
		return strings.Join(names[:digestLines], ", ") + fmt.Sprintf(" +%d", n)
	}
	return strings.Join(names, ", ")
}

// Trial is a notice that means nothing, to try an endpoint with.
func Trial(endpoint string, now time.Time, d *i18n.Dictionary) Notice {
	return Notice{
		Key: fmt.Sprintf("test/%s/%d", endpoint, now.UnixNano()), Kind: "test", Time: now, Level: fleetapi.HealthTicket, Path: "/tickets",
		Title: d.Put(phrase.Of("test-title", "edgeherd: test")),
		Text:  d.Put(phrase.Of("test-text", "This is a test of the endpoint %s. Nothing is wrong.", endpoint)),
	}
}

// About reports whether a notice is about one of the sites, or the SKU of boxes
// there; of no sites all are.
func (n Notice) About(sites []string) bool {
	return len(sites) == 0 || slices.Contains(sites, n.Site) || slices.ContainsFunc(n.Sites, func(s string) bool { return slices.Contains(sites, s) })
}

// Quietly reports whether a notice may wait until quiet hours are over. What
// is urgent may not, nor may the end of what was.
func (n Notice) Quietly() bool { return n.Level != fleetapi.HealthUrgent }

// A digest has at most so many lines, of so many bytes: chats refuse long ones.
const (
	digestLines = 20
	digestLine  = 100
)

// Digest is the weekly word about what is only watched; false: nothing is.
func Digest(watch []fleetapi.Finding, week string, now time.Time, d *i18n.Dictionary) (Notice, bool) {
	if len(watch) == 0 {
		return Notice{}, false
	}
	sites := map[string]bool{}
	lines := make([]string, 0, len(watch))
	for _, f := range watch {
		line := f.Site + ", " + cmp.Or(f.BoxName, string(f.Box)) + ": " + causeIn(d, f.Cause)
		if len(f.Evidence) > 0 {
			e := f.Evidence[0]
			line += ", " + d.Say(phrase.Phrase{Code: e.Code, Args: e.Args, Text: e.Text})
		}
		if len(line) > digestLine {
			line = strings.ToValidUTF8(line[:digestLine], "") + "…"
		}
		sites[f.Site], lines = true, append(lines, line)
	}
	slices.Sort(lines)
	if n := len(lines) - digestLines; n > 0 {
		lines = append(lines[:digestLines], d.Put(phrase.Of("and-more", "and %d more: `edgeherd health fleet` shows the sites", n)))
	}
	return Notice{
		Key: "digest/" + week, Kind: "digest", Time: now, Level: fleetapi.HealthWatch, Path: "/tickets", Active: true,
		Title: d.Put(phrase.Of("digest-title", "edgeherd: %d to watch at %d sites, nothing to do yet", len(watch), len(sites))), Text: strings.Join(lines, "\n"),
	}, true
}
