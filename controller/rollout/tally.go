package rollout

import (
	"fmt"
	"strings"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// counts keeps attempted, failed and unreachable apart: a box that was not
// heard from is neither a success nor a failure.
type counts struct {
	succeeded, failed, unreachable, superseded, canceled, open int
}

func tally(w *fleetapi.Wave) counts {
	var n counts
	for _, t := range w.Targets {
		switch t.State {
		case fleetapi.TargetSucceeded:
			n.succeeded++
		case fleetapi.TargetFailed:
			n.failed++
		case fleetapi.TargetUnreachable:
			n.unreachable++
		case fleetapi.TargetSuperseded:
			n.superseded++
		case fleetapi.TargetCanceled:
			n.canceled++
		default:
			n.open++
		}
	}
	return n
}

func total(r fleetapi.Rollout) counts {
	var sum counts
	for i := range r.Waves {
		n := tally(&r.Waves[i])
		sum.succeeded += n.succeeded
		sum.failed += n.failed
		sum.unreachable += n.unreachable
		sum.superseded += n.superseded
		sum.canceled += n.canceled
		sum.open += n.open
	}
	return sum
}

func (n counts) words() string {
	parts := []string{fmt.Sprintf("%s succeeded", boxes(n.succeeded))}
	for _, p := range []struct {
		n    int
		word string
	}{{n.failed, "failed"}, {n.unreachable, "not heard from"}, {n.superseded, "taken over by a newer rollout"}, {n.canceled, "canceled"}, {n.open, "in work"}} {
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
