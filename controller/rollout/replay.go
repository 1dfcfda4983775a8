package rollout

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// Replay says what another policy would have done with a rollout: plan is the
// rollout as it was planned, records are all its steps. What a box reported
// after it was offered the version it reports again as long after the other
// policy would have offered it; a box that was never offered it does as the
// box with the most traits in common did.
func Replay(plan fleetapi.Rollout, records []Record, other Policy) (fleetapi.Replay, error) {
	own, err := PolicyOf(plan.Request)
	if err != nil {
		return fleetapi.Replay{}, err
	}
	out := fleetapi.Replay{Rollout: plan.ID, Steps: []string{}}
	was, faithful := again(plan, own, records)
	out.Faithful, out.Was = faithful, outcome(was)
	s := newSimulation(plan, records, other)
	if s.start.IsZero() {
		return out, fmt.Errorf("rollout %s was never started: there is nothing to replay", plan.ID)
	}
	out.Guessed = s.guessed
	would := s.run()
	out.Would, out.Steps = outcome(would), append(out.Steps, s.steps...)
	return out, nil
}

// again takes the stored inputs and says whether the stored decisions follow.
func again(plan fleetapi.Rollout, p Policy, records []Record) (fleetapi.Rollout, bool) {
	c := newCourse(plan, p, nil)
	faithful := true
	for _, rec := range records {
		got, _ := c.Step(rec.Inputs, rec.At)
		faithful = faithful && sameDecisions(got.Decisions, rec.Decisions)
	}
	return c.r, faithful
}

func sameDecisions(a, b []Decision) bool {
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && (len(a)+len(b) == 0 || bytes.Equal(x, y))
}

func outcome(r fleetapi.Rollout) fleetapi.ReplayOutcome {
	o := fleetapi.ReplayOutcome{State: r.State, Sentence: r.Sentence}
	last := time.Time{}
	for i := range r.Waves {
		for j := range r.Waves[i].Targets {
			t := &r.Waves[i].Targets[j]
			if t.Offered != nil {
				o.Exposed++
			}
			if bad, _ := tried(t); bad {
				o.Bad++
			}
			if t.Changed != nil && t.Changed.After(last) {
				last = *t.Changed
			}
		}
	}
	if r.Ended != nil {
		last = *r.Ended
	}
	if r.Started != nil && last.After(*r.Started) {
		o.Seconds = last.Sub(*r.Started).Seconds()
	}
	return o
}

// report is a fact some time after the offer, or after the start.
type report struct {
	after time.Duration
	fact  Fact
}

// life is all that is known of a box: before the offer by the calendar, after
// it by the time since.
type life struct {
	before, after []report
	offered       bool
	traits        []trait
}

type simulation struct {
	c       *Course
	start   time.Time
	end     time.Time // of the records
	lives   map[identity.ID]life
	guessed int
	queue   []queued
	steps   []string
}

type queued struct {
	at   time.Time
	box  identity.ID
	fact Fact
}

func newSimulation(plan fleetapi.Rollout, records []Record, p Policy) *simulation {
	s := &simulation{lives: map[identity.ID]life{}}
	s.c = newCourse(recut(plan, p), p, nil)
	offered := map[identity.ID]time.Time{}
	for _, rec := range records {
		s.end = rec.At
		for _, in := range rec.Inputs {
			if in.Act != nil && in.Act.Action == ActStart && s.start.IsZero() {
				s.start = rec.At
			}
			if in.Fact == nil || !s.c.Has(in.Box) {
				continue
			}
			l := s.lives[in.Box]
			if at, ok := offered[in.Box]; ok {
				l.after = append(l.after, report{rec.At.Sub(at), *in.Fact})
			} else {
				l.before = append(l.before, report{rec.At.Sub(s.start), *in.Fact})
			}
			s.lives[in.Box] = l
		}
		for _, d := range rec.Decisions {
			if d.To == string(fleetapi.TargetOffered) && d.From == string(fleetapi.TargetScheduled) {
				offered[d.Box] = rec.At
			}
		}
	}
	s.lend(offered)
	return s
}

// lend gives boxes that were never offered the version the course of another.
func (s *simulation) lend(offered map[identity.ID]time.Time) {
	var donors []identity.ID
	for id, at := range s.c.places {
		l := s.lives[id]
		_, l.offered = offered[id]
		l.traits = traitsOf(&s.c.r.Waves[at.wave].Targets[at.at])
		s.lives[id] = l
		if l.offered && len(l.after) > 0 {
			donors = append(donors, id)
		}
	}
	slices.Sort(donors)
	if len(donors) > 200 { // the most alike of so many is like enough
		step := len(donors) / 200
		for i := range 200 {
			donors[i] = donors[i*step]
		}
		donors = donors[:200]
	}
	for id, l := range s.lives {
		if l.offered || len(donors) == 0 {
			continue
		}
		s.guessed++
		best, top := donors[0], -1
		for _, d := range donors {
			n := 0
			for _, k := range s.lives[d].traits {
				if slices.Contains(l.traits, k) {
					n++
				}
			}
			if n > top {
				best, top = d, n
			}
		}
		l.after = s.lives[best].after
		s.lives[id] = l
	}
}

// recut puts the boxes of a plan, in their order, into the waves of a policy.
func recut(plan fleetapi.Rollout, p Policy) fleetapi.Rollout {
	r := clone(plan)
	r.State = fleetapi.RolloutDraft
	var order []fleetapi.Target
	var tail *fleetapi.Wave
	for i, w := range r.Waves {
		if w.Tail {
			tail = &r.Waves[i]
			continue
		}
		order = append(order, w.Targets...)
	}
	sizes, err := waveSizes(p.Waves, len(order))
	if err != nil { // a policy is checked when it is read
		panic("rollout: a policy with bad waves: " + err.Error())
	}
	waves := make([]fleetapi.Wave, 0, len(sizes)+1)
	for _, n := range sizes {
		waves = append(waves, fleetapi.Wave{State: fleetapi.WaveWaiting, Targets: order[:n:n]})
		order = order[n:]
	}
	if tail != nil {
		waves = append(waves, *tail)
	}
	r.Waves = waves
	return r
}

// maxSteps bounds a replay in which nothing more happens.
const maxSteps = 5000

// run plays the rollout to its end.
func (s *simulation) run() fleetapi.Rollout {
	now := s.start
	for id, l := range s.lives {
		for _, b := range l.before {
			at := s.start.Add(b.after)
			if at.Before(s.start) {
				at = s.start
			}
			s.queue = append(s.queue, queued{at, id, b.fact})
		}
	}
	s.sort()
	s.step([]Input{{Act: &Act{Action: ActStart, By: s.c.r.StartedBy}}}, now)
	pace := max(s.end.Sub(s.start)/1000, 5*time.Second)
	if soak := time.Duration(s.c.p.Soak); soak > 0 {
		pace = min(pace, max(soak/4, time.Second))
	}
	for range maxSteps {
		if s.c.r.State != fleetapi.RolloutRunning {
			break
		}
		s.approve(now)
		var in []Input
		n := 0
		for ; n < len(s.queue) && !s.queue[n].at.After(now); n++ {
			q := s.queue[n]
			// The facts of another time name what was desired then.
			q.fact.DesiredRollout, q.fact.Newer = s.c.Fact(q.box).DesiredRollout, false
			in = append(in, Input{Box: q.box, Fact: &q.fact})
		}
		s.queue = s.queue[n:]
		s.offer(s.step(in, now), now)
		now = now.Add(pace)
	}
	return s.c.r
}

func (s *simulation) sort() {
	sort.SliceStable(s.queue, func(i, j int) bool {
		if !s.queue[i].at.Equal(s.queue[j].at) {
			return s.queue[i].at.Before(s.queue[j].at)
		}
		return s.queue[i].box < s.queue[j].box
	})
}

// approve stands in for people: a replay does not wait for them.
func (s *simulation) approve(now time.Time) {
	for _, i := range s.c.p.Approve {
		if i <= len(s.c.r.Waves) && len(s.c.r.Waves[i-1].ApprovedBy) == 0 {
			s.c.r.Waves[i-1].ApprovedBy = []string{"replay"}
		}
	}
}

// offer lets a box live on from the moment of its offer.
func (s *simulation) offer(actions []Action, now time.Time) {
	for _, a := range actions {
		f := s.c.Fact(a.Offer)
		if f.DesiredRollout == s.c.r.ID {
			continue
		}
		f.Desired, f.DesiredRollout, f.Phase, f.Err, f.Probe = s.c.r.Target.Digest, s.c.r.ID, "", "", nil
		s.queue = append(s.queue, queued{now, a.Offer, f})
		at := s.c.places[a.Offer]
		s.c.facts[at.wave][at.at] = f
		for _, b := range s.lives[a.Offer].after {
			s.queue = append(s.queue, queued{now.Add(b.after), a.Offer, b.fact})
		}
	}
	if len(actions) > 0 {
		s.sort()
	}
}

func (s *simulation) step(in []Input, now time.Time) []Action {
	rec, actions := s.c.Step(in, now)
	for _, d := range rec.Decisions {
		if d.Box == "" {
			s.steps = append(s.steps, fmt.Sprintf("%s %s", now.UTC().Format(time.RFC3339), d))
		}
	}
	return actions
}

// String tells a decision in one line.
func (d Decision) String() string {
	who := "rollout"
	switch {
	case d.Box != "":
		who = "box " + string(d.Box)
	case d.Wave > 0:
		who = fmt.Sprintf("wave %d", d.Wave)
	}
	s := fmt.Sprintf("%s: %s → %s", who, d.From, d.To)
	if d.Why != "" {
		s += ": " + d.Why
	}
	return s
}
