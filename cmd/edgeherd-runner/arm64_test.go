package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/models"
)

// TestArm64AnswersLikeAmd64 builds the runner for the other architecture, runs
// it with its worker and the real ONNX Runtime under qemu, and compares. It is
// the only proof that the C calls of package worker fit the arm64 ABI.
func TestArm64AnswersLikeAmd64(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("compares an emulated arm64 with amd64; this machine is " + runtime.GOARCH)
	}
	if testing.Short() {
		t.Skip("builds and emulates for half a minute")
	}
	root, err := filepath.Abs("../../build/arm64-root")
	if err != nil {
		t.Fatal(err)
	}
	qemu := needed(t, root)
	dir := t.TempDir()
	request := filepath.Join(dir, "request.json")
	body := voiceRequest(func(i int) float64 { return math.Sin(float64(i) / 7) })
	if err := os.WriteFile(request, []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	arm := []string(nil)
	var answers [2][]float64
	for i, arch := range []string{"amd64", "arm64"} {
		program := filepath.Join(dir, "edgeherd-runner-"+arch)
		build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", program, ".")
		build.Env = append(os.Environ(), "GOOS=linux", "CGO_ENABLED=0", "GOARCH="+arch)
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build for %s: %v\n%s", arch, err, out)
		}
		args := []string{program, "try", "--library", assets.LibraryFor(t, arch),
			"--model", filepath.Join(assets.Model(t, "silero-vad-5.0.0"), "model.onnx"), "--inputs", request}
		if arch == "arm64" {
			// The emulated runner starts its worker through the kernel, which
			// knows no arm64: the command says how.
			arm = []string{qemu, "-L", root, program, "--worker", qemu + " -L " + root + " " + program + " worker"}
			args = append(arm[:3:3], append(args, arm[4:]...)...)
		}
		answers[i] = outputs(t, args)
	}
	for i, want := range answers[0] {
		if got := answers[1][i]; math.Abs(got-want) > 1e-5*math.Max(1, math.Abs(want)) {
			t.Errorf("element %d is %v on arm64 and %v on amd64", i, got, want)
		}
	}
	if len(answers[0]) != 1+256 {
		t.Errorf("%d elements, want probability and state", len(answers[0]))
	}
	if os.Getenv("EDGEHERD_PROVE") == "1" {
		for _, name := range []string{"face-detect-1.2.0", "ocr-cls-2.0.0", "ocr-det-4.0.0", "ocr-rec-4.0.0", "silero-vad-5.0.0", "silero-vad-6.0.0", "silero-vad-legacy"} {
			t.Run(name, func(t *testing.T) { armGolden(t, arm, assets.Model(t, name)) })
		}
	}
}

// armGolden lets the emulated runner answer the golden samples of a demo model,
// which hold what amd64 answered, with the tolerances of a box of arm64.
func armGolden(t *testing.T, arm []string, dir string) {
	samples := filepath.Join(dir, models.GoldenFile)
	want, err := models.ReadGolden(samples)
	if err != nil {
		t.Fatal(err)
	}
	args := append([]string{"golden", "--library", assets.LibraryFor(t, "arm64"), "--model", filepath.Join(dir, models.ModelFile), "--samples", samples}, arm[4:]...)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	began := time.Now()
	cmd := exec.CommandContext(ctx, arm[0], append(arm[1:4:4], args...)...)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	var got models.Golden
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	elements := 0
	for i, c := range want.For(models.Hardware{Provider: "CPU", Arch: "arm64"}).Cases {
		for j, w := range c.Outputs {
			is := got.Cases[i].Outputs[j]
			if err := w.Check(is.TensorSpec, is.Data); err != nil {
				t.Errorf("case %q: %v", c.Name, err)
			}
			elements += len(is.Data) / 4
		}
	}
	t.Logf("%d golden cases, about %d elements, in %s", len(want.Cases), elements, time.Since(began).Round(time.Second))
}

// needed returns qemu.
func needed(t *testing.T, root string) string {
	t.Helper()
	if _, err := os.Stat(filepath.Join(root, ".complete")); err != nil {
		assets.Absent(t, fmt.Errorf("libraries for arm64: %w; run `make deps`", err))
	}
	return assets.Program(t, "qemu-aarch64-static")
}

// outputs runs the verb try and returns the elements of all outputs.
func outputs(t *testing.T, args []string) []float64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	out, err := cmd.Output()
	if exit, ok := err.(*exec.ExitError); ok {
		t.Fatalf("%v: %v\n%s", args, err, exit.Stderr)
	} else if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Outputs []struct {
			Data []float64 `json:"data"`
		} `json:"outputs"`
	}
	if err := json.Unmarshal(out, &answer); err != nil {
		t.Fatalf("answer %q: %v", out, err)
	}
	var all []float64
	for _, o := range answer.Outputs {
		all = append(all, o.Data...)
	}
	return all
}
