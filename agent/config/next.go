package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/internal/boxconfig"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// The phases of a document, as they are reported.
const (
	PhaseTrial      = "trial"
	PhaseActive     = "active"
	PhaseRefused    = "refused"     // it was never followed
	PhaseRolledBack = "rolled_back" // it was, and those of before are back
)

// maxStarts of an agent on settings that are on trial.
const maxStarts = 3

// maxGiven settings that were given up are remembered.
const maxGiven = 16

// State is the journal.
type State struct {
	// Kept are the settings to go back to; nil: none.
	Kept *wire.DesiredConfig `json:"kept,omitempty"`
	// Trial are settings that count now and must prove themselves.
	Trial *Trial `json:"trial,omitempty"`
	// Given are settings that were given up: they are not tried again until a
	// rollout asks anew.
	Given []string `json:"given,omitempty"`
	// Due are reports that were decided on and may not have been stored yet.
	Due []Report `json:"due,omitempty"`
}

// Trial is how far settings on trial are.
type Trial struct {
	Config wire.DesiredConfig `json:"config"`
	// Starts counts agents that began with them, if they are of the agent.
	Starts int `json:"starts,omitempty"`
	// Before is what was wrong with inputs before: the same is nobody's fault.
	Before map[string]string `json:"before,omitempty"`
}

// Report is one phase of one document.
type Report struct {
	Document wire.DesiredDocument `json:"document"`
	Phase    string               `json:"phase"`
	Err      string               `json:"err,omitempty"`
}

// Event is what happened: exactly one field is set.
type Event struct {
	Started bool
	Want    *Wanted
	Look    *Look
}

// Wanted is what the desired state says.
type Wanted struct {
	Config *wire.DesiredConfig // nil: none
	// Check says what this box has against settings that parse.
	Check func(boxconfig.Settings) error
	// Before is what is wrong with inputs now.
	Before map[string]string
}

// Look is how things stand with settings on trial.
type Look struct {
	For       time.Duration // since they count, in this process
	Connected bool          // the controller has answered this process
	// Runner is the digest of the settings that it has taken up, RunnerErr why it
	// did not, Inputs what is wrong with each input: "" is well.
	Runner, RunnerErr string
	Inputs            map[string]string
	// Settle is how long they must do well, Confirm how long runner and controller
	// may take to answer.
	Settle, Confirm time.Duration
}

// Actions are what is to be done after the state was saved.
type Actions struct {
	Apply   bool // bring the runner what counts
	Restart bool // the agent must start anew to follow
}

// Current are the settings that count; nil: none.
func (s State) Current() *wire.DesiredConfig {
	if s.Trial != nil {
		return &s.Trial.Config
	}
	return s.Kept
}

// Next is the state after an event, and what is to be done. It is pure.
func Next(s State, e Event) (State, Actions) {
	s.Given, s.Due = slices.Clone(s.Given), slices.Clone(s.Due)
	switch {
	case e.Started && s.Trial != nil && agentPart(&s.Trial.Config) != agentPart(s.Kept):
		t := *s.Trial
		t.Starts++
		s.Trial = &t
		if t.Starts > maxStarts {
			s, a := back(s, fmt.Sprintf("the agent began %d times with them and did not get through the trial", maxStarts))
			a.Restart = false // it has just begun, and follows those of before
			return s, a
		}
	case e.Want != nil:
		return want(s, *e.Want)
	case e.Look != nil && s.Trial != nil:
		return look(s, *e.Look)
	}
	return s, Actions{}
}

func want(s State, w Wanted) (State, Actions) {
	next := wire.DesiredConfig{Content: json.RawMessage("{}"), Digest: boxconfig.Digest([]byte("{}"))}
	if w.Config != nil {
		next = *w.Config
	}
	now := s.Current()
	if reflect.DeepEqual(hand(now), hand(&next)) && now != nil && now.Digest == next.Digest || now == nil && w.Config == nil || slices.Contains(s.Given, key(next)) {
		return s, Actions{}
	}
	fresh := changed(now, next)
	settings, err := boxconfig.Parse(next.Content)
	switch {
	case err != nil:
	case boxconfig.Digest(next.Content) != next.Digest:
		err = fmt.Errorf("the settings have digest %s, want %s", boxconfig.Digest(next.Content), next.Digest)
	case w.Check != nil:
		err = w.Check(settings)
	}
	if err != nil {
		s.give(next)
		s.report(fresh, PhaseRefused, err.Error())
		return s, Actions{}
	}
	if now != nil && now.Digest == next.Digest || now == nil && string(next.Content) == "{}" {
		// Other documents say the same: nothing can go wrong with that.
		if s.Trial != nil {
			t := *s.Trial
			t.Config = next
			s.Trial = &t
			s.report(fresh, PhaseTrial, "")
			return s, Actions{}
		}
		s.Kept = &next
		s.report(fresh, PhaseActive, "")
		return s, Actions{}
	}
	a := Actions{Apply: true, Restart: agentPart(now) != agentPart(&next)}
	before := w.Before
	if s.Trial != nil { // what is wrong now may be of settings that are on trial
		before = s.Trial.Before
	}
	s.Trial = &Trial{Config: next, Before: before}
	s.report(fresh, PhaseTrial, "")
	return s, a
}

// look decides about settings on trial: back first, then keep.
func look(s State, l Look) (State, Actions) {
	t := s.Trial.Config
	if runnerPart(&t) != runnerPart(s.Kept) {
		switch {
		case l.Runner == t.Digest.String() && l.RunnerErr != "":
			return back(s, "the runner does not take them: "+l.RunnerErr)
		case l.Runner != t.Digest.String() && l.For >= l.Confirm:
			return back(s, fmt.Sprintf("the runner has not taken them up within %s", l.Confirm))
		case l.Runner != t.Digest.String() || l.For < l.Settle:
			return s, Actions{}
		}
		for _, name := range slices.Sorted(maps.Keys(l.Inputs)) {
			if fault := l.Inputs[name]; fault != "" && s.Trial.Before[name] == "" {
				return back(s, "input "+name+": "+fault)
			}
		}
	}
	if wayPart(&t) != wayPart(s.Kept) && !l.Connected {
		if l.For >= l.Confirm {
			return back(s, fmt.Sprintf("the controller was not reached within %s", l.Confirm))
		}
		return s, Actions{}
	}
	if l.For < l.Settle {
		return s, Actions{}
	}
	s.report(changed(s.Kept, t), PhaseActive, "")
	s.Kept, s.Trial = &t, nil
	return s, Actions{}
}

// back gives settings on trial up for those of before.
func back(s State, why string) (State, Actions) {
	t := s.Trial.Config
	s.give(t)
	s.report(changed(s.Kept, t), PhaseRolledBack, why)
	s.Trial = nil
	return s, Actions{Apply: true, Restart: agentPart(&t) != agentPart(s.Kept)}
}

func (s *State) give(c wire.DesiredConfig) {
	s.Given = append(s.Given, key(c))
	s.Given = s.Given[max(0, len(s.Given)-maxGiven):]
}

// report notes a phase of documents; one that could not be filled in for the
// box is refused whatever becomes of the others.
func (s *State) report(docs []wire.DesiredDocument, phase, why string) {
	for _, d := range docs {
		r := Report{Document: d, Phase: phase, Err: why}
		if d.Fault != "" {
			if phase != PhaseTrial && phase != PhaseActive {
				continue // told when it came
			}
			r.Phase, r.Err = PhaseRefused, d.Fault
		}
		s.Due = append(s.Due, r)
	}
}

// key names settings as one rollout asked for them.
func key(c wire.DesiredConfig) string {
	data, err := json.Marshal(c.Documents)
	if err != nil {
		panic("config: documents always encode: " + err.Error())
	}
	return boxconfig.Digest(append(data, c.Digest[:]...)).String()
}

func hand(c *wire.DesiredConfig) []wire.DesiredDocument {
	if c == nil || len(c.Documents) == 0 {
		return nil
	}
	return c.Documents
}

// changed are the documents of next that were not in the hand as they are now.
func changed(was *wire.DesiredConfig, next wire.DesiredConfig) []wire.DesiredDocument {
	var out []wire.DesiredDocument
	for _, d := range next.Documents {
		if !slices.Contains(hand(was), d) {
			out = append(out, d)
		}
	}
	return out
}

// part is what settings say under some paths, in one form.
func part(c *wire.DesiredConfig, in func(path string) bool) string {
	if c == nil {
		return "[]"
	}
	s, err := boxconfig.Parse(c.Content)
	if err != nil { // of an older agent: whatever it was, it differs
		return err.Error()
	}
	lines := []string{}
	for path, v := range s {
		if in(path) {
			lines = append(lines, path+": "+boxconfig.Word(v))
		}
	}
	slices.Sort(lines)
	return fmt.Sprint(lines)
}

func agentPart(c *wire.DesiredConfig) string { return part(c, boxconfig.OfAgent) }

func runnerPart(c *wire.DesiredConfig) string {
	return part(c, func(path string) bool { return !boxconfig.OfAgent(path) })
}

func wayPart(c *wire.DesiredConfig) string {
	return part(c, func(path string) bool { f, _ := boxconfig.FieldOf(path); return f.Way })
}
