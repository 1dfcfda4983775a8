package rollout

import (
	"fmt"
	"math"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// The names of gates.
const (
	gateFailures    = "failures"
	gateLatency     = "latency"
	gateMemory      = "memory"
	gateTemperature = "temperature"
	gateRestarts    = "restarts"
	gateEvidence    = "evidence"
	gateUnreachable = "unreachable"
)

// limits lists the gates that a box is over the limit of. Only a box that
// measured the version can be.
func (c *Course) limits(t *fleetapi.Target, f Fact) []string {
	var bad []string
	g := c.p.Gates
	if t.Probe != nil && g.Latency.on() {
		if over(g.Latency, t.Probe.SecondsPerItem, wasSeconds(f)) {
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
	case gateRestarts:
		return t.State == fleetapi.TargetSucceeded || t.State == fleetapi.TargetFailed
	}
	return false
}

// allowed says what the limit of a measured gate is.
func (c *Course) allowed(name string) string {
	g := c.p.Gates
	switch name {
	case gateLatency:
		return ratioWords(g.Latency, secondsText)
	case gateMemory:
		return ratioWords(g.Memory, bytesText)
	case gateTemperature:
		return fmt.Sprintf("at most %g K warmer at equal load", g.Temperature.Rise)
	}
	return fmt.Sprintf("at most %d restarts", *g.Restarts)
}

func ratioWords(r Ratio, text func(float64) string) string {
	s := ""
	if r.Limit > 0 {
		s = fmt.Sprintf("at most ×%g", r.Limit)
		if r.Floor > 0 {
			s += fmt.Sprintf(", or %s more", text(float64(r.Floor)))
		}
	}
	if r.Max > 0 {
		if s != "" {
			s += ", "
		}
		s += "at most " + text(float64(r.Max))
	}
	return s
}

func secondsText(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(10 * time.Microsecond).String()
}
func bytesText(b float64) string { return fmt.Sprintf("%.0f MiB", b/(1<<20)) }

// value is what a box measured, as text, and how bad that is.
func (c *Course) value(name string, t *fleetapi.Target, f Fact) (string, float64) {
	pair := func(is, was float64, text func(float64) string) (string, float64) {
		if was == 0 {
			return text(is), is
		}
		return fmt.Sprintf("×%.1f, %s → %s", is/was, text(was), text(is)), is / was
	}
	switch name {
	case gateLatency:
		return pair(t.Probe.SecondsPerItem, wasSeconds(f), secondsText)
	case gateMemory:
		return pair(float64(t.Probe.PeakRSSBytes), wasBytes(f), bytesText)
	case gateTemperature:
		k, _ := warmer(t, f, c.p.Gates.Temperature.SameLoad)
		return fmt.Sprintf("%+.1f K", k), k
	}
	return fmt.Sprintf("%d restarts", t.Restarts), float64(t.Restarts)
}

func (c *Course) measuredGates() []string {
	g := c.p.Gates
	var names []string
	for _, n := range []struct {
		name string
		on   bool
	}{{gateLatency, g.Latency.on()}, {gateMemory, g.Memory.on()}, {gateTemperature, g.Temperature.Rise > 0}, {gateRestarts, g.Restarts != nil}} {
		if n.on {
			names = append(names, n.name)
		}
	}
	return names
}
