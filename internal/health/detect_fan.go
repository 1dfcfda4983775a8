package health

import "github.com/edgeherd/edgeherd/internal/rank"

// Wear: a fan turns slower at the same duty. Vendors call a fan worn out at
// −10 to −20 %; 5 % leaves time. Tachometers of BMCs step by 1 to 2.5 %.
const (
	wearLeast   = 0.05
	wearHeat    = 0.075 // where only the die's temperature stands for the duty
	wearSigma   = 6
	wearSpread  = 2.2 // times the clean spread, for five days
	stopSamples = 3
	// healedMargin beyond what once went away by itself: no wear does that, so
	// the die's temperature does not stand for the duty so closely there.
	healedMargin = 1.3
)

var fanNames = [Fans]string{"fan1", "fan2", "fan3", "fan4"}

// watchFanStop looks at each hour: three readings at a standstill though
// driven, or one row of an hour. Without a duty a fan counts as stopped only
// if it never rested before: many may.
func (b *Box) watchFanStop(h *Hour) {
	for fan := range Fans {
		rpm := h.V[int(RPM1)+fan]
		if !rpm.OK() {
			continue
		}
		turns := rpm >= 250
		stopped := h.Stopped[fan] >= stopSamples || h.Stopped[fan] > 0 && (h.Period == 0 || h.Period >= 1200)
		if !h.V[PWM].OK() {
			stopped = !turns && b.FanSeen[fan] >= 48 && b.FanIdle[fan] == 0
		}
		c := &b.FanStop[fan]
		count(&c.Calm, turns && !stopped)
		known := b.FanSeen[fan] >= 12
		switch {
		case stopped && known:
			b.raise(Finding{Family: fanNames[fan] + "-stop", Cause: CauseFanStop, Confidence: 0.95, Level: Urgent, Since: Unix(h.Start), Evidence: []Evidence{
				fact("rpm", rpm, "fan-speed", "%s at %.0f rpm in the mean of the hour", fanNames[fan], float64(rpm)),
				fact("pwm_ratio", h.V[PWM], "fan-duty", "while driven with %.0f %% duty", 100*float64(h.V[PWM])),
			}}, h.Start+hourSeconds)
		case c.Calm >= 2:
			b.close(fanNames[fan]+"-stop", h.Start+hourSeconds, "turns again")
		}
		if turns {
			b.FanSeen[fan]++
		} else if !stopped {
			b.FanIdle[fan]++
		}
	}
}

// watchFans looks at the days.
func (b *Box) watchFans() {
	day := b.Days[len(b.Days)-1].Day
	if b.logged(day, FanReplaced) {
		return
	}
	for fan := range Fans {
		var devs []float64
		spread := 0
		for i := len(b.Days) - 1; i >= 0 && day-b.Days[i].Day < 7; i-- {
			d := &b.Days[i]
			if v := float64(d.Fan[fan]); v == v && len(devs) < 3 {
				devs = append(devs, v)
			}
			if d.RPMSD[b.spreadOf(fan)] > wearSpread && day-d.Day < 5 && b.slowest(d, fan) {
				spread++
			}
		}
		if len(devs) < 3 && spread < 5 {
			continue
		}
		line := max(wearLeast, wearSigma*b.Base.FanSigma[fan])
		if b.onHeat() {
			line = max(line, wearHeat, healedMargin*b.FanHealed[fan])
		}
		dev := rank.Median(devs)
		b.FanLow[fan] = max(b.FanLow[fan], -dev)
		c := &b.FanWear[fan]
		count(&c.Calm, dev > -line/2 && spread < 3)
		family := fanNames[fan]
		switch {
		case dev < -line:
			level := Ticket
			if dev < -0.25 {
				level = Urgent
			}
			b.raise(Finding{Family: family, Cause: CauseFanWear, Confidence: min(0.7+0.3*(-dev-line)/line, 0.97), Level: level, Since: Unix(int64(day-2) * daySeconds), Evidence: []Evidence{
				fact("rpm_percent", Value(Percent(dev)), "fan-slower", "%s turns %.1f %% slower %s, median of 3 days; worn out is −10 to −20 %%", family, -Percent(dev), b.likeWhat()),
			}}, endOf(day))
		case spread >= 5:
			b.raise(Finding{Family: family, Cause: CauseFanWear, Confidence: 0.6, Level: Ticket, Since: Unix(int64(day-4) * daySeconds), Evidence: []Evidence{
				fact("rpm_spread", b.Days[len(b.Days)-1].RPMSD[b.spreadOf(fan)], "fan-swings", "its speed swings more than twice as far as when it was new, for 5 days"),
			}}, endOf(day))
		case c.Calm >= calmDays:
			if b.has(family) {
				b.FanHealed[fan] = max(b.FanHealed[fan], b.FanLow[fan])
			}
			b.close(family, endOf(day), "back to normal")
			b.FanLow[fan] = 0
		}
	}
}

// spreadOf is the column that tells of a fan. Boxes that give one spread for
// all give that of the least steady fan, as the first one's.
func (b *Box) spreadOf(fan int) int {
	for i := 1; i < Fans; i++ {
		if b.Base.RPMSD[i].OK() {
			return fan
		}
	}
	return 0
}

// slowest: where one spread stands for all fans, it is put down to the one that
// has lost most of its speed.
func (b *Box) slowest(d *Day, fan int) bool {
	if b.spreadOf(1) == 1 {
		return true
	}
	for i := range d.Fan {
		if d.Fan[i] < d.Fan[fan] {
			return false
		}
	}
	return d.Fan[fan].OK()
}

// likeWhat says what a fan's speed was held against.
func (b *Box) likeWhat() string {
	switch {
	case b.Last.V[PWM].OK():
		return "at the same duty"
	case b.onHeat():
		return "at the same temperature of the die"
	}
	return "than its share of what the other fans do"
}

// onHeat: no duty is told and there is no other fan.
func (b *Box) onHeat() bool {
	fitted := 0
	for _, f := range b.Basis.Fitted {
		if f {
			fitted++
		}
	}
	return fitted < 2 && !b.Last.V[PWM].OK()
}
