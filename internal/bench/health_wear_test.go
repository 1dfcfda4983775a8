package bench

import (
	"math"
	"slices"

	"github.com/edgeherd/edgeherd/internal/simboard/plant"
)

// wornAt is the end of a fan: its first throttle, or wornOut of its speed.
func wornAt(f *plant.Fault, throttle int64, throttled bool) (end int64, worn bool) {
	if f.Cause != plant.FanWear {
		return 0, false
	}
	end = math.MaxInt64
	if throttled {
		end = throttle
	}
	for d, l := range f.Level {
		if float64(l)*f.RPMLoss >= wornOut {
			end = min(end, f.Onset.Unix()+int64(d)*day)
			break
		}
	}
	return end, end != math.MaxInt64
}

func (r *result) judgeWear(f *plant.Fault, t *ticket, end int64, told bool) {
	lead(&r.wearLead, &r.wearPossible, f, t, end-7*day)
	split(told, &r.wearTold, &r.wearSilent).count(t != nil && t.at <= end-7*day)
}

// judgeSilent is about fans whose speed nothing tells: what even an index without
// any noise could have seen by then, and whether someone was due at the box for
// whatever reason.
func (r *result) judgeSilent(f *plant.Fault, t *ticket, tickets []ticket, by int64) {
	found := t != nil && t.at <= by
	r.silentDue.count(found || slices.ContainsFunc(tickets, func(x ticket) bool { return x.kind == aboutHeat && x.at <= by && x.until > by }))
	shown := riseOn(f, int(by/day-f.Onset.Unix()/day)) >= visibleRise
	r.silentShown.count(shown)
	if shown {
		r.silentFound.count(found)
	}
}
