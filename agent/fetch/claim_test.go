package fetch

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
)

// A stick does not wait for the line: the same download over it, which sleeps
// through a quiet time, makes way.
func TestADownloadOverTheLineMakesWayForAStick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, err := blob.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		f, err := New(Options{Blobs: store, Client: &http.Client{}, BaseURL: "https://ctl"}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		f.SetPace(0, []Quiet{{time.Now(), time.Now().Add(time.Hour)}})
		d := blob.Sum([]byte("weights"))
		ended := make(chan error, 1)
		go func() { ended <- f.Blob(t.Context(), d, 7, nil) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(Local(t.Context()), time.Minute)
		defer cancel()
		claimed, err := f.claim(ctx, d)
		if err != nil {
			t.Fatalf("the stick waits for the line: %v", err)
		}
		if err := <-ended; !errors.Is(err, errYields) {
			t.Errorf("the line ended with %v", err)
		}
		if err := f.gate.wait(claimed); err != nil {
			t.Errorf("a quiet time holds a stick up: %v", err)
		}
		f.release(d)
	})
}
