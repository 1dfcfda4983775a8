package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// documented are the lines in the fenced blocks of a document that begin with
// one of starts, in order.
func documented(t *testing.T, file string, starts ...string) []string {
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
		for _, start := range starts {
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

// example writes the fenced block of a document that begins with a language into
// a file.
func example(t *testing.T, document, language, file string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", document))
	must(t, err)
	_, text, _ = bytes.Cut(text, []byte("```"+language+"\n"))
	block, _, ok := bytes.Cut(text, []byte("```"))
	if !ok {
		t.Fatalf("%s has no example in %s", document, language)
	}
	must(t, os.WriteFile(file, block, 0o644))
}

// readmeCommands runs each documented command as it is written, but for places:
// the port of the first box where that one was taken, and where a controller
// that was installed keeps its state and its backups. An acceptance test of ten
// minutes takes seconds.
func readmeCommands(t *testing.T, f *fleet, file string) {
	must(t, os.MkdirAll(filepath.Join(f.root, "backup"), 0o700))
	places := strings.NewReplacer("http://127.0.0.1:8000", f.oip["box-1"],
		"/backup/edgeherd-2027-05-01.tar", "backup/*.tar", "/backup/", "backup/", "--load-for 10m", "--load-for 3s", "--load-for 2m", "--load-for 2s")
	for _, line := range documented(t, file, "edgeherd ", "! edgeherd ", "edgeherd-agent accept ", "curl ") {
		shown := line
		line, mustFail := strings.CutPrefix(places.Replace(line), "! ")
		if rest, ok := strings.CutPrefix(line, "curl "); ok {
			line = "curl -sSf " + rest
		}
		switch {
		case strings.HasPrefix(line, "edgeherd server restore "): // what runs is not replaced
			line = "EDGEHERD_STATE=restored " + line
		case strings.HasPrefix(line, "edgeherd server doctor"): // 8: this machine's clock may be nobody's
			line = "EDGEHERD_STATE=edgeherd-data/server " + line + "\nc=$?; [ $c = 8 ] || exit $c"
		case strings.HasPrefix(line, "edgeherd-agent "):
			line += " --config edgeherd-data/boxes/box-1/agent.yaml"
			if strings.Contains(line, "--delivery") { // 3: the example is another machine
				line += "\n[ $? = 3 ]"
			}
		case strings.HasPrefix(line, "edgeherd server "):
			line = "EDGEHERD_STATE=edgeherd-data/server " + line
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
