package health

import (
	"math"
	"time"
)

// hourSeconds and daySeconds in Unix time.
const (
	hourSeconds = 3600
	daySeconds  = 86400
)

// Hour is the summary of one hour of a box. Everything is judged by hours:
// a year of them is less than a megabyte.
type Hour struct {
	Start   int64 // Unix seconds, a whole hour
	V       Figures
	Samples uint16 // readings in it
	Period  uint16 // seconds between readings; 3600 or 0: it came as a row of an hour
	// Stopped counts the readings in which a fan stood still although driven.
	Stopped [Fans]uint8
}

func (h *Hour) day() int32 { return int32(h.Start / daySeconds) }

// The rule of a steady hour: 8 readings, power and duty calm, and no leap from
// the hour before. Only then are the temperatures those of the load.
const (
	steadySamples  = 8
	steadyPowerSD  = 0.22 // of the power
	steadyPWMSD    = 0.12
	steadyLeap     = 0.45 // of the power
	steadyBusyLeap = 0.25
)

// Steady reports whether h, which follows prev, is a steady hour.
func (h *Hour) Steady(prev *Hour) bool {
	if prev.Start != h.Start-hourSeconds || !h.whole() {
		return false
	}
	p, q := float64(h.V[Power]), float64(prev.V[Power])
	if math.Abs(p-q) >= steadyLeap*p {
		return false
	}
	if float64(h.V[PowerSD]) >= steadyPowerSD*p || h.V[PWMSD] >= steadyPWMSD {
		return false
	}
	if !h.V[Power].OK() {
		return !(math.Abs(float64(h.V[Busy]-prev.V[Busy])) >= steadyBusyLeap)
	}
	return true
}

// whole reports whether enough of the hour was read: 8 readings, or two thirds
// of what the period of the rows allows.
func (h *Hour) whole() bool {
	if h.Samples >= steadySamples || h.Period == 0 || h.Period >= 3000 {
		return true
	}
	return float64(h.Samples)*float64(h.Period) >= hourSeconds*2.0/3
}

// Aggregator makes hours out of the samples of one box. Samples should come in
// order; one from an earlier hour makes a second summary of that hour, which
// Merge joins with the first.
type Aggregator struct {
	sum, n  [fields]float64
	squares [len(varied)]float64 // of power, duty and the fans
	within  [len(varied)]float64 // variances within the rows
	stopped [Fans]uint8
	samples int
	start   int64
	last    int64
	gap     int64 // smallest step of time in this hour and the one before
	lastGap int64
	watt    float64 // last power that was believed
	odd     int     // powers in a row that were not
}

var varied = [...]Field{Power, PWM, RPM1, RPM2, RPM3, RPM4}
var variedSD = [len(varied)]Field{PowerSD, PWMSD, RPMSD, RPMSD2, RPMSD3, RPMSD4}

// isSpread: a standard deviation, which is not averaged like a figure.
var isSpread = func() (is [fields]bool) {
	for _, f := range variedSD {
		is[f] = true
	}
	return is
}()

// Add takes a sample. When it begins another hour, the one before is returned.
func (a *Aggregator) Add(s *Sample) (Hour, bool) {
	t := s.Time.Unix()
	start := t - t%hourSeconds
	var done Hour
	var full bool
	if a.samples > 0 && start != a.start {
		done, full = a.Flush()
	}
	a.start = start
	if step := t - a.last; a.last != 0 && step > 0 && (a.gap == 0 || step < a.gap) {
		a.gap = step
	}
	a.last = t
	count := max(s.Count, 1)
	a.samples += count
	for f := range s.V {
		v := float64(s.V[f])
		if v != v || isSpread[f] || Field(f) == Power && !a.believe(v) {
			continue
		}
		a.sum[f] += v
		a.n[f]++
	}
	for i, f := range varied {
		if v := float64(s.V[f]); v == v {
			a.squares[i] += v * v
		}
		if sd := float64(s.V[variedSD[i]]); sd == sd {
			a.within[i] += sd * sd
			a.n[variedSD[i]]++
		}
	}
	for i := range Fans {
		if stoodStill(&s.V, i) && a.stopped[i] < 250 {
			a.stopped[i] += uint8(min(count, 5))
		}
	}
	return done, full
}

// stoodStill: a fan below 250 rpm with more than 20 % duty.
func stoodStill(v *Figures, fan int) bool {
	return v[int(RPM1)+fan] < 250 && v[PWM] > 0.2
}

// believe refuses a power five times what was read before until three agree:
// glitches of a BMC are single.
func (a *Aggregator) believe(w float64) bool {
	if a.watt > 0 && w > 5*a.watt && w > 150 && a.odd < 2 {
		a.odd++
		return false
	}
	a.watt, a.odd = w, 0
	return true
}

// Flush returns the hour that is being gathered, if there is one.
func (a *Aggregator) Flush() (Hour, bool) {
	if a.samples == 0 {
		return Hour{}, false
	}
	h := Hour{Start: a.start, V: Blank(), Samples: uint16(min(a.samples, math.MaxUint16)), Stopped: a.stopped}
	period := a.gap
	if a.lastGap != 0 && (period == 0 || a.lastGap < period) {
		period = a.lastGap
	}
	h.Period = uint16(min(period, hourSeconds))
	for f := range h.V {
		if a.n[f] > 0 && !isSpread[f] {
			h.V[f] = Value(a.sum[f] / a.n[f])
		}
	}
	for i, f := range varied {
		n := a.n[f]
		known := a.n[variedSD[i]]
		if known == 0 && n < 4 {
			continue // a single row says nothing about how calm the hour was
		}
		v := 0.0
		if known > 0 {
			v = a.within[i] / known
		}
		if n > 1 {
			m := a.sum[f] / n
			v += max(a.squares[i]/n-m*m, 0)
		}
		h.V[variedSD[i]] = Value(math.Sqrt(v))
	}
	*a = Aggregator{last: a.last, lastGap: a.gap, watt: a.watt, odd: a.odd}
	return h, true
}

// Merge joins two summaries of one hour, as late rows make them.
func Merge(a, b Hour) Hour {
	wa, wb := float64(max(a.Samples, 1)), float64(max(b.Samples, 1))
	out := a
	for f := range out.V {
		x, y := float64(a.V[f]), float64(b.V[f])
		switch {
		case x != x:
			out.V[f] = b.V[f]
		case y == y:
			out.V[f] = Value((wa*x + wb*y) / (wa + wb))
		}
	}
	out.Samples = uint16(min(wa+wb, math.MaxUint16))
	if b.Period != 0 && (out.Period == 0 || b.Period < out.Period) {
		out.Period = b.Period
	}
	for i := range out.Stopped {
		out.Stopped[i] = uint8(min(int(a.Stopped[i])+int(b.Stopped[i]), 255))
	}
	return out
}

func timeOf(unix int64) time.Time { return time.Unix(unix, 0).UTC() }
