package archtest

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// ownTest are the threats that must have a test of their own name.
var ownTest = strings.Fields("T1 T2 T4 T5 T6 T7 T10 T12 T13 T14 T15 T16 T17 T18 T19 T20 T21 T22 T23 T24 T25 T30 T31 T32 T33 T37")

var (
	threatRow  = regexp.MustCompile(`(?m)^\| (T\d+) \|(.*)\|$`)
	testName   = regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9]+)`")
	testFunc   = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	ofThreats  = regexp.MustCompile(`^Test((?:T\d+)+)`)
	oneThreat  = regexp.MustCompile(`T\d+`)
	lastThreat = 44
)

// TestTheThreatTableNamesTestsThatExist holds docs/security.md and the tests
// together: every threat has a row, every test that a row names is there, and what
// has no test says so.
func TestTheThreatTableNamesTestsThatExist(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "security.md"))
	if err != nil {
		t.Fatal(err)
	}
	have := testsOf(t, filepath.Join("..", ".."))
	rows := map[string]bool{}
	for _, row := range threatRow.FindAllStringSubmatch(string(text), -1) {
		id, rest := row[1], row[2]
		if rows[id] {
			t.Errorf("%s has two rows", id)
		}
		rows[id] = true
		names := testName.FindAllStringSubmatch(rest, -1)
		for _, m := range names {
			if !have[m[1]] {
				t.Errorf("%s names %s, which is no test", id, m[1])
			}
		}
		if len(names) == 0 && !strings.Contains(strings.ToLower(rest), "not covered yet") {
			t.Errorf("%s names no test and does not say that it is not covered", id)
		}
	}
	if len(rows) != lastThreat {
		t.Errorf("%d threats have a row, want %d", len(rows), lastThreat)
	}
	tested := map[string]bool{}
	for name := range have {
		if m := ofThreats.FindStringSubmatch(name); m != nil {
			for _, id := range oneThreat.FindAllString(m[1], -1) {
				tested[id] = true
				if !rows[id] {
					t.Errorf("%s is of %s, which has no row", name, id)
				}
			}
		}
	}
	for _, id := range ownTest {
		if !tested[id] {
			t.Errorf("%s has no test by its name", id)
		}
	}
}

// testsOf are the names of all tests of the tree.
func testsOf(t *testing.T, root string) map[string]bool {
	t.Helper()
	have := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "node_modules" || d.Name() == "build" || strings.HasPrefix(d.Name(), ".") && path != root) {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(path)
		for _, m := range testFunc.FindAllSubmatch(text, -1) {
			have[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return have
}
