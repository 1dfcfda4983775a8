package health

import (
	"math"
	"slices"

	"github.com/edgeherd/edgeherd/internal/rank"
)

// The air at the inlet against the same hour, one either side, of the last two
// weeks, and of the last three days: a heat wave comes day by day, a cooling
// that fails does not. Where the air swings from day to day anyway, because the
// site is cooled badly or by open windows, it must be further off. And it must
// be warmer than in the same hours of the week before: cooling that rests at
// night or at week-ends is a habit of the house.
const (
	ambientKelvin = 4.2
	ambientSudden = 4.2
	ambientSigma  = 3.0 // of the hours' own spread about the two weeks
	ambientTop    = 7.0 // K: no site may learn to live with more
	ambientHabit  = 4.0 // K above the warmest of the same hours of the last five weeks
	ambientMemory = 30 * 24
	ambientFirst  = 1.0 // K, the spread of air that is not known yet
	ambientHours  = 4
	ambientCalm   = 5
	// A cooling that fails shows before all that, as a climb: within half a day the
	// air leaves what is usual at these hours, further than it ever did.
	climbWithin = 12  // hours that are looked back
	ambientRose = 2.0 // K that must have come within them, or it is the season
	climbAbove  = 2.0
	climbSudden = 3.5
	climbSigma  = 3.3 // above the habit
	climbLeast  = 0.6 // K above it
	climbRose   = 3.3
	climbHours  = 2
	habitDays   = 5 * 7
	airHours    = (habitDays + 1) * 24
	agreeWithin = 6 * hourSeconds
	airGap      = 2 * hourSeconds // of readings in a row: one may be lost
	airGone     = daySeconds      // an alarm without readings stands for so long
)

// airRing holds the reference of each hour of 36 days.
type airRing struct {
	V      []Value // airHours long once in use
	Last   int64
	Spread float64 // K², moving mean of the squares about the usual; 0: not known
}

// limit is how far above the usual the air must be.
func (r *airRing) limit() float64 {
	return min(max(ambientKelvin, ambientSigma*math.Sqrt(r.Spread)), ambientTop)
}

func (r *airRing) learn(above float64) {
	if r.Spread == 0 {
		r.Spread = ambientFirst * ambientFirst
	}
	r.Spread += (min(above*above, ambientTop*ambientTop) - r.Spread) / ambientMemory
}

func (r *airRing) put(start int64, v Value) {
	if r.V == nil {
		r.V = slices.Repeat([]Value{Missing()}, airHours)
	}
	hour := start / hourSeconds
	last := r.Last / hourSeconds
	for k := max(last+1, hour-airHours); k < hour; k++ {
		r.V[k%airHours] = Missing()
	}
	r.V[hour%airHours], r.Last = v, start
}

// usual are the values of the same hour ±1 of the last days, into buf.
func (r *airRing) usual(start, days int64, buf []float64) []float64 {
	hour := start / hourSeconds
	for d := int64(1); d <= days; d++ {
		for o := int64(-1); o <= 1; o++ {
			if v := r.V[(hour-24*d+o)%airHours]; v.OK() {
				buf = append(buf, float64(v))
			}
		}
	}
	return buf
}

// habit is the warmest of the same hour of the week, ±1, of the last five weeks.
func (r *airRing) habit(start int64) float64 {
	hour, top := start/hourSeconds, math.Inf(-1)
	for d := int64(7); d <= habitDays; d += 7 {
		for o := int64(-1); o <= 1; o++ {
			if v := r.V[(hour-24*d+o)%airHours]; v.OK() {
				top = max(top, float64(v))
			}
		}
	}
	return top
}

// climbed is how far the air has risen since the coolest of the last hours, each
// against what is usual at it; now is that of the hour that starts at start.
func (r *airRing) climbed(start int64, now float64) float64 {
	least := now
	var store [42]float64
	for k := int64(1); k <= climbWithin; k++ {
		at := start - k*hourSeconds
		if v := r.V[at/hourSeconds%airHours]; v.OK() {
			if u := rank.Median(r.usual(at, 14, store[:0])); u == u {
				least = min(least, float64(v)-u)
			}
		}
	}
	return now - least
}

func (b *Box) watchAmbient(h *Hour) {
	ref := b.Basis.reference(h)
	gap := h.Start - b.Air.Last
	if ref != ref || !b.Basis.outer() {
		if gap > airGone {
			b.close("ambient", h.Start+hourSeconds, "its air is not measured any more")
		}
		return
	}
	c := &b.Ambient
	if gap > airGap {
		c.Watch, c.Fire = 0, 0 // they count hours in a row; calm is calm, whatever was between
	}
	b.Air.put(h.Start, Value(ref))
	var store [42]float64
	usual := b.Air.usual(h.Start, 14, store[:0])
	if len(usual) < 14 {
		return
	}
	sum := 0.0
	for _, v := range usual {
		sum += v
	}
	open := c.Watch > 0 || b.has("ambient")
	// The mean is near the median: most hours end here.
	mean := ref - sum/float64(len(usual))
	limit := b.Air.limit()
	line := max(climbLeast, climbSigma*math.Sqrt(b.Air.Spread))
	b.Air.learn(mean)
	if !open && c.Fire == 0 && mean < climbAbove*0.6 {
		return
	}
	above, over := ref-rank.Median(usual), ref-b.Air.habit(h.Start)
	var warm, climbs bool
	if above > climbAbove && over > min(line, ambientHabit) {
		var late [9]float64
		sudden, climbed := ref-rank.Median(b.Air.usual(h.Start, 3, late[:0])), b.Air.climbed(h.Start, above)
		rests := b.Basis.Ref == RefInlet && b.Still[0].Hours > climbHours // it may be stuck: then the hours move about it
		warm = sudden > ambientSudden && over > ambientHabit && climbed > ambientRose
		climbs = !rests && sudden > climbSudden && over > line && climbed > climbRose
	}
	count(&c.Watch, above > limit && (warm || b.has("ambient")))
	count(&c.Fire, climbs)
	count(&c.Calm, above < limit/2)
	at := h.Start + hourSeconds
	switch {
	case c.Watch >= ambientHours || c.Fire >= climbHours:
		f := Finding{Family: "ambient", Cause: CauseAmbient, Confidence: 0.75, Level: Watch, Since: Unix(h.Start - int64(max(c.Watch, c.Fire)-1)*hourSeconds), Evidence: []Evidence{
			fact("above_usual_k", Value(above), "air-warmer", "the %s air is %.1f K warmer than at this time of the last two weeks", b.Basis.Ref, above),
			fact("inlet_c", Value(ref), "air-now", "it is at %.1f °C", ref),
		}}
		if len(b.Recent) >= 4 && h.Start-b.Recent[len(b.Recent)-4].Start < daySeconds {
			r := b.recentMedian(4)
			f.Evidence = append(f.Evidence, fact("resistance_percent", Value(Percent(r)), "box-itself", "the box itself stands at %+.1f %%: heat of the room does not change that", Percent(r)))
		}
		b.raise(f, at)
	case c.Calm >= ambientCalm:
		b.close("ambient", at, "back to normal")
		c.Calm = 0
	}
}

// Incident is what boxes of one site agree on.
type Incident struct {
	Site     string     `json:"site"`
	Cause    Cause      `json:"cause"`
	Level    Level      `json:"level"`
	Since    Unix       `json:"since"`
	Opened   Unix       `json:"opened"` // when the second box agreed
	Closed   Unix       `json:"closed,omitempty"`
	Boxes    []string   `json:"boxes"`
	Evidence []Evidence `json:"evidence"`
}

// Agree makes incidents of the ambient findings of a site: two boxes whose air
// turned warm within six hours of each other are the room, one alone is what
// it breathes.
func Agree(site string, findings []Finding) []Incident {
	var air []Finding
	for _, f := range findings {
		if f.Cause == CauseAmbient {
			air = append(air, f)
		}
	}
	slices.SortStableFunc(air, func(a, b Finding) int { return int(a.Opened - b.Opened) })
	var out []Incident
	var members []Finding
	flush := func() {
		if in, ok := incident(site, members); ok {
			out = append(out, in)
		}
		members = nil
	}
	for _, f := range air {
		if len(members) > 0 && f.Opened-members[len(members)-1].Opened > agreeWithin {
			flush()
		}
		members = append(members, f)
	}
	flush()
	return out
}

func incident(site string, members []Finding) (Incident, bool) {
	in := Incident{Site: site, Cause: CauseHVAC, Level: Urgent}
	var above []float64
	for _, f := range members {
		if slices.Contains(in.Boxes, f.Box) {
			continue
		}
		in.Boxes = append(in.Boxes, f.Box)
		if in.Since == 0 || f.Since < in.Since {
			in.Since = f.Since
		}
		if len(in.Boxes) == 2 {
			in.Opened = f.Opened
		}
		above = append(above, float64(f.Evidence[0].Value))
		in.Closed = max(in.Closed, f.Closed)
	}
	for _, f := range members {
		if f.Closed == 0 {
			in.Closed = 0
		}
	}
	slices.Sort(in.Boxes)
	m := rank.Median(above)
	in.Evidence = []Evidence{fact("above_usual_k", Value(m), "room-warmer", "%d boxes breathe air that is %.1f K warmer than usual (median)", len(in.Boxes), m)}
	return in, len(in.Boxes) >= 2
}
