// Package rollout decides which box gets a new version when. It is pure: Plan
// fixes the waves, a Course takes what was observed and what people did, and
// says what to do.
//
// Vocabulary: a rollout has waves, a wave has targets, a target is one box.
// Offering a target means putting the version into the box's signed desired
// state; everything else the box does by itself and reports as phases. A fact
// is what is known of one box. A policy says in which steps, and what stops it.
//
//	wave: waiting → running → soaking → passed | halted;  empty: skipped
//	target: scheduled → offered → working → succeeded | failed
//	        and from offered or working: unreachable (back when it reports),
//	        superseded (a newer rollout took the box over), canceled
//
// Success means that the box reports the assigned digest running after its
// own trial. Halt is checked before pass, and a wave that ends without passing
// is halted, never skipped over; what its boxes still report is taken for an hour. Each step is a Record of its inputs and
// decisions: the records of a rollout give the same decisions again (Replay).
//
// The one rule a caller can break: save the Record of a step before performing
// its actions; the next step repeats an action until facts show it was done.
package rollout

import (
	"reflect"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/phrase"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
)

// Fact is what is known of one target box at one moment.
type Fact struct {
	Link fleetapi.Link `json:"link"`
	// Desired is what the box has been told to run of the rollout's artefact,
	// and by which rollout. Newer says that rollout was created after this one.
	Desired        blob.Digest `json:"desired"`
	DesiredRollout string      `json:"by,omitempty"`
	Newer          bool        `json:"newer,omitempty"`
	// Restore says why nothing is known of what the box was told since the
	// controller came back from a backup: RestoreAwaits or RestoreAhead.
	Restore string `json:"restore,omitempty"`
	// Running is what the box reports serving, perhaps on trial; zero if nothing.
	Running blob.Digest `json:"running"`
	Version string      `json:"version,omitempty"` // of Running
	// Phase, Err and Probe are the box's last report on this rollout's digest.
	Phase string `json:"phase,omitempty"`
	Err   string `json:"err,omitempty"`
	// Disk: Err is about the disk of the box.
	Disk  bool             `json:"disk,omitempty"`
	Probe *runnerapi.Probe `json:"probe,omitempty"`
	// Was is what the box measured of the version before; it stays known.
	Was *runnerapi.Probe `json:"was,omitempty"`
	// Heat is known only where the policy asks for it.
	Heat *fleetapi.Heat `json:"heat,omitempty"`
	// Cooling is known only where the policy has an admission.
	Cooling *fleetapi.Cooling `json:"cooling,omitempty"`
	// Gone says that the box left the fleet: retired or revoked.
	Gone string `json:"gone,omitempty"`
	// Locked is why the box must not be offered anything now.
	Locked string `json:"locked,omitempty"`
}

// What a restored controller does not know of a box, in Fact.Restore: it was not
// heard since, or follows what this controller has never signed. Such a box is
// not told anything.
const (
	RestoreAwaits = "awaits"
	RestoreAhead  = "ahead"
)

// Input is something that a Course did not decide: exactly one field is set.
type Input struct {
	Box  identity.ID      `json:"box,omitempty"` // of Fact
	Fact *Fact            `json:"fact,omitempty"`
	Act  *Act             `json:"act,omitempty"`
	Join *fleetapi.Target `json:"join,omitempty"` // a late joiner
	// Hold is why the whole fleet is locked; a pointer to "" ends it.
	Hold *string `json:"hold,omitempty"`
}

// Decision is one change of state. Box is empty for waves, Wave 0 for the
// rollout itself.
type Decision struct {
	Wave int         `json:"wave,omitempty"` // from 1
	Box  identity.ID `json:"box,omitempty"`
	From string      `json:"from"`
	To   string      `json:"to"`
	Why  string      `json:"why,omitempty"`
	// Gates are what a wave was judged by.
	Gates []fleetapi.Gate `json:"gates,omitempty"`
}

// Record is one step: what was observed, what was decided.
type Record struct {
	At        time.Time  `json:"at"`
	Inputs    []Input    `json:"inputs,omitempty"`
	Decisions []Decision `json:"decisions,omitempty"`
}

// Action asks to put the rollout's version into the desired state of a box.
type Action struct {
	Offer identity.ID
}

// Phases as boxes report them: a download, in which nothing is tried yet, and
// those that end the work.
const (
	phaseFetching   = "fetching"
	phaseActive     = "active"
	phaseFailed     = "failed"
	phaseRefused    = "refused"
	phaseRolledBack = "rolled_back"
)

// place is where a target is in a Course.
type place struct{ wave, at int }

// Course is a rollout under way. It is its state's only owner; not safe for
// concurrent use. What it does depends on nothing but its arguments.
type Course struct {
	r      fleetapi.Rollout
	p      Policy
	places map[identity.ID]place
	facts  [][]Fact // as waves and targets
	hold   string

	rec     Record
	touched map[place]bool
	lead    bool // the rollout's own fields changed
	tests   []fleetapi.Gate
}

// NewCourse takes up a rollout; facts may be empty.
func NewCourse(r fleetapi.Rollout, facts map[identity.ID]Fact) (*Course, error) {
	p, err := PolicyOf(r.Request)
	if err != nil {
		return nil, err
	}
	return newCourse(r, p, facts), nil
}

func newCourse(r fleetapi.Rollout, p Policy, facts map[identity.ID]Fact) *Course {
	c := &Course{r: clone(r), p: p, places: map[identity.ID]place{}}
	for i, w := range c.r.Waves {
		c.facts = append(c.facts, make([]Fact, len(w.Targets)))
		for j, t := range w.Targets {
			c.places[t.Box] = place{i, j}
			c.facts[i][j] = facts[t.Box]
		}
	}
	return c
}

// Rollout is how it stands. The caller must not change it.
func (c *Course) Rollout() fleetapi.Rollout { return c.r }

// Policy is what the course follows.
func (c *Course) Policy() Policy { return c.p }

// Has reports whether a box is a target.
func (c *Course) Has(id identity.ID) bool { _, ok := c.places[id]; return ok }

// Fact is what the course knows of a target.
func (c *Course) Fact(id identity.ID) Fact {
	at, ok := c.places[id]
	if !ok {
		return Fact{}
	}
	return c.facts[at.wave][at.at]
}

// Observe returns the input of a fact, or false when it is nothing new.
func (c *Course) Observe(id identity.ID, f Fact) (Input, bool) {
	at, ok := c.places[id]
	if !ok {
		return Input{}, false
	}
	was := c.facts[at.wave][at.at]
	if f.Was == nil {
		f.Was = was.Was
	}
	if reflect.DeepEqual(was, f) {
		return Input{}, false
	}
	return Input{Box: id, Fact: &f}, true
}

// Held is why the whole fleet is locked, as the course knows it.
func (c *Course) Held() string { return c.hold }

// Changed is what the last Step changed: places of targets as wave and index,
// and whether the rollout or a wave itself did.
func (c *Course) Changed(each func(wave, at int, t fleetapi.Target, f Fact)) (header bool) {
	for at := range c.touched {
		each(at.wave, at.at, c.r.Waves[at.wave].Targets[at.at], c.facts[at.wave][at.at])
	}
	return c.lead
}

// Step takes inputs, decides what follows from them and from the time, and
// returns both. Actions are repeated until facts show that they were done.
func (c *Course) Step(in []Input, now time.Time) (Record, []Action) {
	c.rec, c.touched, c.lead, c.tests = Record{At: now, Inputs: in}, map[place]bool{}, false, nil
	acted := false
	for _, i := range in {
		acted = c.take(i, now) || acted
	}
	var actions []Action
	// What people do is stored when they do it; what follows is another step.
	switch {
	case acted:
	case c.r.State == fleetapi.RolloutRunning:
		actions = c.advance(now)
	case c.r.Ended != nil && Listens(c.r.State, *c.r.Ended, now):
		c.listen(now)
	}
	return c.rec, actions
}

// take reports whether the input was an act.
func (c *Course) take(i Input, now time.Time) bool {
	switch {
	case i.Act != nil:
		next, err := i.Act.On(c.r, now)
		if err == nil {
			c.rec.Decisions = append(c.rec.Decisions, Diff(c.r, next)...)
			c.r, c.lead = next, true
		}
		return true
	case i.Join != nil:
		c.join(*i.Join)
	case i.Hold != nil:
		c.hold = *i.Hold
	case i.Fact != nil:
		at, ok := c.places[i.Box]
		if !ok {
			return false
		}
		c.noteRestart(at, *i.Fact)
		c.facts[at.wave][at.at] = *i.Fact
		c.touched[at] = true
	}
	return false
}

// noteRestart counts a version that served and stopped to.
func (c *Course) noteRestart(at place, f Fact) {
	was := c.facts[at.wave][at.at]
	t := &c.r.Waves[at.wave].Targets[at.at]
	if t.Offered != nil && was.Running == c.r.Target.Digest && f.Running.IsZero() && f.Phase != phaseRolledBack && f.Phase != phaseFailed {
		t.Restarts++
	}
}

// join takes a box that was enrolled after the plan into the tail.
func (c *Course) join(t fleetapi.Target) {
	if c.Has(t.Box) {
		return
	}
	last := len(c.r.Waves) - 1
	if last < 0 || !c.r.Waves[last].Tail {
		c.r.Waves = append(c.r.Waves, fleetapi.Wave{State: fleetapi.WaveWaiting, Tail: true})
		c.facts = append(c.facts, nil)
		last++
	}
	w := &c.r.Waves[last]
	at := place{last, len(w.Targets)}
	t.State, t.Joined = fleetapi.TargetScheduled, true
	w.Targets = append(w.Targets, t)
	c.facts[last] = append(c.facts[last], Fact{})
	c.places[t.Box] = at
	c.touched[at], c.lead = true, true
	if w.State == fleetapi.WavePassed || w.State == fleetapi.WaveSkipped {
		c.setWave(last, fleetapi.WaveRunning, phrase.Phrase{})
	}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// clone copies what a Course may change, so that the argument stays as it was.
func clone(r fleetapi.Rollout) fleetapi.Rollout {
	waves := make([]fleetapi.Wave, len(r.Waves))
	for i, w := range r.Waves {
		waves[i] = w
		waves[i].Targets = append([]fleetapi.Target(nil), w.Targets...)
	}
	r.Waves = waves
	return r
}

// Diff tells what differs between two states of a rollout as decisions.
func Diff(was, is fleetapi.Rollout) []Decision {
	var out []Decision
	for i, w := range is.Waves {
		if i >= len(was.Waves) {
			break
		}
		if before := was.Waves[i]; before.State != w.State {
			out = append(out, Decision{Wave: i + 1, From: string(before.State), To: string(w.State), Why: w.Reason})
		}
		for j, t := range w.Targets {
			if before := was.Waves[i].Targets[j]; before.State != t.State {
				out = append(out, Decision{Wave: i + 1, Box: t.Box, From: string(before.State), To: string(t.State), Why: t.Err})
			}
		}
	}
	if was.State != is.State {
		out = append(out, Decision{From: string(was.State), To: string(is.State), Why: is.Sentence})
	}
	return out
}
