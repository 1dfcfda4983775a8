package govern_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/edgeherd/edgeherd/agent/govern"
)

func TestThriftFollowsPowerAndLoad(t *testing.T) {
	calm := govern.Need{OverloadKnown: true}
	busy := govern.Need{OverloadKnown: true, Overloaded: true}
	battery := govern.Need{OverloadKnown: true, Saving: "on battery"}
	silent := govern.Need{} // the runner does not answer
	both := govern.Need{OverloadKnown: true, Overloaded: true, Saving: "on battery"}
	type step = rungStep[govern.Need]
	sec, minute := time.Second, time.Minute
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"nothing asks", []step{{0, calm, 2, 0}, {time.Hour, calm, 2, 0}}},
		{"a burst costs nothing", []step{{0, busy, 2, 0}, {50 * sec, busy, 2, 0}, {minute, calm, 2, 0}, {70 * sec, busy, 2, 0}}},
		{"load that lasts goes down a rung a dwell", []step{{0, busy, 2, 0}, {minute, busy, 2, 1}, {119 * sec, busy, 2, 1}, {2 * minute, busy, 2, 2}, {time.Hour, busy, 2, 2}}},
		{"after the load it climbs a rung a dwell", []step{
			{0, busy, 1, 0}, {minute, busy, 1, 1}, {2 * minute, calm, 1, 1}, {7*minute - sec, calm, 1, 1}, {7 * minute, calm, 1, 0}}},
		{"power goes down one rung and no further", []step{{0, battery, 2, 0}, {19 * sec, battery, 2, 0}, {20 * sec, battery, 2, 1}, {time.Hour, battery, 2, 1}}},
		{"a flicker of the mains costs nothing", []step{{0, battery, 2, 0}, {10 * sec, calm, 2, 0}, {20 * sec, battery, 2, 0}}},
		{"load on battery goes down further, and back to what the battery asks", []step{
			{0, both, 3, 0}, {20 * sec, both, 3, 1}, {minute, both, 3, 2}, {2 * minute, battery, 3, 2}, {7 * minute, battery, 3, 1}, {time.Hour, battery, 3, 1}}},
		{"mains again climbs after the dwell", []step{{0, battery, 1, 0}, {20 * sec, battery, 1, 1}, {minute, calm, 1, 1}, {6 * minute, calm, 1, 0}}},
		{"a runner that is silent changes nothing", []step{{0, busy, 1, 0}, {minute, busy, 1, 1}, {2 * minute, calm, 1, 1}, {3 * minute, silent, 1, 1}, {time.Hour, silent, 1, 1}}},
		{"no variants, no rungs", []step{{0, both, 0, 0}, {time.Hour, both, 0, 0}}},
		{"a clock set back does not climb early", []step{
			{0, busy, 1, 0}, {minute, busy, 1, 1}, {2 * minute, calm, 1, 1}, {-time.Hour, calm, 1, 1}, {-time.Hour + 299*sec, calm, 1, 1}, {-time.Hour + 300*sec, calm, 1, 0}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var l govern.Thrift
			walk(t, c.steps, func(n govern.Need, lowest int, now time.Time) (int, string) {
				var why string
				l, why = l.Step(n, lowest, now)
				return l.Rung, why
			})
		})
	}
}

func TestThriftNeverFlapsFasterThanItsDwells(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var l govern.Thrift
		now := start
		lowest := rapid.IntRange(0, 4).Draw(t, "lowest")
		changed := now.Add(-time.Hour)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(1, 90).Draw(t, "seconds")) * time.Second)
			n := govern.Need{OverloadKnown: rapid.Bool().Draw(t, "known"), Overloaded: rapid.Bool().Draw(t, "overloaded")}
			if rapid.Bool().Draw(t, "saving") {
				n.Saving = "on battery"
			}
			before := l.Rung
			l, _ = l.Step(n, lowest, now)
			switch took := now.Sub(changed); {
			case l.Rung < 0 || l.Rung > lowest || l.Rung > before+2 || l.Rung < before-1:
				t.Fatalf("from rung %d to %d of %d", before, l.Rung, lowest)
			case l.Rung < before && took < govern.ClimbDwell:
				t.Fatalf("up %s after the change before", took)
			case l.Rung < before && (n.Overloaded || !n.OverloadKnown):
				t.Fatalf("up with %+v", n)
			}
			if l.Rung != before {
				changed = now
			}
		}
	})
}
