package notify

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/controller/care"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/trust/tufrepo"
)

// alertmanager takes tickets as alerts by its API v2. It forgets what it is not
// told of again, and all when it starts anew, so open tickets are told again
// and again.
type alertmanager struct {
	caller
	least fleetapi.Health
}

// holds is how long an alert stands without being told again: two tellings may
// be lost.
const holds = 15 * time.Minute

// alertsAtOnce go into one request.
const alertsAtOnce = 500

func newAlertmanager(e Endpoint) (*alertmanager, error) {
	token := ""
	if e.TokenFile != "" {
		var err error
		if token, err = secret(e.TokenFile); err != nil {
			return nil, err
		}
	}
	c, err := newCaller("alertmanager", strings.TrimSuffix(e.Alertmanager, "/")+"/api/v2/alerts", token, e.Guard)
	return &alertmanager{c, e.least()}, err
}

// alert is one of the API v2 of Alertmanager.
type alert struct {
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations"`
	StartsAt     time.Time         `json:"startsAt"`
	EndsAt       time.Time         `json:"endsAt"`
	GeneratorURL string            `json:"generatorURL,omitempty"`
}

func alertOf(n care.Notice, link string, now time.Time) alert {
	a := alert{
		Labels:      map[string]string{"alertname": "EdgeherdTicket", "severity": severity(n.Level)},
		Annotations: map[string]string{"summary": n.Title, "description": n.Text},
		StartsAt:    n.Time, EndsAt: now.Add(holds), GeneratorURL: link,
	}
	if n.Kind == "test" {
		a.Labels["alertname"], a.EndsAt = "EdgeherdTest", now.Add(time.Minute)
	}
	if r := n.Trust; r != nil {
		a.Labels["alertname"], a.Labels["role"] = "EdgeherdTrustEnds", r.Role
		a.StartsAt = r.Expires.Add(-tufrepo.WarnBefore(r.Role))
		if !n.Active {
			a.EndsAt = now
		}
	}
	if t := n.Ticket; t != nil {
		a.StartsAt = t.Opened
		for k, v := range map[string]string{"ticket": t.ID, "site": t.Site, "region": t.Region, "box": t.BoxName, "cause": t.Cause} {
			if v != "" { // an empty label is none
				a.Labels[k] = v
			}
		}
		if !n.Active {
			a.EndsAt = now
		}
	}
	if a.StartsAt.After(a.EndsAt) {
		a.StartsAt = a.EndsAt
	}
	return a
}

// withFormer ends what a ticket stood as before it was raised: the severity is a
// label, and other labels are another alert. Alertmanager tells receivers even of
// the end of what never was, so nothing else is ended.
func (m *alertmanager) withFormer(a alert, n care.Notice, now time.Time) []alert {
	if n.Was == "" || severity(n.Was) == a.Labels["severity"] || !care.AtLeast(n.Was, m.least) {
		return []alert{a}
	}
	old := a
	old.Labels, old.EndsAt = maps.Clone(a.Labels), now
	old.Labels["severity"] = severity(n.Was)
	if old.StartsAt.After(now) {
		old.StartsAt = now
	}
	return []alert{a, old}
}

func severity(l fleetapi.Health) string {
	switch l {
	case fleetapi.HealthUrgent:
		return "critical"
	case fleetapi.HealthTicket:
		return "warning"
	}
	return "info"
}

func (m *alertmanager) tell(ctx context.Context, n care.Notice, link string, now time.Time) error {
	// A digest is no alert: nothing is to be done. What waited for long may be
	// over, and refresh has said what is not.
	if n.Kind == "digest" || n.Rollout == nil && n.Active && now.Sub(n.Time) > holds {
		return nil
	}
	if n.Rollout != nil {
		return m.send(ctx, rolloutAlerts(n, link, now))
	}
	return m.send(ctx, m.withFormer(alertOf(n, link, now), n, now))
}

func (m *alertmanager) send(ctx context.Context, all []alert) error {
	body, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return m.post(ctx, body, nil)
}

// refresh tells Alertmanager of all tickets that are open and all metadata that ends.
func (s *Sender) refresh(ctx context.Context) error {
	for _, e := range s.opts.Endpoints {
		m, ok := s.to[e.Name].(*alertmanager)
		if !ok {
			continue
		}
		open, err := s.open(ctx, e)
		if err != nil {
			return err
		}
		now := s.opts.WallClock()
		var alerts []alert
		for _, n := range open {
			alerts = append(alerts, alertOf(n, s.link(n), now))
		}
		for part := range slices.Chunk(alerts, alertsAtOnce) {
			ctx, cancel := context.WithTimeout(ctx, tellTimeout)
			err := m.send(ctx, part)
			cancel()
			s.note(e.Name, err)
			if err != nil {
				break // said once; it is told again
			}
		}
	}
	return nil
}

// open are notices of all that an endpoint is told of and that is not over.
func (s *Sender) open(ctx context.Context, e Endpoint) (out []care.Notice, err error) {
	now := s.opts.WallClock()
	if e.Hears(AboutTickets) {
		var tickets []fleetapi.Ticket
		err := s.opts.Store.CareView(ctx, func(c *store.CareTx) (err error) {
			tickets, err = c.Tickets(ctx, store.OpenOnly)
			return err
		})
		if err != nil {
			return nil, err
		}
		for _, t := range tickets {
			for _, n := range care.Notices(nil, t, now, s.in[e.Name]) {
				if care.AtLeast(t.Level, e.least()) && n.About(e.Sites) {
					out = append(out, n)
				}
			}
		}
	}
	if !e.Hears(AboutTrust) {
		return out, nil
	}
	docs, err := s.opts.Store.TrustDocuments(ctx)
	if err != nil {
		return nil, err
	}
	roles, err := store.Standings(docs, now)
	for _, r := range roles {
		if n := ofRole(r, r.Stage, now, s.in[e.Name]); n.Active && care.AtLeast(n.Level, e.least()) {
			out = append(out, n)
		}
	}
	return out, err
}

func (e Endpoint) least() fleetapi.Health {
	return cmp.Or(e.Least, fleetapi.HealthTicket)
}
