package govern

import "time"

// Cause is what keeps a box from the best variants of its models.
type Cause string

// The causes.
const (
	CauseNone  Cause = "" // nothing does
	CauseHot   Cause = "hot"
	CausePower Cause = "power"
	CauseLoad  Cause = "load"
)

// Served is the rung that is served, the lower of the two, what asks for it, and
// when at the soonest it may climb by one: not before, if nothing asks any more.
// Heat is told where both ask, since it is what a person can do something about.
func Served(l Ladder, t Thrift, now time.Time) (rung int, cause Cause, climbs time.Duration) {
	if l.Rung >= t.Rung {
		rung, cause, climbs = l.Rung, CauseHot, left(l.CoolSince, now)
	}
	if t.Rung >= l.Rung {
		rung, climbs = t.Rung, max(climbs, left(t.EasedSince, now))
	}
	switch {
	case rung == 0:
		return 0, CauseNone, 0
	case t.Rung > l.Rung:
		cause = t.Cause
	}
	return rung, cause, climbs
}

// left is what is left of ClimbDwell since a time; zero: nothing of it is over.
func left(since, now time.Time) time.Duration {
	if since.IsZero() {
		return ClimbDwell
	}
	return min(max(ClimbDwell-now.Sub(since), 0), ClimbDwell)
}

// Cost is what one item costs with a variant, as it was measured on this box.
type Cost struct {
	Seconds float64 // of processor time or, where an accelerator computes, of time
	Joules  float64 // above what the box draws without it; 0: no sensor could tell
}

// cheaperBy is what a variant must save against the one above it: less is
// noise, and not worth the loss of precision.
const cheaperBy = 0.9

// Saves reports whether a variant is worth a rung below the one above it. Where
// both were measured in joules these decide: an accelerator that takes longer may
// still give off less heat, and a variant that is quicker more.
func (c Cost) Saves(above Cost) bool {
	if c.Joules > 0 && above.Joules > 0 {
		return c.Joules <= cheaperBy*above.Joules
	}
	return c.Seconds <= cheaperBy*above.Seconds
}
