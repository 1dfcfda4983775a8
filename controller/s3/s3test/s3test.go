// Package s3test runs a real S3 server for tests: versitygw, which make builds
// into build/tools, on a folder, with real signatures.
//
// Vocabulary: a Server has one bucket and one access key; Down stops it, Up starts
// it again where it was.
//
// The one rule a caller can break: the test ends at Start where it was not built.
package s3test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/freeport"
)

// Key and Secret sign requests to a Server; Bucket is its bucket.
const (
	Key    = "AKIDOFTESTS"
	Secret = "a secret that no log may have"
	Bucket = "fleet"
)

// Server is a running one.
type Server struct {
	t       testing.TB
	program string
	URL     string
	Dir     string // Dir/BUCKET/KEY are the objects
	cmd     *exec.Cmd
}

// Start runs a server until the test ends.
func Start(t testing.TB) *Server {
	t.Helper()
	s := &Server{t: t, program: filepath.Join(assets.Dir(t), "..", "tools", "versitygw"), Dir: t.TempDir()}
	if _, err := os.Stat(s.program); err != nil {
		assets.Absent(t, fmt.Errorf("%w; run `make build/tools/versitygw`", err))
	}
	address, err := freeport.Address()
	if err != nil {
		t.Fatal(err)
	}
	s.URL = "http://" + address
	if err := os.Mkdir(filepath.Join(s.Dir, Bucket), 0o755); err != nil {
		t.Fatal(err)
	}
	s.Up()
	t.Cleanup(s.Down)
	return s
}

// Up starts it, and waits until it answers.
func (s *Server) Up() {
	s.t.Helper()
	s.cmd = exec.Command(s.program, "--access", Key, "--secret", Secret, "--port", s.URL[len("http://"):], "--quiet", "posix", s.Dir)
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(5 * time.Minute); time.Now().Before(end); <-tick.C {
		req, err := http.NewRequestWithContext(context.Background(), http.MethodHead, s.URL, nil)
		if err != nil {
			s.t.Fatal(err)
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			resp.Body.Close()
			return
		}
	}
	s.t.Fatal("the S3 server does not answer")
}

// Down kills it.
func (s *Server) Down() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// SecretFile writes a file with a secret.
func (s *Server) SecretFile(secret string) string {
	path := filepath.Join(s.t.TempDir(), "secret")
	if err := durable.WriteFile(path, []byte(secret+"\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}
