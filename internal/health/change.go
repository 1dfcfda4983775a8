package health

import (
	"math"
	"slices"

	"github.com/edgeherd/edgeherd/internal/rank"
)

// held: for three days after a change slow and step findings wait for settle.
func (b *Box) held(day int32) bool {
	for _, c := range b.Changes {
		if d := int32(c.At / daySeconds); day >= d && day <= d+holdDays {
			return true
		}
	}
	return false
}

// logged reports whether a change of one of the kinds lies within 3 days.
func (b *Box) logged(day int32, kinds ...string) bool {
	return slices.ContainsFunc(b.Changes, func(c Change) bool {
		return slices.Contains(kinds, c.Kind) && abs(int(day)-int(c.At/daySeconds)) <= holdDays
	})
}

func (b *Box) dropChanges(day int32) {
	b.Changes = slices.DeleteFunc(b.Changes, func(c Change) bool { return day > int32(c.At/daySeconds)+7 })
}

// settle compares the days before a change with those after it, and moves the
// baseline by what the change itself did.
func (b *Box) settle(day int32) {
	kept := b.Changes[:0]
	for _, c := range b.Changes {
		at := int32(c.At / daySeconds)
		if day < at+holdDays {
			kept = append(kept, c)
			continue
		}
		before := b.levelOf(at-5, at-1)
		after := b.levelOf(at+1, at+holdDays)
		if after != after && day < at+7 {
			kept = append(kept, c)
			continue
		}
		if c.Kind == FanReplaced {
			b.newFans(at)
		}
		if before == before && after == after {
			b.shift(c.Kind, at, before, after)
		}
	}
	b.Changes = kept
}

// levelOf is the median residual of days from..to.
func (b *Box) levelOf(from, to int32) float64 {
	var v []float64
	for i := range b.Days {
		if d := &b.Days[i]; d.Day >= from && d.Day <= to && d.R.OK() {
			v = append(v, float64(d.R))
		}
	}
	return rank.Median(v)
}

// shift decides what becomes of a step at a change. A fall from an elevated
// level is a cleaning and leaves the baseline alone; new paste and a new
// filter make a new clean box; a rollout's small shift is its own.
func (b *Box) shift(kind string, at int32, before, after float64) {
	by := after - before
	service := kind == Cleaned || kind == Visit || kind == FanReplaced || kind == PasteReplaced || kind == FilterInstalled
	if service && before > watchRise*0.75 && by < -before/2 {
		if b.CleanDay < at-2 {
			b.cleaned(at+1, before, after, true)
		}
		if kind != PasteReplaced && kind != FilterInstalled && after > -2*b.Base.Sigma {
			return
		}
		by = after
	} else if kind == Cleaned {
		return // it changed nothing worth moving the measure for
	}
	// Less than this is noise: moving by it would let the baseline wander.
	if math.Abs(by) > changeLimit || math.Abs(by) < max(0.015, 2*b.Base.Sigma/math.Sqrt(3)) {
		return
	}
	b.Base.Level += by
	b.Base.NoRefSlope *= math.Exp(by)
	b.Base.Reason = kind
	b.moveDays(at, -by)
}

// newFans takes the speed of the days after a replacement as the new normal.
func (b *Box) newFans(at int32) {
	for fan := range Fans {
		var v []float64
		for i := range b.Days {
			if d := &b.Days[i]; d.Day > at && d.Fan[fan].OK() {
				v = append(v, float64(d.Fan[fan]))
			}
		}
		by := rank.Median(v)
		if by != by {
			continue
		}
		b.Base.FanLevel[fan] += Value(by)
		for i := range b.Days {
			b.Days[i].Fan[fan] -= Value(by)
		}
		b.close(fanNames[fan], endOf(at+holdDays), "fan replaced")
		b.FanWear[fan], b.FanLow[fan] = counters{}, 0
	}
}
