package rollout

import (
	"strconv"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// The choices of a person about a box that follows what a restored controller
// has never signed.
const (
	// Adopt keeps what the box runs: it is what the box shall run from now on.
	Adopt = "adopt"
	// Reimpose tells the box once more what this controller wishes.
	Reimpose = "reimpose"
)

// adopted begins what stands in place of a rollout where a person kept what a
// box runs; the time follows, in Unix ms.
const adopted = "adopted-"

// AdoptedAt is when a person kept what a box runs, if it is by that that the
// box runs it.
func AdoptedAt(by string) (time.Time, bool) {
	text, ok := strings.CutPrefix(by, adopted)
	ms, err := strconv.ParseInt(text, 10, 64)
	return time.UnixMilli(ms), ok && err == nil
}

// Ran is what a box says it serves.
type Ran struct {
	Models []wire.RunningModel
	Agent  wire.DesiredAgent
}

// Settle makes d what a box shall run after a person has chosen. A model that
// the box serves no version of is left as it was.
func Settle(choice string, d *wire.Desired, ran Ran, now time.Time) {
	if choice != Adopt {
		return
	}
	by := adopted + strconv.FormatInt(now.UnixMilli(), 10)
	for _, r := range ran.Models {
		digest, err := blob.ParseDigest(r.Digest)
		if err != nil {
			continue
		}
		keep := wire.DesiredModel{Name: r.Name, Version: r.Version, Digest: digest, Rollout: by, Attempt: 1}
		found := false
		for i, m := range d.Models {
			if m.Name != r.Name {
				continue
			}
			found = true
			if keep.Attempt = m.Attempt; m.Digest != digest {
				d.Models[i] = keep
			}
		}
		if !found {
			d.Models = append(d.Models, keep)
		}
	}
	if agent := ran.Agent; d.Agent != nil && !agent.Digest.IsZero() && d.Agent.Digest != agent.Digest {
		agent.Rollout = by
		d.Agent = &agent
	}
}
