package sense

import (
	"path/filepath"
	"strconv"
	"strings"
)

// This file reads what JetPack 4 and the vendor's own drivers show outside of
// hwmon. JetPack 5 and later need none of it.

// oldJetsonFan is the pwm-fan device of JetPack 4: its files are named after
// themselves, in one directory.
func (b *builder) oldJetsonFan() []found {
	dir := b.path("sys/devices/pwm-fan")
	var list []found
	for _, f := range []found{{kind: "fan", path: "rpm_measured"}, {kind: "pwm", path: "cur_pwm"}} {
		f.path = filepath.Join(dir, f.path)
		if !exists(f.path) {
			continue
		}
		f.key, f.chip, f.n, f.dir = "pwm-fan/"+f.kind+"1", "pwm-fan", 1, dir
		list = append(list, f)
	}
	return list
}

// oldRails are those of the ina3221x driver of JetPack 4: an IIO device whose
// channels count from 0.
func (b *builder) oldRails() []rail {
	var list []rail
	base := b.path("sys/bus/i2c/drivers/ina3221x")
	for _, address := range dirNames(base) {
		for _, name := range dirNames(filepath.Join(base, address)) {
			if !strings.HasPrefix(name, "iio:device") {
				continue
			}
			dir := filepath.Join(base, address, name)
			for i := range 3 {
				n := strconv.Itoa(i)
				label := b.text(filepath.Join(dir, "rail_name_"+n))
				volts, ampere := filepath.Join(dir, "in_voltage"+n+"_input"), filepath.Join(dir, "in_current"+n+"_input")
				if label == "" || label == "NC" || !exists(volts) || !exists(ampere) {
					continue
				}
				list = append(list, rail{
					key: "iio/ina3221x/i2c:" + cleanLabel(address) + "/in" + n, label: cleanLabel(label),
					volts: b.probe(volts, number(1000, 0, 100)), ampere: b.probe(ampere, number(1000, 0, 200)),
				})
			}
		}
	}
	return list
}

// apex is the Coral accelerator's own class.
func (b *builder) apex() []found {
	var list []found
	for _, name := range dirNames(b.path("sys/class/apex")) {
		if dir := b.path("sys/class/apex", name); exists(filepath.Join(dir, "temp")) {
			device, err := filepath.EvalSymlinks(filepath.Join(dir, "device"))
			key := "apex/" + deviceKey(device, err)
			if err != nil {
				key = "apex/" + cleanLabel(name)
			}
			list = append(list, found{key: key, chip: "apex", label: name, kind: "temp", n: 1,
				dir: dir, path: filepath.Join(dir, "temp")})
		}
	}
	return list
}

// parsePowerMode reads "pmode:0002", which nvpmodel leaves behind; releases
// with profiles of the fan add " fmode:quiet" to it.
func parsePowerMode(b []byte) (sample, error) {
	_, digits, found := strings.Cut(string(b), "pmode:")
	fields := strings.Fields(digits)
	if !found || len(fields) == 0 {
		return sample{}, errFormat
	}
	n, err := strconv.ParseUint(fields[0], 10, 8)
	if err != nil {
		return sample{}, errFormat
	}
	return sample{a: float64(n)}, nil
}

// Setup says how the box is set up in ways that shift its temperatures: the
// power mode, the fan profile and the firmware. A change is worth a new
// baseline. It is empty on a box that tells none of them.
func (s *Sampler) Setup() string {
	b := &builder{root: s.opts.Root}
	var parts []string
	if v, err := parsePowerMode([]byte(text(b.path("var/lib/nvpmodel/status")))); err == nil {
		parts = append(parts, "power mode "+strconv.Itoa(int(v.a)))
	}
	for line := range strings.Lines(text(b.path("var/lib/nvfancontrol/status"))) {
		if _, profile, found := strings.Cut(strings.TrimSpace(line), "FAN_PROFILE:"); found {
			parts = append(parts, "fan profile "+cleanLabel(profile))
		}
	}
	if bios := realName(text(b.path("sys/class/dmi/id/bios_version"))); bios != "" {
		parts = append(parts, "BIOS "+cleanLabel(bios))
	}
	return strings.Join(parts, ", ")
}
