package sense

import (
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// throttledTime is the sum over the packages of the seconds they were slowed
// down: it only serves to compute Throttled.
const throttledTime Metric = "throttled_seconds"

// slowing is what one Read said about being slowed down; nil means unknown.
type slowing struct {
	at                                     time.Time
	count, seconds, state, busy, freq, die *float64
}

func (w *slowing) note(s Sensor, v float64) {
	if s.Label != "" {
		return
	}
	switch s.Metric {
	case Throttle:
		w.count = &v
	case throttledTime:
		w.seconds = &v
	case CoolingState:
		w.state = &v
	case CPUBusy:
		w.busy = &v
	case CPUFreq:
		w.freq = &v
	case TempDie:
		w.die = &v
	}
}

// throttleState makes Throttled of what two Reads said.
type throttleState struct{ prev slowing }

// longestThrottle is the gap over which a count is still compared: a longer
// one, as after a suspend, would say something of another time.
const longestThrottle = 5 * time.Minute

// next computes the share of the time since the previous Read in which the box
// was slowed down by heat or power. Cooling states say so of this moment and
// time counters of the whole span; an event counter without a time counter
// counts as all of it. Where there are no counters (AMD, most ARM), a die near
// its limit that works hard at less than nine tenths of its clock is throttled.
func (t *throttleState) next(now slowing, p *plan) (ratio float64, known bool) {
	prev := t.prev
	t.prev = now
	if now.state != nil {
		known = true
		if *now.state > 0 {
			return 1, true
		}
	}
	span := now.at.Sub(prev.at)
	if prev.at.IsZero() || span <= 0 || span > longestThrottle {
		return 0, known
	}
	switch {
	case now.seconds != nil && prev.seconds != nil && *now.seconds >= *prev.seconds:
		return min((*now.seconds-*prev.seconds)/span.Seconds()/float64(max(p.packages, 1)), 1), true
	case now.count != nil && prev.count != nil && *now.count >= *prev.count:
		if *now.count > *prev.count {
			return 1, true
		}
		return 0, true
	}
	if !known && now.busy != nil && now.freq != nil && now.die != nil && p.dieLimit > 0 && p.maxHertz > 0 {
		known = true
		if *now.busy > 0.7 && *now.freq < 0.9*p.maxHertz && *now.die >= p.dieLimit-3 {
			ratio = 1
		}
	}
	return ratio, known
}

// throttle adds what tells that the hardware or the kernel slows the box down.
func (b *builder) throttle(chips []chip) {
	if from := b.throttleCounters(chips); len(from) > 0 {
		b.output(Sensor{Key: "throttle", Metric: Throttle}, false, sum, from...)
	}
	if b.plan.packages = len(b.throttleMs); b.plan.packages > 0 {
		b.output(Sensor{Key: "throttle/time", Metric: throttledTime}, false, sum, b.throttleMs...)
	}
	var states []int
	dir := b.path("sys/class/thermal")
	for _, name := range dirNames(dir) {
		if !strings.HasPrefix(name, "cooling_device") || !slows(b.text(filepath.Join(dir, name, "type"))) {
			continue
		}
		limit, err := parseInt([]byte(b.text(filepath.Join(dir, name, "max_state"))))
		if err != nil || limit <= 0 {
			continue
		}
		states = append(states, b.probe(filepath.Join(dir, name, "cur_state"), number(float64(limit), 0, 1)))
	}
	// The firmware of a Raspberry Pi says in bits 1 to 3 that the clock is
	// capped, throttled or at its soft limit now. It is soc@107c000000 on a Pi 5;
	// kernels of other makers do not have the file.
	firmware, _ := filepath.Glob(b.path("sys/devices/platform/soc*/soc*:firmware/get_throttled"))
	for _, pi := range firmware {
		states = append(states, b.probe(pi, func(b []byte) (sample, error) {
			bits, err := strconv.ParseUint(strings.TrimPrefix(strings.TrimSpace(string(b)), "0x"), 16, 32)
			if err != nil {
				return sample{}, errFormat
			}
			return sample{a: float64(min(bits&0xe, 1))}, nil
		}))
	}
	if len(states) > 0 {
		b.output(Sensor{Key: "cooling", Metric: CoolingState}, true, highest, states...)
	}
}

// slows tells cooling devices that cost speed from fans. intel_powerclamp is
// left out: its -1 means off.
func slows(kind string) bool {
	kind = strings.ToLower(kind)
	for _, part := range []string{"cpufreq", "processor", "devfreq", "throttle", "cpu-idle"} {
		if strings.Contains(kind, part) {
			return true
		}
	}
	return false
}

// throttleCounters finds one counter per package (every CPU repeats that of
// its package) or, without packages, per CPU; on a Jetson the over-current events.
func (b *builder) throttleCounters(chips []chip) []int {
	var packages, cores []int
	seen := map[string]bool{}
	dir := b.path("sys/devices/system/cpu")
	for _, name := range dirNames(dir) {
		if kind, _, attr, ok := splitAttr(name); !ok || kind != "cpu" || attr != "" {
			continue
		}
		counter := filepath.Join(dir, name, "thermal_throttle/package_throttle_count")
		id := b.text(filepath.Join(dir, name, "topology/physical_package_id"))
		if !seen[id] && exists(counter) {
			seen[id] = true
			packages = append(packages, b.probe(counter, number(1, 0, 1e15)))
			if ms := filepath.Join(dir, name, "thermal_throttle/package_throttle_total_time_ms"); exists(ms) {
				b.throttleMs = append(b.throttleMs, b.probe(ms, number(1000, 0, 1e12)))
			}
		}
		if counter = filepath.Join(dir, name, "thermal_throttle/core_throttle_count"); exists(counter) && !seen[id] {
			cores = append(cores, b.probe(counter, number(1, 0, 1e15)))
		}
	}
	for _, c := range chips {
		for _, name := range c.files {
			if kind, _, attr, ok := splitAttr(name); ok && kind == "oc" && attr == "event_cnt" {
				packages = append(packages, b.probe(filepath.Join(c.dir, name), number(1, 0, 1e15)))
			}
		}
	}
	return append(packages, cores...)
}
