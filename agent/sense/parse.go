package sense

import (
	"bytes"
	"math"
	"strconv"
	"strings"
)

// parseInt reads the one integer of a sysfs attribute.
func parseInt(b []byte) (int64, error) {
	n, err := strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64)
	if err != nil {
		return 0, errFormat
	}
	return n, nil
}

// number returns a parser for an integer attribute in units of 1/scale, whose
// plausible values lie in [lo, hi] after scaling.
func number(scale, lo, hi float64) func([]byte) (sample, error) {
	return func(b []byte) (sample, error) {
		n, err := parseInt(b)
		if err != nil {
			return sample{}, err
		}
		v := float64(n) / scale
		if v < lo || v > hi {
			return sample{}, errNoValue
		}
		return sample{a: v}, nil
	}
}

// parseTemp reads m°C. Inputs that are not connected say 127 or 128 °C, -128 °C
// or exactly 0 (nct67xx), zones of switched-off units -256 or -274 °C, a dead
// Coral chip -89.7 °C: none of these is a temperature. 125 °C is above the trip
// of every die we know. The price of the zero rule is a gap while a coarse
// sensor stands at 0 °C.
func parseTemp(b []byte) (sample, error) {
	n, err := parseInt(b)
	if err != nil {
		return sample{}, err
	}
	return plausibleTemp(float64(n))
}

// plausibleTemp takes m°C. Values up to 125 are those of a driver that means
// whole degrees: closer to zero than a tenth of a degree nothing stays.
func plausibleTemp(milli float64) (sample, error) {
	if math.Abs(milli) <= 125 || milli <= -40_000 || milli > 125_000 || milli != milli {
		return sample{}, errNoValue
	}
	return sample{a: milli / 1000}, nil
}

// parseFan reads rpm; 65535 is a read error of several chips.
func parseFan(b []byte) (sample, error) {
	return number(1, 0, 40_000)(b)
}

// parseStat takes busy and total jiffies from the first line of /proc/stat.
// Fields: user nice system idle iowait irq softirq steal; guest time, which
// follows, is contained in user (proc(5)).
func parseStat(b []byte) (sample, error) {
	line, _, _ := strings.Cut(string(b), "\n")
	f := strings.Fields(line)
	if len(f) < 5 || f[0] != "cpu" {
		return sample{}, errFormat
	}
	var total, idle float64
	for i, field := range f[1:min(len(f), 9)] {
		n, err := strconv.ParseUint(field, 10, 63)
		if err != nil {
			return sample{}, errFormat
		}
		total += float64(n)
		if i == 3 || i == 4 {
			idle += float64(n)
		}
	}
	return sample{a: total - idle, b: total}, nil
}

// parseMeminfo returns the available and the total bytes.
func parseMeminfo(b []byte) (sample, error) {
	total, ok1 := meminfoBytes(b, "MemTotal:")
	avail, ok2 := meminfoBytes(b, "MemAvailable:")
	if !ok1 || !ok2 || total <= 0 || avail > total {
		return sample{}, errFormat
	}
	return sample{a: avail, b: total}, nil
}

func meminfoBytes(b []byte, key string) (float64, bool) {
	for line := range strings.Lines(string(b)) {
		rest, found := strings.CutPrefix(line, key)
		if !found {
			continue
		}
		f := strings.Fields(rest)
		if len(f) != 2 || f[1] != "kB" {
			return 0, false
		}
		n, err := strconv.ParseUint(f[0], 10, 52)
		return float64(n) * 1024, err == nil
	}
	return 0, false
}

// parseFirstFloat reads the first field of /proc/loadavg and /proc/uptime.
func parseFirstFloat(b []byte) (sample, error) {
	f := strings.Fields(string(b))
	if len(f) == 0 {
		return sample{}, errFormat
	}
	v, err := strconv.ParseFloat(f[0], 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) || v < 0 {
		return sample{}, errFormat
	}
	return sample{a: v}, nil
}

// parseCPUList counts the CPUs of a kernel list such as "0-3,6".
func parseCPUList(text string) (int, bool) {
	count := 0
	for part := range strings.SplitSeq(strings.TrimSpace(text), ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		lo, err1 := strconv.ParseUint(first, 10, 16)
		hi, err2 := strconv.ParseUint(last, 10, 16)
		if err1 != nil || err2 != nil || hi < lo {
			return 0, false
		}
		count += int(hi-lo) + 1
	}
	return count, true
}

// splitAttr cuts "temp12_input" into "temp", 12 and "input", and "pwm1" into
// "pwm", 1 and "".
func splitAttr(name string) (kind string, n int, attr string, ok bool) {
	digits := strings.IndexAny(name, "0123456789")
	if digits <= 0 {
		return "", 0, "", false
	}
	end := digits
	for end < len(name) && name[end] >= '0' && name[end] <= '9' {
		end++
	}
	n, err := strconv.Atoi(name[digits:end])
	if err != nil || strconv.Itoa(n) != name[digits:end] {
		return "", 0, "", false
	}
	kind, attr = name[:digits], name[end:]
	if attr != "" {
		if attr[0] != '_' || len(attr) == 1 {
			return "", 0, "", false
		}
		attr = attr[1:]
	}
	return kind, n, attr, true
}

// cleanLabel keeps a label fit for a metric name in braces.
func cleanLabel(label string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("_./:+#-", r):
			return r
		}
		return '_'
	}, strings.TrimSpace(label))
}
