package rollout

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/models"
)

var (
	t0     = time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	target = models.Ref{Name: "vad", Version: "6.0.0", Digest: blob.Sum([]byte("vad 6"))}
	other  = blob.Sum([]byte("vad 5"))
)

func fleet(n int) []fleetapi.Box {
	var out []fleetapi.Box
	for i := range n {
		out = append(out, fleetapi.Box{
			ID: identity.ID(fmt.Sprintf("d-%013d", i)), Name: fmt.Sprintf("box-%d", i), Site: fmt.Sprintf("site-%d", i%2), Link: fleetapi.LinkLive,
		})
	}
	return out
}

func plan(req fleetapi.PlanRequest, boxes []fleetapi.Box) (fleetapi.Rollout, error) {
	return Plan(Order{ID: "r-1", Kind: fleetapi.KindModel, Request: req, Target: target, Boxes: boxes, Now: t0})
}

// course is a rollout with the facts of its boxes, moved by verbs.
type course struct {
	t     *testing.T
	r     fleetapi.Rollout
	facts map[identity.ID]Fact
	now   time.Time
}

func start(t *testing.T, n int, req fleetapi.PlanRequest) *course {
	t.Helper()
	r, err := plan(req, fleet(n))
	if err != nil {
		t.Fatal(err)
	}
	if r, err = (Act{Action: ActStart}).On(r, t0); err != nil {
		t.Fatal(err)
	}
	c := &course{t: t, r: r, facts: map[identity.ID]Fact{}, now: t0}
	for _, b := range fleet(n) {
		c.facts[b.ID] = Fact{Link: fleetapi.LinkLive, Running: other}
	}
	return c
}

// step performs one Next and its actions and returns who was offered.
func (c *course) step() []string {
	c.now = c.now.Add(time.Second)
	actions := c.next()
	var names []string
	for _, a := range actions {
		f := c.facts[a.Offer]
		f.Desired, f.DesiredRollout = target.Digest, c.r.ID
		c.facts[a.Offer] = f
		names = append(names, string(a.Offer)[len(a.Offer)-1:])
	}
	return names
}

// next takes the rollout up anew for each step, as after a restart.
func (c *course) next() []Action {
	run, err := NewCourse(c.r, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	var in []Input
	for _, w := range c.r.Waves {
		for _, t := range w.Targets {
			f := c.facts[t.Box]
			in = append(in, Input{Box: t.Box, Fact: &f})
		}
	}
	_, actions := run.Step(in, c.now)
	c.r = run.Rollout()
	return actions
}

func (c *course) report(box int, phase string, running blob.Digest) {
	id := fleet(box + 1)[box].ID
	f := c.facts[id]
	f.Phase, f.Running, f.Err = phase, running, ""
	if phase == phaseFailed {
		f.Err = "golden sample speech differs"
	}
	c.facts[id] = f
}

func (c *course) want(state fleetapi.RolloutState, sentence string) {
	c.t.Helper()
	if c.r.State != state || !strings.Contains(c.r.Sentence, sentence) {
		c.t.Fatalf("rollout is %s: %q; want %s: …%q…", c.r.State, c.r.Sentence, state, sentence)
	}
}

func (c *course) offered(want ...string) {
	c.t.Helper()
	if got := c.step(); !reflect.DeepEqual(got, want) {
		c.t.Fatalf("offered to %v, want %v", got, want)
	}
}

func TestSecondWaveWaitsForTheFirst(t *testing.T) {
	c := start(t, 3, fleetapi.PlanRequest{})
	c.offered("0")
	c.offered()
	c.report(0, "trial", target.Digest)
	c.offered()
	c.want(fleetapi.RolloutRunning, "Wave 1 of 2 running")
	c.report(0, phaseActive, target.Digest)
	c.offered("1", "2")
	c.report(1, phaseActive, target.Digest)
	c.report(2, phaseActive, target.Digest)
	c.offered()
	c.want(fleetapi.RolloutDone, "3 boxes succeeded")
}

func TestWhatABoxWaitedForIsForgottenOnceItHasEnded(t *testing.T) {
	c := start(t, 1, fleetapi.PlanRequest{})
	c.offered("0")
	c.report(0, phaseFetching, other)
	f := c.facts[fleet(1)[0].ID]
	f.Err = "waits for room"
	c.facts[fleet(1)[0].ID] = f
	c.offered()
	if got := c.r.Waves[0].Targets[0].Waits; got != "waits for room" {
		t.Errorf("it waits: %q", got)
	}
	c.report(0, phaseActive, target.Digest)
	c.offered()
	if got := c.r.Waves[0].Targets[0].Waits; got != "" {
		t.Errorf("it waits still: %q", got)
	}
}

func TestFailureHaltsBeforeTheNextWave(t *testing.T) {
	c := start(t, 3, fleetapi.PlanRequest{})
	c.offered("0")
	c.report(0, phaseFailed, other)
	c.offered()
	c.want(fleetapi.RolloutHalted, "Halted in wave 1 of 2: 1 box failed, the plan allows 0. box-0: golden sample speech differs")
	c.offered()
	for _, target := range c.r.Waves[1].Targets {
		if target.State != fleetapi.TargetScheduled {
			t.Errorf("%s is %s after the halt", target.Name, target.State)
		}
	}
}

// Boxes that fetched other bytes than were signed are not to blame, nor is the version:
// what the controller keeps of it is damaged, and pushing it again would not help.
func TestAHaltOnWrongBytesNamesTheWayOut(t *testing.T) {
	c := start(t, 3, fleetapi.PlanRequest{})
	c.offered("0")
	c.report(0, phaseFailed, other)
	f := c.facts[fleet(1)[0].ID]
	f.Err = fmt.Sprintf("fetch model.onnx: blob 3a83cfb9e22f: %s", blob.ErrMismatch)
	c.facts[fleet(1)[0].ID] = f
	c.offered()
	c.want(fleetapi.RolloutHalted, "box-0: fetch model.onnx: blob 3a83cfb9e22f: content does not match its digest. Look whether the controller's copy is whole: edgeherd model verify "+target.String())
}

func TestActiveWithoutRunningDigestIsNoSuccess(t *testing.T) {
	c := start(t, 1, fleetapi.PlanRequest{})
	c.offered("0")
	c.report(0, phaseActive, other)
	c.offered()
	c.want(fleetapi.RolloutRunning, "1 in work")
}

func TestSilentBoxIsNeitherSuccessNorFailure(t *testing.T) {
	c := start(t, 2, fleetapi.PlanRequest{Waves: []string{"rest"}, UnreachableAfterSeconds: 60})
	c.offered("0", "1")
	c.report(0, phaseActive, target.Digest)
	f := c.facts[fleet(2)[1].ID]
	f.Link = fleetapi.LinkSilent
	c.facts[fleet(2)[1].ID] = f
	c.offered()
	c.want(fleetapi.RolloutRunning, "1 in work")
	c.now = c.now.Add(time.Minute)
	c.offered()
	c.want(fleetapi.RolloutDone, "1 box succeeded, 1 not heard from")
}

func TestWaveOfSilentBoxesHalts(t *testing.T) {
	c := start(t, 1, fleetapi.PlanRequest{Waves: []string{"1"}, UnreachableAfterSeconds: 1})
	c.offered("0")
	f := c.facts[fleet(1)[0].ID]
	f.Link = fleetapi.LinkSilent
	c.facts[fleet(1)[0].ID] = f
	c.now = c.now.Add(time.Minute)
	c.offered()
	c.want(fleetapi.RolloutHalted, "no box of the wave took the version")
}

func TestReturningBoxIsCountedAgain(t *testing.T) {
	c := start(t, 2, fleetapi.PlanRequest{Waves: []string{"rest"}, UnreachableAfterSeconds: 1, SoakSeconds: 3600})
	c.offered("0", "1")
	c.report(0, phaseActive, target.Digest)
	id := fleet(2)[1].ID
	c.facts[id] = Fact{Link: fleetapi.LinkSilent, Desired: target.Digest, DesiredRollout: "r-1"}
	c.now = c.now.Add(time.Minute)
	c.offered()
	c.want(fleetapi.RolloutRunning, "soaking: 1 box succeeded, 1 not heard from")
	c.report(1, phaseActive, target.Digest)
	c.offered()
	c.want(fleetapi.RolloutRunning, "soaking: 2 boxes succeeded")
}

func TestSoakEndsTheWaveOnlyWhileItStaysGood(t *testing.T) {
	c := start(t, 2, fleetapi.PlanRequest{SoakSeconds: 100})
	c.offered("0")
	c.report(0, phaseActive, target.Digest)
	c.offered()
	c.want(fleetapi.RolloutRunning, "soaking")
	c.report(0, phaseRolledBack, other)
	c.offered()
	c.want(fleetapi.RolloutHalted, "1 box failed")
}

func TestNewerRolloutTakesTheBoxOver(t *testing.T) {
	c := start(t, 2, fleetapi.PlanRequest{Waves: []string{"rest"}})
	c.offered("0", "1")
	c.report(0, phaseActive, target.Digest)
	id := fleet(2)[1].ID
	c.facts[id] = Fact{Link: fleetapi.LinkLive, DesiredRollout: "r-2", Newer: true}
	c.offered()
	c.want(fleetapi.RolloutDone, "1 taken over by a newer rollout")
}

func TestOfferIsRepeatedUntilItIsSeen(t *testing.T) {
	c := start(t, 1, fleetapi.PlanRequest{})
	for range 3 {
		if n := len(c.next()); n != 1 {
			t.Fatalf("%d offers while the store does not show one, want 1", n)
		}
	}
}

func TestActsThatCannotBeAreNamed(t *testing.T) {
	c := start(t, 1, fleetapi.PlanRequest{})
	for _, tc := range []struct{ action, want string }{
		{ActResume, ""}, {ActStart, ""}, {ActPause, ""}, {ActPause, ""}, {ActResume, ""}, {ActCancel, ""}, {ActCancel, ""},
		{ActResume, "cannot resume a rollout that is canceled"}, {"explode", "cannot explode a rollout that is canceled"},
	} {
		next, err := Act{Action: tc.action}.On(c.r, c.now)
		switch {
		case tc.want == "" && err != nil:
			t.Fatalf("%s: %v", tc.action, err)
		case tc.want != "" && (err == nil || err.Error() != tc.want):
			t.Fatalf("%s: error %v, want %q", tc.action, err, tc.want)
		case err == nil:
			c.r = next
		}
	}
	if got := c.r.Waves[0].Targets[0].State; got != fleetapi.TargetCanceled {
		t.Errorf("unoffered target is %s after cancel", got)
	}
}

func TestPlanWaves(t *testing.T) {
	for _, tc := range []struct {
		waves []string
		n     int
		want  []int
		err   string
	}{
		{nil, 3, []int{1, 2}, ""},
		{[]string{"1", "10%", "rest"}, 25, []int{1, 3, 21}, ""},
		{[]string{"50%", "50%", "rest"}, 3, []int{2, 1, 0}, ""},
		{[]string{"5"}, 3, []int{3}, ""},
		{[]string{"0"}, 3, nil, `wave "0"`},
		{[]string{"-1"}, 3, nil, `wave "-1"`},
		{[]string{"101%"}, 3, nil, `wave "101%"`},
		{[]string{"NaN%"}, 3, nil, `wave "NaN%"`},
		{[]string{"most"}, 3, nil, `wave "most"`},
		{nil, 0, nil, "no box matches"},
	} {
		r, err := plan(fleetapi.PlanRequest{Waves: tc.waves}, fleet(tc.n))
		if tc.err != "" {
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%v: error %v, want %q", tc.waves, err, tc.err)
			}
			continue
		}
		var got []int
		for _, w := range r.Waves {
			got = append(got, len(w.Targets))
		}
		if err != nil || !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%v of %d: waves %v (%v), want %v", tc.waves, tc.n, got, err, tc.want)
		}
	}
}

func TestFirstWaveIsLiveAndSpreadOverSites(t *testing.T) {
	boxes := fleet(6)
	boxes[0].Link = fleetapi.LinkSilent
	r, err := plan(fleetapi.PlanRequest{Waves: []string{"2", "rest"}}, boxes)
	if err != nil {
		t.Fatal(err)
	}
	w := r.Waves[0].Targets
	if w[0].Site == w[1].Site || w[0].Name == "box-0" || w[1].Name == "box-0" {
		t.Errorf("first wave is %s of %s and %s of %s", w[0].Name, w[0].Site, w[1].Name, w[1].Site)
	}
	if len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "1 of 6 boxes are silent") {
		t.Errorf("warnings %q", r.Warnings)
	}
}

// TestNoWaveStartsBeforeTheOneBeforeItPassed drives random reports.
func TestNoWaveStartsBeforeTheOneBeforeItPassed(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 8).Draw(rt, "boxes")
		maxFailed := rapid.IntRange(0, 2).Draw(rt, "max failed")
		c := start(t, n, fleetapi.PlanRequest{Waves: []string{"1", "40%", "rest"}, MaxFailed: maxFailed, UnreachableAfterSeconds: 5})
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			box := rapid.IntRange(0, n-1).Draw(rt, "box")
			switch rapid.IntRange(0, 4).Draw(rt, "event") {
			case 0:
				c.report(box, phaseActive, target.Digest)
			case 1:
				c.report(box, phaseFailed, other)
			case 2:
				c.report(box, "fetching", other)
			case 3:
				f := c.facts[fleet(n)[box].ID]
				f.Link = rapid.SampledFrom([]fleetapi.Link{fleetapi.LinkLive, fleetapi.LinkSilent}).Draw(rt, "link")
				c.facts[fleet(n)[box].ID] = f
			}
			halted := c.r.State == fleetapi.RolloutHalted
			c.step()
			checkWaves(rt, c, maxFailed, halted)
		}
	})
}

// checkWaves after a step; what boxes report after a halt changes no wave.
func checkWaves(rt *rapid.T, c *course, maxFailed int, halted bool) {
	passed := true
	for i := range c.r.Waves {
		w := &c.r.Waves[i]
		if w.State != fleetapi.WaveWaiting && w.State != fleetapi.WaveSkipped && !passed {
			rt.Fatalf("wave %d is %s before the one before it passed", i+1, w.State)
		}
		if n := tally(w); !halted && w.State == fleetapi.WavePassed && n.failed > maxFailed {
			rt.Fatalf("wave %d passed with %d failures, %d allowed", i+1, n.failed, maxFailed)
		}
		// A success that turns out to be none halts a wave that had passed.
		reopened := w.State == fleetapi.WaveHalted
		passed = passed && (w.State == fleetapi.WavePassed || w.State == fleetapi.WaveSkipped || reopened)
	}
	if done := c.r.State == fleetapi.RolloutDone; done && !passed || passed && !done && c.r.State != fleetapi.RolloutHalted {
		rt.Fatalf("rollout is %s while all waves passed is %v", c.r.State, passed)
	}
}
