package rollout

import (
	"slices"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/phrase"
	"github.com/edgeherd/edgeherd/models"
)

// setTarget changes the state of a target and remembers that it did.
func (c *Course) setTarget(at place, s fleetapi.TargetState, why phrase.Phrase, now time.Time) {
	t := &c.r.Waves[at.wave].Targets[at.at]
	if t.State == s && t.Err == why.Text {
		return
	}
	if t.State != s {
		c.rec.Decisions = append(c.rec.Decisions, Decision{Wave: at.wave + 1, Box: t.Box, From: string(t.State), To: string(s), Why: why.Text})
		t.Changed = &now
		if s == fleetapi.TargetSucceeded || s == fleetapi.TargetFailed {
			t.Waits, t.WaitsSaid = "", nil // a wave that has ended asks for no reasons any more
		}
	}
	t.State, t.Err, t.ErrSaid = s, why.Text, why.Beside()
	c.touched[at] = true
}

// moveTarget moves one target by its fact.
func (c *Course) moveTarget(at place, now time.Time) {
	t, f := &c.r.Waves[at.wave].Targets[at.at], c.facts[at.wave][at.at]
	set := func(s fleetapi.TargetState, why phrase.Phrase) { c.setTarget(at, s, why, now) }
	none := phrase.Phrase{}
	digest := c.r.Target.Digest
	switch {
	case t.State == fleetapi.TargetSuperseded || t.State == fleetapi.TargetCanceled:
		return
	case f.Gone != "" && t.State != fleetapi.TargetSucceeded && t.State != fleetapi.TargetFailed:
		set(fleetapi.TargetCanceled, BoxSays("the box was "+f.Gone+" meanwhile"))
	case f.Newer:
		set(fleetapi.TargetSuperseded, none)
	case f.Restore == RestoreAhead:
		return // nobody knows for whom it does what it does; offers tells why it waits
	case t.State == fleetapi.TargetScheduled, f.DesiredRollout != c.r.ID:
		return // the offer has not been carried out yet
	case f.Disk && ended(f.Phase):
		if has, ok := strings.CutPrefix(t.Err, heldUpBy); !ok || has != f.Err {
			set(fleetapi.TargetUnreachable, phrase.Of("held-up", heldUpBy+"%s", BoxSays(f.Err)))
		}
	case ended(f.Phase):
		set(fleetapi.TargetFailed, heard(f.Err, t.Err, t.ErrSaid))
	// In another phase the disk of the box has spoiled the version, which comes again.
	case t.State == fleetapi.TargetSucceeded && f.Phase == phaseActive && !f.Running.IsZero() && f.Running != digest:
		set(fleetapi.TargetFailed, phrase.Of("runs-another", "the box runs another version again"))
	case f.Running == digest && f.Phase == phaseActive:
		set(fleetapi.TargetSucceeded, none)
	case t.State == fleetapi.TargetSucceeded: // a runner that is starting reports nothing
	case f.Phase != "" && f.Phase != t.Phase:
		set(fleetapi.TargetWorking, none)
	case f.Disk && c.overdue(t, f, now):
		set(fleetapi.TargetUnreachable, phrase.Of("held-up-overdue", heldUpBy+"no result within %s; it says: %s", time.Duration(c.p.Deadline), BoxSays(f.Err)))
	case c.overdue(t, f, now):
		why := phrase.Of("overdue", "no result within %s, though the box is there", time.Duration(c.p.Deadline))
		if f.Err != "" {
			why = phrase.Of("overdue-says", "no result within %s, though the box is there; it says: %s", time.Duration(c.p.Deadline), BoxSays(f.Err))
		}
		set(fleetapi.TargetFailed, why)
	case c.unreachable(t, f, now):
		set(fleetapi.TargetUnreachable, none)
	}
	c.measure(at, f)
}

// heldUpBy begins why a box counts like one that is not heard from though it is: its
// disk is full or fails, which is no evidence for or against the version.
const heldUpBy = "held up by its disk: "

func heldUp(t *fleetapi.Target) bool { return strings.HasPrefix(t.Err, heldUpBy) }

// ended says whether a phase ends the work without the version.
func ended(phase string) bool {
	return phase == phaseFailed || phase == phaseRefused || phase == phaseRolledBack
}

// measure takes what the box measured.
func (c *Course) measure(at place, f Fact) {
	t := &c.r.Waves[at.wave].Targets[at.at]
	if t.Phase != f.Phase {
		t.Phase, c.touched[at] = f.Phase, true
	}
	if f.Probe != nil {
		t.Probe = f.Probe
	}
	if bad := c.limits(t, f); !slices.Equal(bad, t.Bad) {
		t.Bad, c.touched[at] = bad, true
	}
}

func (c *Course) open(t *fleetapi.Target) bool {
	return t.State == fleetapi.TargetOffered || t.State == fleetapi.TargetWorking
}

func (c *Course) unreachable(t *fleetapi.Target, f Fact, now time.Time) bool {
	return c.open(t) && t.Changed != nil && f.Link != fleetapi.LinkLive && now.Sub(*t.Changed) >= time.Duration(c.p.UnreachableAfter)
}

func (c *Course) overdue(t *fleetapi.Target, f Fact, now time.Time) bool {
	return c.open(t) && t.Changed != nil && f.Link == fleetapi.LinkLive && now.Sub(*t.Changed) >= time.Duration(c.p.Deadline)
}

// offer tells a target for the first time.
func (c *Course) offer(at place, now time.Time) {
	t, f := &c.r.Waves[at.wave].Targets[at.at], c.facts[at.wave][at.at]
	c.setTarget(at, fleetapi.TargetOffered, phrase.Phrase{}, now)
	t.Offered, t.Waits, t.WaitsSaid = &now, "", nil
	if !f.Running.IsZero() && f.Running != c.r.Target.Digest {
		t.Before = models.Ref{Name: c.r.Target.Name, Version: f.Version, Digest: f.Running}
	}
	t.Base = f.Heat
}

// moveAll moves the targets of all waves that have begun, before anything is
// decided: a box that is up again makes room for another.
func (c *Course) moveAll(now time.Time) {
	for i := range c.r.Waves {
		if s := c.r.Waves[i].State; s == fleetapi.WaveWaiting || s == fleetapi.WaveSkipped {
			continue
		}
		c.moveWave(i, now)
	}
}

func (c *Course) moveWave(i int, now time.Time) {
	for j := range c.r.Waves[i].Targets {
		c.moveTarget(place{i, j}, now)
	}
}

func (c *Course) setWaits(at place, why phrase.Phrase) {
	if t := &c.r.Waves[at.wave].Targets[at.at]; t.Waits != why.Text {
		t.Waits, t.WaitsSaid, c.touched[at] = why.Text, why.Beside(), true
	}
}

// waits says why an open target stands still: by what the controller knows, else
// by what the box says of its download, such as that the disk is full.
func (c *Course) waits(t *fleetapi.Target, f Fact) phrase.Phrase {
	if f.Restore != "" {
		return restoreWords(f.Restore)
	}
	if c.open(t) && f.DesiredRollout == c.r.ID && f.Phase == phaseFetching {
		return heard(f.Err, t.Waits, t.WaitsSaid)
	}
	return phrase.Phrase{}
}

// heard is BoxSays of a text, which is not read again where it stands already: each
// look comes by thousands of boxes that say what they said before.
func heard(text, has string, beside *phrase.Phrase) phrase.Phrase {
	if text == has {
		return said(has, beside)
	}
	return BoxSays(text)
}

// restoreWords says why a box is told nothing by a controller that came back
// from a backup.
func restoreWords(restore string) phrase.Phrase {
	switch restore {
	case RestoreAwaits:
		return phrase.Of("restore-awaits", "not heard from since the controller came back from a backup")
	case RestoreAhead:
		return phrase.Of("restore-ahead", "it follows what this controller has never signed; %s", "edgeherd rollout conflicts")
	}
	return phrase.Phrase{}
}

// offers tells the targets of a started wave whose time has come.
func (c *Course) offers(wave int, b *bounds, now time.Time) []Action {
	var actions []Action
	w := &c.r.Waves[wave]
	for i := range w.Targets {
		at := place{wave, i}
		t, f := &w.Targets[i], c.facts[wave][i]
		if t.State == fleetapi.TargetScheduled {
			waits, full := b.refuse(t, f)
			if waits.Text != t.Waits && b.noted < maxNoted {
				c.setWaits(at, waits)
				b.noted++
			}
			if waits.Text != "" || full {
				continue
			}
			if why := b.skip(t, f); why.Text != "" {
				if b.noted < maxNoted {
					c.setTarget(at, fleetapi.TargetCanceled, why, now)
					b.noted++
				}
				continue
			}
			c.offer(at, now)
			b.take(t, f)
		} else if f.Restore == RestoreAhead || c.open(t) || t.State == fleetapi.TargetUnreachable || t.Waits != "" {
			c.setWaits(at, c.waits(t, f))
		}
		waiting := t.State == fleetapi.TargetOffered || t.State == fleetapi.TargetUnreachable
		if waiting && f.DesiredRollout != c.r.ID && f.Restore == "" {
			actions = append(actions, Action{Offer: t.Box})
		}
	}
	return actions
}
