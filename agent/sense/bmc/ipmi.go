package bmc

import (
	"context"
	"errors"
	"math"
	"strconv"
	"strings"

	"github.com/edgeherd/edgeherd/agent/sense/child"
)

// IPMI reads the sensors of the box's own controller by ipmitool. Extra
// arguments go first, such as "-I lanplus -H host" for another's.
func IPMI(ctx context.Context, ipmitool string, extra ...string) ([]Sensor, error) {
	out, err := child.Output(ctx, ipmitool, append(append([]string{}, extra...), "sdr", "elist", "full")...)
	if err != nil && len(out) == 0 {
		return nil, err
	}
	list := sdr(out)
	for _, s := range list {
		if s.Place == System {
			return list, err
		}
	}
	// Controllers without such a record may know DCMI; many do not, and say so
	// with an exit code.
	if out, err := child.Output(ctx, ipmitool, append(append([]string{}, extra...), "dcmi", "power", "reading")...); err == nil {
		list = sorted(append(list, dcmi(out)...))
	}
	if len(list) == 0 && err == nil {
		err = errors.New("ipmitool named no sensor with a value")
	}
	return list, err
}

// sdr decodes the rows of ipmitool sdr (name | value | status), sdr elist
// (name | number | status | entity | value) and sensor (name | value | unit |
// status | thresholds). Rows that say "no reading" or "disabled" have no value.
func sdr(out []byte) []Sensor {
	var list []Sensor
	for line := range strings.Lines(string(out)) {
		f := strings.Split(line, "|")
		for i := range f {
			f[i] = strings.TrimSpace(f[i])
		}
		var reading, entity, status string
		switch {
		case len(f) == 3:
			reading, status = f[1], f[2]
		case len(f) == 5:
			reading, status, entity = f[4], f[2], f[3]
		case len(f) >= 6:
			reading, status = f[1]+" "+f[2], f[3]
		default:
			continue
		}
		if status == "ns" || status == "na" { // no sensor or not scanned
			continue
		}
		s, ok := parseReading(clean(f[0]), reading)
		if !ok {
			continue
		}
		// Entities 55 and 64 are the air inlet (IPMI 2.0 table 43-13, DCMI 1.5).
		if major, _, _ := strings.Cut(entity, "."); s.Kind == Celsius && (major == "55" || major == "64") {
			s.Place = Inlet
		}
		list = append(list, s)
	}
	return sorted(list)
}

// parseReading takes "23 degrees C", "3000 RPM", "212 Watts", "46 CFM".
func parseReading(name, text string) (Sensor, bool) {
	number, unit, _ := strings.Cut(text, " ")
	v, err := strconv.ParseFloat(number, 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
		return Sensor{}, false
	}
	s := Sensor{Name: name, Value: v}
	switch strings.ToLower(strings.TrimSpace(unit)) {
	case "degrees c":
		s.Kind = Celsius
	case "degrees f":
		s.Kind, s.Value = Celsius, (v-32)/1.8
	case "rpm":
		s.Kind = RPM
	case "watts":
		s.Kind = Watts
	case "cfm":
		s.Kind = CFM
	case "percent", "unspecified", "percent unspecified":
		if !strings.Contains(strings.ToLower(name), "fan") {
			return Sensor{}, false
		}
		s.Kind, s.Value = DutyRatio, v/100
	default:
		return Sensor{}, false
	}
	s.Kind = supplyKind(s.Kind, name)
	s.Place = placeOf(s.Kind, name)
	return s, true
}

// dcmi decodes "Instantaneous power reading:   212 Watts".
func dcmi(out []byte) []Sensor {
	for line := range strings.Lines(string(out)) {
		name, reading, ok := strings.Cut(line, ":")
		if name = strings.TrimSpace(name); !ok || name != "Instantaneous power reading" {
			continue
		}
		if s, ok := parseReading(name, strings.TrimSpace(reading)); ok {
			return sorted([]Sensor{s})
		}
	}
	return nil
}
