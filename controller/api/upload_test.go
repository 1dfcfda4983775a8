package api

import (
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/controller/deliver"
	"github.com/edgeherd/edgeherd/internal/blob"
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
