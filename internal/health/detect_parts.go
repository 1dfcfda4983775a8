package health

import (
	"math"
	"slices"

	"github.com/edgeherd/edgeherd/internal/rank"
)

// Parts that wear out by themselves: drives and power supplies.
const (
	partDays = 45 // of what a drive and a supply told that are kept

	driveStep  = 4.0 // percent used up within the days kept, else it is rounding
	driveSoon  = 180 // days to 100 % that make a ticket
	driveFast  = 3.0 // times as fast as in its first months, and
	driveYears = 730 // days to 100 %
	driveSpare = 20  // percent left; a drive warns at 10
	driveFull  = 90  // percent used

	supplyLoss  = 0.06 // of the power from the wall, or 5 σ of a day
	supplySigma = 5
	supplyDays  = 7
	supplyLearn = 28
	supplyHours = 3 // without redundancy, or with a fan at a standstill
)

// parts is what is kept of a box's drive and power supply.
type parts struct {
	Used, Spare, Errors []Value // of the last days
	First               Value   // percent used when it was first seen
	FirstDay            int32
	FirstErrors         Value
	ErrorsSeen          bool
	Ratio               []Value // ln of watts from the wall over those expected, daily
	Supply              supplyLine
	Gone                counters // hours without redundancy
	FanSeen             int
	FanGone             counters
	Loss                counters
	Today               []supplyHour `json:",omitempty"`
}

// supplyLine is the clean supply: watts from the wall over watts used.
type supplyLine struct {
	Known       bool
	Idle, Slope float64
	Sigma       float64
	Hours       []supplyHour `json:",omitempty"` // while it is learnt
}

type supplyHour struct{ Out, In float32 }

// takeParts notes an hour.
func (b *Box) takeParts(h *Hour) {
	p := &b.Parts
	out := h.V[PSUOut]
	if !out.OK() {
		out = h.V[Power]
	}
	if in := h.V[PSUIn]; in.OK() && out.OK() {
		p.Today = append(p.Today, supplyHour{float32(out), float32(in)})
	}
	at := h.Start + hourSeconds
	if ok := h.V[PSUOK]; ok.OK() {
		count(&p.Gone.Fire, ok < 1)
		count(&p.Gone.Calm, ok == 1)
		if p.Gone.Fire >= supplyHours {
			b.raise(Finding{Family: "supply", Cause: CauseSupply, Confidence: 0.95, Level: Ticket, Since: Unix(at - int64(p.Gone.Fire)*hourSeconds), Evidence: []Evidence{
				fact("psu_ok", ok, "psu-lost", "only %.0f %% of the power supplies work, for %d hours: the next one to fail takes the box down", 100*float64(ok), p.Gone.Fire),
			}}, at)
		}
	}
	if rpm := h.V[PSUFan]; rpm.OK() {
		count(&p.FanGone.Fire, rpm < 250)
		count(&p.FanGone.Calm, rpm >= 250)
		if rpm >= 250 {
			p.FanSeen++
		}
		if p.FanGone.Fire >= supplyHours && p.FanSeen >= 48 {
			b.raise(Finding{Family: "supply", Cause: CauseSupply, Confidence: 0.9, Level: Ticket, Since: Unix(at - int64(p.FanGone.Fire)*hourSeconds), Evidence: []Evidence{
				fact("psu_rpm", rpm, "psu-fan", "the fan of the power supply stands for %d hours", p.FanGone.Fire),
			}}, at)
		}
	}
	for _, f := range [...]struct {
		v    Value
		into *[]Value
	}{{h.V[NVMeUsed], &p.Used}, {h.V[NVMeSpare], &p.Spare}, {h.V[NVMeErrors], &p.Errors}} {
		if f.v.OK() && len(*f.into) > 0 {
			(*f.into)[len(*f.into)-1] = f.v
		} else if f.v.OK() {
			*f.into = append(*f.into, f.v)
		}
	}
}

// watchParts judges the day.
func (b *Box) watchParts(day int32) {
	b.watchDrive(day)
	b.watchSupply(day)
	p := &b.Parts
	for _, s := range []*[]Value{&p.Used, &p.Spare, &p.Errors} {
		if n := len(*s); n > 0 { // the next day starts from this one
			*s = append(*s, (*s)[n-1])
			if len(*s) > partDays {
				*s = slices.Delete(*s, 0, len(*s)-partDays)
			}
		}
	}
	p.Today = p.Today[:0]
}

func last(v []Value) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	return float64(v[len(v)-1])
}

func (b *Box) watchDrive(day int32) {
	p := &b.Parts
	used := last(p.Used)
	if used == used && (p.FirstDay == 0 || Value(used) < p.First) {
		p.First, p.FirstDay = Value(used), day // new, or a new drive
		p.Used = p.Used[len(p.Used)-1:]
	}
	if e := Value(last(p.Errors)); e.OK() && (!p.ErrorsSeen || e < p.FirstErrors) {
		p.FirstErrors, p.ErrorsSeen = e, true
	}
	var ev []Evidence
	if rate, left, fast := b.driveWear(day); left < driveSoon || fast {
		ev = append(ev, fact("used_percent_per_month", Value(30*rate), "drive-pace", "the drive is worn by %.0f %% and wears by %.1f %% a month: worn out in %.0f days at this pace", used, 30*rate, left))
		if fast {
			ev = append(ev, fact("used_percent_before", p.First, "drive-faster", "that is more than three times its former pace: look what writes to it"))
		}
	} else if used >= driveFull {
		ev = append(ev, fact("used_percent", Value(used), "drive-worn", "the drive is worn by %.0f %%", used))
	}
	if s := last(p.Spare); s < driveSpare {
		ev = append(ev, fact("spare_percent", Value(s), "drive-spare", "%.0f %% of its spare blocks are left; a drive warns at 10 %%", s))
	}
	if e := last(p.Errors); e > float64(p.FirstErrors) {
		ev = append(ev, fact("media_errors", Value(e), "drive-errors", "%.0f reads failed since it was first seen", e-float64(p.FirstErrors)))
	}
	if len(ev) > 0 {
		b.raise(Finding{Family: "drive", Cause: CauseDrive, Confidence: 0.85, Level: Ticket, Since: Unix(int64(day) * daySeconds), Evidence: ev}, endOf(day))
	} else {
		b.close("drive", endOf(day), "back to normal, or replaced")
	}
}

// driveWear is percent a day, days to 100 %, and whether it is far faster than
// it was before.
func (b *Box) driveWear(day int32) (rate, left float64, fast bool) {
	p := &b.Parts
	n := len(p.Used)
	if n < 8 {
		return 0, math.Inf(1), false
	}
	from := float64(p.Used[0])
	rise := last(p.Used) - from
	if rise < driveStep {
		return 0, math.Inf(1), false
	}
	rate = rise / float64(n-1)
	left = (100 - last(p.Used)) / rate
	// A percent more or less is rounding.
	earlier := float64(day-p.FirstDay) - float64(n-1)
	before := (from - float64(p.First) + 1) / max(earlier, 14)
	return rate, max(left, 0), earlier >= 14 && rate > driveFast*before && left < driveYears
}

// watchSupply: more watts from the wall for the same watts used.
func (b *Box) watchSupply(day int32) {
	p := &b.Parts
	l := &p.Supply
	if p.Gone.Calm >= supplyHours && p.FanGone.Fire == 0 && p.Loss.Fire == 0 && b.has("supply") && p.Loss.Calm >= supplyDays {
		b.close("supply", endOf(day), "back to normal")
	}
	if !l.Known {
		l.Hours = append(l.Hours, p.Today...)
		if day-int32(b.First/daySeconds) >= supplyLearn && len(l.Hours) >= 200 {
			l.learn()
		}
		return
	}
	if len(p.Today) < leastDay {
		return
	}
	p.Ratio = append(p.Ratio, Value(rank.Median(l.residuals(p.Today))))
	if len(p.Ratio) > 14 {
		p.Ratio = slices.Delete(p.Ratio, 0, len(p.Ratio)-14)
	}
	if len(p.Ratio) < 7 {
		return
	}
	v := make([]float64, len(p.Ratio))
	for i := range v {
		v[i] = float64(p.Ratio[i])
	}
	m, line := rank.Median(v), max(supplyLoss, supplySigma*l.Sigma)
	count(&p.Loss.Fire, m > line)
	count(&p.Loss.Calm, m < line/2)
	switch {
	case p.Loss.Fire >= supplyDays:
		b.raise(Finding{Family: "supply", Cause: CauseSupply, Confidence: 0.75, Level: Ticket, Since: Unix(int64(day-13) * daySeconds), Evidence: []Evidence{
			fact("input_percent", Value(Percent(m)), "psu-takes-more", "it takes %.1f %% more from the wall for the same work than when it was new, median of two weeks; a day spreads by %.1f %%", Percent(m), 100*l.Sigma),
		}}, endOf(day))
	case p.Loss.Calm >= supplyDays && p.Gone.Fire == 0 && p.FanGone.Fire == 0:
		b.close("supply", endOf(day), "back to normal")
	}
}

func (l *supplyLine) learn() {
	x, y := make([]float64, len(l.Hours)), make([]float64, len(l.Hours))
	for i, h := range l.Hours {
		x[i], y[i] = float64(h.Out), float64(h.In)
	}
	mx, my := rank.Median(slices.Clone(x)), rank.Median(slices.Clone(y))
	xx, xy := 1e-6, 1e-6
	for i := range x {
		if y[i] < 3*my { // more is a glitch of a BMC
			xx, xy = xx+(x[i]-mx)*(x[i]-mx), xy+(x[i]-mx)*(y[i]-my)
		}
	}
	l.Slope = min(max(xy/xx, 0), 3)
	l.Idle = my - l.Slope*mx
	l.Known = true
	res := l.residuals(l.Hours)
	var daily []float64
	for i := 0; i+24 <= len(res); i += 24 {
		daily = append(daily, rank.Median(slices.Clone(res[i:i+24])))
	}
	l.Sigma = max(madToSigma*medianAbs(daily), 0.005)
	l.Hours = nil
}

func (l *supplyLine) residuals(hours []supplyHour) []float64 {
	out := make([]float64, 0, len(hours))
	for _, h := range hours {
		if want := l.Idle + l.Slope*float64(h.Out); want > 0 && h.In > 0 {
			out = append(out, math.Log(float64(h.In)/want))
		}
	}
	return out
}
