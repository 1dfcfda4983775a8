// Package assets finds what tests need and git does not hold: ONNX Runtime, the
// demo models, and programs of the system.
//
// Assets are large files of others that git does not hold: `make assets` lays
// them out under build/assets as onnxruntime/linux-<arch>/libonnxruntime.so.1
// and models/<name>-<version>/ with model.yaml, model.onnx and golden samples.
// The variable EDGEHERD_ASSETS names another folder of the same layout.
//
// The one rule a caller can break: ask here, with the test at hand, rather than
// by path. Where something is absent a test is skipped, and it fails when
// EDGEHERD_REQUIRE_ASSETS is set, as `make test` does: so a machine without
// it cannot pass by leaving tests out.
package assets

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// Dir is the folder of all assets.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := find(os.Getenv("EDGEHERD_ASSETS"))
	if err != nil {
		Absent(t, fmt.Errorf("%w; run `make assets`", err))
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
	return File(t, "onnxruntime", "linux-"+arch, "libonnxruntime.so.1")
}

// Model is the folder of one demo model, such as "silero-vad-5.0.0".
func Model(t testing.TB, name string) string {
	t.Helper()
	return filepath.Dir(File(t, "models", name, "model.onnx"))
}

// File is one file of the assets, by the elements of its path.
func File(t testing.TB, elem ...string) string {
	t.Helper()
	path := filepath.Join(append([]string{Dir(t)}, elem...)...)
	if _, err := os.Stat(path); err != nil {
		Absent(t, fmt.Errorf("%w; run `make assets`", err))
	}
	return path
}

// Program is a program that `make deps` installs. Those of /usr/sbin are found
// by people as well, whose PATH lacks it.
func Program(t testing.TB, name string) string {
	t.Helper()
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/usr/local/sbin") {
		path := filepath.Join(dir, name)
		if fi, err := os.Stat(path); err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0 {
			return path
		}
	}
	Absent(t, fmt.Errorf("%s is not installed; run `make deps`", name))
	return ""
}

// Module returns the folder of a module that .ci/fixtures names, for test data
// that others wrote.
func Module(t testing.TB, module string) string {
	t.Helper()
	root, err := root()
	if err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadFile(filepath.Join(root, ".ci", "fixtures"))
	if err != nil {
		t.Fatalf("read which modules there are: %v", err)
	}
	cache, err := exec.Command("go", "env", "GOMODCACHE").Output()
	if err != nil {
		t.Fatalf("ask for the module cache: %v", err)
	}
	for line := range strings.FieldsSeq(string(list)) {
		if !strings.HasPrefix(line, module+"@") {
			continue
		}
		dir := filepath.Join(strings.TrimSpace(string(cache)), line)
		if _, err := os.Stat(dir); err != nil {
			Absent(t, fmt.Errorf("%w; run `make deps`", err))
		}
		return dir
	}
	t.Fatalf(".ci/fixtures does not name %s", module)
	return ""
}

// Seed is what a test draws from: RAPID_SEED, which make test sets so that its
// runs are alike, or a fresh one. A test that fails says which it was.
func Seed(t testing.TB) uint64 {
	t.Helper()
	seed, err := strconv.ParseUint(os.Getenv("RAPID_SEED"), 10, 64)
	if err != nil {
		seed = rand.Uint64()
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("RAPID_SEED=%d", seed)
		}
	})
	return seed
}

// Absent ends a test that lacks something.
func Absent(t testing.TB, err error) {
	t.Helper()
	if os.Getenv("EDGEHERD_REQUIRE_ASSETS") != "" {
		t.Fatalf("required here: %v", err)
	} else {
		t.Skipf("left out: %v", err)
	}
}

// find takes dir when it is named, else build/assets.
func find(dir string) (string, error) {
	if dir == "" {
		root, err := root()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(root, "build", "assets")
	}
	_, err := os.Stat(dir)
	return dir, err
}

// root is where the go.mod above the working directory is, which for a test is
// its package's folder.
func root() (string, error) {
	wd, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := wd; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("find the module above %s: no go.mod", wd)
		}
	}
}
