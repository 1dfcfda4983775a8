package accept

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/edgeherd/edgeherd/internal/acceptance"
	"github.com/edgeherd/edgeherd/internal/phrase"
)

// Judging is pure: facts and a delivery list become checks. What the list does
// not name is only asked to be plausible.

type judgement struct {
	level  acceptance.Level
	checks []acceptance.Check
}

// add makes a check. words are what it expects and what to do, in this order.
func (j *judgement) add(id, part string, result acceptance.Result, v acceptance.Measured, words ...phrase.Phrase) {
	c := acceptance.Check{ID: id, Part: acceptance.Clean(part), Level: j.level, Result: result, Value: v}
	c.Value.Text = acceptance.Clean(v.Text)
	if len(words) > 0 {
		c.Expect = words[0]
	}
	if len(words) > 1 && result != acceptance.Pass {
		c.Say = words[1]
	}
	j.checks = append(j.checks, c)
}

var nothing phrase.Phrase

// say makes a phrase whose arguments are cut to what a report takes.
func say(code string, args ...string) phrase.Phrase {
	clean := make([]any, len(args))
	for i, a := range args {
		a = acceptance.Clean(a)
		if len(a) > 120 {
			a = acceptance.Clean(a[:117]) + "…"
		}
		clean[i] = a
	}
	return acceptance.Say(code, clean...)
}

func number(x float64, unit string) string { return acceptance.Number(x, unit).String() }

func text(s string) acceptance.Measured { return acceptance.Measured{Text: s} }

// onlyIf is pass or the other result.
func onlyIf(ok bool, otherwise acceptance.Result) acceptance.Result {
	if ok {
		return acceptance.Pass
	}
	return otherwise
}

func judgeHardware(h hardware, d Delivery) []acceptance.Check {
	j := &judgement{level: acceptance.Hardware}
	if d.CPUs > 0 {
		j.add("cpu", "", onlyIf(h.cpus == d.CPUs, acceptance.Fail), acceptance.Number(float64(h.cpus), ""), say("expect.exactly", fmt.Sprint(d.CPUs)), say("say.wrong-count"))
	} else {
		j.add("cpu", "", onlyIf(h.cpus > 0, acceptance.Fail), acceptance.Number(float64(h.cpus), ""), nothing, say("say.wrong-count"))
	}
	gib := float64(h.memoryBytes) / (1 << 30)
	if d.MemoryGiB > 0 {
		// Firmware and graphics keep some of it.
		j.add("memory", "", onlyIf(gib >= 0.9*d.MemoryGiB && gib <= 1.05*d.MemoryGiB, acceptance.Fail), acceptance.Number(gib, "GiB"), say("expect.exactly", number(d.MemoryGiB, "GiB")), say("say.wrong-count"))
	} else {
		j.add("memory", "", onlyIf(gib > 0, acceptance.Fail), acceptance.Number(gib, "GiB"), nothing, say("say.wrong-count"))
	}
	j.accelerators(h.accelerators, d.Accelerators)
	j.temperatures(h, d.Temperatures)
	j.fans(h.fans, d.Fans)
	switch {
	case h.power != nil:
		j.add("power", "", acceptance.Pass, acceptance.Number(*h.power, "W"))
	case d.Power:
		j.add("power", "", acceptance.Fail, acceptance.Measured{}, say("expect.there"), say("say.missing"))
	default:
		j.add("power", "", acceptance.Skipped, acceptance.Measured{}, nothing, say("say.no-power"))
	}
	switch {
	case h.bmc.answers:
		j.add("bmc", "", acceptance.Pass, acceptance.Measured{}, say("expect.there"))
	case h.bmc.there:
		j.add("bmc", "", acceptance.Warn, acceptance.Measured{}, say("expect.there"), say("say.bmc-silent"))
	case d.BMC:
		j.add("bmc", "", acceptance.Fail, acceptance.Measured{}, say("expect.there"), say("say.missing"))
	default:
		j.add("bmc", "", acceptance.Skipped, acceptance.Measured{}, nothing, say("say.no-bmc"))
	}
	j.disks(h.disks, d.Disks)
	j.nics(h.nics, d.NICs)
	return j.checks
}

func (j *judgement) accelerators(found []accelerator, want []string) {
	left := slices.Clone(found)
	for _, w := range want {
		i := slices.IndexFunc(left, func(a accelerator) bool { return within(w, a.name) })
		if i < 0 {
			j.add("accelerator", "", acceptance.Fail, acceptance.Measured{}, say("expect.exactly", w), say("say.missing"))
			continue
		}
		j.add("accelerator", "", acceptance.Pass, text(left[i].name), say("expect.exactly", w))
		left = slices.Delete(left, i, i+1)
	}
	for _, a := range left {
		if len(want) > 0 {
			j.add("accelerator", "", acceptance.Warn, text(a.name), say("expect.none"), say("say.other"))
			continue
		}
		j.add("accelerator", "", acceptance.Pass, text(a.name))
	}
	if len(found)+len(want) == 0 {
		j.add("accelerator", "", acceptance.Skipped, acceptance.Measured{}, nothing, say("say.none-expected"))
	}
}

// hotIdle is how far below its limit a die must be before any load; without a
// known limit it must be below 85 °C.
const (
	hotIdle        = 15
	hotWithoutKnow = 85
)

func (j *judgement) temperatures(h hardware, want []string) {
	for _, role := range roleOrder {
		v, found := h.temps[role]
		listed := slices.Contains(want, role)
		limit := hotWithoutKnow + 0.0
		if role == "die" && h.dieLimit > 0 {
			limit = h.dieLimit - hotIdle
		}
		switch {
		case !found && role == "die":
			j.add("temperature", role, acceptance.Fail, acceptance.Measured{}, say("expect.there"), say("say.no-die"))
		case !found && listed:
			j.add("temperature", role, acceptance.Fail, acceptance.Measured{}, say("expect.there"), say("say.missing"))
		case !found:
		case v < -30:
			j.add("temperature", role, acceptance.Fail, acceptance.Number(v, "°C"), say("expect.there"), say("say.cold"))
		default:
			j.add("temperature", role, onlyIf(v < limit, acceptance.Warn), acceptance.Number(v, "°C"), say("expect.below", number(limit, "°C")), say("say.hot-idle"))
		}
	}
}

func (j *judgement) fans(found []fan, want int) {
	for _, f := range found {
		still := acceptance.Warn
		if want > 0 {
			still = acceptance.Fail
		}
		j.add("fan", f.name, onlyIf(f.rpm > 0, still), acceptance.Number(f.rpm, "rpm"), say("expect.turns"), say("say.still"))
	}
	for i := len(found); i < want; i++ {
		j.add("fan", fmt.Sprint(i+1), acceptance.Fail, acceptance.Measured{}, say("expect.turns"), say("say.missing"))
	}
	if len(found)+want == 0 {
		j.add("fan", "", acceptance.Skipped, acceptance.Measured{}, nothing, say("say.no-fan"))
	}
}

// wornOut is the share of a disk's rated life from which it is not handed over.
const wornOut = 0.5

func (j *judgement) disks(found []disk, want []DiskWant) {
	left := slices.Clone(want)
	for _, k := range found {
		gb := float64(k.bytes) / 1e9
		v := acceptance.Number(gb, "GB")
		v.Text = strings.TrimSpace(k.kind + " " + k.model)
		expect := nothing
		if i := slices.IndexFunc(left, func(w DiskWant) bool { return fits(k, w) }); i >= 0 {
			expect = say("expect.exactly", strings.TrimSpace(left[i].Kind+" ≥ "+number(left[i].MinGB, "GB")))
			left = slices.Delete(left, i, i+1)
		}
		switch {
		case k.failing:
			j.add("disk", k.name, acceptance.Fail, v, expect, say("say.failing"))
		case k.wear != nil && *k.wear > wornOut:
			j.add("disk", k.name, acceptance.Warn, v, expect, say("say.worn"))
		default:
			j.add("disk", k.name, acceptance.Pass, v, expect)
		}
	}
	for _, w := range left {
		j.add("disk", "", acceptance.Fail, acceptance.Measured{}, say("expect.exactly", strings.TrimSpace(w.Kind+" ≥ "+number(w.MinGB, "GB"))), say("say.missing"))
	}
	if len(found)+len(want) == 0 {
		j.add("disk", "", acceptance.Fail, acceptance.Measured{}, nothing, say("say.no-disk"))
	}
}

// fits allows a disk two hundredths less than what is on its box.
func fits(k disk, w DiskWant) bool {
	return (w.Kind == "" || w.Kind == k.kind) && float64(k.bytes)/1e9 >= 0.98*w.MinGB
}

func (j *judgement) nics(found []nic, want []NICWant) {
	// Named ports first: one without a name takes what is left.
	want = slices.Clone(want)
	slices.SortStableFunc(want, func(a, b NICWant) int { return -cmp.Compare(a.Name, b.Name) })
	left := slices.Clone(found)
	slices.SortStableFunc(left, func(a, b nic) int { return -cmp.Compare(a.mbps, b.mbps) })
	links := 0
	for _, n := range found {
		if n.up {
			links++
		}
	}
	for _, w := range want {
		i := slices.IndexFunc(left, func(n nic) bool { return w.Name == "" || n.name == w.Name })
		if i < 0 {
			j.add("nic", w.Name, acceptance.Fail, acceptance.Measured{}, say("expect.there"), say("say.missing"))
			continue
		}
		n := left[i]
		left = slices.Delete(left, i, i+1)
		expect := say("expect.there")
		if w.MinMbps > 0 {
			expect = say("expect.at-least", number(float64(w.MinMbps), "Mbit/s"))
		}
		switch {
		case w.MinMbps > 0 && !n.up:
			j.add("nic", n.name, acceptance.Fail, acceptance.Measured{}, expect, say("say.no-link"))
		case w.MinMbps > n.mbps && n.mbps > 0:
			j.add("nic", n.name, acceptance.Fail, speed(n), expect, say("say.slow-link"))
		case w.MinMbps > 0 && n.mbps == 0:
			j.add("nic", n.name, acceptance.Warn, speed(n), expect, say("say.port-unmeasured"))
		default:
			j.add("nic", n.name, acceptance.Pass, speed(n), expect)
		}
	}
	slices.SortFunc(left, func(a, b nic) int { return cmp.Compare(a.name, b.name) })
	for _, n := range left {
		if !n.up {
			j.add("nic", n.name, acceptance.Skipped, acceptance.Measured{}, nothing, say("say.no-link"))
			continue
		}
		j.add("nic", n.name, acceptance.Pass, speed(n))
	}
	if links == 0 {
		j.add("nic", "", acceptance.Fail, acceptance.Measured{}, say("expect.link"), say("say.no-nic"))
	}
}

func speed(n nic) acceptance.Measured {
	if n.mbps == 0 {
		return acceptance.Measured{}
	}
	return acceptance.Number(float64(n.mbps), "Mbit/s")
}

// within says whether all words of want are in have, in any case.
func within(want, have string) bool {
	have = strings.ToLower(have)
	for _, w := range strings.Fields(strings.ToLower(want)) {
		if !strings.Contains(have, w) {
			return false
		}
	}
	return true
}

// begins says whether a version begins with another: 1.22 does 1.22.1 and not 1.220.
func begins(have, want string) bool {
	rest, ok := strings.CutPrefix(strings.TrimPrefix(have, "v"), strings.TrimPrefix(want, "v"))
	return ok && (rest == "" || !strings.ContainsRune("0123456789", rune(rest[0])))
}
