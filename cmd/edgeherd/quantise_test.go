package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSamplesThatNothingIsTriedWithAreRefused(t *testing.T) {
	q := quantising{evaluation: []string{"labelled.json"}, metric: "accuracy", levels: 4}
	if err := q.check("eye"); err == nil || !strings.Contains(err.Error(), "--evaluation") {
		t.Errorf("--evaluation without --quantise-delta: %v", err)
	}
	if err := (&quantising{}).check("eye"); err != nil {
		t.Errorf("a push as it is: %v", err)
	}
}

func TestARunnerWithoutItsLibraryNamesTheFlag(t *testing.T) {
	runner := filepath.Join(t.TempDir(), "runner")
	if err := os.WriteFile(runner, []byte("#!/bin/sh\necho 'load ONNX Runtime /usr/lib/x.so: no such file' >&2\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := evaluator{runner: runner}.answers(t.Context(), "model.onnx", "golden.json")
	if err == nil || !strings.Contains(err.Error(), "--library FILE") {
		t.Errorf("it says %v", err)
	}
}
