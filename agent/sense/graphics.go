package sense

import (
	"path/filepath"
	"strconv"
	"strings"
)

// graphics adds how busy GPUs are and whether they are slowed down. Their
// temperatures, fans and power are hwmon; NVIDIA cards are a program's matter.
func (b *builder) graphics() {
	for _, name := range dirNames(b.path("sys/class/drm")) {
		if kind, _, attr, ok := splitAttr(name); !ok || kind != "card" || attr != "" {
			continue // connectors are called card0-DP-1
		}
		dir := b.path("sys/class/drm", name)
		device, err := filepath.EvalSymlinks(filepath.Join(dir, "device"))
		key := "drm/" + deviceKey(device, err)
		label := cleanLabel(filepath.Base(device))
		if label == "" || label == "device" {
			label = name
		}
		// gpu adds the highest of what a card has of a metric.
		gpu := func(metric Metric, scale, lo, hi float64, files ...string) {
			var from []int
			for _, file := range files {
				paths, _ := filepath.Glob(filepath.Join(dir, file)) // the patterns are ours and well formed
				for _, path := range paths {
					from = append(from, b.probe(path, number(scale, lo, hi)))
				}
			}
			if len(from) > 0 {
				b.output(Sensor{Key: key + "/" + string(metric), Metric: metric, Label: label}, true, highest, from...)
			}
		}
		gpu(GPUBusy, 100, 0, 1, "device/gpu_busy_percent")
		// i915, xe (both MHz) and amdgpu (Hz; freq1 is the shader clock).
		gpu(GPUClock, 1e-6, 1e6, 1e10, "gt/gt*/rps_act_freq_mhz", "device/tile*/gt*/freq0/act_freq")
		gpu(GPUClock, 1, 1e6, 1e10, "device/hwmon/hwmon*/freq1_input")
		// i915 and xe name the reasons; "status" is any of them, power limits too.
		var reasons []string
		for _, heat := range []string{"thermal", "prochot", "ratl", "vr_thermalert"} { // ratl: the running average of it
			reasons = append(reasons, "gt/gt*/throttle_reason_"+heat, "device/tile*/gt*/freq0/throttle/reason_"+heat)
		}
		gpu(Throttled, 1, 0, 1, reasons...)
		b.videoMemory(dir, key, label)
		b.amdThrottle(dir, key, label)
	}
	for _, name := range dirNames(b.path("sys/class/devfreq")) {
		dir := b.path("sys/class/devfreq", name)
		load := filepath.Join(dir, "device/load")
		if !exists(load) {
			if load = filepath.Join(dir, "load"); !exists(load) {
				continue
			}
		}
		s := Sensor{Key: "devfreq/" + cleanLabel(name), Label: cleanLabel(name), Metric: GPUBusy}
		if kind := strings.ToLower(name); !strings.Contains(kind, "gpu") && !strings.Contains(kind, ".g") {
			continue // memory controllers have a load as well
		}
		b.output(s, false, last, b.probe(load, parseDevfreqLoad))
		s.Metric, s.Key = GPUClock, s.Key+"/clock"
		if clock := filepath.Join(dir, "cur_freq"); exists(clock) {
			b.output(s, false, last, b.probe(clock, number(1, 1e6, 1e11)))
		}
	}
}

// videoMemory adds how much of an AMD card's memory is in use.
func (b *builder) videoMemory(dir, key, label string) {
	used, total := filepath.Join(dir, "device/mem_info_vram_used"), filepath.Join(dir, "device/mem_info_vram_total")
	if !exists(used) || !exists(total) {
		return
	}
	b.output(Sensor{Key: key + "/" + string(GPUMemory), Metric: GPUMemory, Label: label}, false,
		func(_ *output, in []sample) (float64, bool) { return in[0].a / in[1].a, in[0].a <= in[1].a },
		b.probe(used, number(1, 0, 1e13)), b.probe(total, number(1, 1, 1e13)))
}

// parseDevfreqLoad reads "437", which is ‰ (Tegra), or "43@300000000Hz", which
// is percent (Mali).
func parseDevfreqLoad(b []byte) (sample, error) {
	percent, _, mali := strings.Cut(strings.TrimSpace(string(b)), "@")
	n, err := strconv.ParseUint(percent, 10, 16)
	full := 1000.0
	if mali {
		full = 100
	}
	if err != nil {
		return sample{}, errFormat
	}
	if v := float64(n) / full; v <= 1 {
		return sample{a: v}, nil
	}
	return sample{}, errNoValue
}

// electrics adds the voltages and currents of chips that know their scale, and
// power from counters of energy.
func (b *builder) electrics(all []found) {
	for _, f := range all {
		s := Sensor{Key: f.key, Label: f.metricLabel()}
		switch f.kind {
		case "in":
			s.Metric = RailVolts
			b.output(s, false, positive, b.probesOf(f, number(1000, -1000, 1000))...)
		case "curr":
			s.Metric = RailAmperes
			b.output(s, false, unlessFault, b.probesOf(f, number(1000, -1000, 1000))...)
		case "energy":
			s.Metric = Power
			b.output(s, false, energyRate([]float64{0}, maxWatts), b.probe(f.path, number(1e6, 0, 1e13)))
		}
	}
}

// boot adds what tells of the time before this boot, of the case, and of the
// mode that the box was set to.
func (b *builder) boot(all []found) {
	for _, f := range all {
		if f.kind == "intrusion" {
			b.output(Sensor{Key: f.key, Metric: Intrusion, Label: f.metricLabel()}, false, last, b.probe(f.path, number(1, 0, 1)))
		}
	}
	for _, name := range dirNames(b.path("sys/class/watchdog")) {
		path := b.path("sys/class/watchdog", name, "bootstatus")
		if !exists(path) {
			continue
		}
		label := cleanLabel(b.text(b.path("sys/class/watchdog", name, "identity")))
		if label == "" {
			label = name
		}
		bits := b.probe(path, number(1, 0, 1<<16))
		for _, bit := range []struct {
			metric Metric
			mask   int
		}{{BootOverheat, 0x1}, {BootWatchdog, 0x20}} { // linux/watchdog.h
			b.output(Sensor{Key: "watchdog/" + label + "/" + string(bit.metric), Metric: bit.metric, Label: label}, false,
				func(_ *output, in []sample) (float64, bool) { return float64(min(int(in[0].a)&bit.mask, 1)), true }, bits)
		}
	}
	if mode := b.path("var/lib/nvpmodel/status"); exists(mode) {
		b.output(Sensor{Key: "nvpmodel", Metric: PowerMode}, false, last, b.probe(mode, parsePowerMode))
	}
}
