package backend

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/models"
)

// TestMain makes the test binary an engine of containers when it is called so:
// it notes its arguments and, for run, stays until it is told to end.
func TestMain(m *testing.M) {
	if name := filepath.Base(os.Args[0]); name == "docker" || name == "podman" || name == "k3s" || name == "systemctl" {
		f, err := os.OpenFile(os.Getenv("BACKEND_TEST_LOG"), os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
		if err != nil {
			os.Exit(3)
		}
		f.WriteString(strings.Join(append([]string{name}, os.Args[1:]...), " ") + "\n")
		f.Close()
		if slices.Contains(os.Args, "run") {
			os.Stderr.WriteString("pulling\nno such image\n")
			if strings.Contains(strings.Join(os.Args, " "), "broken") {
				os.Exit(125)
			}
			for range time.Tick(5 * time.Millisecond) {
				if text, _ := os.ReadFile(f.Name()); bytes.Contains(text, []byte(" stop ")) || bytes.Contains(text, []byte(" kill ")) {
					break
				}
			}
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func manifest() models.Manifest {
	return models.Manifest{Name: "eye", Version: "2.0", Files: []models.File{{Path: "sub/model.gguf", Digest: blob.Sum(nil)}},
		Backend: &models.Backend{Name: "b", API: models.APIOIP, Parameters: map[string]string{"image": "acme/eye:2", "note": "$(reboot); `id` {port}"}}}
}

// TestProgramsGetArgumentsAndNoShell: what is run is the vector of the
// configuration with the places filled, and each way ends what it started.
func TestProgramsGetArgumentsAndNoShell(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	for _, name := range []string{"docker", "podman", "k3s", "systemctl"} {
		if err := os.Symlink(self, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin)
	for _, tc := range []struct {
		name   string
		config Config
		want   []string
		fails  string
	}{
		{"docker", Config{Container: &Container{Engine: "docker", Image: "{param:image}", Port: 8000, Options: []string{"--gpus", "all"}, Arguments: []string{"-m={file:sub/model.gguf}", "{param:note}"}}},
			[]string{"docker rm -f edgeherd-id", "docker run --rm --name edgeherd-id -p 127.0.0.1:77:8000 -v /d:/d:ro -v /b:/b:ro --gpus all acme/eye:2 -m=/d/sub/model.gguf $(reboot); `id` {port}", "docker stop edgeherd-id", "docker rm -f edgeherd-id"}, ""},
		{"k3s", Config{Container: &Container{Engine: "k3s", Image: "{param:image}", Arguments: []string{"--port", "{port}"}}},
			[]string{"k3s ctr container rm edgeherd-id", "k3s ctr run --rm --net-host --mount type=bind,src=/d,dst=/d,options=rbind:ro --mount type=bind,src=/b,dst=/b,options=rbind:ro acme/eye:2 edgeherd-id --port 77", "k3s ctr task kill edgeherd-id", "k3s ctr container rm edgeherd-id"}, ""},
		{"own unit", Config{Unit: "eye@{port}.service"}, []string{"systemctl start eye@77.service", "systemctl stop eye@77.service"}, ""},
		{"shared unit", Config{Unit: "triton.service", Endpoint: Endpoint{URL: "http://127.0.0.1:8000"}}, []string{"systemctl start triton.service"}, ""},
		{"watched", Config{Endpoint: Endpoint{URL: "http://127.0.0.1:8000"}}, nil, ""},
		{"broken image", Config{Container: &Container{Engine: "podman", Image: "broken", Port: 1}}, nil, "no such image"},
		{"no such parameter", Config{Unit: "eye-{param:zone}@{port}.service"}, nil, `no parameter "zone"`},
		{"nor in the environment", Config{Process: []string{"/bin/true"}, Environment: map[string]string{"ADDRESS": ":{port}", "ZONE": "{param:zone}"}}, nil, `no parameter "zone"`},
		{"no such program", Config{Process: []string{"/nowhere/tritonserver", "{port}"}}, nil, "no such file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			log := filepath.Join(t.TempDir(), "log")
			t.Setenv("BACKEND_TEST_LOG", log)
			tc.config.Name = "b"
			config, err := tc.config.WithDefaults()
			if err != nil {
				t.Fatal(err)
			}
			p, err := config.Start(t.Context(), Launch{Manifest: manifest(), ID: "id", Dir: "/d", Blobs: "/b", Port: 77}, slog.New(slog.DiscardHandler))
			if err == nil && tc.fails != "" {
				<-p.Done()
				err = p.Err()
				p.Stop()
			}
			if tc.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tc.fails) {
					t.Errorf("%v, want %q", err, tc.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for range 1000 { // the engine notes its arguments when it has come up
				if text, _ := os.ReadFile(log); tc.config.Container == nil || strings.Contains(string(text), " run ") {
					break
				}
				<-tick.C
			}
			p.Stop()
			text, _ := os.ReadFile(log)
			if got := strings.Split(strings.TrimSpace(string(text)), "\n"); strings.Join(got, "\n") != strings.Join(tc.want, "\n") {
				t.Errorf("ran\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tc.want, "\n"))
			}
		})
	}
}

// TestConfigSaysWhatIsWrong before anything is started.
func TestConfigSaysWhatIsWrong(t *testing.T) {
	for _, tc := range []struct {
		name   string
		config Config
		want   string
	}{
		{"nothing", Config{}, "to watch one that runs"},
		{"two ways", Config{Process: []string{"a"}, Unit: "b"}, "one of"},
		{"misspelt place", Config{Process: []string{"a", "--port={prot}"}}, "{prot}"},
		{"port of another", Config{Endpoint: Endpoint{URL: "http://127.0.0.1:{port}"}}, "name the port"},
		{"engine", Config{Container: &Container{Engine: "rkt", Image: "i"}}, `engine is "rkt"`},
		{"token in url", Config{Endpoint: Endpoint{URL: "https://me:secret@hq", Place: PlaceCentral}}, "nothing else"},
		{"token before the host", Config{Endpoint: Endpoint{URL: "https://hidden@hq", Place: PlaceCentral}}, "nothing else"},
		{"token behind it", Config{Endpoint: Endpoint{URL: "https://hq/?key=hidden", Place: PlaceCentral}}, "nothing else"},
		{"whose machine", Config{Endpoint: Endpoint{URL: "https://hq:8443"}}, "it decides whose inputs"},
		{"clear text away", Config{Endpoint: Endpoint{URL: "http://hq:8000", Place: PlaceCentral}}, "encrypted"},
		{"token in clear text", Config{Endpoint: Endpoint{URL: "http://pc2:8000", Place: PlaceSite, Credential: "/t"}}, "in the clear"},
		{"box elsewhere", Config{Endpoint: Endpoint{URL: "https://pc2:8000", Place: PlaceBox}}, "another machine"},
		{"openai over grpc", Config{API: "openai", Endpoint: Endpoint{URL: "grpc://127.0.0.1:1"}}, "http or https"},
		{"no port", Config{Process: []string{"/bin/true"}}, "nothing tells the program its port"},
		{"environment of a unit", Config{Unit: "u", Environment: map[string]string{"A": "b"}}, "environment"},
	} {
		tc.config.Name = "b"
		if _, err := tc.config.WithDefaults(); err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: %v, want %q and no token", tc.name, err, tc.want)
		}
	}
}

// TestChildrenOfAProgramThatDiedEndWithIt: servers of language models have one a model.
func TestChildrenOfAProgramThatDiedEndWithIt(t *testing.T) {
	config, err := Config{Name: "b", Process: []string{"/bin/sh", "-c", "sleep 600 >/dev/null 2>&1 & echo $!; kill -9 $$", "{port}"}}.WithDefaults()
	if err != nil {
		t.Fatal(err)
	}
	p, err := config.Start(t.Context(), Launch{Manifest: manifest(), Port: 77}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	child := p.tail.last()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); <-tick.C {
		// Whoever inherits it may be slow to take its end.
		stat, err := os.ReadFile("/proc/" + child + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
	}
	t.Errorf("process %s is still there: %v", child, p.Err())
}

// TestEndIsToldByTheLineThatSaysWhy: engines print a hint after it.
func TestEndIsToldByTheLineThatSaysWhy(t *testing.T) {
	for printed, want := range map[string]string{
		"": "it printed nothing",
		"docker: Cannot connect to the Docker daemon.\n\nRun 'docker run --help' for more information\n": "docker: Cannot connect to the Docker daemon.",
		"loading\nout of memory\n": "out of memory",
	} {
		var out tail
		_, _ = out.Write([]byte(printed))
		if got := out.last(); got != want {
			t.Errorf("%q: %q, want %q", printed, got, want)
		}
	}
}

// TestBreakerAsksLessAndLess, one caller at a time, and at once all is well again.
func TestBreakerAsksLessAndLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b Breaker
		for range breakAfter {
			if !b.Allow() {
				t.Fatal("closed before it failed often enough")
			}
			b.Record(false)
		}
		pause := breakMin
		for range 10 {
			if b.Allow() || !b.Open() {
				t.Fatalf("asked within %s", pause)
			}
			time.Sleep(pause)
			if !b.Allow() || b.Allow() {
				t.Fatalf("after %s one caller may try, and one only", pause)
			}
			b.Record(false)
			pause = min(2*pause, breakMax)
		}
		time.Sleep(pause)
		if !b.Allow() {
			t.Fatal("nobody may try")
		}
		b.Record(true)
		for range 2 {
			if !b.Allow() || b.Open() {
				t.Error("it stays shut though it works")
			}
		}
	})
}
