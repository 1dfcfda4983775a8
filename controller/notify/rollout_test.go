package notify_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/care"
	"github.com/edgeherd/edgeherd/controller/notify"
	"github.com/edgeherd/edgeherd/controller/rollout"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/models"
)

// change stores the next state of a rollout, and what s tells of it, as the
// controller does.
func (w *world) change(s *notify.Sender, act rollout.Act) {
	w.t.Helper()
	tell, err := s.Rollouts(w.t.Context())
	w.check(err)
	_, err = w.store.UpdateRollout(w.t.Context(), "r-1", func(r fleetapi.Rollout) (store.RolloutStep, error) {
		next, err := act.On(r, w.now)
		w.check(err)
		notices, err := tell(r, next)
		return store.RolloutStep{Rollout: next, Notices: notices}, err
	})
	w.check(err)
	w.now = w.now.Add(time.Second)
}

// step lets the rollout run until it changes no more; box reports what fact says.
func (w *world) step(s *notify.Sender, in ...rollout.Input) {
	w.t.Helper()
	tell, err := s.Rollouts(w.t.Context())
	w.check(err)
	r, facts, rev, err := w.store.RolloutCourse(w.t.Context(), "r-1")
	w.check(err)
	was, _ := rollout.NewCourse(r, facts)
	c, err := rollout.NewCourse(r, facts)
	w.check(err)
	step := store.RolloutStep{}
	step.Record, _ = c.Step(in, w.now)
	step.Rollout = c.Rollout()
	c.Changed(func(wave, at int, t fleetapi.Target, f rollout.Fact) {
		step.Rows = append(step.Rows, store.RolloutRow{Wave: wave, Place: at, Target: t, Fact: f})
	})
	step.Notices, err = tell(was.Rollout(), step.Rollout)
	w.check(err)
	_, err = w.store.SaveStep(w.t.Context(), rev, step)
	w.check(err)
	w.now = w.now.Add(time.Second)
}

func TestEachChangeOfARolloutIsToldOnce(t *testing.T) {
	w, r, elsewhere, halts, chat := newWorld(t), newReceiver(t), newReceiver(t), newReceiver(t), newReceiver(t)
	secret := w.file(key)
	open := func() *notify.Sender {
		return w.sender(
			notify.Endpoint{Name: "all", Webhook: r.URL, SecretFile: secret, About: []string{"rollouts"}},
			notify.Endpoint{Name: "tickets", Webhook: elsewhere.URL, SecretFile: secret},
			notify.Endpoint{Name: "site", Webhook: elsewhere.URL, SecretFile: secret, About: []string{"rollouts"}, Sites: []string{"kiel"}},
			notify.Endpoint{Name: "halts", Alertmanager: halts.URL, About: []string{"rollouts.halted", "rollouts.rolled_back"}},
			notify.Endpoint{Name: "chat", Shoutrrr: "generic+" + chat.URL + "?template=json", About: []string{"tickets", "rollouts.halted"}, Language: "de"})
	}
	s := open()
	version := blob.Sum([]byte("2.0.0"))
	target := func(id identity.ID) fleetapi.Target {
		return fleetapi.Target{Box: id, Name: string(id), Site: "shop-7", State: fleetapi.TargetScheduled}
	}
	w.check(w.store.PutRollout(t.Context(), fleetapi.Rollout{
		ID: "r-1", State: fleetapi.RolloutDraft, Created: w.now, Kind: fleetapi.KindModel, Target: models.Ref{Name: "eye", Version: "2.0.0", Digest: version},
		Request: fleetapi.PlanRequest{Policy: "waves: [1, rest]\napprove: [2]\n"},
		Waves: []fleetapi.Wave{
			{State: fleetapi.WaveWaiting, Targets: []fleetapi.Target{target("d-aaaaaaaaaaaaa")}},
			{State: fleetapi.WaveWaiting, Targets: []fleetapi.Target{target("d-bbbbbbbbbbbbb"), target("d-ccccccccccccc")}},
		}}))
	fact := func(id identity.ID, phase string) rollout.Input {
		f := rollout.Fact{Link: fleetapi.LinkLive, Desired: version, DesiredRollout: "r-1", Phase: phase}
		if phase == "active" {
			f.Running, f.Version = version, "2.0.0"
		}
		return rollout.Input{Box: id, Fact: &f}
	}
	w.change(s, rollout.Act{Action: rollout.ActStart, By: "ann"})
	w.change(s, rollout.Act{Action: rollout.ActStart, By: "ann"}) // nothing new
	w.step(s, rollout.Input{Box: "d-aaaaaaaaaaaaa", Fact: &rollout.Fact{Link: fleetapi.LinkLive}})
	w.change(s, rollout.Act{Action: rollout.ActPause, By: "ann", Reason: "lunch"})
	w.reopen() // a crash loses none and repeats none
	s = open()
	w.change(s, rollout.Act{Action: rollout.ActResume, By: "ann"})
	w.step(s, fact("d-aaaaaaaaaaaaa", "active"))
	w.step(s)
	w.step(s)
	w.change(s, rollout.Act{Action: rollout.ActApprove, By: "ben"})
	w.step(s, rollout.Input{Box: "d-bbbbbbbbbbbbb", Fact: &rollout.Fact{Link: fleetapi.LinkLive}})
	w.step(s, fact("d-bbbbbbbbbbbbb", "failed"))
	w.step(s)
	w.change(s, rollout.Act{Action: rollout.ActRollback, By: "ann", Rollouts: []string{"r-2"}})
	r.answer(http.StatusServiceUnavailable)
	w.check(s.Flush(t.Context()))
	r.answer(http.StatusOK)
	for range 2 {
		w.now = w.now.Add(time.Minute)
		w.check(s.Flush(t.Context()))
	}
	var told, keys []string
	var last care.Notice
	for i, body := range r.bodies {
		var n struct {
			care.Notice
			Link string
		}
		w.check(json.Unmarshal(body, &n))
		if n.Link != "https://fleet.example/rollouts/r-1" || n.Rollout == nil || n.Rollout.Target != "eye:2.0.0" || n.Key != r.heads[i].Get("Webhook-Id") {
			t.Errorf("told %s", body)
		}
		if told, keys = append(told, n.Kind), append(keys, n.Key); n.Kind == "rollouts.halted" {
			last = n.Notice
		}
	}
	if got, want := strings.ReplaceAll(strings.Join(told, " "), "rollouts.", ""), "started wave_began paused resumed wave_done approval_needed wave_began halted rolled_back"; got != want {
		t.Errorf("told %s (%s), want %s", got, keys, want)
	}
	if h := last.Rollout; h == nil || h.Boxes != 3 || h.Succeeded != 1 || h.Failed != 1 || !strings.Contains(last.Text, h.Sentence) || last.Level != fleetapi.HealthUrgent {
		t.Errorf("of the halt %+v", last)
	}
	if n := elsewhere.got(); n != 0 {
		t.Errorf("%d came to who does not want to hear of it", n)
	}
	if chat.got() != 1 || !strings.Contains(string(chat.bodies[0]), "eye:2.0.0: Rollout angehalten") || !strings.Contains(string(chat.bodies[0]), "Boxen: 3, gelungen: 1, fehlgeschlagen: 1") {
		t.Errorf("the chat heard %s", chat.bodies)
	}
	var first, second []struct{ EndsAt time.Time }
	if halts.got() != 2 {
		t.Fatalf("the Alertmanager heard %s", halts.bodies)
	}
	w.check(json.Unmarshal(halts.bodies[0], &first))
	w.check(json.Unmarshal(halts.bodies[1], &second))
	if first[0].EndsAt.Before(w.now) || second[0].EndsAt.After(w.now) {
		t.Errorf("alerts %s", halts.bodies)
	}
	if _, err := (*notify.Sender)(nil).Rollouts(t.Context()); err != nil {
		t.Error(err)
	}
}
