package fetch

import (
	"bytes"
	"crypto/sha256"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
)

// BenchmarkPartFile prices the part file: 256 MiB that come in frames, each
// checked before it is written to its place of a file that has its full length from
// the start, against one sequential write of the same bytes to the same disk, both
// up to the end of fsync. The sequential one is written as it comes and takes its
// digest along the way, as a download must; without it, it would not know what it
// has. Both take turns, and the median of pairs is given, since the rate of a disk
// changes from minute to minute.
func BenchmarkPartFile(b *testing.B) {
	data := make([]byte, 256<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data) // never fails
	frames, _, err := blob.FramesOf(bytes.NewReader(data))
	check := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	check(err)
	blobs, err := blob.Open(filepath.Join(b.TempDir(), "blobs"))
	check(err)
	f, err := New(Options{Blobs: blobs, Client: http.DefaultClient, BaseURL: "http://127.0.0.1"}, slog.New(slog.DiscardHandler))
	check(err)
	defer f.Close()
	parted := func(file *os.File) {
		check(f.reserve(file, frames.Size))
		p, err := openPart(b.Context(), file, frames, holesOf(file))
		check(err)
		for i := range frames.Sums {
			off, n := frames.Span(i)
			check(p.put(i, data[off:off+int64(n)]))
		}
	}
	sequential := func(digested bool) func(*os.File) {
		return func(file *os.File) {
			hash := sha256.New()
			for rest := data; len(rest) > 0; {
				n := min(blob.FrameBytes, len(rest))
				if digested {
					_, _ = hash.Write(rest[:n])
				}
				_, err := file.Write(rest[:n])
				check(err)
				rest = rest[n:]
			}
		}
	}
	ways := []func(*os.File){parted, sequential(true), sequential(false)}
	took := make([][]float64, len(ways))
	for range b.N {
		for i, way := range ways {
			file, err := os.Create(filepath.Join(b.TempDir(), "file"))
			check(err)
			began := time.Now()
			way(file)
			check(file.Sync())
			took[i] = append(took[i], time.Since(began).Seconds())
			check(file.Close())
			check(os.Remove(file.Name()))
		}
	}
	ratio := func(over int) float64 {
		var all []float64
		for i := range took[0] {
			all = append(all, took[over][i]/took[0][i])
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	b.ReportMetric(ratio(1), "of-digested")
	b.ReportMetric(ratio(2), "of-plain")
	b.ReportMetric(float64(len(data))/1e6/slices.Min(took[0]), "MB/s")
}
