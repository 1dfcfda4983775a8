package rollout

import (
	"cmp"
	"maps"
	"math"
	"regexp"
	"slices"
	"sort"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/phrase"
)

// trait is something that boxes may have in common.
type trait struct{ kind, value string }

func (k trait) words() phrase.Phrase {
	switch k.kind + " " + k.value {
	case "dust dusty":
		return phrase.Of("trait-dusty", "dust dusty")
	case "dust clean":
		return phrase.Of("trait-clean", "dust clean")
	}
	switch k.kind {
	case "class":
		return phrase.Of("trait-class", "class %s", k.value)
	case "site":
		return phrase.Of("trait-site", "site %s", k.value)
	case "ambient":
		return phrase.Of("trait-ambient", "ambient %s", k.value)
	case "old version":
		return phrase.Of("trait-version", "old version %s", k.value)
	}
	return phrase.Of("trait-arch", "arch %s", k.value)
}

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
	return c.samplesOf("")
}

// samplesOf leaves out boxes that are bad in another way than symptom; without
// one, none.
func (c *Course) samplesOf(symptom string) (all sample, groups map[trait]sample) {
	groups = map[trait]sample{}
	for i := range c.r.Waves {
		for j := range c.r.Waves[i].Targets {
			t := &c.r.Waves[i].Targets[j]
			bad, ok := tried(t)
			if !ok || bad && symptom != "" && symptomOf(t) != symptom {
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

// symptomOf says in what way a box is bad: the gate it is over the limit of, or
// its error without what differs from box to box.
func symptomOf(t *fleetapi.Target) string {
	if len(t.Bad) > 0 {
		return t.Bad[0]
	}
	return numbers.ReplaceAllString(t.Err, "N")
}

var numbers = regexp.MustCompile(`[0-9]+([.,][0-9]+)*`)

// symptoms lists the ways in which boxes are bad, the most frequent first.
func (c *Course) symptoms() []string {
	count := map[string]int{}
	for i := range c.r.Waves {
		for j := range c.r.Waves[i].Targets {
			if t := &c.r.Waves[i].Targets[j]; t.State == fleetapi.TargetFailed || len(t.Bad) > 0 {
				count[symptomOf(t)]++
			}
		}
	}
	return slices.SortedFunc(maps.Keys(count), func(a, b string) int {
		return cmp.Or(cmp.Compare(count[b], count[a]), cmp.Compare(a, b))
	})
}

func (s *sample) count(bad bool) {
	s.all++
	if bad {
		s.bad++
	}
}

// affected says who is bad, what they have in common, and what was not done.
func (c *Course) affected() phrase.Phrase {
	all, groups := c.samples()
	if all.bad == 0 {
		return c.silenced(phrase.Of("none-bad", "No box is known to be bad."))
	}
	so := phrase.Of("n-bad", "%s of %d that tried it %s bad.", boxes(all.bad), all.all, areOrIs(all.bad))
	if some, with, k, ok := c.alike(all, groups); ok {
		without, bad := boxes(some.all-with.all), some.bad-with.bad
		is := areOrIs(bad)
		switch {
		case some.bad < all.bad:
			so = then(so, phrase.Of("alike-way", "%d of them are bad in the same way, and %d of these have %s; of %s without it, %d %s bad in that way.", some.bad, with.bad, k.words(), without, bad, is))
		case with.bad < all.bad:
			so = then(so, phrase.Of("alike-some", "%d of them have %s; of %s without it, %d %s bad.", with.bad, k.words(), without, bad, is))
		default:
			so = then(so, phrase.Of("alike-all", "All have %s; of %s without it, %d %s bad.", k.words(), without, bad, is))
		}
	} else if all.bad > 1 {
		so = then(so, phrase.Of("nothing-alike", "They have nothing in common that sets them apart: class, site, dust, ambient, old version, arch were compared."))
	}
	return then(c.silenced(so), phrase.Of("none-back", "No box was rolled back yet."))
}

// alike finds the trait that tells bad boxes from good ones best: of all bad
// boxes, or of those that are bad in one way, since some boxes fail whatever
// the version. some are the boxes that were compared, with those of the trait.
func (c *Course) alike(all sample, groups map[trait]sample) (some, with sample, best trait, found bool) {
	top := 0.0
	try := func(among sample, groups map[trait]sample) {
		k, gain, ok := common(among, groups)
		if ok && gain > top+1e-9 {
			some, with, best, top, found = among, groups[k], k, gain, true
		}
	}
	try(all, groups)
	for _, way := range c.symptoms() {
		if among, groups := c.samplesOf(way); among.bad > 1 {
			try(among, groups)
		}
	}
	return some, with, best, found
}

func areOrIs(n int) phrase.Phrase {
	if n == 1 {
		return phrase.Of("is", "is")
	}
	return phrase.Of("are", "are")
}

// minGain is the least that a trait must explain, as a logarithm of likelihood:
// 2 is as good as a chance of one in seven against it.
const minGain = 2

// common finds the trait that tells bad boxes from good ones best: most bad
// boxes have it, and that those with it and those without have shares of their
// own explains the reports far better than one share for all: by gain.
func common(all sample, groups map[trait]sample) (best trait, gain float64, found bool) {
	gain = minGain
	for _, k := range sortedTraits(groups) {
		with := groups[k]
		without := sample{all.bad - with.bad, all.all - with.all}
		if without.all == 0 || float64(with.bad) < 0.6*float64(all.bad) || with.share() <= without.share() {
			continue
		}
		if g := with.likelihood() + without.likelihood() - all.likelihood(); g > gain+1e-9 {
			best, gain, found = k, g, true
		}
	}
	return best, gain, found
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
