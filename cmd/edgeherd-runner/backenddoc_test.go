package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/models"
)

// TestExamplesOfBackendsAreRight: what docs/backends.md shows can be copied.
func TestExamplesOfBackendsAreRight(t *testing.T) {
	text, err := os.ReadFile("../../docs/backends.md")
	if err != nil {
		t.Fatal(err)
	}
	golden, err := os.ReadFile(filepath.Join(assets.Model(t, "silero-vad-5.0.0"), models.GoldenFile))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	prompts := ""
	blocks := strings.Split(string(text), "```")
	for i := 1; i < len(blocks); i += 2 {
		kind, block, _ := strings.Cut(blocks[i], "\n")
		if kind == "json" {
			prompts = block
		}
	}
	for i := 1; i < len(blocks); i += 2 {
		_, block, _ := strings.Cut(blocks[i], "\n")
		dir := t.TempDir()
		write := func(name, text string) {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		switch {
		case strings.HasPrefix(block, "# runner.yaml"):
			seen["runner"]++
			write("runner.yaml", block)
			if _, err := readConfig([]string{"--config", filepath.Join(dir, "runner.yaml")}, func(string) string { return "" }, io.Discard); err != nil {
				t.Errorf("%s\n%v", block, err)
			}
		case strings.HasPrefix(block, "# model.yaml"):
			seen["model"]++
			write("model.yaml", block)
			write("model.gguf", "weights")
			if strings.Contains(block, "openai") {
				write("prompts.json", prompts)
			} else {
				write("golden.json", string(golden)) // of another model: all but that must be right
			}
			m, _, err := models.Pack(dir)
			if strings.Contains(block, "openai") && (err != nil || len(m.Files) != 2) {
				t.Errorf("%s\n%v %v", block, m.Files, err)
			}
			if !strings.Contains(block, "openai") && (err == nil || !strings.Contains(err.Error(), "golden case")) {
				t.Errorf("%s\n%v", block, err)
			}
		}
	}
	if seen["runner"] != 2 || seen["model"] != 2 {
		t.Errorf("found %v", seen)
	}
}
