package health

import (
	"math"

	"github.com/edgeherd/edgeherd/internal/rank"
)

// The slow rise of the resistance: dust, lint, paste. s7 must lie above the
// line on three days in a row; below half of it for five it is over. Storms of
// dust do not wait for a week's median: two days above the fast line will do.
// A box that may throttle soon gets its ticket at the watch line; not by its
// board, where that line is within what a season does, while with no reference at
// all it lies so high that no season reaches it.
const (
	watchRise    = 0.0344           // ln 1.035
	forecastRise = 0.75 * watchRise // from which there is a forecast
	slowRise     = 0.0488           // ln 1.05
	slowSigma    = 2.4
	blindWatch   = 0.026 // where no fan tells its speed
	blindFire    = 0.036
	fastRise     = 0.10
	fastSigma    = 6
	watchSig     = 1.8
	fireDays     = 3
	calmDays     = 5
	hotShare     = 0.02 // of the hours of a day throttled: urgent
	soonDays     = 7    // forecast that makes a ticket urgent
	dueDays      = 60   // forecast (low) that makes a watch a ticket
	nearDays     = 21   // and one that makes a ticket below the watch line
)

func (b *Box) watchSlow(mates Mates) {
	d := &b.Days[len(b.Days)-1]
	s7 := float64(d.S7)
	if s7 != s7 || b.held(d.Day) || b.stuckLately(d.Day) || b.has("step") {
		return
	}
	c, sigma := &b.Slow, b.Base.Sigma
	watch, fire := b.slowLines()
	line := max(fire, slowSigma*sigma)
	if b.Fell.Rise > 0 && d.Day-b.Fell.RiseDay < fellDays && !b.has("resistance") {
		line = max(line, fellTimes*b.Fell.Rise)
	}
	count(&c.Watch, s7 > max(watch, watchSig*sigma, line*watch/fire))
	count(&c.Fire, s7 > line)
	count(&c.Calm, s7 < max(fire, slowSigma*sigma)/2)
	at := endOf(d.Day)
	if b.has("resistance") {
		b.SlowHigh = max(b.SlowHigh, s7)
	} else {
		b.SlowHigh = 0
	}
	due := c.Watch >= fireDays && b.Trend != nil && d.Day-b.Trend.Day < forecastAgain && b.Trend.Low < dueDays && !b.byInside()
	switch {
	case c.Calm >= calmDays:
		if b.SlowHigh > line {
			b.Fell.Rise, b.Fell.RiseDay = b.SlowHigh, d.Day
		}
		b.close("resistance", at, "back to normal")
	case c.Fire >= fireDays || due || b.stormed():
		b.raise(b.resistance(Ticket, mates), at)
	case c.Watch >= fireDays:
		b.raise(b.resistance(Watch, mates), at)
	}
}

// stormed: the last two days lie above the fast line, both since the last
// cleaning.
func (b *Box) stormed() bool {
	n, line := len(b.Days), Value(max(fastRise, fastSigma*b.Base.Sigma))
	return n >= 2 && b.Basis.Ref != RefNone && b.Days[n-1].R > line && b.Days[n-2].R > line && b.Days[n-2].Day >= b.CleanDay
}

// slowLines: a fan whose speed no sensor tells, and one of two at that, is worn
// out before the resistance has risen by a twentieth.
func (b *Box) slowLines() (watch, fire float64) {
	if b.BlindFans() && b.Basis.outer() {
		return blindWatch, blindFire
	}
	return watchRise, slowRise
}

func (b *Box) byInside() bool { _, ok := b.Basis.inside(); return ok }

func count(n *int, yes bool) {
	if *n++; !yes {
		*n = 0
	}
}

func endOf(day int32) int64 { return (int64(day) + 1) * daySeconds }

// resistance describes the open rise as it looks today.
func (b *Box) resistance(level Level, mates Mates) Finding {
	d := &b.Days[len(b.Days)-1]
	v := b.verdict()
	if b.BlindFans() {
		v = b.beside(mates, v)
	}
	f := Finding{Family: "resistance", Cause: v.cause, Confidence: v.confidence, Level: level, Since: Unix(b.beganAt())}
	f.Evidence = append([]Evidence{
		fact("resistance_percent", Value(Percent(float64(d.S7))), "rise", "the die rises %.1f %% further above the air than when it was clean, at the same load and fan speed (median of 7 days; ordinary days differ by %.1f %%)", Percent(float64(d.S7)), 100*b.Base.Sigma),
		fact("die_kelvin", d.DieK, "die-hotter", "that makes the die %.1f K hotter today", float64(d.DieK)),
		b.comparedBy(),
	}, v.evidence...)
	if d.Hot > 0 {
		f.Evidence = append(f.Evidence, fact("throttled_ratio", d.Hot, "throttled", "throttled in %.0f %% of the day", 100*float64(d.Hot)))
	}
	if b.Trend != nil && d.Day-b.Trend.Day < forecastAgain {
		f.Forecast = b.Trend
	}
	if level == Ticket && (d.Hot > hotShare || f.Forecast != nil && f.Forecast.Low < soonDays) {
		f.Level = Urgent
	}
	return f
}

// comparedBy says which sensors the clean box and today's were compared by.
func (b *Box) comparedBy() Evidence {
	air := map[string]string{
		RefInlet: "its own inlet", RefRoom: "the site's room sensor", RefNeighbour: "the inlet of its neighbours",
		RefBoard: "its board, since no sensor knows the air", RefExhaust: "its exhaust, since no sensor knows the air", RefDrive: "its drive, since no sensor knows the air", RefNone: "no sensor: only the swing within the day counts",
	}[b.Basis.Ref]
	load := map[string]string{LoadPower: "its power", LoadBusy: "how busy it is, since no sensor knows its power", LoadNone: "no load: every day is taken for alike"}[b.Basis.Load]
	fans := map[string]string{AirRPM: "the speed of its fans", AirPWM: "the duty of its fans", AirNone: "no fan"}[b.Basis.Air]
	return fact("basis", Value(b.Base.Hours), "compared-by", "compared by: air from %s; %s; %s; clean box learnt from %d hours", air, load, fans, b.Base.Hours)
}

// beganAt is the first of the days that lie above a third of the line without
// a break.
func (b *Box) beganAt() int64 {
	began := b.Days[len(b.Days)-1].Day
	for i := len(b.Days) - 1; i >= 0; i-- {
		d := &b.Days[i]
		if d.Day < b.CleanDay || d.S7 < watchRise/3 {
			break
		}
		began = d.Day
	}
	return int64(began) * daySeconds
}

// verdict of the second witnesses: where did the resistance rise?
type verdict struct {
	cause      Cause
	confidence float64
	evidence   []Evidence
}

// A clog warms all that lies in its air; a dried paste only the die.
const (
	airflowShare = 0.10 // of the die's excess, K per K, seen by board or NVMe
	exhaustShare = 0.35 // of the die's relative rise, seen by the exhaust
	tiltLimit    = 0.03 // of the rise, for each ln of speed
	tiltWidth    = 0.15
	tiltTop      = 4.0
)

func (b *Box) verdict() verdict {
	v := verdict{cause: CauseUndetermined, confidence: 0.5}
	score := 0.0 // positive: airflow
	for i, f := range witnesses {
		if !b.Basis.outer() || !b.Base.Witness[i].Known || b.heatsItself(f) {
			continue
		}
		ratio, unsure, ok := b.witnessShare(i)
		if !ok {
			continue
		}
		limit := airflowShare
		if f == Exhaust {
			limit = exhaustShare
		}
		// How far from the limit, in units of what the witness can resolve.
		z := (ratio - limit) / math.Hypot(unsure, limit/4)
		score += min(max(z, -3), 3)
		v.evidence = append(v.evidence, fact("witness_"+names[f], Value(ratio), "witness-warms", "the %s warms by %.0f %% of what the die does; a clog leaves more than %.0f %%, paste less (±%.0f %%)", sensorNames[f], 100*ratio, 100*limit, 100*unsure))
	}
	if ratio, unsure, ok := b.tilted(); ok {
		width, top := tiltWidth, tiltTop
		if b.Basis.Air == AirNone {
			width, top = 2*tiltWidth, tiltTop/2 // by load alone
		}
		score += min(max(-(ratio-tiltLimit)/math.Hypot(unsure, width), -top), top)
		v.evidence = append(v.evidence, tiltFact(ratio, unsure, b.Basis.Air == AirNone))
	}
	if len(v.evidence) == 0 {
		v.evidence = []Evidence{fact("witness", 0, "no-witness", "no second sensor in the same air, and too few hours of low and of high load: airflow and paste look alike; dust is the more common")}
		return v
	}
	switch {
	case score > 1:
		v.cause = CauseAirflow
	case score < -1:
		v.cause = CausePaste
	}
	v.confidence = 0.5 + 0.48*math.Tanh(math.Abs(score)/3)
	return v
}

// heatsItself: a drive that is being worn out warms by its own work.
func (b *Box) heatsItself(f Field) bool { return f == NVMe && b.has("drive") }

func tiltFact(ratio, unsure float64, fanless bool) Evidence {
	when, other := "with slow fans", "with fast ones"
	if fanless {
		when, other = "at low load", "at high load"
	}
	if ratio > tiltLimit {
		return fact("witness_speed", Value(ratio), "tilt-paste", "the rise is larger %s than %s: dried paste does that, air does not help (%+.2f ± %.2f)", other, when, ratio, unsure)
	}
	return fact("witness_speed", Value(ratio), "tilt-clog", "the rise is larger %s than %s, as a clog makes it (%+.2f ± %.2f)", other, when, ratio, unsure)
}

var names = map[Field]string{Board: "board", NVMe: "nvme", Exhaust: "exhaust"}

// witnessShare is what a witness saw of the die's excess over seven days, and
// how unsure that is.
func (b *Box) witnessShare(i int) (ratio, unsure float64, ok bool) {
	var shares []float64
	var die float64
	for j := max(len(b.Days)-7, 0); j < len(b.Days); j++ {
		d := &b.Days[j]
		s, k := float64(d.Witness[i]/d.DieK), float64(d.DieK)
		if witnesses[i] == Exhaust {
			s, k = float64(d.WRatio[i])/(math.Exp(float64(d.R))-1), math.Exp(float64(d.R))-1
		}
		if s == s && k > 0 && d.Day >= b.CleanDay {
			shares, die = append(shares, s), die+k
		}
	}
	if len(shares) < 3 {
		return 0, 0, false
	}
	n := float64(len(shares))
	ratio = rank.Median(shares)
	// The baseline's own spread of the witness, as a share of the excess: a
	// level learnt over weeks drifts by about a quarter of an hour's spread.
	w := &b.Base.Witness[i]
	unsure = madToSigma*medianAbs(shares)/math.Sqrt(n) + 0.25*w.Sigma*witnessScale(witnesses[i], b.Base.Rise)/(die/n)
	return ratio, unsure, true
}

// witnessScale turns a relative spread into the unit of the excess: board and
// NVMe rise about a quarter as far as the die does.
func witnessScale(f Field, rise float64) float64 {
	if f == Exhaust {
		return 1
	}
	return 0.25 * rise
}
