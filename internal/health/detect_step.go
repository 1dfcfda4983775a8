package health

import "github.com/edgeherd/edgeherd/internal/rank"

// A blocked vent is a step of hours, a cleaning one downwards.
const (
	stepLeast  = 0.12 // or 5 σ, ln
	stepSigma  = 5
	stepHours  = 1.8 // of that for four hours; a whole day needs it once
	stepSpan   = 8 * hourSeconds
	heldStep   = 0.3 // ln: no rollout does as much
	swingTimes = 1.3
	fellTimes  = 1.15
	fellMore   = 0.15 // for each time
	fellDays   = 90
	fellSoon   = 2 // days
	cleanLeast = 0.04
	cleanSigma = 4
)

func (b *Box) stepLine() float64 { return max(stepLeast, stepSigma*b.Base.Sigma) }

// stepNeed is what four hours must rise by: more than they did in the clean
// box, and than what fell back by itself before. A load that the sensors do
// not see comes and goes; what stands before a vent stays.
func (b *Box) stepNeed() float64 {
	need := max(stepHours*b.stepLine(), swingTimes*b.Base.Swing)
	if b.Fell.Step > 0 && int32(b.Last.Start/daySeconds)-b.Fell.StepDay < fellDays {
		need = max(need, (fellTimes+fellMore*float64(b.Fell.Steps))*b.Fell.Step)
	}
	return need
}

// fell is what came and went by itself.
type fell struct {
	Step, Rise       float64 // ln
	Leap             float64 // K
	StepDay, RiseDay int32
	Steps            int // in a row, none fellDays apart
}

// before is the level of the last seven days, today not counted.
func (b *Box) before() (float64, bool) {
	if len(b.Days) == 0 {
		return 0, false
	}
	d := &b.Days[len(b.Days)-1]
	return float64(d.S7), d.S7.OK() && int32(b.Last.Start/daySeconds)-d.Day <= 3
}

// watchStep looks at the last four steady hours.
func (b *Box) watchStep(h *Hour) {
	n := len(b.Recent)
	if n < 4 || b.has("step") || h.Start-b.Recent[n-4].Start > stepSpan || b.Recent[n-1].Start != h.Start {
		return
	}
	if b.stuckLately(h.day()) {
		return
	}
	level, ok := b.before()
	if !ok {
		return
	}
	now := b.recentMedian(4)
	if b.held(h.day()) && now-level < heldStep {
		return
	}
	// A storm of dust takes days: it lies as high over the week, but not over
	// the day before.
	if need := b.stepNeed(); now-level > need && now-b.dayBefore(h.Start) > need && b.dieRose(now-level) {
		b.step(now, level, b.Recent[n-4].Start, h.Start)
	}
}

// recentMedian is the median residual of the last n steady hours.
func (b *Box) recentMedian(n int) float64 {
	v := make([]float64, 0, n)
	for _, m := range b.Recent[max(len(b.Recent)-n, 0):] {
		v = append(v, m.R)
	}
	return rank.Median(v)
}

// dayBefore is the median of the steady hours of the two days before the last
// eight hours, or that of the week where there were too few.
func (b *Box) dayBefore(at int64) float64 {
	var v []float64
	for _, m := range b.Recent {
		if at-m.Start >= stepSpan {
			v = append(v, m.R)
		}
	}
	if len(v) < 4 {
		level, _ := b.before()
		return level
	}
	return rank.Median(v)
}

func (b *Box) step(now, level float64, since, at int64) {
	b.StepLevel, b.StepHigh, b.Leapt = level, now-level, 0
	f := Finding{Family: "step", Cause: CauseVent, Confidence: 0.8, Level: Urgent, Since: Unix(since), Evidence: []Evidence{
		fact("step_percent", Value(Percent(now-level)), "step", "the resistance rose by %.0f %% within hours; dust takes weeks", Percent(now-level)),
	}}
	// A heat sink that came loose warms only the die.
	for i, name := range []string{"board", "nvme"} {
		k, die := rank.Median(append([]float64(nil), b.Today.Witness[i]...)), rank.Median(append([]float64(nil), b.Today.DieK...))
		if k != k || die < 3 {
			continue
		}
		f.Evidence = append(f.Evidence, fact("witness_"+name, Value(k/die), "witness-rises", "%s rises by %.0f %% of the die's excess", name, 100*k/die))
		if k/die > airflowShare {
			f.Confidence = 0.9
		} else if k/die < airflowShare/4 && f.Confidence < 0.9 {
			f.Confidence = 0.55
		}
	}
	b.raise(f, at)
}

// closeStep judges the step by whole days.
func (b *Box) closeStep() {
	n := len(b.Days)
	d := &b.Days[n-1]
	if b.Leapt > 0 && b.has("step") {
		b.closeLeap()
		return
	}
	if b.Basis.Ref == RefNone {
		return
	}
	if !d.R.OK() {
		return
	}
	if b.has("step") {
		if float64(d.R)-b.StepLevel < b.stepLine()/2 {
			b.fellBack(d.Day)
		}
		return
	}
	if n < 2 || !b.Days[n-2].S7.OK() || b.held(d.Day) || b.stuckLately(d.Day) {
		return
	}
	yesterday := float64(b.Days[n-2].R)
	if level := float64(b.Days[n-2].S7); float64(d.R)-max(level, yesterday) > max(b.stepLine(), b.stepNeed()/stepHours) && b.dieRose(float64(d.R)-max(level, yesterday)) {
		b.step(float64(d.R), level, int64(d.Day)*daySeconds, endOf(d.Day))
	}
}

// fellBack closes a step that went away by itself, and remembers one that did
// so at once.
func (b *Box) fellBack(day int32) {
	if f := &b.Open[b.index("step")]; day-int32(int64(f.Opened)/daySeconds) <= fellSoon {
		if day-b.Fell.StepDay >= fellDays {
			b.Fell.Step, b.Fell.Leap, b.Fell.Steps = 0, 0, 0
		}
		b.Fell.StepDay, b.Fell.Steps = day, min(b.Fell.Steps+1, 4)
		b.Fell.Step, b.Fell.Leap = max(b.Fell.Step, b.StepHigh), max(b.Fell.Leap, b.Leapt)
	}
	b.close("step", endOf(day), "fell back")
	b.CleanDay = day
}

// watchCleaning recognises the fall that a cleaning leaves, logged or not. One
// day is enough when it falls as far as a vent steps, else two.
func (b *Box) watchCleaning() {
	n := len(b.Days)
	if n < 3 {
		return
	}
	d, last := &b.Days[n-1], &b.Days[n-2]
	for back := 2; back <= 3 && back <= n; back++ {
		before := &b.Days[n-back]
		if before.Day < b.CleanDay || before.S7 < Value(max(watchRise, watchSig*b.Base.Sigma)) {
			continue
		}
		line := max(cleanLeast, cleanSigma*b.Base.Sigma)
		fell := func(day *Day) bool {
			drop := float64(before.S7 - day.R)
			return drop > line && day.R < before.S7/2
		}
		big := float64(before.S7-d.R) > stepHours*b.stepLine()
		if fell(d) && (back == 2 && big || back == 3 && fell(last)) {
			first := d.Day
			if back == 3 {
				first = last.Day
			}
			b.cleaned(first, float64(before.S7), float64(d.R), b.logged(first, Cleaned, Visit, PasteReplaced, FilterInstalled))
			return
		}
	}
}

// cleaned closes what a cleaning mends and starts the seven days anew. The
// clean box of the commissioning stays the measure: what a bad cleaning leaves
// behind must go on showing.
func (b *Box) cleaned(day int32, before, after float64, logged bool) {
	b.keepDusty(day, before)
	b.CleanDay = day
	at := endOf(b.Days[len(b.Days)-1].Day)
	b.Cleanings = append(b.Cleanings, Cleaning{b.Name, Unix(int64(day) * daySeconds), before, after, logged})
	if len(b.Cleanings) > 20 {
		b.Cleanings = b.Cleanings[1:]
	}
	b.close("resistance", at, "cleaned")
	b.close("step", at, "cleaned")
	b.Slow, b.Trend = counters{}, nil
	for i := range b.Days {
		if b.Days[i].Day >= day { // it may have been recognised a day late
			b.Days[i].S7 = b.weekOf(b.Days[i].Day)
		}
	}
}
