package main

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
)

// replayed runs a command line in the checkout's top folder.
func replayed(t *testing.T, args ...string) (out, words string, code int) {
	t.Helper()
	t.Chdir("../..")
	var o, w bytes.Buffer
	code = run(t.Context(), args, terminal{in: strings.NewReader(""), out: &o, words: &w, env: func(string) string { return "" }})
	return o.String(), w.String(), code
}

func TestHealthGuideShowsWhatItsCommandPrints(t *testing.T) {
	guide, err := os.ReadFile("../../docs/health.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)```sh\nedgeherd (health [^\n]*)\n```\n```\n(.*?)\n```\n").FindStringSubmatch(string(guide))
	if m == nil {
		t.Fatal("docs/health.md shows no command with its output")
	}
	out, words, code := replayed(t, strings.Fields(m[1])...)
	if code != 0 || strings.TrimRight(out, "\n") != m[2] {
		t.Errorf("exit %d, %s\ngot:\n%s\nthe guide shows:\n%s", code, words, out, m[2])
	}
}

func TestHealthReplayPrintsLinesThatBearTheirSchema(t *testing.T) {
	out, words, code := replayed(t, "health", "replay", "internal/health/testdata/example.csv")
	if code != 0 {
		t.Fatalf("exit %d: %s", code, words)
	}
	seen := map[string]int{}
	for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
		var v struct{ Schema string }
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		seen[v.Schema]++
	}
	for schema, n := range map[string]int{"edgeherd.health-finding/v1": 2, "edgeherd.health-visit/v1": 1, "edgeherd.health-box/v1": 2, "edgeherd.health-cleaning/v1": 1} {
		if seen[schema] != n {
			t.Errorf("%d lines of %s, want %d", seen[schema], schema, n)
		}
	}
}

func TestHealthReplayNamesTheFaultyCell(t *testing.T) {
	file := t.TempDir() + "/f.csv"
	if err := os.WriteFile(file, []byte("box,time,die_c\na,1767225600,warm\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, words, code := replayed(t, "health", "replay", file)
	if code != exitFailed || !strings.Contains(words, "line 2, column die_c") {
		t.Errorf("exit %d: %s", code, words)
	}
}
