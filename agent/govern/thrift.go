package govern

import "time"

// The limits of thrift.
const (
	// LoadDwell is how long requests have been refused before each rung: a
	// burst passes by itself, and a switch of variants costs a load.
	LoadDwell = 60 * time.Second
	// savingRung is how far a box goes down that is to draw less power.
	savingRung = 1
)

// Need is what asks for cheaper variants of a box that is not hot.
type Need struct {
	// Saving says that the box is to draw less power, and why; empty: it is not.
	Saving string
	// Overloaded says that requests were refused since the last step. It holds
	// only where OverloadKnown.
	Overloaded, OverloadKnown bool
}

// Thrift is kept between calls of Step, like Ladder. The box serves the lower
// rung of the two: neither heat nor load lifts what the other asks for.
type Thrift struct {
	Rung        int       // 0 asks for nothing
	Cause       Cause     // of the rung: CausePower or CauseLoad
	SavingSince time.Time // when power began to be saved; zero when it is not
	LoadSince   time.Time // when requests began to be refused; zero when none are
	EasedSince  time.Time // when nothing asked for this rung any more; zero when something does
}

// Step takes one step; lowest is the lowest rung of any model.
func (t Thrift) Step(n Need, lowest int, now time.Time) (Thrift, string) {
	lowest = max(lowest, 0)
	t.Rung = min(max(t.Rung, 0), lowest)
	was := t.Rung
	for _, since := range []*time.Time{&t.SavingSince, &t.LoadSince, &t.EasedSince} {
		if since.After(now) { // the clock was set back
			*since = time.Time{}
		}
	}
	begin := func(since *time.Time, on bool) (lasts time.Duration) {
		if !on {
			*since = time.Time{}
		} else if since.IsZero() {
			*since = now
		}
		if since.IsZero() {
			return -1
		}
		return now.Sub(*since)
	}
	floor := 0
	if begin(&t.SavingSince, n.Saving != "") >= StepDwell {
		floor = min(savingRung, lowest)
	}
	if !n.OverloadKnown { // says nothing, neither way
		t.EasedSince = time.Time{}
	} else if begin(&t.LoadSince, n.Overloaded) >= LoadDwell {
		t.Rung, t.LoadSince = min(t.Rung+1, lowest), now
	}
	switch {
	case floor > 0 && t.Rung <= floor:
		t.Rung, t.Cause = floor, CausePower
	case t.Rung > was:
		t.Cause = CauseLoad
	}
	eased := n.OverloadKnown && !n.Overloaded && t.Rung > floor && (n.Saving == "" || floor > 0)
	if begin(&t.EasedSince, eased) >= ClimbDwell {
		t.Rung, t.EasedSince = t.Rung-1, now
	}
	if t.Rung == 0 {
		t.Cause = CauseNone
	}
	return t, t.reason(n)
}

func (t Thrift) reason(n Need) string {
	switch {
	case t.Rung == 0:
		return "neither power nor load ask for cheaper variants"
	case t.Cause == CausePower && n.Saving != "":
		return n.Saving
	case t.Cause == CausePower:
		return "the box saved power until a moment ago"
	}
	return "requests are or were refused for lack of room"
}
