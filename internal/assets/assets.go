// Package assets finds ONNX Runtime and the demo models for tests.
//
// Assets are large files of others that git does not hold: `make assets` lays
// them out under build/assets as onnxruntime/linux-<arch>/libonnxruntime.so.1
// and models/<name>-<version>/ with model.yaml, model.onnx and golden samples.
// The variable EDGEHERD_ASSETS names another folder of the same layout.
//
// The one rule a caller can break: ask here, with the test at hand, rather than
// by path. Where assets are absent a test is skipped, and it fails when
// EDGEHERD_REQUIRE_ASSETS is set, as `make test` does: so a machine without
// them cannot pass by leaving tests out.
package assets

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// Dir is the folder of all assets.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := find(os.Getenv("EDGEHERD_ASSETS"))
	if err != nil {
		absent(t, err)
	}
	return dir
}

// Library is the ONNX Runtime library for this machine's architecture.
func Library(t testing.TB) string {
	t.Helper()
	return LibraryFor(t, runtime.GOARCH)
}

// LibraryFor is the ONNX Runtime library for arch, "amd64" or "arm64".
func LibraryFor(t testing.TB, arch string) string {
	t.Helper()
	return file(t, "onnxruntime", "linux-"+arch, "libonnxruntime.so.1")
}

// Model is the folder of one demo model, such as "silero-vad-5.0.0".
func Model(t testing.TB, name string) string {
	t.Helper()
	return filepath.Dir(file(t, "models", name, "model.onnx"))
}

func file(t testing.TB, elem ...string) string {
	t.Helper()
	path := filepath.Join(append([]string{Dir(t)}, elem...)...)
	if _, err := os.Stat(path); err != nil {
		absent(t, err)
	}
	return path
}

func absent(t testing.TB, err error) {
	t.Helper()
	if os.Getenv("EDGEHERD_REQUIRE_ASSETS") != "" {
		t.Fatalf("assets are required here: %v; run `make assets`", err)
	} else {
		t.Skipf("no assets: %v; run `make assets`", err)
	}
}

// find takes dir when it is named, else build/assets beside the go.mod above
// the working directory, which for a test is its package's folder.
func find(dir string) (string, error) {
	if dir != "" {
		_, err := os.Stat(dir)
		return dir, err
	}
	wd, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for root := wd; ; root = filepath.Dir(root) {
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
			dir := filepath.Join(root, "build", "assets")
			_, err := os.Stat(dir)
			return dir, err
		}
		if root == filepath.Dir(root) {
			return "", fmt.Errorf("find the module above %s: no go.mod", wd)
		}
	}
}
