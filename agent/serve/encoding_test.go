package serve

import (
	"bytes"
	"net/http/httptest"
	"testing"
)

// TestACodingIsChargedToTheGate: the encoder as well as its result. Where there is
// no memory for both the answer goes as it is.
func TestACodingIsChargedToTheGate(t *testing.T) {
	answer := bytes.Repeat([]byte("[1,2.5],"), encodeFrom)
	for _, c := range []struct {
		name   string
		room   int
		coding string
	}{
		{"room for both", len(answer) + encoderBytes, codeGzip},
		{"not for the encoder", len(answer) + encoderBytes - 1, ""},
	} {
		for _, asked := range []string{codeGzip, ""} {
			g := &gate{maxRequests: 1, maxBytes: int64(c.room)}
			place, err := g.enter(0)
			if err != nil {
				t.Fatal(err)
			}
			rec := httptest.NewRecorder()
			new(Server).reply(rec, answer, nil, asked, place)
			want := c.coding
			if asked == "" {
				want = ""
			}
			if got := rec.Header().Get("Content-Encoding"); got != want {
				t.Errorf("%s, asked for %q: %q, want %q", c.name, asked, got, want)
			}
			if asked == "" && g.bytes.Load() != 0 {
				t.Errorf("an answer that goes as it is costs %d bytes", g.bytes.Load())
			}
			if place.leave(); g.bytes.Load() != 0 {
				t.Errorf("%d bytes are not given back", g.bytes.Load())
			}
		}
	}
}
