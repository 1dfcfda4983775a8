package fetch

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/models"
)

// childEnv makes the test program download one file: address, store, and the
// file as JSON.
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

func child(address, dir, file string) error {
	var want models.File
	if err := json.Unmarshal([]byte(file), &want); err != nil {
		return err
	}
	store, err := blob.Open(dir)
	if err != nil {
		return err
	}
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		if err == nil {
			err = c.(*net.TCPConn).SetReadBuffer(windowBytes / 8)
		}
		return c, err
	}
	f, err := New(Options{Blobs: store, Client: &http.Client{Transport: &http.Transport{DialContext: dial}}, BaseURL: address, FreeBytes: plenty}, quiet())
	if err != nil {
		return err
	}
	// Each line is a step; the parent kills after some.
	return f.File(context.Background(), want, func(done, _ int64) { fmt.Println(done) })
}

// killed downloads a file by processes that are killed again and again, at a
// random time after a random step, and returns how many were.
func killed(t *testing.T, o *origin, file models.File, kills int) (store *blob.Store, died int) {
	seed := assets.Seed(t)
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	srv := httptest.NewUnstartedServer(o)
	// What the kernel buffers is sent but not delivered: as little as on a WAN.
	srv.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		_ = c.(*net.TCPConn).SetWriteBuffer(windowBytes / 8)
		return ctx
	}
	srv.Start()
	defer srv.Close()
	dir := t.TempDir()
	store, err := blob.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	want, err := json.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	var reached int64
	for !store.Has(file.Digest) {
		cmd := exec.Command(os.Args[0], srv.URL, dir, string(want))
		cmd.Env = append(os.Environ(), childEnv+"=1")
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var once sync.Once
		kill := func() { once.Do(func() { died++; _ = cmd.Process.Kill() }) } // it may have ended
		steps, late := 0, time.Duration(rng.Int64N(int64(3*time.Millisecond)))
		if died < kills {
			steps = 1 + rng.IntN(max(int(file.SizeBytes/blob.FrameBytes)/kills, 1))
		}
		for lines := bufio.NewScanner(out); lines.Scan(); steps-- {
			at, err := strconv.ParseInt(lines.Text(), 10, 64)
			if err != nil || at < reached {
				t.Fatalf("went on at %q after %d bytes were written", lines.Text(), reached)
			}
			reached = at
			if steps == 1 {
				time.AfterFunc(late, kill)
			}
		}
		if err := cmd.Wait(); err != nil && died >= kills && steps > 1 {
			t.Fatal(err)
		}
		once.Do(func() {}) // nothing is killed after its end
	}
	return store, died
}

// windowBytes is what may be on its way when a process dies: the buffers of the
// two ends of a connection on loopback, of which the kernel makes twice what it
// is asked for.
const windowBytes = 512 << 10

// TestKilledDownloadsWasteAFrameAndAWindow is about files in frames, which begin
// again within the frame that was under way.
func TestKilledDownloadsWasteAFrameAndAWindow(t *testing.T) {
	size, kills := 24<<20, 10
	if os.Getenv("EDGEHERD_PROVE") != "" {
		size, kills = 256<<20, 100
	}
	o := newOrigin(13, size+12345)
	store, died := killed(t, o, o.file(), kills)
	wantBlob(t, store, o)
	served, most := o.served.Load(), int64(size)*102/100+int64(died)*(blob.FrameBytes+windowBytes+blob.EncodedBytes(int64(size)))
	t.Logf("%d kills, served %d bytes for %d: %.4f", died, served, len(o.content), float64(served)/float64(len(o.content)))
	if served > most {
		t.Errorf("served %d bytes, want at most %d", served, most)
	}
}

func TestKilledProcessLosesNothingThatItHadWritten(t *testing.T) {
	o := newOrigin(13, 16<<20)
	file := o.file()
	file.Frames = blob.Digest{}
	store, _ := killed(t, o, file, 6)
	wantBlob(t, store, o)
	ranges := o.ranges()
	if ranges[0] != "" {
		t.Errorf("the first download asked for %q", ranges[0])
	}
	for _, r := range ranges[1:] {
		if r == "" {
			t.Errorf("a download began again from the start; ranges %q", ranges)
		}
	}
}
