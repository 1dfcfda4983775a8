package health

import (
	"math"
	"slices"

	"github.com/edgeherd/edgeherd/internal/rank"
)

// Where no sensor knows the air, the die tells of it: what it shows less what
// the load should add. It is wrong by as much as the box is dusty, and it swings
// with the weather, but within hours it moves only so far. So a vent that is
// blocked shows as air that leaps, and what stands in for the air may not alone
// say that a vent is blocked.

// implied is the air of one steady hour, and what the load adds to it, K.
type implied struct {
	Start   int64
	Air, Up float64
}

const (
	leapLeast = 8.0 // K
	leapTimes = 2.0 // of what the clean box did
	leapShare = 0.2 // of what the load adds
	leapHours = 12  // before, that it is held against
	// What lies in the same air warms by less than the die.
	insideShare = 0.35
	dieShare    = 0.4 // of what a step is worth, that the die itself shows
)

// implied air of an hour.
func (base *Baseline) implied(h *Hour, basis *Basis) (implied, bool) {
	up := base.predicted(basis.load(h), basis.air(h))
	if basis.Ref == RefNone {
		up *= base.NoRefSlope
	}
	air := float64(h.V[Die]) - up
	return implied{h.Start, air, up}, air == air
}

func (b *Box) imply(h *Hour) {
	if b.Basis.outer() {
		return
	}
	if m, ok := b.Base.implied(h, &b.Basis); ok {
		if b.Airs = append(b.Airs, m); len(b.Airs) > keepHours {
			b.Airs = slices.Delete(b.Airs, 0, len(b.Airs)-keepHours)
		}
	}
}

// leap is how far the last four hours lie above the two days before, and what
// the load adds in them.
func leap(all []implied, dusty float64) (kelvin, up, from float64, ok bool) {
	n := len(all)
	if n < 4 || all[n-1].Start-all[n-4].Start > stepSpan {
		return 0, 0, 0, false
	}
	var now, ups [4]float64
	for i, m := range all[n-4:] {
		now[i], ups[i] = m.Air-dusty*m.Up, m.Up
	}
	var store [keepHours]float64
	before := store[:0]
	for _, m := range all[:n-4] {
		if at := all[n-1].Start - m.Start; at >= stepSpan && at < 3*daySeconds {
			before = append(before, m.Air-dusty*m.Up)
		}
	}
	if len(before) < leapHours {
		return 0, 0, 0, false
	}
	from = rank.Median(before)
	return rank.Median(now[:]) - from, rank.Median(ups[:]), from, true
}

// learnLeap is the furthest that the implied air of the clean box leapt.
func (base *Baseline) learnLeap(hours []Hour, basis *Basis) {
	if basis.outer() {
		return
	}
	var all []implied
	for i := range hours {
		if m, ok := base.implied(&hours[i], basis); ok {
			all = append(all, m)
			if k, _, _, ok := leap(all[max(len(all)-keepHours, 0):], 0); ok {
				base.Leap = max(base.Leap, k)
			}
		}
	}
}

// dustOf is what dust adds to each K that the load adds.
func dustOf(level float64) float64 { return max(math.Exp(level)-1, 0) }

// watchLeap finds blocked vents of boxes without any reference.
func (b *Box) watchLeap(h *Hour) {
	if b.Basis.outer() || b.has("step") || b.held(h.day()) || b.stuckLately(h.day()) {
		return
	}
	level, known := b.before()
	if !known {
		return
	}
	k, up, from, ok := leap(b.Airs, dustOf(level))
	need := max(leapLeast, leapTimes*b.Base.Leap, leapShare*up)
	if b.Fell.Leap > 0 && h.day()-b.Fell.StepDay < fellDays {
		need = max(need, (fellTimes+fellMore*float64(b.Fell.Steps))*b.Fell.Leap)
	}
	if !ok || k < need {
		return
	}
	if b.byInside() && (len(b.Recent) < 4 || b.recentMedian(4)-max(level, b.dayBefore(h.Start)) < insideShare*b.stepLine()) {
		return
	}
	b.LeapFrom, b.Leapt, b.StepDust, b.StepHigh = from, k, dustOf(level), 0
	b.raise(Finding{Family: "step", Cause: CauseVent, Confidence: 0.6, Level: Urgent, Since: Unix(b.Airs[len(b.Airs)-4].Start), Evidence: []Evidence{
		fact("leap_k", Value(k), "leap", "within hours the die became %.1f K hotter than load and fans explain; no sensor knows the air, so a room that heats up as fast looks alike", k),
		b.comparedBy(),
	}}, h.Start)
}

// closeLeap judges it by whole days.
func (b *Box) closeLeap() {
	var airs []float64
	day := b.Days[len(b.Days)-1].Day
	for _, m := range b.Airs {
		if int32(m.Start/daySeconds) == day {
			airs = append(airs, m.Air-b.StepDust*m.Up)
		}
	}
	if len(airs) >= leastDay && rank.Median(airs)-b.LeapFrom < b.Leapt/2 {
		b.fellBack(day)
	}
}

// dieRose: where something inside stands in for the air, it may have cooled
// alone. A vent that is blocked warms the die itself.
func (b *Box) dieRose(r float64) bool {
	level, _ := b.before()
	k, up, _, ok := leap(b.Airs, dustOf(level))
	return b.Basis.outer() || !ok || k > max(dieShare*up*(math.Exp(r)-1), b.Base.Leap)
}
