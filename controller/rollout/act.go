package rollout

import (
	"fmt"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/phrase"
)

// The actions of people. A rollback is made of other rollouts: Back plans them.
const (
	ActStart    = "start"
	ActPause    = "pause"
	ActResume   = "resume"
	ActCancel   = "cancel"
	ActApprove  = "approve"
	ActSkip     = "skip"
	ActRollback = "rollback"
)

// Act is what a person wants of a rollout.
type Act struct {
	Action string      `json:"action"`
	By     string      `json:"by,omitempty"`
	Wave   int         `json:"wave,omitempty"` // from 1; 0: the one under way
	Box    identity.ID `json:"box,omitempty"`
	Reason string      `json:"reason,omitempty"`
	// Rollouts are those that take this one back.
	Rollouts []string `json:"rollouts,omitempty"`
}

// On applies what a person asks for. Asking for what already is so is not an
// error; asking for what cannot be is one that says why.
func (a Act) On(r fleetapi.Rollout, now time.Time) (fleetapi.Rollout, error) {
	r = clone(r)
	running, paused := r.State == fleetapi.RolloutRunning, r.State == fleetapi.RolloutPaused
	begun := running || paused || r.State == fleetapi.RolloutHalted
	switch {
	case a.Action == ActStart && r.State == fleetapi.RolloutDraft:
		r.State, r.Started, r.StartedBy = fleetapi.RolloutRunning, &now, a.By
		tell(&r, phrase.Of("started", "Started%s: %s", a.because(), boxes(total(r).open())))
	case a.Action == ActPause && running:
		r.State = fleetapi.RolloutPaused
		tell(&r, phrase.Of("paused", "Paused%s: %s", a.because(), total(r).words()))
	case a.Action == ActResume && paused:
		r.State = fleetapi.RolloutRunning
		tell(&r, phrase.Of("resumed", "Resumed%s: %s", a.because(), total(r).words()))
	case a.Action == ActCancel && (begun || r.State == fleetapi.RolloutDraft):
		drop(&r, func(*fleetapi.Wave, *fleetapi.Target) bool { return true }, phrase.Phrase{}, now)
		r.State, r.Ended = fleetapi.RolloutCanceled, &now
		tell(&r, phrase.Of("canceled", "Canceled%s: %s", a.because(), total(r).words()))
	case a.Action == ActApprove && begun:
		return a.approve(r)
	case a.Action == ActSkip && begun:
		return a.skip(r, now)
	case a.Action == ActRollback && (begun || r.State == fleetapi.RolloutDone || r.State == fleetapi.RolloutCanceled):
		return a.rollback(r, now), nil
	case a.Action == ActStart && running,
		a.Action == ActPause && paused,
		a.Action == ActResume && running,
		a.Action == ActCancel && r.State == fleetapi.RolloutCanceled:
	default:
		return r, fmt.Errorf("cannot %s a rollout that is %s", a.Action, r.State)
	}
	return r, nil
}

// because says who wanted it and why; it stands right behind a word.
func (a Act) because() phrase.Phrase {
	switch {
	case a.By != "" && a.Reason != "":
		return phrase.Of("by-why", " by %s (%s)", a.By, a.Reason)
	case a.By != "":
		return phrase.Of("by", " by %s", a.By)
	case a.Reason != "":
		return phrase.Of("why", " (%s)", a.Reason)
	}
	return phrase.Phrase{}
}

func tell(r *fleetapi.Rollout, sentence phrase.Phrase) {
	r.Sentence, r.SentenceSaid = sentence.Text, sentence.Beside()
}

// drop gives up on boxes that were not offered the version yet. The others
// keep what they have: taking it back is a rollout of its own.
func drop(r *fleetapi.Rollout, which func(*fleetapi.Wave, *fleetapi.Target) bool, why phrase.Phrase, now time.Time) int {
	n := 0
	for i := range r.Waves {
		w := &r.Waves[i]
		for j := range w.Targets {
			if t := &w.Targets[j]; t.State == fleetapi.TargetScheduled && which(w, t) {
				t.State, t.Changed = fleetapi.TargetCanceled, &now
				t.Err, t.ErrSaid, t.Waits, t.WaitsSaid = why.Text, why.Beside(), "", nil
				n++
			}
		}
	}
	return n
}

// wave is the one that is meant: by number, the first that waits for an approval
// where one is given, or the first that has not ended.
func (a Act) wave(r *fleetapi.Rollout) (int, error) {
	if a.Wave > len(r.Waves) || a.Wave < 0 {
		return 0, fmt.Errorf("there is no wave %d; the rollout has %d", a.Wave, len(r.Waves))
	}
	if a.Wave > 0 {
		return a.Wave - 1, nil
	}
	var approve []int
	if p, err := PolicyOf(r.Request); err == nil && a.Action == ActApprove {
		approve = p.Approve
	}
	for i, w := range r.Waves {
		if slices.Contains(approve, i+1) && w.State == fleetapi.WaveWaiting && len(w.ApprovedBy) == 0 {
			return i, nil // the one that a person is asked for
		}
	}
	for i, w := range r.Waves {
		if w.State != fleetapi.WavePassed && w.State != fleetapi.WaveSkipped {
			return i, nil
		}
	}
	return 0, fmt.Errorf("no wave is under way")
}

func (a Act) approve(r fleetapi.Rollout) (fleetapi.Rollout, error) {
	p, err := PolicyOf(r.Request)
	if err != nil {
		return r, err
	}
	i, err := a.wave(&r)
	if err != nil {
		return r, err
	}
	w := &r.Waves[i]
	switch {
	case !slices.Contains(p.Approve, i+1):
		return r, fmt.Errorf("wave %d waits for nobody", i+1)
	case slices.Contains(w.ApprovedBy, a.By):
		return r, nil
	case p.FourEyes && a.By == r.StartedBy:
		return r, fmt.Errorf("%s started the rollout; wave %d wants another person", a.By, i+1)
	}
	w.ApprovedBy = append(slices.Clone(w.ApprovedBy), a.By)
	tell(&r, phrase.Of("approved", "Wave %d of %d approved%s: %s in it", i+1, len(r.Waves), a.because(), boxes(len(w.Targets))))
	return r, nil
}

func (a Act) skip(r fleetapi.Rollout, now time.Time) (fleetapi.Rollout, error) {
	why := phrase.Of("skipped", "skipped%s", a.because())
	if a.Box != "" {
		for _, w := range r.Waves {
			for _, t := range w.Targets {
				if t.Box != a.Box {
					continue
				}
				if t.State != fleetapi.TargetScheduled && t.State != fleetapi.TargetCanceled {
					return r, fmt.Errorf("%s is %s: only a box that was not offered the version can be skipped", t.Name, t.State)
				}
				if drop(&r, func(_ *fleetapi.Wave, t *fleetapi.Target) bool { return t.Box == a.Box }, why, now) == 0 {
					return r, nil
				}
				tell(&r, phrase.Of("box-skipped", "%s %s", t.Name, why))
				return r, nil
			}
		}
		return r, fmt.Errorf("%s is not in the rollout", a.Box)
	}
	i, err := a.wave(&r)
	if err != nil {
		return r, err
	}
	w := &r.Waves[i]
	if w.State == fleetapi.WaveHalted {
		return r, fmt.Errorf("wave %d is halted; cancel the rollout, roll it back, or plan another", i+1)
	}
	n := drop(&r, func(of *fleetapi.Wave, _ *fleetapi.Target) bool { return of == w }, why, now)
	if n == 0 && slices.ContainsFunc(w.Targets, func(t fleetapi.Target) bool { return t.State == fleetapi.TargetCanceled }) {
		return r, nil // they were left out before
	}
	if n == 0 {
		return r, fmt.Errorf("wave %d has no box left to skip: all %d were offered the version", i+1, len(w.Targets))
	}
	tell(&r, phrase.Of("wave-skipped", "Wave %d of %d %s: %s of it will not be offered the version", i+1, len(r.Waves), why, boxes(n)))
	return r, nil
}

// rollback ends the rollout, whose boxes are the targets of others now.
func (a Act) rollback(r fleetapi.Rollout, now time.Time) fleetapi.Rollout {
	drop(&r, func(*fleetapi.Wave, *fleetapi.Target) bool { return true }, phrase.Phrase{}, now)
	for _, id := range a.Rollouts {
		if !slices.Contains(r.RolledBackBy, id) {
			r.RolledBackBy = append(slices.Clone(r.RolledBackBy), id)
		}
	}
	if r.State == fleetapi.RolloutRunning || r.State == fleetapi.RolloutPaused {
		r.State, r.Ended = fleetapi.RolloutCanceled, &now
	}
	by := phrase.Of("n-rollouts", "%d rollouts", len(a.Rollouts))
	if len(a.Rollouts) == 1 {
		by.Text = "1 rollout"
	}
	if a.Wave > 0 {
		tell(&r, phrase.Of("wave-taken-back", "Taken back in wave %d%s by %s", a.Wave, a.because(), by))
		return r
	}
	tell(&r, phrase.Of("taken-back", "Taken back everywhere%s by %s", a.because(), by))
	return r
}

// Count is how many boxes an action is about.
func (a Act) Count(r fleetapi.Rollout) int {
	n := 0
	switch a.Action {
	case ActRollback:
		groups, _ := a.Back(r, nil)
		for _, ids := range groups {
			n += len(ids)
		}
		return n
	case ActStart:
		t := total(r)
		return t.open()
	}
	at, err := a.wave(&r)
	for i, w := range r.Waves {
		for _, t := range w.Targets {
			one := a.Box == "" || t.Box == a.Box
			here := a.Action != ActSkip && a.Action != ActApprove || err == nil && i == at || a.Box != ""
			if t.State == fleetapi.TargetScheduled && one && here {
				n++
			}
		}
	}
	return n
}

// Back groups the boxes that were offered the version by what they ran before.
// kept counts those that cannot be taken back: they had nothing before, or it
// is not known. Boxes in done are left out.
func (a Act) Back(r fleetapi.Rollout, done map[identity.ID]bool) (groups map[blob.Digest][]identity.ID, kept int) {
	groups = map[blob.Digest][]identity.ID{}
	for i, w := range r.Waves {
		if a.Wave > 0 && i != a.Wave-1 {
			continue
		}
		for _, t := range w.Targets {
			switch {
			case t.Offered == nil || t.State == fleetapi.TargetSuperseded || done[t.Box]:
			case t.Before.Digest.IsZero() || t.Before.Digest == r.Target.Digest:
				kept++
			default:
				groups[t.Before.Digest] = append(groups[t.Before.Digest], t.Box)
			}
		}
	}
	return groups, kept
}

// String tells an act in a line.
func (a Act) String() string {
	s := a.Action
	if a.Wave > 0 {
		s += fmt.Sprintf(" wave %d", a.Wave)
	}
	if a.Box != "" {
		s += " " + string(a.Box)
	}
	return s + a.because().Text
}

// Planned is a rollout as it was planned: nothing has happened, nobody joined.
func Planned(r fleetapi.Rollout) fleetapi.Rollout {
	r = clone(r)
	r.State, r.Started, r.Ended, r.Affected, r.RolledBackBy = fleetapi.RolloutDraft, nil, nil, "", nil
	r.Sentence, r.SentenceSaid, r.AffectedSaid, r.StartedBy = "", nil, nil, ""
	waves := r.Waves[:0]
	for _, w := range r.Waves {
		next := fleetapi.Wave{State: fleetapi.WaveWaiting, Tail: w.Tail}
		for _, t := range w.Targets {
			if t.Joined {
				continue
			}
			next.Targets = append(next.Targets, fleetapi.Target{Box: t.Box, Name: t.Name, Site: t.Site, State: fleetapi.TargetScheduled, Traits: t.Traits})
		}
		if len(next.Targets) > 0 || !w.Tail {
			waves = append(waves, next)
		}
	}
	r.Waves = waves
	return r
}
