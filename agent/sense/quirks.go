package sense

import (
	"path"
	"slices"
	"strings"
)

// quirk is one thing that a driver or a board says and that is not so. Chip,
// label and kind are path.Match patterns, "" matches anything; a thermal zone
// has the chip "zone" and its type as label. With neither dummies nor a limit
// the sensor is not read at all.
type quirk struct {
	board       string // prefix of Board.Product; "" for all
	chip, label string
	kind        string
	dummies     []float64 // values that mean nothing, in the unit of the metric
	above       float64   // greater values mean nothing; 0 means no limit
	why         string
}

// quirks is data; docs/sensors.md shows it. Sources: the kernel's hwmon
// documentation and the bug trackers of lm-sensors, node_exporter and frigate.
var quirks = []quirk{
	{chip: "zone", label: "PMIC-Die", why: "a constant 100 °C on Jetsons before JetPack 5"},
	{chip: "zone", label: "thermal-fan-est", why: "the fan governor's weighted mean of other zones"},
	{chip: "zone", label: "INT3400 Thermal", why: "a constant 20 °C: the zone only carries the policy"},
	{chip: "zone", label: "acpitz", dummies: []float64{16.8, 27.8, 29.8}, why: "constants of firmware without a sensor behind them"},
	{chip: "acpitz", dummies: []float64{16.8, 27.8, 29.8}, why: "constants of firmware without a sensor behind them"},
	{chip: "nct6*", label: "AUXTIN*", above: 100, why: "an input that is not connected floats between 100 and 127 °C"},
	{chip: "w1_slave_temp", dummies: []float64{85}, why: "what a DS18B20 says after power-on, before it has measured"},
	{chip: "asus_wmi_sensors", why: "reading it makes the fans of some boards stop or stay at full speed (kernel, asus_wmi_sensors)"},
	{chip: "BAT*", kind: "power", why: "what a battery gives, not what the box takes"},
	{chip: "ucsi_source_psy*", why: "what was agreed over USB-C, not what flows"},
	{chip: "*", label: "[TR]X_power", kind: "power", why: "light in a fibre, in µW"},
	{chip: "*", label: "bias", kind: "curr", why: "the laser's current in an SFP module"},
	{chip: "amd_energy", label: "Ecore*", kind: "energy", why: "one counter per core beside that of the socket"},
	{board: "Jetson", chip: "ina3221", label: "sum of shunt voltages", why: "no rail"},
	{board: "NVIDIA Jetson", chip: "ina3221", label: "sum of shunt voltages", why: "no rail"},
}

func (q quirk) matches(product string, f found) bool {
	chip := f.chip
	if chip == "" {
		chip = "zone"
	}
	like := func(pattern, name string) bool {
		ok, err := path.Match(pattern, name)
		return pattern == "" || ok && err == nil
	}
	return strings.HasPrefix(product, q.board) && like(q.chip, chip) && like(q.label, f.label) && like(q.kind, f.kind)
}

// withQuirks leaves out what is known to say nothing and returns the rest with
// what their parsers must refuse.
func withQuirks(product string, all []found) []found {
	var kept []found
	for _, f := range all {
		drop := false
		for _, q := range quirks {
			if !q.matches(product, f) {
				continue
			}
			if q.dummies == nil && q.above == 0 {
				drop = true
				break
			}
			f.dummies = append(slices.Clone(f.dummies), q.dummies...)
			if q.above > 0 && (f.above == 0 || q.above < f.above) {
				f.above = q.above
			}
		}
		if !drop {
			kept = append(kept, f)
		}
	}
	return kept
}

// refuse makes a parser that knows the quirks of one sensor.
func (f found) refuse(parse func([]byte) (sample, error)) func([]byte) (sample, error) {
	if f.dummies == nil && f.above == 0 {
		return parse
	}
	return func(b []byte) (sample, error) {
		s, err := parse(b)
		if err == nil && (slices.Contains(f.dummies, s.a) || f.above > 0 && s.a > f.above) {
			return sample{}, errNoValue
		}
		return s, err
	}
}
