package sense

import (
	"cmp"
	"path"
	"slices"
	"strings"
)

// quirk is one thing that a driver or a board says and that is not so. Chip,
// label and kind are path.Match patterns, "" matches anything; a thermal zone
// has the chip "zone" and its type as label. With neither dummies nor a limit
// nor a meaning the sensor is not read at all.
type quirk struct {
	board       string // prefix of Board.Product or of DMI's board_name; "" for all
	chip, label string // of a sensor without a label its file, such as temp2
	kind        string
	dummies     []float64 // values that mean nothing, in the unit of the metric
	above       float64   // greater values mean nothing; 0 means no limit
	means       string    // the role that the sensor has on this board
	why         string
}

// quirks is data; docs/sensors.md shows it. Sources: the kernel's hwmon
// documentation, the bug trackers of lm-sensors, node_exporter and frigate, and
// for single boards what their owners found out (lm-sensors, configs).
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

	{board: "A300M-STX", chip: "nct6793", label: "SYSTIN", why: notConnected},
	{board: "A300M-STX", chip: "nct6793", label: "AUXTIN[1-3]", why: notConnected},
	{board: "A300M-STX", chip: "nct6793", label: "intrusion*", why: "the case of a DeskMini has no switch"},
	{board: "B450 Gaming-ITX/ac", chip: "nct6792", label: "SYSTIN", why: notConnected},
	{board: "B450 Gaming-ITX/ac", chip: "nct6792", label: "AUXTIN[1-3]", why: notConnected},
	{board: "B450 Gaming-ITX/ac", chip: "nct6792", label: "intrusion*", why: notConnected},
	{board: "Z390M-ITX/ac", chip: "nct6793", label: "SYSTIN", why: notConnected},
	{board: "Z390M-ITX/ac", chip: "nct6793", label: "AUXTIN0", means: "board", why: "found by touch"},
	{board: "Z390M-ITX/ac", chip: "nct6793", label: "AUXTIN[1-3]", why: notConnected},
	{board: "Z390M-ITX/ac", chip: "nct6793", label: "intrusion1", why: notConnected},
	{board: "J5005-ITX", chip: "nct6796", label: "AUXTIN*", why: notConnected},
	{board: "J5005-ITX", chip: "nct6796", label: "intrusion1", why: notConnected},
	{board: "X470D4U", chip: "nct6779", label: "AUXTIN3", why: "repeats SYSTIN"},
	{board: "X470D4U", chip: "nct6779", label: "intrusion1", why: notConnected},
	{board: "P10S-M WS", chip: "nct6791", label: "AUXTIN[01]", why: "constants of 23 and 26 °C"},
	{board: "P10S-M WS", chip: "nct6791", label: "AUXTIN2", means: "board", why: "SYSTIN is not connected"},
	{board: "TUF GAMING X570-PLUS", chip: "nct6798", label: "intrusion*", why: notConnected},
	{board: "C1037UN-EU", chip: "it8728", label: "temp2", why: notConnected},
	{board: "C1037UN-EU", chip: "it8728", label: "intrusion0", why: notConnected},
}

const notConnected = "not connected"

func (q quirk) matches(board []string, f found) bool {
	chip := f.chip
	if chip == "" {
		chip = "zone"
	}
	label := f.label
	if label == "" {
		label = path.Base(f.key)
	}
	like := func(pattern, name string) bool {
		ok, err := path.Match(pattern, name)
		return pattern == "" || ok && err == nil
	}
	here := slices.ContainsFunc(board, func(name string) bool { return strings.HasPrefix(name, q.board) })
	return here && like(q.chip, chip) && like(q.label, label) && like(q.kind, f.kind)
}

// withQuirks leaves out what is known to say nothing and returns the rest with
// what their parsers must refuse.
func withQuirks(board []string, all []found) []found {
	var kept []found
	for _, f := range all {
		drop := false
		for _, q := range quirks {
			if !q.matches(board, f) {
				continue
			}
			if q.dummies == nil && q.above == 0 && q.means == "" {
				drop = true
				break
			}
			f.means = cmp.Or(q.means, f.means)
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
