package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// guides are the documents that tell people what to type.
func guides(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d guides, %v", len(files), err)
	}
	return append(files, "../../README.md", "../../deploy/README.md")
}

// fencedCommands are the lines in the fenced blocks of a guide that begin with
// edgeherd, without notes for people.
func fencedCommands(t *testing.T, file string) (lines []string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	fenced := false
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "```") {
			fenced = !fenced
		}
		line = strings.TrimPrefix(line, "! ")
		if fenced && strings.HasPrefix(line, "edgeherd ") {
			line, _, _ = strings.Cut(line, " # ")
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// inlineCommand is one in running text, which may go on in the next line.
var inlineCommand = regexp.MustCompile("`(edgeherd [a-z][^`]*)`")

// fencedBlock is what lies between two fences.
var fencedBlock = regexp.MustCompile("(?ms)^```.*?^```$")

// TestEveryCommandOfTheGuidesExists: verb, flags and, where it stands to be
// copied, the number of its arguments.
func TestEveryCommandOfTheGuidesExists(t *testing.T) {
	seen := 0
	for _, file := range guides(t) {
		for _, line := range fencedCommands(t, file) {
			seen++
			if err := understood(line, true); err != nil {
				t.Errorf("%s: %s: %v", file, line, err)
			}
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		prose := strings.Join(strings.Fields(fencedBlock.ReplaceAllString(string(text), "")), " ")
		for _, m := range inlineCommand.FindAllStringSubmatch(prose, -1) {
			seen++
			if m[1] == "edgeherd acceptance report 1" {
				continue // what a signature covers
			}
			if err := understood(m[1], false); err != nil {
				t.Errorf("%s: %s: %v", file, m[1], err)
			}
		}
	}
	if seen < 200 {
		t.Errorf("only %d commands were found", seen)
	}
}

// substitution is what a shell puts in.
var substitution = regexp.MustCompile(`\$\([^)]*\)`)

// understood reads a command as the program would, and runs nothing.
func understood(line string, whole bool) error {
	line, _, _ = strings.Cut(substitution.ReplaceAllString(line, "X"), " || ")
	line = strings.NewReplacer("[", "", "]", "").Replace(line) // what may be left out
	cmd, rest, err := (&cli{}).root().Find(shellWords(line)[1:])
	if err != nil {
		return err
	}
	if err := cmd.ParseFlags(rest); err != nil && (whole || !strings.Contains(err.Error(), "needs an argument")) {
		return err // in running text a flag may be named alone
	}
	if whole || cmd.HasSubCommands() {
		return cmd.ValidateArgs(cmd.Flags().Args())
	}
	return nil
}

// TestTheGuidesToPeopleAndTechsRun, line by line.
func TestTheGuidesToPeopleAndTechsRun(t *testing.T) {
	people := fencedCommands(t, "../../docs/people.md")
	techs := fencedCommands(t, "../../docs/techs.md")
	f := newCareFleet(t, "")
	t.Chdir(t.TempDir())
	var token string
	for _, line := range people {
		switch {
		case strings.HasPrefix(line, "edgeherd token revoke "):
			line = "edgeherd token revoke " + token
		case strings.Contains(line, " --head "):
			line = "edgeherd audit verify --head '" + f.auditHead() + "'"
		}
		args := shellWords(line)
		if strings.HasPrefix(line, "edgeherd token create ci ") {
			args = append(args, "-o", "json")
		}
		out, words := f.must(args[1:]...)
		if m := regexp.MustCompile(`^Token ([a-z2-7]+) for ci, `).FindStringSubmatch(words); m != nil {
			token = m[1]
		}
		if out+words == "" {
			t.Errorf("%s says nothing", line)
		}
	}
	f.must("user", "list")
	for _, line := range techs { // tom was a tech before, in the other guide
		line = strings.Replace(line, "user add tom", "user add tim", 1)
		f.must(shellWords(line)[1:]...)
	}
	if len(people) < 14 || len(techs) != 2 || token == "" {
		t.Errorf("%d and %d commands, token %q", len(people), len(techs), token)
	}
	if info, err := os.Stat("labels.pdf"); err != nil || info.Size() == 0 {
		t.Errorf("the sheet of labels: %v", err)
	}
}

// auditHead is the end of the audit log as somebody would note it.
func (f *careFleet) auditHead() string {
	f.t.Helper()
	out, _ := f.must("audit", "verify", "-o", "json")
	var head struct {
		Seq  int64  `json:"seq"`
		Hash string `json:"hash"`
	}
	if err := json.Unmarshal([]byte(out), &head); err != nil || head.Hash == "" {
		f.t.Fatalf("%v: %s", err, out)
	}
	noted, err := json.Marshal(head)
	if err != nil {
		f.t.Fatal(err)
	}
	return string(noted)
}

// TestLinksOfTheGuidesLead to files and headings that are there.
func TestLinksOfTheGuidesLead(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s:]+)\)`) // an address elsewhere has a colon
	for _, file := range guides(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllSubmatch(text, -1) {
			path, anchor, _ := strings.Cut(string(m[1]), "#")
			target := file
			if path != "" {
				target = filepath.Join(filepath.Dir(file), path)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: %v", file, err)
			} else if anchor != "" && !headings(t, target)[anchor] {
				t.Errorf("%s: %s has no heading %s", file, target, anchor)
			}
		}
	}
}

// headings are those of a document as anchors write them.
func headings(t *testing.T, file string) map[string]bool {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllSubmatch(text, -1) {
		plain := regexp.MustCompile(`[^\w\- ]`).ReplaceAllString(strings.ToLower(string(m[1])), "")
		all[strings.ReplaceAll(strings.TrimSpace(plain), " ", "-")] = true
	}
	return all
}
