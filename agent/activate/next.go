package activate

import (
	"fmt"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
)

// Next decides what follows from an event at now. It is pure: it keeps no
// memory, does not change what s refers to, and an event that does not fit the
// step leaves the state as it is.
func (r Rules) Next(s State, e Event, now time.Time) (State, []Action) {
	switch e.Kind {
	case EventWanted:
		return r.wanted(s, e, now)
	case EventResumed:
		return r.resumed(s, now)
	case EventLost:
		return r.lost(s, e, now)
	case EventSuspected:
		return r.suspected(s, e)
	}
	switch s.Step {
	case StepIdle:
		return r.idle(s, e)
	case StepFetching:
		return r.fetching(s, e, now)
	case StepProbing:
		return r.probing(s, e, now)
	case StepShadow:
		return r.shadowing(s, e, now)
	case StepSwitching:
		return r.switching(s, e, now)
	case StepTrial:
		return r.trial(s, e, now)
	case StepUndoing:
		return r.undoing(s, e, now)
	case StepRemoving:
		return r.removing(s, e, now)
	}
	return s, nil
}

func (s State) enter(step Step, now time.Time) State {
	s.Step, s.Since, s.Tries, s.Disk = step, now, 0, ""
	return s
}

func (s State) report(phase, err string, probe *runnerapi.Probe) Action {
	disk := err == ""
	if disk {
		err = s.said()
	}
	return Action{Kind: ActReport, Phase: Phase{
		Ref: s.For.Ref, Generation: s.Generation, Rollout: s.For.Rollout, Attempt: s.For.Attempt,
		Phase: phase, Err: err, Disk: disk && err != "", Probe: probe,
	}}
}

// start begins what is wanted, from a step in which Current serves.
func (r Rules) start(s State, now time.Time) (State, []Action) {
	s = s.enter(StepIdle, now)
	s.Restarts, s.Reason, s.Blameless, s.Base, s.Probed = 0, "", false, runnerapi.ModelStatus{}, runnerapi.Probe{}
	want := s.Want
	if want.Digest.IsZero() {
		s.Candidate, s.For, s.Lost = Version{}, Want{}, Lost{}
		if s.Current.none() && s.Previous.none() {
			return s, []Action{{Kind: ActStop}}
		}
		return s.enter(StepRemoving, now), []Action{{Kind: ActReload}}
	}
	s.For = want
	if want.Digest == s.Current.Digest {
		s.Candidate, s.Lost = Version{}, Lost{}
		return s, []Action{{Kind: ActStatus}}
	}
	if s.denies(want) || want.Digest == s.Lost.Digest {
		s = s.found()
	}
	if s.denies(want) {
		n, _ := s.denial(want.Digest)
		if s.Candidate.Digest != want.Digest && !s.mending() {
			s.Candidate = Version{}
		}
		actions := []Action{{Kind: ActStop}}
		if n.Rollout != want.Rollout {
			// Another rollout waits for an answer too.
			n.Rollout = want.Rollout
			s = s.deny(n)
			told := s.report(n.Phase, "failed on this box before: "+n.Err, nil)
			told.Phase.Disk = n.Disk
			actions = append(actions, told)
		}
		if s.mending() { // what served before the version that failed
			return r.mend(s, actions, now)
		}
		return s, actions
	}
	if s.Candidate.Digest != want.Digest {
		s.Candidate = Version{Ref: want.Ref}
	}
	s = s.enter(StepFetching, now)
	return s, []Action{s.report(string(StepFetching), "", nil), s.fetchAction(0)}
}

// fetchAction is the part of fetching that is still to do.
func (s State) fetchAction(delay time.Duration) Action {
	if len(s.Candidate.Files) == 0 {
		return Action{Kind: ActManifest, Delay: delay}
	}
	return Action{Kind: ActFiles, Delay: delay}
}

func (r Rules) wanted(s State, e Event, now time.Time) (State, []Action) {
	s.Generation = e.Generation
	if e.Want == s.Want {
		return s, nil
	}
	s.Want = e.Want
	same := e.Want.Digest == s.Candidate.Digest && !e.Want.Digest.IsZero() && !s.denies(e.Want)
	switch s.Step {
	case StepFetching, StepProbing, StepShadow, StepSwitching, StepTrial:
		if same {
			s.For = e.Want
			actions := []Action{s.report(string(s.Step), "", nil)}
			if s.Disk != "" { // who asks again may have made it
				s.Tries = 0
				actions = append(actions, s.fetchAction(0))
			}
			return s, actions
		}
	}
	switch s.Step {
	case StepSwitching, StepTrial:
		return r.undo(s, "another version is wanted", true, now)
	case StepUndoing, StepRemoving:
		return s, nil // start comes when it is done
	case StepProbing, StepShadow:
		drop := Action{Kind: ActDrop, Ref: s.Candidate.Ref}
		s, actions := r.start(s, now)
		return s, append([]Action{drop}, actions...)
	}
	return r.start(s, now)
}

func (r Rules) resumed(s State, now time.Time) (State, []Action) {
	s.Since, s.Tries = now, 0
	switch s.Step {
	case StepProbing, StepShadow, StepSwitching, StepTrial:
		if s.Restarts++; s.Restarts > maxRestarts {
			reason := fmt.Sprintf("the box or its agent restarted %d times with it", s.Restarts)
			if s.Step == StepProbing || s.Step == StepShadow {
				return r.fail(s, PhaseFailed, reason, nil, now)
			}
			return r.undo(s, reason, false, now)
		}
	}
	switch s.Step {
	case StepFetching:
		return s, []Action{s.fetchAction(0)}
	case StepProbing:
		return s, []Action{{Kind: ActProbe}}
	case StepShadow:
		return s, []Action{{Kind: ActShadow}}
	case StepTrial:
		return s, []Action{{Kind: ActStatus}}
	case StepSwitching, StepUndoing, StepRemoving:
		return s, []Action{{Kind: ActReload}}
	}
	return r.start(s, now)
}

// idle reports a wanted version active once the runner says that it serves.
func (r Rules) idle(s State, e Event) (State, []Action) {
	if e.Kind != EventStatus || s.Want.Digest.IsZero() || s.Want.Digest != s.Current.Digest || s.Confirmed == s.Want {
		return s, nil
	}
	if m, ok := statusOf(e.Status, s.Current.Digest); !ok || m.State != runnerapi.ModelReady {
		return s, nil
	}
	s.Confirmed, s.For, s.Mend = s.Want, s.Want, Mend{}
	return s, []Action{s.report(PhaseActive, "", nil)}
}

func (r Rules) fetching(s State, e Event, now time.Time) (State, []Action) {
	switch e.Kind {
	case EventManifest:
		if len(s.Candidate.Files) > 0 {
			return s, nil
		}
		if !s.Current.none() {
			// Callers of the current version will call the next one unasked.
			if err := s.Current.accepts(e.Manifest); err != nil {
				return r.fail(s, PhaseRefused, fmt.Sprintf("callers of %s could not use it: %v", s.Current.Version, err), nil, now)
			}
		}
		s.Candidate, s.Tries = described(s.Candidate.Ref, e.Manifest), 0
		return s, []Action{{Kind: ActFiles}}
	case EventFetched:
		if len(s.Candidate.Files) == 0 {
			return s, nil
		}
		s = s.enter(StepProbing, now)
		return s, []Action{s.report(string(StepProbing), "", nil), {Kind: ActProbe}}
	case EventArrives:
		if s.Disk == "" {
			return s, nil
		}
		s.Disk, s.Tries = "", 0
		return s, []Action{s.report(string(StepFetching), "", nil)}
	case EventFailed:
		switch {
		case e.Blame == BlameTrust:
			return r.fail(s, PhaseRefused, e.Err, nil, now)
		case e.Blame == BlameRoom || e.Blame == BlameDisk:
			return s.awaitDisk(e, now)
		case s.mending():
			return r.awaitMend(s, e)
		case e.Blame == BlameCandidate:
			return r.fail(s, PhaseFailed, e.Err, nil, now)
		case now.Sub(s.Since) > r.FetchLimit:
			return r.fail(s, PhaseFailed, fmt.Sprintf("not fetched within %s: %s", r.FetchLimit, e.Err), nil, now)
		}
		s.Tries++
		return s, []Action{s.fetchAction(retryDelay(s.Tries))}
	}
	return s, nil
}

// awaitDisk waits as long as it takes: a disk that is full, or fails, says nothing
// of the version. How long a rollout waits is its policy's. Numbers that change are
// told.
func (s State) awaitDisk(e Event, now time.Time) (State, []Action) {
	var actions []Action
	if s.Disk == "" {
		s.Tries = 0
	}
	s.Since = now // FetchLimit is for the line
	s.Tries++
	why := "waits for room: " + e.Err
	if e.Blame == BlameDisk {
		why = "waits for a disk that takes it: " + e.Err
	}
	if s.Disk != why {
		s.Disk = why
		actions = append(actions, s.report(string(StepFetching), "", nil))
	}
	return s, append(actions, s.fetchAction(roomDelay(s.Tries)))
}

func (r Rules) probing(s State, e Event, now time.Time) (State, []Action) {
	switch e.Kind {
	case EventProbed:
		if !e.Probe.OK && e.Probe.Damaged {
			return s, []Action{{Kind: ActVerify, Ref: s.Candidate.Ref}}
		}
		if !e.Probe.OK {
			return r.fail(s, PhaseFailed, "the probe failed: "+e.Probe.Err, &e.Probe, now)
		}
		s.Base = e.Base
		if r.shadowTime(s) == 0 || s.mending() {
			s = s.enter(StepSwitching, now)
			return s, []Action{s.report(string(StepSwitching), "", &e.Probe), {Kind: ActReload}}
		}
		s = s.enter(StepShadow, now)
		s.Probed = e.Probe
		return s, []Action{s.report(string(StepShadow), "", &e.Probe), {Kind: ActShadow}}
	case EventFailed:
		if s.mending() {
			return r.awaitMend(s, e)
		}
		if now.Sub(s.Since) > r.ProbeLimit {
			return r.fail(s, PhaseFailed, fmt.Sprintf("not probed within %s: %s", r.ProbeLimit, e.Err), nil, now)
		}
		s.Tries++
		return s, []Action{{Kind: ActProbe, Delay: retryDelay(s.Tries)}}
	}
	return s, nil
}

// shadowing watches a candidate that gets copies of what Current answers. A box
// that cannot spare the time for it goes on without.
func (r Rules) shadowing(s State, e Event, now time.Time) (State, []Action) {
	took, limit := now.Sub(s.Since), r.shadowTime(s)
	switch e.Kind {
	case EventStatus:
		m, ok := statusOf(e.Status, s.Candidate.Digest)
		switch {
		case !ok: // the runner has forgotten it, as after a restart
			if s.Restarts++; s.Restarts > maxRestarts {
				return r.fail(s, PhaseFailed, fmt.Sprintf("the runner lost it %d times before it served", s.Restarts), nil, now)
			}
			s = s.enter(StepProbing, now)
			return s, []Action{{Kind: ActProbe, Delay: retryDelay(s.Restarts)}}
		case m.State == runnerapi.ModelFailed:
			return r.fail(s, PhaseFailed, "it died in the shadow of the version before it: "+m.Err, nil, now)
		case m.Shadow == nil && took < limit:
			return s, []Action{{Kind: ActShadow, Delay: pollDelay}}
		case m.Shadow == nil:
			m.Shadow = &runnerapi.Shadow{}
		}
		if !seenEnough(s.Candidate.Shadow, *m.Shadow, took, limit) {
			return s, []Action{{Kind: ActStatus, Delay: pollDelay}}
		}
		s.Probed.Shadow = m.Shadow
		probe := s.Probed
		if reason := judgeShadow(s.Candidate.Shadow, *m.Shadow); reason != "" {
			return r.fail(s, PhaseFailed, reason, &probe, now)
		}
		s = s.enter(StepSwitching, now)
		s.Base, _ = statusOf(e.Status, s.Current.Digest)
		s.Probed = runnerapi.Probe{}
		return s, []Action{s.report(string(StepSwitching), "", &probe), {Kind: ActReload}}
	case EventFailed:
		if took > limit+r.ReadyLimit {
			return r.fail(s, PhaseFailed, "the runner does not answer since it tries it: "+e.Err, nil, now)
		}
		s.Tries++
		return s, []Action{{Kind: ActStatus, Delay: retryDelay(s.Tries)}} // which tells whether it still has it
	}
	return s, nil
}

func (r Rules) switching(s State, e Event, now time.Time) (State, []Action) {
	late := now.Sub(s.Since) > r.ReadyLimit
	switch e.Kind {
	case EventStatus:
		m, ok := statusOf(e.Status, s.Candidate.Digest)
		switch {
		case ok && m.State == runnerapi.ModelReady:
			s = s.enter(StepTrial, now)
			return s, []Action{s.report(string(StepTrial), "", nil), {Kind: ActStatus, Delay: pollDelay}}
		case ok && m.State == runnerapi.ModelFailed:
			if m.Damaged {
				s = s.spoilt(m.Digest, m.Err, false)
			}
			return r.undo(s, "the runner cannot serve it: "+m.Err, m.Damaged, now)
		case late:
			return r.undo(s, fmt.Sprintf("the runner did not serve it within %s", r.ReadyLimit), false, now)
		}
		return s, []Action{{Kind: ActStatus, Delay: pollDelay}}
	case EventFailed:
		if late {
			return r.undo(s, fmt.Sprintf("the runner did not answer within %s: %s", r.ReadyLimit, e.Err), false, now)
		}
		s.Tries++
		return s, []Action{{Kind: ActReload, Delay: retryDelay(s.Tries)}}
	}
	return s, nil
}

func (r Rules) trial(s State, e Event, now time.Time) (State, []Action) {
	ended, late := now.Sub(s.Since) >= r.Trial, now.Sub(s.Since) > r.Trial+r.ReadyLimit
	switch e.Kind {
	case EventStatus:
		m, ok := statusOf(e.Status, s.Candidate.Digest)
		if reason := r.judge(m, s.Base, ended); ok && reason != "" {
			damaged := m.State == runnerapi.ModelFailed && m.Damaged
			if damaged {
				s = s.spoilt(m.Digest, m.Err, false)
			}
			return r.undo(s, reason, damaged, now)
		}
		switch ready := ok && m.State == runnerapi.ModelReady; {
		case ended && ready:
			return r.commit(s, e, now)
		case late:
			return r.undo(s, "it was not ready at the end of the trial", false, now)
		}
		s.Tries = 0
		return s, []Action{{Kind: ActStatus, Delay: pollDelay}}
	case EventFailed:
		if late {
			return r.undo(s, "the runner does not answer since it serves it: "+e.Err, false, now)
		}
		s.Tries++
		return s, []Action{{Kind: ActStatus, Delay: retryDelay(s.Tries)}}
	}
	return s, nil
}

func (r Rules) commit(s State, e Event, now time.Time) (State, []Action) {
	if !s.Current.none() {
		s.Previous = s.Current
	}
	s.Current, s.Candidate = s.Candidate, Version{}
	s.Denied, s.Mend, s.Lost = without(s.Denied, s.Current.Digest), Mend{}, Lost{}
	s, actions := r.start(s, now)
	if s.Want.Digest != s.Current.Digest {
		return s, actions
	}
	return r.idle(s, e)
}

// fail ends a candidate that never served.
func (r Rules) fail(s State, phase, reason string, probe *runnerapi.Probe, now time.Time) (State, []Action) {
	actions := []Action{s.report(phase, reason, probe)}
	disk := s.hopeless()
	actions[0].Phase.Disk = disk
	if s.Step == StepProbing || s.Step == StepShadow {
		actions = append(actions, Action{Kind: ActDrop, Ref: s.Candidate.Ref})
	}
	s = s.deny(Denial{Digest: s.Candidate.Digest, Attempt: s.For.Attempt, Rollout: s.For.Rollout, Phase: phase, Err: reason, Disk: disk})
	s.Mend = Mend{}
	s, more := r.start(s, now)
	return s, append(actions, more...)
}

// undo takes a candidate that serves back out.
func (r Rules) undo(s State, reason string, blameless bool, now time.Time) (State, []Action) {
	s = s.enter(StepUndoing, now)
	s.Reason, s.Blameless = reason, blameless
	return s, []Action{{Kind: ActReload}}
}

func (r Rules) undoing(s State, e Event, now time.Time) (State, []Action) {
	late, note := now.Sub(s.Since) > r.ReadyLimit, ""
	switch e.Kind {
	case EventStatus:
		m, ok := statusOf(e.Status, s.Current.Digest)
		back := s.Current.none() || ok && m.State == runnerapi.ModelReady
		switch {
		case back:
		case ok && m.State == runnerapi.ModelFailed:
			note = fmt.Sprintf("; %s does not serve either: %s", s.Current.Version, m.Err)
		case late:
			note = fmt.Sprintf("; %s is not ready either", s.Current.Version)
		default:
			return s, []Action{{Kind: ActStatus, Delay: pollDelay}}
		}
	case EventFailed:
		if !late {
			s.Tries++
			return s, []Action{{Kind: ActReload, Delay: retryDelay(s.Tries)}}
		}
		note = "; the runner does not answer: " + e.Err
	default:
		return s, nil
	}
	drop := Action{Kind: ActDrop, Ref: s.Candidate.Ref}
	if s.Blameless && s.Mend.of(s.Candidate.Digest) {
		s, actions := r.undoneByDisk(s, note, now)
		return s, append([]Action{drop}, actions...)
	}
	actions := []Action{s.report(PhaseRolledBack, s.Reason+note, nil), drop}
	if !s.Blameless {
		s = s.deny(Denial{Digest: s.Candidate.Digest, Attempt: s.For.Attempt, Rollout: s.For.Rollout, Phase: PhaseRolledBack, Err: s.Reason})
		s.Mend = Mend{}
	}
	s, more := r.start(s, now)
	return s, append(actions, more...)
}

func (r Rules) removing(s State, e Event, now time.Time) (State, []Action) {
	switch {
	case e.Kind == EventFailed && now.Sub(s.Since) <= r.ReadyLimit:
		s.Tries++
		return s, []Action{{Kind: ActReload, Delay: retryDelay(s.Tries)}}
	case e.Kind != EventFailed && e.Kind != EventStatus:
		return s, nil
	}
	// active.json does not name it since the step began, so a runner that does
	// not answer will find it gone.
	s.Current, s.Previous, s.Confirmed = Version{}, Version{}, Want{}
	return r.start(s, now)
}

func without(denied []Denial, d blob.Digest) []Denial {
	var kept []Denial
	for _, n := range denied {
		if n.Digest != d {
			kept = append(kept, n)
		}
	}
	return kept
}
