package rollout

import (
	"math"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/phrase"
)

// advance decides what follows now. Waves that passed go on being looked at: a
// straggler may still come, and a success may turn out to be none.
func (c *Course) advance(now time.Time) []Action {
	c.moveAll(now)
	b := c.bounds(now)
	var actions []Action
	for i := range c.r.Waves {
		w := &c.r.Waves[i]
		if w.State == fleetapi.WaveSkipped {
			continue
		}
		if w.State == fleetapi.WaveWaiting {
			if !c.begin(i, now) && w.State == fleetapi.WaveSkipped {
				continue
			}
			if w.State == fleetapi.WaveWaiting {
				c.say(phrase.Of("wave-says", "Wave %d of %d %s", i+1, len(c.r.Waves), said(w.Reason, w.ReasonSaid)))
				return actions
			}
			c.moveWave(i, now) // some of its boxes may be a newer rollout's
		}
		actions = append(actions, c.offers(i, b, now)...)
		passed := w.State == fleetapi.WavePassed
		c.judge(i, now)
		switch w.State {
		case fleetapi.WavePassed:
			continue // the next wave may start at once
		case fleetapi.WaveHalted:
			c.halt(i, now)
			return nil
		}
		if passed {
			continue
		}
		c.say(c.running(i, b, now))
		return actions
	}
	if wait := c.stragglers(now); wait.Text != "" {
		c.say(wait)
		return actions
	}
	c.end(fleetapi.RolloutDone, phrase.Of("done", "Done: %s", total(c.r).words()), now)
	return nil
}

// begin starts a wave; false when it waits for somebody or is empty.
func (c *Course) begin(i int, now time.Time) bool {
	w := &c.r.Waves[i]
	if len(w.Targets) == 0 {
		c.setWave(i, fleetapi.WaveSkipped, phrase.Of("wave-empty", "no box in it"))
		return false
	}
	if slices.Contains(c.p.Approve, i+1) && len(w.ApprovedBy) == 0 {
		reason := phrase.Of("wave-asks", "waits for an approval")
		if c.p.FourEyes {
			reason = phrase.Of("wave-asks-other", "waits for an approval by another person than %s", c.r.StartedBy)
		}
		c.setWave(i, fleetapi.WaveWaiting, reason)
		return false
	}
	c.setWave(i, fleetapi.WaveRunning, phrase.Phrase{})
	w.Started = &now
	return true
}

func (c *Course) setWave(i int, s fleetapi.WaveState, reason phrase.Phrase) {
	w := &c.r.Waves[i]
	if w.State == s && w.Reason == reason.Text {
		return
	}
	if w.State != s {
		c.rec.Decisions = append(c.rec.Decisions, Decision{Wave: i + 1, From: string(w.State), To: string(s), Why: reason.Text, Gates: logged(w.Gates)})
	}
	w.State, w.Reason, w.ReasonSaid, c.lead = s, reason.Text, reason.Beside(), true
}

// logged are gates as a log has them: in English, as those of older versions.
func logged(gates []fleetapi.Gate) []fleetapi.Gate {
	out := slices.Clone(gates)
	for i := range out {
		out[i].MeasuredSaid, out[i].AllowedSaid = nil, nil
	}
	return out
}

// said joins a sentence with what stands beside it.
func said(text string, beside *phrase.Phrase) phrase.Phrase {
	if beside == nil {
		return phrase.Plain(text)
	}
	p := *beside
	p.Text = text
	return p
}

// say tells how it stands; saying the same again changes nothing.
func (c *Course) say(sentence phrase.Phrase) {
	if c.r.Sentence != sentence.Text {
		c.r.Sentence, c.r.SentenceSaid, c.lead = sentence.Text, sentence.Beside(), true
	}
}

func (c *Course) running(i int, b *bounds, now time.Time) phrase.Phrase {
	w := &c.r.Waves[i]
	s := phrase.Of("wave-running", "Wave %d of %d running: %s", i+1, len(c.r.Waves), tally(w).words())
	if w.State == fleetapi.WaveSoaking {
		s = phrase.Of("wave-soaking", "Wave %d of %d soaking: %s", i+1, len(c.r.Waves), tally(w).words())
	}
	if n := tally(w); b.held.Text != "" && n.scheduled > 0 {
		return phrase.Of("on-hold", "%s; on hold: %s", s, b.held)
	}
	for _, t := range w.Targets {
		if t.Waits != "" && t.State != fleetapi.TargetCanceled && t.State != fleetapi.TargetSuperseded {
			s = phrase.Of("one-waits", "%s; %s waits: %s", s, t.Name, said(t.Waits, t.WaitsSaid))
			break
		}
	}
	if last := lastChange(w); w.State == fleetapi.WaveRunning && !last.IsZero() && now.Sub(last) >= time.Duration(c.p.Stalled) {
		s = phrase.Of("stalled", "%s; nothing has changed since %s", s, last.UTC().Format("2006-01-02 15:04 UTC"))
	}
	return s
}

func lastChange(w *fleetapi.Wave) time.Time {
	var last time.Time
	for _, t := range w.Targets {
		if t.Changed != nil && t.Changed.After(last) {
			last = *t.Changed
		}
	}
	return last
}

// judge sets the state of a started wave: halt before pass.
func (c *Course) judge(i int, now time.Time) {
	w := &c.r.Waves[i]
	n := tally(w)
	seen := n
	if w.State == fleetapi.WavePassed || c.unripe(w, n) == "" && !c.soakEnds(w, now).After(now) {
		seen.scheduled, seen.offered, seen.working = 0, 0, 0 // coverage does not wait for them: what is known decides
	}
	gates := c.gates(i, seen)
	if !reflect.DeepEqual(gates, w.Gates) {
		w.Gates, c.lead = gates, true
	}
	if why := c.breach(i, seen); why.Text != "" {
		w.Ended = &now
		c.setWave(i, fleetapi.WaveHalted, c.remedy(w, why))
		return
	}
	if w.State == fleetapi.WavePassed {
		return
	}
	if why := c.unripe(w, n); why != "" {
		w.SoakEnds = nil
		c.setWave(i, fleetapi.WaveRunning, phrase.Phrase{})
		return
	}
	if n.succeeded == 0 && n.superseded+n.canceled < len(w.Targets) {
		w.Ended = &now
		c.setWave(i, fleetapi.WaveHalted, phrase.Of("wave-none-took", "no box of the wave took the version: %s", n.words()))
		return
	}
	if ends := c.soakEnds(w, now); ends.After(now) {
		if w.SoakEnds == nil || !w.SoakEnds.Equal(ends) {
			w.SoakEnds, c.lead = &ends, true
		}
		c.setWave(i, fleetapi.WaveSoaking, n.words())
		return
	}
	w.Ended, w.SoakEnds = &now, nil
	c.setWave(i, fleetapi.WavePassed, n.words())
}

// soakEnds is when the wave has been good for long enough. Where coverage lets
// it pass with boxes at work, their changes do not begin the soak anew.
func (c *Course) soakEnds(w *fleetapi.Wave, now time.Time) time.Time {
	if c.p.Soak == 0 {
		return now
	}
	if c.p.Coverage > 0 {
		if w.SoakEnds != nil {
			return *w.SoakEnds
		}
		return now.Add(time.Duration(c.p.Soak))
	}
	return lastChange(w).Add(time.Duration(c.p.Soak))
}

// unripe says why a wave cannot pass yet.
func (c *Course) unripe(w *fleetapi.Wave, n counts) string {
	members := len(w.Targets) - n.superseded - n.canceled
	if g := c.p.Gates.MaxUnreachable; g > 0 && float64(n.unreachable) > float64(g)*float64(members) {
		return "too many boxes are not heard from"
	}
	if c.p.Coverage == 0 {
		if n.open() > 0 {
			return "boxes are in work"
		}
		return ""
	}
	if need := int(math.Ceil(float64(c.p.Coverage) * float64(members))); n.ended() < need {
		return "too few boxes were attempted"
	}
	return ""
}

// stragglers says what the rollout still waits for after its last wave.
func (c *Course) stragglers(now time.Time) phrase.Phrase {
	if c.p.Stragglers == 0 {
		return phrase.Phrase{}
	}
	n := total(c.r)
	var passed time.Time
	for _, w := range c.r.Waves {
		if w.Ended != nil && w.Ended.After(passed) {
			passed = *w.Ended
		}
	}
	ends := passed.Add(time.Duration(c.p.Stragglers))
	if n.open()+n.unreachable == 0 && !c.p.LateJoiners || !now.Before(ends) {
		return phrase.Phrase{}
	}
	return phrase.Of("stragglers", "Every wave passed; waiting for stragglers until %s: %s", ends.UTC().Format("2006-01-02 15:04 UTC"), n.words())
}

// halt ends the rollout at a wave that must not pass, and says who is affected.
func (c *Course) halt(i int, now time.Time) {
	w, affected := &c.r.Waves[i], c.affected()
	c.r.Affected, c.r.AffectedSaid = affected.Text, affected.Beside()
	c.end(fleetapi.RolloutHalted, phrase.Of("halted", "Halted in wave %d of %d: %s", i+1, len(c.r.Waves), said(w.Reason, w.ReasonSaid)), now)
}

// aftermath is how long a halted rollout goes on listening: boxes that were at
// work at the halt tell how it ended, and with that who else is affected.
const aftermath = time.Hour

// Listens says whether a rollout in state s, which ended then, is still to be
// told what its boxes do.
func Listens(s fleetapi.RolloutState, ended, now time.Time) bool {
	return s == fleetapi.RolloutRunning || s == fleetapi.RolloutHalted && now.Before(ended.Add(aftermath))
}

// listen takes what boxes report after a halt. Nothing is offered any more.
func (c *Course) listen(now time.Time) {
	c.moveAll(now)
	if s := c.affected(); s.Text != c.r.Affected && len(c.touched) > 0 { // not for what people did
		c.r.Affected, c.r.AffectedSaid, c.lead = s.Text, s.Beside(), true
	}
}

func (c *Course) end(s fleetapi.RolloutState, sentence phrase.Phrase, now time.Time) {
	c.rec.Decisions = append(c.rec.Decisions, Decision{From: string(c.r.State), To: string(s), Why: sentence.Text})
	c.r.State, c.r.Ended, c.r.Sentence, c.r.SentenceSaid, c.lead = s, &now, sentence.Text, sentence.Beside(), true
}

// remedy adds the way out of failures that no other version and no visit mends: all
// that a box fetched, from whom ever, was not what was signed, so that what the
// controller keeps is damaged.
func (c *Course) remedy(w *fleetapi.Wave, why phrase.Phrase) phrase.Phrase {
	for _, t := range w.Targets {
		if c.r.Kind == fleetapi.KindModel && t.State == fleetapi.TargetFailed && strings.Contains(t.Err, blob.ErrMismatch.Error()) {
			return phrase.Of("verify-copy", "%s. Look whether the controller's copy is whole: %s", why, "edgeherd model verify "+c.r.Target.String())
		}
	}
	return why
}

func firstError(w *fleetapi.Wave) phrase.Phrase {
	for _, t := range w.Targets {
		if t.State == fleetapi.TargetFailed && t.Err == "" {
			return phrase.Plain(t.Name + ":")
		}
		if t.State == fleetapi.TargetFailed {
			return phrase.Of("one-says", "%s: %s", t.Name, said(strings.TrimSpace(t.Err), t.ErrSaid))
		}
	}
	return phrase.Phrase{}
}
