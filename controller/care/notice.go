package care

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// Notice is what somebody should be told. Of one Key there is one notice, ever.
type Notice struct {
	Key    string          `json:"key"`
	Kind   string          `json:"kind"` // opened, raised, reopened, verified, closed, digest, test
	Time   time.Time       `json:"time"`
	Level  fleetapi.Health `json:"level"`
	Site   string          `json:"site,omitempty"`
	Title  string          `json:"title"`
	Text   string          `json:"text"`
	Path   string          `json:"path,omitempty"` // of the page
	Ticket *Told           `json:"ticket,omitempty"`
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

// Notices says what is worth telling of a ticket that changed. was is nil for
// a new one.
func Notices(was *fleetapi.Ticket, is fleetapi.Ticket, now time.Time) []Notice {
	kind := ""
	switch {
	case was == nil:
		kind = "opened"
	case was.State == is.State && was.Level != is.Level && AtLeast(is.Level, was.Level):
		kind = "raised"
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
	n := Notice{
		// The time keeps keys apart that a database restored from a backup would
		// give anew: receivers drop what they had.
		Key: fmt.Sprintf("%s/%s/%d", is.ID, kind, now.UnixMilli()), Kind: kind, Time: now, Level: is.Level, Site: is.Site,
		Path: "/tickets/" + is.ID, Ticket: told(is), Active: !is.State.Ended(),
	}
	what := is.BoxName
	if what == "" && is.Site == "" {
		what = "boxes of " + is.SKU
	} else if what == "" {
		what = "site " + is.Site
	} else if is.Site != "" {
		what += " at " + is.Site
	}
	n.Title = fmt.Sprintf("%s: %s, %s", what, words(is), kind)
	n.Text = lines(is)
	return []Notice{n}
}

func told(t fleetapi.Ticket) *Told {
	return &Told{ID: t.ID, State: t.State, Cause: t.Cause, Box: string(t.Box), BoxName: t.BoxName, Site: t.Site, Region: t.Region,
		Place: t.Place, Do: t.Do, Part: t.Part, Confidence: t.Confidence, Forecast: t.Forecast, Opened: t.Opened, Simulated: t.Simulated}
}

// words hedges: a cause is likely, not certain, and says how likely.
func words(t fleetapi.Ticket) string {
	s := strings.ReplaceAll(t.Cause, "-", " ")
	if t.Confidence > 0 && t.Cause != "undetermined" {
		s += fmt.Sprintf(" likely (%.0f %%)", 100*t.Confidence)
	}
	return s
}

func lines(t fleetapi.Ticket) string {
	var out []string
	if t.State.Ended() || t.State == fleetapi.TicketReopened {
		if n := len(t.Timeline); n > 0 && t.Timeline[n-1].Text != "" {
			out = append(out, t.Timeline[n-1].Text)
		}
	}
	if t.Why != "" {
		out = append(out, t.Why)
	}
	if !t.State.Ended() {
		out = append(out, "To do: "+t.Do)
		if t.Place != "" {
			out = append(out, "Place: "+t.Place)
		}
		if f := t.Forecast; f != nil && f.LowDays < 365 {
			out = append(out, fmt.Sprintf("May throttle in %.0f to %.0f days", f.LowDays, f.HighDays))
		}
	}
	if t.Simulated {
		out = append(out, "This box is simulated.")
	}
	out = append(out, "Ticket "+t.ID)
	return strings.Join(out, "\n")
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
func Digest(watch []fleetapi.Finding, week string, now time.Time) (Notice, bool) {
	if len(watch) == 0 {
		return Notice{}, false
	}
	sites := map[string]bool{}
	lines := make([]string, 0, len(watch))
	for _, f := range watch {
		line := f.Site + ", " + cmp.Or(f.BoxName, string(f.Box)) + ": " + f.Cause
		if len(f.Evidence) > 0 {
			line += ", " + f.Evidence[0].Text
		}
		if len(line) > digestLine {
			line = strings.ToValidUTF8(line[:digestLine], "") + "…"
		}
		sites[f.Site], lines = true, append(lines, line)
	}
	slices.Sort(lines)
	if n := len(lines) - digestLines; n > 0 {
		lines = append(lines[:digestLines], fmt.Sprintf("and %d more: `edgeherd health fleet` shows the sites", n))
	}
	return Notice{
		Key: "digest/" + week, Kind: "digest", Time: now, Level: fleetapi.HealthWatch, Path: "/tickets", Active: true,
		Title: fmt.Sprintf("edgeherd: %d to watch at %d sites, nothing to do yet", len(watch), len(sites)), Text: strings.Join(lines, "\n"),
	}, true
}
