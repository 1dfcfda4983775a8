package activate

import (
	"fmt"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
)

// A disk that forgets must not need a visit. A version whose files are gone or
// damaged is a candidate again and takes the ordinary way; what is sound of it
// stays, and the version before it serves meanwhile. What the box proved of it
// once needs no second proof in the shadow, and no line and no disk that fails
// makes the box give it up.

// Mend tells of a version whose files the disk has spoiled.
type Mend struct {
	Digest blob.Digest `json:"digest"`
	// Why names the files, for people.
	Why string `json:"why"`
	// Times in a row, without it having served in between.
	Times int `json:"times"`
	// Proved: it has served on this box.
	Proved bool `json:"proved,omitempty"`
}

func (m Mend) of(d blob.Digest) bool { return !d.IsZero() && m.Digest == d }

// Lost is a version whose files the disk spoiled while another was on its way.
type Lost struct {
	Version
	Why string `json:"why"`
}

// found makes what was lost meanwhile the candidate.
func (s State) found() State {
	if l := s.Lost; !l.none() {
		s.Candidate, s.Lost = l.Version, Lost{}
		s = s.spoilt(l.Digest, l.Why, true)
	}
	return s
}

// spoilt remembers that the disk has spoiled version d once more.
func (s State) spoilt(d blob.Digest, why string, proved bool) State {
	if !s.Mend.of(d) {
		s.Mend = Mend{Digest: d}
	}
	s.Mend.Why = why
	s.Mend.Times++
	s.Mend.Proved = s.Mend.Proved || proved
	return s
}

// maxMends of a version that has not served yet: its rollout waits for an answer.
const maxMends = 3

// mending reports whether the candidate is here again since its files were spoiled.
func (s State) mending() bool { return s.Mend.Proved && s.Mend.of(s.Candidate.Digest) }

// version is the kept version with digest d; none without.
func (s State) version(d blob.Digest) Version {
	for _, v := range s.kept() {
		if v.Digest == d && !v.none() {
			return v
		}
	}
	return Version{}
}

// suspected looks at the files of the version that serves. In the other steps
// another version does, or is about to. What goes on serving gives way to no download.
func (r Rules) suspected(s State, e Event) (State, []Action) {
	switch {
	case e.Digest.IsZero() || e.Digest != s.Current.Digest:
		return s, nil
	case s.Step == StepIdle && e.Serves:
		return s, []Action{{Kind: ActMend, Ref: s.Current.Ref}}
	case s.Step != StepIdle && (s.Step != StepFetching || e.Serves):
		return s, nil
	}
	return s, []Action{{Kind: ActVerify, Ref: s.Current.Ref}}
}

// lost takes a version whose files are gone or damaged out of the state. If the
// version was the one to serve, it becomes the candidate.
func (r Rules) lost(s State, e Event, now time.Time) (State, []Action) {
	if e.Digest.IsZero() {
		return s, nil
	}
	if e.Digest == s.Previous.Digest {
		s.Previous = Version{}
	}
	wasCurrent, wasCandidate := e.Digest == s.Current.Digest, e.Digest == s.Candidate.Digest
	if !wasCurrent && !wasCandidate {
		return s, nil
	}
	if gone := s.Current; wasCurrent {
		if s.Step != StepIdle {
			s.Lost = Lost{gone, e.Err}
		}
		s.Current, s.Confirmed = Version{}, Want{}
		if _, denied := s.denial(s.Previous.Digest); e.Fallback && !denied {
			s.Current, s.Previous = s.Previous, Version{}
		}
		switch {
		case s.Step == StepIdle:
			s.Candidate = gone // its other files stay
		case s.Step == StepFetching: // another version, which goes on
			why := fmt.Sprintf("%s served, but %s; %s", gone.Version, e.Err, meanwhile(s.Current))
			return s, []Action{s.report(string(StepFetching), strings.TrimPrefix(s.said()+"; "+why, "; "), nil), s.fetchAction(0)}
		case !wasCandidate:
			return s, nil
		}
	}
	s = s.spoilt(e.Digest, e.Err, wasCurrent)
	switch {
	case wasCandidate && (s.Step == StepSwitching || s.Step == StepTrial):
		return r.undo(s, e.Err, true, now)
	case wasCandidate && (s.Step == StepProbing || s.Step == StepShadow):
		if s.hopeless() {
			return r.fail(s, PhaseFailed, s.hopelessWords(), nil, now)
		}
		return r.start(s, now)
	case wasCurrent && s.Step == StepIdle:
		return r.start(s, now)
	}
	return s, nil
}

// hopeless: a new version that the disk has spoiled time and again.
func (s State) hopeless() bool {
	return s.Mend.of(s.Candidate.Digest) && !s.Mend.Proved && s.Mend.Times > maxMends
}

func (s State) hopelessWords() string {
	return fmt.Sprintf("%s, for the %dth time: the disk of this box spoils what it is given", s.Mend.Why, s.Mend.Times)
}

// undoneByDisk ends the way back from a version that the disk spoiled while it was
// to serve: it comes again, each time later, and nobody is told that it failed.
func (r Rules) undoneByDisk(s State, note string, now time.Time) (State, []Action) {
	if s.hopeless() {
		told := s.report(PhaseFailed, s.hopelessWords()+note, nil)
		told.Phase.Disk = true
		s = s.deny(Denial{Digest: s.Candidate.Digest, Attempt: s.For.Attempt, Rollout: s.For.Rollout, Phase: PhaseFailed, Err: s.hopelessWords(), Disk: true})
		s.Mend = Mend{}
		s, actions := r.start(s, now)
		return s, append([]Action{told}, actions...)
	}
	wait := min(lookMax, lookMin<<min(s.Mend.Times-1, 10))
	s, actions := r.start(s, now)
	if !s.Mend.of(s.Candidate.Digest) {
		return s, actions // another one is wanted by now
	}
	for i := range actions {
		switch a := &actions[i]; a.Kind {
		case ActReport:
			a.Phase.Err += note
		case ActFiles, ActManifest:
			a.Delay = wait
		}
	}
	return s, actions
}

// said is what is told with each step: why the version comes again, and why it
// waits.
func (s State) said() string {
	words := s.mendWords()
	if s.Disk == "" {
		return words
	}
	if words != "" {
		words += "; "
	}
	return words + s.Disk + "; the box looks again by itself; " + meanwhile(s.Current)
}

func (s State) mendWords() string {
	switch {
	case !s.Mend.of(s.For.Digest):
		return ""
	case s.Step == StepFetching:
		return s.Mend.Why + ", it is fetched again; " + meanwhile(s.Current)
	}
	return s.Mend.Why + ", it was fetched again"
}

func meanwhile(v Version) string {
	if v.none() {
		return "nothing serves meanwhile"
	}
	return v.Version + " serves meanwhile"
}

// mend fetches a version that is not wanted but served, since the wanted one
// failed on this box.
func (r Rules) mend(s State, actions []Action, now time.Time) (State, []Action) {
	s.For = Want{Ref: s.Candidate.Ref}
	s = s.enter(StepFetching, now)
	return s, append(actions, s.report(string(StepFetching), "", nil), s.fetchAction(0))
}

// awaitMend waits as long as it takes: the version has served here, so neither the
// line nor the disk nor a runner that is away speaks against it. What else is wrong
// is told once.
func (r Rules) awaitMend(s State, e Event) (State, []Action) {
	var actions []Action
	if s.Tries++; s.Tries == 1 {
		told := s.report(string(s.Step), "", nil)
		told.Phase.Err += "; not yet: " + e.Err
		actions = append(actions, told)
	}
	again := s.fetchAction(retryDelay(s.Tries))
	if s.Step == StepProbing {
		again.Kind = ActProbe
	}
	return s, append(actions, again)
}
