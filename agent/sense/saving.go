package sense

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Saving says why the box is to draw less power than it was set up for; empty:
// it is not, or does not tell. It runs on a battery (of its own, or by a UPS in
// the readings), its power profile saves, or a Jetson is in a mode of fewer
// watts than the one it starts in.
func (s *Sampler) Saving(readings []Reading) string {
	for _, r := range readings {
		if name, _, _ := strings.Cut(r.Metric, "{"); name == string(UPSBattery) && r.Value > 0 {
			return "the box runs on the battery of a UPS"
		}
	}
	b := &builder{root: s.opts.Root}
	if b.unplugged() {
		return "the box runs on its battery"
	}
	// Documentation/ABI/testing/sysfs-platform_profile
	switch profile := text(b.path("sys/firmware/acpi/platform_profile")); profile {
	case "low-power", "quiet":
		return "the power profile is " + profile
	}
	return b.lowerMode()
}

// unplugged says that there are mains and none is connected
// (Documentation/ABI/testing/sysfs-class-power).
func (b *builder) unplugged() bool {
	dir, off := b.path("sys/class/power_supply"), false
	for _, name := range dirNames(dir) {
		if text(filepath.Join(dir, name, "type")) != "Mains" {
			continue
		}
		switch text(filepath.Join(dir, name, "online")) {
		case "1":
			return false
		case "0":
			off = true
		}
	}
	return off
}

// lowerMode compares the mode of nvpmodel with the one that the board starts in.
// Their numbers have no order, their names have: 7W, 15W, MAXN.
func (b *builder) lowerMode() string {
	now, err := parsePowerMode([]byte(text(b.path("var/lib/nvpmodel/status"))))
	if err != nil {
		return ""
	}
	// Not of sysfs, and longer than what text reads; 64 KiB would be ten times one.
	conf, err := readStart(b.path("etc/nvpmodel.conf"), 64<<10)
	if err != nil {
		return ""
	}
	names, first := map[string]string{}, ""
	for line := range strings.Lines(string(conf)) {
		fields := map[string]string{}
		for _, f := range strings.Fields(strings.Trim(strings.TrimSpace(line), "<>")) {
			key, value, _ := strings.Cut(f, "=")
			fields[key] = value
		}
		if _, ok := fields["POWER_MODEL"]; ok {
			names[fields["ID"]] = fields["NAME"]
		}
		if _, ok := fields["PM_CONFIG"]; ok {
			first = fields["DEFAULT"]
		}
	}
	mode := names[strconv.Itoa(int(now.a))]
	if watts(mode) < watts(names[first]) {
		return "the power mode is " + cleanLabel(mode)
	}
	return ""
}

// readStart reads at most max bytes of a file on disk.
func readStart(path string, max int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, max))
}

// watts of a mode by its name, MODE_15W or 15W; one without is the highest.
func watts(mode string) float64 {
	const unbounded = 1e6
	for part := range strings.FieldsFuncSeq(mode, func(r rune) bool { return r == '_' || r == '-' }) {
		if n, err := strconv.ParseFloat(strings.TrimSuffix(part, "W"), 64); err == nil && strings.HasSuffix(part, "W") {
			return n
		}
	}
	return unbounded
}
