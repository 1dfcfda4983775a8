package deploy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/edgeherd/edgeherd/internal/assets"
)

var builtIn string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "eh")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	builtIn = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// build makes the four programs once, or takes those of EDGEHERD_BIN.
var build = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv("EDGEHERD_BIN"); dir != "" {
		return filepath.Abs(dir)
	}
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w -X main.version=1.0.0", "-o", builtIn+"/",
		"../cmd/edgeherd", "../cmd/edgeherd-agent", "../cmd/edgeherd-runner", "../cmd/edgeherd-launcher")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the programs: %w: %s", err, out)
	}
	return builtIn, nil
})

func bin(t *testing.T) string {
	t.Helper()
	dir, err := build()
	must(t, err)
	return dir
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// output runs a program to its end, or for 30 s: the agent reads its file and stays.
func output(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	return string(out), errors.Join(err, ctx.Err())
}

// sample is one example configuration and the program that reads it.
type sample struct {
	file, source string
	// run gives the configuration to the program, far enough for it to be read.
	run func(t *testing.T, file string) (string, error)
	// next is what the program says once it has read it; "" is success.
	next string
}

func samples() []sample {
	return []sample{
		{"server.yaml", "../cmd/edgeherd/serverconfig.go", func(t *testing.T, file string) (string, error) {
			dir := t.TempDir()
			return output(t, filepath.Join(bin(t), "edgeherd"), "box", "enrol", "--config", file, "--state", dir, "--name", "a", "--site", "b", "--dir", filepath.Join(dir, "a"))
		}, ""},
		{"agent.yaml", "../cmd/edgeherd-agent/config.go", func(t *testing.T, file string) (string, error) {
			return output(t, filepath.Join(bin(t), "edgeherd-agent"), "run", "--config", file, "--state", t.TempDir())
		}, "not enrolled"},
		{"runner.yaml", "../cmd/edgeherd-runner/config.go", func(t *testing.T, file string) (string, error) {
			return output(t, filepath.Join(bin(t), "edgeherd-runner"), "run", "--config", file, "--library", filepath.Join(t.TempDir(), "none"))
		}, "find ONNX Runtime"},
	}
}

func TestExampleConfigurationsAreReadByTheirPrograms(t *testing.T) {
	for _, s := range samples() {
		t.Run(s.file, func(t *testing.T) {
			out, err := s.run(t, filepath.Join("config", s.file))
			if s.next == "" && err != nil || s.next != "" && !strings.Contains(out, s.next) {
				t.Errorf("%v\n%s", err, out)
			}
			text, err := os.ReadFile(filepath.Join("config", s.file))
			must(t, err)
			wrong := filepath.Join(t.TempDir(), s.file)
			must(t, os.WriteFile(wrong, append(text, "\nmisspelt: 1\n"...), 0o644))
			out, err = s.run(t, wrong)
			if err == nil || !strings.Contains(out, "misspelt") || !strings.Contains(out, "line ") {
				t.Errorf("a misspelt key: %v\n%s", err, out)
			}
		})
	}
}

// topStruct is the struct that a program reads into; keys below the top ones
// have structs of their own. yamlKey is the name of a key.
var topStruct = regexp.MustCompile(`(?s)\ntype (?:server[cC]|c)onfig struct \{\n(.*?)\n\}`)
var yamlKey = regexp.MustCompile("`yaml:\"([a-z0-9_]+)\"`")

// inlined is a struct whose keys are at the top as well.
var inlined = regexp.MustCompile("([A-Z][a-zA-Z]+) `yaml:\",inline\"`")

// declaration is the body of a struct of a package.
func declaration(t *testing.T, dir, name string) string {
	t.Helper()
	body := regexp.MustCompile(`(?s)\ntype ` + name + ` struct \{\n(.*?)\n\}`)
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	must(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		must(t, err)
		if m := body.FindSubmatch(text); m != nil {
			return string(m[1])
		}
	}
	t.Fatalf("no struct %s in %s", name, dir)
	return ""
}

func TestExampleConfigurationsShowEveryKey(t *testing.T) {
	for _, s := range samples() {
		t.Run(s.file, func(t *testing.T) {
			source, err := os.ReadFile(s.source)
			must(t, err)
			var want []string
			top := topStruct.FindSubmatch(source)
			if top == nil {
				t.Fatalf("%s has no struct of the configuration", s.source)
			}
			keys := string(top[1])
			if m := inlined.FindStringSubmatch(keys); m != nil {
				keys += declaration(t, filepath.Dir(s.source), m[1])
			}
			for _, m := range yamlKey.FindAllStringSubmatch(keys, -1) {
				want = append(want, m[1])
			}
			text, err := os.ReadFile(filepath.Join("config", s.file))
			must(t, err)
			var have map[string]any
			must(t, yaml.Unmarshal(text, &have))
			slices.Sort(want)
			if got := slices.Sorted(maps.Keys(have)); !slices.Equal(got, want) {
				t.Errorf("shown are %v, the program reads %v", got, want)
			}
		})
	}
}

func TestUnitsAreAcceptedBySystemd(t *testing.T) {
	analyze := assets.Program(t, "systemd-analyze")
	dir := t.TempDir()
	for _, file := range units(t) {
		text, err := os.ReadFile(file)
		must(t, err)
		// verify looks whether the programs are there.
		text = []byte(strings.ReplaceAll(string(text), "/usr/bin/", bin(t)+"/"))
		copied := filepath.Join(dir, filepath.Base(file))
		must(t, os.WriteFile(copied, text, 0o644))
		if out, err := output(t, analyze, "verify", "--man=no", copied); err != nil || strings.Contains(out, filepath.Base(file)) {
			t.Errorf("%s: %v\n%s", filepath.Base(file), err, out)
		}
	}
}

func units(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("systemd/*.service")
	must(t, err)
	if len(files) != 3 {
		t.Fatalf("units: %v", files)
	}
	return files
}
