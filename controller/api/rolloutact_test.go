package api

import (
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// offered plans and starts a rollout of two:2.0.0 whose boxes ran one before.
func (w *world) offered(names ...string) fleetapi.Rollout {
	w.t.Helper()
	one := w.push("vad", "1.0.0", "x", "y", 2)
	w.push("vad", "2.0.0", "x", "y", 2)
	for _, name := range names {
		w.box(name, "s", "amd64")
	}
	c := w.client("ops")
	r, err := c.Plan(w.t.Context(), fleetapi.PlanRequest{Model: "vad:2.0.0", Waves: []string{"1", "rest"}})
	must(w.t, err)
	r, err = c.Act(w.t.Context(), r.ID, "start")
	must(w.t, err)
	now := w.clock.Now().UTC()
	for i := range r.Waves {
		for j := range r.Waves[i].Targets {
			t := &r.Waves[i].Targets[j]
			t.State, t.Offered, t.Before = fleetapi.TargetSucceeded, &now, one
		}
	}
	must(w.t, w.store.PutRollout(w.t.Context(), r))
	return r
}

func TestRollbackIsARolloutOfItsOwn(t *testing.T) {
	w := newWorld(t)
	r := w.offered("box-1", "box-2", "box-3")
	c := w.client("ops")
	_, err := c.ActOn(t.Context(), r.ID, fleetapi.RolloutAction{Action: "rollback", ExpectCount: 7})
	wantProblem(t, "another number than was shown", err, 409, "would touch 3 boxes, you were shown 7")
	got, err := c.ActOn(t.Context(), r.ID, fleetapi.RolloutAction{Action: "rollback", Wave: 1, Reason: "slow"})
	must(t, err)
	if len(got.RolledBackBy) != 1 || got.State != fleetapi.RolloutCanceled {
		t.Fatalf("after the rollback of a wave: %s %v", got.State, got.RolledBackBy)
	}
	back, err := c.Rollout(t.Context(), got.RolledBackBy[0])
	must(t, err)
	if back.State != fleetapi.RolloutRunning || back.RollbackOf != r.ID || back.Target.Version != "1.0.0" || len(targets(back)) != 1 || !back.Created.After(r.Created) {
		t.Errorf("the rollback is %s of %s to %s, %d boxes", back.State, back.RollbackOf, back.Target, len(targets(back)))
	}
	// The rest, and asked again nothing more.
	for range 2 {
		got, err = c.ActOn(t.Context(), r.ID, fleetapi.RolloutAction{Action: "rollback"})
		must(t, err)
		if len(got.RolledBackBy) != 2 {
			t.Fatalf("taken back by %v, want two rollouts", got.RolledBackBy)
		}
	}
	second, err := c.Rollout(t.Context(), got.RolledBackBy[1])
	must(t, err)
	if n := len(targets(second)); n != 2 {
		t.Errorf("the second has %d boxes, want those that were left", n)
	}
}

func TestLocksAreLeasesWithAReason(t *testing.T) {
	w := newWorld(t)
	c := w.client("ops")
	_, err := c.AddRolloutLock(t.Context(), fleetapi.NewLock{Filter: "colour = 7", Reason: "x", Seconds: 60})
	wantProblem(t, "unknown field", err, 400, "colour")
	past := w.clock.Now().Add(-time.Hour)
	_, err = c.AddRolloutLock(t.Context(), fleetapi.NewLock{Reason: "x", From: &past, Seconds: 60})
	wantProblem(t, "over already", err, 400, "would have ended")
	l, err := c.AddRolloutLock(t.Context(), fleetapi.NewLock{Filter: `site = "s"`, Reason: "stocktaking", Seconds: 3600})
	must(t, err)
	list, err := c.RolloutLocks(t.Context())
	must(t, err)
	if len(list.Items) != 1 || list.Items[0].Reason != "stocktaking" || list.Items[0].Owner == "" || !l.Until.After(l.From) {
		t.Errorf("locks %+v", list.Items)
	}
	list, err = c.DropRolloutLock(t.Context(), l.ID)
	must(t, err)
	if len(list.Items) != 0 {
		t.Errorf("after it ended: %+v", list.Items)
	}
	_, err = c.DropRolloutLock(t.Context(), l.ID)
	wantProblem(t, "ended twice", err, 404, l.ID)
}

func TestALogIsToldAndReplayed(t *testing.T) {
	w := newWorld(t)
	w.box("box-1", "s", "amd64")
	w.push("vad", "1.0.0", "x", "y", 2)
	c := w.client("ops")
	_, err := c.Plan(t.Context(), fleetapi.PlanRequest{Model: "vad:1.0.0", Policy: "soak: 1m\nsoaks: 1m\n"})
	wantProblem(t, "unknown key", err, 400, "line 2: field soaks not found")
	r, err := c.Plan(t.Context(), fleetapi.PlanRequest{Model: "vad:1.0.0"})
	must(t, err)
	_, err = c.Replay(t.Context(), r.ID, fleetapi.ReplayRequest{})
	wantProblem(t, "not started", err, 409, "never started")
	_, err = c.ActOn(t.Context(), r.ID, fleetapi.RolloutAction{Action: "start", Reason: "release day"})
	must(t, err)
	events, err := c.RolloutEvents(t.Context(), r.ID)
	must(t, err)
	if len(events.Items) != 2 || !strings.Contains(events.Items[0].Text, "release day") || !strings.Contains(events.Items[1].Text, "draft → running") {
		t.Errorf("events %+v", events.Items)
	}
	got, err := c.Replay(t.Context(), r.ID, fleetapi.ReplayRequest{Policy: "waves: [rest]\n"})
	must(t, err)
	if !got.Faithful || got.Was.State != fleetapi.RolloutRunning {
		t.Errorf("replay %+v", got)
	}
	_, err = c.Replay(t.Context(), r.ID, fleetapi.ReplayRequest{Policy: "wave: 1\n"})
	wantProblem(t, "policy of nonsense", err, 400, "line 1")
}
