package rollout

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// trait is something that boxes may have in common.
type trait struct{ kind, value string }

func (k trait) String() string { return k.kind + " " + k.value }

// traitKinds in the order in which they are likely to be the cause.
var traitKinds = []string{"class", "site", "dust", "ambient", "old version", "arch"}

func traitsOf(t *fleetapi.Target) []trait {
	values := []string{t.Traits.Class, t.Site, t.Traits.Dust, t.Traits.Ambient, t.Traits.Version, t.Traits.Arch}
	out := make([]trait, 0, len(values))
	for i, v := range values {
		if v != "" && v != "unknown" {
			out = append(out, trait{traitKinds[i], v})
		}
	}
	return out
}

func sortedTraits(groups map[trait]sample) []trait {
	out := make([]trait, 0, len(groups))
	for k := range groups {
		out = append(out, k)
	}
	sort.Slice(out, func(i, j int) bool {
		if a, b := slices.Index(traitKinds, out[i].kind), slices.Index(traitKinds, out[j].kind); a != b {
			return a < b
		}
		return out[i].value < out[j].value
	})
	return out
}

// samples counts all boxes that tried the version, and those of each trait.
func (c *Course) samples() (all sample, groups map[trait]sample) {
	groups = map[trait]sample{}
	for i := range c.r.Waves {
		for j := range c.r.Waves[i].Targets {
			t := &c.r.Waves[i].Targets[j]
			bad, ok := tried(t)
			if !ok {
				continue
			}
			all.count(bad)
			for _, k := range traitsOf(t) {
				s := groups[k]
				s.count(bad)
				groups[k] = s
			}
		}
	}
	return all, groups
}

func (s *sample) count(bad bool) {
	s.all++
	if bad {
		s.bad++
	}
}

// affected says who is bad, what they have in common, and what was not done.
func (c *Course) affected() string {
	all, groups := c.samples()
	if all.bad == 0 {
		return "No box is known to be bad."
	}
	s := fmt.Sprintf("%s of %d that tried it %s bad.", boxes(all.bad), all.all, areOrIs(all.bad))
	if k, ok := common(all, groups); ok {
		with := groups[k]
		word := "All have"
		if with.bad < all.bad {
			word = fmt.Sprintf("%d of them have", with.bad)
		}
		s += fmt.Sprintf(" %s %s; of %s without it, %d %s bad.", word, k, boxes(all.all-with.all), all.bad-with.bad, areOrIs(all.bad-with.bad))
	} else if all.bad > 1 {
		s += " They have nothing in common that sets them apart: " + strings.Join(traitKinds, ", ") + " were compared."
	}
	return s + " No box was rolled back yet."
}

func areOrIs(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

// minGain is the least that a trait must explain, as a logarithm of likelihood:
// 2 is as good as a chance of one in seven against it.
const minGain = 2

// common finds the trait that tells bad boxes from good ones best: most bad
// boxes have it, and that those with it and those without have shares of their
// own explains the reports far better than one share for all.
func common(all sample, groups map[trait]sample) (best trait, found bool) {
	top := float64(minGain)
	for _, k := range sortedTraits(groups) {
		with := groups[k]
		without := sample{all.bad - with.bad, all.all - with.all}
		if without.all == 0 || float64(with.bad) < 0.6*float64(all.bad) || with.share() <= without.share() {
			continue
		}
		if gain := with.likelihood() + without.likelihood() - all.likelihood(); gain > top+1e-9 {
			best, top, found = k, gain, true
		}
	}
	return best, found
}

func (s sample) share() float64 { return float64(s.bad) / float64(s.all) }

// likelihood is the logarithm of that of s under its own share.
func (s sample) likelihood() float64 {
	if s.bad == 0 || s.bad == s.all {
		return 0
	}
	p := s.share()
	return float64(s.bad)*math.Log(p) + float64(s.all-s.bad)*math.Log(1-p)
}
