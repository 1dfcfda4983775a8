package api

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/controller/deliver"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/models/wdelta"
)

// zeros gives n bytes without holding them.
type zeros struct{ n int64 }

func (z *zeros) Read(p []byte) (int, error) {
	if z.n == 0 {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), z.n))
	clear(p[:n])
	z.n -= int64(n)
	return n, nil
}

// A file is stored as it comes, however long it is: the memory of the controller
// does not grow with it.
func TestAnUploadOfAnyLengthIsStreamed(t *testing.T) {
	size := int64(16<<20 + 1)
	if os.Getenv("EDGEHERD_PROVE") != "" {
		size = 4<<30 + 1 // beyond what 32 bits can say
	}
	w := newWorld(t)
	d, _, err := blob.SumReader(&zeros{size})
	must(t, err)
	most := uint64(0)
	looked := int64(0)
	must(t, w.client("ops").Upload(t.Context(), d, &zeros{size}, size, func(sent int64) {
		if sent-looked < size/8 {
			return
		}
		looked = sent
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		most = max(most, m.HeapAlloc)
	}))
	n, err := w.blobs.Size(d)
	must(t, err)
	if n != size {
		t.Errorf("%d bytes are stored, want %d", n, size)
	}
	if most > 64<<20 {
		t.Errorf("the heap had %d bytes on the way", most)
	}
	// Who may push gets it back, and is not taken for a box that waits its turn.
	w.api.opts.Gate = deliver.NewGate(deliver.GateOptions{})
	must(t, w.client("ops").Download(t.Context(), d, io.Discard, nil))
	// What no list of frames can tell of is refused before it is sent.
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, w.server.URL+"/api/v1/blobs/"+strings.Repeat("0", 64), &zeros{1})
	must(t, err)
	req.ContentLength = maxBlobBytes + 1
	req.Header.Set("Authorization", "Bearer "+w.tokens["ops"])
	req.Header.Set("Expect", "100-continue")
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("an upload beyond the bound: %s", resp.Status)
	}
}

// What has no room is told before a byte of it is written, a pack by what it makes; the
// database of all boxes lives on the same disk.
func TestAnUploadLeavesTheDatabaseItsRoom(t *testing.T) {
	w := newWorld(t)
	w.api.opts.FreeBytes = func(string) (int64, error) { return keepFree + 1<<20, nil }
	put := func(query string, body []byte, size int64) (int, string) {
		t.Helper()
		d, _, err := blob.SumReader(&zeros{size})
		must(t, err)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, w.server.URL+"/api/v1/blobs/"+d.Hex()+query, bytes.NewReader(body))
		must(t, err)
		req.Header.Set("Authorization", "Bearer "+w.tokens["ops"])
		resp, err := http.DefaultClient.Do(req)
		must(t, err)
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		must(t, err)
		if resp.StatusCode != http.StatusCreated && w.blobs.Has(d) {
			t.Errorf("%d bytes were refused and are there", size)
		}
		return resp.StatusCode, string(text)
	}
	pack := func(size int64) []byte {
		var out bytes.Buffer
		_, err := wdelta.Encode(t.Context(), nil, bytes.NewReader(make([]byte, size)), &out, wdelta.Options{})
		must(t, err)
		return out.Bytes()
	}
	if code, text := put("", make([]byte, 1<<20+1), 1<<20+1); code != http.StatusInsufficientStorage || !strings.Contains(text, "edgeherd model retire") {
		t.Errorf("a file without room: %d %s", code, text)
	}
	if code, text := put("?packed", pack(2<<20), 2<<20); code != http.StatusInsufficientStorage {
		t.Errorf("a pack of which the file has no room: %d %s", code, text)
	}
	if code, text := put("?packed", pack(1 << 20)[:200], 1<<20); code != http.StatusUnprocessableEntity && code != http.StatusBadRequest {
		t.Errorf("half a pack: %d %s", code, text)
	}
	// Uploads side by side are promised the same room once.
	give, err := w.api.room.take("", w.api.opts.FreeBytes, 1)
	must(t, err)
	if code, _ := put("", make([]byte, 1<<20), 1<<20); code != http.StatusInsufficientStorage {
		t.Error("room was promised twice")
	}
	give()
	if code, text := put("?packed", pack(1<<20), 1<<20); code != http.StatusCreated {
		t.Errorf("what fits: %d %s", code, text)
	}
}
