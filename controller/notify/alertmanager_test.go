package notify

import (
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/care"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// TestAlertOfFormerSeverityEnds: the severity is a label, so a ticket that gets
// urgent would otherwise stand in Alertmanager twice.
func TestAlertOfFormerSeverityEnds(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	n := care.Notice{Level: fleetapi.HealthUrgent, Was: fleetapi.HealthTicket, Active: true, Time: now, Ticket: &care.Told{ID: "t1", Opened: now.Add(-time.Hour)}}
	m := &alertmanager{least: fleetapi.HealthTicket}
	list := m.withFormer(alertOf(n, "", now), n, now)
	if len(list) != 2 || list[0].Labels["severity"] != "critical" || !list[0].EndsAt.After(now) {
		t.Fatalf("%+v, want the urgent one to stand", list)
	}
	old := list[1]
	if old.Labels["severity"] != "warning" || !old.EndsAt.Equal(now) || old.StartsAt.After(old.EndsAt) || old.Labels["ticket"] != "t1" {
		t.Errorf("%+v, want the one of before to end now", old)
	}
	m.least = fleetapi.HealthUrgent
	if list := m.withFormer(alertOf(n, "", now), n, now); len(list) != 1 {
		t.Errorf("%+v, want no end of what was never told", list)
	}
}
