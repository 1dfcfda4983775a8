package controller

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/registry"
	"github.com/edgeherd/edgeherd/controller/rollout"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
	"github.com/edgeherd/edgeherd/models"
)

// herd is a controller that is open but does not run, with boxes that were
// heard of: the test is the conductor's clock.
type herd struct {
	t   *testing.T
	c   *Controller
	ids []identity.ID
	now time.Time
}

func newHerd(t *testing.T, n int) *herd {
	t.Helper()
	return newHerdOn(t, n, "")
}

// newHerdOn is one on a PostgreSQL database.
func newHerdOn(t *testing.T, n int, database string) *herd {
	t.Helper()
	h := &herd{t: t, now: time.Now()}
	opts := options(t.TempDir())
	opts.Database = database
	opts.WallClock = func() time.Time { return h.now }
	h.c = mustOpen(t, opts)
	h.c.offerTime = time.Hour // a slow machine tells all boxes in one step as well
	t.Cleanup(func() { h.c.Close() })
	for i := range n {
		id, err := h.c.EnrolBox(t.Context(), filepath.Join(t.TempDir(), "identity"), fmt.Sprint("box-", i), "site-1")
		if err != nil {
			t.Fatal(err)
		}
		if err := h.c.store.Hello(t.Context(), id, wire.Hello{}); err != nil {
			t.Fatal(err)
		}
		h.ids = append(h.ids, id)
	}
	return h
}

func (h *herd) boxes() []store.Box {
	h.t.Helper()
	list, err := h.c.store.Boxes(h.t.Context(), 0)
	if err != nil {
		h.t.Fatal(err)
	}
	return list
}

// start stores a running rollout of a version to all boxes at once.
func (h *herd) start(id, version string) fleetapi.Rollout {
	h.t.Helper()
	h.now = h.now.Add(time.Second) // rollouts have an order
	var views []fleetapi.Box
	for _, b := range h.boxes() {
		views = append(views, registry.View(b, h.now))
	}
	target := models.Ref{Name: "vad", Version: version, Digest: blob.Sum([]byte(version))}
	r, err := rollout.Plan(rollout.Order{
		ID: id, Kind: fleetapi.KindModel, Request: fleetapi.PlanRequest{Model: target.String(), Waves: []string{"rest"}},
		Target: target, Boxes: views, Now: h.now.UTC(),
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.put(h.act(r, rollout.ActStart))
	return h.rollout(id)
}

func (h *herd) act(r fleetapi.Rollout, action string) fleetapi.Rollout {
	h.t.Helper()
	r, err := rollout.Act{Action: action}.On(r, h.now.UTC())
	if err != nil {
		h.t.Fatal(err)
	}
	return r
}

func (h *herd) put(r fleetapi.Rollout) {
	h.t.Helper()
	if err := h.c.store.PutRollout(h.t.Context(), r); err != nil {
		h.t.Fatal(err)
	}
}

func (h *herd) rollout(id string) fleetapi.Rollout {
	h.t.Helper()
	r, err := h.c.store.Rollout(h.t.Context(), id)
	if err != nil {
		h.t.Fatal(err)
	}
	return r
}

func (h *herd) step() {
	h.t.Helper()
	if err := h.c.step(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
}

// wanted counts boxes by the version they are told to run.
func (h *herd) wanted() map[string]int {
	out := map[string]int{}
	for _, b := range h.boxes() {
		for _, m := range b.Desired.Models {
			out[m.Version]++
		}
	}
	return out
}

func TestAnOfferIsRepeatedAfterACrash(t *testing.T) {
	h := newHerd(t, 3)
	r := h.start("r-1", "1.0.0")
	course, err := rollout.NewCourse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, actions := course.Step(nil, h.now.UTC()); len(actions) != 3 {
		t.Fatalf("%d actions", len(actions))
	}
	h.put(course.Rollout()) // saved; and here the controller died
	h.step()
	if got := h.wanted(); got["1.0.0"] != 3 {
		t.Errorf("boxes are told %v, want all three", got)
	}
	before := h.boxes()
	h.step()
	for i, b := range h.boxes() {
		if b.Desired.Generation != before[i].Desired.Generation {
			t.Errorf("%s: an offer that was carried out is signed anew", b.Name)
		}
	}
}

func TestWhatAPersonDecidedMeanwhileStands(t *testing.T) {
	for _, action := range []string{rollout.ActPause, rollout.ActCancel} {
		h := newHerd(t, 2)
		running := h.start("r-1", "1.0.0")
		heads, err := h.c.store.RolloutHeads(t.Context()) // the conductor has read this,
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.c.take(t.Context(), heads[0]); err != nil {
			t.Fatal(err)
		}
		h.put(h.act(running, action))     // and then a person acts
		want := h.rollout("r-1").Sentence // of the person
		if err := h.c.stepRollout(t.Context(), look{head: heads[0]}); err != nil {
			t.Fatal(err)
		}
		if got := h.rollout("r-1"); got.State == fleetapi.RolloutRunning || got.Sentence != want {
			t.Errorf("%s: rollout is %s (%s)", action, got.State, got.Sentence)
		}
		if got := h.wanted(); len(got) != 0 {
			t.Errorf("%s: boxes are told %v all the same", action, got)
		}
	}
}

func TestAPersonStopsOffersThatAreUnderWay(t *testing.T) {
	h := newHerd(t, 3)
	h.start("r-1", "1.0.0")
	h.c.wakeConductor() // somebody acts while offers go out
	h.step()
	if got := h.wanted(); len(got) != 0 {
		t.Errorf("boxes are told %v before the conductor has looked", got)
	}
	<-h.c.acted
	h.step()
	if got := h.wanted(); got["1.0.0"] != 3 {
		t.Errorf("boxes are told %v, want all three", got)
	}
}

// TestBoxesThatLeaveTheFleetHoldUpNoWave: a site is given up in the midst of it.
func TestBoxesThatLeaveTheFleetHoldUpNoWave(t *testing.T) {
	h := newHerd(t, 2)
	h.start("r-1", "1.0.0")
	h.step()
	for i, to := range []store.State{store.StateRetired, store.StateRevoked} {
		if _, err := h.c.store.ChangeStanding(t.Context(), store.Change{Box: h.ids[i], To: to, Why: "the shop has closed", By: "olga"}); err != nil {
			t.Fatal(err)
		}
	}
	h.step()
	h.step()
	r := h.rollout("r-1")
	for _, target := range r.Waves[0].Targets {
		if target.State != fleetapi.TargetCanceled || !strings.Contains(target.Err, "meanwhile") {
			t.Errorf("%s is %s: %s", target.Name, target.State, target.Err)
		}
	}
	if r.State == fleetapi.RolloutRunning || r.Sentence == "" {
		t.Errorf("rollout %s: %s", r.State, r.Sentence)
	}
	t.Log(r.State, r.Sentence)
}

func TestAnOlderRolloutNeverTakesABoxBack(t *testing.T) {
	h := newHerd(t, 3)
	h.start("r-old", "1.0.0")
	h.start("r-new", "2.0.0")
	for range 3 {
		h.step()
		if got := h.wanted(); got["2.0.0"] != 3 {
			t.Fatalf("boxes are told %v, want the newer rollout's version from the first step on", got)
		}
	}
	for _, b := range h.boxes() {
		if b.Desired.Generation != 1 {
			t.Errorf("%s: generation %d, it was told more than once", b.Name, b.Desired.Generation)
		}
	}
	for _, target := range h.rollout("r-old").Waves[0].Targets {
		if target.State != fleetapi.TargetSuperseded {
			t.Errorf("%s: %s in the older rollout", target.Name, target.State)
		}
	}
}

func TestABoxAheadOfTheDatabaseWaitsForAPerson(t *testing.T) {
	h := newHerd(t, 2)
	h.start("r-1", "1.0.0")
	h.step()
	for _, id := range h.ids { // both follow what a newer database had signed
		runs := wire.Running{Generation: 9, Models: []wire.RunningModel{{Name: "vad", Version: "7.0.0", Digest: blob.Sum([]byte("7")).String()}}}
		if err := h.c.store.Hello(t.Context(), id, wire.Hello{Inventory: wire.Inventory{Runner: "1"}, Running: runs}); err != nil {
			t.Fatal(err)
		}
	}
	h.step()
	for _, b := range h.boxes() {
		if b.Desired.Generation != 1 {
			t.Errorf("%s is told generation %d before anybody chose", b.Name, b.Desired.Generation)
		}
	}
	h.now = h.now.Add(time.Minute)
	for i, choice := range []string{rollout.Adopt, rollout.Reimpose} {
		if err := h.c.settle(t.Context(), h.ids[i], choice); err != nil {
			t.Fatal(err)
		}
		if err := h.c.settle(t.Context(), h.ids[i], choice); !errors.Is(err, store.ErrConflict) {
			t.Errorf("chosen twice: %v", err)
		}
	}
	h.step()
	for i, want := range []string{"7.0.0", "1.0.0"} {
		if b, err := h.c.store.Box(t.Context(), h.ids[i], 0); err != nil || b.Desired.Generation != 10 || b.Desired.Models[0].Version != want {
			t.Errorf("%s shall run %v, generation %d, want %s, 10; %v", b.Name, b.Desired.Models, b.Desired.Generation, want, err)
		}
	}
	h.start("r-2", "2.0.0")
	h.step()
	if got := h.wanted(); got["2.0.0"] != 2 {
		t.Errorf("a younger rollout tells %v, want both boxes", got)
	}
}

func TestReportsOfOtherRolloutsAndDigestsAreNotFacts(t *testing.T) {
	r := fleetapi.Rollout{ID: "r-1", Kind: fleetapi.KindModel, Target: models.Ref{Name: "vad", Version: "1", Digest: blob.Sum([]byte("1"))}}
	digest := r.Target.Digest.String()
	body := `{"probe":{"golden_total":2}}`
	b := store.Box{
		Running: wire.Running{Models: []wire.RunningModel{{Name: "vad", Digest: "nonsense"}, {Name: "ocr", Digest: digest}}},
		Phases: []store.Phase{
			{Digest: digest, Rollout: "r-1", Phase: "trial", Body: body},
			{Digest: digest, Rollout: "r-2", Phase: "active"},
			{Digest: "sha256:0", Rollout: "r-1", Phase: "failed"},
		},
	}
	f := factOf(r, b, nil, time.Now())
	if f.Phase != "trial" || f.Err != "" || !f.Running.IsZero() || f.Probe == nil || f.Probe.GoldenTotal != 2 {
		t.Errorf("fact %+v", f)
	}
	b.Phases[0].Body = `{"probe":7}`
	if f := factOf(r, b, nil, time.Now()); f.Probe != nil {
		t.Errorf("a probe out of nonsense: %+v", f.Probe)
	}
}
