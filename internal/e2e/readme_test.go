package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// documented are the commands in the fenced blocks of a document, in order.
func documented(t *testing.T, file string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", file))
	must(t, err)
	var lines []string
	fenced := false
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "```") {
			fenced = !fenced
			continue
		}
		for _, start := range []string{"edgeherd ", "! edgeherd ", "curl "} {
			if fenced && strings.HasPrefix(line, start) {
				lines = append(lines, line)
			}
		}
	}
	if len(lines) == 0 {
		t.Fatalf("%s shows no command", file)
	}
	return lines
}

// readmeCommands runs each documented command as it is written. Only the port
// of the first box is another where that one was taken.
func readmeCommands(t *testing.T, f *fleet, file string) {
	for _, line := range documented(t, file) {
		shown := line
		line = strings.ReplaceAll(line, "http://127.0.0.1:8000", f.oip["box-1"])
		line, mustFail := strings.CutPrefix(line, "! ")
		if rest, ok := strings.CutPrefix(line, "curl "); ok {
			line = "curl -sSf " + rest
		}
		out, err := runs(t, f.root, line)
		if mustFail && err == nil || !mustFail && err != nil {
			t.Errorf("%s of %s: %v\n%s", shown, file, err, out)
		}
		if strings.Contains(out, "panic") || out == "" {
			t.Errorf("%s of %s prints %q", shown, file, out)
		}
	}
}
