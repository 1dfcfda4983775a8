package fleettest

import (
	"bytes"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/agent/fetch"
	"github.com/edgeherd/edgeherd/controller/api"
	"github.com/edgeherd/edgeherd/controller/deliver"
	"github.com/edgeherd/edgeherd/controller/s3"
	"github.com/edgeherd/edgeherd/controller/s3/s3test"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/models"
)

// Boxes read contents from the bucket, and from the controller when the bucket is
// away or gives other bytes; nobody logs the addresses.
func TestBoxesReadFromTheBucketAndElseFromTheController(t *testing.T) {
	server := s3test.Start(t)
	bucket, err := s3.New(s3.Options{Endpoint: server.URL, Bucket: s3test.Bucket, AccessKey: s3test.Key, SecretFile: server.SecretFile(s3test.Secret)})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	db, err := store.Open(t.Context(), store.Options{Path: filepath.Join(dir, "store.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	id := identity.NewID()
	folder, err := blob.Open(filepath.Join(dir, "blobs"))
	if err == nil {
		err = db.AddBox(t.Context(), id, "box", "mitte")
	}
	if err != nil {
		t.Fatal(err)
	}
	blobs := folder.Backed(bucket)
	var logged bytes.Buffer
	log := slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	a, err := api.New(api.Options{Store: db, Blobs: blobs, URL: bucket.URL, Gate: deliver.NewGate(deliver.GateOptions{})}, log)
	if err != nil {
		t.Fatal(err)
	}
	var here atomic.Int64   // contents that the controller was asked for
	var forever atomic.Bool // it names places that are good for ever, as no store signs
	device := a.Device()
	ctl := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Range") != "" {
			here.Add(1)
		}
		if forever.Load() && strings.HasSuffix(r.URL.Path, "/url") {
			fmt.Fprintf(w, `{"url":"https://192.0.2.1/","for_ms":%d}`, math.MaxInt64)
			return
		}
		device.ServeHTTP(w, r.WithContext(api.WithBox(r.Context(), id)))
	}))
	defer ctl.Close()
	fetched := func(name string) int64 {
		t.Helper()
		data := bytes.Repeat([]byte(name), 3<<20/len(name)+5)
		frames, d, err := blob.FramesOf(bytes.NewReader(data))
		if err == nil {
			list := frames.Encode()
			err = blobs.Put(bytes.NewReader(list), blob.Sum(list))
		}
		if err == nil {
			err = blobs.Put(bytes.NewReader(data), d)
		}
		if err != nil {
			t.Fatal(err)
		}
		switch name {
		case "spoilt ":
			path := filepath.Join(server.Dir, s3test.Bucket, "sha256", d.Hex())
			if err := os.WriteFile(path, append([]byte("S"), data[1:]...), 0o600); err != nil {
				t.Fatal(err)
			}
		case "forever ":
			forever.Store(true)
			defer forever.Store(false)
		case "away ":
			server.Down()
			defer server.Up()
		}
		box, err := blob.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		f, err := fetch.New(fetch.Options{Blobs: box, Client: &http.Client{}, Direct: &http.Client{}, BaseURL: ctl.URL, MinFreeBytes: 1, BackoffMax: time.Millisecond}, log)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		before := here.Load()
		if err := f.File(t.Context(), models.File{Path: "m", Digest: d, SizeBytes: int64(len(data)), Frames: blob.Sum(frames.Encode())}, nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !box.Has(d) {
			t.Errorf("%s did not come", name)
		}
		return here.Load() - before
	}
	for _, tc := range []struct {
		name string
		most int64
	}{{"well ", 0}, {"spoilt ", 3}, {"away ", 3}, {"forever ", 3}} {
		if n := fetched(tc.name); n > tc.most || tc.most > 0 && n == 0 {
			t.Errorf("%s: the controller gave %d ranges, want up to %d\n%s", tc.name, n, tc.most, logged.String())
		}
	}
	if !strings.Contains(logged.String(), "for_ms is 9223372036854775807, want 0 to 604800000") {
		t.Error("nothing says that a place is named for too long")
	}
	for _, secret := range []string{"X-Amz-Signature", s3test.Secret} {
		if strings.Contains(logged.String(), secret) {
			t.Errorf("%s is logged: %s", secret, fmt.Sprint(logged.String()))
		}
	}
}
