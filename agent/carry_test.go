package agent

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeherd/edgeherd/agent/fetch"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/deviceapi"
	"github.com/edgeherd/edgeherd/internal/durable"
)

// swallow is a controller whose port takes all and answers nothing.
type swallow struct{}

func (swallow) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// neighbours is a box that shares what it has.
type neighbours struct{}

func (neighbours) Address() string { return "10.0.0.7:9444" }

func (neighbours) Frame(context.Context, deviceapi.Peer, fetch.Frame) ([]byte, error) {
	return nil, fetch.ErrNotFound
}

// TestAStickIsNotKeptWaitingByWhatEarlierOnesBrought: the controller cannot be told where
// downloads do not pass, and that is where sticks are used.
func TestAStickIsNotKeptWaitingByWhatEarlierOnesBrought(t *testing.T) {
	a := &Agent{opts: Options{State: t.TempDir()}, log: slog.New(slog.DiscardHandler)}
	var err error
	if a.blobs, err = blob.Open(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	var all []brought
	for i := range byte(3) {
		data := bytes.Repeat([]byte{i}, blob.FrameBytes+1)
		all = append(all, brought{Digest: blob.Sum(data)})
		if err := a.blobs.Put(bytes.NewReader(data), blob.Sum(data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := durable.MkdirAll(ImportDir(a.opts.State), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := a.broughtJournal().Save(all); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		a.fetcher, err = fetch.New(fetch.Options{
			Peers: neighbours{}, Blobs: a.blobs, BaseURL: "https://ctl:2", Client: &http.Client{Transport: swallow{}},
		}, a.log)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := a.announceBrought(t.Context()); err == nil || time.Since(began) > announceFor {
			t.Errorf("took %s, %v", time.Since(began), err)
		}
	})
}
