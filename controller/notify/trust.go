package notify

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/controller/care"
	"github.com/edgeherd/edgeherd/controller/site"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/phrase"
	"github.com/edgeherd/edgeherd/internal/trust/tufrepo"
	"github.com/edgeherd/edgeherd/web/src/i18n"
)

// What is told of a role of the fleet's metadata: that it ends soon, in a week (urgent),
// or has ended, each once, and then that it was renewed.
const (
	endsSoon = AboutTrust + ".ends_soon"
	lastWeek = AboutTrust + ".last_week"
	ended    = AboutTrust + ".ended"
	renewed  = AboutTrust + ".renewed"
)

// TellEnds queues what endpoints have not been told yet of roles of the fleet's
// metadata that end, or were renewed.
func (s *Sender) TellEnds(ctx context.Context) error {
	sites, err := s.opts.Store.Sites(ctx)
	if err != nil {
		return err
	}
	zone := site.Effect(fleetapi.SiteSettings{}, sites[store.SiteDefaults].Settings).TimeZone
	now := s.opts.WallClock().UTC()
	return s.opts.Store.TellTrust(ctx, func(docs []store.TrustDocument, told []store.TrustTold) (next []store.TrustTold, out []store.Notice, err error) {
		roles, err := store.Standings(docs, now)
		if err != nil {
			return nil, nil, err
		}
		for _, e := range s.opts.Endpoints {
			if !e.Hears(AboutTrust) {
				continue
			}
			for _, r := range roles {
				was, is := stageTold(told, e.Name, r.Role), r.Stage
				if !care.AtLeast(levelOf(is), e.least()) {
					is = tufrepo.Good
				}
				n := ofRole(r, was, now, s.in[e.Name])
				// A clock that went back is no renewal, and no news.
				if r.Stage != tufrepo.Good {
					is = max(is, was)
				}
				if is != tufrepo.Good {
					next = append(next, store.TrustTold{Endpoint: e.Name, Role: r.Role, Stage: int(is)})
				}
				if is == was {
					continue
				}
				due := now
				if n.Quietly() {
					due = site.AfterQuiet(e.Quiet, zone, now)
				}
				body, err := json.Marshal(n)
				if err != nil {
					return nil, nil, err
				}
				out = append(out, store.Notice{Endpoint: e.Name, Key: n.Key, DueMs: due.UnixMilli(), Body: body})
			}
		}
		return next, out, nil
	})
}

func stageTold(told []store.TrustTold, endpoint, role string) tufrepo.Stage {
	for _, t := range told {
		if t.Endpoint == endpoint && t.Role == role {
			return tufrepo.Stage(t.Stage)
		}
	}
	return tufrepo.Good
}

func levelOf(s tufrepo.Stage) fleetapi.Health {
	switch s {
	case tufrepo.Good:
		return fleetapi.HealthHealthy
	case tufrepo.Soon:
		return fleetapi.HealthTicket
	}
	return fleetapi.HealthUrgent
}

// ofRole is the notice of how a role does that was told at a stage, in the language
// of a dictionary.
func ofRole(r tufrepo.Standing, was tufrepo.Stage, now time.Time, d *i18n.Dictionary) care.Notice {
	told := &care.ToldRole{Role: r.Role, Expires: r.Expires.UTC(), Need: r.Keys.Threshold, Do: r.Do(), Keys: []string{}}
	for _, k := range r.Keys.Public {
		told.Keys = append(told.Keys, string(k.ID()))
	}
	end, days := r.Expires.UTC().Format(time.DateOnly), int(r.Expires.Sub(now)/(24*time.Hour))
	n := care.Notice{Time: now, Level: levelOf(max(r.Stage, tufrepo.Soon)), Path: "/models", Trust: told, Active: r.Stage != tufrepo.Good}
	switch r.Stage {
	case tufrepo.Good:
		n.Kind, n.Level, n.Title = renewed, levelOf(max(was, tufrepo.Soon)), d.Put(phrase.Of("trust-renewed", "%s: the metadata is good until %s again", r.Role, end))
	case tufrepo.Soon:
		n.Kind, n.Title = endsSoon, d.Put(phrase.Of("trust-ends", "%s: the metadata ends on %s, days left: %d", r.Role, end, days))
	case tufrepo.LastWeek:
		n.Kind, n.Title = lastWeek, d.Put(phrase.Of("trust-ends", "%s: the metadata ends on %s, days left: %d", r.Role, end, days))
	case tufrepo.Ended:
		n.Kind, n.Title = ended, d.Put(phrase.Of("trust-ended", "%s: the metadata ended on %s", r.Role, end))
	}
	n.Key = fmt.Sprintf("trust/%s/%d/%s/%d", r.Role, r.Version, r.Stage, now.UnixMilli())
	if n.Active {
		if was != tufrepo.Good && was != r.Stage {
			n.Was = levelOf(was)
		}
		n.Text = howToRenew(r, d)
	}
	return n
}

// howToRenew says what stops, and who does what about it.
func howToRenew(r tufrepo.Standing, d *i18n.Dictionary) string {
	lines := []string{d.Put(phrase.Of("trust-stops", "Boxes then install nothing new that depends on it. What runs goes on."))}
	var ids []string
	for _, k := range r.Keys.Public {
		ids = append(ids, k.ID().Short())
	}
	switch {
	case r.Online():
		return strings.Join(append(lines, d.Put(phrase.Of("trust-online", "The controller renews it each day by itself and does not: look into its log."))), "\n")
	case r.Waits > 0:
		lines = append(lines, d.Put(phrase.Of("trust-waits", "A renewal waits for %d more of these keys: %s", r.Waits, strings.Join(ids, ", "))))
	default:
		lines = append(lines, d.Put(phrase.Of("trust-signs", "Needed: %d of these keys: %s", r.Keys.Threshold, strings.Join(ids, ", "))))
	}
	return strings.Join(append(lines, d.Put(phrase.Of("to-do", "To do: %s", r.Do()))), "\n")
}
