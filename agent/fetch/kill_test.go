package fetch

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/blob"
)

// childEnv makes the test program download one blob: address, store, digest.
const childEnv = "EDGEHERD_FETCH_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) == "" {
		os.Exit(m.Run())
	}
	if err := child(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func child(address, dir, digest string) error {
	d, err := blob.ParseDigest(digest)
	if err != nil {
		return err
	}
	store, err := blob.Open(dir)
	if err != nil {
		return err
	}
	f, err := New(Options{Blobs: store, Client: &http.Client{}, BaseURL: address, FreeBytes: plenty}, quiet())
	if err != nil {
		return err
	}
	// Each line is a step of 64 KiB at most; the parent kills after some.
	return f.Blob(context.Background(), d, 0, func(done, _ int64) { fmt.Println(done) })
}

func TestKilledProcessLosesNothingThatItHadWritten(t *testing.T) {
	const size, kills = 16 << 20, 12
	seed := assets.Seed(t)
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	o := newOrigin(13, size)
	srv := httptest.NewServer(o)
	defer srv.Close()
	dir := t.TempDir()
	store, err := blob.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	var reached int64
	for killed := 0; !store.Has(o.digest()); killed++ {
		cmd := exec.Command(os.Args[0], srv.URL, dir, o.digest().String())
		cmd.Env = append(os.Environ(), childEnv+"=1")
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		steps := 1 + rng.IntN(size/chunkBytes/kills)
		for lines := bufio.NewScanner(out); lines.Scan(); steps-- {
			at, err := strconv.ParseInt(lines.Text(), 10, 64)
			if err != nil || at < reached {
				t.Fatalf("went on at %q after %d bytes were written", lines.Text(), reached)
			}
			reached = at
			if steps == 0 && killed < kills {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); err != nil && killed >= kills {
			t.Fatal(err)
		}
	}
	wantBlob(t, store, o)
	first := o.ranges()[0]
	for _, r := range o.ranges()[1:] {
		if r == "" {
			t.Errorf("a download began again from the start; ranges %q", o.ranges())
		}
	}
	if first != "" {
		t.Errorf("the first download asked for %q", first)
	}
}
