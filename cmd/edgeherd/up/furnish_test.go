package up

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/labels"
)

// What boxes run is for people to say once a fleet is in production: the demo's key
// lists nothing there any more.
func TestAFleetInProductionGetsNoDemoModels(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			t.Errorf("%s %s", r.Method, r.URL.Path)
		}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"development": false, "items": []}`)
	}))
	defer srv.Close()
	f := &Fleet{opts: Options{Data: t.TempDir(), Assets: t.TempDir()}}
	if err := f.pushStarters(t.Context(), fleetapi.New(srv.URL, "", nil)); err != nil {
		t.Errorf("it is not left alone: %v", err)
	}
}

// Ctrl-C may come while the first agent of a box is being copied to its slot.
func TestABoxGetsTheAgentThatAnEndedStartDidNotInstall(t *testing.T) {
	f := &Fleet{opts: Options{Data: t.TempDir(), Assets: t.TempDir(), Bin: t.TempDir()}}
	b := box{name: "box-1", dir: filepath.Join(f.opts.Data, "box-1")}
	program := filepath.Join(b.dir, "launcher", "slots", "a", "agent")
	for path, text := range map[string]string{
		filepath.Join(b.dir, "frames", labels.TruthFile):             "{}", // spares drawing them
		filepath.Join(b.dir, "launcher", "slots", "a", ".agent.new"): "half",
		f.bin("edgeherd-launcher"):                                   "#!/bin/sh\nprintf installed > " + program + "\n",
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.furnishBox(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(program); string(got) != "installed" {
		t.Fatalf("the slot holds %q, %v", got, err)
	}
	// What was updated since stays.
	if err := os.WriteFile(program, []byte("newer"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := f.furnishBox(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(program); string(got) != "newer" {
		t.Errorf("a second start installed %q over the program", got)
	}
}
