package rollout

import (
	"errors"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/models"
)

// Defaults of a plan request.
const (
	defaultUnreachableSeconds = 600
	maxWaves                  = 100
)

// ErrNoTargets says that the filter matches no box.
var ErrNoTargets = errors.New("no box matches the filter")

// Plan fixes the waves of a rollout of target over boxes. The first wave takes
// live boxes, one after the other from different sites, so that one bad site
// or one dead uplink cannot decide it.
func Plan(id string, req fleetapi.PlanRequest, target models.Ref, boxes []fleetapi.Box, now time.Time) (fleetapi.Rollout, error) {
	if len(boxes) == 0 {
		return fleetapi.Rollout{}, ErrNoTargets
	}
	if len(req.Waves) == 0 {
		req.Waves = []string{"1", "rest"}
	}
	if req.UnreachableAfterSeconds == 0 {
		req.UnreachableAfterSeconds = defaultUnreachableSeconds
	}
	if req.SoakSeconds < 0 || req.MaxFailed < 0 || req.UnreachableAfterSeconds < 0 {
		return fleetapi.Rollout{}, errors.New("soak, failures allowed and unreachable time must not be negative")
	}
	sizes, err := waveSizes(req.Waves, len(boxes))
	if err != nil {
		return fleetapi.Rollout{}, err
	}
	r := fleetapi.Rollout{ID: id, State: fleetapi.RolloutDraft, Request: req, Target: target, Created: now, Warnings: []string{}}
	order := spread(boxes)
	for _, n := range sizes {
		w := fleetapi.Wave{State: fleetapi.WaveWaiting, Targets: []fleetapi.Target{}}
		for _, b := range order[:n] {
			w.Targets = append(w.Targets, fleetapi.Target{Box: b.ID, Name: b.Name, Site: b.Site, State: fleetapi.TargetScheduled})
		}
		order = order[n:]
		r.Waves = append(r.Waves, w)
	}
	if len(order) > 0 {
		r.Warnings = append(r.Warnings, fmt.Sprintf("%d of %d matching boxes are in no wave; add a wave \"rest\"", len(order), len(boxes)))
	}
	if silent := countSilent(boxes); silent > 0 {
		r.Warnings = append(r.Warnings, fmt.Sprintf("%d of %d boxes are silent now; they get the version when they are back", silent, len(boxes)))
	}
	r.Sentence = fmt.Sprintf("Planned: %s to %d boxes in %d waves", target, len(boxes)-len(order), len(r.Waves))
	return r, nil
}

// waveSizes turns "1", "25%" and "rest" into numbers of boxes. Percentages are
// of all boxes, rounded up, and never take more than is left.
func waveSizes(words []string, n int) ([]int, error) {
	if len(words) > maxWaves {
		return nil, fmt.Errorf("%d waves; at most %d", len(words), maxWaves)
	}
	var sizes []int
	left := n
	for _, word := range words {
		var size int
		switch pct, isPct := strings.CutSuffix(word, "%"); {
		case word == "rest":
			size = left
		case isPct:
			p, err := strconv.ParseFloat(pct, 64)
			if err != nil || !(p > 0 && p <= 100) {
				return nil, fmt.Errorf("wave %q: want a percentage above 0 and up to 100", word)
			}
			size = int((p*float64(n) + 99.999999) / 100)
		default:
			k, err := strconv.Atoi(word)
			if err != nil || k < 1 {
				return nil, fmt.Errorf("wave %q: want a number of boxes, a percentage such as 25%%, or rest", word)
			}
			size = k
		}
		size = min(size, left)
		left -= size
		sizes = append(sizes, size)
	}
	return sizes, nil
}

// spread orders boxes: live ones first, then in turn from every site.
func spread(boxes []fleetapi.Box) []fleetapi.Box {
	out := append([]fleetapi.Box(nil), boxes...)
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	turn := map[string]int{}
	rank := map[identity.ID]int{}
	for _, live := range []bool{true, false} {
		for _, b := range out {
			if (b.Link == fleetapi.LinkLive) == live {
				rank[b.ID] = turn[b.Site]
				turn[b.Site]++
			}
		}
	}
	sort.SliceStable(out, func(i, j int) bool {
		a, b := out[i], out[j]
		if la, lb := a.Link == fleetapi.LinkLive, b.Link == fleetapi.LinkLive; la != lb {
			return la
		}
		return rank[a.ID] < rank[b.ID]
	})
	return out
}

func countSilent(boxes []fleetapi.Box) int {
	n := 0
	for _, b := range boxes {
		if b.Link != fleetapi.LinkLive {
			n++
		}
	}
	return n
}
