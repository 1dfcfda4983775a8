package govern_test

import (
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/agent/govern"
)

func TestServedNamesWhatHoldsTheBoxBack(t *testing.T) {
	cool := start.Add(-2 * time.Minute)
	for _, c := range []struct {
		name   string
		ladder govern.Ladder
		thrift govern.Thrift
		rung   int
		cause  govern.Cause
		climbs time.Duration
	}{
		{"nothing", govern.Ladder{CoolSince: cool}, govern.Thrift{}, 0, govern.CauseNone, 0},
		{"heat that lasts", govern.Ladder{Rung: 2}, govern.Thrift{}, 2, govern.CauseHot, govern.ClimbDwell},
		{"heat that is over", govern.Ladder{Rung: 1, CoolSince: cool}, govern.Thrift{}, 1, govern.CauseHot, 3 * time.Minute},
		{"power below heat", govern.Ladder{Rung: 1, CoolSince: cool}, govern.Thrift{Rung: 2, Cause: govern.CausePower}, 2, govern.CausePower, govern.ClimbDwell},
		{"both, of which heat is told and the later climbs", govern.Ladder{Rung: 1, CoolSince: cool}, govern.Thrift{Rung: 1, Cause: govern.CauseLoad}, 1, govern.CauseHot, govern.ClimbDwell},
		{"a clock set back", govern.Ladder{Rung: 1, CoolSince: start.Add(time.Hour)}, govern.Thrift{}, 1, govern.CauseHot, govern.ClimbDwell},
		{"long cool", govern.Ladder{Rung: 1, CoolSince: start.Add(-time.Hour)}, govern.Thrift{}, 1, govern.CauseHot, 0},
	} {
		if rung, cause, climbs := govern.Served(c.ladder, c.thrift, start); rung != c.rung || cause != c.cause || climbs != c.climbs {
			t.Errorf("%s: rung %d for %q, climbs in %s; want %d, %q, %s", c.name, rung, cause, climbs, c.rung, c.cause, c.climbs)
		}
	}
}

// TestThriftRemembersItsCause: also while it climbs, when nothing asks any more.
func TestThriftRemembersItsCause(t *testing.T) {
	calm, battery := govern.Need{OverloadKnown: true}, govern.Need{OverloadKnown: true, Saving: "on battery"}
	busy := govern.Need{OverloadKnown: true, Overloaded: true}
	var th govern.Thrift
	for i, s := range []struct {
		after time.Duration
		need  govern.Need
		cause govern.Cause
		why   string
	}{
		{0, battery, govern.CauseNone, ""},
		{20 * time.Second, battery, govern.CausePower, "on battery"},
		{time.Minute, calm, govern.CausePower, "the box saved power until a moment ago"},
		{2 * time.Minute, busy, govern.CausePower, ""},
		{3 * time.Minute, busy, govern.CauseLoad, "requests are or were refused for lack of room"},
		{4 * time.Minute, calm, govern.CauseLoad, ""},
		{9 * time.Minute, calm, govern.CauseLoad, ""},
		{14 * time.Minute, calm, govern.CauseNone, ""},
	} {
		var why string
		if th, why = th.Step(s.need, 2, start.Add(s.after)); th.Cause != s.cause || s.why != "" && why != s.why {
			t.Errorf("step %d: rung %d, cause %q (%s), want %q", i, th.Rung, th.Cause, why, s.cause)
		}
	}
}
