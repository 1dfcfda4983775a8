package bench

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/agent/govern"
	"github.com/edgeherd/edgeherd/internal/simboard"
)

// A simulated wall-mount box with a clogged filter reads lines from a camera
// while the room heats up and cools down again. Only the heat is simulated:
// the rules are those of the agent.
const (
	ladderStep   = 5 * time.Second
	ladderSense  = 10 * time.Second
	ladderLength = 3 * time.Hour
	ladderWarm   = 20 * time.Minute // the room gets hot
	ladderCool   = 2 * time.Hour    // and cool again
	ladderDust   = 1.2
	ladderLimit  = 95.0 // °C of the wall-mount die
	ladderSVG    = "../../docs/ladder.svg"
)

// ladderCosts are CPU shares of the box at the full rate of the camera: a line
// detector in FP32, the same in INT8 (0.30 times its cost with VNNI), and a
// smaller network (0.18 times).
var ladderCosts = []float64{0.95, 0.95 * 0.30, 0.95 * 0.18}

// policy says what a box does about its heat.
type policy struct {
	name, colour string
	duty, ladder bool
}

var policies = []policy{
	{"nothing: the firmware throttles", "#c0392b", false, false},
	{"fewer frames (duty)", "#b8860b", true, false},
	{"cheaper variants, then fewer frames", "#1f6f8b", true, true},
}

// moment is one step of a simulation.
type moment struct{ die, answered, rung float64 }

// hotDay simulates one policy; answered is the share of the camera's frames.
func hotDay(t *testing.T, p policy) (moments []moment, throttled time.Duration) {
	t.Helper()
	var used time.Duration
	b := simboard.New(simboard.Options{Root: t.TempDir(), Name: "ladder", Seed: 1, Ambient: 22, CPU: func() time.Duration { return used }}, slog.New(slog.DiscardHandler))
	defer b.Close()
	b.SetDust(ladderDust)
	start := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	var state govern.State
	var ladder govern.Ladder
	duty := govern.Duty{MaxRateRatio: 1}
	b.Step(start)
	for at := ladderStep; at <= ladderLength; at += ladderStep {
		switch at {
		case ladderWarm:
			b.SetAmbient(43)
		case ladderCool:
			b.SetAmbient(18)
		}
		truth := b.Truth()
		if at%ladderSense == 0 {
			h := govern.Health{DieCelsius: truth.DieCelsius, DieKnown: true, LimitCelsius: ladderLimit, LimitKnown: true, Throttling: truth.Throttled, ThrottlingKnown: true}
			if p.duty {
				state, duty = govern.Next(state, h, start.Add(at))
			}
			if p.ladder {
				ladder, _ = ladder.Step(h, len(ladderCosts)-1, start.Add(at))
			}
		}
		cost, speed := ladderCosts[ladder.Rung], 1-truth.Slowed
		answered := min(duty.MaxRateRatio, speed/cost)
		used += time.Duration(answered * cost / speed * float64(ladderStep))
		b.Step(start.Add(at))
		check(t, b.Err())
		if truth.Throttled {
			throttled += ladderStep
		}
		moments = append(moments, moment{truth.DieCelsius, answered, float64(ladder.Rung)})
	}
	return moments, throttled
}

// ladderFigures compares what a hot box answers, and how hot it gets, by what
// it does about its heat. The first policy is the yardstick of all.
func ladderFigures(t *testing.T) []Figure {
	var runs [][]moment
	var answered, hottest, throttled []float64
	best := 0.0 // share of the last policy's answers
	for _, p := range policies {
		moments, long := hotDay(t, p)
		sum, peak := 0.0, 0.0
		best = 0
		for _, m := range moments {
			sum, peak = sum+m.answered, max(peak, m.die)
			if m.rung == 0 {
				best += m.answered
			}
		}
		best *= 100 / sum
		runs = append(runs, moments)
		answered, hottest, throttled = append(answered, 100*sum/float64(len(moments))), append(hottest, peak), append(throttled, long.Seconds())
	}
	check(t, os.WriteFile(filepath.FromSlash(ladderSVG), ladderPlot(runs), 0o644))
	const static = "the best variant always"
	return []Figure{
		Figure{Name: "answered", Value: answered[2], Unit: "%", Goal: Goal{AtLeast: 1.02}}.Against(static, answered[0]),
		{Name: "by-best-variant", Value: best, Unit: "%"},
		{Name: "hottest", Value: hottest[2], Unit: "°C", Goal: Goal{AtMost: ladderLimit - govern.ReducedBelowKelvin}},
		{Name: "throttled", Value: throttled[2], Unit: "s", Goal: Goal{AtMost: 1}},
		{Name: "static-hottest", Value: hottest[0], Unit: "°C"},
		{Name: "static-throttled", Value: throttled[0], Unit: "s"},
		Figure{Name: "duty-answered", Value: answered[1], Unit: "%"}.Against(static, answered[0]),
		{Name: "duty-hottest", Value: hottest[1], Unit: "°C"},
	}
}

// ladderPlot draws the temperature of the die above and the share of answered
// frames below, one line a policy.
func ladderPlot(runs [][]moment) []byte {
	const width, left, right = 860.0, 60.0, 20.0
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f 520" font-family="sans-serif" font-size="12" fill="none">`+"\n", width)
	fmt.Fprintf(&b, `<rect width="%.0f" height="520" fill="#fff"/>`+"\n", width)
	x := func(i, n int) float64 { return left + (width-left-right)*float64(i)/float64(n-1) }
	text := func(at, y float64, words string) {
		fmt.Fprintf(&b, `<text x="%.0f" y="%.0f" fill="#333">%s</text>`+"\n", at, y, words)
	}
	panel := func(top, bottom, low, high, grid float64, value func(moment) float64) {
		y := func(v float64) float64 { return bottom - (bottom-top)*(v-low)/(high-low) }
		for v := low; v <= high; v += grid {
			fmt.Fprintf(&b, `<path d="M%.0f %.1fH%.0f" stroke="#ddd"/>`+"\n", left, y(v), width-right)
			text(left-34, y(v)+4, fmt.Sprintf("%.0f", v))
		}
		for p, moments := range runs {
			var path strings.Builder
			for i := 0; i < len(moments); i += 4 { // 20 s a point
				fmt.Fprintf(&path, "L%.1f %.1f", x(i, len(moments)), y(value(moments[i])))
			}
			fmt.Fprintf(&b, `<path d="M%s" stroke="%s" stroke-width="1.6"/>`+"\n", path.String()[1:], policies[p].colour)
		}
	}
	text(left, 18, "Die, °C (simulated wall-mount box, clogged filter; the room is hot from 0:20 to 2:00)")
	panel(30, 230, 20, 100, 10, func(m moment) float64 { return m.die })
	fmt.Fprintf(&b, `<path d="M%.0f %.1fH%.0f" stroke="#333" stroke-dasharray="5 4"/>`+"\n", left, 230-200*(ladderLimit-20)/80, width-right)
	text(width-right-90, 230-200*(ladderLimit-20)/80-4, "limit of the die")
	text(left, 258, "Frames answered, % of the camera's")
	panel(270, 420, 0, 100, 25, func(m moment) float64 { return 100 * m.answered })
	for hour := range int(ladderLength/(30*time.Minute)) + 1 {
		at := left + (width-left-right)*float64(hour)*0.5/ladderLength.Hours()
		text(at-10, 438, fmt.Sprintf("%d:%02d", hour/2, 30*(hour%2)))
	}
	for i, p := range policies {
		y := 462 + 18*float64(i)
		fmt.Fprintf(&b, `<path d="M%.0f %.0fh26" stroke="%s" stroke-width="3"/>`+"\n", left, y-4, p.colour)
		text(left+34, y, p.name)
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}
