package blackbox

import (
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/internal/phrase"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// Judge tells why a boot ended. What hardware and kernel say goes before what
// the records let one guess; a confidence below 0.7 is such a guess.
func Judge(p Past, c Clues) wire.ResetBody {
	last := p.Records[len(p.Records)-1]
	out := wire.ResetBody{PrevBoot: hex.EncodeToString(p.Boot[:]), AtMs: last.WallMs, UptimeS: last.MonoMs / 1000}
	j := &judge{past: p, clues: c, last: last, trail: trail(p.Records)}
	for _, rule := range []func() bool{j.crash, j.orderly, j.hardware, j.stopped, j.heat, j.volts, j.memory, j.power} {
		if rule() {
			break
		}
	}
	out.Cause, out.Confidence, out.Evidence = j.cause, j.confidence, append(j.evidence, j.lastWords())
	return out
}

type judge struct {
	past  Past
	clues Clues
	last  Record
	trail []Sample // the last minutes

	cause      string
	confidence float64
	evidence   []phrase.Phrase
}

// trailFor is how far back the moments before the end reach.
const trailFor = 5 * time.Minute

func trail(records []Record) []Sample {
	var all []Sample
	for i := range records {
		all = append(all, records[i].Samples...)
	}
	if len(all) == 0 {
		return nil
	}
	end := all[len(all)-1].Mono
	return slices.DeleteFunc(all, func(s Sample) bool { return end-s.Mono > trailFor })
}

func (j *judge) say(cause string, confidence float64, code, format string, args ...any) bool {
	j.cause, j.confidence = cause, confidence
	j.evidence = append(j.evidence, phrase.Of(code, format, args...))
	return true
}

func (j *judge) crash() bool {
	for _, kind := range []struct {
		kind, cause string
		confidence  float64
	}{{"heat", wire.ResetThermal, 0.97}, {"memory", wire.ResetMemory, 0.95}, {"panic", wire.ResetPanic, 0.95}} {
		for _, c := range j.clues.Crashes {
			if c.Kind == kind.kind {
				return j.say(kind.cause, kind.confidence, "kernel-kept", "the kernel kept: %s", c.Line)
			}
		}
	}
	return false
}

// orderly: somebody shut the system down; the kernel does so too when it gets
// too hot.
func (j *judge) orderly() bool {
	if j.last.Flags&flagGoingDown == 0 {
		return false
	}
	if die, limit := j.last.Last().Die, j.limit(); die >= limit {
		return j.say(wire.ResetThermal, 0.75, "down-hot", "the system went down in order, but at %.0f °C of the die, where it throttles at %.0f °C", die, limit)
	}
	return j.say(wire.ResetClean, 0.98, "shut-down", "the system was shut down in order")
}

func (j *judge) hardware() bool {
	reason := strings.ToUpper(j.clues.ResetReason)
	switch {
	case j.clues.BootStatus&bootOverheat != 0:
		return j.say(wire.ResetThermal, 0.95, "boot-overheat", "the watchdog's boot status says overheat")
	case strings.Contains(reason, "SENSOR"): // SENSOR and VFSENSOR of tegra-pmc
		return j.say(wire.ResetThermal, 0.95, "reason-heat", "the power controller says that a thermal sensor reset the box (%s)", j.clues.ResetReason)
	case j.clues.BootStatus&bootPowerLow != 0:
		return j.say(wire.ResetBrownOut, 0.9, "boot-power-low", "the watchdog's boot status says that power was too low")
	case j.soon():
		return false // many boards reboot in order by their watchdog, and it says so
	case j.clues.BootStatus&bootCardReset != 0:
		return j.say(wire.ResetWatchdog, 0.9, "boot-watchdog", "the watchdog's boot status says that it reset the box, which had hung")
	case strings.Contains(reason, "WDT"), strings.Contains(reason, "WATCHDOG"):
		return j.say(wire.ResetWatchdog, 0.9, "reason-watchdog", "the power controller says that the watchdog reset the box, which had hung (%s)", j.clues.ResetReason)
	}
	return false
}

// soonAfter the last record is a boot that followed from what ended the records.
const soonAfter = 5 * time.Minute

// soon: the recorder ended in order, and as far as is known the box with it.
func (j *judge) soon() bool {
	return j.last.Flags&flagClean != 0 && j.clues.Gap <= soonAfter
}

// stopped: the recorder ended in order, and the box after it.
func (j *judge) stopped() bool {
	if j.last.Flags&flagClean == 0 {
		return false
	}
	if gap := j.clues.Gap; gap >= 0 && gap <= soonAfter {
		return j.say(wire.ResetClean, 0.9, "stopped", "the agent was stopped in order and the box began anew %s later", gap.Round(time.Second))
	}
	return j.say(wire.ResetClean, 0.6, "stopped-earlier", "the agent was stopped in order; what ended the box later was not recorded")
}

// limit is where the die throttles, or a guess that is not too low.
func (j *judge) limit() float64 {
	if j.clues.LimitC > 0 {
		return j.clues.LimitC
	}
	return 100
}

func (j *judge) heat() bool {
	die := j.last.Last().Die
	switch limit := j.limit(); {
	case die >= limit:
		return j.say(wire.ResetThermal, 0.8, "ends-hot", "the records end at %.0f °C of the die, where it throttles at %.0f °C", die, limit)
	case die >= limit-hotBelow:
		return j.say(wire.ResetThermal, 0.65, "ends-warm", "the records end at %.0f °C of the die, close to the %.0f °C where it throttles", die, limit)
	}
	return false
}

// minutesAgo is the record from which counts are taken.
func (j *judge) minutesAgo() Record {
	for _, r := range j.past.Records {
		if j.last.MonoMs-r.MonoMs <= trailFor.Milliseconds() {
			return r
		}
	}
	return j.last
}

// sag is the share of the supply's usual voltage that must be lacking.
const sag = 0.07

func (j *judge) volts() bool {
	if n := int64(j.last.LowVolts) - int64(j.minutesAgo().LowVolts); n > 0 {
		return j.say(wire.ResetBrownOut, 0.8, "under-voltage", "%d under-voltage events in the last minutes", n)
	}
	var usual []float64
	for i := range j.past.Records {
		for _, s := range j.past.Records[i].Samples {
			if s.Volts > 0 {
				usual = append(usual, s.Volts)
			}
		}
	}
	slices.Sort(usual)
	if v := j.last.Last().Volts; len(usual) >= 6 && v < (1-sag)*usual[len(usual)/2] {
		return j.say(wire.ResetBrownOut, 0.75, "volts-fell", "the supply fell to %.2f V from %.2f V", v, usual[len(usual)/2])
	}
	return false
}

func (j *judge) memory() bool {
	used := j.last.Last().Memory
	if n := int64(j.last.OOMKills) - int64(j.minutesAgo().OOMKills); n > 0 {
		return j.say(wire.ResetMemory, 0.65, "oom-kills", "the kernel killed %d processes for want of memory in the last minutes", n)
	}
	if used >= 0.98 {
		return j.say(wire.ResetMemory, 0.5, "memory-full", "%.0f %% of the memory was in use", 100*used)
	}
	return false
}

func (j *judge) power() bool {
	for _, s := range j.trail {
		if s.Throttled > 0 {
			j.evidence = append(j.evidence, phrase.Of("throttled-last", "the box throttled in its last minutes"))
			break
		}
	}
	if gap := j.clues.Gap; gap > soonAfter {
		j.evidence = append(j.evidence, phrase.Of("gap", "%s passed between the last record and this boot, without power or without the agent", gap.Round(time.Minute)))
	}
	reason := strings.ToUpper(j.clues.ResetReason)
	if strings.Contains(reason, "POWER_ON") || strings.Contains(reason, "SYS_RESET") {
		return j.say(wire.ResetPowerCut, 0.85, "reason-power-on", "the power controller says power-on (%s), and nothing else had announced itself", j.clues.ResetReason)
	}
	return j.say(wire.ResetPowerCut, 0.6, "nothing-unusual", "the records end without anything unusual; a pressed reset button or a hang without watchdog looks the same")
}

// lastWords are the last reading, for people.
func (j *judge) lastWords() phrase.Phrase {
	s := j.last.Last()
	words := []string{}
	add := func(format string, v float64) {
		if !math.IsNaN(v) {
			words = append(words, fmt.Sprintf(format, v))
		}
	}
	add("die %.0f °C", s.Die)
	add("inlet %.0f °C", s.Inlet)
	add("%.0f W", s.Watts)
	add("%.2f V", s.Volts)
	for _, rpm := range s.RPM {
		add("%.0f rpm", rpm)
	}
	add("load %.1f", s.Load1)
	add("memory %.0f %%", 100*s.Memory)
	if len(words) == 0 {
		return phrase.Of("no-last-reading", "the last record holds no reading")
	}
	return phrase.Of("last-reading", "last reading: %s", strings.Join(words, ", "))
}
