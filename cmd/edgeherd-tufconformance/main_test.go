package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/trust/trusttest"
	"github.com/edgeherd/edgeherd/internal/trust/tufrepo"
)

// TestMain lets a test run the program itself: its exit code is all that the
// suite has of a refusal.
func TestMain(m *testing.M) {
	if os.Getenv("RUN_THE_PROGRAM") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestTheProgramEndsWithOneWhenItRefuses(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct {
		faketime string
		code     int
	}{{"", 0}, {"+3456000", 1}} { // 40 days
		cmd := exec.Command(os.Args[0], "--metadata-dir", w.metadata, "--metadata-url", w.url+"/metadata", "refresh")
		cmd.Env = append(os.Environ(), "RUN_THE_PROGRAM=1", "FAKETIME="+tt.faketime)
		out, err := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != tt.code || (err == nil) != (tt.code == 0) {
			t.Errorf("FAKETIME=%s: %v, code %d, want %d: %s", tt.faketime, err, got, tt.code, out)
		}
	}
}

// The repositories of the other tests are the simulator's; this is one of a fleet.
func TestTheSuitesCommandsTakeAFleetsRepository(t *testing.T) {
	repo := trusttest.New(t, time.Now)
	content := "an envelope"
	target := repo.Model("eye", "1.0.0", content, 1)
	repo.Publish()
	var asked []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.Path)
		name := strings.TrimPrefix(r.URL.Path, "/metadata/")
		if strings.HasPrefix(r.URL.Path, "/targets/") && strings.Contains(r.URL.Path, target.Digest.Hex()) {
			w.Write([]byte(content))
		} else if data, ok := repo.Files[name]; ok {
			w.Write(data)
		} else {
			http.NotFound(w, r)
		}
	}))
	defer srv.Close()
	dir, targets, pin := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "root.json")
	if err := os.WriteFile(pin, repo.Pin, 0o600); err != nil {
		t.Fatal(err)
	}
	do := func(args ...string) error {
		return run(t.Context(), append([]string{"--metadata-dir", dir, "--metadata-url", srv.URL + "/metadata", "--target-name", target.Path(), "--target-base-url", srv.URL + "/targets", "--target-dir", targets}, args...))
	}
	version := func(role string) int64 {
		data, err := os.ReadFile(filepath.Join(dir, role+".json"))
		if err != nil {
			return 0
		}
		h, err := tufrepo.ParseHead(data)
		if err != nil {
			t.Fatal(err)
		}
		return h.Version
	}
	if err := do("init", pin); err != nil || len(asked) > 0 || version("root") != 1 {
		t.Fatalf("init: %v, asked %v", err, asked)
	}
	if err := do("refresh"); err != nil {
		t.Fatal(err)
	}
	if want := []string{"/metadata/2.root.json", "/metadata/timestamp.json", "/metadata/2.snapshot.json", "/metadata/1.targets.json"}; !slices.Equal(asked, want) {
		t.Errorf("asked %v, want %v", asked, want)
	}
	for range 2 { // the second time nothing is downloaded
		asked = nil
		if err := do("download"); err != nil {
			t.Fatal(err)
		}
	}
	if len(asked) != 2 {
		t.Errorf("the second download asked %v", asked)
	}
	if files, _ := filepath.Glob(filepath.Join(targets, "*")); len(files) != 1 {
		t.Errorf("targets are %v", files)
	}
	// What was verified before a failure stays trusted, what failed does not come.
	repo.Root.Version = 2
	repo.PublishRoot(repo.Keys[tufrepo.RoleRoot]...)
	repo.Publish()
	delete(repo.Files, "3.snapshot.json")
	if err := do("refresh"); err == nil || version("root") != 2 || version("timestamp") != 3 || version("snapshot") != 2 {
		t.Errorf("refresh: %v, root %d, timestamp %d, snapshot %d", err, version("root"), version("timestamp"), version("snapshot"))
	}
	repo.Publish()
	if err := do("refresh"); err != nil || version("snapshot") != 4 {
		t.Errorf("refresh: %v", err)
	}
	for _, args := range [][]string{{"fly"}, {"init", filepath.Join(dir, "none")}} {
		if err := do(args...); err == nil {
			t.Errorf("%v succeeded", args)
		}
	}
}
