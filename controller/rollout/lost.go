package rollout

import (
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/phrase"
)

// lost tests whether more boxes fall silent while they try the version than
// would go wrong anyway. A box that loses its power is censored, as all that are
// not heard from: it goes on when it is back. A version that takes the power
// down, or the box, must not profit from that.
func (c *Course) lost(e Evidence) fleetapi.Gate {
	all, groups := c.silent()
	return e.test(gateLost, all, groups)
}

// silent counts the boxes that tried the version, and as bad those that fell
// silent over it. A site is no trait of theirs: that is its line or its power.
// Where no box is silent no group is counted: that is most steps of a large fleet.
func (c *Course) silent() (all sample, groups map[trait]sample) {
	groups = map[trait]sample{}
	var out map[string]bool
	n := total(c.r)
	heard := n.unreachable == n.held
	if !heard {
		out = c.sitesOut()
	}
	for i := range c.r.Waves {
		for j := range c.r.Waves[i].Targets {
			t := &c.r.Waves[i].Targets[j]
			_, ended := tried(t)
			gone := t.State == fleetapi.TargetUnreachable && !heldUp(t) && t.Phase != "" && t.Phase != phaseFetching && !out[t.Site]
			if !ended && !gone {
				continue
			}
			all.count(gone)
			if heard {
				continue
			}
			for _, k := range traitsOf(t) {
				if k.kind != "site" {
					s := groups[k]
					s.count(gone)
					groups[k] = s
				}
			}
		}
	}
	return all, groups
}

// silenced adds the sentence on boxes that fell silent over the version, where the
// policy tests that.
func (c *Course) silenced(so phrase.Phrase) phrase.Phrase {
	all, groups := c.silent()
	if c.p.Gates.Evidence.Bad == 0 || all.bad < 2 {
		return so
	}
	so = then(so, phrase.Of("silent-n", "%s fell silent while they tried it.", boxes(all.bad)))
	k, _, ok := common(all, groups)
	if !ok {
		return so
	}
	with := groups[k]
	if with.bad < all.bad {
		return then(so, phrase.Of("silent-some", "%d of them have %s; of %s without it, %d did.", with.bad, k.words(), boxes(all.all-with.all), all.bad-with.bad))
	}
	return then(so, phrase.Of("silent-all", "All have %s; of %s without it, %d did.", k.words(), boxes(all.all-with.all), all.bad-with.bad))
}

// sitesOut are sites of several boxes with none of them live. Boxes without a
// site share no line and no power.
func (c *Course) sitesOut() map[string]bool {
	boxes, out := map[string]int{}, map[string]bool{}
	live := map[string]bool{}
	for i := range c.r.Waves {
		for j := range c.r.Waves[i].Targets {
			at := c.r.Waves[i].Targets[j].Site
			boxes[at]++
			live[at] = live[at] || c.facts[i][j].Link == fleetapi.LinkLive
		}
	}
	for at, n := range boxes {
		out[at] = at != "" && n > 1 && !live[at]
	}
	return out
}
