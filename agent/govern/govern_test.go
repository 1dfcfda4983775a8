package govern_test

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/edgeherd/edgeherd/agent/govern"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func die(celsius float64) govern.Health {
	return govern.Health{DieCelsius: celsius, DieKnown: true, LimitCelsius: 100, LimitKnown: true}
}

var unknown = govern.Health{LimitCelsius: 100, LimitKnown: true}

func TestDutyFollowsTheMargin(t *testing.T) {
	throttling := die(70)
	throttling.Throttling, throttling.ThrottlingKnown = true, true
	noLimit := govern.Health{DieCelsius: 91, DieKnown: true}
	type step struct {
		after  time.Duration // since start
		health govern.Health
		want   govern.Level
	}
	sec := time.Second
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"cool stays full", []step{{0, die(50), govern.Full}, {10 * sec, die(91.9), govern.Full}}},
		{"one hot reading costs nothing", []step{{0, die(95), govern.Full}, {10 * sec, die(60), govern.Full}, {20 * sec, die(95), govern.Full}}},
		{"heat that lasts reduces", []step{{0, die(93), govern.Full}, {10 * sec, die(93), govern.Reduced}}},
		{"two levels at once when the margin asks for it", []step{{0, die(97), govern.Full}, {10 * sec, die(97), govern.Minimal}}},
		{"at the limit pause at once", []step{{0, die(100), govern.Paused}}},
		{"recovery is one level per dwell", []step{
			{0, die(100), govern.Paused}, {10 * sec, die(60), govern.Paused}, {69 * sec, die(60), govern.Paused},
			{70 * sec, die(60), govern.Minimal}, {129 * sec, die(60), govern.Minimal},
			{130 * sec, die(60), govern.Reduced}, {190 * sec, die(60), govern.Full}}},
		{"no recovery inside the hysteresis", []step{
			{0, die(93), govern.Full}, {10 * sec, die(93), govern.Reduced},
			{20 * sec, die(89), govern.Reduced}, {200 * sec, die(89), govern.Reduced}, // margin 11 < 8+4
			{210 * sec, die(88), govern.Reduced}, {270 * sec, die(88), govern.Full}}},
		{"a warm reading restarts the recovery", []step{
			{0, die(93), govern.Full}, {10 * sec, die(93), govern.Reduced},
			{20 * sec, die(60), govern.Reduced}, {70 * sec, die(90), govern.Reduced},
			{80 * sec, die(60), govern.Reduced}, {130 * sec, die(60), govern.Reduced}, {140 * sec, die(60), govern.Full}}},
		{"throttling reduces although the die seems cool", []step{{0, throttling, govern.Full}, {10 * sec, throttling, govern.Reduced}}},
		{"limit unknown means 90 °C", []step{{0, noLimit, govern.Paused}}},
		{"a box without sensor works", []step{{0, unknown, govern.Full}, {10 * time.Minute, unknown, govern.Full}}},
		{"a sensor that got lost reduces", []step{
			{0, die(50), govern.Full}, {59 * sec, unknown, govern.Full}, {60 * sec, unknown, govern.Reduced}}},
		{"unknown does not raise", []step{{0, die(100), govern.Paused}, {10 * time.Minute, unknown, govern.Paused}}},
		{"NaN is unknown", []step{{0, die(100), govern.Paused}, {10 * time.Minute, die(math.NaN()), govern.Paused}}},
		{"clock stepped back does not raise early", []step{
			{0, die(100), govern.Paused}, {10 * sec, die(60), govern.Paused},
			{-time.Hour, die(60), govern.Paused}, {-time.Hour + 59*sec, die(60), govern.Paused},
			{-time.Hour + 60*sec, die(60), govern.Minimal}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s govern.State
			for i, step := range c.steps {
				var d govern.Duty
				s, d = govern.Next(s, step.health, start.Add(step.after))
				if d.Level != step.want || d.MaxRateRatio != step.want.MaxRateRatio() || d.Reason == "" {
					t.Fatalf("step %d: got %+v, want level %s", i, d, step.want)
				}
			}
		})
	}
}

func drawHealth(t *rapid.T) govern.Health {
	return govern.Health{
		DieCelsius: rapid.OneOf(rapid.Float64Range(40, 115), rapid.Just(math.NaN())).Draw(t, "die"),
		DieKnown:   rapid.IntRange(0, 9).Draw(t, "die known") > 0, LimitCelsius: 100,
		LimitKnown:      rapid.Bool().Draw(t, "limit known"),
		Throttling:      rapid.IntRange(0, 9).Draw(t, "throttling") == 0,
		ThrottlingKnown: rapid.Bool().Draw(t, "throttling known"),
	}
}

func TestDutyNeverFlapsFasterThanTheDwellAndIsNeverRaisedBlind(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s govern.State
		now := start
		var changed, hot time.Time // last change; last time the margin was too small to raise
		before := govern.Full
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(1, 40).Draw(t, "seconds")) * time.Second)
			h := drawHealth(t)
			var d govern.Duty
			s, d = govern.Next(s, h, now)
			known := h.DieKnown && !math.IsNaN(h.DieCelsius)
			limit := govern.DefaultLimitCelsius
			if h.LimitKnown {
				limit = h.LimitCelsius
			}
			if !known || h.DieCelsius >= limit {
				hot = now
			}
			switch {
			case d.Level < before:
				if !known {
					t.Fatalf("raised to %s without a temperature", d.Level)
				}
				if d.Level != before-1 {
					t.Fatalf("raised from %s to %s in one step", before, d.Level)
				}
				if now.Sub(changed) < govern.RaiseDwell || now.Sub(hot) < govern.RaiseDwell {
					t.Fatalf("raised %s after a change, %s after heat", now.Sub(changed), now.Sub(hot))
				}
			case known && h.DieCelsius >= limit && d.Level != govern.Paused:
				t.Fatalf("%s at %.1f °C, limit %.1f °C", d.Level, h.DieCelsius, limit)
			}
			if d.Level != before {
				changed = now
			}
			before = d.Level
			if d.MaxRateRatio < 0 || d.MaxRateRatio > 1 || d.Reason == "" {
				t.Fatalf("duty %+v", d)
			}
		}
	})
}

func TestHotterNeverPermitsMore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var cool, hot govern.State
		now := start
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(10 * time.Second)
			celsius := rapid.Float64Range(60, 105).Draw(t, "die")
			var dc, dh govern.Duty
			cool, dc = govern.Next(cool, die(celsius), now)
			hot, dh = govern.Next(hot, die(celsius+rapid.Float64Range(0, 10).Draw(t, "more")), now)
			if dh.Level < dc.Level {
				t.Fatalf("hotter box may do %s, cooler one only %s", dh.Level, dc.Level)
			}
		}
	})
}
