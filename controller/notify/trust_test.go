package notify_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/care"
	"github.com/edgeherd/edgeherd/controller/notify"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/trust/trusttest"
	"github.com/edgeherd/edgeherd/internal/trust/tufrepo"
)

// TestTheEndOfARoleIsToldOnceAtEachStage: at the thresholds of the doctor, in the last
// week, at the end, and when it was renewed; each once, also over years of sent notices
// that were forgotten, and to those that came later as well.
func TestTheEndOfARoleIsToldOnceAtEachStage(t *testing.T) {
	w := newWorld(t)
	r, urgent, elsewhere, am, chat := newReceiver(t), newReceiver(t), newReceiver(t), newReceiver(t), newReceiver(t)
	repo := trusttest.New(t, func() time.Time { return w.now })
	repo.Targets.Delegations = repo.Targets.Delegations[:1] // agent-stable has a document, and nothing is delegated to it
	has := map[string]bool{}
	publish := func() {
		t.Helper()
		repo.Publish()
		w.check(w.store.ChangeTrust(t.Context(), func([]store.TrustDocument) (out []store.TrustDocument, err error) {
			for name, body := range repo.Files {
				role, _, err := tufrepo.ParseFileName(name)
				w.check(err)
				head, err := tufrepo.ParseHead(body)
				w.check(err)
				if id := fmt.Sprint(role, head.Version); !has[id] {
					has[id] = true
					out = append(out, store.TrustDocument{Role: role, Version: head.Version, Body: body})
				}
			}
			return out, nil
		}))
	}
	secret := w.file(key)
	endpoints := []notify.Endpoint{
		{Name: "all", Webhook: r.URL, SecretFile: secret},
		{Name: "urgent", Webhook: urgent.URL, SecretFile: secret, Least: "urgent"},
		{Name: "site", Webhook: elsewhere.URL, SecretFile: secret, Sites: []string{"kiel"}},
		{Name: "rollouts", Webhook: elsewhere.URL, SecretFile: secret, About: []string{"rollouts"}},
		{Name: "am", Alertmanager: am.URL},
	}
	heard := func(r *receiver) (out []string) {
		t.Helper()
		for _, body := range r.bodies {
			var n care.Notice
			w.check(json.Unmarshal(body, &n))
			out = append(out, fmt.Sprintf("%s %s %s %t", n.Trust.Role, strings.TrimPrefix(n.Kind, "trust."), n.Level, n.Active))
		}
		r.bodies = nil
		slices.Sort(out)
		return out
	}
	at := func(after time.Duration, online bool, want, wantUrgent string) {
		t.Helper()
		w.now = start.Add(after)
		if online {
			publish()
		}
		s := w.sender(endpoints...)
		for range 2 {
			w.check(s.TellEnds(t.Context()))
			w.check(s.Flush(t.Context()))
			w.check(w.store.ForgetCare(t.Context(), w.now.Add(time.Hour)))
		}
		if got := strings.Join(heard(r), "; "); got != want {
			t.Errorf("after %s: told %s; want %s", after, got, want)
		}
		if got := strings.Join(heard(urgent), "; "); got != wantUrgent {
			t.Errorf("after %s: who wants what is urgent was told %s; want %s", after, got, wantUrgent)
		}
	}
	at(0, false, "", "")
	const day = 24 * time.Hour
	at(day, true, "", "")
	at(tufrepo.RoleLife-29*day, true, "models-stable ends_soon ticket true", "")
	at(tufrepo.RoleLife-20*day, true, "", "")
	at(tufrepo.RoleLife-6*day, true, "models-stable last_week urgent true", "models-stable last_week urgent true")
	at(tufrepo.RoleLife+day, true, "models-stable ended urgent true", "models-stable ended urgent true")

	endpoints = append(endpoints, notify.Endpoint{Name: "late", Shoutrrr: "generic+" + chat.URL + "?template=json", Language: "de"})
	at(tufrepo.RoleLife+2*day, true, "", "")
	id := repo.Keys[trusttest.Stable][0].Public().ID().Short()
	if chat.got() != 1 {
		t.Fatalf("who came later heard %s", chat.bodies)
	}
	for _, want := range []string{"models-stable: die Metadaten sind am 2027-03-02 abgelaufen", "1 dieser Schlüssel: " + id, "edgeherd trust renew models-stable --key FILE"} {
		if !strings.Contains(string(chat.bodies[0]), want) {
			t.Errorf("%q is not in %s", want, chat.bodies[0])
		}
	}
	s := repo.Roles[trusttest.Stable]
	s.Version, s.Expires = s.Version+1, w.now.Add(tufrepo.RoleLife)
	repo.Roles[trusttest.Stable] = s
	at(tufrepo.RoleLife+2*day+time.Hour, true, "models-stable renewed urgent false", "models-stable renewed urgent false")
	at(tufrepo.RoleLife+2*day+15*day+2*time.Hour, false, "snapshot ends_soon ticket true; timestamp ends_soon ticket true", "")
	if got := elsewhere.got(); got != 0 {
		t.Errorf("%d came to who does not want to hear of it", got)
	}
	states, err := w.sender(endpoints...).States(t.Context())
	w.check(err)
	for name, want := range map[string]string{"all": "[tickets trust]", "site": "[tickets]", "rollouts": "[rollouts]"} {
		if got := fmt.Sprint(states[name].About); got != want {
			t.Errorf("%s is said to hear of %s, want %s", name, got, want)
		}
	}
	heardByAlertmanager(w, am)
}

func heardByAlertmanager(w *world, am *receiver) {
	w.t.Helper()
	var got []string
	for _, body := range am.bodies {
		var all []struct {
			Labels           map[string]string
			StartsAt, EndsAt time.Time
		}
		w.check(json.Unmarshal(body, &all))
		for _, a := range all {
			if a.Labels["role"] != trusttest.Stable || a.Labels["alertname"] != "EdgeherdTrustEnds" {
				continue
			}
			over := "stands"
			if a.EndsAt.Minute() == 0 { // what stands is good for a quarter of an hour more
				over = "ends"
			}
			got = append(got, a.Labels["severity"]+" "+over)
		}
	}
	if s := strings.Join(got, "; "); s != "warning stands; critical stands; warning ends; critical stands; critical ends" {
		w.t.Errorf("the Alertmanager heard %s", s)
	}
}
