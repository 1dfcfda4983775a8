package api

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/edgeherd/edgeherd/firmware"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

func TestPlanIsWhatStartRuns(t *testing.T) {
	w := newWorld(t)
	w.fleet(6)
	ref := w.push("vad", "1.0.0", "x", "y", 2)
	c := w.client("ops")
	req := fleetapi.PlanRequest{Model: "vad:1.0.0", Filter: `NOT link = "never"`, Waves: []string{"1", "50%", "rest"}}
	dry, err := c.DryPlan(t.Context(), req)
	must(t, err)
	if _, err := c.Rollout(t.Context(), dry.ID); err == nil {
		t.Error("a dry plan was kept")
	}
	plan, err := c.Plan(t.Context(), req)
	must(t, err)
	if plan.State != fleetapi.RolloutDraft || plan.Kind != fleetapi.KindModel || plan.Target != ref || plan.BytesPerBox == 0 {
		t.Errorf("plan %+v", plan)
	}
	if n := len(targets(plan)); n != 4 || len(plan.Waves) != 3 {
		t.Errorf("%d boxes in %d waves, want 4 in 3", n, len(plan.Waves))
	}
	started, err := c.Act(t.Context(), plan.ID, "start")
	must(t, err)
	if started.State != fleetapi.RolloutRunning {
		t.Errorf("state %s", started.State)
	}
	for i, wave := range started.Waves {
		for j, target := range wave.Targets {
			if target.Box != plan.Waves[i].Targets[j].Box {
				t.Errorf("wave %d box %d is not the planned one", i, j)
			}
		}
	}
	select {
	case <-w.woken:
	default:
		t.Error("nobody told the conductor")
	}
	if _, err := c.Act(t.Context(), plan.ID, "resume"); err != nil {
		t.Errorf("resuming what runs: %v", err)
	}
	if _, err := c.Act(t.Context(), plan.ID, "cancel"); err != nil {
		t.Error(err)
	}
	_, err = c.Act(t.Context(), plan.ID, "start")
	wantProblem(t, "start of a canceled one", err, http.StatusConflict, "cannot start")
}

func TestEmptyListsAreNeverNull(t *testing.T) {
	w := newWorld(t)
	w.box("box-1", "s", "amd64")
	w.push("vad", "1.0.0", "x", "y", 2)
	plan, err := w.client("ops").Plan(t.Context(), fleetapi.PlanRequest{Model: "vad:1.0.0", Waves: []string{"1", "rest"}})
	must(t, err)
	if _, err := w.client("ops").Act(t.Context(), plan.ID, "start"); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/rollouts", "/rollouts/" + plan.ID, "/models", "/releases", "/boxes", "/summary"} {
		if got := w.ask("viewer", "GET", "/api/v1"+path, ""); strings.Contains(got.body, "null") {
			t.Errorf("%s: %s", path, got.body)
		}
	}
}

func TestPlanRefusesWhatABoxCannotTake(t *testing.T) {
	w := newWorld(t)
	id := w.box("box-1", "s", "amd64")
	w.push("vad", "1.0.0", "x", "y", 2)
	// A second version that the first accepts, but not the other way round,
	// cannot be pushed; an unknown digest on the box is no obstacle.
	wide := w.push("cam", "1.0.0", "x", "y", 2)
	w.desire(id, wide)
	c := w.client("ops")
	_, err := c.Plan(t.Context(), fleetapi.PlanRequest{Model: "vad:1.0.0", Filter: `site = "elsewhere"`})
	wantProblem(t, "no box", err, 422, "no box matches")
	_, err = c.Plan(t.Context(), fleetapi.PlanRequest{Model: "vad:1.0.0", Waves: []string{"0"}})
	wantProblem(t, "empty wave", err, 400, `wave "0"`)
	program := []byte("program")
	w.put(program)
	envelope, _, err := firmware.Sign(firmware.Release{V: firmware.ReleaseVersion, Kind: firmware.KindAgent, Version: "2.0.0", Counter: 1, MinAgent: "1.5.0",
		Builds: []firmware.Build{{OS: "linux", Arch: "amd64", Digest: blob.Sum(program), SizeBytes: 7}}}, w.key)
	must(t, err)
	_, err = c.PushRelease(t.Context(), envelope)
	must(t, err)
	_, err = c.Plan(t.Context(), fleetapi.PlanRequest{Release: "2.0.0"})
	wantProblem(t, "agent too old", err, 422, "needs agent 1.5.0 or newer, box-1 has 1.0.0")
	w.box("box-2", "s2", "arm64")
	_, err = c.Plan(t.Context(), fleetapi.PlanRequest{Release: "2.0.0", Filter: `site = "s2"`})
	wantProblem(t, "no build", err, 422, "no build for box-2, which is linux/arm64")
	w.box("box-3", "s3", "")
	_, err = c.Plan(t.Context(), fleetapi.PlanRequest{Release: "2.0.0", Filter: `site = "s3"`})
	wantProblem(t, "unheard of", err, 422, "box-3 has never said")
}

// TestGoingBackToANarrowerVersionIsRefused: 1.0.0 accepts 2.0.0, which adds an
// output, but who reads that output cannot go back.
func TestGoingBackToANarrowerVersionIsRefused(t *testing.T) {
	w := newWorld(t)
	w.push("vad", "1.0.0", "x", "y", 2)
	content := twoOutputs()
	w.put(content)
	two, err := w.client("ops").PushModel(t.Context(), w.sign(manifest(t, "vad", "2.0.0", content)))
	must(t, err)
	id := w.box("box-1", "s", "amd64")
	c := w.client("ops")
	draft, err := c.Plan(t.Context(), fleetapi.PlanRequest{Model: "vad:1.0.0"})
	must(t, err)
	w.desire(id, two.Ref)
	_, err = c.Plan(t.Context(), fleetapi.PlanRequest{Model: "vad:1.0.0"})
	wantProblem(t, "plan", err, 422, `box-1 runs vad:2.0.0, which vad:1.0.0 cannot replace: output "z" is gone`)
	_, err = c.Act(t.Context(), draft.ID, "start")
	wantProblem(t, "start of an older plan", err, 422, "cannot replace")
}

func TestRolloutsOfOneModelDoNotCross(t *testing.T) {
	w := newWorld(t)
	w.box("box-1", "s1", "amd64")
	w.box("box-2", "s2", "amd64")
	w.push("vad", "1.0.0", "x", "y", 2)
	w.push("cam", "1.0.0", "x", "y", 2)
	c := w.client("ops")
	plan := func(model, filter string) (fleetapi.Rollout, error) {
		return c.Plan(t.Context(), fleetapi.PlanRequest{Model: model, Filter: filter})
	}
	first, err := plan("vad:1.0.0", `site = "s1"`)
	must(t, err)
	second, err := plan("vad:1.0.0", "")
	must(t, err)
	_, err = c.Act(t.Context(), first.ID, "start")
	must(t, err)
	_, err = plan("vad:1.0.0", "")
	wantProblem(t, "plan", err, 409, first.ID)
	_, err = c.Act(t.Context(), second.ID, "start")
	wantProblem(t, "start of an older plan", err, 409, "box-1")
	if _, err := plan("vad:1.0.0", `site = "s2"`); err != nil {
		t.Errorf("another box: %v", err)
	}
	if _, err := plan("cam:1.0.0", ""); err != nil {
		t.Errorf("another model: %v", err)
	}
	_, err = c.Act(t.Context(), first.ID, "cancel")
	must(t, err)
	if _, err := c.Act(t.Context(), second.ID, "start"); err != nil {
		t.Errorf("after the first was canceled: %v", err)
	}
}

func TestOfTwoClashingStartsOneWins(t *testing.T) {
	w := newWorld(t)
	w.box("box-1", "s1", "amd64")
	w.push("vad", "1.0.0", "x", "y", 2)
	c := w.client("ops")
	var ids []string
	for range 8 {
		p, err := c.Plan(t.Context(), fleetapi.PlanRequest{Model: "vad:1.0.0"})
		must(t, err)
		ids = append(ids, p.ID)
	}
	var wg sync.WaitGroup
	errs := make([]error, len(ids))
	for i, id := range ids {
		wg.Go(func() { _, errs[i] = c.Act(t.Context(), id, "start") })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else {
			wantProblem(t, "loser", err, 409, "box-1")
		}
	}
	if won != 1 {
		t.Errorf("%d of %d clashing starts were let through", won, len(ids))
	}
}

func TestRepeatedRequestGetsItsFirstAnswer(t *testing.T) {
	w := newWorld(t)
	w.box("box-1", "s1", "amd64")
	w.push("vad", "1.0.0", "x", "y", 2)
	const body = `{"model":"vad:1.0.0"}`
	plan := func(role, body, key string) answer {
		return w.ask(role, "POST", "/api/v1/rollouts", body, "Idempotency-Key", key)
	}
	first := plan("ops", body, "k1")
	again := plan("ops", body, "k1")
	if first.status != 200 || again.body != first.body || again.status != first.status {
		t.Errorf("repeated: %d %s\nfirst: %d %s", again.status, again.body, first.status, first.body)
	}
	if other := plan("ops", body, "k2"); other.body == first.body {
		t.Error("another key got the first answer")
	}
	if other := plan("admin", body, "k1"); other.body == first.body {
		t.Error("another person got the first answer")
	}
	if got := plan("ops", `{"model":"vad:1.0.0","max_failed":1}`, "k1"); got.status != 422 || !strings.Contains(got.problem(t).Detail, "another request") {
		t.Errorf("other body: %d %s", got.status, got.body)
	}
	if got := plan("ops", body, strings.Repeat("k", 300)); got.status != 400 {
		t.Errorf("long key: %d", got.status)
	}
	// A refusal is not kept: the reason may go away.
	if got := plan("ops", `{"model":"vad:2.0.0"}`, "k3"); got.status != 404 {
		t.Fatalf("unknown version: %d", got.status)
	}
	w.push("vad", "2.0.0", "x", "y", 2)
	if got := plan("ops", `{"model":"vad:2.0.0"}`, "k3"); got.status != 200 {
		t.Errorf("once it is there: %d %s", got.status, got.body)
	}
	var r fleetapi.Rollout
	must(t, json.Unmarshal([]byte(first.body), &r))
	path := "/api/v1/rollouts/" + r.ID + "/actions"
	one := w.ask("ops", "POST", path, `{"action":"start"}`, "Idempotency-Key", "go")
	if _, err := w.client("ops").Act(t.Context(), r.ID, "cancel"); err != nil {
		t.Fatal(err)
	}
	two := w.ask("ops", "POST", path, `{"action":"start"}`, "Idempotency-Key", "go")
	if one.status != 200 || two.body != one.body {
		t.Errorf("a start that was answered was done again: %d %s", two.status, two.body)
	}
}
