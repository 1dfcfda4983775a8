package assets

import (
	"os"
	"path/filepath"
	"testing"
)

func TestNamedFolderWins(t *testing.T) {
	dir := t.TempDir()
	if got, err := find(dir); err != nil || got != dir {
		t.Errorf("find(%q) = %q, %v", dir, got, err)
	}
	if _, err := find(filepath.Join(dir, "absent")); err == nil {
		t.Error("a named folder that does not exist was accepted")
	}
}

func TestDefaultIsBesideGoMod(t *testing.T) {
	root := t.TempDir()
	deep := filepath.Join(root, "a", "b")
	want := filepath.Join(root, "build", "assets")
	for _, dir := range []string{deep, want} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "go.mod"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Chdir(deep)
	if got, err := find(""); err != nil || got != want {
		t.Errorf("find = %q, %v, want %q", got, err, want)
	}
}

// recorder stands in for a test that asks for assets which are not there.
type recorder struct {
	testing.TB
	skipped, failed bool
}

func (r *recorder) Helper()               {}
func (r *recorder) Skipf(string, ...any)  { r.skipped = true }
func (r *recorder) Fatalf(string, ...any) { r.failed = true }

func TestAbsenceFailsOnlyWhereAssetsAreRequired(t *testing.T) {
	for _, tc := range []struct {
		name, require string
		want          recorder
	}{
		{"optional", "", recorder{skipped: true}},
		{"required", "1", recorder{failed: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Setenv("EDGEHERD_REQUIRE_ASSETS", tc.require)
			got := &recorder{}
			Absent(got, os.ErrNotExist)
			if *got != tc.want {
				t.Errorf("got %+v, want %+v", *got, tc.want)
			}
		})
	}
}

func TestAProgramIsFoundOrSaidToBeAbsent(t *testing.T) {
	dir := t.TempDir()
	tool := filepath.Join(dir, "tool")
	if err := os.WriteFile(tool, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "text"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	t.Setenv("EDGEHERD_REQUIRE_ASSETS", "1")
	for name, want := range map[string]recorder{"tool": {}, "text": {failed: true}, "neither": {failed: true}} {
		got := &recorder{}
		if path := Program(got, name); *got != want || !want.failed && path != tool {
			t.Errorf("%s: %q, %+v, want %+v", name, path, *got, want)
		}
	}
}

func TestRuntimeAndModelsAreThere(t *testing.T) {
	for _, path := range []string{
		Library(t), LibraryFor(t, "arm64"),
		filepath.Join(Model(t, "silero-vad-6.0.0"), "model.yaml"),
		filepath.Join(Model(t, "ocr-rec-4.0.0"), "ppocr_keys_v1.txt"),
	} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
}
