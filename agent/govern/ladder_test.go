package govern_test

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/edgeherd/edgeherd/agent/govern"
)

func TestLadderFollowsTheMargin(t *testing.T) {
	throttling := die(60)
	throttling.Throttling, throttling.ThrottlingKnown = true, true
	blind := unknown
	blind.Throttling, blind.ThrottlingKnown = true, true
	type step = rungStep[govern.Health]
	sec, minute := time.Second, time.Minute
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"a cool box serves the best", []step{{0, die(60), 2, 0}, {minute, die(88), 2, 0}}},
		{"heat that lasts goes down one rung a dwell", []step{
			{0, die(89), 2, 0}, {19 * sec, die(89), 2, 0}, {20 * sec, die(89), 2, 1}, {39 * sec, die(89), 2, 1}, {40 * sec, die(89), 2, 2}, {90 * sec, die(89), 2, 2}}},
		{"one hot reading costs nothing", []step{{0, die(95), 2, 0}, {10 * sec, die(60), 2, 0}, {20 * sec, die(95), 2, 0}}},
		{"no climbing inside the hysteresis", []step{
			{0, die(89), 1, 0}, {20 * sec, die(89), 1, 1}, {30 * sec, die(83), 1, 1}, {30 * minute, die(83), 1, 1}}},
		{"cool for long climbs one rung a dwell", []step{
			{0, die(89), 2, 0}, {20 * sec, die(89), 2, 1}, {40 * sec, die(89), 2, 2}, {minute, die(82), 2, 2}, {6*minute - sec, die(82), 2, 2},
			{6 * minute, die(82), 2, 1}, {11*minute - sec, die(82), 2, 1}, {11 * minute, die(82), 2, 0}}},
		{"a warm reading restarts the climb", []step{
			{0, die(89), 1, 0}, {20 * sec, die(89), 1, 1}, {minute, die(60), 1, 1}, {5 * minute, die(85), 1, 1}, {6 * minute, die(60), 1, 1}, {11 * minute, die(60), 1, 0}}},
		{"throttling goes down although the die seems cool", []step{{0, throttling, 1, 0}, {20 * sec, throttling, 1, 1}}},
		{"throttling counts also without a temperature", []step{{0, blind, 1, 0}, {20 * sec, blind, 1, 1}}},
		{"unknown keeps the rung", []step{{0, die(89), 1, 0}, {20 * sec, die(89), 1, 1}, {time.Hour, unknown, 1, 1}}},
		{"NaN is unknown", []step{{0, die(89), 1, 0}, {20 * sec, die(89), 1, 1}, {time.Hour, die(math.NaN()), 1, 1}}},
		{"no variants, no ladder", []step{{0, die(99), 0, 0}, {time.Hour, die(99), 0, 0}}},
		{"a model that goes takes its rungs along", []step{{0, die(89), 2, 0}, {20 * sec, die(89), 2, 1}, {40 * sec, die(89), 2, 2}, {50 * sec, die(89), 1, 1}}},
		{"a clock set back does not climb early", []step{
			{0, die(89), 1, 0}, {20 * sec, die(89), 1, 1}, {minute, die(60), 1, 1}, {-time.Hour, die(60), 1, 1},
			{-time.Hour + 299*sec, die(60), 1, 1}, {-time.Hour + 300*sec, die(60), 1, 0}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var l govern.Ladder
			walk(t, c.steps, func(h govern.Health, lowest int, now time.Time) (int, string) {
				var why string
				l, why = l.Step(h, lowest, now)
				return l.Rung, why
			})
		})
	}
}

// rungStep is one call of a Step, and the rung that it must end on.
type rungStep[T any] struct {
	after  time.Duration
	in     T
	lowest int
	want   int
}

func walk[T any](t *testing.T, steps []rungStep[T], call func(in T, lowest int, now time.Time) (rung int, why string)) {
	t.Helper()
	for i, s := range steps {
		if rung, why := call(s.in, s.lowest, start.Add(s.after)); rung != s.want || why == "" {
			t.Fatalf("step %d: rung %d (%s), want %d", i, rung, why, s.want)
		}
	}
}

func TestLadderNeverFlapsFasterThanItsDwellsAndClimbsOnlyWhenCool(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var l govern.Ladder
		now := start
		lowest := rapid.IntRange(0, 4).Draw(t, "lowest")
		changed := now.Add(-time.Hour)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(1, 90).Draw(t, "seconds")) * time.Second)
			h := drawHealth(t)
			before := l.Rung
			l, _ = l.Step(h, lowest, now)
			switch took := now.Sub(changed); {
			case l.Rung < 0 || l.Rung > lowest:
				t.Fatalf("rung %d of %d", l.Rung, lowest)
			case l.Rung > before+1 || l.Rung < before-1:
				t.Fatalf("from rung %d to %d at once", before, l.Rung)
			case l.Rung > before && took < govern.StepDwell:
				t.Fatalf("down %s after the change before", took)
			case l.Rung < before && took < govern.ClimbDwell:
				t.Fatalf("up %s after the change before", took)
			case l.Rung < before && (!h.DieKnown || math.IsNaN(h.DieCelsius) || h.Throttling && h.ThrottlingKnown):
				t.Fatalf("up with %+v", h)
			}
			if l.Rung != before {
				changed = now
			}
		}
	})
}

func TestHotterNeverServesABetterVariantAndTheLadderEnds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var cool, hot govern.Ladder
		now := start
		lowest := rapid.IntRange(0, 4).Draw(t, "lowest")
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(1, 90).Draw(t, "seconds")) * time.Second)
			celsius := rapid.Float64Range(70, 105).Draw(t, "die")
			cool, _ = cool.Step(die(celsius), lowest, now)
			hot, _ = hot.Step(die(celsius+rapid.Float64Range(0, 15).Draw(t, "more")), lowest, now)
			if hot.Rung < cool.Rung {
				t.Fatalf("hotter box on rung %d, cooler one on %d", hot.Rung, cool.Rung)
			}
		}
		// However it got there, lasting heat ends on the lowest rung and
		// lasting cold on the best, and there it stays.
		for _, end := range []struct {
			health govern.Health
			want   int
		}{{die(95), lowest}, {die(60), 0}} {
			for range 2 * (lowest + 1) {
				now = now.Add(govern.ClimbDwell)
				hot, _ = hot.Step(end.health, lowest, now)
			}
			if hot.Rung != end.want {
				t.Fatalf("rung %d at %.0f °C for long, want %d", hot.Rung, end.health.DieCelsius, end.want)
			}
		}
	})
}
