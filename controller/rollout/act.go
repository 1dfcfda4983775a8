package rollout

import (
	"fmt"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// The actions of people.
const (
	ActStart  = "start"
	ActPause  = "pause"
	ActResume = "resume"
	ActCancel = "cancel"
)

// Act applies what a person asks for. Asking for what already is so is not an
// error; asking for what cannot be is one that says why.
func Act(r fleetapi.Rollout, action string, now time.Time) (fleetapi.Rollout, error) {
	r = clone(r)
	switch {
	case action == ActStart && r.State == fleetapi.RolloutDraft:
		r.State, r.Started, r.Sentence = fleetapi.RolloutRunning, &now, "Started"
	case action == ActPause && r.State == fleetapi.RolloutRunning:
		r.State, r.Sentence = fleetapi.RolloutPaused, "Paused: "+total(r).words()
	case action == ActResume && r.State == fleetapi.RolloutPaused:
		r.State, r.Sentence = fleetapi.RolloutRunning, "Resumed"
	case action == ActCancel && (r.State == fleetapi.RolloutDraft || r.State == fleetapi.RolloutRunning || r.State == fleetapi.RolloutPaused || r.State == fleetapi.RolloutHalted):
		cancel(&r, now)
	case action == ActStart && r.State == fleetapi.RolloutRunning,
		action == ActPause && r.State == fleetapi.RolloutPaused,
		action == ActResume && r.State == fleetapi.RolloutRunning,
		action == ActCancel && r.State == fleetapi.RolloutCanceled:
	default:
		return r, fmt.Errorf("cannot %s a rollout that is %s", action, r.State)
	}
	return r, nil
}

// cancel gives up on boxes that were not offered the version yet. The others
// keep what they have: taking it back is a rollout of its own.
func cancel(r *fleetapi.Rollout, now time.Time) {
	for i := range r.Waves {
		for j := range r.Waves[i].Targets {
			if t := &r.Waves[i].Targets[j]; t.State == fleetapi.TargetScheduled {
				t.State, t.Changed = fleetapi.TargetCanceled, &now
			}
		}
	}
	end(r, fleetapi.RolloutCanceled, now)
	r.Sentence = "Canceled: " + total(*r).words()
}
