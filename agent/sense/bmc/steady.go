package bmc

import (
	"fmt"
	"math"
)

// Steady lets a reading pass when three of the sensor's last five agree, itself
// among them. A controller's glitch is one reading, or two; what really jumped
// passes at its third, and what swings to and fro passes all the time. The zero
// value is ready; it is for one controller and one goroutine.
type Steady struct {
	seen  map[string]*recent
	takes int
}

const (
	window    = 5
	agreeing  = 3
	forgotten = 60 // takes without a word of a sensor
)

// recent are the last readings of one sensor.
type recent struct {
	values [window]float64
	n      int // how many there were, ever
	take   int // the last that had one
}

// Take is one poll of the controller: what may be believed of it, and whether a
// sensor is too new to tell.
func (s *Steady) Take(list []Sensor) (steady []Sensor, young bool) {
	if s.seen == nil {
		s.seen = map[string]*recent{}
	}
	s.takes++
	names := map[string]int{}
	for _, x := range list {
		if !swings(x.Kind) {
			steady = append(steady, x)
			continue
		}
		key := string(x.Kind) + "/" + x.Name
		if names[key]++; names[key] > 1 { // makers call several sensors "Temp"
			key = fmt.Sprintf("%s#%d", key, names[key])
		}
		r := s.seen[key]
		if r == nil {
			r = &recent{}
			s.seen[key] = r
		}
		if r.agrees(x) {
			steady = append(steady, x)
		}
		r.take = s.takes
		young = young || r.n < agreeing
	}
	for key, r := range s.seen {
		if s.takes-r.take > forgotten {
			delete(s.seen, key)
		}
	}
	return steady, young
}

// agrees notes a reading and counts those that are like it.
func (r *recent) agrees(x Sensor) bool {
	r.values[r.n%window] = x.Value
	r.n++
	like := 0
	for _, v := range r.values[:min(r.n, window)] {
		if agree(x, v) {
			like++
		}
	}
	return like >= agreeing
}

// swings tells what is read from a scaled register. Flags are not, and a share
// has its bounds.
func swings(kind Kind) bool {
	switch kind {
	case DutyRatio, Intrusion, SupplyOK:
		return false
	}
	return true
}

// agree tells whether two readings of a sensor may be a minute apart: a die
// warms by tens of kelvins, air does not; power and speed change by factors. A
// fan that stands agrees with no fan that turns.
func agree(x Sensor, v float64) bool {
	switch {
	case x.Kind == Celsius && x.Place != Anywhere:
		return math.Abs(x.Value-v) <= 10
	case x.Kind == Celsius:
		return math.Abs(x.Value-v) <= 35
	}
	lo, hi := min(x.Value, v), max(x.Value, v)
	return hi <= 4*lo || hi == 0
}
