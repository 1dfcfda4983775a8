package accept

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/internal/acceptance"
)

// told is a version: what is there, what was ordered, and why there may be none.
type told struct {
	have, want string
	fits       func(have, want string) bool
	missing    string // code
}

func (j *judgement) version(id, part string, v told) {
	switch {
	case v.want != "" && v.have == "":
		j.add(id, part, acceptance.Fail, acceptance.Measured{}, say("expect.exactly", v.want), say("say.not-found"))
	case v.have == "":
		j.add(id, part, acceptance.Skipped, acceptance.Measured{}, nothing, say(v.missing))
	case v.want != "":
		j.add(id, part, onlyIf(v.fits(v.have, v.want), acceptance.Fail), text(v.have), say("expect.exactly", v.want), say("say.version"))
	default:
		j.add(id, part, acceptance.Pass, text(v.have))
	}
}

func judgeSystem(s software, accelerators []accelerator, d Delivery) []acceptance.Check {
	j := &judgement{level: acceptance.System}
	j.version("os", "", told{s.os, d.OS, func(have, want string) bool { return within(want, have) }, "say.unknown"})
	j.version("kernel", "", told{s.kernel, d.Kernel, begins, "say.unknown"})
	drivers := map[string]string{}
	for _, a := range accelerators {
		if a.driver == "" {
			j.add("driver", a.name, acceptance.Fail, acceptance.Measured{}, say("expect.there"), say("say.driver-missing"))
			continue
		}
		drivers[a.driver] = a.version
	}
	for name := range d.Drivers {
		drivers[name] += "" // asked for: told also when it is not there
	}
	for _, name := range slices.Sorted(maps.Keys(drivers)) {
		j.version("driver", name, told{drivers[name], d.Drivers[name], begins, "say.unknown"})
	}
	missing := "say.runtime-later"
	if !s.runner {
		missing = "say.no-runner"
	}
	j.version("runtime", "", told{s.runtime, d.ONNXRuntime, begins, missing})
	engines := maps.Clone(s.containers)
	if engines == nil {
		engines = map[string]string{}
	}
	for name := range d.Containers {
		engines[name] += ""
	}
	for _, name := range slices.Sorted(maps.Keys(engines)) {
		j.version("container", name, told{engines[name], d.Containers[name], begins, "say.no-engine"})
	}
	if len(engines) == 0 {
		j.add("container", "", acceptance.Skipped, acceptance.Measured{}, nothing, say("say.no-engine"))
	}
	return j.checks
}

// Clocks and ways that are worth a word.
const (
	maxOffset = 30 * time.Second
	slowReach = 5 * time.Second
)

func judgeOperations(o operation, d Delivery) []acceptance.Check {
	j := &judgement{level: acceptance.Operations}
	j.list(o, d)
	listed := func(id, have, want string, ok func(have, want string) bool, otherwise string) {
		switch {
		case want != "":
			j.add(id, "", onlyIf(ok(have, want), acceptance.Fail), text(have), say("expect.exactly", want), say(otherwise))
		case have == "" && id == "runner":
			j.add(id, "", acceptance.Fail, acceptance.Measured{}, say("expect.there"), say("say.no-runner"))
		default:
			j.add(id, "", acceptance.Pass, text(have))
		}
	}
	listed("agent", o.agent, d.Agent, begins, "say.version")
	listed("runner", o.runner, d.Runner, begins, "say.version")
	switch {
	case d.ConfigSHA256 != "":
		j.add("config", "", onlyIf(strings.EqualFold(o.configSHA256, d.ConfigSHA256), acceptance.Fail), text(short(o.configSHA256)), say("expect.exactly", short(d.ConfigSHA256)), say("say.config"))
	case o.configSHA256 == "":
		j.add("config", "", acceptance.Skipped, acceptance.Measured{}, nothing, say("say.no-config"))
	default:
		j.add("config", "", acceptance.Pass, text(short(o.configSHA256)))
	}
	for _, want := range d.Models {
		i := slices.IndexFunc(o.models, func(m string) bool { return m == want || strings.HasPrefix(m, want+":") })
		have := ""
		if i >= 0 {
			have = o.models[i]
		}
		j.add("model", "", onlyIf(i >= 0, acceptance.Fail), text(have), say("expect.exactly", want), say("say.model-missing"))
	}
	if len(d.Models) == 0 {
		if len(o.models) == 0 {
			j.add("model", "", acceptance.Skipped, acceptance.Measured{}, nothing, say("say.no-model"))
		}
		for _, m := range o.models {
			j.add("model", "", acceptance.Pass, text(m))
		}
	}
	j.clock(o, d)
	return j.checks
}

// short is the beginning of a digest: enough to compare by eye.
func short(digest string) string { return digest[:min(len(digest), 16)] }

func (j *judgement) list(o operation, d Delivery) {
	if !d.given() {
		j.add("delivery", "", acceptance.Skipped, acceptance.Measured{}, nothing, say("say.no-list"))
	} else {
		j.add("delivery", "", acceptance.Pass, text(d.Name))
	}
	product := strings.TrimSpace(o.vendor + " " + o.product)
	if d.Product != "" {
		j.add("product", "", onlyIf(within(d.Product, product), acceptance.Fail), text(product), say("expect.exactly", d.Product), say("say.other"))
	} else {
		j.add("product", "", acceptance.Pass, text(product))
	}
	switch {
	case o.serial == "" && d.Serial == "":
		j.add("serial", "", acceptance.Skipped, acceptance.Measured{}, nothing, say("say.serial-hidden"))
	case o.serial == "":
		j.add("serial", "", acceptance.Fail, acceptance.Measured{}, say("expect.exactly", d.Serial), say("say.serial-hidden"))
	case d.Serial != "":
		j.add("serial", "", onlyIf(o.serial == d.Serial, acceptance.Fail), text(o.serial), say("expect.exactly", d.Serial), say("say.other"))
	default:
		j.add("serial", "", acceptance.Pass, text(o.serial))
	}
}

func (j *judgement) clock(o operation, d Delivery) {
	switch {
	case !o.clockSet:
		j.add("clock", "", acceptance.Fail, acceptance.Measured{}, say("expect.set"), say("say.clock-unset"))
	case !o.clockKept:
		j.add("clock", "", acceptance.Warn, acceptance.Measured{}, say("expect.set"), say("say.clock-free"))
	default:
		j.add("clock", "", acceptance.Pass, acceptance.Measured{}, say("expect.set"))
	}
	switch {
	case d.Offline:
		j.add("time-to-reach", "", acceptance.Skipped, acceptance.Measured{}, nothing, say("say.offline"))
		return
	case o.reachErr != "":
		j.add("time-to-reach", "", acceptance.Fail, acceptance.Measured{}, say("expect.there"), say("say.unreached", o.reachErr))
		return
	}
	j.add("time-to-reach", "", onlyIf(o.reach <= slowReach, acceptance.Warn), acceptance.Number(o.reach.Seconds(), "s"), say("expect.at-most", number(slowReach.Seconds(), "s")), say("say.slow-to-reach"))
	// A date of HTTP has whole seconds.
	j.add("clock-offset", "", onlyIf(o.offset.Abs() <= maxOffset, acceptance.Fail), acceptance.Number(o.offset.Round(time.Second).Seconds(), "s"), say("expect.at-most", number(maxOffset.Seconds(), "s")), say("say.clock-off"))
}

func percent(x float64) string { return fmt.Sprintf("%.0f %%", 100*x) }
