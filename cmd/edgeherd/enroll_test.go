package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/internal/enrol"
)

// TestATokenThatCannotBeWrittenIsNotMade: it is shown once, so that nobody would
// have it, and it would be good for a day.
func TestATokenThatCannotBeWrittenIsNotMade(t *testing.T) {
	f := newCareFleet(t, "")
	none := t.TempDir() + "/none"
	for _, flag := range []string{"--stick=" + none, "--labels=" + none + "/a.pdf", "--png=" + none + "/a.png"} {
		for _, command := range []string{"enroll token --site shop-7", "box replace till-1"} {
			out, words, code := f.run(append(strings.Fields(command), flag)...)
			if code != exitUsage || out != "" || !strings.Contains(words, "No token was made") {
				t.Errorf("%s %s: exit %d\n%s%s", command, flag, code, out, words)
			}
		}
	}
	if out, _ := f.must("enroll", "list", "-o", "name"); out != "" {
		t.Errorf("tokens were made: %s", out)
	}
}

// TestATokenIsShownWhenItsFileCannotBeWritten: it is good, and nobody sees it again.
func TestATokenIsShownWhenItsFileCannotBeWritten(t *testing.T) {
	f := newCareFleet(t, "")
	stick := t.TempDir()
	if err := os.WriteFile(filepath.Join(stick, enrol.KitDir), nil, 0o600); err != nil { // where a folder is to be
		t.Fatal(err)
	}
	out, words, code := f.run("enroll", "token", "--site", "shop-7", "--stick", stick)
	if _, err := enrol.ParseToken(strings.TrimSpace(out)); err != nil || code != exitFailed || !strings.Contains(words, enrol.KitDir) {
		t.Errorf("exit %d, %v\n%s%s", code, err, out, words)
	}
}
