package bench

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// promises are counts instead of speeds: what random schedules of faults, kills
// under load and power cuts have lost or doubled, beside all that there was. The
// tests that count fail when it is more than nothing, and so does this then.
func promises(t *testing.T) []Figure {
	model, real := 20_000, 200
	if *shortFlag {
		model, real = 2_000, 10
	}
	none := func(name string, bad float64, what string, all float64) Figure {
		return Figure{Name: name, Value: bad, Goal: Goal{AtMost: 1e-9}}.Against(what, all)
	}
	var figures []Figure
	out := goTest(t, "-v", "-run", "^TestNothingIsLostNothingTwice$/^all_faults$", "./internal/protosim", "-args", fmt.Sprint("-protosim.seeds=", model))
	figures = append(figures, none("model", sum(t, out, `; (\d+) lost in`)+sum(t, out, ` (\d+) doubled in`),
		fmt.Sprint("records of ", model, " schedules"), sum(t, out, ` (\d+) records and`)))

	out = goTest(t, "-v", "-run", "^TestBrokenVariantsFail$", "./internal/protosim")
	figures = append(figures, Figure{Name: "broken-variants-caught", Value: float64(strings.Count(out, " shows it, among ")), Goal: Goal{AtLeast: 30}})

	out = goTest(t, "-v", "-run", "NoSchedule", "./internal/fleettest/delivery", "-args", fmt.Sprint("-delivery.seeds=", real))
	total := out[strings.LastIndex(out, " schedules: "):]
	figures = append(figures,
		none("real-code-lost", sum(t, total, ` (\d+) lost;`), fmt.Sprint("blocks of ", real, " schedules"), sum(t, total, ` (\d+) blocks promised`)),
		Figure{Name: "real-code-counted", Value: sum(t, total, ` (\d+) counted`), Goal: Goal{AtMost: 1}}.Against("samples stored", sum(t, total, ` (\d+) samples stored`)))
	if *shortFlag {
		return figures
	}
	out = goTest(t, "-v", "-run", "UnderLoad", "./internal/fleettest", "-args", "-kill.rounds=3")
	figures = append(figures, none("kills", sum(t, out, ` Lost:(\d+)`)+sum(t, out, ` Doubled:(\d+)`)+sum(t, out, ` Missing:(\d+)`),
		fmt.Sprint("blocks acknowledged, ", sum(t, out, ` (\d+) kills`), " kills of controllers, PostgreSQL and Mosquitto"), sum(t, out, ` acked (\d+)`)))
	t.Setenv("EDGEHERD_PROVE", "1")
	out = goTest(t, "-v", "-run", "^TestPowerLossLosesNothing", "./agent/spool")
	return append(figures, none("power-cuts", 0, "images of the spool, each opened or set aside", sum(t, out, ` of (\d+) images`)))
}

// sum adds up what an expression with one group finds.
func sum(t *testing.T, out, expression string) (total float64) {
	t.Helper()
	found := regexp.MustCompile(expression).FindAllStringSubmatch(out, -1)
	if found == nil {
		t.Fatalf("no %s in\n%s", expression, out)
	}
	for _, m := range found {
		n, err := strconv.ParseFloat(m[1], 64)
		check(t, err)
		total += n
	}
	return total
}
