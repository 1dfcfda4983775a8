package bench

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	outFlag  = flag.String("bench.out", "", "measure, and append the figures to this file as JSON lines")
	onlyFlag = flag.String("bench.only", "", "measure only the measurement of this name")
)

// measurement is one row of the table: measure returns its figures, and fails
// the test only when it could not measure.
type measurement struct {
	name    string
	measure func(t *testing.T) []Figure
}

// measurements is the table. Each entry lives in a _test.go file of its own
// subject and has a yardstick, or says in its goal what it must stay within.
var measurements = []measurement{
	{"binary-size", binarySizes},
	{"agent-rss", agentRSS},
	{"sense", senseCost},
	{"block-size", blockSize},
	{"block-decode", blockDecode},
	{"spool-offline", spoolOffline},
	{"ingest", ingestRate},
	{"charts", chartTimes},
	{"runner", runnerCost},
	{"serve-share", serveShares},
	{"serve-batch", serveBatch},
	{"serve-burst", serveBurst},
	{"serve-swap", serveSwaps},
	{"serve-kill", serveKill},
	{"serve-node", serveNode},
	{"label-reader", labelReader},
	{"fetch", fetchRate},
	{"fleet-bubble", fleetBubble},
	{"fleet-load", fleetLoad},
	{"durable-load", durableLoad},
	{"health", healthScores},
	{"health-replay", healthReplay},
	{"hostile-box", hostileLoad},
	{"wdelta", weightDeltas},
	{"ladder", ladderFigures},
	{"rollout", rolloutFigures},
	{"handshake", handshakeCost},
	{"promises", promises},
}

// TestBench measures when -bench.out names a file; `make bench` does. Without
// it, it checks the table alone, so that a plain `go test ./...` stays quick.
func TestBench(t *testing.T) {
	seen := map[string]bool{}
	for _, m := range measurements {
		if !regexp.MustCompile(`^[a-z][a-z0-9-]*$`).MatchString(m.name) || seen[m.name] {
			t.Errorf("measurement %q: the name is taken or not of lower case letters, digits and -", m.name)
		}
		seen[m.name] = true
	}
	if *onlyFlag != "" && !seen[*onlyFlag] {
		t.Fatalf("no measurement is called %q", *onlyFlag)
	}
	if *outFlag == "" {
		return
	}
	out, err := os.OpenFile(*outFlag, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	table := NewTable(os.Stdout, out)
	for _, m := range measurements {
		if *onlyFlag != "" && m.name != *onlyFlag {
			continue
		}
		t.Run(m.name, func(t *testing.T) {
			if err := table.Report(m.name, m.measure(t)...); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRatioDecidesWhetherAGoalIsMet(t *testing.T) {
	for _, tc := range []struct {
		name string
		f    Figure
		want bool
	}{
		{"no goal", Figure{Value: 9}, true},
		{"value within", Figure{Value: 9, Goal: Goal{AtMost: 9}}, true},
		{"value beyond", Figure{Value: 9.1, Goal: Goal{AtMost: 9}}, false},
		{"value short", Figure{Value: 2, Goal: Goal{AtLeast: 3}}, false},
		{"ratio within though value is beyond", Figure{Value: 900, Goal: Goal{AtMost: 1.5}}.Against("raw", 700), true},
		{"ratio beyond", Figure{Value: 900, Goal: Goal{AtMost: 1.2}}.Against("raw", 700), false},
	} {
		if got := tc.f.Met(); got != tc.want {
			t.Errorf("%s: met = %v, want %v", tc.name, got, tc.want)
		}
	}
}

func TestEveryFigureIsOneLineOfJSON(t *testing.T) {
	var lines bytes.Buffer
	table := NewTable(io.Discard, &lines)
	err := table.Report("demo", Figure{Value: 2, Unit: "us", Goal: Goal{AtMost: 2.5}}.Against("raw", 1), Figure{Name: "part", Value: 3, Unit: "MB"})
	if err != nil {
		t.Fatal(err)
	}
	var got []map[string]any
	for _, line := range strings.Split(strings.TrimSpace(lines.String()), "\n") {
		var f map[string]any
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		got = append(got, f)
	}
	if len(got) != 2 || got[0]["name"] != "demo" || got[0]["ratio"] != 2.0 || got[0]["yardstick"] != 1.0 || got[0]["goal"] != "<=2.5" || got[1]["name"] != "demo/part" || got[1]["ratio"] != nil {
		t.Errorf("got %v", got)
	}
	if got[1]["command"] != "make bench-demo" {
		t.Errorf("command %v cannot be pasted", got[1]["command"])
	}
}

// root is the top of the tree.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
