package health

import (
	"math"
	"strconv"
	"time"
)

// Value is one figure that may be missing: NaN in memory, null in JSON. A
// missing figure is never a zero.
type Value float32

// Missing is a figure that was not read.
func Missing() Value { return Value(math.NaN()) }

// OK reports whether the figure is there.
func (v Value) OK() bool { return v == v }

func (v Value) MarshalJSON() ([]byte, error) {
	if !v.OK() || math.IsInf(float64(v), 0) {
		return []byte("null"), nil
	}
	return strconv.AppendFloat(nil, float64(v), 'g', -1, 32), nil
}

func (v *Value) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		*v = Missing()
		return nil
	}
	f, err := strconv.ParseFloat(string(data), 32)
	*v = Value(f)
	return err
}

// Field names one figure of a box.
type Field uint8

// The figures. Temperatures are in °C, power in W, clock in Hz, fans in
// turns a minute; duty, busy and throttled are ratios 0..1. The SDs are
// standard deviations within the time that a row stands for. Neighbour is the
// inlet of boxes at the same site: no column of the box, filled in by Replay
// or by the controller. NVMeUsed and NVMeSpare are percent as the drive tells
// them, NVMeErrors its media errors so far; PSUIn is W from the wall, PSUOut W
// to the box, PSUOK the share of the power supplies that work. New figures go
// to the end: their place is part of the stored form of an Hour.
const (
	Die Field = iota
	Inlet
	Board
	NVMe
	Exhaust
	Room
	Power
	PWM
	RPM1
	RPM2
	RPM3
	RPM4
	Throttled
	Clock
	Busy
	PowerSD
	PWMSD
	RPMSD
	Neighbour
	RPMSD2
	RPMSD3
	RPMSD4
	NVMeUsed
	NVMeSpare
	NVMeErrors
	PSUIn
	PSUOut
	PSUOK
	PSUFan
	fields // their number
)

// Fans is how many fans of a box are told apart.
const Fans = 4

// Figures are all fields of one moment or hour.
type Figures [fields]Value

// Blank has every figure missing.
func Blank() Figures {
	var f Figures
	for i := range f {
		f[i] = Missing()
	}
	return f
}

// Sample is one reading of a box, or the mean of a period.
type Sample struct {
	Time time.Time
	V    Figures
	// Count is how many readings a mean was made from; 0 and 1: one.
	Count int
}

// span is what a figure can be. Readings outside are refused: sensors that are
// not connected read 127, 128, −128, −256 or 0 °C, a dead Coral −89.7 °C, a fan
// that could not be read 65535, a BMC's glitch 2550 or 25550 W.
type span struct {
	low, high float64
	notZero   bool // exactly 0 is a sensor that says nothing
	unit      string
	wrong     func(v float64) string // the unit that a reading seems to be in
}

var spans = [fields]span{
	Die:       {-40, 125, true, "°C", milli},
	Inlet:     {-40, 75, true, "°C", milli},
	Board:     {-40, 125, true, "°C", milli},
	NVMe:      {-40, 125, true, "°C", milli},
	Exhaust:   {-40, 100, true, "°C", milli},
	Room:      {-40, 75, true, "°C", milli},
	Power:     {0.1, 2000, true, "W", overScale(3000, 2600, "mW or µW")},
	PWM:       {0, 1, false, "ratio 0..1", ratio},
	RPM1:      {0, 30000, false, "rpm", nil},
	RPM2:      {0, 30000, false, "rpm", nil},
	RPM3:      {0, 30000, false, "rpm", nil},
	RPM4:      {0, 30000, false, "rpm", nil},
	Throttled: {0, 1, false, "ratio 0..1", ratio},
	Clock:     {1e7, 2e10, true, "Hz", slowClock},
	Busy:      {0, 1, false, "ratio 0..1", ratio},
	PowerSD:   {0, 2000, false, "W", overScale(3000, 2600, "mW or µW")},
	PWMSD:     {0, 1, false, "ratio 0..1", ratio},
	RPMSD:     {0, 30000, false, "rpm", nil},
	Neighbour: {-40, 75, true, "°C", milli},
	RPMSD2:    {0, 30000, false, "rpm", nil},
	RPMSD3:    {0, 30000, false, "rpm", nil},
	RPMSD4:    {0, 30000, false, "rpm", nil},

	// percentage_used may pass 100 and stays at 255 (NVMe 1.4, 5.14.1.2).
	NVMeUsed:   {0, 255, false, "percent", nil},
	NVMeSpare:  {0, 100, false, "percent", nil},
	NVMeErrors: {0, 1e9, false, "errors", nil},
	PSUIn:      {0.1, 5000, true, "W", overScale(5000, 26000, "mW or µW")},
	PSUOut:     {0.1, 5000, true, "W", overScale(5000, 26000, "mW or µW")},
	PSUOK:      {0, 1, false, "ratio 0..1", ratio},
	PSUFan:     {0, 50000, false, "rpm", nil},
}

func milli(v float64) string {
	switch {
	case math.Abs(v) >= 1000:
		return "m°C: divide by 1000"
	case v >= 150 && v < 400:
		return "K: take 273.15 away"
	}
	return ""
}

func ratio(v float64) string {
	switch {
	case v > 1 && v <= 100:
		return "percent: divide by 100"
	case v > 100 && v <= 255:
		return "0..255: divide by 255"
	}
	return ""
}

func slowClock(v float64) string {
	switch {
	case v > 0 && v < 1e2:
		return "GHz: multiply by 1e9"
	case v >= 1e2 && v < 1e5:
		return "MHz: multiply by 1e6"
	case v >= 1e5 && v < 1e7:
		return "kHz: multiply by 1000"
	}
	return ""
}

// overScale leaves out the glitches of a BMC, which are no unit of anything.
func overScale(from, glitch float64, unit string) func(float64) string {
	return func(v float64) string {
		if v < from || v <= glitch || v == 25450 || v == 25550 {
			return ""
		}
		return unit
	}
}

// Refused says why a reading was not taken.
type Refused struct {
	Unit  string // what the figure is measured in
	Wrong string // the unit that the reading seems to be in; empty: no guess
}

// Check takes a reading or refuses it.
func Check(f Field, v float64) (Value, *Refused) {
	s := &spans[f]
	if v >= s.low && v <= s.high && !(s.notZero && v == 0) {
		return Value(v), nil
	}
	r := &Refused{Unit: s.unit}
	if s.wrong != nil {
		r.Wrong = s.wrong(v)
	}
	return Missing(), r
}
