package bench

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/agent/fetch"
	"github.com/edgeherd/edgeherd/internal/blob"
)

const fetchBytes = 64 << 20

// fetchRate downloads a blob over TLS, with its digest checked from disk, and
// writes the same bytes to the same disk in turn. The part file is measured alone,
// without network.
func fetchRate(t *testing.T) []Figure {
	data := make([]byte, fetchBytes)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data) // never fails
	digest := blob.Sum(data)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", fmt.Sprintf("%q", digest.String()))
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}))
	t.Cleanup(server.Close)
	dir := t.TempDir()
	var fetched, written, ratios []float64
	for round := range 7 {
		f := download(t, filepath.Join(dir, fmt.Sprint("blobs", round)), server, digest)
		w := write(t, filepath.Join(dir, fmt.Sprint("plain", round)), data)
		if round > 0 { // the first one warms up
			fetched, written, ratios = append(fetched, f), append(written, w), append(ratios, f/w)
		}
	}
	ratio := median(ratios) // of pairs: the disk's rate changes from minute to minute
	out := goTest(t, "./agent/fetch", "-run", "^$", "-bench", "^BenchmarkPartFile$", "-benchtime", "7x")
	part := func(name, unit, beside string, goal Goal) Figure {
		rate := metric(t, out, "MB/s")
		return Figure{Name: name, Value: rate, Unit: "MB/s", Goal: goal}.Against(beside, rate/metric(t, out, unit))
	}
	return []Figure{
		part("part-file", "of-digested", "write and fsync of the same bytes, with their digest", Goal{AtLeast: 0.9}),
		part("part-file-plain", "of-plain", "the same without a digest", Goal{}),
		Figure{Value: median(fetched) / 1e6, Unit: "MB/s", Goal: Goal{AtLeast: 0.3}}.Against("write and fsync of the same bytes", median(fetched)/1e6/ratio),
		{Name: "plain-write", Value: median(written) / 1e6, Unit: "MB/s"},
	}
}

// download returns bytes per second.
func download(t *testing.T, dir string, server *httptest.Server, digest blob.Digest) float64 {
	t.Helper()
	blobs, err := blob.Open(dir)
	check(t, err)
	f, err := fetch.New(fetch.Options{Blobs: blobs, Client: server.Client(), BaseURL: server.URL}, slog.New(slog.DiscardHandler))
	check(t, err)
	defer f.Close()
	began := time.Now()
	check(t, f.Blob(t.Context(), digest, fetchBytes, nil))
	took := time.Since(began).Seconds()
	check(t, os.RemoveAll(dir))
	return fetchBytes / took
}

// write returns bytes per second.
func write(t *testing.T, path string, data []byte) float64 {
	t.Helper()
	began := time.Now()
	f, err := os.Create(path)
	check(t, err)
	_, err = f.Write(data)
	check(t, err)
	check(t, f.Sync())
	check(t, f.Close())
	took := time.Since(began).Seconds()
	check(t, os.Remove(path))
	return fetchBytes / took
}
