package accept

import (
	"fmt"
	"time"

	"github.com/edgeherd/edgeherd/internal/acceptance"
)

// Bounds of the level load that hold without a delivery list.
const (
	defaultDieMax = 90   // °C, when the die's own limit is not known
	belowLimit    = 5    // K that a die must stay below its limit
	throttledMax  = 0.05 // share of the time
	fadeMax       = 0.15 // of the speed, from the second quarter to the last
	plainWrite    = 20   // MB/s of a slow eMMC
	plainRead     = 40
	plainRTT      = time.Second
	steadyAfter   = 30 * time.Second // a shorter load tells nothing of steadiness
)

// judgeAnswers judges the known samples.
func judgeAnswers(all []answers, runner bool) []acceptance.Check {
	j := &judgement{level: acceptance.Load}
	for _, a := range all {
		v := acceptance.Measured{Text: fmt.Sprintf("%d / %d", a.passed, a.total)}
		switch {
		case a.err != "":
			j.add("golden", a.model, acceptance.Fail, v, say("expect.all", fmt.Sprint(a.total)), say("say.golden", a.err))
		case a.total == 0:
			j.add("golden", a.model, acceptance.Skipped, acceptance.Measured{}, nothing, say("say.no-golden"))
		default:
			j.add("golden", a.model, onlyIf(a.passed == a.total, acceptance.Fail), v, say("expect.all", fmt.Sprint(a.total)), say("say.golden", ""))
		}
	}
	if len(all) == 0 {
		j.without("golden", runner)
	}
	return j.checks
}

// without tells that there is nothing to load the box with.
func (j *judgement) without(id string, runner bool) {
	if !runner {
		j.add(id, "", acceptance.Fail, acceptance.Measured{}, say("expect.there"), say("say.no-runner"))
		return
	}
	j.add(id, "", acceptance.Skipped, acceptance.Measured{}, nothing, say("say.no-model"))
}

// judgeLoad judges the sustained inference. l.model is empty when nothing could
// be run.
func judgeLoad(l loaded, runner bool, dieLimit float64, want Limits) []acceptance.Check {
	j := &judgement{level: acceptance.Load}
	if l.model == "" {
		j.without("inference", runner)
		return j.checks
	}
	if l.took == 0 {
		j.add("inference", l.model, acceptance.Skipped, acceptance.Measured{}, nothing, say("say.cannot-measure", l.fault))
		return j.checks
	}
	rate := float64(l.runs-l.wrong) / l.took.Seconds()
	v := acceptance.Number(rate, "1/s")
	expect, way := say("expect.at-least", number(want.RateMin, "1/s")), say("say.slow")
	if want.RateMin == 0 {
		expect = nothing
	}
	ok := rate >= want.RateMin && l.runs > 0
	if l.wrong > 0 || l.runs == 0 {
		ok, way = false, say("say.wrong-answers", fmt.Sprint(l.wrong), fmt.Sprint(l.runs), l.fault)
	}
	j.add("inference", l.model, onlyIf(ok, acceptance.Fail), v, expect, way)
	if l.runs > 0 {
		ms := float64(l.p95.Microseconds()) / 1000
		if want.LatencyMax > 0 {
			j.add("latency", "", onlyIf(ms <= want.LatencyMax, acceptance.Fail), acceptance.Number(ms, "ms"), say("expect.at-most", number(want.LatencyMax, "ms")), say("say.slow"))
		} else {
			j.add("latency", "", acceptance.Pass, acceptance.Number(ms, "ms"))
		}
	}
	if l.took < steadyAfter || l.early == 0 {
		j.add("steady", "", acceptance.Skipped, acceptance.Measured{}, nothing, say("say.short"))
	} else {
		lost := max(0, 1-l.late/l.early)
		j.add("steady", "", onlyIf(lost <= fadeMax, acceptance.Warn), acceptance.Number(-100*lost, "%"), say("expect.drop", percent(fadeMax)), say("say.fades"))
	}
	j.heat(l, dieLimit, want)
	return j.checks
}

func (j *judgement) heat(l loaded, dieLimit float64, want Limits) {
	most, hard := want.DieMax, want.DieMax > 0
	if !hard {
		most = defaultDieMax
		if dieLimit > 0 {
			most = dieLimit - belowLimit
		}
	}
	switch {
	case l.dieMax == nil:
		j.add("heat", "", acceptance.Skipped, acceptance.Measured{}, nothing, say("say.no-die"))
	case l.stoppedAt > 0:
		j.add("heat", "", acceptance.Fail, acceptance.Number(*l.dieMax, "°C"), say("expect.at-most", number(most, "°C")), say("say.stopped-hot", number(l.stoppedAt, "°C")))
	default:
		j.add("heat", "", onlyIf(*l.dieMax <= most, acceptance.Fail), acceptance.Number(*l.dieMax, "°C"), say("expect.at-most", number(most, "°C")), say("say.too-hot"))
	}
	if l.throttled == nil {
		j.add("throttling", "", acceptance.Skipped, acceptance.Measured{}, nothing, say("say.no-throttle"))
		return
	}
	j.add("throttling", "", onlyIf(*l.throttled <= throttledMax, acceptance.Fail), acceptance.Number(100**l.throttled, "%"), say("expect.at-most", percent(throttledMax)), say("say.throttles"))
}

// judgeStores judges memory and disk.
func judgeStores(l loaded, runner bool, want Limits) []acceptance.Check {
	j := &judgement{level: acceptance.Load}
	mib := acceptance.Number(float64(l.pressureBytes)/(1<<20), "MiB")
	switch {
	case l.pressureBytes == 0:
		j.add("pressure", "", acceptance.Skipped, acceptance.Measured{}, nothing, say("say.no-room-memory"))
	case l.pressureErr != "":
		j.add("pressure", "", acceptance.Fail, mib, nothing, say("say.memory-wrong"))
	case runner && !l.runnerAnswers:
		j.add("pressure", "", acceptance.Fail, mib, nothing, say("say.memory-runner"))
	default:
		j.add("pressure", "", acceptance.Pass, mib)
	}
	j.disk("disk-write", l.write, want.DiskWriteMin, plainWrite)
	j.disk("disk-read", l.read, want.DiskReadMin, plainRead)
	return j.checks
}

func (j *judgement) disk(id string, t throughput, want, plain float64) {
	otherwise := acceptance.Fail
	if want == 0 {
		want, otherwise = plain, acceptance.Warn
	}
	expect := say("expect.at-least", number(want, "MB/s"))
	switch {
	case t.tight:
		j.add(id, "", acceptance.Skipped, acceptance.Measured{}, nothing, say("say.no-room-disk"))
	case t.err != "":
		j.add(id, "", acceptance.Fail, acceptance.Measured{}, expect, say("say.disk-error", t.err))
	default:
		mb := t.perSecond() / 1e6
		j.add(id, "", onlyIf(mb >= want, otherwise), acceptance.Number(mb, "MB/s"), expect, say("say.disk-slow"))
	}
}

// judgeNetwork judges the way to the controller. reachErr says why nothing could
// be measured.
func judgeNetwork(n network, reachErr string, d Delivery) []acceptance.Check {
	j := &judgement{level: acceptance.Load}
	for _, c := range []struct {
		id   string
		t    throughput
		want float64
	}{{"net-up", n.up, d.Limits.NetUpMin}, {"net-down", n.down, d.Limits.NetDownMin}} {
		expect := nothing
		if c.want > 0 {
			expect = say("expect.at-least", number(c.want, "Mbit/s"))
		}
		switch {
		case d.Offline:
			j.add(c.id, "", acceptance.Skipped, acceptance.Measured{}, nothing, say("say.offline"))
		case reachErr != "":
			j.add(c.id, "", acceptance.Skipped, acceptance.Measured{}, expect, say("say.unreached", reachErr))
		case c.t.err != "":
			j.add(c.id, "", acceptance.Fail, acceptance.Measured{}, expect, say("say.net-error", c.t.err))
		default:
			mbit := 8 * c.t.perSecond() / 1e6
			j.add(c.id, "", onlyIf(mbit >= c.want, acceptance.Fail), acceptance.Number(mbit, "Mbit/s"), expect, say("say.net-slow"))
		}
	}
	if d.Offline || reachErr != "" {
		return j.checks // told twice already
	}
	if n.rttErr != "" {
		j.add("net-rtt", "", acceptance.Fail, acceptance.Measured{}, nothing, say("say.net-error", n.rttErr))
		return j.checks
	}
	most, otherwise := d.Limits.RTTMax, acceptance.Fail
	if most == 0 {
		most, otherwise = float64(plainRTT.Milliseconds()), acceptance.Warn
	}
	ms := float64(n.rtt.Microseconds()) / 1000
	j.add("net-rtt", "", onlyIf(ms <= most, otherwise), acceptance.Number(ms, "ms"), say("expect.at-most", number(most, "ms")), say("say.far"))
	return j.checks
}
