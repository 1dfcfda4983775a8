package notify

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/controller/care"
	"github.com/edgeherd/edgeherd/controller/rollout"
	"github.com/edgeherd/edgeherd/controller/site"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/phrase"
	"github.com/edgeherd/edgeherd/web/src/i18n"
)

// What an endpoint may be told of, in Endpoint.About. A single change of
// rollouts is "rollouts." with its name.
const (
	AboutTickets  = "tickets"
	AboutRollouts = "rollouts"
	AboutTrust    = "trust"
)

// Hears reports whether an endpoint is told of tickets, of the end of metadata, of
// all rollouts, or of one change of them.
func (e Endpoint) Hears(what string) bool {
	kind, _, _ := strings.Cut(what, ".")
	return slices.Contains(e.about(), what) || slices.Contains(e.about(), kind)
}

// about is what it is told of, the default named. Metadata is of the whole fleet, so
// one who cares for a few sites hears of it only on demand.
func (e Endpoint) about() []string {
	switch {
	case len(e.About) > 0:
		return e.About
	case len(e.Sites) > 0:
		return []string{AboutTickets}
	}
	return []string{AboutTickets, AboutTrust}
}

func checkAbout(about []string) error {
	for _, what := range about {
		event, of := strings.CutPrefix(what, AboutRollouts+".")
		if what != AboutTickets && what != AboutRollouts && what != AboutTrust && !(of && slices.Contains(rollout.EventNames(), event)) {
			return fmt.Errorf("about %q: want tickets, trust, rollouts, or rollouts. and one of %s", what, strings.Join(rollout.EventNames(), ", "))
		}
	}
	return nil
}

// Rollouts returns what endpoints are told of a rollout that changed; the
// transaction that changes it queues that. A nil Sender tells nobody.
func (s *Sender) Rollouts(ctx context.Context) (func(was, is fleetapi.Rollout) ([]store.Notice, error), error) {
	zone := ""
	if s != nil && slices.ContainsFunc(s.opts.Endpoints, func(e Endpoint) bool { return len(e.Quiet) > 0 }) {
		sites, err := s.opts.Store.Sites(ctx)
		if err != nil {
			return nil, err
		}
		zone = site.Effect(fleetapi.SiteSettings{}, sites[store.SiteDefaults].Settings).TimeZone
	}
	return func(was, is fleetapi.Rollout) ([]store.Notice, error) {
		if s == nil {
			return nil, nil
		}
		var out []store.Notice
		now := s.opts.WallClock().UTC()
		for i, ev := range rollout.Events(was, is) {
			for _, e := range s.opts.Endpoints {
				n := ofRollout(ev, is, now, s.in[e.Name])
				// Those that waited for the same time are told by key: in order.
				n.Key = fmt.Sprintf("%s/%d/%03d/%s", is.ID, now.UnixMilli(), i, ev.Name)
				if !e.Hears(n.Kind) || !n.About(e.Sites) {
					continue
				}
				due := now
				if n.Quietly() {
					due = site.AfterQuiet(e.Quiet, zone, now)
				}
				n.Sites = nil // it may be at thousands
				body, err := json.Marshal(n)
				if err != nil {
					return nil, err
				}
				out = append(out, store.Notice{Endpoint: e.Name, Key: n.Key, DueMs: due.UnixMilli(), Body: body})
			}
		}
		return out, nil
	}, nil
}

// ofRollout is the notice of one change, in the language of a dictionary.
func ofRollout(ev rollout.Event, r fleetapi.Rollout, now time.Time, d *i18n.Dictionary) care.Notice {
	told := &care.ToldRollout{ID: r.ID, Event: ev.Name, State: r.State, Target: r.Target.String(), Kind: r.Kind, Wave: ev.Wave, Waves: len(r.Waves), Sentence: r.Sentence, Affected: r.Affected}
	n := care.Notice{
		Kind: AboutRollouts + "." + ev.Name, Time: now, Level: fleetapi.HealthWatch,
		Path: "/rollouts/" + r.ID, Rollout: told, Title: d.Put(titleOf(ev, told)),
	}
	switch ev.Name {
	case rollout.EventHalted:
		n.Level, n.Active = fleetapi.HealthUrgent, true
	case rollout.EventApproval:
		n.Level, n.Active = fleetapi.HealthTicket, true
	}
	sites := map[string]bool{}
	for i, w := range r.Waves {
		for _, t := range w.Targets {
			if !sites[t.Site] {
				sites[t.Site], n.Sites = true, append(n.Sites, t.Site)
			}
			if ev.Wave != 0 && i != ev.Wave-1 {
				continue
			}
			told.Boxes++
			switch t.State {
			case fleetapi.TargetSucceeded:
				told.Succeeded++
			case fleetapi.TargetFailed:
				told.Failed++
			}
		}
	}
	lines := []string{inWords(d, r.Sentence, r.SentenceSaid), inWords(d, r.Affected, r.AffectedSaid), d.Put(phrase.Of("rollout-count", "Boxes: %d, succeeded: %d, failed: %d", told.Boxes, told.Succeeded, told.Failed)),
		d.Put(phrase.Of("rollout-id", "Rollout %s", r.ID))}
	n.Text = strings.Join(slices.DeleteFunc(lines, func(l string) bool { return l == "" }), "\n")
	return n
}

// inWords says a sentence with its phrase beside it in the language of a dictionary.
func inWords(d *i18n.Dictionary, text string, said *phrase.Phrase) string {
	if said == nil {
		return text
	}
	p := *said
	p.Text = text
	return d.Put(p)
}

func titleOf(ev rollout.Event, r *care.ToldRollout) phrase.Phrase {
	switch ev.Name {
	case rollout.EventWaveBegan:
		return phrase.Of("rollout-wave-began", "%s: wave %d of %d began", r.Target, ev.Wave, r.Waves)
	case rollout.EventWaveDone:
		return phrase.Of("rollout-wave-done", "%s: wave %d of %d passed", r.Target, ev.Wave, r.Waves)
	case rollout.EventApproval:
		return phrase.Of("rollout-approval-needed", "%s: wave %d of %d waits for an approval", r.Target, ev.Wave, r.Waves)
	case rollout.EventHalted:
		return phrase.Of("rollout-halted", "%s: rollout halted", r.Target)
	case rollout.EventPaused:
		return phrase.Of("rollout-paused", "%s: rollout paused", r.Target)
	case rollout.EventResumed:
		return phrase.Of("rollout-resumed", "%s: rollout goes on", r.Target)
	case rollout.EventDone:
		return phrase.Of("rollout-done", "%s: rollout done", r.Target)
	case rollout.EventRolledBack:
		return phrase.Of("rollout-rolled-back", "%s: rollout rolled back", r.Target)
	case rollout.EventCanceled:
		return phrase.Of("rollout-canceled", "%s: rollout canceled", r.Target)
	}
	return phrase.Of("rollout-started", "%s: rollout started", r.Target)
}

// standsFor is how long an Alertmanager hears that a rollout stands still, unless
// it is over before: people work in days.
const standsFor = 24 * time.Hour

// rolloutAlerts are the alerts of a change: a halt, a wave that waits for
// somebody, and the end of both with whatever comes next.
func rolloutAlerts(n care.Notice, link string, now time.Time) []alert {
	var out []alert
	for _, v := range [][3]string{{rollout.EventHalted, "EdgeherdRolloutHalted", "critical"}, {rollout.EventApproval, "EdgeherdRolloutWaits", "warning"}} {
		a := alert{
			Labels:      map[string]string{"alertname": v[1], "severity": v[2], "rollout": n.Rollout.ID, "target": n.Rollout.Target},
			Annotations: map[string]string{"summary": n.Title, "description": n.Text},
			StartsAt:    n.Time, EndsAt: now, GeneratorURL: link,
		}
		if n.Active && n.Rollout.Event == v[0] {
			a.EndsAt = n.Time.Add(standsFor)
		}
		if a.StartsAt.After(a.EndsAt) {
			a.StartsAt = a.EndsAt
		}
		out = append(out, a)
	}
	return out
}
