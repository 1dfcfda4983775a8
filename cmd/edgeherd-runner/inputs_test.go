package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func configOf(t *testing.T, text string) (config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "runner.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return readConfig([]string{"--config", path}, func(string) string { return "" }, io.Discard)
}

// TestExampleOfTheDocumentIsRead: what docs/pipelines.md shows can be pasted.
func TestExampleOfTheDocumentIsRead(t *testing.T) {
	page, err := os.ReadFile("../../docs/pipelines.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(page), "```yaml runner\n")
	block, _, _ = strings.Cut(block, "```")
	c, err := configOf(t, block)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Inputs) != 2 || c.Inputs[0].Interval != 500*time.Millisecond || c.Inputs[1].TokenFile == "" ||
		c.Results.HTTP == "" || len(c.Results.Targets) != 2 || c.Results.Targets[1].Topic != "shop/{input}/seen" {
		t.Errorf("read %+v\n%+v", c.Inputs, c.Results)
	}
}

func TestUnknownKeysOfInputsAndResultsAreNamed(t *testing.T) {
	for text, want := range map[string]string{
		"inputs: [{name: a, adress: b}]":             "field adress is not a key of an input",
		"results: {htpp: x}":                         "field htpp is not a key of results",
		"results: {targets: [{name: a, adress: b}]}": "field adress is not a key of a target of results",
	} {
		if _, err := configOf(t, text); err == nil || !strings.Contains(err.Error(), "line 1: "+want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
