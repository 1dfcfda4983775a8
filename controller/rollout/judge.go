package rollout

import (
	"math"
	"slices"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/phrase"
)

// byCount: without shares and evidence, the number of failures decides.
func (c *Course) byCount() bool {
	return c.p.MaxFailed > 0 || c.p.Gates.ErrorLimit == 0 && c.p.Gates.Evidence.Bad == 0
}

// tooMany judges a share. Before the wave is over a few boxes say little: the
// share decides from the least sample on, or when the open boxes cannot bring it
// back below the limit. Without a least sample of the policy's own, its sequential
// test is what halts early, so the share leaves it to that.
func (c *Course) tooMany(bad, sample, open int) fleetapi.GateResult {
	limit, over := float64(c.p.Gates.ErrorLimit), open == 0
	early := c.p.Gates.MinSample > 0 && sample >= c.p.Gates.MinSample
	switch above := limit > 0 && float64(bad) > limit*float64(sample); {
	case sample == 0:
		return fleetapi.GateWaiting
	case c.byCount() && bad > c.p.MaxFailed:
		return fleetapi.GateFailed
	case above && (early || float64(bad) > limit*float64(sample+open)):
		return fleetapi.GateFailed
	case above, limit > 0 && !early && !over:
		return fleetapi.GateInconclusive
	}
	return fleetapi.GatePassed
}

// share is what is allowed, as text.
func (c *Course) share() phrase.Phrase {
	if c.byCount() {
		return phrase.Of("at-most", "at most %s", boxes(c.p.MaxFailed))
	}
	if c.p.Gates.ErrorLimit > 0 {
		return phrase.Of("at-most-of-boxes", "at most %s of boxes", percent(float64(c.p.Gates.ErrorLimit)))
	}
	return phrase.Of("evidence-allows", "what the evidence allows")
}

func percent(f float64) phrase.Phrase { return phrase.Of("percent", "%.3g %%", 100*f) }

// judged is a gate with what was measured and what is allowed.
func judged(g fleetapi.Gate, measured, allowed phrase.Phrase) fleetapi.Gate {
	g.Measured, g.MeasuredSaid = measured.Text, measured.Beside()
	g.Allowed, g.AllowedSaid = allowed.Text, allowed.Beside()
	return g
}

// gates judges a wave by everything that the policy asks for.
func (c *Course) gates(i int, n counts) []fleetapi.Gate {
	w := &c.r.Waves[i]
	gates := []fleetapi.Gate{judged(fleetapi.Gate{Name: gateFailures, Result: c.tooMany(n.failed, n.ended(), n.open()), Bad: n.failed, Sample: n.ended()},
		phrase.Of("failed-of", "%d of %d failed", n.failed, n.ended()), c.share())}
	for _, name := range c.measuredGates() {
		g := fleetapi.Gate{Name: name}
		worst, most := -1, math.Inf(-1)
		for j := range w.Targets {
			t, f := &w.Targets[j], c.facts[i][j]
			bad := slices.Contains(t.Bad, name)
			if !bad && !c.measured(name, t, f) {
				continue
			}
			g.Sample++
			if bad {
				g.Bad++
			}
			if v := c.severity(name, t, f); v > most {
				most, worst = v, j
			}
		}
		measured := phrase.Of("nothing-yet", "nothing yet")
		if worst >= 0 {
			t := &w.Targets[worst]
			measured = phrase.Of("worst", "worst %s: %s", t.Name, c.value(name, t, c.facts[i][worst]))
		}
		g.Result = c.tooMany(g.Bad, g.Sample, n.open())
		gates = append(gates, judged(g, measured, c.allowed(name)))
	}
	if e := c.p.Gates.Evidence; e.Bad > 0 {
		if c.tests == nil { // of all waves: once a step
			c.tests = []fleetapi.Gate{c.evidence(e), c.lost(e)}
		}
		gates = append(gates, c.tests...)
	}
	if m := c.p.Gates.MaxUnreachable; m > 0 {
		g := judged(fleetapi.Gate{Name: gateUnreachable, Bad: n.unreachable, Sample: len(w.Targets), Result: fleetapi.GatePassed},
			phrase.Of("unheard-of", "%d of %d not heard from", n.unreachable, len(w.Targets)), phrase.Of("at-most", "at most %s", percent(float64(m))))
		if float64(n.unreachable) > float64(m)*float64(len(w.Targets)) {
			g.Result = fleetapi.GateInconclusive // never a failure: the wave waits
		}
		gates = append(gates, g)
	}
	return gates
}

// breach says why a wave must halt.
func (c *Course) breach(i int, n counts) phrase.Phrase {
	w := &c.r.Waves[i]
	for _, g := range w.Gates {
		if g.Result != fleetapi.GateFailed {
			continue
		}
		switch {
		case g.Name == gateFailures && c.byCount():
			return phrase.Of("breach-count", "%s failed, the plan allows %d. %s", boxes(g.Bad), c.p.MaxFailed, firstError(w))
		case g.Name == gateFailures:
			return phrase.Of("breach-share", "%d of %d attempted boxes failed, the policy allows %s. %s", g.Bad, g.Sample, percent(float64(c.p.Gates.ErrorLimit)), firstError(w))
		case g.Name == gateEvidence || g.Name == gateLost:
			return said(g.Measured, g.MeasuredSaid)
		}
		return phrase.Of("breach-gate", "%s is over its limit on %d of %d measured boxes; %s; allowed: %s", gateWords(g.Name), g.Bad, g.Sample,
			said(g.Measured, g.MeasuredSaid), said(g.Allowed, g.AllowedSaid))
	}
	least := c.p.Gates.MinSuccess
	if w.State != fleetapi.WavePassed && least > 0 && n.open() == 0 && n.ended() > 0 && float64(n.succeeded) < float64(least)*float64(n.ended()) {
		return phrase.Of("breach-success", "%d of %d attempted boxes succeeded, the policy wants %s. %s", n.succeeded, n.ended(), percent(float64(least)), firstError(w))
	}
	return phrase.Phrase{}
}

// sample is how many boxes tried the version, and how many of them are bad.
type sample struct{ bad, all int }

// tried says whether a box is evidence, and whether it is bad. A box that was
// not heard from is censored: it is none.
func tried(t *fleetapi.Target) (bad, ok bool) {
	bad = t.State == fleetapi.TargetFailed || len(t.Bad) > 0
	return bad, bad || t.State == fleetapi.TargetSucceeded
}

// evidence tests all boxes that tried the version so far, and each group of
// boxes with a trait in common: a version that is bad for one class in ten
// must not hide behind the other nine.
func (c *Course) evidence(e Evidence) fleetapi.Gate {
	all, groups := c.samples()
	return e.test(gateEvidence, all, groups)
}

// weighed says how likely a share is too large: of boxes that are bad, or of those
// that fell silent, among all or among those with a trait.
func (e Evidence) weighed(name string, s sample, with *trait) phrase.Phrase {
	p, limit := percent(probablyBad(s, float64(e.Bad))), percent(float64(e.Bad))
	switch {
	case name == gateLost && with == nil:
		return phrase.Of("weighed-lost", "%d of %d boxes fell silent while they tried it: with probability %s more than %s would be", s.bad, s.all, p, limit)
	case name == gateLost:
		return phrase.Of("weighed-lost-with", "%d of %d boxes with %s fell silent while they tried it: with probability %s more than %s would be", s.bad, s.all, with.words(), p, limit)
	case with == nil:
		return phrase.Of("weighed-bad", "%d of %d boxes that tried it are bad: with probability %s more than %s would be", s.bad, s.all, p, limit)
	}
	return phrase.Of("weighed-bad-with", "%d of %d boxes with %s that tried it are bad: with probability %s more than %s would be", s.bad, s.all, with.words(), p, limit)
}

// test is sequential: it may be asked after each report.
func (e Evidence) test(name string, all sample, groups map[trait]sample) fleetapi.Gate {
	g := fleetapi.Gate{Name: name, Bad: all.bad, Sample: all.all, Result: fleetapi.GateWaiting}
	allowed := phrase.Of("evidence-limit", "a probability of less than %s that more than %s of boxes are", percent(e.Halt), percent(float64(e.Bad)))
	if all.all == 0 {
		return judged(g, phrase.Of("nothing-yet", "nothing yet"), allowed)
	}
	g.Result = fleetapi.GatePassed
	if probablyBad(all, float64(e.Bad)) >= e.Halt {
		g.Result = fleetapi.GateFailed
		return judged(g, e.weighed(name, all, nil), allowed)
	}
	// Many groups are looked at, so each needs stronger evidence.
	for _, k := range sortedTraits(groups) {
		s := groups[k]
		if q := probablyBad(s, float64(e.Bad)); s.all < all.all && q >= 1-(1-e.Halt)/5 {
			g.Result = fleetapi.GateFailed
			return judged(g, e.weighed(name, s, &k), allowed)
		}
	}
	return judged(g, e.weighed(name, all, nil), allowed)
}

// probablyBad is the probability that the share of bad boxes is above limit,
// after s, when before it was thought to be limit on average: the upper tail
// of a beta distribution, as a sum of binomials (both parameters are whole).
func probablyBad(s sample, limit float64) float64 {
	a := s.bad + 1
	b := s.all - s.bad + max(int(math.Round(1/limit))-1, 1)
	// P(X > limit) for X ~ Beta(a, b) is P(Bin(a+b-1, limit) <= a-1).
	n := a + b - 1
	p := 0.0
	for k := range a {
		p += math.Exp(logChoose(n, k) + float64(k)*math.Log(limit) + float64(n-k)*math.Log1p(-limit))
	}
	return min(p, 1)
}

func logChoose(n, k int) float64 {
	a, _ := math.Lgamma(float64(n + 1))
	b, _ := math.Lgamma(float64(k + 1))
	d, _ := math.Lgamma(float64(n - k + 1))
	return a - b - d
}
