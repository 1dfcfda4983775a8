package bmc

import (
	"cmp"
	"encoding/json"
	"strings"
)

// This file has as much of the public schemas (DSP8010, 2024.3) as is used.
// A number that is null or missing stays nil.

type link struct {
	ID string `json:"@odata.id"`
}

type collection struct {
	Members []link `json:"Members"`
}

type chassis struct {
	ThermalSubsystem *link `json:"ThermalSubsystem"`
	Thermal          *link `json:"Thermal"`
	Environment      *link `json:"EnvironmentMetrics"`
	Power            *link `json:"Power"`
	PowerSubsystem   *link `json:"PowerSubsystem"`
	Sensors          *link `json:"Sensors"`
	Security         *struct {
		Intrusion string `json:"IntrusionSensor"`
	} `json:"PhysicalSecurity"`
}

// status tells a slot that is empty from a sensor that works.
type status struct {
	State  string `json:"State"`
	Health string `json:"Health"`
}

func (s status) off() bool { return s.State == "Absent" || s.State == "Disabled" }

// works tells whether a power supply does, unless its bay is empty or it does
// not say.
func (s status) works(name string) []Sensor {
	if s.State == "Absent" || s.State == "" && s.Health == "" {
		return nil
	}
	ok := 0.0
	if (s.State == "Enabled" || s.State == "StandbySpare" || s.State == "") && (s.Health == "OK" || s.Health == "") {
		ok = 1
	}
	return add(nil, name, SupplyOK, figure{&ok}, "")
}

// figure is a number that some services write as text ("23").
type figure struct{ v *float64 }

func (f *figure) UnmarshalJSON(data []byte) error {
	var n float64
	if json.Unmarshal([]byte(strings.Trim(string(data), `"`)), &n) == nil && string(data) != "null" {
		f.v = &n
	}
	return nil // anything else is no value, and no reason to lose the others
}

// below is nothing where a power is more than one and a half times what it is
// rated for: such registers were seen, and a supply would have gone off.
func (f figure) below(rated figure) figure {
	if f.v != nil && rated.v != nil && *rated.v > 0 && *f.v > 1.5**rated.v {
		return figure{}
	}
	return f
}

type reading struct {
	Reading figure `json:"Reading"`
}

type thermalSubsystem struct {
	Metrics *link `json:"ThermalMetrics"`
	Fans    *link `json:"Fans"`
}

type thermalMetrics struct {
	Summary *struct {
		Intake, Exhaust, Ambient *reading
	} `json:"TemperatureSummaryCelsius"`
	All []struct {
		Reading figure `json:"Reading"`
		Device  string `json:"DeviceName"`
		Context string `json:"PhysicalContext"`
		Source  string `json:"DataSourceUri"`
	} `json:"TemperatureReadingsCelsius"`
}

func (m thermalMetrics) sensors() (list []Sensor) {
	seen := map[Place]bool{}
	for _, r := range m.All {
		name := cmp.Or(r.Device, r.Source[strings.LastIndex(r.Source, "/")+1:], r.Context)
		list = add(list, name, Celsius, r.Reading, r.Context)
		if n := len(list); n > 0 {
			seen[list[n-1].Place] = true
		}
	}
	if m.Summary == nil {
		return list
	}
	for _, s := range []struct {
		name, context string
		r             *reading
		place         Place
	}{{"Intake", "Intake", m.Summary.Intake, Inlet}, {"Ambient", "Intake", m.Summary.Ambient, Inlet}, {"Exhaust", "Exhaust", m.Summary.Exhaust, Exhaust}} {
		if s.r != nil && !seen[s.place] {
			seen[s.place] = true
			list = add(list, s.name, Celsius, s.r.Reading, s.context)
		}
	}
	return list
}

type fan struct {
	Name   string `json:"Name"`
	Status status `json:"Status"`
	Speed  *struct {
		Reading figure `json:"Reading"`
		RPM     figure `json:"SpeedRPM"`
	} `json:"SpeedPercent"`
}

func (f fan) sensors() (list []Sensor) {
	if f.Speed == nil || f.Status.off() {
		return nil
	}
	list = add(list, f.Name, DutyRatio, f.Speed.Reading, "")
	return add(list, f.Name, RPM, f.Speed.RPM, "")
}

type environment struct {
	Power *reading `json:"PowerWatts"`
}

func (e environment) sensors(capacity figure) []Sensor {
	if e.Power == nil {
		return nil
	}
	return add(nil, "Total Power", Watts, e.Power.Reading.below(capacity), "")
}

type sensor struct {
	Name    string `json:"Name"`
	Reading figure `json:"Reading"`
	Units   string `json:"ReadingUnits"`
	Context string `json:"PhysicalContext"`
	Status  status `json:"Status"`
}

func (s sensor) sensors() []Sensor {
	if s.Status.off() {
		return nil
	}
	switch s.Units {
	case "Cel", "Celsius":
		return add(nil, s.Name, Celsius, s.Reading, s.Context)
	case "RPM", "{rev}/min":
		return add(nil, s.Name, RPM, s.Reading, "")
	case "W":
		return add(nil, s.Name, Watts, s.Reading, "")
	case "%":
		if strings.Contains(strings.ToLower(s.Name), "fan") || s.Context == "Fan" {
			return add(nil, s.Name, DutyRatio, s.Reading, "")
		}
	}
	return nil
}

type thermal struct {
	Temperatures []struct {
		Name    string `json:"Name"`
		Reading figure `json:"ReadingCelsius"`
		Context string `json:"PhysicalContext"`
		Status  status `json:"Status"`
	} `json:"Temperatures"`
	Fans []struct {
		Name    string `json:"Name"`
		OldName string `json:"FanName"` // before Thermal 1.1
		Reading figure `json:"Reading"`
		Current figure `json:"CurrentReading"` // HPE iLO 4
		Units   string `json:"ReadingUnits"`   // RPM on Dell, Percent on HPE
		OldUnit string `json:"Units"`
		Status  status `json:"Status"`
	} `json:"Fans"`
}

func (t thermal) sensors() (list []Sensor) {
	for _, s := range t.Temperatures {
		if !s.Status.off() {
			list = add(list, s.Name, Celsius, s.Reading, s.Context)
		}
	}
	for _, f := range t.Fans {
		if f.Status.off() {
			continue
		}
		kind, r := RPM, f.Reading
		if cmp.Or(f.Units, f.OldUnit) == "Percent" {
			kind = DutyRatio
		}
		if r.v == nil {
			r = f.Current
		}
		list = add(list, cmp.Or(f.Name, f.OldName), kind, r, "")
	}
	return list
}

type power struct {
	Control []struct {
		Name     string `json:"Name"`
		Watts    figure `json:"PowerConsumedWatts"`
		Capacity figure `json:"PowerCapacityWatts"`
	} `json:"PowerControl"`
	Supplies []struct {
		Name   string `json:"Name"`
		Input  figure `json:"PowerInputWatts"`
		Output figure `json:"PowerOutputWatts"`
		Last   figure `json:"LastPowerOutputWatts"` // before Power 1.5
		Rated  figure `json:"PowerCapacityWatts"`
		Status status `json:"Status"`
	} `json:"PowerSupplies"`
}

func (p power) sensors() (list []Sensor) {
	for i, c := range p.Control {
		name := cmp.Or(c.Name, "Power Control")
		if i == 0 { // the first is the chassis itself (Power schema, PowerControl)
			name = "Total Power"
		}
		list = add(list, name, Watts, c.Watts.below(c.Capacity), "")
	}
	for _, s := range p.Supplies {
		out := s.Output
		if out.v == nil {
			out = s.Last
		}
		list = append(list, s.Status.works(s.Name)...)
		list = add(list, s.Name, SupplyIn, s.Input.below(s.Rated), "")
		list = add(list, s.Name, SupplyOut, out.below(s.Rated), "")
	}
	return list
}

type powerSubsystem struct {
	Capacity figure `json:"CapacityWatts"` // of all supplies together
	Supplies *link  `json:"PowerSupplies"`
}

type supply struct {
	Name    string `json:"Name"`
	Rated   figure `json:"PowerCapacityWatts"`
	Status  status `json:"Status"`
	Metrics *link  `json:"Metrics"`
}

type supplyMetrics struct {
	In  reading `json:"InputPowerWatts"`
	Out reading `json:"OutputPowerWatts"`
}

// add appends a sensor that has a value. The maker's own word for where it
// sits goes before its name.
func add(list []Sensor, name string, kind Kind, r figure, context string) []Sensor {
	if r.v == nil {
		return list
	}
	s := Sensor{Name: clean(name), Kind: supplyKind(kind, name), Value: *r.v}
	if kind == DutyRatio {
		s.Value /= 100
	}
	switch s.Place = placeOf(kind, s.Name); {
	case kind == Celsius && context == "Intake":
		s.Place = Inlet
	case kind == Celsius && context == "Exhaust":
		s.Place = Exhaust
	}
	return append(list, s)
}
