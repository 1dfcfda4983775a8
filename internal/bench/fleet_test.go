package bench

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"
)

// outageStory is a story of internal/fleettest: three boxes, two of them cut
// off for two hours. outageSpan is the least fake time it takes: the outage
// and, before and after it, the three minutes in which the fleet settles.
const (
	outageStory = "TestT10TwoHourOutageLosesAndDoublesNothing"
	outageSpan  = 2*time.Hour + 2*3*time.Minute
)

// fleetBubble tells how fast fake time runs. It runs the story as a program of
// its own, since only fleettest may hold agents and a controller together.
func fleetBubble(t *testing.T) []Figure {
	binary := filepath.Join(t.TempDir(), "fleettest")
	goTest(t, "-c", "-o", binary, "./internal/fleettest")
	took := regexp.MustCompile(`(?m)^--- PASS: ` + outageStory + ` \(([0-9.]+)s\)`)
	var rates []float64
	for range 3 {
		out, err := exec.Command(binary, "-test.v", "-test.run", "^"+outageStory+"$").CombinedOutput()
		m := took.FindSubmatch(out)
		if err != nil || m == nil {
			t.Fatalf("%v\n%s", err, out)
		}
		seconds, err := strconv.ParseFloat(string(m[1]), 64)
		check(t, err)
		rates = append(rates, outageSpan.Seconds()/seconds)
	}
	return []Figure{Figure{Value: median(rates), Unit: "s/s"}.Against("real time", 1)}
}
