package fan

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Policy is what the configuration allows for one fan of one kind of box.
type Policy struct {
	SKU  string `yaml:"sku"`  // vendor and product, as edgeherd-agent health names the box
	Chip string `yaml:"chip"` // name of the hwmon chip
	PWM  int    `yaml:"pwm"`  // number of the channel and of its tachometer
	// Raise is the least duty by temperature of the die, in proportion between
	// two points. It never lowers what the firmware does.
	Raise []Point `yaml:"raise"`
}

// Point of a curve.
type Point struct {
	Celsius float64 `yaml:"celsius"`
	Duty    float64 `yaml:"duty"` // 0.2 to 1
}

// leastDuty is never gone below: below, fans may stand still.
const leastDuty = 0.2

// Check refuses a policy that cannot be meant.
func (p Policy) Check() error {
	switch {
	case p.SKU == "" || p.Chip == "":
		return errors.New("name the sku and the chip that it is for")
	case p.PWM < 1 || p.PWM > 16:
		return fmt.Errorf("pwm is %d: want 1 to 16", p.PWM)
	case len(p.Raise) == 0 || len(p.Raise) > 16:
		return fmt.Errorf("raise has %d points: want 1 to 16", len(p.Raise))
	}
	for i, at := range p.Raise {
		switch {
		case !(at.Celsius >= 20 && at.Celsius <= 110):
			return fmt.Errorf("raise: %g °C: want 20 to 110", at.Celsius)
		case !(at.Duty >= leastDuty && at.Duty <= 1):
			return fmt.Errorf("raise: duty %g: want %g to 1", at.Duty, leastDuty)
		case i > 0 && (at.Celsius <= p.Raise[i-1].Celsius || at.Duty < p.Raise[i-1].Duty):
			return errors.New("raise: temperatures must grow, and duties must not fall")
		}
	}
	return nil
}

// least is the duty that the policy asks for; 0 below its first point.
func (p Policy) least(celsius float64) float64 {
	if celsius < p.Raise[0].Celsius {
		return 0
	}
	for i := len(p.Raise) - 1; i >= 0; i-- {
		a := p.Raise[i]
		if celsius < a.Celsius {
			continue
		}
		if i == len(p.Raise)-1 {
			return a.Duty
		}
		b := p.Raise[i+1]
		return a.Duty + (b.Duty-a.Duty)*(celsius-a.Celsius)/(b.Celsius-a.Celsius)
	}
	return 0
}

// Reading is what a step knows. NaN is what was not read.
type Reading struct {
	At     time.Duration // since boot
	DieC   float64
	LimitC float64 // where the die throttles; NaN or 0: unknown
	Duty   float64 // as the chip says it
	RPM    float64
}

// Modes of a State.
const (
	watching = iota // the firmware drives; its curve is learnt
	raised          // we drive
	locked          // the firmware drives until Until: there was a doubt
)

const (
	bins    = 28 // of 5 °C, from −20 on
	binFrom = -20.0
	binSize = 5.0

	learnFor  = 10 * time.Minute // of the firmware alone before the first raise
	lockFor   = time.Hour        // after a doubt
	followBy  = 10 * time.Second // the fan must follow after this time
	quietFor  = 2 * time.Minute  // the firmware does as much: hand back
	stuckFor  = 30 * time.Minute // without the least change of the die: a stuck sensor
	margin    = 10.0             // K below the limit the firmware takes over
	hystDown  = 3.0              // K on the way down
	beyond    = 3.0              // K above what the firmware was seen at
	worth     = 0.05             // duty that is worth a raise
	stepUp    = 0.25             // at most, in one step
	downEvery = time.Minute      // and stepDown at most
	stepDown  = 0.05
)

// State of one fan. The zero value begins to learn.
type State struct {
	Mode  int
	Duty  float64       // that was asked for, when raised
	Until time.Duration // when locked

	began    time.Duration // of learning
	seen     [bins]float64 // highest duty of the firmware
	upTo     [bins]float64 // highest temperature in the bin
	top      float64       // highest temperature it was seen at
	hot      float64       // temperature that counts on the way down
	lowered  time.Duration
	enough   time.Duration // since when the firmware would do as much; 0: it would not
	from     float64       // duty and rpm before the last raise
	fromRPM  float64
	asked    time.Duration // of the last raise
	same     float64       // temperature since
	since    time.Duration
	learning bool
}

// Action is what Next wants done.
type Action struct {
	Set     float64 // duty to set; 0: none
	Restore bool    // give the fan back to the firmware
	Reason  string
}

// Next decides. It is pure; an unknown reading is a doubt, and a doubt gives the
// fan back.
func (p Policy) Next(s State, r Reading) (State, Action) {
	if !s.learning {
		s.learning, s.began, s.same, s.since, s.top = true, r.At, r.DieC, r.At, math.Inf(-1)
	}
	if r.DieC != s.same {
		s.same, s.since = r.DieC, r.At
	}
	switch s.Mode {
	case locked:
		if r.At >= s.Until {
			s.Mode, s.began = watching, r.At
		}
		return s.learn(r), Action{}
	case watching:
		s = s.learn(r)
		return p.consider(s, r)
	}
	if doubt := p.doubt(s, r); doubt != "" {
		s.Mode, s.Until = locked, r.At+lockFor
		return s, Action{Restore: true, Reason: doubt}
	}
	return p.hold(s, r)
}

func bin(celsius float64) int {
	return int(min(max((celsius-binFrom)/binSize, 0), bins-1))
}

// learn notes what the firmware does at this temperature.
func (s State) learn(r Reading) State {
	if r.DieC == r.DieC && r.Duty == r.Duty {
		i := bin(r.DieC)
		if s.seen[i] == 0 || r.DieC > s.upTo[i] {
			s.upTo[i] = r.DieC
		}
		s.seen[i] = max(s.seen[i], r.Duty)
		s.top = max(s.top, r.DieC)
	}
	return s
}

// firmware is the most that it may do at this temperature: what it was seen to
// do below and at the next temperature above, since its curve does not fall.
func (s State) firmware(celsius float64) float64 {
	most := 0.0
	for i := range bins {
		most = max(most, s.seen[i])
		if i >= bin(celsius) && s.seen[i] > 0 && s.upTo[i] >= celsius {
			break
		}
	}
	return most
}

// doubt says why we should not drive this fan now; "" is none.
func (p Policy) doubt(s State, r Reading) string {
	switch {
	case r.DieC != r.DieC:
		return "the die's temperature is missing"
	case r.RPM != r.RPM || r.Duty != r.Duty:
		return "the fan does not say how it turns"
	case r.RPM == 0:
		return "the fan stands still"
	case r.LimitC > 0 && r.DieC > r.LimitC-margin:
		return "the die is close to its limit"
	case r.DieC > s.top+beyond:
		return "it is hotter than the firmware was seen at"
	case r.At-s.since >= stuckFor:
		return "the die's temperature does not move"
	}
	if s.Mode != raised || r.At-s.asked < followBy {
		return ""
	}
	if math.Abs(r.Duty-s.Duty) > 0.1 {
		return "something else drives the fan"
	}
	// A quarter of the share is little: speed follows duty with a bend.
	if s.Duty > s.from+worth && r.RPM < s.fromRPM*(1+0.25*(s.Duty/s.from-1)) {
		return "the fan does not follow"
	}
	return ""
}

// consider takes over where the policy asks for clearly more.
func (p Policy) consider(s State, r Reading) (State, Action) {
	if r.At-s.began < learnFor || p.doubt(s, r) != "" || p.least(r.DieC) < r.Duty+worth {
		return s, Action{}
	}
	s.Mode, s.hot, s.lowered, s.enough = raised, r.DieC, r.At, 0
	return p.raise(s, r, r.Duty, min(p.least(r.DieC), r.Duty+stepUp))
}

func (p Policy) raise(s State, r Reading, from, to float64) (State, Action) {
	s.from, s.fromRPM, s.asked, s.Duty = from, r.RPM, r.At, max(to, leastDuty)
	return s, Action{Set: s.Duty, Reason: fmt.Sprintf("the die is at %.0f °C", r.DieC)}
}

// hold follows the temperature: up at once, down late and slowly.
func (p Policy) hold(s State, r Reading) (State, Action) {
	s.hot = max(min(s.hot, r.DieC+hystDown), r.DieC)
	firmware := s.firmware(r.DieC)
	want := max(p.least(s.hot), firmware)
	if p.least(s.hot) <= firmware+worth/2 {
		if s.enough == 0 {
			s.enough = r.At
		}
		if r.At-s.enough >= quietFor {
			s.Mode, s.began = watching, r.At-learnFor // what was learnt holds
			return s, Action{Restore: true, Reason: "the firmware does as much"}
		}
	} else {
		s.enough = 0
	}
	switch {
	case want > s.Duty+0.01 && r.At-s.asked >= followBy:
		return p.raise(s, r, s.Duty, min(want, s.Duty+stepUp))
	case want < s.Duty-0.01 && r.At-s.lowered >= downEvery:
		s.lowered, s.asked = r.At, r.At
		s.Duty = max(want, s.Duty-stepDown, leastDuty)
		s.from = s.Duty // nothing must follow upwards
		return s, Action{Set: s.Duty, Reason: fmt.Sprintf("the die is at %.0f °C", r.DieC)}
	}
	return s, Action{}
}
