package fetch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/deviceapi"
)

// neighbour is the other box of a site.
type neighbour struct{ *Fetcher }

func (neighbour) Address() string { return "here:7443" }

func (n neighbour) Frame(ctx context.Context, _ deviceapi.Peer, want Frame) ([]byte, error) {
	return n.Held(ctx, want)
}

// damage flips a bit of a file.
func damage(t *testing.T, path string, at int64) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[at] ^= 1
	err = errors.Join(os.Chmod(path, 0o644), os.WriteFile(path, data, 0o644))
	if err != nil {
		t.Fatal(err)
	}
}

// TestOnlyWhatNoPeerHasSoundCrossesTheLine: the neighbour has the file, but its disk has
// spoiled the second of four frames. The box that fetches for the site takes the frames
// on both sides of it from there.
func TestOnlyWhatNoPeerHasSoundCrossesTheLine(t *testing.T) {
	o := newOrigin(26, framed)
	giver, held := fetcher(t, o, nil)
	if err := giver.File(t.Context(), o.file(), nil); err != nil {
		t.Fatal(err)
	}
	damage(t, filepath.Join(held.Dir(), "sha256", o.digest().Hex()), blob.FrameBytes+5)
	lease := deviceapi.Lease{Seed: true, ForMs: 60_000, Peers: []deviceapi.Peer{{ID: "d-giver", Address: "there:7443"}}}
	before := len(o.ranges())
	o.spoil = func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/lease") {
			return false
		}
		return json.NewEncoder(w).Encode(lease) == nil
	}
	f, store := fetcher(t, o, func(opts *Options) { opts.Peers = neighbour{giver} })
	if err := f.File(t.Context(), o.file(), nil); err != nil {
		t.Fatal(err)
	}
	wantBlob(t, store, o)
	if got := strings.TrimSpace(strings.Join(o.ranges()[before:], " ")); strings.Join(strings.Fields(got), " ") != "bytes=1048576-2097151" {
		t.Errorf("asked for %q over the line, want the spoiled frame alone", got)
	}
	if f.shuns() != nil {
		t.Errorf("left %v, though it gave no wrong frame", f.shuns())
	}
}

// TestAPartNoticesWhatItsDiskSpoils: such a frame is missing again, once.
func TestAPartNoticesWhatItsDiskSpoils(t *testing.T) {
	o := newOrigin(27, framed)
	frames, err := blob.DecodeFrames(o.frames())
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "part"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	p, err := openPart(t.Context(), file, frames, nil)
	if err != nil {
		t.Fatal(err)
	}
	all := bytes.Clone(o.content)
	for i := range frames.Sums {
		off, n := frames.Span(i)
		if err := p.put(i, all[off:off+int64(n)]); err != nil {
			t.Fatal(err)
		}
	}
	for _, missing := range []int{1, 0} {
		damage(t, file.Name(), blob.FrameBytes+5)
		if data, _, err := p.read(1); !errors.Is(err, ErrNotFound) {
			t.Errorf("a spoiled frame is given out: %d bytes, %v", len(data), err)
		}
		first, end := p.gap(runFrames)
		if end-first != missing || p.reached() != framed-int64(missing)*blob.FrameBytes {
			t.Errorf("frames %d to %d are missing and %d bytes there, want %d missing", first, end, p.reached(), missing)
		}
		if err := p.put(1, all[blob.FrameBytes:2*blob.FrameBytes]); err != nil {
			t.Fatal(err)
		}
	}
}
