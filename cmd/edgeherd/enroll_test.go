package main

import (
	"strings"
	"testing"
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
