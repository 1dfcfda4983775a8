package bmc

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestReadingPassesWhenThreeOfFiveAgree(t *testing.T) {
	for name, c := range map[string]struct {
		sensor         Sensor
		values, passed []float64
	}{
		"the first two wait":       {Sensor{Kind: Watts}, []float64{200, 210, 205}, []float64{205}},
		"a glitch":                 {Sensor{Kind: Watts}, []float64{200, 200, 200, 3000, 210}, []float64{200, 210}},
		"two glitches":             {Sensor{Kind: Watts}, []float64{200, 200, 200, 3000, 3000, 210}, []float64{200, 210}},
		"a glitch before all":      {Sensor{Kind: Watts}, []float64{3000, 200, 200, 200}, []float64{200}},
		"a jump that stays":        {Sensor{Kind: Watts}, []float64{100, 100, 100, 900, 910, 920}, []float64{100, 920}},
		"to and fro":               {Sensor{Kind: Watts}, []float64{100, 900, 100, 900, 100, 900, 100}, []float64{100, 900, 100}},
		"a fan that stops":         {Sensor{Kind: RPM}, []float64{5000, 5100, 4900, 0, 0, 0}, []float64{4900, 0}},
		"a fan that says nonsense": {Sensor{Kind: RPM}, []float64{5000, 5100, 4900, 25_500, 5000}, []float64{4900, 5000}},
		"a die under load":         {Sensor{Kind: Celsius}, []float64{45, 45, 46, 78, 80}, []float64{46, 78, 80}},
		"an inlet that jumps":      {Sensor{Kind: Celsius, Place: Inlet}, []float64{22, 22, 22, 40, 22}, []float64{22, 22}},
		"a flag":                   {Sensor{Kind: SupplyOK}, []float64{1, 1, 0}, []float64{1, 1, 0}},
	} {
		var s Steady
		var passed []float64
		for _, v := range c.values {
			c.sensor.Name, c.sensor.Value = "x", v
			list, _ := s.Take([]Sensor{c.sensor})
			for _, x := range list {
				passed = append(passed, x.Value)
			}
		}
		if !slices.Equal(passed, c.passed) {
			t.Errorf("%s: of %v pass %v, want %v", name, c.values, passed, c.passed)
		}
	}
}

func TestSensorsOfOneNameAreJudgedApart(t *testing.T) {
	var s Steady
	list := []Sensor{{"Temp", Celsius, "", 30}, {"Temp", Celsius, "", 90}}
	s.Take(list)
	if _, young := s.Take(list); !young {
		t.Error("two readings are said to be enough")
	}
	if got, young := s.Take(list); !slices.Equal(got, list) || young {
		t.Errorf("%v, young %v", got, young)
	}
}

// Names that change at each poll cost no memory without end.
func TestForgottenSensorsAreForgotten(t *testing.T) {
	var s Steady
	for i := range 1000 {
		s.Take([]Sensor{{string(rune('a' + i%900)), RPM, "", 900}})
	}
	if len(s.seen) > forgotten+1 {
		t.Errorf("%d sensors are remembered", len(s.seen))
	}
}

// Of a long run with one glitch in fifty, no glitch passes and hardly a true
// reading is held back.
func TestGlitchesAmongManyReadings(t *testing.T) {
	const seed = 3
	r := rand.New(rand.NewPCG(seed, seed))
	var s Steady
	glitches, passed, truth, held := 0, 0, 0, 0
	for range 20_000 {
		v := 150 + 250*r.Float64()
		glitch := r.IntN(50) == 0
		if glitch {
			v = 2555 + 2000*r.Float64() // not one of the known bytes of ones
			glitches++
		} else {
			truth++
		}
		list, _ := s.Take([]Sensor{{"Pwr", Watts, System, v}})
		if glitch && len(list) > 0 {
			passed++
		}
		if !glitch && len(list) == 0 {
			held++
		}
	}
	// Three of five by chance: 50⁻² × 6 of all glitches.
	if passed > glitches/100 || held > truth/1000 {
		t.Errorf("seed %d: %d of %d glitches pass, %d of %d readings are held back", seed, passed, glitches, held, truth)
	}
}

func TestPowerBeyondTheSuppliesIsNone(t *testing.T) {
	var old power
	text := `{"PowerControl": [{"PowerConsumedWatts": 950, "PowerCapacityWatts": 500}], "PowerSupplies": [
		{"Name": "PS1", "PowerInputWatts": 700, "PowerOutputWatts": 800, "PowerCapacityWatts": 500},
		{"Name": "PS2", "PowerInputWatts": 700}]}`
	if err := json.Unmarshal([]byte(text), &old); err != nil {
		t.Fatal(err)
	}
	if got := sorted(old.sensors()); !slices.Equal(got, []Sensor{{"PS1", SupplyIn, "", 700}, {"PS2", SupplyIn, "", 700}}) {
		t.Errorf("%v", got)
	}
	client, err := NewRedfish(Redfish{URL: "http://localhost"})
	if err != nil {
		t.Fatal(err)
	}
	client.http.Transport = inMemory{
		"/redfish/v1/Chassis":   []byte(`{"Members": [{"@odata.id": "/redfish/v1/Chassis/1"}]}`),
		"/redfish/v1/Chassis/1": []byte(`{"EnvironmentMetrics": {"@odata.id": "/redfish/v1/E"}, "PowerSubsystem": {"@odata.id": "/redfish/v1/P"}}`),
		"/redfish/v1/E":         []byte(`{"PowerWatts": {"Reading": 1600}}`),
		"/redfish/v1/P":         []byte(`{"CapacityWatts": 1000, "PowerSupplies": {"@odata.id": "/redfish/v1/P/S"}}`),
		"/redfish/v1/P/S":       []byte(`{"Members": []}`),
	}
	if list, _ := client.Read(t.Context()); len(list) != 0 {
		t.Errorf("%v of supplies of 1,000 W", list)
	}
}

func TestSupermicroInletByItsOldName(t *testing.T) {
	both := "Inlet Temp | 23 degrees C | ok\nSystem Temp | 31 degrees C | ok\n"
	if got := sdr([]byte(both)); got[0].Place != Inlet || got[1].Place != Anywhere {
		t.Errorf("both: %v", got)
	}
	if got := sdr([]byte("CPU Temp | 50 degrees C | ok\nSystem Temp | 31 degrees C | ok\n")); got[0].Place != Anywhere || got[1].Place != Inlet {
		t.Errorf("one: %v", got)
	}
}
