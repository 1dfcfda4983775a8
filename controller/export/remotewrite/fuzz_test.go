package remotewrite

import (
	"bufio"
	"bytes"
	"errors"
	"net/http"
	"testing"
)

// FuzzAnswer: whatever a receiver answers is one of three things, and none has
// the exporter wait for long.
func FuzzAnswer(f *testing.F) {
	for _, text := range []string{
		"HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 400 x\r\n\r\nout of order", "HTTP/1.1 429 x\r\nRetry-After: 7\r\n\r\n",
		"HTTP/1.1 503 x\r\nRetry-After: Fri, 31 Dec 9999 23:59:59 GMT\r\n\r\n", "HTTP/1.1 503 x\r\nRetry-After: -1\r\n\r\n",
		"HTTP/1.1 503 x\r\nRetry-After: 99999999999999999999\r\n\r\n", "HTTP/1.1 302 x\r\nLocation: /\r\n\r\n", "HTTP/1.1 000 x\r\n\r\n", "HTTP/1.1 999 x\r\n\r\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(data)), nil)
		if err != nil {
			return
		}
		var refused *refusedError
		var again *againError
		err = verdict(resp, "text")
		switch {
		case err == nil:
			if resp.StatusCode/100 != 2 {
				t.Errorf("%d is taken as success", resp.StatusCode)
			}
		case errors.As(err, &refused):
			if resp.StatusCode/100 != 4 || resp.StatusCode == http.StatusTooManyRequests {
				t.Errorf("%d drops samples", resp.StatusCode)
			}
		case !errors.As(err, &again) || again.after < 0 || again.after > maxRetryAfter:
			t.Errorf("%d: %#v", resp.StatusCode, err)
		}
	})
}
