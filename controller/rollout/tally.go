package rollout

import (
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/phrase"
)

// counts keeps attempted, failed and unreachable apart: a box that was not
// heard from is neither a success nor a failure.
type counts struct {
	held                                                                              int // of unreachable: by their disks
	scheduled, offered, working, succeeded, failed, unreachable, superseded, canceled int
}

// open boxes may still end by themselves.
func (n counts) open() int { return n.scheduled + n.offered + n.working }

// ended boxes tried the version to the end.
func (n counts) ended() int { return n.succeeded + n.failed }

func (n *counts) add(t *fleetapi.Target) {
	switch t.State {
	case fleetapi.TargetSucceeded:
		n.succeeded++
	case fleetapi.TargetFailed:
		n.failed++
	case fleetapi.TargetUnreachable:
		n.unreachable++
		if heldUp(t) {
			n.held++
		}
	case fleetapi.TargetSuperseded:
		n.superseded++
	case fleetapi.TargetCanceled:
		n.canceled++
	case fleetapi.TargetOffered:
		n.offered++
	case fleetapi.TargetWorking:
		n.working++
	default:
		n.scheduled++
	}
}

func tally(w *fleetapi.Wave) counts {
	var n counts
	for i := range w.Targets {
		n.add(&w.Targets[i])
	}
	return n
}

func total(r fleetapi.Rollout) counts {
	var n counts
	for i := range r.Waves {
		for j := range r.Waves[i].Targets {
			n.add(&r.Waves[i].Targets[j])
		}
	}
	return n
}

func (n counts) words() phrase.Phrase {
	p := phrase.Of("n-succeeded", "%d boxes succeeded", n.succeeded)
	if n.succeeded == 1 {
		p.Text = "1 box succeeded"
	}
	for _, more := range []struct {
		n int
		p phrase.Phrase
	}{
		{n.failed, phrase.Of("n-failed", "%d failed", n.failed)},
		{n.unreachable - n.held, phrase.Of("n-unreachable", "%d not heard from", n.unreachable-n.held)},
		{n.held, phrase.Of("n-held-up", "%d held up by their disks", n.held)},
		{n.superseded, phrase.Of("n-superseded", "%d taken over by a newer rollout", n.superseded)},
		{n.canceled, phrase.Of("n-canceled", "%d canceled", n.canceled)},
		{n.open(), phrase.Of("n-open", "%d in work", n.open())},
	} {
		if more.n > 0 {
			p = phrase.Of("listed", "%s, %s", p, more.p)
		}
	}
	return p
}

func boxes(n int) phrase.Phrase {
	p := phrase.Of("n-boxes", "%d boxes", n)
	if n == 1 {
		p.Text = "1 box"
	}
	return p
}

// then puts a sentence behind another one.
func then(s, next phrase.Phrase) phrase.Phrase { return phrase.Of("then", "%s %s", s, next) }
