package rollout

import (
	"fmt"
	"strings"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
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

func (n counts) words() string {
	parts := []string{fmt.Sprintf("%s succeeded", boxes(n.succeeded))}
	for _, p := range []struct {
		n    int
		word string
	}{{n.failed, "failed"}, {n.unreachable - n.held, "not heard from"}, {n.held, "held up by their disks"}, {n.superseded, "taken over by a newer rollout"}, {n.canceled, "canceled"}, {n.open(), "in work"}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.word))
		}
	}
	return strings.Join(parts, ", ")
}

func boxes(n int) string {
	if n == 1 {
		return "1 box"
	}
	return fmt.Sprintf("%d boxes", n)
}
