// Package bmc reads the sensors of a server's management controller: in-band
// by ipmitool, or over the network by Redfish, old model and new.
//
// Vocabulary: a sensor is one thing the controller measures, by the name that
// its maker gave it; a place says where it sits as far as that is known. What
// the controller does not read at the moment is left out, never zero.
//
// Controllers quantise: 1 °C, 100 to 184 rpm, 5 W, measured on 150 real nodes.
// They glitch as well: 2550, 25450 and 25550 W are a byte of ones, scaled. Such
// values are left out, and of the others what Steady does not let pass.
//
// The one rule a caller can break: an in-band read takes seconds and costs the
// host CPU time; ask once a minute and not more often.
package bmc

import (
	"regexp"
	"slices"
	"strings"
)

// The kinds of sensors.
type Kind string

const (
	Celsius   Kind = "celsius"
	RPM       Kind = "rpm"
	DutyRatio Kind = "duty" // of a fan, 0 to 1
	Watts     Kind = "watts"
	CFM       Kind = "cfm" // air through the case, cubic feet a minute
	Intrusion Kind = "intrusion"
	// Of a power supply: watts from the wall and to the box, whether it works,
	// and the speed of its own fan.
	SupplyIn  Kind = "supply-in"
	SupplyOut Kind = "supply-out"
	SupplyOK  Kind = "supply-ok"
	SupplyRPM Kind = "supply-rpm"
)

// Place is where a sensor sits.
type Place string

const (
	Anywhere Place = ""
	Inlet    Place = "inlet"
	Exhaust  Place = "exhaust"
	System   Place = "system" // power of the whole box
)

// Sensor is one value.
type Sensor struct {
	Name  string
	Kind  Kind
	Place Place
	Value float64
}

var (
	inletName   = regexp.MustCompile(`(?i)inlet|intake|ambient|front`)
	exhaustName = regexp.MustCompile(`(?i)exhaust|outlet`)
	// A power supply has an inlet of its own, behind the box's.
	supplyName = regexp.MustCompile(`(?i)\bps(u)?[ _-]?\d|psu|power supply|\bvr\b|dimm|\bcpu`)
	psuName    = regexp.MustCompile(`(?i)\bps(u)?[ _-]?\d|psu|power supply`)
	inName     = regexp.MustCompile(`(?i)\bin(put)?\b|\bpin\b|ac power`)
	outName    = regexp.MustCompile(`(?i)\bout(put)?\b|\bpout\b|dc power`)
	systemName = regexp.MustCompile(`(?i)^(pwr consumption|system level|sys(tem)?[ _-]?(board )?(power|pwr)( level| consumption)?|total[ _-]?power|power[ _-]?meter|pw consumption|instantaneous power reading|server power)$`)
)

// placeOf goes by the names that makers use: "System Board Inlet Temp" (Dell),
// "01-Inlet Ambient" (HPE), "Ambient Temp" (Lenovo), "Inlet Temp" (Supermicro).
func placeOf(kind Kind, name string) Place {
	switch {
	case kind == Watts && systemName.MatchString(strings.TrimSpace(name)):
		return System
	case kind != Celsius || supplyName.MatchString(name):
		return Anywhere
	case exhaustName.MatchString(name):
		return Exhaust
	case inletName.MatchString(name):
		return Inlet
	}
	return Anywhere
}

// supplyKind tells the parts of a power supply by their name: "PS1 Input
// Power", "PSU2 Output Power", "PS1 Fan 1".
func supplyKind(kind Kind, name string) Kind {
	in, out := inName.MatchString(name), outName.MatchString(name)
	switch {
	case !psuName.MatchString(name):
		return kind
	case kind == RPM:
		return SupplyRPM
	case kind == Watts && in && !out:
		return SupplyIn
	case kind == Watts && out && !in:
		return SupplyOut
	}
	return kind
}

// glitches are bytes of ones after scaling by 10 and 100 W (FASRC's year of
// 1,724 nodes).
var glitches = []float64{2550, 25450, 25500, 25550}

// plausible says whether a value can be one.
func plausible(s Sensor) bool {
	switch s.Kind {
	case Celsius: // 0 is what controllers say of a sensor that is off
		return s.Value > -40 && s.Value <= 125 && s.Value != 0
	case RPM, SupplyRPM:
		return s.Value >= 0 && s.Value <= 40_000
	case DutyRatio:
		return s.Value >= 0 && s.Value <= 1
	case Watts, SupplyIn, SupplyOut:
		return s.Value > 0 && s.Value <= 5000 && !slices.Contains(glitches, s.Value)
	case CFM:
		return s.Value > 0 && s.Value <= 10_000
	case Intrusion, SupplyOK:
		return s.Value == 0 || s.Value == 1
	}
	return false
}

// fallbackInlet is what Supermicro calls the sensor nearest to the intake where
// there is no "Inlet Temp".
const fallbackInlet = "System Temp"

// maxSensors bounds what one controller may name.
const maxSensors = 300

// sorted leaves out what cannot be and names twice what has one name, in an
// order that stays.
func sorted(list []Sensor) []Sensor {
	list = slices.DeleteFunc(list, func(s Sensor) bool { return s.Name == "" || !plausible(s) })
	if !slices.ContainsFunc(list, func(s Sensor) bool { return s.Place == Inlet }) {
		for i := range list {
			if list[i].Kind == Celsius && strings.EqualFold(list[i].Name, fallbackInlet) {
				list[i].Place = Inlet
			}
		}
	}
	slices.SortStableFunc(list, func(x, y Sensor) int {
		if c := strings.Compare(string(x.Kind), string(y.Kind)); c != 0 {
			return c
		}
		return strings.Compare(x.Name, y.Name)
	})
	return list[:min(len(list), maxSensors)]
}

// clean keeps printable ASCII, and not much of it.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, strings.TrimSpace(s))
	return s[:min(len(s), 64)]
}
