package health

import (
	"slices"

	"github.com/edgeherd/edgeherd/internal/rank"
)

// Dust comes to all boxes of a site, a fan wears out alone. Where no fan tells
// its speed both look the same to a box by itself, so it is held against the
// other boxes of its site.

// Mates are the other boxes of a site, as far as they can be compared.
type Mates struct {
	N int     `json:"n"` // 0: there are none
	R float64 `json:"r"` // residual of a week, of the middle one
}

const (
	matesLeast = 2
	matesAge   = 45 // days since it was clean: before, dust shows nowhere
	aloneRise  = 0.06
	aloneShare = 0.3 // of the box's own rise
	aloneStill = 0.5 // until then what stood alone still does
	wearDays   = 6   // that wear takes from the first sign to the watch line; lint takes fewer
)

// Stand is how far a box stands above its clean self, for its mates to be
// compared with; false: it has not been dusty for long enough to tell.
func (b *Box) Stand() (r float64, ok bool) {
	if len(b.Days) == 0 {
		return 0, false
	}
	d := &b.Days[len(b.Days)-1]
	return float64(d.S7), d.S7.OK() && d.Day-max(b.CleanDay, int32(b.First/daySeconds)) >= matesAge
}

// MatesOf are boxes that stand so; the slice is sorted.
func MatesOf(stands []float64) Mates {
	if len(stands) < matesLeast {
		return Mates{}
	}
	return Mates{len(stands), rank.Median(stands)}
}

// BlindFans: there are fans, since something drives them, but none tells how
// fast it turns.
func (b *Box) BlindFans() bool { return b.Basis.Air == AirPWM }

// beside holds what looks like a clog of a box against its mates.
func (b *Box) beside(mates Mates, v verdict) verdict {
	if v.cause != CauseAirflow {
		return v
	}
	own, share, slowly := float64(b.Days[len(b.Days)-1].S7), aloneShare, false
	if i := b.index("resistance"); i >= 0 {
		f := &b.Open[i]
		slowly = f.Opened-f.Since >= wearDays*daySeconds
		if f.Cause == CauseFanWear {
			share = aloneStill
		}
	}
	switch {
	case mates.N > 0 && slowly && own > aloneRise && mates.R < share*own:
		v.cause, v.confidence = CauseFanWear, 0.75
		v.evidence = append(v.evidence, fact("mates_percent", Value(Percent(mates.R)), "stands-alone", "no fan tells its speed, and the other %d boxes of the site stand at %+.1f %% in the middle: dust comes to all of them, a fan wears out alone", mates.N, Percent(mates.R)))
	case mates.N == 0 || mates.R < aloneStill*own:
		v.confidence = min(v.confidence, 0.8)
		v.evidence = append(v.evidence, fact("fan_unseen", 0, "fan-unseen", "no fan tells its speed: one that wears out looks like a clog"))
	default:
		v.evidence = append(v.evidence, fact("mates_percent", Value(Percent(mates.R)), "stands-with-others", "the other %d boxes of the site stand at %+.1f %% in the middle: dust comes to all of them", mates.N, Percent(mates.R)))
	}
	return v
}

// stand is that of a box on a day.
type stand struct {
	day int32
	r   float64
}

// standing are the stands of a box by day; those of days that told nothing are
// left out.
type standing []stand

// take notes how a box stands on a day.
func (s standing) take(b *Box) standing {
	r, ok := b.Stand()
	if ok {
		return append(s, stand{lastOf(b), r})
	}
	return s
}

func lastOf(b *Box) int32 {
	if n := len(b.Days); n > 0 {
		return b.Days[n-1].Day
	}
	return 0
}

// on is the stand of a day, or of up to three before.
func (s standing) on(day int32) (float64, bool) {
	i, exact := slices.BinarySearchFunc(s, day, func(x stand, day int32) int { return int(x.day - day) })
	if !exact {
		i--
	}
	if i < 0 || day-s[i].day > 3 {
		return 0, false
	}
	return s[i].r, true
}

// matesOn are boxes that stand so on a day.
func matesOn(all []standing, day int32) Mates {
	var r []float64
	for _, s := range all {
		if v, ok := s.on(day); ok {
			r = append(r, v)
		}
	}
	return MatesOf(r)
}
