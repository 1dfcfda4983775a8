package rollout

import (
	"math"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/phrase"
)

// The names of gates.
const (
	gateFailures    = "failures"
	gateLatency     = "latency"
	gateMemory      = "memory"
	gateTemperature = "temperature"
	gateRestarts    = "restarts"
	gateThrottles   = "throttles"
	gateAgreement   = "agreement"
	gateEvidence    = "evidence"
	gateLost        = "lost"
	gateUnreachable = "unreachable"
)

// limits lists the gates that a box is over the limit of. Only a box that
// measured the version can be.
func (c *Course) limits(t *fleetapi.Target, f Fact) []string {
	var bad []string
	g := c.p.Gates
	if t.Probe != nil && g.Latency.on() {
		if is, was := latencyOf(t, f); over(g.Latency, is, was) {
			bad = append(bad, gateLatency)
		}
	}
	if t.Probe != nil && g.Memory.on() {
		if over(g.Memory, float64(t.Probe.PeakRSSBytes), wasBytes(f)) {
			bad = append(bad, gateMemory)
		}
	}
	if rise, ok := warmer(t, f, g.Temperature.SameLoad); ok && g.Temperature.Rise > 0 && rise > g.Temperature.Rise {
		bad = append(bad, gateTemperature)
	}
	if g.Restarts != nil && t.Restarts > *g.Restarts {
		bad = append(bad, gateRestarts)
	}
	if n, ok := throttled(t, f); ok && g.Throttles != nil && n > *g.Throttles {
		bad = append(bad, gateThrottles)
	}
	if share, ok := agrees(t); ok && share < float64(g.Agreement) {
		bad = append(bad, gateAgreement)
	}
	return bad
}

func wasSeconds(f Fact) float64 {
	if f.Was == nil {
		return 0
	}
	return f.Was.SecondsPerItem
}

func wasBytes(f Fact) float64 {
	if f.Was == nil {
		return 0
	}
	return float64(f.Was.PeakRSSBytes)
}

// over: above the ratio and by more than the floor, or above the most.
func over(r Ratio, is, was float64) bool {
	if r.Max > 0 && is > float64(r.Max) {
		return true
	}
	return r.Limit > 0 && was > 0 && is > r.Limit*was && is-was > float64(r.Floor)
}

// warmer is by how much a box that serves the version is warmer than before,
// if its load is the same.
func warmer(t *fleetapi.Target, f Fact, sameLoad float64) (float64, bool) {
	if t.State != fleetapi.TargetSucceeded || t.Base == nil || f.Heat == nil || math.Abs(f.Heat.Busy-t.Base.Busy) > sameLoad {
		return 0, false
	}
	return f.Heat.RiseKelvin - t.Base.RiseKelvin, true
}

// throttled is how often a box slowed down for heat since it was offered the
// version. A box that booted counts from 0 again.
func throttled(t *fleetapi.Target, f Fact) (int, bool) {
	if t.Offered == nil || t.Base == nil || f.Heat == nil {
		return 0, false
	}
	n := f.Heat.Throttles - t.Base.Throttles
	if n < 0 {
		n = f.Heat.Throttles
	}
	return int(n), true
}

// agrees is how far the version, in the shadow of the one before, said the same.
func agrees(t *fleetapi.Target) (float64, bool) {
	if t.Probe == nil || t.Probe.Shadow == nil || t.Probe.Shadow.Compared == 0 {
		return 0, false
	}
	return t.Probe.Shadow.Agreement, true
}

// latencyOf is what the version needs for an item and what the one before it
// needed on the same box. What both were timed with by the same requests counts
// for more than golden samples that were run weeks apart.
func latencyOf(t *fleetapi.Target, f Fact) (is, was float64) {
	is, was = t.Probe.SecondsPerItem, wasSeconds(f)
	if s := t.Probe.Shadow; s != nil && s.LatencyRatio > 0 && was > 0 {
		is = was * s.LatencyRatio
	}
	return is, was
}

// measured says whether a gate has something to judge of a box.
func (c *Course) measured(name string, t *fleetapi.Target, f Fact) bool {
	switch name {
	case gateLatency:
		return t.Probe != nil && (wasSeconds(f) > 0 || c.p.Gates.Latency.Max > 0)
	case gateMemory:
		return t.Probe != nil && (wasBytes(f) > 0 || c.p.Gates.Memory.Max > 0)
	case gateTemperature:
		_, ok := warmer(t, f, c.p.Gates.Temperature.SameLoad)
		return ok
	case gateThrottles:
		_, ok := throttled(t, f)
		return ok
	case gateAgreement:
		_, ok := agrees(t)
		return ok
	case gateRestarts:
		return t.State == fleetapi.TargetSucceeded || t.State == fleetapi.TargetFailed
	}
	return false
}

// allowed says what the limit of a measured gate is.
func (c *Course) allowed(name string) phrase.Phrase {
	g := c.p.Gates
	switch name {
	case gateLatency:
		return ratioWords(g.Latency, secondsText)
	case gateMemory:
		return ratioWords(g.Memory, bytesText)
	case gateTemperature:
		return phrase.Of("allowed-warmer", "at most %g K warmer at equal load", g.Temperature.Rise)
	case gateThrottles:
		return phrase.Of("allowed-throttles", "at most %d times slowed down for heat", *g.Throttles)
	case gateAgreement:
		return phrase.Of("allowed-agreement", "the same as the version before on at least %s of inputs", percent(float64(g.Agreement)))
	}
	return phrase.Of("allowed-restarts", "at most %d restarts", *g.Restarts)
}

// gateWords names a measured gate within a sentence.
func gateWords(name string) phrase.Phrase {
	switch name {
	case gateLatency:
		return phrase.Of("gate-latency", "latency")
	case gateMemory:
		return phrase.Of("gate-memory", "memory")
	case gateTemperature:
		return phrase.Of("gate-temperature", "temperature")
	case gateThrottles:
		return phrase.Of("gate-throttles", "throttles")
	case gateAgreement:
		return phrase.Of("gate-agreement", "agreement")
	case gateRestarts:
		return phrase.Of("gate-restarts", "restarts")
	}
	return phrase.Plain(name)
}

func ratioWords(r Ratio, text func(float64) phrase.Phrase) phrase.Phrase {
	times := phrase.Of("at-most-times", "at most ×%g", r.Limit)
	if r.Floor > 0 {
		times = phrase.Of("at-most-times-or", "at most ×%g, or %s more", r.Limit, text(float64(r.Floor)))
	}
	most := phrase.Of("at-most", "at most %s", text(float64(r.Max)))
	switch {
	case r.Limit > 0 && r.Max > 0:
		return phrase.Of("listed", "%s, %s", times, most)
	case r.Limit > 0:
		return times
	}
	return most
}

func secondsText(s float64) phrase.Phrase {
	return phrase.Plain(time.Duration(s * float64(time.Second)).Round(10 * time.Microsecond).String())
}

func bytesText(b float64) phrase.Phrase { return phrase.Of("mib", "%.0f MiB", b/(1<<20)) }

// severity is how bad it is what a box measured.
func (c *Course) severity(name string, t *fleetapi.Target, f Fact) float64 {
	against := func(is, was float64) float64 {
		if was == 0 {
			return is
		}
		return is / was
	}
	switch name {
	case gateLatency:
		return against(latencyOf(t, f))
	case gateMemory:
		return against(float64(t.Probe.PeakRSSBytes), wasBytes(f))
	case gateTemperature:
		k, _ := warmer(t, f, c.p.Gates.Temperature.SameLoad)
		return k
	case gateThrottles:
		n, _ := throttled(t, f)
		return float64(n)
	case gateAgreement:
		share, _ := agrees(t)
		return -share
	}
	return float64(t.Restarts)
}

// value is what a box measured, as text.
func (c *Course) value(name string, t *fleetapi.Target, f Fact) phrase.Phrase {
	pair := func(is, was float64, text func(float64) phrase.Phrase) phrase.Phrase {
		if was == 0 {
			return text(is)
		}
		return phrase.Of("times", "×%.1f, %s → %s", is/was, text(was), text(is))
	}
	switch name {
	case gateLatency:
		is, was := latencyOf(t, f)
		return pair(is, was, secondsText)
	case gateMemory:
		return pair(float64(t.Probe.PeakRSSBytes), wasBytes(f), bytesText)
	case gateTemperature:
		return phrase.Of("kelvin", "%+.1f K", c.severity(name, t, f))
	case gateThrottles:
		return phrase.Of("slowed-down", "%d times slowed down", int(c.severity(name, t, f)))
	case gateAgreement:
		return phrase.Of("agree", "%s agree", percent(-c.severity(name, t, f)))
	}
	return phrase.Of("n-restarts", "%d restarts", t.Restarts)
}

func (c *Course) measuredGates() []string {
	g := c.p.Gates
	var names []string
	for _, n := range []struct {
		name string
		on   bool
	}{{gateLatency, g.Latency.on()}, {gateMemory, g.Memory.on()}, {gateTemperature, g.Temperature.Rise > 0}, {gateRestarts, g.Restarts != nil}, {gateThrottles, g.Throttles != nil}, {gateAgreement, g.Agreement > 0}} {
		if n.on {
			names = append(names, n.name)
		}
	}
	return names
}
