// Package rollout decides which box gets a new version when. It is pure: Plan
// fixes the waves, Next looks at what the boxes reported and says what to do.
//
// Vocabulary: a rollout has waves, a wave has targets, a target is one box.
// Offering a target means putting the version into the box's signed desired
// state; everything else the box does by itself and reports as phases.
//
//	wave: waiting → running → soaking → passed | halted;  empty: skipped
//	target: scheduled → offered → working → succeeded | failed
//	        and from offered or working: unreachable (back when it reports),
//	        superseded (a newer rollout took the box over), canceled
//
// Success means that the box reports the assigned digest running after its
// own trial. Halt is checked before pass, and a wave that ends without passing
// is halted, never skipped over.
//
// The one rule a caller can break: save what Next returns before performing
// its actions; Next repeats an action until the facts show it was done.
package rollout

import (
	"fmt"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
)

// Fact is what is known of one target box at one moment.
type Fact struct {
	Link fleetapi.Link
	// Desired is what the box has been told to run of the rollout's artefact,
	// and by which rollout. Newer says that rollout was created after this one.
	Desired        blob.Digest
	DesiredRollout string
	Newer          bool
	// Outrun says that the box follows a later desired state than it has been
	// told of by what is known here, so that it would refuse the present one.
	Outrun bool
	// Running is what the box reports serving, perhaps on trial; zero if nothing.
	Running blob.Digest
	// Phase, Err and Probe are the box's last report on this rollout's digest.
	Phase string
	Err   string
	Probe *runnerapi.Probe
}

// Action asks to put the rollout's version into the desired state of a box.
type Action struct {
	Offer identity.ID
}

// The phases that end a box's work, as boxes report them.
const (
	phaseActive     = "active"
	phaseFailed     = "failed"
	phaseRefused    = "refused"
	phaseRolledBack = "rolled_back"
)

// Next advances a rollout by what is known now. The same arguments give the
// same answer; a rollout that is not running is returned unchanged.
func Next(r fleetapi.Rollout, facts map[identity.ID]Fact, now time.Time) (fleetapi.Rollout, []Action) {
	if r.State != fleetapi.RolloutRunning {
		return r, nil
	}
	r = clone(r)
	for i := range r.Waves {
		w := &r.Waves[i]
		if w.State == fleetapi.WavePassed || w.State == fleetapi.WaveSkipped {
			continue
		}
		actions := nextWave(&r, w, facts, now)
		switch w.State {
		case fleetapi.WavePassed, fleetapi.WaveSkipped:
			continue // the next wave may start at once
		case fleetapi.WaveHalted:
			end(&r, fleetapi.RolloutHalted, now)
			r.Sentence = fmt.Sprintf("Halted in wave %d of %d: %s", i+1, len(r.Waves), w.Reason)
		default:
			r.Sentence = fmt.Sprintf("Wave %d of %d %s: %s", i+1, len(r.Waves), w.State, tally(w).words())
		}
		return r, actions
	}
	end(&r, fleetapi.RolloutDone, now)
	r.Sentence = fmt.Sprintf("Done: %s", total(r).words())
	return r, nil
}

func nextWave(r *fleetapi.Rollout, w *fleetapi.Wave, facts map[identity.ID]Fact, now time.Time) []Action {
	if len(w.Targets) == 0 {
		w.State, w.Reason = fleetapi.WaveSkipped, "no box in it"
		return nil
	}
	if w.State == fleetapi.WaveWaiting {
		w.State, w.Started = fleetapi.WaveRunning, &now
	}
	var actions []Action
	for i := range w.Targets {
		t := &w.Targets[i]
		f := facts[t.Box]
		nextTarget(r, t, f, now)
		waiting := t.State == fleetapi.TargetOffered || t.State == fleetapi.TargetUnreachable
		if waiting && (f.DesiredRollout != r.ID || f.Outrun) {
			actions = append(actions, Action{Offer: t.Box})
		}
	}
	judge(r, w, now)
	if w.State == fleetapi.WaveHalted {
		return nil
	}
	return actions
}

// nextTarget moves one target by its fact.
func nextTarget(r *fleetapi.Rollout, t *fleetapi.Target, f Fact, now time.Time) {
	was := t.State
	offered := f.DesiredRollout == r.ID
	switch {
	case t.State == fleetapi.TargetSuperseded || t.State == fleetapi.TargetCanceled:
		return
	case f.Newer:
		t.State = fleetapi.TargetSuperseded
	case t.State == fleetapi.TargetScheduled:
		t.State = fleetapi.TargetOffered
	case !offered:
		return // the offer has not been carried out yet
	case f.Phase == phaseFailed || f.Phase == phaseRefused || f.Phase == phaseRolledBack:
		t.State, t.Err = fleetapi.TargetFailed, f.Err
	case t.State == fleetapi.TargetSucceeded && !f.Running.IsZero() && f.Running != r.Target.Digest:
		t.State, t.Err = fleetapi.TargetFailed, "the box runs another version again"
	case f.Running == r.Target.Digest && f.Phase == phaseActive:
		t.State, t.Err = fleetapi.TargetSucceeded, ""
	case t.State == fleetapi.TargetSucceeded: // a runner that is starting reports nothing
	case f.Phase != "" && f.Phase != t.Phase:
		t.State = fleetapi.TargetWorking
	case unreachable(r, t, f, now):
		t.State = fleetapi.TargetUnreachable
	}
	t.Phase = f.Phase
	if f.Probe != nil {
		t.Probe = f.Probe
	}
	if t.State != was {
		t.Changed = &now
	}
}

func unreachable(r *fleetapi.Rollout, t *fleetapi.Target, f Fact, now time.Time) bool {
	open := t.State == fleetapi.TargetOffered || t.State == fleetapi.TargetWorking
	if !open || t.Changed == nil || f.Link == fleetapi.LinkLive {
		return false
	}
	return now.Sub(*t.Changed) >= seconds(r.Request.UnreachableAfterSeconds)
}

// judge sets the state of a running wave: halt before pass.
func judge(r *fleetapi.Rollout, w *fleetapi.Wave, now time.Time) {
	n := tally(w)
	switch {
	case n.failed > r.Request.MaxFailed:
		w.State, w.Ended = fleetapi.WaveHalted, &now
		w.Reason = fmt.Sprintf("%s failed, the plan allows %d. %s", boxes(n.failed), r.Request.MaxFailed, firstError(w))
	case n.open > 0:
		w.State = fleetapi.WaveRunning
	case n.succeeded == 0 && n.superseded < len(w.Targets):
		w.State, w.Ended = fleetapi.WaveHalted, &now
		w.Reason = "no box of the wave took the version: " + n.words()
	case r.Request.SoakSeconds > 0 && soakEnds(r, w).After(now):
		w.State, w.Reason = fleetapi.WaveSoaking, n.words()
	default:
		w.State, w.Ended = fleetapi.WavePassed, &now
		w.Reason = n.words()
	}
}

// soakEnds is when the wave has been good for long enough.
func soakEnds(r *fleetapi.Rollout, w *fleetapi.Wave) time.Time {
	var last time.Time
	for _, t := range w.Targets {
		if t.Changed != nil && t.Changed.After(last) {
			last = *t.Changed
		}
	}
	return last.Add(seconds(r.Request.SoakSeconds))
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func firstError(w *fleetapi.Wave) string {
	for _, t := range w.Targets {
		if t.State == fleetapi.TargetFailed {
			return fmt.Sprintf("%s: %s", t.Name, t.Err)
		}
	}
	return ""
}

func end(r *fleetapi.Rollout, s fleetapi.RolloutState, now time.Time) {
	r.State, r.Ended = s, &now
}

// clone copies what Next may change, so that the argument stays as it was.
func clone(r fleetapi.Rollout) fleetapi.Rollout {
	waves := make([]fleetapi.Wave, len(r.Waves))
	for i, w := range r.Waves {
		waves[i] = w
		waves[i].Targets = append([]fleetapi.Target(nil), w.Targets...)
	}
	r.Waves = waves
	return r
}
